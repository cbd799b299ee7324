/* gemm.c - the table of backends, and its one entry: any CBLAS.
 *
 * Which library it is becomes known at run time, through functions of OpenBLAS, MKL and BLIS declared weak: any
 * other CBLAS works too, only its name and its threads are out of reach.  OpenBLAS of the PyPI package
 * scipy-openblas32 (newer kernels than Debian 12's) carries a prefix on its symbols and brings LAPACKE along:
 *     export PKG_CONFIG_PATH=$(python3 -c 'import scipy_openblas32 as b; print(b.get_lib_dir())')/pkgconfig
 *     make BLAS_PKG=scipy-openblas LAPACKE_CFLAGS= LAPACKE_LIBS=
 * Its pkg-config file defines BLAS_SYMBOL_PREFIX (blas_names.h).
 */
#include "bregman/gemm.h"

#include <assert.h>
#include <limits.h>
#include <omp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "blas_names.h"
#include "bregman/threads.h"
#include "fma_probe.h"

#define WEAK __attribute__((weak))
void BG_BLAS(openblas_set_num_threads)(int n) WEAK;
int BG_BLAS(openblas_get_parallel)(void) WEAK;
char *BG_BLAS(openblas_get_config)(void) WEAK;
char *BG_BLAS(openblas_get_corename)(void) WEAK;
void MKL_Set_Num_Threads(int n) WEAK;
void MKL_Get_Version_String(char *out, int length) WEAK;
void bli_thread_set_num_threads(long n) WEAK;
const char *bli_info_get_version_str(void) WEAK;

static const char *const openblas_threading[] = { "sequential", "pthreads", "openmp" };
enum { OPENBLAS_BY_OPENMP = 2 };

static _Atomic uint64_t flops;
static _Atomic int n_threads; /* 0: as the library chose */
static bool serial;           /* between bg_gemm_serial_begin and _end, */
static int omp_threads;       /* and what OpenMP had before */

static bool takes_f32(bg_number a, bg_number b) { return a == BG_NUMBER_F32 && b == BG_NUMBER_F32; }

static void sgemm(bg_extent e, float alpha, bg_operand a, bg_operand b, float beta, float *c, size_t ldc)
{
    BG_BLAS(cblas_sgemm)(CblasRowMajor, a.op == BG_N ? CblasNoTrans : CblasTrans,
                         b.op == BG_N ? CblasNoTrans : CblasTrans, (int)e.m, (int)e.n, (int)e.k, alpha, a.x, (int)a.ld,
                         b.x, (int)b.ld, beta, c, (int)ldc);
}

static void set_library_threads(int n)
{
    if (BG_BLAS(openblas_set_num_threads) != NULL)
        BG_BLAS(openblas_set_num_threads)(n);
    if (MKL_Set_Num_Threads != NULL)
        MKL_Set_Num_Threads(n);
    if (bli_thread_set_num_threads != NULL)
        bli_thread_set_num_threads(n);
}

static void describe_library(char *out, size_t size)
{
    char version[128] = "";
    if (BG_BLAS(openblas_get_config) != NULL && BG_BLAS(openblas_get_corename) != NULL) {
        int by = BG_BLAS(openblas_get_parallel) != NULL ? BG_BLAS(openblas_get_parallel)() : 0;
        (void)sscanf(BG_BLAS(openblas_get_config)(), "OpenBLAS %63s", version);
        snprintf(out, size, "OpenBLAS %s %s, %s", version, BG_BLAS(openblas_get_corename)(),
                 openblas_threading[by >= 0 && by <= OPENBLAS_BY_OPENMP ? by : 0]);
    } else if (MKL_Get_Version_String != NULL) {
        MKL_Get_Version_String(version, (int)sizeof version - 1);
        snprintf(out, size, "%s", version);
    } else if (bli_info_get_version_str != NULL) {
        snprintf(out, size, "BLIS %s", bli_info_get_version_str());
    } else {
        snprintf(out, size, "a CBLAS that does not tell its name");
    }
}

