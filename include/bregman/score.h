/* score.h - the score tap: influence of training sequences on all queries at once (math.md M10).
 *
 * score(z) = Σ_ℓ Σ_t (δ_tᵀ U)(Vᵀ a_t): two thin products a module with all queries' columns side by side, and
 * a row-wise dot product a query.
 */
#ifndef BG_SCORE_H
#define BG_SCORE_H

#include "bregman/pipeline.h"
#include "bregman/queries.h"
#include "bregman/tap.h"

typedef struct bg_scorer bg_scorer;

/* What to keep of the sum over modules and positions. */
typedef enum {
    BG_SCORE_SEQUENCES, /* the sequence's score                             */
    BG_SCORE_LAYERS,    /* ... and its parts by layer (block of the model)  */
    BG_SCORE_TOKENS     /* the parts by position and layer                  */
} bg_score_detail;

/* What a scorer works on. */
typedef struct {
    const bg_share *share; /* [n_shares] of all ranks of the pipeline; lent */
    int n_shares, rank;    /* share[rank] is this rank's */
    bg_score_detail detail;
    size_t unit_sequences, unit_rows; /* most of a unit */
    size_t batch_rows;                /* most of a micro-batch */
} bg_score_task;

/* queries are those of share[rank]; lent.  Errors: BG_ENOMEM. */
bg_status bg_scorer_new(bg_scorer **out, const bg_score_task *task, const bg_queries *queries, const bg_model *model,
                        bg_err *err) BG_MUST_CHECK;
void bg_scorer_free(bg_scorer *s);
/* Of a batch of so many rows, with queries of this rank for the sites of a share. */
void bg_scorer_cost(bg_cost *cost, const bg_queries_extent *q, size_t rank, const bg_model *model,
                    const bg_share *share, size_t rows);
/* Bytes that bg_scorer_new would take, beside the queries; and what bg_scorer_gather sends (bg_sweep.gather_bytes). */
size_t bg_scorer_bytes(const bg_score_task *t, const bg_queries_extent *q, const bg_model *model);
size_t bg_scorer_gather_bytes(const bg_scorer *s);

/* Unit and batch in hand; `first` is the batch's first sequence counted from the unit's first.
 *   row0 [in]  rows of the unit's sequences before the first batch, which another attempt has scored: their results are
 * 0 here */
void bg_scorer_begin_unit(bg_scorer *s, size_t n_sequences, size_t n_rows, size_t row0);
void bg_scorer_begin_batch(bg_scorer *s, const bg_batch *batch, uint64_t first);
bg_status bg_scorer_pair(void *scorer, const bg_pair *pair, bg_err *err);
/* At a unit's end, or that of a part of it, on all ranks of the pipeline: the first one gets the layers of the others,
 * and has the results so far.  Errors: BG_ESTOPPED if another rank failed. */
bg_status bg_scorer_gather(bg_scorer *s, bg_pipeline *l, bg_err *err) BG_MUST_CHECK;

/* Results of the unit, sums over positions and modules in float64 layer by layer, then over layers from the first:
 * the order, and so the bytes, do not depend on how the layers were shared out.
 *   bg_scorer_scores   out [n_sequences, Q]
 *   bg_scorer_layers   out [n_sequences, Q, L]     with BG_SCORE_LAYERS
 *   bg_scorer_tokens   out [L] of one row and query, with BG_SCORE_TOKENS (summed in float32)
 * Rows are the unit's predicted positions, back to back. */
void bg_scorer_scores(const bg_scorer *s, float *out);
void bg_scorer_layers(const bg_scorer *s, float *out);
void bg_scorer_tokens(const bg_scorer *s, size_t row, size_t query, float *out);

#endif /* BG_SCORE_H */
