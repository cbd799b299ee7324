/* score_sums.h - what is kept of the scores of a unit's sequences: by sequence, layer or position.
 *
 * Sums over positions and modules in float64 layer by layer, then over layers from the first: the order, and so the
 * bytes, do not depend on how the layers were shared out.
 */
#ifndef BG_SCORE_SUMS_H
#define BG_SCORE_SUMS_H

#include "bregman/pipeline.h"
#include "bregman/tap.h"

/* What to keep of the sum over modules and positions. */
typedef enum {
    BG_SCORE_SEQUENCES, /* the sequence's score                             */
    BG_SCORE_LAYERS,    /* ... and its parts by layer (site.h)  */
    BG_SCORE_TOKENS,    /* the parts by position and layer                  */
    BG_SCORE_OUTPUTS    /* ... and the parts by predicted token (math.md M14) */
} bg_score_detail;

typedef struct {
    const bg_model *model;
    const bg_share *share; /* [n_shares] of all ranks of the pipeline; lent */
    int n_shares, rank;    /* share[rank] is this rank's */
    bg_score_detail detail;
    size_t unit_sequences, unit_rows; /* most of a unit */
    size_t batch_rows;                /* most of a micro-batch */
    bool gradient_norms;              /* with a column more, behind the queries', for squared norms: of tokens one whose
                                       * rows and layers add up to the sequence's */
} bg_score_task;

/* Products of rows [row, row + n) of a pair with queries [query, query + n_queries). */
typedef struct {
    size_t row, n, query, n_queries;
    const float *dot; /* [n, n_queries] */
} bg_dots;

typedef struct bg_score_sums bg_score_sums;

/* scratch [in]: folder that they lie in; NULL: memory.  Errors: BG_ENOMEM; BG_EIO naming the folder. */
bg_status bg_score_sums_new(bg_score_sums **out, const bg_score_task *task, size_t n_queries, const char *scratch,
                            bg_err *err) BG_MUST_CHECK;
void bg_score_sums_free(bg_score_sums *s);
/* Bytes of them; and what bg_score_sums_gather sends (bg_sweep.gather_bytes). */
size_t bg_score_sums_bytes(const bg_score_task *t, size_t n_queries);
size_t bg_score_sums_gather_bytes(const bg_score_task *t, size_t n_queries);

/* Unit and batch in hand; `first` is the batch's first sequence counted from the unit's first.
 *   row0 [in]  rows of the unit's sequences before the first batch, which another attempt has scored: their results are
 * 0 here */
void bg_score_sums_begin_unit(bg_score_sums *s, size_t n_sequences, size_t n_rows, size_t row0);
void bg_score_sums_begin_batch(bg_score_sums *s, const bg_batch *batch, uint64_t first);
void bg_score_sums_add(bg_score_sums *s, const bg_pair *pair, bg_dots d);
/* On the last rank of the pipeline, of the batch in hand: how each row's loss moves along a query; [its rows]. */
void bg_score_sums_outputs(bg_score_sums *s, size_t query, const float *loss);
/* At a unit's end, or that of a part of it, on all ranks of the pipeline: the first one gets the layers of the others,
 * and has the results so far.  Errors: BG_ESTOPPED if another rank failed. */
bg_status bg_score_sums_gather(bg_score_sums *s, bg_pipeline *l, bg_err *err) BG_MUST_CHECK;

/* Results of one of the unit's sequences, or of a row and a query.  Rows are the unit's predicted positions, back to
 * back.
 *   bg_score_sums_scores   out [Q], and the squared norm behind them where the task has these
 *   bg_score_sums_layers   out [Q, L], and that of each layer
 *   bg_score_sums_tokens   out [L], summed in float32; only of tokens, the others only without
 *   bg_score_sums_output   the part of the token that is predicted; only with BG_SCORE_OUTPUTS */
void bg_score_sums_scores(const bg_score_sums *s, size_t sequence, float *out);
void bg_score_sums_layers(const bg_score_sums *s, size_t sequence, float *out);
void bg_score_sums_tokens(const bg_score_sums *s, size_t row, size_t query, float *out);
float bg_score_sums_output(const bg_score_sums *s, size_t row, size_t query);

#endif /* BG_SCORE_SUMS_H */
