/* low_rank.h - low-rank factors (float64 inside; LAPACKE). */
#ifndef BG_LOW_RANK_H
#define BG_LOW_RANK_H

#include <stddef.h>
#include <stdint.h>

#include "bregman/cost.h"
#include "bregman/status.h"

typedef struct {
    size_t m, n, r;        /* r <= min(m, n) */
    const float *x;        /* X [m, n], row-major, ld = n; lent */
    uint64_t seed, stream; /* of the random test matrix, where one is used */
} bg_low_rank_problem;

/* Best rank-r approximation X ≈ U Vᵀ in the Frobenius norm (math.md M10), U = left singular vectors
 * times singular values.
 *   u [out, m x r], v [out, n x r], row-major.
 * Exact (dgesdd) where min(m, n) <= 128 or r + oversampling >= min(m, n) / 2; else randomised
 * subspace iteration (Halko, Martinsson & Tropp 2011, alg. 4.4), oversampling max(10, r), 6 power iterations with
 * re-orthogonalisation, test matrix from bg_normal_fill(seed, stream).
 * Sign: as bg_eigen, on the columns of V.  Deterministic.
 * Errors: BG_ENUMERIC, BG_ENOMEM. */
bg_status bg_low_rank(const bg_low_rank_problem *of, float *u, float *v, bg_err *err) BG_MUST_CHECK;
void bg_low_rank_cost(bg_cost *cost, size_t m, size_t n, size_t r);
/* The same by the exact SVD always: the yardstick. */
bg_status bg_low_rank_exact(const bg_low_rank_problem *of, float *u, float *v, bg_err *err) BG_MUST_CHECK;

#endif /* BG_LOW_RANK_H */
