/* kernels.h - the element-wise and row-wise arithmetic of a transformer, forward and backward,
 * vectorised.  Row-major, float32; sums over a row in float32 over at most 64 elements and float64 above (error < 1e-6
 * relative).  n rows of d columns; either may be 0.  What is written overlaps no other argument, except where it says
 * so.
 *
 * Threads: with more than BG_PARALLEL_FLOATS elements (threads.h), bg_norm_*, bg_act_*, bg_gated_*, bg_xielu_*,
 * bg_clip_*, bg_rope_apply, bg_add, bg_add_bias and bg_group_dot share out their rows and bg_add_square its elements,
 * over as many threads as OpenMP gives the caller.  Each row is one thread's, so the bytes are the same for any number
 * of threads. bg_rope_table, bg_softcap, bg_times, bg_scale and the softmax and sampling functions run on the calling
 * thread.  All keep no state and may be called inside a parallel region: there each runs on the calling thread.
 */
#ifndef BG_KERNELS_H
#define BG_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bregman/model_config.h"

/* Rows that a kernel reads or writes: row i begins at x + i ld. */
typedef struct {
    const float *x;
    size_t ld;
} bg_in;
typedef struct {
    float *x;
    size_t ld;
} bg_out;

/* Layer norm: (x - mean) / sqrt(var + epsilon) * gain + bias; RMS norm: x / sqrt(mean(x²) + epsilon) * gain + bias. */
typedef struct {
    bg_norm_kind kind;
    double epsilon;
    const float *gain, *bias; /* [d]; bias NULL: none (RMS norm has none) */
} bg_norm;

/* y = norm(x), row by row. */
void bg_norm_forward(bg_norm norm, size_t n, size_t d, bg_in x, bg_out y);
/* dx[i] += (or =, if !accumulate) the gradient through norm at x[i] of dy[i]; statistics are recomputed from x.
 * dy and dx may be the same array (then !accumulate).  The bias is not used. */
void bg_norm_backward(bg_norm norm, size_t n, size_t d, bg_in x, bg_in dy, bg_out dx, bool accumulate);

/* dy[i] = the directional derivative of norm at x[i] along dx[i]: gain ∘ (dx - mean(dx) - x^ mean(x^ dx)) / deviation,
 * in RMS norm without mean(dx).  dx and dy may be the same array.  The bias is not used. */
void bg_norm_tangent(bg_norm norm, size_t n, size_t d, bg_in x, bg_in dx, bg_out dy);

/* What gradients of gain and bias are added to, [d] each; bias NULL: there is none. */
typedef struct {
    float *gain, *bias;
} bg_norm_sums;

/* gain[j] += the sum over rows of dy[j] x^[j], x^ = (x - mean) / deviation, and bias[j] += that of dy[j].  Each column
 * is one thread's.  scratch [n, 2]. */
void bg_norm_gradient(bg_norm norm, size_t n, size_t d, bg_in x, bg_in dy, float *scratch, bg_norm_sums sums);
/* sum[j] += the sum of column j, in float64; each column is one thread's. */
void bg_add_columns(size_t n, size_t d, bg_in x, float *sum);

/* y = act(x), and dx = dy * act'(x) (dx may be dy), which is also how y moves when x moves by dy. */
void bg_act_forward(bg_activation act, size_t n, size_t d, bg_in x, bg_out y);
void bg_act_backward(bg_activation act, size_t n, size_t d, bg_in x, bg_in dy, bg_out dx);

/* Inputs of a gated activation, rows ld apart in both. */
typedef struct {
    const float *gate, *up;
    size_t ld;
} bg_gated;

/* h = act(gate) * up;  dgate = dh * up * act'(gate), dup = dh * act(gate). */
void bg_gated_forward(bg_activation act, size_t n, size_t d, bg_gated x, bg_out h);
void bg_gated_backward(bg_activation act, size_t n, size_t d, bg_gated x, bg_in dh, bg_out dgate, bg_out dup);
/* dh = dgate * up * act'(gate) + act(gate) * dup: how h moves along dx, whose rows lie as those of x. */
void bg_gated_tangent(bg_activation act, size_t n, size_t d, bg_gated x, bg_gated dx, bg_out dh);

