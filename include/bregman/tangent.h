/* tangent.h - how activations, logits and losses move along a direction in the tracked weights (math.md M13), and from
 * that products with the Gauss-Newton matrix.
 *
 * The forward mode beside pass.h's forward and backward: derivatives of the same block functions, on the state that the
 * forward pass of a batch has left in its slot.  Any number of directions may follow one forward pass.
 */
#ifndef BG_TANGENT_H
#define BG_TANGENT_H

#include "bregman/direction.h"
#include "bregman/pass.h"

/* A batch whose forward pass is in the slot, and a direction: [n_tracked], of the sites of the share.  A site that is
 * no linear map (BG_WANTS_MAPS) has none: its left is NULL. */
typedef struct {
    size_t slot;
    const bg_batch *batch;
    const bg_direction *direction;
} bg_along;

typedef struct bg_tangent bg_tangent;

/* Room for the pass's batches and directions of up to `rank` columns.  The pass is lent.  Errors: BG_ENOMEM. */
bg_status bg_tangent_new(bg_tangent **out, bg_pass *pass, size_t rank, bg_err *err) BG_MUST_CHECK;
void bg_tangent_free(bg_tangent *t);
/* Two arrays of its own for tangents of the residual stream, [max_rows, d] and BG_PASS_TRAILER floats: a pipeline takes
 * turns with them. */
float *bg_tangent_stream(const bg_tangent *t, int which);
/* Bytes that bg_tangent_new takes beside such a pass. */
size_t bg_tangent_bytes(const bg_model *model, const bg_share *share, size_t max_rows, size_t logits_bytes,
                        size_t rank);

/* Through the share's blocks.
 *   x [in,out, rows x d]  tangent of the share's input, on return of its output; not read where the share embeds.
 *                         NULL: the first of the tangent's own.
 * Errors: those of bg_pass_forward.  Cost: 2 FLOPs a row for each body weight from the lowest tracked site on, as many
 * for each weight that moves (of low rank: 2 rank (P + M) a row), and 5/2 of a forward pass's attention. */
bg_status bg_tangent_forward(bg_tangent *t, const bg_along *along, float *x, bg_err *err) BG_MUST_CHECK;

/* Where the share has the head, after bg_tangent_forward.
 *   x [in]                 its output's tangent; NULL: the first of the tangent's own.
 *   loss [out, n_rows]     d/dε of each row's loss at θ + ε V: (p_t - e_y)ᵀ (J V)_t; 0 where not in the loss.
 * Errors: BG_ENUMERIC if one is NaN or infinite. */
bg_status bg_tangent_loss(bg_tangent *t, const bg_along *along, const float *x, float *loss, bg_err *err) BG_MUST_CHECK;
/* The same, and a backward pass of the share for Σ_t J_tᵀ H_t J_t V: the tap's pairs have its gradients at their sites'
 * outputs, so that δᵀ a summed over the batch's rows is the site's part of the batch's (not yet divided by its number of
 * sequences) Gauss-Newton product.
 *   gradient [out, rows x d]  at the share's input, as bg_pass_backward's dx; NULL: the pass's own.
 *   loss [out]                as above; may be NULL.
 * Other shares of a pipeline go on with bg_pass_backward. */
bg_status bg_tangent_gauss_newton(bg_tangent *t, const bg_along *along, const float *x, const bg_tap *tap,
                                  float *gradient, float *loss, bg_err *err) BG_MUST_CHECK;

/* Add what bg_tangent_forward and bg_tangent_loss compute for such a batch along directions of that rank (0: dense). */
void bg_tangent_cost(bg_cost *cost, const bg_model *m, const bg_share *share, const bg_batch_shape *b, size_t rank);

#endif /* BG_TANGENT_H */
