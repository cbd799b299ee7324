/* covariance.h - the tap that sums a model's Kronecker factors (math.md M6): covariances of single positions, or with
 * Shampoo the second moments of sequences' gradients. */
#ifndef BG_COVARIANCE_H
#define BG_COVARIANCE_H

#include <stddef.h>

#include "bregman/factor_kind.h"
#include "bregman/model.h"
#include "bregman/pass.h"
#include "bregman/share.h"
#include "bregman/store.h"
#include "bregman/status.h"

typedef struct bg_covariance bg_covariance;
typedef struct {
    bg_site_range sites;
    bg_factor_kind kind; /* whose shapes the model has (bg_factor_kind_shape) */
    size_t longest_rows; /* of a sequence; Shampoo's forms their gradients */
    const char *scratch; /* folder for the sums of more than memory holds; NULL: they are in memory */
} bg_covariance_task;
/* Sums for the tracked sites of a run in their shapes: of EK-FAC's inputs once for sites that share them.  And how many
 * positions in the loss each site has had. */
bg_status bg_covariance_new(bg_covariance **out, const bg_model *model, const bg_covariance_task *task,
                            bg_err *err) BG_MUST_CHECK;
void bg_covariance_free(bg_covariance *c);
void bg_covariance_clear(bg_covariance *c);
/* Of a pair, in float32 (math.md M6 says how good that is): Σ a aᵀ and Σ δ δᵀ over its rows that are in the loss, each
 * about half of a product's FLOPs; or Σ G Gᵀ and Σ Gᵀ G over its sequences, of which it has all rows
 * (common/ekfac/shampoo.h). Other sites' pairs are passed over. */
bg_status bg_covariance_pair(void *covariance, const bg_pair *pair, bg_err *err);
/* Write the sums of a section, or read them back: MODULE/activation_sum (owners of their input only) and
 * MODULE/gradient_sum, or MODULE/right_sum and MODULE/left_sum; MODULE/positions. */
bg_status bg_covariance_write(const bg_covariance *c, size_t section, bg_store *s, bg_err *err) BG_MUST_CHECK;
bg_status bg_covariance_read(bg_covariance *c, size_t section, const bg_store *s, bg_err *err) BG_MUST_CHECK;
/* Of the pairs of such a batch. */
void bg_covariance_cost(bg_cost *cost, const bg_model *model, bg_site_range sites, bg_factor_kind kind,
                        const bg_batch_shape *b);
/* The sums, and room to work in. */
size_t bg_covariance_bytes(const bg_model *model, bg_site_range sites);
size_t bg_covariance_room_bytes(const bg_model *model, bg_site_range sites, bg_factor_kind kind, size_t longest_rows);

#endif /* BG_COVARIANCE_H */
