/* blockdiag.h - square matrices of k diagonal blocks, equal to a row (math.md M7); k = 1 is a full matrix.
 *
 * k = n is a diagonal one.
 *
 * Stored as [n, width], width the largest block's side: row i holds its block's row, so k = 1 is
 * the plain row-major matrix.  Block j covers rows and columns [bg_block_start(n, k, j), bg_block_start(n, k, j + 1)).
 */
#ifndef BG_BLOCKDIAG_H
#define BG_BLOCKDIAG_H

#include <stddef.h>

#include "bregman/cost.h"
#include "bregman/gemm.h"
#include "bregman/symmetric.h"

typedef struct {
    size_t n, k, width;
    float *a; /* [n, width] */
} bg_blockdiag;

static inline size_t bg_block_start(size_t n, size_t k, size_t j) { return j * n / k; }

/* Side of the largest block: ceil(n / k). */
static inline size_t bg_block_width(size_t n, size_t k) { return (n + k - 1) / k; }

/* Y = X op(Q): X, Y [rows, n].  Y and X must not overlap. */
void bg_blockdiag_apply(const bg_blockdiag *q, bg_op op, size_t rows, const float *x, size_t ldx, float *y, size_t ldy);
/* Y = op(Q) X: X, Y [n, columns]. */
void bg_blockdiag_apply_left(const bg_blockdiag *q, bg_op op, size_t columns, const float *x, size_t ldx, float *y,
                             size_t ldy);

/* Of either, of a matrix of k blocks and so many rows or columns, `times` over. */
void bg_blockdiag_cost(bg_cost *cost, bg_symmetric s, double rows, double times);

#endif /* BG_BLOCKDIAG_H */
