/* kernels_math.h - what the kernel files share: the instruction sets they are compiled for, elementary functions
 * that vectorise, and sums over a row.
 *
 * Every operation is written out in a fixed order and none is fused (-std=c11), so the results are the
 * same bytes on every instruction set and for every number of threads.
 */
#ifndef BG_KERNELS_MATH_H
#define BG_KERNELS_MATH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A function so marked is compiled three times; the loader picks by CPU.  Its helpers must be BG_INLINE to
 * be compiled with it.  ifunc resolvers run before AddressSanitizer is ready. */
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define BG_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define BG_CLONES
#endif
#define BG_INLINE __attribute__((always_inline)) static inline

/* exp(x): within 1 ulp, gradual underflow to 0, overflow to inf, NaN to NaN.
 * x = n ln 2 + r; the polynomial on |r| <= ln 2 / 2 is Cephes' expf (S. Moshier). */
BG_INLINE float bg_exp(float x)
{
    const float round = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    x = x < -104.0f ? -104.0f : x;   /* this way round a NaN stays */
    x = x > 89.0f ? 89.0f : x;
    float shifted = x * 1.44269504088896341f + round;
    float n = shifted - round;
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f; /* ln 2 in two parts, the first product exact */
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    /* 2^n as the product of two powers: n may lie outside a float's exponents */
    uint32_t bits, half, rest;
    memcpy(&bits, &shifted, sizeof bits);
    bits -= 0x4B400000u; /* n, two's complement */
    half = (uint32_t)((int32_t)bits >> 1);
    rest = (bits - half + 127u) << 23;
    half = (half + 127u) << 23;
    float scale_1, scale_2;
    memcpy(&scale_1, &half, sizeof half);
    memcpy(&scale_2, &rest, sizeof rest);
    return p * scale_1 * scale_2;
}

BG_INLINE float bg_abs(float x) { return x < 0.0f ? -x : x; }

/* The logistic function of z and of -z: both to full relative precision. */
typedef struct {
    float plus, minus;
} bg_sigmoid_pair;

BG_INLINE bg_sigmoid_pair bg_sigmoid(float z)
{
    float e = bg_exp(-bg_abs(z));
    float large = 1.0f / (1.0f + e), small = e * large;
    return (bg_sigmoid_pair){ z < 0.0f ? small : large, z < 0.0f ? large : small };
}

/* exp(x) - 1 for x <= 0, within 2e-7 of itself: near 0 by a polynomial (Cephes' expm1f scheme), elsewhere without
 * cancellation. */
BG_INLINE float bg_expm1(float x)
{
    float s = x > -0.5f ? x : -0.5f;
    float p = 1.0f / 40320.0f;
    p = p * s + 1.0f / 5040.0f;
    p = p * s + 1.0f / 720.0f;
    p = p * s + 1.0f / 120.0f;
    p = p * s + 1.0f / 24.0f;
    p = p * s + 1.0f / 6.0f;
    p = p * s + 0.5f;
    return x > -0.5f ? s + s * s * p : bg_exp(x) - 1.0f;
}

/* tanh(x) to 3e-7 of itself; NaN to NaN.  Small |x|: Cephes' tanhf (S. Moshier). */
BG_INLINE float bg_tanh(float x)
{
    float a = bg_abs(x), z = x * x;
    float p = -5.70498872745e-3f;
    p = p * z + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    float e = bg_exp(-2.0f * a), large = (1.0f - e) / (1.0f + e);
    return a < 0.625f ? x + x * z * p : x < 0.0f ? -large : large;
}

/* The normal distribution at x: cumulative to 2e-7, density. */
typedef struct {
    float cumulative, density;
} bg_normal_at;

/* Tail: Phi(-|x|) = exp(-x²/2) t P(t), t = 1 / (1 + 0.35 |x|), P fitted to a relative error of 4e-8
 * (3.5e-7 in float32) on |x| <= 15, where the tail has underflown. */
BG_INLINE bg_normal_at bg_normal(float x)
{
    float e = bg_exp(-0.5f * x * x);
    float t = 1.0f / (1.0f + 0.35f * bg_abs(x));
    float p = -0.0291639325f;
    p = p * t + 0.144060834f;
    p = p * t - 0.255901927f;
    p = p * t + 0.159392982f;
    p = p * t - 0.0232638813f;
    p = p * t + 0.10557482f;
    p = p * t + 0.119815494f;
    p = p * t + 0.139864337f;
    p = p * t + 0.139621258f;
    float tail = e * (p * t);
    return (bg_normal_at){ x < 0.0f ? tail : 1.0f - tail, 0.398942280f * e };
}

/* Sums over a row: 16 lanes, each adding 4 terms in float32 and such fours in float64; lanes are added in order. */
enum { BG_LANES = 16, BG_BLOCK = 4 * BG_LANES };

typedef enum {
    BG_SUM,            /* x            */
    BG_SUM_SQUARE,     /* (x - shift)² */
    BG_SUM_XY,         /* x y          */
    BG_SUM_XY_SHIFTED, /* x (y - shift)   */
    BG_SUM_XYZ         /* x y (z - shift) */
} bg_term;

typedef struct {
    const float *x, *y, *z;
    float shift;
} bg_terms;

BG_INLINE float bg_term_at(bg_term term, bg_terms a, size_t j)
{
    switch (term) {
    case BG_SUM: return a.x[j];
    case BG_SUM_SQUARE: return (a.x[j] - a.shift) * (a.x[j] - a.shift);
    case BG_SUM_XY: return a.x[j] * a.y[j];
    case BG_SUM_XY_SHIFTED: return a.x[j] * (a.y[j] - a.shift);
    case BG_SUM_XYZ: return a.x[j] * a.y[j] * (a.z[j] - a.shift);
    }
    return 0;
}

BG_INLINE double bg_row_sum(bg_term term, size_t d, bg_terms a)
{
    double lane[BG_LANES] = { 0 };
    size_t j = 0;
    for (; j + BG_BLOCK <= d; j += BG_BLOCK) {
#pragma omp simd
        for (size_t l = 0; l < BG_LANES; l++) {
            size_t i = j + l;
            lane[l] += (double)((bg_term_at(term, a, i) + bg_term_at(term, a, i + BG_LANES)) +
                                (bg_term_at(term, a, i + 2 * BG_LANES) + bg_term_at(term, a, i + 3 * BG_LANES)));
        }
    }
    for (; j + BG_LANES <= d; j += BG_LANES) {
#pragma omp simd
        for (size_t l = 0; l < BG_LANES; l++)
            lane[l] += (double)bg_term_at(term, a, j + l);
    }
    for (size_t l = 0; j < d; j++, l++)
        lane[l] += (double)bg_term_at(term, a, j);
    double sum = 0;
    for (size_t l = 0; l < BG_LANES; l++)
        sum += lane[l];
    return sum;
}

#endif /* BG_KERNELS_MATH_H */
