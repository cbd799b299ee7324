/* gradient.h - the tap that sums up the gradients of all parameters: W's is δᵀ a (math.md M4), a bias's the sum of δ,
 * an embedding's rows are added where their tokens are. */
#ifndef BG_GRADIENT_H
#define BG_GRADIENT_H

#include "bregman/cost.h"
#include "bregman/parameters.h"
#include "bregman/tap.h"

typedef struct bg_gradient bg_gradient;

/* For micro-batches of max_rows.  p is lent.  Errors: BG_ENOMEM. */
bg_status bg_gradient_new(bg_gradient **out, const bg_parameters *p, size_t max_rows, bg_err *err) BG_MUST_CHECK;
void bg_gradient_free(bg_gradient *g); /* NULL is fine */

/* Where the next batches' gradients are added to: [n_trained], lent, in the parameters' order. */
void bg_gradient_into(bg_gradient *g, float *sum);
/* The tap's function, self: a bg_gradient.  The padding token's row gets nothing of what the model has read of it, as
 * in PyTorch. */
bg_status bg_gradient_pair(void *self, const bg_pair *pair, bg_err *err) BG_MUST_CHECK;

/* Add what it computes for so many rows, of which loss_rows reach the head. */
void bg_gradient_cost(bg_cost *cost, const bg_model *m, double rows, double loss_rows);

#endif /* BG_GRADIENT_H */