/* The first that can take both numbers multiplies them. */
static const struct {
    const char *precision; /* of its products */
    void (*describe)(char *out, size_t size);
    bool (*can)(bg_number a, bg_number b);
    void (*product)(bg_extent e, float alpha, bg_operand a, bg_operand b, float beta, float *c, size_t ldc);
    void (*set_threads)(int n);
} backend[] = { { "float32", describe_library, takes_f32, sgemm, set_library_threads } };
enum { N_BACKENDS = sizeof backend / sizeof backend[0] };

static size_t backend_for(bg_number a, bg_number b)
{
    size_t i = 0;
    while (i < N_BACKENDS && !backend[i].can(a, b))
        i++;
    assert(i < N_BACKENDS);
    return i;
}

const char *bg_gemm_precision(void) { return backend[0].precision; }

static void set_threads(int n)
{
    for (size_t i = 0; i < N_BACKENDS; i++)
        backend[i].set_threads(n);
}

void bg_gemm_set_threads(int n)
{
    assert(n >= 1);
    n_threads = n;
    set_threads(n);
}

/* OpenBLAS's OpenMP flavour changes the caller's OpenMP threads along with its own; it must, as newer versions look at
 * those in each call. */
void bg_gemm_serial_begin(void)
{
    assert(!serial && !omp_in_parallel());
    serial = true;
    omp_threads = omp_get_max_threads();
    set_threads(1);
}

void bg_gemm_serial_end(void)
{
    assert(serial);
    set_threads(n_threads > 0 ? n_threads : omp_threads);
    omp_set_num_threads(omp_threads);
    serial = false;
}

static bool is_shared_out(bg_extent e) { return (double)e.m * (double)e.n * (double)e.k > BG_PARALLEL_PRODUCTS; }

void bg_gemm(bg_extent e, float alpha, bg_operand a, bg_operand b, float beta, float *c, size_t ldc)
{
    if (e.m == 0 || e.n == 0)
        return;
    assert(ldc >= e.n);
    if (e.k == 0) {
        for (size_t i = 0; i < e.m; i++)
            for (size_t j = 0; j < e.n; j++)
                c[i * ldc + j] = beta == 0 ? 0 : beta * c[i * ldc + j];
        return;
    }
    assert(e.m <= INT_MAX && e.n <= INT_MAX && e.k <= INT_MAX);
    assert(a.ld <= INT_MAX && b.ld <= INT_MAX && ldc <= INT_MAX);
    assert(a.ld >= (a.op == BG_N ? e.k : e.m) && b.ld >= (b.op == BG_N ? e.n : e.k));
    bool alone = !serial && n_threads != 1 && !omp_in_parallel() && !is_shared_out(e);
    if (alone)
        bg_gemm_serial_begin();
    backend[backend_for(a.type, b.type)].product(e, alpha, a, b, beta, c, ldc);
    if (alone)
        bg_gemm_serial_end();
    atomic_fetch_add_explicit(&flops, 2 * (uint64_t)e.m * e.n * e.k, memory_order_relaxed);
}

uint64_t bg_gemm_flops(void) { return atomic_load_explicit(&flops, memory_order_relaxed); }

const char *bg_gemm_library(void)
{
    static char name[256];
#pragma omp critical(bg_gemm_library)
    if (name[0] == '\0')
        backend[backend_for(BG_NUMBER_F32, BG_NUMBER_F32)].describe(name, sizeof name);
    return name;
}

static double best_gemm_s(size_t side, const float *a, float *c)
{
    double best = 1e30;
    for (int i = 0; i < 6; i++) {
        double start = omp_get_wtime();
        bg_gemm((bg_extent){ side, side, side }, 1, bg_f32(BG_N, a, side), bg_f32(BG_N, a, side), 0, c, side);
        double s = omp_get_wtime() - start;
        best = s < best ? s : best;
    }
    return best;
}

double bg_gemm_efficiency(void)
{
    const size_t side = 512;
    float *ac = malloc(2 * side * side * sizeof *ac);
    if (ac == NULL)
        return 1; /* nothing was measured: no reason to warn */
    for (size_t i = 0; i < side * side; i++)
        ac[i] = (float)(i % 17) - 8;
    bg_gemm_serial_begin();
    double gemm_s = best_gemm_s(side, ac, ac + side * side);
    bg_gemm_serial_end();
    free(ac);
    return 2.0 * (double)(side * side * side) / gemm_s / bg_fma_flops_per_s();
}
