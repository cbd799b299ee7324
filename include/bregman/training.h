/* training.h - a model trained step by step, data-parallel over the ranks of a communicator.
 *
 * The loss of a step is the mean over its predicted tokens.  A step is cut into slices (gradient_sum.h), a slice into
 * micro-batches, by their content alone; each rank has a range of the parameters' moments and updates that.  So every
 * byte is the same on any number of ranks, at one number of threads.  There are no pipelines: a step ends in an update
 * of all weights, before which a pipeline would have to run empty, and models that are retrained often fit a rank.
 */
#ifndef BG_TRAINING_H
#define BG_TRAINING_H

#include <mpi.h>

#include "bregman/gradient_sum.h"
#include "bregman/parameters.h"
#include "bregman/recipe.h"
#include "bregman/training_data.h"

typedef struct bg_training bg_training;

typedef struct {
    bg_recipe recipe;
    size_t slices;   /* of a step: as many ranks can share it */
    size_t max_rows; /* of a micro-batch; no sequence has more */
} bg_training_plan;

/* Collective on comm; every rank has the same parameters.  p and data are lent.  Errors: those of bg_gradient_sum_new,
 * BG_ENOMEM. */
bg_status bg_training_new(bg_training **out, bg_parameters *p, bg_training_data *data, const bg_training_plan *plan,
                          MPI_Comm comm, bg_err *err) BG_MUST_CHECK;
void bg_training_free(bg_training *t); /* NULL is fine */
/* What a rank holds beside the pass, the parameters and the tokens. */
size_t bg_training_bytes(const bg_training_plan *plan, size_t n_trained, size_t ranks);

typedef struct {
    double loss;          /* mean over the step's terms, nats, before the update */
    double gradient_norm; /* of the mean's gradient, before clipping */
    double rate;
    uint64_t tokens; /* terms in the loss */
} bg_training_step_report;

/* The next step.  Collective, an agreed status.  Errors: BG_ENUMERIC if a loss, a gradient or an updated value is not
 * finite, naming the step (from 1) and the sequence or the tensor: the training is over then; BG_EFORMAT for a step
 * that has no term in its loss; those of reading tokens. */
bg_status bg_training_step(bg_training *t, bg_training_step_report *out, bg_err *err) BG_MUST_CHECK;
uint64_t bg_training_steps_done(const bg_training *t);

/* What a training goes on from, beside the values: both moments, [n_trained], on rank 0 (NULL on others; of SGD the
 * second is not touched).  Collective. */
void bg_training_keep(const bg_training *t, float *first_moment, float *second_moment);
/* `steps` have been done: the values of all ranks become rank 0's, and the moments these.  Collective. */
void bg_training_resume(bg_training *t, uint64_t steps, const float *first_moment, const float *second_moment);

/* Summed losses of sequences [0, n) of token files, of queries over their completions only, with the model as it is now.
 *   loss   [out, n]  nats, the same on all ranks
 *   terms  [out]     tokens in the loss, of all together
 * Collective, an agreed status. */
bg_status bg_training_losses(bg_training *t, const bg_tokens *tokens, double *loss, uint64_t *terms,
                             bg_err *err) BG_MUST_CHECK;

/* ---- what that costs ---- */

/* Sequences of one length: those of a step, or all that are measured. */
typedef struct {
    size_t n_trained, ranks;
    size_t sequences, rows, loss_rows; /* of each sequence */
} bg_training_shape;
/* Sequences of its largest micro-batch. */
size_t bg_training_step_batch(const bg_training_plan *plan, const bg_training_shape *s);
size_t bg_training_losses_batch(const bg_training_plan *plan, const bg_training_shape *s);
/* Add what the rank with most to do computes for a step; what it sends.  Or for losses. */
bg_traffic bg_training_step_cost(bg_cost *cost, const bg_model *m, const bg_training_plan *plan,
                                 const bg_training_shape *s);
void bg_training_losses_cost(bg_cost *cost, const bg_model *m, const bg_training_plan *plan,
                             const bg_training_shape *s);

#endif /* BG_TRAINING_H */