/* xIELU (arXiv 2411.13010): alpha_p x² + beta x where x > 0, else alpha_n (exp(min(x, eps)) - 1 - x) + beta x.  alpha_p
 * and alpha_n are what the weights make of them. */
typedef struct {
    float alpha_p, alpha_n, beta, eps;
} bg_xielu;
void bg_xielu_forward(bg_xielu act, size_t n, size_t d, bg_in x, bg_out y);
void bg_xielu_backward(bg_xielu act, size_t n, size_t d, bg_in x, bg_in dy, bg_out dx);

/* x[d] = cap tanh(scale x / cap) in place; slope [out, d, may be NULL]: the derivative, by x. */
void bg_softcap(size_t d, float scale, float cap, float *x, float *slope);
/* y[d] *= x; x[n] *= by */
void bg_times(size_t d, const float *x, float *y);
void bg_scale(size_t n, float by, float *x);
/* y[i] is clipped to [-clip, clip]; and dy[i] becomes 0 where |x[i]| > clip. */
void bg_clip_forward(size_t n, size_t d, float clip, bg_out y);
void bg_clip_backward(size_t n, size_t d, float clip, bg_in x, bg_out dy);

/* Heads of a row: how many, and how many floats apart. */
typedef struct {
    size_t n, stride;
} bg_heads;

/* Rotary embedding in place (direction +1), or its transpose (-1, the backward): a row of x begins with the first head,
 * and of each head the first rotary_dims floats are rotated, pairs (i, i + rotary_dims/2).
 *   table [in, max position x rotary_dims]  by bg_rope_table: cos in the first half of a row, sin in the second, both
 *                                           times the rope's attention factor
 *   position [in, n] */
void bg_rope_table(const bg_rope *rope, size_t rotary_dims, size_t n_positions, float *table);
void bg_rope_apply(size_t n, bg_heads heads, size_t rotary_dims, bg_out x, const uint32_t *position, const float *table,
                   int direction);

/* Which columns a row keeps: row i those up to first + i, and of them the last `width` only (SIZE_MAX: all). */
typedef struct {
    size_t first, width;
} bg_band;

/* In place softmax of rows [n, <= s.ld] within a band; the other columns up to `columns` become 0.  s is multiplied by
 * scale first. */
void bg_softmax_causal(size_t n, size_t columns, bg_band band, float scale, bg_out s);
/* Its gradient: from those of the probabilities, dP [n, columns], to those of the scores, dS = P (dP - dot) scale, in
 * place. dot [in, n]: of each row, the sum of P dP, which attention has as the sum of dO O. */
void bg_softmax_backward(size_t n, size_t columns, float scale, const float *prob, const float *dot, float *ds);

/* How a row of probabilities moves: from ds [d], how its scores move, in place to P (scale ds - mean), where the mean
 * Σ P scale ds is returned. */
double bg_softmax_tangent(size_t d, float scale, const float *prob, float *ds);

/* One row of logits x[v] -> probabilities in place; returns log sum exp (float64, of the raw logits). */
double bg_softmax_row(size_t v, float *x);
/* First index at which the running sum of p[0..v) exceeds u * (its total), 0 <= u < 1: a draw from p. */
size_t bg_sample_row(size_t v, const float *p, double u);

/* y += x; and y += bias [d] in every row. */
void bg_add(size_t n, size_t d, bg_in x, bg_out y);
void bg_add_bias(size_t n, size_t d, const float *bias, bg_out y);
/* Dot products of groups: columns are n_groups runs of width w, out[i][g] = sum_j x[i][g w + j] y[i][g w + j].
 * (attention's D; scores' row-wise dot, M10) */
void bg_group_dot(size_t n, size_t n_groups, size_t w, bg_in x, bg_in y, bg_out out);
/* acc[i] += x[i]² */
void bg_add_square(size_t n, const float *x, float *acc);

#endif /* BG_KERNELS_H */
