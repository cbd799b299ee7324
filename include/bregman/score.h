/* score.h - the score tap: influence of training sequences on all queries at once (math.md M10).
 *
 * score(z) = Σ_ℓ Σ_t (δ_tᵀ U)(Vᵀ a_t): two thin products a module with all queries' columns side by side, and
 * a row-wise dot product a query.
 */
#ifndef BG_SCORE_H
#define BG_SCORE_H

#include "bregman/model.h"
#include "bregman/pass.h"
#include "bregman/store.h"

typedef struct bg_scorer bg_scorer;

/* What to keep of the sum over modules and positions. */
typedef enum { BG_SCORE_SEQUENCES,         /* the sequence's score                             */
               BG_SCORE_LAYERS,            /* ... and its parts by layer (block of the model)  */
               BG_SCORE_TOKENS             /* the parts by position and layer                  */ } bg_score_detail;

/* Load the compressed queries of FILE for the tracked modules of model (all of them and no others must be there).
 *   unit_sequences, unit_rows [in]  most of a unit.
 * Errors: BG_ESTALE (made for another model: names both), BG_ESHAPE, BG_EIO, BG_EFORMAT. */
bg_status bg_scorer_new(bg_scorer **out, const char *file, const bg_model *model, const bg_hash *model_hash,
                        bg_score_detail detail, size_t unit_sequences, size_t unit_rows, bg_err *err) BG_MUST_CHECK;
void bg_scorer_free(bg_scorer *s);
size_t bg_scorer_queries(const bg_scorer *s);
const char *const *bg_scorer_query_ids(const bg_scorer *s);
/* Modules that FILE was made for ("mlp", ...): what the model is to be opened with.  Caller frees with free(). */
bg_status bg_compressed_modules(const char *file, char **modules, bg_err *err) BG_MUST_CHECK;

/* Unit and batch in hand; `first` is the batch's first sequence counted from the unit's first. */
void bg_scorer_begin_unit(bg_scorer *s);
void bg_scorer_begin_batch(bg_scorer *s, const bg_batch *batch, uint64_t first);
bg_status bg_scorer_pair(void *scorer, const bg_pair *pair, bg_err *err);

/* Results of the unit so far.  Sums are float64 over positions, modules and layers.
 *   sequence i, query q        bg_scorer_score(s)[i * Q + q]
 *   sequence i, query q, l     bg_scorer_layers(s)[(i * Q + q) * L + l]      with BG_SCORE_LAYERS
 *   row t of the unit, q, l    bg_scorer_tokens(s)[(t * Q + q) * L + l]      with BG_SCORE_TOKENS (float32)
 * Rows are the unit's predicted positions, back to back. */
const double *bg_scorer_score(const bg_scorer *s);
const double *bg_scorer_layers(const bg_scorer *s);
const float *bg_scorer_tokens(const bg_scorer *s);

#endif /* BG_SCORE_H */
