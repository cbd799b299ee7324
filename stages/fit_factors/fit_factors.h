/* fit_factors.h - the stage without its main(), so that tests can link it, and what its phases share. */
#ifndef BG_STAGES_FIT_FACTORS_H
#define BG_STAGES_FIT_FACTORS_H

#include "bregman/attempt.h"
#include "bregman/budget.h"
#include "bregman/factors.h"
#include "bregman/inputs.h"
#include "bregman/options.h"
#include "bregman/pass.h"
#include "bregman/shared.h"
#include "bregman/stage.h"
#include "bregman/sweep.h"
#include "bregman/units.h"
#include "costs.h"

typedef struct {
    const char *model, *output, *modules, *labels, *preconditioner;
    bg_list tokens;
    bg_range covariance_sequences, lambda_sequences;
    uint64_t blocks, seed, unit_sequences, batch_tokens, subgrid_side;
    bool empirical_fisher, no_diagonal, head_blocks;
} fit_factors_config;

bg_status fit_factors_run(const void *config, const bg_context *ctx, bg_err *err) BG_MUST_CHECK;

/* What is read. */
typedef struct {
    bg_model *model;
    bg_tokens *tokens;
    bg_hash model_hash; /* known on rank 0 */
    bg_inputs files;
} fit_inputs;

/* One of the two sums over the corpus. */
typedef struct {
    bg_range range; /* of sequences, with its end filled in */
    uint64_t rows;  /* its positions in the loss, from hash_inputs on */
    bg_units units; /* its work files */
} fit_sum;

/* What is chosen. */
typedef struct {
    fit_sum covariance, lambda;
    size_t *section; /* numbers of the model's sections with tracked sites */
    bg_share *share; /* [pipeline_size] */
    bg_workload load;
    bg_plan budget;            /* micro-batches, passes, scratch */
    char work[BG_PATH_BYTES];  /* OUTPUT/work */
    char index[BG_PATH_BYTES]; /* OUTPUT/index.h5 */
} fit_plan;

/* One fit in progress. */
typedef struct {
    const fit_factors_config *c;
    const bg_context *ctx;
    fit_inputs in;
    bg_factor_kind kind;
    fit_plan plan;
    bg_pass *pass;
} fit;

/* A side's name in files and messages. */
static inline const char *fit_side_name(const fit *f, bg_factor_side side)
{
    return bg_factor_side_name(f->kind, side);
}

static inline uint64_t fit_covariance_sequences(const fit *f)
{
    return f->plan.covariance.range.end - f->plan.covariance.range.begin;
}

/* sums.c: the two sums over the corpus, each in one file per unit and section of the model.  Collective. */
bg_status fit_sum_covariance(fit *f, bg_err *err) BG_MUST_CHECK;
bg_status fit_sum_lambda(fit *f, bg_err *err) BG_MUST_CHECK;

/* decompose.c: add the units' sums in order in float64, write and decompose each matrix (M6, M7),
 * largest first over ranks.  Collective. */
bg_status fit_decompose(fit *f, bg_err *err) BG_MUST_CHECK;
/* Open the file of a tracked module's decomposed matrix.  Errors: bg_work_open's. */
bg_status fit_open_matrix(const fit *f, const bg_site *site, bg_factor_side side, bg_store **out,
                          bg_err *err) BG_MUST_CHECK;
/* Bases of a run of tracked modules, held once by the ranks of a node at one place of the pipeline (shared.h). */
typedef struct {
    bg_eigenbasis *basis; /* [n_tracked]; modules that share their input share q_a */
    bg_shared *memory;
} fit_bases;
/* Read them back.  Collective on the grid's place; an agreed status.  Free with fit_free_bases, also after an error. */
bg_status fit_read_bases(const fit *f, bg_site_range sites, fit_bases *b, bg_err *err) BG_MUST_CHECK;
void fit_free_bases(fit_bases *b);

/* publish.c: add the units' squares (M8), write a file of factors for each section and index.h5.  Collective. */
bg_status fit_publish(fit *f, bg_err *err) BG_MUST_CHECK;

#endif /* BG_STAGES_FIT_FACTORS_H */
