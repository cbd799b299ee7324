/* eigen.h - symmetric eigenproblems and low-rank factors (float64 inside, LAPACKE). */
#ifndef BG_EIGEN_H
#define BG_EIGEN_H

#include <stddef.h>
#include <stdint.h>

#include "bregman/status.h"

/* Symmetric eigendecomposition A = Q diag(w) Qᵀ (math.md M7), by divide and conquer (dsyevd).
 *   a [in,out, n x n, row-major, full matrix]: on return Q, eigenvectors in columns.
 *   w [out, n]: eigenvalues, ascending, as computed (rounding may leave small negative ones).
 * Sign convention: each eigenvector's entry of largest magnitude (first of equals) is positive.
 * `what` names the matrix.  Errors: BG_ENUMERIC (NaN/Inf in A, no convergence), BG_ENOMEM.
 * Cost: about 9 n³ FLOPs; 2 n² doubles of workspace. */
bg_status bg_eigen(size_t n, double *a, double *w, const char *what, bg_err *err) BG_MUST_CHECK;

/* Best rank-r approximation X ≈ U Vᵀ in the Frobenius norm (math.md M10), U = left singular vectors
 * times singular values.
 *   x [in, m x n, row-major, ld = n] float32.  r <= min(m, n).
 *   u [out, m x r], v [out, n x r], row-major.
 * Exact (dgesdd) where min(m, n) <= 128 or r + oversampling >= min(m, n) / 2; else randomised
 * subspace iteration (Halko, Martinsson & Tropp 2011, alg. 4.4), oversampling max(10, r), 6 power iterations with
 * re-orthogonalisation, test matrix from bg_normal_fill(seed, stream).
 * Sign: as bg_eigen, on the columns of V.  Deterministic.
 * Errors: BG_ENUMERIC, BG_ENOMEM. */
bg_status bg_low_rank(size_t m, size_t n, const float *x, size_t r, uint64_t seed, uint64_t stream,
                      float *u, float *v, bg_err *err) BG_MUST_CHECK;
/* The same by the exact SVD always: the yardstick. */
bg_status bg_low_rank_exact(size_t m, size_t n, const float *x, size_t r, float *u, float *v,
                            bg_err *err) BG_MUST_CHECK;

#endif /* BG_EIGEN_H */
