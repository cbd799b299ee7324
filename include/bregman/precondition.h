/* precondition.h - the damped inverse curvature applied to a query's gradient (math.md M9), and its
 * truncation to low rank with the score's own error bar (M10).
 *
 * All preconditioners are one code path: a basis, eigenvalues C in it, and P(V) = V' ⊘ (C + λ) there.
 *   ekfac     eigenbases, C = Λ
 *   shampoo   the same, of Shampoo's factors
 *   kfac      eigenbases, C = α σᵀ · N_tok / N_seq, of EK-FAC's factors
 *   diagonal  the parameters' own basis, C = mean of G_z∘²
 *   identity  the parameters' own basis, C = 0, λ = 1: the gradient dot product
 */
#ifndef BG_PRECONDITION_H
#define BG_PRECONDITION_H

#include <stdbool.h>

#include "bregman/factors.h"

typedef enum { BG_EKFAC, BG_SHAMPOO, BG_KFAC, BG_DIAGONAL, BG_IDENTITY } bg_preconditioner;

/* "ekfac" ..., and NULL: of --preconditioner and of compressed queries. */
extern const char *const bg_preconditioner_word[];
/* The one that factors were fitted for: ekfac or shampoo. */
bg_preconditioner bg_preconditioner_fitted(const bg_factors *f);
/* BG_EARG, naming the factors and what to do, if it cannot be had of them: ekfac and kfac are of EK-FAC's, shampoo is
 * of Shampoo's, and diagonal and identity of either. */
bg_status bg_preconditioner_check(bg_preconditioner kind, const bg_factors *f, bg_err *err) BG_MUST_CHECK;

typedef struct {
    bg_preconditioner kind;
    bool absolute; /* damping is λ itself; else λ = damping * mean(C) */
    double damping;
} bg_damping;

/* A module's curvature in the basis its kind works in. */
typedef struct {
    bg_preconditioner kind;
    size_t p, m;
    bool rotated;            /* in the eigenbases rather than the parameters' own */
    double lambda;           /* infinite where C is 0 everywhere, and so its mean: P(V) = 0 */
    float *c;                /* [P, M], not negative */
    float *half;             /* [P, M] C of some of the sequences; NULL: not known, or C is not fitted in this basis */
    double half_lambda;      /* λ with it */
    double half_share;       /* of the sequences that it is of */
    bg_site_factors factors; /* bases if rotated */
} bg_curvature;

/* Read and form; N_tok / N_seq of K-FAC is from the factors. Free with bg_curvature_clear.
 * Errors: those of bg_preconditioner_check and bg_factors_read; BG_ENUMERIC if C + λ is 0 or NaN somewhere. */
bg_status bg_curvature_read(const bg_factors *f, const bg_site *site, bg_damping damping, bg_curvature *out,
                            bg_err *err) BG_MUST_CHECK;
void bg_curvature_clear(bg_curvature *c);

/* v [P, M] from the parameters' basis to the curvature's, into out; or back.  half [P, M] is room, and none of the
 * three overlaps another. */
void bg_curvature_rotate(const bg_curvature *c, const float *v, float *half, float *out);
void bg_curvature_rotate_back(const bg_curvature *c, const float *v, float *half, float *out);
/* Of `times` such calls, into eigenbases or back. */
void bg_curvature_rotate_cost(bg_cost *cost, const bg_site *site, double times);
/* v [P, M] in the curvature's basis -> v ⊘ (C + λ), in place. */
void bg_curvature_divide(const bg_curvature *c, float *v);

/* Expected variance of the score that v gives to a training gradient: Σ C_ij v_ij² (identity: C = 1). */
double bg_curvature_variance(const bg_curvature *c, const float *v);
/* And of the error in it from C's being fitted on a sample.  C of a share h of its n sequences differs from C with the
 * variance (1 - h) / h of what one fit on n sequences has, to first order, and so do scores: for h = 1/2 by as much as
 * one fit differs from the truth.  v = V ⊘ (C + λ); NAN: not known. */
double bg_curvature_sampling_variance(const bg_curvature *c, const float *v);

/* What is wanted of v [P, M] in the curvature's basis. */
typedef struct {
    const float *v;
    size_t r;              /* columns, at most min(P, M); with a tolerance the most to take */
    double tolerance;      /* 0: none */
    uint64_t seed, stream; /* of the low-rank approximation */
} bg_truncation;

/* Low-rank factors in the parameters' basis: left [P, r], right [M, r], the caller's, with the r that was asked for. */
typedef struct {
    float *left, *right;
    size_t needed;          /* columns; with a tolerance the smallest number whose error / variance <= tolerance (all if
                             * none is): further ones are 0 */
    double variance, error; /* of v's score, and of its truncation's error */
} bg_compressed;

/* scratch: bg_compress_scratch(P, M, r) floats.  r = min(P, M) without a tolerance is exact and makes no SVD: one
 * factor is the basis itself. */
bg_status bg_compress(const bg_curvature *c, const bg_truncation *t, float *scratch, bg_compressed *out,
                      bg_err *err) BG_MUST_CHECK;
/* Of `times` such calls, the preconditioning before them included, in bases of the site's shapes. */
void bg_compress_cost(bg_cost *cost, const bg_site *site, size_t r, double times);
size_t bg_compress_scratch(size_t p, size_t m, size_t r); /* floats */

#endif /* BG_PRECONDITION_H */
