/* gemm.h - the one door to matrix products.  Every product of the project passes here, so
 * that another library or precision is one change, and executed FLOPs are counted.
 * Row-major throughout: X[i][j] is x[i * ld + j].
 *
 * Behind it is a table of backends (gemm.c).  Each says which pairs of numbers it multiplies, and the first that takes
 * a pair gets it; operands reach it as they are, nothing is widened on the way.  There is one today, the BLAS, for
 * float32 times float32.  A caller with narrower numbers widens them first (bg_tensor_widen); once a backend takes
 * them, it hands them over as they are.  Sums and C are float32 whatever the operands are.
 */
#ifndef BG_GEMM_H
#define BG_GEMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bregman/number.h"
#include "bregman/status.h"

typedef enum { BG_N, BG_T } bg_op;

/* A matrix that is read, lent: what is stored, or for BG_T the transpose of that.  ld: numbers from one stored row to
 * the next. */
typedef struct {
    const void *x;
    size_t ld;
    bg_number type;
    bg_op op;
} bg_operand;

static inline bg_operand bg_f32(bg_op op, const float *x, size_t ld)
{
    return (bg_operand){ x, ld, BG_NUMBER_F32, op };
}

typedef struct {
    size_t m, n, k;
} bg_extent;

/* C [m, n] = alpha A B + beta C, with the operands A [m, k] and B [k, n] as they are after their op.
 * Numbers that no backend takes, dimensions that do not fit in int and an ld below a row are asserted.  Zero dimensions
 * are fine (k = 0 scales C); beta = 0 overwrites C whatever it holds.  C overlaps neither operand.
 * Runs on the BLAS's threads if the product is worth it (threads.h).  May be called inside a parallel region between
 * bg_gemm_serial_begin and _end: then each call runs on the calling thread. */
void bg_gemm(bg_extent e, float alpha, bg_operand a, bg_operand b, float beta, float *c, size_t ldc);

/* FLOPs executed by bg_gemm in this process so far (2 m n k each), by all threads. */
uint64_t bg_gemm_flops(void);

/* Threads used by all backends from now on; called by the main thread, outside parallel regions. */
void bg_gemm_set_threads(int n);
/* In between, every product and every call of LAPACK runs on the thread that makes it.  They go around a parallel
 * region with such calls in it, and around LAPACK on a matrix too small to be shared out (threads.h); bg_gemm sees to
 * small products itself.  Called by the main thread, outside parallel regions, not nested.  A region in between says
 * its num_threads: OpenMP's own number may be 1 there. */
void bg_gemm_serial_begin(void);
void bg_gemm_serial_end(void);

/* The least precise numbers that a product may be made of here: "float32".  Part of what a result depends on. */
const char *bg_gemm_precision(void);

/* What multiplies float32: "OpenBLAS 0.3.21 SkylakeX, openmp" or what can be found out; static storage. */
const char *bg_gemm_library(void);

/* GFLOP/s of a 512 x 512 x 512 product here over that of a bare FMA loop on one core: a library
 * too old for the CPU shows as < 0.7.  About 50 ms. */
double bg_gemm_efficiency(void);

#endif /* BG_GEMM_H */
