/* factors.h - the files of a model's EK-FAC or Shampoo factors, read.
 *
 * factors/index.h5 links to factors/block-NNN.h5, embedding.h5 and head.h5: one file per section of the model, with one
 * group per module (see the schema).  While fitting, factors/work holds the partial sums of finished units.
 */
#ifndef BG_FACTORS_H
#define BG_FACTORS_H

#include "bregman/eigenbasis.h"
#include "bregman/factor_kind.h"
#include "bregman/model.h"
#include "bregman/share.h"
#include "bregman/store.h"

typedef struct bg_factors bg_factors;

/* What to read of a module. */
enum { BG_READ_BASES = 1, BG_READ_LAMBDA = 2, BG_READ_EIGENVALUES = 4, BG_READ_DIAGONAL = 8, BG_READ_HALF = 16 };
typedef struct {
    bg_eigenbasis basis;
    float *lambda;         /* [P, M] */
    float *half;           /* [P, M] the same of the first sequences, about half of them; NULL: the file has none */
    double half_share;     /* of the sequences that it is of, between 0 and 1 */
    float *diagonal;       /* [P, M] */
    double *alpha, *sigma; /* [M], [P] eigenvalues of the inputs' and the outputs' side */
} bg_site_factors;

/* Open DIR/index.h5 and check that it was fitted on this model (hash) and holds all its tracked modules in
 * their shapes, in files of the same fit, as the folder's MANIFEST lists them.  Sets the model's shapes as fitted, and
 * that no sites share a matrix where it is Shampoo's.
 * Errors: BG_ESTALE (another model or fit: names both; not listed), BG_ESHAPE, BG_EIO, BG_EFORMAT. */
bg_status bg_factors_open(bg_factors **out, const char *dir, bg_model *model, const bg_hash *model_hash,
                          bg_err *err) BG_MUST_CHECK;
/* DIR/block-012.h5, DIR/head.h5: a section's file. */
bg_status bg_factors_section_path(const char *dir, size_t section, char out[BG_PATH_BYTES], bg_err *err) BG_MUST_CHECK;
void bg_factors_close(bg_factors *f);
/* The --modules that DIR/index.h5 was fitted with; caller frees with free(). */
bg_status bg_factors_modules(const char *dir, char **modules, bg_err *err) BG_MUST_CHECK;
bg_factor_kind bg_factors_kind(const bg_factors *f);
const char *bg_factors_path(const bg_factors *f);        /* of index.h5 */
const char *bg_factors_fingerprint(const bg_factors *f); /* identity of the fit */
/* Mean predicted positions of a sequence that the site has had in the covariance fit: N_tok / N_seq (math.md M9, K-FAC,
 * whose factors these must be). */
bg_status bg_factors_tokens_per_sequence(const bg_factors *f, const bg_site *site, double *out,
                                         bg_err *err) BG_MUST_CHECK;

/* The mean of Λ's entries: times their number the squared norm that a training gradient of the module is expected to
 * have, whatever the basis.  NAN: the file does not say. */
bg_status bg_factors_mean_lambda(const bg_factors *f, const bg_site *site, double *out, bg_err *err) BG_MUST_CHECK;

/* Read a module's factors; free with bg_site_factors_clear. */
bg_status bg_factors_read(const bg_factors *f, const bg_site *site, unsigned what, bg_site_factors *out,
                          bg_err *err) BG_MUST_CHECK;
void bg_site_factors_clear(bg_site_factors *m);

#endif /* BG_FACTORS_H */
