/* scoring.h - one call of the stage: what is read, chosen and made, and what its files do with that. */
#ifndef BG_STAGES_SCORING_H
#define BG_STAGES_SCORING_H

#include "bregman/attempt.h"
#include "bregman/budget.h"
#include "bregman/inputs.h"
#include "bregman/options.h"
#include "bregman/origin.h"
#include "bregman/ranking.h"
#include "bregman/score.h"
#include "bregman/shared.h"
#include "bregman/sweep.h"
#include "bregman/units.h"
#include "costs.h"

typedef struct {
    const char *model, *queries, *output, *shard, *candidates, *explain, *attribution;
    bg_list tokens;
    bool layer_scores, gradient_norms;
    uint64_t top, unit_sequences, batch_tokens;
} score_shards_config;

typedef struct scoring scoring;
typedef struct explaining explaining;
typedef struct outputs outputs;

/* What is read. */
typedef struct {
    bg_queries_about about;
    bg_model *model;
    bg_tokens *tokens;
    bg_shared *listed; /* all candidates, [n_listed], once per node; NULL: the whole corpus is scored */
    uint64_t n_listed;
    explaining *explaining; /* the ranking's sequences; NULL: scoring */
    bg_inputs files;
    bg_origin origin; /* on rank 0 */
    bg_hash model_hash;
} score_inputs;

/* What is chosen: the sequences and their units, each rank's share of the model, micro-batches that fit. */
typedef struct {
    uint64_t shard, n_shards;
    const uint64_t *sequence; /* of this shard (or to explain); NULL: begin + i */
    uint64_t begin, n_sequences, unit_sequences;
    size_t longest_rows;        /* of the longest sequence */
    bool by_output, by_input;   /* explain by output tokens, and by input tokens, too */
    char output[BG_PATH_BYTES]; /* the shard's file, or the ranking */
    char work[BG_PATH_BYTES];   /* folder of the units */
    bg_share *share;            /* [pipeline_size] */
    bg_queries_source queries;  /* of this rank's share */
    bg_queries_extent extent;
    bg_workload load;
    bg_plan memory;
} score_plan;

/* The number in the corpus of the i-th sequence to score. */
static inline uint64_t score_sequence(const score_plan *p, uint64_t i)
{
    return p->sequence != NULL ? p->sequence[i] : p->begin + i;
}

/* What a sweep's sums become in the files of its units. */
typedef struct {
    const char *kind, *what; /* of the files; and in progress lines */
    /* Write the results of a unit's sequences [first, end), of which the sums are there; on the pipeline's first rank. */
    bg_status (*write_segment)(scoring *w, const bg_unit *unit, const bg_segment *g, bg_store *s, bg_err *err);
} score_kept;

/* One sweep of the call. */
typedef struct {
    const score_kept *kept;
    const uint64_t *sequence; /* as of bg_sweep */
    const uint32_t *erased;
    uint64_t begin;
    bg_workload load;
    bg_units units;
    uint64_t done; /* the first sequence of the unit in hand that no file has */
} score_phase;

enum { SCORE_PHASE, ERASED_PHASE, SCORE_PHASES }; /* the second only to explain by input tokens */

/* What is made. */
typedef struct {
    bg_queries *queries;
    bg_products products;
    bg_gradient_norm norm;
    bg_score_sums *sums;
    outputs *outputs; /* NULL: not by output tokens */
    bg_pass *pass;
    score_phase phase[SCORE_PHASES];
    size_t n_phases;
    score_phase *now; /* that which is swept */
} score_work;

/* What becomes of the sequences' sums: a shard's scores, or token scores of a ranking. */
typedef struct {
    score_kept kept;
    bg_status (*publish)(scoring *w, bg_err *err);                /* on rank 0, all units done */
    bg_status (*is_done)(void *scoring, bool *done, bg_err *err); /* see bg_attempt */
} score_result;
extern const score_result score_shard, score_explanation;

/* One call of the stage. */
struct scoring {
    const score_shards_config *c;
    const bg_context *ctx;
    const score_result *result;
    score_inputs in;
    score_plan plan;
    score_work made;
};

/* candidates.c: a list of global sequence numbers: text, one a line, or HDF5 with a dataset `sequence`.
 * Sorted and without repetition.  Free with bg_free. */
bg_status score_read_candidates(const char *path, uint64_t n_corpus, uint64_t **out, uint64_t *n,
                                bg_err *err) BG_MUST_CHECK;

