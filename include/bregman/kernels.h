/* kernels.h - the element-wise and row-wise arithmetic of a transformer, forward and backward,
 * vectorised.  Row-major, ld in floats, float32; sums over a row in float32 over at most 64 elements and float64
 * above (error < 1e-6 relative).
 *
 * Threads: with more than BG_PARALLEL_FLOATS elements (threads.h), bg_norm_*, bg_act_*, bg_gated_*, bg_rope_apply,
 * bg_add, bg_add_bias and bg_group_dot share out their rows and bg_add_square its elements.  Each row is one thread's,
 * so the bytes are the same for any number of threads.  bg_rope_table and the softmax and sampling functions run on
 * the calling thread.  All may be called inside a parallel region: there each runs on the calling thread.
 */
#ifndef BG_KERNELS_H
#define BG_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "bregman/model_config.h"

/* y[i] = norm(x[i]) * gain + bias for rows i < n of d columns.  bias NULL: none (RMS norm has none).
 * Layer norm: (x - mean) / sqrt(var + eps); RMS norm: x / sqrt(mean(x²) + eps). */
void bg_norm_forward(bg_norm_kind kind, size_t n, size_t d, const float *x, size_t ldx, const float *gain,
                     const float *bias, double epsilon, float *y, size_t ldy);
/* dx[i] += (or =, if !accumulate) the gradient through norm at x[i] of dy[i]; statistics are recomputed from x.
 * dy and dx may be the same array (then !accumulate). */
void bg_norm_backward(bg_norm_kind kind, size_t n, size_t d, const float *x, size_t ldx, const float *gain,
                      double epsilon, const float *dy, size_t lddy, float *dx, size_t lddx, int accumulate);

/* y = act(x), and dx = dy * act'(x) (dx may be dy).  n rows of d columns. */
void bg_act_forward(bg_activation act, size_t n, size_t d, const float *x, size_t ldx, float *y, size_t ldy);
void bg_act_backward(bg_activation act, size_t n, size_t d, const float *x, size_t ldx, const float *dy, size_t lddy,
                     float *dx, size_t lddx);
/* Gated: h = act(gate) * up;  dgate = dh * up * act'(gate), dup = dh * act(gate). dgate/dup may not alias dh. */
void bg_gated_forward(bg_activation act, size_t n, size_t d, const float *gate, size_t ldg, const float *up, size_t ldu,
                      float *h, size_t ldh);
void bg_gated_backward(bg_activation act, size_t n, size_t d, const float *gate, size_t ldg, const float *up,
                       size_t ldu, const float *dh, size_t lddh, float *dgate, size_t lddg, float *dup, size_t lddu);

/* Rotary embedding in place (direction +1), or its transpose (-1, the backward), on heads of
 * d_head floats: x[row] points at the first head, heads are head_stride apart; the first rotary_dims of a head are
 * rotated, pairs (i, i + rotary_dims/2).  table: [max position, rotary_dims] floats, cos in the first half of a row,
 * sin in the second (bg_rope_table); position[row]. */
void bg_rope_table(const bg_model_config *c, size_t n_positions, float *table);
void bg_rope_apply(size_t n, size_t n_heads, size_t rotary_dims, float *x, size_t ldx, size_t head_stride,
                   const uint32_t *position, const float *table, int direction);

/* In place softmax of rows [n, <=ld] with a causal limit: row i keeps columns 0..limit0 + i, the others up
 * to `columns` become 0.  s is multiplied by scale first. */
void bg_softmax_causal(size_t n, size_t columns, size_t limit0, float scale, float *s, size_t ld);
/* Its gradient: from those of the probabilities, dP [n, columns], to those of the scores, dS = P (dP - dot) scale, in
 * place. dot [in, n]: of each row, the sum of P dP, which attention has as the sum of dO O. */
void bg_softmax_backward(size_t n, size_t columns, float scale, const float *prob, const float *dot, float *ds);

/* One row of logits x[v] -> probabilities in place; returns log sum exp (float64, of the raw logits). */
double bg_softmax_row(size_t v, float *x);
/* First index at which the running sum of p[0..v) exceeds u * (its total), 0 <= u < 1: a draw from p. */
size_t bg_sample_row(size_t v, const float *p, double u);

/* y += x over n rows of d columns; row-wise bias add. */
void bg_add(size_t n, size_t d, const float *x, size_t ldx, float *y, size_t ldy);
void bg_add_bias(size_t n, size_t d, const float *bias, float *y, size_t ldy);
/* out[i] = sum over columns of x[i] * y[i], for groups: columns are n_groups runs of width w:
 * out[i * ldo + g] = sum_j x[i][g w + j] y[i][g w + j].  (attention's D; scores' row-wise dot, M10) */
void bg_group_dot(size_t n, size_t n_groups, size_t w, const float *x, size_t ldx, const float *y, size_t ldy,
                  float *out, size_t ldo);
/* acc[i] += x[i]² */
void bg_add_square(size_t n, const float *x, float *acc);

#endif /* BG_KERNELS_H */
