/* gemm.h - the one door to matrix products.  Every product of the project passes here, so
 * that another library or precision is one change, and executed FLOPs are counted.
 * Row-major throughout: X[i][j] is x[i * ldx + j].
 */
#ifndef BG_GEMM_H
#define BG_GEMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bregman/status.h"

typedef enum { BG_N, BG_T } bg_op;

/* C [m, n] = alpha op(A) op(B) + beta C, with op(A) [m, k], op(B) [k, n]; float32.
 * Dimensions fit in int (asserted).  Zero dimensions are fine (k = 0 scales C).
 * Runs on the BLAS's threads if the product is worth it (threads.h).  May be called inside a parallel region between
 * bg_gemm_serial_begin and _end: then each call runs on the calling thread. */
void bg_gemm(bg_op op_a, bg_op op_b, size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
             const float *b, size_t ldb, float beta, float *c, size_t ldc);

/* FLOPs executed by bg_gemm in this process so far (2 m n k each), by all threads. */
uint64_t bg_gemm_flops(void);

/* Threads used by the BLAS from now on; called by the main thread, outside parallel regions. */
void bg_gemm_set_threads(int n);
/* In between, every call of BLAS and LAPACK runs on the thread that makes it.  They go around a parallel region with
 * such calls in it, and around LAPACK on a matrix too small to be shared out (threads.h); bg_gemm sees to small
 * products itself.  Called by the main thread, outside parallel regions, not nested.  A region in between says its
 * num_threads: OpenMP's own number may be 1 there. */
void bg_gemm_serial_begin(void);
void bg_gemm_serial_end(void);

/* "OpenBLAS 0.3.21 SkylakeX, openmp" or what can be found out; static storage. */
const char *bg_gemm_library(void);

/* GFLOP/s of a 512 x 512 x 512 product here over that of a bare FMA loop on one core: a library
 * too old for the CPU shows as < 0.7.  About 50 ms. */
double bg_gemm_efficiency(void);

#endif /* BG_GEMM_H */
