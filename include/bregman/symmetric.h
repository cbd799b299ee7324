/* symmetric.h - symmetric accumulators.
 *
 * A symmetric n x n matrix cut into k diagonal blocks, equal to a row (math.md M7;
 * block j covers [j*n/k, (j+1)*n/k)), of which only the lower triangle is kept, in column
 * panels: no second triangle in memory, at the speed of GEMM.  k = n keeps the diagonal alone. */
#ifndef BG_SYMMETRIC_H
#define BG_SYMMETRIC_H

#include <stdbool.h>
#include <stddef.h>

#include "bregman/cost.h"
#include "bregman/gemm.h"

typedef struct {
    size_t n, k;
} bg_symmetric;
static inline bool bg_symmetric_is_diagonal(bg_symmetric s) { return s.k == s.n; }
size_t bg_symmetric_floats(bg_symmetric s); /* to allocate */
/* S += Xᵀ X, X [rows, n]; only within diagonal blocks.  Cost about rows * n² / k FLOPs. */
void bg_symmetric_add(bg_symmetric s, float *sum, size_t rows, const float *x, size_t ldx);
/* S += X Y of float32 operands X [n, rows] and Y [rows, n], as they are after their op, whose product is symmetric by
 * what they are: with Y = Xᵀ, or with Y = K Xᵀ and K symmetric.  The same cost. */
void bg_symmetric_add_product(bg_symmetric s, float *sum, size_t rows, bg_operand x, bg_operand y);
void bg_symmetric_cost(bg_cost *cost, bg_symmetric s, double rows);
size_t bg_symmetric_side(bg_symmetric s, size_t j); /* of diagonal block j */
/* Where the panel that has column c of diagonal block j begins in the sums.  It holds columns [*c0, *c0 + *w) of the
 * block from row *c0 down, row-major [side - *c0, *w]; what is above the diagonal in it is no part of the matrix.
 * Panels follow one another, in order of their columns, block after block. */
size_t bg_symmetric_panel(bg_symmetric s, size_t j, size_t c, size_t *c0, size_t *w);

#endif /* BG_SYMMETRIC_H */
