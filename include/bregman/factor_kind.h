/* factor_kind.h - which sums a model's Kronecker factors are of (math.md M6): EK-FAC's covariances of positions, or
 * Shampoo's of whole sequences' gradients.  What comes after them, eigenbases and Λ, is the same. */
#ifndef BG_FACTOR_KIND_H
#define BG_FACTOR_KIND_H

#include "bregman/model.h"
#include "bregman/store.h"

typedef enum { BG_FACTORS_EKFAC, BG_FACTORS_SHAMPOO } bg_factor_kind;

/* "ekfac", "shampoo", and NULL: of --preconditioner, and of the attribute `preconditioner` of factors' files. */
extern const char *const bg_factor_kind_word[];

/* What the files call the two matrices of a site.  Those of different kinds have different names, as they have other
 * units: who takes one for the other finds nothing. */
typedef enum { BG_SIDE_INPUT, BG_SIDE_OUTPUT } bg_factor_side;
/* "activation" and "gradient", or "right" and "left". */
const char *bg_factor_side_name(bg_factor_kind kind, bg_factor_side side);

/* bg_model_set_shapes, and whose matrix the inputs' side of a site is: Shampoo's depends on the site's own gradients,
 * so no site shares another's (bg_site.input).  That is not taken back: a model is of one kind from then on.
 * Errors: those of bg_model_set_shapes. */
bg_status bg_factor_kind_shape(bg_model *model, bg_factor_kind kind, size_t k, bool head_blocks,
                               bg_err *err) BG_MUST_CHECK;

/* The kind that a file of factors says it is of; a file that says nothing is EK-FAC's, older ones being silent.
 * Errors: BG_EFORMAT for a word that is none of these, BG_EIO. */
bg_status bg_factor_kind_read(const bg_store *s, bg_factor_kind *out, bg_err *err) BG_MUST_CHECK;
bg_status bg_factor_kind_write(bg_store *s, bg_factor_kind kind, bg_err *err) BG_MUST_CHECK;

#endif /* BG_FACTOR_KIND_H */