/* prefiltered.c: what a file of candidates says that prefilter made; local, on rank 0.  Is it of these token files, as
 * w->in.origin has them?  Others' files are not compared.  BG_ESTALE */
bg_status score_check_candidates(const scoring *w, bg_err *err) BG_MUST_CHECK;
/* Set side[].prefilter_rank [n_queries, k], and say in words how the sequences were chosen (free with free()), if it
 * was made for these queries; else leave both NULL. */
bg_status score_find_places(const scoring *w, bg_ranked side[BG_SIDES], size_t k, char **how,
                            bg_err *err) BG_MUST_CHECK;

/* inputs.c: open all that is read and check that it belongs together; after that, on rank 0, hash it.  Collective, an
 * agreed status; local. */
bg_status score_open_inputs(scoring *w, bg_err *err) BG_MUST_CHECK;
bg_status score_hash_inputs(scoring *w, bg_err *err) BG_MUST_CHECK;
void score_close_inputs(scoring *w);

/* plan.c: sequences, files' names and shares of the model (local); then micro-batches that fit (collective; an agreed
 * status). */
bg_status score_divide(scoring *w, bg_err *err) BG_MUST_CHECK;
bg_status score_choose_plan(scoring *w, bg_err *err) BG_MUST_CHECK;

/* sweep.c: score the sequences: leaves all units in their files.  Collective; an agreed status. */
bg_status score_sweep(scoring *w, bg_err *err) BG_MUST_CHECK;

/* outputs.c: the directions of a micro-batch (bg_sweep.directions, .along), whose work lies in w->made.outputs, and what
 * came of them into the sums of the batch in hand.  Open after the pass and the queries; close also after an error. */
bg_status score_outputs_open(scoring *w, bg_err *err) BG_MUST_CHECK;
void score_outputs_close(outputs *o);
float *score_outputs_stream(const outputs *o, int which); /* the two of bg_sweep.tangent */
size_t score_outputs_choose(void *scoring, const bg_batch *batch, uint64_t index);
bg_status score_outputs_along(void *scoring, const bg_batch *batch, size_t slot, size_t k, float *x,
                              bg_err *err) BG_MUST_CHECK;
void score_outputs_keep(const outputs *o);

/* pairs.c: queries, ascending, that rank a sequence of [first, end) of those to explain; out [n_queries].  How many. */
size_t score_explain_queries(const scoring *w, uint64_t first, uint64_t end, size_t *out);

/* error_bars.c: standard deviations in nats [n_queries] of the errors that truncation and the sample behind Λ make in
 * the score of a sequence whose gradient has the expected norm, as the compressed queries say; NAN: they do not. */
typedef struct {
    size_t n_queries;
    double *truncation, *sampling, expected_norm;
} score_errors;
/* Clear also after an error. */
bg_status score_errors_read(score_errors *out, const scoring *w, bg_err *err) BG_MUST_CHECK;
void score_errors_clear(score_errors *e);
/* Of a side's entries, SIDE/score_error; with the top's also what is of a query: error/truncation, error/sampling, and
 * error/agreement, how many of its best places such errors leave as they are.
 *   norm [n_queries, k]  of the entries' gradients; overwritten by their errors */
bg_status score_errors_write(const score_errors *e, const bg_ranking *r, int side, float *norm, bg_store *s,
                             bg_err *err) BG_MUST_CHECK;

/* assemble.c: the datasets' axis of layers, layer_name. */
bg_status score_name_layers(const bg_model *m, bg_store *s, bg_err *err) BG_MUST_CHECK;

/* explain.c: read the ranking in w->c->explain and list what is to be explained (local). */
bg_status score_explain_open(scoring *w, bg_err *err) BG_MUST_CHECK;
/* Local, on rank 0: are the inputs, as far as w->in.origin has them, those that the ranking was made from? */
bg_status score_explain_check(const scoring *w, bg_err *err) BG_MUST_CHECK;
/* The sweep over the ranking's sequences with a token erased, and how many these are (erase.c). */
uint64_t score_erased_count(const scoring *w);
score_phase score_erased_phase(const scoring *w);
/* Are the compressed queries those that it ranks for? */
bg_status score_explain_check_queries(const scoring *w, bg_err *err) BG_MUST_CHECK;
void score_explain_close(scoring *w);

#endif /* BG_STAGES_SCORING_H */
