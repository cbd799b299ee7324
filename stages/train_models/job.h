/* job.h - a call of the stage: what is read, what is chosen, and what the files of the stage do with it. */
#ifndef BG_STAGES_TRAIN_JOB_H
#define BG_STAGES_TRAIN_JOB_H

#include "bregman/attempt.h"
#include "bregman/budget.h"
#include "bregman/model_save.h"
#include "bregman/path.h"
#include "bregman/stage.h"
#include "bregman/training.h"
#include "bregman/units.h"
#include "costs.h"

typedef struct {
    const char *model, *config, *queries, *output, *bank, *modules, *optimizer, *schedule, *save_dtype;
    bg_list tokens, heldout, subset, mask;
    bg_range seeds;
    uint64_t seed, epochs, steps, batch_tokens, slices, micro_batch_tokens, warmup_steps, eval_steps, save_steps;
    double rate, beta1, beta2, epsilon, momentum, weight_decay, clip_norm, final_rate;
} train_models_config;

/* What a model is trained on. */
typedef struct {
    char *name; /* files of --subset and --mask; "": everything */
    uint64_t *sequence, n_sequences;
    bg_loss_term *mask;
    size_t n_masked;
} train_subset;

/* All of these are opened by every rank, and the same on all. */
typedef struct {
    bg_inputs files;
    bg_tokens *tokens, *heldout, *queries; /* the last two may be NULL */
    bg_model *model;
    size_t n_subsets;
    train_subset *subset; /* at least one */
} train_inputs;

typedef struct {
    bg_recipe recipe; /* steps: of the first subset */
    bg_st_dtype save_dtype;
    bg_training_plan training;
    bg_plan memory;
    bg_parameter_counts numbers;
    uint64_t n_seeds;
    char output[BG_PATH_BYTES], work[BG_PATH_BYTES];
    bg_units units; /* of one training its steps, of a bank its trainings */
} train_plan;

typedef struct {
    const train_models_config *c;
    const bg_context *ctx;
    train_inputs in;
    train_plan plan;
} train_job;

/* inputs.c: collective; an agreed status. */
bg_status train_open(train_job *j, bg_err *err) BG_MUST_CHECK;
void train_close(train_job *j);
bg_status train_add_inputs(train_job *j, bg_err *err) BG_MUST_CHECK; /* on rank 0 */

/* A model with memory of its own, to be trained on a subset by the ranks of comm. */
typedef struct {
    bg_parameters *parameters;
    float *start; /* [n_values] what a checkpoint began with, or NULL */
    bg_training_data *data;
    bg_training *training;
    double *heldout_loss; /* [heldout] */
    uint64_t steps;
} train_model;
/* What a model is trained on, all lent. */
bg_training_source train_source(const train_job *j, const train_subset *s, uint64_t seed);
/* model.c: train_model_own once, then train_model_begin for each training, collective on comm; an agreed status. */
bg_status train_model_own(train_model *t, train_job *j, bool again, bg_err *err) BG_MUST_CHECK;
bg_status train_model_begin(train_model *t, const train_job *j, const train_subset *s, uint64_t seed, MPI_Comm comm,
                            bg_err *err) BG_MUST_CHECK;
void train_model_end(train_model *t);
void train_model_free(train_model *t);
/* Mean loss of the held-out tokens; and the queries' losses, [queries]. */
bg_status train_heldout_loss(const train_model *t, const train_job *j, double *mean, bg_err *err) BG_MUST_CHECK;

/* one.c, bank.c: collective on ctx->grid.world; an agreed status. */
bg_status train_one(void *job, bg_err *err) BG_MUST_CHECK;
bg_status train_bank(void *job, bg_err *err) BG_MUST_CHECK;

/* What the steps of a training were like, [steps] each; on rank 0. */
typedef struct {
    double *loss, *gradient_norm, *rate, *heldout_loss, *seconds;
    int64_t *tokens;
} train_log;
/* log.c */
bg_status train_log_new(train_log *l, uint64_t steps, bg_err *err) BG_MUST_CHECK;
void train_log_free(train_log *l);
bg_status train_log_write(const train_log *l, bg_store *s, uint64_t steps, bg_err *err) BG_MUST_CHECK;
bg_status train_log_read(train_log *l, const bg_store *s, uint64_t steps, bg_err *err) BG_MUST_CHECK;
bg_status train_log_csv(const train_log *l, const char *path, uint64_t steps, bg_err *err) BG_MUST_CHECK;

/* state.c: what a training goes on from.  Collective; an agreed status. */
bg_status train_state_keep(const train_job *j, const train_model *t, const train_log *l, bg_err *err) BG_MUST_CHECK;
bg_status train_state_recall(const train_job *j, train_model *t, train_log *l, bg_err *err) BG_MUST_CHECK;
/* Names, and of AdamW both moments of the parameters, into a file, on rank 0 (gathers from all). */
bg_status train_moments_write(const train_job *j, const train_model *t, bg_store *s, bg_err *err) BG_MUST_CHECK;

#endif /* BG_STAGES_TRAIN_JOB_H */
