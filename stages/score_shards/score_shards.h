/* score_shards.h - the stage without its main(), so that tests can link it. */
#ifndef BG_STAGES_SCORE_SHARDS_H
#define BG_STAGES_SCORE_SHARDS_H

#include "bregman/attempt.h"
#include "bregman/budget.h"
#include "bregman/inputs.h"
#include "bregman/options.h"
#include "bregman/origin.h"
#include "bregman/score.h"
#include "bregman/shared.h"
#include "bregman/stage.h"
#include "bregman/sweep.h"
#include "bregman/units.h"
#include "costs.h"

typedef struct {
    const char *model, *queries, *output, *shard, *candidates, *explain;
    bg_list tokens;
    bool layer_scores;
    uint64_t top, unit_sequences, batch_tokens;
} score_shards_config;

bg_status score_shards_run(const void *config, const bg_context *ctx, bg_err *err) BG_MUST_CHECK;

typedef struct explaining explaining;
typedef struct scoring scoring;

/* One call of the stage, scoring or explaining. */
struct scoring {
    const score_shards_config *c;
    const bg_context *ctx;
    bg_model *model;
    bg_tokens *tokens;
    bg_pass *pass;
    bg_share *share; /* [pipeline_size] */
    bg_workload load;
    bg_plan plan;
    bg_queries_source source; /* of this rank's share */
    bg_queries_extent extent;
    bg_queries *queries;
    bg_scorer *scorer;
    bg_score_detail detail;
    explaining *explaining; /* NULL: scoring */
    bg_inputs in;
    bg_origin origin; /* on rank 0 */
    bg_hash model_hash;
    uint64_t shard, n_shards;
    bg_shared *listed; /* all candidates, [n_listed], once per node; NULL: the whole corpus is scored */
    uint64_t n_listed;
    const uint64_t *sequence; /* of this shard (or to explain); NULL: begin + i */
    uint64_t begin, n_sequences;
    uint64_t unit_sequences;
    char shard_file[BG_PATH_BYTES]; /* scoring: OUTPUT/shard-... */
    char work[BG_PATH_BYTES];       /* folder of the units */
    bg_units units;
    uint64_t kept; /* the first sequence of the unit in hand that no file has */
    /* Write the unit's results of sequences [first, end), of which the scorer has all; on the pipeline's first rank. */
    bg_status (*write_segment)(scoring *w, const bg_unit *unit, const bg_segment *g, bg_store *s, bg_err *err);
};

/* Read a list of global sequence numbers: text, one a line, or HDF5 with a dataset `sequence`.
 * Sorted and without repetition.  Free with bg_free. */
bg_status score_read_candidates(const char *path, uint64_t n_corpus, uint64_t **out, uint64_t *n,
                                bg_err *err) BG_MUST_CHECK;

/* scoring.c: this rank's share of the model, and what its queries take (local); then micro-batches that fit
 * (collective). */
bg_status score_divide_model(scoring *w, bg_err *err) BG_MUST_CHECK;
bg_status score_choose_plan(scoring *w, bg_err *err) BG_MUST_CHECK;
/* Queries, scorer and pass for units of unit_sequences, whose files are of this kind.  Collective; an agreed status. */
bg_status score_open_memory(scoring *w, const char *kind, bg_err *err) BG_MUST_CHECK;
/* The sweep over w's sequences with the score tap: leaves all units in their files.  Collective. */
bg_status score_sweep(scoring *w, const char *what, bg_err *err) BG_MUST_CHECK;

/* explain.c: token and layer x token scores of the survivors in w->c->explain, published as a new version
 * of that ranking.  Open (local) sets the sequences and units of w; explain is collective. */
bg_status score_explain_open(scoring *w, bg_err *err) BG_MUST_CHECK;
/* Local, on rank 0: are the inputs, as far as w->origin has them, those that the ranking was made from? */
bg_status score_explain_check(const scoring *w, bg_err *err) BG_MUST_CHECK;
bg_status score_explain(scoring *w, bg_err *err) BG_MUST_CHECK;
void score_explain_close(scoring *w);

#endif /* BG_STAGES_SCORE_SHARDS_H */
