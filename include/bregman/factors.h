/* factors.h - the EK-FAC factors of a model: their files, and the two taps that make them.
 *
 * factors/index.h5 links to factors/block-NNN.h5, one a block of the model; each has a group a module:
 * see the schema.  While fitting, factors/work holds the partial sums of finished units.
 */
#ifndef BG_FACTORS_H
#define BG_FACTORS_H

#include <stdbool.h>

#include "bregman/blockdiag.h"
#include "bregman/model.h"
#include "bregman/pass.h"
#include "bregman/store.h"

/* ---- covariance tap (math.md M6) ---- */

typedef struct bg_covariance bg_covariance;
/* Sums for tracked modules [modules.first, modules.end), cut into k blocks: A once for modules that share their input.
 *   scratch [in]  folder for the sums of more than memory holds; NULL: they are in memory. */
bg_status bg_covariance_new(bg_covariance **out, const bg_model *model, bg_run modules, size_t k, const char *scratch,
                            bg_err *err) BG_MUST_CHECK;
void bg_covariance_free(bg_covariance *c);
void bg_covariance_clear(bg_covariance *c);
/* Σ a aᵀ and Σ δ δᵀ of a pair in float32 (math.md M6 says how good that is), each about half of a product's FLOPs.  Other
 * modules' pairs are passed over. */
bg_status bg_covariance_pair(void *covariance, const bg_pair *pair, bg_err *err);
/* Write the sums of a block of the model, or read them back: MODULE/activation_sum (owners of their input only),
 * MODULE/gradient_sum. */
bg_status bg_covariance_write(const bg_covariance *c, size_t block, bg_store *s, bg_err *err) BG_MUST_CHECK;
bg_status bg_covariance_read(bg_covariance *c, size_t block, const bg_store *s, bg_err *err) BG_MUST_CHECK;
size_t bg_covariance_bytes(const bg_model *model, bg_run modules, size_t k);

/* ---- eigenvalue tap (math.md M8) ---- */

/* A module's bases, as lent to the taps that work in them. */
typedef struct {
    bg_blockdiag q_a;          /* [M] activation eigenvectors in columns */
    bg_blockdiag q_s;          /* [P] gradient eigenvectors in columns */
} bg_eigenbasis;

typedef struct bg_eigenvalues bg_eigenvalues;
/* Sums of (Q_Sᵀ G_z Q_A)∘² for the tracked modules of a run; with `diagonal` also of G_z∘² (the diagonal Fisher,
 * a baseline).  basis [n_tracked] lent, filled for the run; modules that share their input share q_a.
 *   scratch [in]  as for bg_covariance_new. */
bg_status bg_eigenvalues_new(bg_eigenvalues **out, const bg_model *model, bg_run modules, const bg_eigenbasis *basis,
                             bool diagonal, size_t max_rows, const char *scratch, bg_err *err) BG_MUST_CHECK;
void bg_eigenvalues_free(bg_eigenvalues *e);
void bg_eigenvalues_clear(bg_eigenvalues *e);
/* Call before each batch: forgets the rotated input of the batch before. */
void bg_eigenvalues_begin_batch(bg_eigenvalues *e);
bg_status bg_eigenvalues_pair(void *eigenvalues, const bg_pair *pair, bg_err *err);
/* Write a block's MODULE/lambda_sum and, if kept, MODULE/diagonal_sum; or read them back. */
bg_status bg_eigenvalues_write(const bg_eigenvalues *e, size_t block, bg_store *s, bg_err *err) BG_MUST_CHECK;
bg_status bg_eigenvalues_read(bg_eigenvalues *e, size_t block, const bg_store *s, bg_err *err) BG_MUST_CHECK;
/* Sums; and what is there besides: bases, and room to work in. */
size_t bg_eigenvalues_bytes(const bg_model *model, bg_run modules, bool diagonal);
size_t bg_eigenvalues_other_bytes(const bg_model *model, bg_run modules, size_t k, bool diagonal, size_t max_rows);

/* ---- files ---- */

typedef struct bg_factors bg_factors;

/* What to read of a module. */
enum { BG_READ_BASES = 1, BG_READ_LAMBDA = 2, BG_READ_EIGENVALUES = 4, BG_READ_DIAGONAL = 8 };
typedef struct {
    bg_eigenbasis basis;
    float *lambda;             /* [P, M] */
    float *diagonal;           /* [P, M] */
    double *alpha, *sigma;     /* [M], [P] activation and gradient eigenvalues */
} bg_module_factors;

/* Open DIR/index.h5 and check that it was fitted on this model (hash) and holds all its tracked modules in
 * their shapes, in block files of the same fit, as the folder's MANIFEST lists them.
 * Errors: BG_ESTALE (another model or fit: names both; not listed), BG_ESHAPE, BG_EIO, BG_EFORMAT. */
bg_status bg_factors_open(bg_factors **out, const char *dir, const bg_model *model, const bg_hash *model_hash,
                          bg_err *err) BG_MUST_CHECK;
void bg_factors_close(bg_factors *f);
/* The --modules that DIR/index.h5 was fitted with; caller frees with free(). */
bg_status bg_factors_modules(const char *dir, char **modules, bg_err *err) BG_MUST_CHECK;
const char *bg_factors_path(const bg_factors *f);              /* of index.h5 */
const char *bg_factors_fingerprint(const bg_factors *f);       /* identity of the fit */
size_t bg_factors_blocks(const bg_factors *f);                 /* k */
/* mean predicted positions a sequence had in the covariance fit: N_tok / N_seq (math.md M9, K-FAC) */
double bg_factors_tokens_per_sequence(const bg_factors *f);

/* Read a module's factors; free with bg_module_factors_clear. */
bg_status bg_factors_read(const bg_factors *f, const bg_module *mod, unsigned what,
                          bg_module_factors *out, bg_err *err) BG_MUST_CHECK;
void bg_module_factors_clear(bg_module_factors *m);

#endif /* BG_FACTORS_H */
