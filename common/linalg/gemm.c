/* gemm.c - matrix products by any CBLAS.
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

static void set_library_threads(int n)
{
    if (BG_BLAS(openblas_set_num_threads) != NULL)
        BG_BLAS(openblas_set_num_threads)(n);
    if (MKL_Set_Num_Threads != NULL)
        MKL_Set_Num_Threads(n);
    if (bli_thread_set_num_threads != NULL)
        bli_thread_set_num_threads(n);
}

void bg_gemm_set_threads(int n)
{
    assert(n >= 1);
    n_threads = n;
    set_library_threads(n);
}

/* OpenBLAS's OpenMP flavour changes the caller's OpenMP threads along with its own; it must, as newer versions look at
 * those in each call. */
void bg_gemm_serial_begin(void)
{
    assert(!serial && !omp_in_parallel());
    serial = true;
    omp_threads = omp_get_max_threads();
    set_library_threads(1);
}

void bg_gemm_serial_end(void)
{
    assert(serial);
    set_library_threads(n_threads > 0 ? n_threads : omp_threads);
    omp_set_num_threads(omp_threads);
    serial = false;
}

static bool is_shared_out(size_t m, size_t n, size_t k)
{
    return (double)m * (double)n * (double)k > BG_PARALLEL_PRODUCTS;
}

void bg_gemm(bg_op op_a, bg_op op_b, size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
             const float *b, size_t ldb, float beta, float *c, size_t ldc)
{
    if (m == 0 || n == 0)
        return;
    assert(ldc >= n);
    if (k == 0) {
        for (size_t i = 0; i < m; i++)
            for (size_t j = 0; j < n; j++)
                c[i * ldc + j] = beta == 0 ? 0 : beta * c[i * ldc + j];
        return;
    }
    assert(m <= INT_MAX && n <= INT_MAX && k <= INT_MAX);
    assert(lda <= INT_MAX && ldb <= INT_MAX && ldc <= INT_MAX);
    assert(lda >= (op_a == BG_N ? k : m) && ldb >= (op_b == BG_N ? n : k));
    bool alone = !serial && n_threads != 1 && !omp_in_parallel() && !is_shared_out(m, n, k);
    if (alone)
        bg_gemm_serial_begin();
    BG_BLAS(cblas_sgemm)(CblasRowMajor, op_a == BG_N ? CblasNoTrans : CblasTrans,
                         op_b == BG_N ? CblasNoTrans : CblasTrans, (int)m, (int)n, (int)k, alpha, a, (int)lda, b,
                         (int)ldb, beta, c, (int)ldc);
    if (alone)
        bg_gemm_serial_end();
    atomic_fetch_add_explicit(&flops, 2 * (uint64_t)m * n * k, memory_order_relaxed);
}

uint64_t bg_gemm_flops(void) { return atomic_load_explicit(&flops, memory_order_relaxed); }

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

const char *bg_gemm_library(void)
{
    static char name[256];
#pragma omp critical(bg_gemm_library)
    if (name[0] == '\0')
        describe_library(name, sizeof name);
    return name;
}

static double best_gemm_s(size_t side, const float *a, float *c)
{
    double best = 1e30;
    for (int i = 0; i < 6; i++) {
        double start = omp_get_wtime();
        bg_gemm(BG_N, BG_N, side, side, side, 1, a, side, a, side, 0, c, side);
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
