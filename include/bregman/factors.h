/* factors.h - the files of a model's EK-FAC factors, read.
 *
 * factors/index.h5 links to factors/block-NNN.h5: one file per block of the model, with one group per module (see the
 * schema).  While fitting, factors/work holds the partial sums of finished units.
 */
#ifndef BG_FACTORS_H
#define BG_FACTORS_H

#include "bregman/blockdiag.h"
#include "bregman/model.h"
#include "bregman/share.h"
#include "bregman/store.h"

/* A module's bases, as lent to the taps that work in them. */
typedef struct {
    bg_blockdiag q_a; /* [M] activation eigenvectors in columns */
    bg_blockdiag q_s; /* [P] gradient eigenvectors in columns */
} bg_eigenbasis;
/* Bytes of the bases of a run of modules, cut into k blocks; inputs that modules share count once. */
size_t bg_eigenbasis_bytes(const bg_model *model, bg_site_range sites, size_t k);

typedef struct bg_factors bg_factors;

/* What to read of a module. */
enum { BG_READ_BASES = 1, BG_READ_LAMBDA = 2, BG_READ_EIGENVALUES = 4, BG_READ_DIAGONAL = 8 };
typedef struct {
    bg_eigenbasis basis;
    float *lambda;         /* [P, M] */
    float *diagonal;       /* [P, M] */
    double *alpha, *sigma; /* [M], [P] activation and gradient eigenvalues */
} bg_site_factors;

/* Open DIR/index.h5 and check that it was fitted on this model (hash) and holds all its tracked modules in
 * their shapes, in block files of the same fit, as the folder's MANIFEST lists them.
 * Errors: BG_ESTALE (another model or fit: names both; not listed), BG_ESHAPE, BG_EIO, BG_EFORMAT. */
bg_status bg_factors_open(bg_factors **out, const char *dir, const bg_model *model, const bg_hash *model_hash,
                          bg_err *err) BG_MUST_CHECK;
void bg_factors_close(bg_factors *f);
/* The --modules that DIR/index.h5 was fitted with; caller frees with free(). */
bg_status bg_factors_modules(const char *dir, char **modules, bg_err *err) BG_MUST_CHECK;
const char *bg_factors_path(const bg_factors *f);        /* of index.h5 */
const char *bg_factors_fingerprint(const bg_factors *f); /* identity of the fit */
size_t bg_factors_blocks(const bg_factors *f);           /* k */
/* mean predicted positions a sequence had in the covariance fit: N_tok / N_seq (math.md M9, K-FAC) */
double bg_factors_tokens_per_sequence(const bg_factors *f);

/* Read a module's factors; free with bg_site_factors_clear. */
bg_status bg_factors_read(const bg_factors *f, const bg_site *site, unsigned what, bg_site_factors *out,
                          bg_err *err) BG_MUST_CHECK;
void bg_site_factors_clear(bg_site_factors *m);

#endif /* BG_FACTORS_H */
