/* covariance.h - the tap that sums covariances (math.md M6). */
#ifndef BG_COVARIANCE_H
#define BG_COVARIANCE_H

#include <stddef.h>

#include "bregman/model.h"
#include "bregman/pass.h"
#include "bregman/share.h"
#include "bregman/store.h"
#include "bregman/status.h"

typedef struct bg_covariance bg_covariance;
/* Sums for tracked sites [sites.first, sites.end), cut into k blocks: A once for sites that share their input.
 *   scratch [in]  folder for the sums of more than memory holds; NULL: they are in memory. */
bg_status bg_covariance_new(bg_covariance **out, const bg_model *model, bg_site_range sites, size_t k,
                            const char *scratch, bg_err *err) BG_MUST_CHECK;
void bg_covariance_free(bg_covariance *c);
void bg_covariance_clear(bg_covariance *c);
/* Σ a aᵀ and Σ δ δᵀ of a pair in float32 (math.md M6 says how good that is), each about half of a product's FLOPs.
 * Other sites' pairs are passed over. */
bg_status bg_covariance_pair(void *covariance, const bg_pair *pair, bg_err *err);
/* Write the sums of a block of the model, or read them back: MODULE/activation_sum (owners of their input only),
 * MODULE/gradient_sum. */
bg_status bg_covariance_write(const bg_covariance *c, size_t block, bg_store *s, bg_err *err) BG_MUST_CHECK;
bg_status bg_covariance_read(bg_covariance *c, size_t block, const bg_store *s, bg_err *err) BG_MUST_CHECK;
/* Of the pairs of a batch of so many rows. */
void bg_covariance_cost(bg_cost *cost, const bg_model *model, bg_site_range sites, size_t k, size_t rows);
size_t bg_covariance_bytes(const bg_model *model, bg_site_range sites, size_t k);

#endif /* BG_COVARIANCE_H */
