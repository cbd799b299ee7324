/* gauss_newton.h - products with the Gauss-Newton matrix of a batch of sequences (math.md M13), of several vectors at
 * once: they share each micro-batch's forward pass.
 *
 * A vector has the tracked sites' [P, M] back to back, in their order.  The batch does not change: its products are of
 * one matrix.  Local; of a model that is not trained, whole on this rank.
 */
#ifndef BG_GAUSS_NEWTON_H
#define BG_GAUSS_NEWTON_H

#include "bregman/tangent.h"

typedef struct bg_gauss_newton bg_gauss_newton;

/* Of the sequences of some micro-batches; all are lent.  The pass has room for each of them.  Errors: BG_ENOMEM. */
bg_status bg_gauss_newton_new(bg_gauss_newton **out, const bg_model *model, bg_pass *pass, bg_batch *const *batch,
                              size_t n_batches, bg_err *err) BG_MUST_CHECK;
void bg_gauss_newton_free(bg_gauss_newton *g);
/* Beside a pass for so many rows. */
size_t bg_gauss_newton_bytes(const bg_model *model, size_t max_rows);

/* Floats of a vector; and where a site's part begins. */
size_t bg_vector_floats(const bg_model *m);
size_t bg_vector_offset(const bg_model *m, const bg_site *site);

/* out[i] = G_B v[i], i < n, vectors that do not overlap.
 * Errors: those of the pass; BG_ESTOPPED where the process was asked to stop.
 * Cost: a forward pass a sequence; and for each vector a tangent (two of them, and attention's) and a backward pass
 * with the weights' gradients (two). */
bg_status bg_gauss_newton_product(bg_gauss_newton *g, size_t n, float *const *v, float *const *out,
                                  bg_err *err) BG_MUST_CHECK;
/* Add what it computes of n vectors for such a micro-batch, all of whose rows are in the loss. */
void bg_gauss_newton_cost(bg_cost *cost, const bg_model *m, const bg_batch_shape *b, double n);

#endif /* BG_GAUSS_NEWTON_H */
