#include "fma_probe.h"

#include <omp.h>

enum { CHAINS = 8, STEPS = 500000, REPEATS = 3 };

/* CHAINS independent multiply-adds cover the units' latency (4 cycles) times their number (2).
 * -std=c11 forbids fusing a * x + y, hence the attribute. */
#define DEFINE_FMA_LOOP(name, floats, target_attribute)                                                                \
    typedef float name##_vector __attribute__((vector_size(4 * (floats))));                                            \
    target_attribute __attribute__((noinline, optimize("O3", "fp-contract=fast"))) static float name(float x, float y) \
    {                                                                                                                  \
        name##_vector a[CHAINS], factor = x - (name##_vector){ 0 };                                                    \
        for (int c = 0; c < CHAINS; c++) /* all different, or they would be one */                                     \
            a[c] = factor * (float)c;                                                                                  \
        for (int s = 0; s < STEPS; s++) {                                                                              \
            _Pragma("GCC unroll 8") for (int c = 0; c < CHAINS; c++) a[c] = a[c] * factor + y;                         \
        }                                                                                                              \
        for (int c = 1; c < CHAINS; c++)                                                                               \
            a[0] += a[c];                                                                                              \
        return a[0][0];                                                                                                \
    }

DEFINE_FMA_LOOP(fma_128, 4, )
#ifdef __x86_64__
DEFINE_FMA_LOOP(fma_256, 8, __attribute__((target("avx2,fma"))))
DEFINE_FMA_LOOP(fma_512, 16, __attribute__((target("avx512f"))))
#endif

double bg_fma_flops_per_s(void)
{
    float (*loop)(float, float) = fma_128;
    double floats = 4;
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx512f")) {
        loop = fma_512;
        floats = 16;
    } else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        loop = fma_256;
        floats = 8;
    }
#endif
    double best_s = 1e30;
    volatile float sink = 0;
    for (int i = 0; i < REPEATS; i++) {
        double start = omp_get_wtime();
        sink = loop(0.5f, 1.0f);
        double s = omp_get_wtime() - start;
        best_s = s < best_s ? s : best_s;
    }
    (void)sink;
    return 2.0 * CHAINS * floats * STEPS / best_s;
}
