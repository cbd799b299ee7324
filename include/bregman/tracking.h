/* tracking.h - which sites are tracked, in which sections and layers, and in what shapes their covariances are kept. */
#ifndef BG_TRACKING_H
#define BG_TRACKING_H

#include "bregman/model.h"

/* Choose the tracked sites, with their sections and layers; part of opening.  Errors: BG_EARG. */
bg_status bg_model_track(bg_model *m, const char *modules, bg_err *err) BG_MUST_CHECK;
/* How the tracked sites' covariances are kept (bg_site.a, .s), as fit_factors' options say: in k diagonal blocks, but
 * the embedding's A, and unless head_blocks the head's S, as a diagonal.  A model is opened with k = 1.
 * Errors: BG_EARG if a side has fewer than k rows. */
bg_status bg_model_set_shapes(bg_model *m, size_t k, bool head_blocks, bg_err *err) BG_MUST_CHECK;

#endif /* BG_TRACKING_H */
