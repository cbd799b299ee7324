/* gradient_norm.h - how long a sequence's gradient is, of the weights of one site (math.md M4): from inner products of
 * its rows,
 *
 * ‖Σ_t δ_t a_tᵀ‖² = Σ_ij (δ_i·δ_j) (a_i·a_j)
 *
 * so that no gradient is formed.  Products are in float32, their sum in float64.
 */
#ifndef BG_GRADIENT_NORM_H
#define BG_GRADIENT_NORM_H

#include "bregman/cost.h"
#include "bregman/pair.h"
#include "bregman/share.h"
#include "bregman/status.h"

/* Room for the products of a few rows with all of a sequence. */
typedef struct {
    float *delta, *a; /* [panel, most_rows] */
} bg_gradient_norm;

size_t bg_gradient_norm_bytes(size_t most_rows);
/* most_rows [in]: of the longest sequence.  Errors: BG_ENOMEM.  Clear with bg_gradient_norm_clear. */
bg_status bg_gradient_norm_init(bg_gradient_norm *g, size_t most_rows, bg_err *err) BG_MUST_CHECK;
void bg_gradient_norm_clear(bg_gradient_norm *g);

/* Of the pair's i-th sequence, which has a row or more: the squared norm.  Costs 2 n² (P + M) FLOPs of n rows. */
double bg_gradient_norm_square(bg_gradient_norm *g, const bg_pair *pair, size_t i);

/* Of a batch of so many sequences of `rows` rows, of a share's sites. */
void bg_gradient_norm_cost(bg_cost *cost, const bg_model *model, const bg_share *share, double sequences, double rows);

#endif /* BG_GRADIENT_NORM_H */
