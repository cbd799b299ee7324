/* score.h - the score tap: influence of training sequences on all queries at once (math.md M10).
 *
 * score(z) = Σ_ℓ Σ_t (δ_tᵀ U)(Vᵀ a_t): of each pair the products with one group of queries after another (products.h),
 * summed up as asked for (score_sums.h).
 */
#ifndef BG_SCORE_H
#define BG_SCORE_H

#include "bregman/gradient_norm.h"
#include "bregman/products.h"
#include "bregman/score_sums.h"

/* A tap's self.  All are lent; queries are those of the share that the sums are of. */
typedef struct {
    const bg_queries *queries;
    bg_products *products;
    bg_score_sums *sums;
    bg_gradient_norm *norm; /* also sum up squared norms of the sequences' gradients; NULL: do not */
} bg_scorer;

bg_status bg_scorer_pair(void *scorer, const bg_pair *pair, bg_err *err);
/* Bytes of products and sums, and of what is sent to the first rank, for one of a pipeline. */
size_t bg_scorer_bytes(const bg_score_task *t, const bg_queries_extent *q);

/* Of a batch of so many rows, with queries of this rank for the sites of a share. */
void bg_scorer_cost(bg_cost *cost, const bg_queries_extent *q, size_t most_columns, const bg_model *model,
                    const bg_share *share, size_t rows);

#endif /* BG_SCORE_H */
