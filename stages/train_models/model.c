/* model.c - a model in memory, and a training of it. */
#include <inttypes.h>
#include <string.h>

#include "bregman/memory.h"
#include "job.h"

bg_status train_model_own(train_model *t, train_job *j, bool again, bg_err *err)
{
    bg_status st = bg_parameters_own(&t->parameters, j->in.model, err);
    if (st != BG_OK || !again || j->c->config != NULL)
        return st;
    st = BG_NEW(t->start, t->parameters->n_values, "values to begin with", err);
    if (st == BG_OK)
        memcpy(t->start, t->parameters->value, t->parameters->n_values * sizeof *t->start);
    return st;
}

bg_training_source train_source(const train_job *j, const train_subset *s, uint64_t seed)
{
    return (bg_training_source){ .tokens = j->in.tokens,
                                 .vocab_size = j->in.model->config.vocab_size,
                                 .sequence = s->sequence,
                                 .n_sequences = s->n_sequences,
                                 .mask = s->mask,
                                 .n_masked = s->n_masked,
                                 .seed = seed,
                                 .batch_tokens = j->c->batch_tokens };
}

/* No step may be without a term in its loss: known before the first. */
static bg_status check_steps(train_model *t, bg_err *err)
{
    bg_training_data_seek(t->data, 0);
    for (uint64_t k = 0; k < t->steps; k++) {
        size_t n, terms = 0;
        const uint64_t *sequence = bg_training_data_next(t->data, &n);
        for (size_t i = 0; i < n && terms == 0; i++)
            terms = bg_training_data_terms(t->data, sequence[i]);
        if (terms == 0)
            return BG_FAIL(err, BG_EFORMAT, "step %" PRIu64 ": masks leave none of its predicted tokens in the loss",
                           k + 1);
    }
    bg_training_data_seek(t->data, 0);
    return BG_OK;
}

static bg_status make(train_model *t, const train_job *j, const train_subset *s, uint64_t seed, bg_err *err)
{
    const bg_training_source from = train_source(j, s, seed);
    if (j->c->config != NULL)
        bg_parameters_initialise(t->parameters, seed);
    else if (t->start != NULL)
        memcpy(t->parameters->value, t->start, t->parameters->n_values * sizeof *t->start);
    t->steps = j->c->steps;
    bg_status st = bg_training_data_new(&t->data, &from, err);
    if (st == BG_OK && t->steps == 0)
        st = bg_training_source_steps(&from, j->c->epochs, &t->steps, err);
    if (st == BG_OK && j->in.heldout != NULL)
        st = BG_NEW(t->heldout_loss, bg_tokens_sequences(j->in.heldout), "held-out losses", err);
    bool masked = s->n_masked > 0 || bg_tokens_are_marked(j->in.tokens);
    return st == BG_OK && masked ? check_steps(t, err) : st;
}

bg_status train_model_begin(train_model *t, const train_job *j, const train_subset *s, uint64_t seed, MPI_Comm comm,
                            bg_err *err)
{
    bg_training_plan plan = j->plan.training;
    bg_status st = bg_agree(comm, make(t, j, s, seed, err), err);
    if (st != BG_OK)
        return st;
    plan.recipe.steps = t->steps;
    return bg_training_new(&t->training, t->parameters, t->data, &plan, comm, err);
}

void train_model_end(train_model *t)
{
    bg_training_free(t->training);
    bg_training_data_free(t->data);
    bg_free(t->heldout_loss);
    t->training = NULL;
    t->data = NULL;
    t->heldout_loss = NULL;
}

void train_model_free(train_model *t)
{
    train_model_end(t);
    bg_parameters_free(t->parameters);
    bg_free(t->start);
}

bg_status train_heldout_loss(const train_model *t, const train_job *j, double *mean, bg_err *err)
{
    uint64_t terms;
    bg_status st = bg_training_losses(t->training, j->in.heldout, t->heldout_loss, &terms, err);
    *mean = 0;
    for (uint64_t z = 0, n = bg_tokens_sequences(j->in.heldout); z < n && st == BG_OK; z++)
        *mean += t->heldout_loss[z];
    if (st == BG_OK && terms == 0)
        return BG_FAIL(err, BG_EFORMAT, "%s: its masks leave no token in the loss", j->c->heldout.item[0]);
    *mean /= (double)terms;
    return st;
}
