/* low_rank.c - truncated singular value decompositions.
 *
 * A row-major m x n matrix is LAPACK's column-major n x m: everything here is written so that no transpose is needed.
 * The randomised path keeps a basis of l vectors as rows, row-major l x m (or l x n).
 */
#include "bregman/low_rank.h"

#include <limits.h>
#include <math.h>
#include <stdbool.h>

#include "blas_names.h"
#include "bregman/gemm.h"
#include "bregman/log.h"
#include "bregman/memory.h"
#include "bregman/rng.h"
#include "bregman/threads.h"
#include "lapack_status.h"

/* Twice the rank and six iterations: with singular values falling as slowly as 1/i, scores at rank 32 still agree with
 * the exact ones to 1e-4 (oversampling by 10 and three iterations leave 1e-2). */
enum { LEAST_OVERSAMPLING = 10, POWER_ITERATIONS = 6, ALWAYS_EXACT_SIDE = 128 };

static const char what[] = "low-rank factor";

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }
static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

static size_t oversampled(size_t r) { return r + larger(r, LEAST_OVERSAMPLING); }

static bg_status check_sizes(size_t m, size_t n, size_t r, bg_err *err)
{
    if (r > smaller(m, n))
        return BG_FAIL(err, BG_EARG, "rank %zu is above the smaller side of a %zu x %zu matrix", r, m, n);
    if (m > INT_MAX || n > INT_MAX)
        return BG_FAIL(err, BG_EARG, "a %zu x %zu matrix is too large for LAPACK", m, n);
    return BG_OK;
}

/* +1 or -1: the sign that makes v's largest entry (first of equals) positive. */
static double sign_of(size_t n, const double *v)
{
    size_t largest = 0;
    for (size_t i = 1; i < n; i++)
        if (fabs(v[i]) > fabs(v[largest]))
            largest = i;
    return n > 0 && v[largest] < 0 ? -1 : 1;
}

static void widen(size_t n, const float *from, double *to)
{
    for (size_t i = 0; i < n; i++)
        to[i] = (double)from[i];
}

/* Singular value decomposition of x [rows, columns], row-major; k = the smaller side.  By divide and conquer; what that
 * does not converge on, QR iteration mostly does.
 *   a [rows, columns] scratch, s [out, k], right [out, k x columns]: right singular vectors in rows,
 *   left [out, rows x k]: left ones in columns. */
static bg_status svd(size_t rows, size_t columns, const float *x, double *a, double *s, double *right, double *left,
                     bg_err *err)
{
    lapack_int m = (lapack_int)columns, n = (lapack_int)rows, k = (lapack_int)smaller(rows, columns);
    double *rest = NULL;
    bg_status st = BG_OK;
    bool alone = rows * columns <= BG_PARALLEL_ENTRIES;
    if (alone)
        bg_gemm_serial_begin();
    widen(rows * columns, x, a);
    lapack_int info = BG_BLAS(LAPACKE_dgesdd)(LAPACK_COL_MAJOR, 'S', m, n, a, m, s, right, m, left, k);
    if (info > 0) {
        bg_log("warning: %s: dgesdd did not converge, dgesvd is used", what);
        st = BG_NEW(rest, (size_t)k, what, err);
        widen(rows * columns, x, a);
        if (st == BG_OK)
            info = BG_BLAS(LAPACKE_dgesvd)(LAPACK_COL_MAJOR, 'S', 'S', m, n, a, m, s, right, m, left, k, rest);
        bg_free(rest);
    }
    if (alone)
        bg_gemm_serial_end();
    return st != BG_OK || info == 0 ? st : bg_lapack_fail(info, "dgesdd and dgesvd", what, err);
}

/* basis [l, width] rows, made orthonormal: Householder QR, whose error does not grow with the condition number. */
static bg_status orthonormalise(size_t l, size_t width, float *basis, float *tau, bg_err *err)
{
    lapack_int m = (lapack_int)width, n = (lapack_int)l, factored, formed = 0;
    bool alone = l * width <= BG_PARALLEL_ENTRIES;
    if (alone)
        bg_gemm_serial_begin();
    factored = BG_BLAS(LAPACKE_sgeqrf)(LAPACK_COL_MAJOR, m, n, basis, m, tau);
    if (factored == 0)
        formed = BG_BLAS(LAPACKE_sorgqr)(LAPACK_COL_MAJOR, m, n, n, basis, m, tau);
    if (alone)
        bg_gemm_serial_end();
    if (factored != 0)
        return bg_lapack_fail(factored, "sgeqrf", what, err);
    return formed == 0 ? BG_OK : bg_lapack_fail(formed, "sorgqr", what, err);
}

/* Orthonormal rows q [l, m] that span X's leading left singular vectors (alg. 4.4); z [l, n] is scratch. */
static bg_status find_range(size_t m, size_t n, const float *x, size_t l, uint64_t seed, uint64_t stream, float *q,
                            float *z, float *tau, bg_err *err)
{
    bg_normal_fill(seed, stream, l * n, z);
    for (int pass = 0;; pass++) {
        bg_gemm((bg_extent){ l, m, n }, 1, bg_f32(BG_N, z, n), bg_f32(BG_T, x, n), 0, q, m);
        bg_status st = orthonormalise(l, m, q, tau, err);
        if (st != BG_OK || pass == POWER_ITERATIONS)
            return st;
        bg_gemm((bg_extent){ l, n, m }, 1, bg_f32(BG_N, q, m), bg_f32(BG_N, x, n), 0, z, n);
        st = orthonormalise(l, n, z, tau, err);
        if (st != BG_OK)
            return st;
    }
}

/* v [n, r] = the first r rows of right [k, n], with bg_eigen's signs, and left's columns [rows, k] multiplied by
 * s and the same signs into scaled [rows, r]. */
static void take_factors(size_t rows, size_t n, size_t k, size_t r, const double *s, const double *right,
                         const double *left, float *scaled, float *v)
{
    for (size_t j = 0; j < r; j++) {
        const double *column = right + j * n;
        double sign = sign_of(n, column);
        for (size_t i = 0; i < n; i++)
            v[i * r + j] = (float)(sign * column[i]);
        for (size_t i = 0; i < rows; i++)
            scaled[i * r + j] = (float)(sign * s[j] * left[i * k + j]);
    }
}

bg_status bg_low_rank_exact(size_t m, size_t n, const float *x, size_t r, float *u, float *v, bg_err *err)
{
    double *a = NULL, *s = NULL, *right = NULL, *left = NULL;
    size_t k = smaller(m, n);
    bg_status st = check_sizes(m, n, r, err);
    if (st != BG_OK || r == 0)
        goto out;
    if ((st = BG_NEW(a, m * n, what, err)) != BG_OK)
        goto out;
    if ((st = BG_NEW(s, k, what, err)) != BG_OK)
        goto out;
    if ((st = BG_NEW(right, k * n, what, err)) != BG_OK)
        goto out;
    if ((st = BG_NEW(left, k * m, what, err)) != BG_OK)
        goto out;
    if ((st = svd(m, n, x, a, s, right, left, err)) != BG_OK)
        goto out;
    take_factors(m, n, k, r, s, right, left, u, v);
out:
    bg_free(left);
    bg_free(right);
    bg_free(s);
    bg_free(a);
    return st;
}

/* X ≈ Qᵀ (Q X) with l rows in Q; the SVD is of the small Q X. */
static bg_status low_rank_randomised(size_t m, size_t n, const float *x, size_t r, uint64_t seed, uint64_t stream,
                                     float *u, float *v, bg_err *err)
{
    size_t l = oversampled(r);
    float *q = NULL, *z = NULL, *tau = NULL, *scaled = NULL;
    double *wide = NULL, *s = NULL, *right = NULL, *left = NULL;
    bg_status st;
    if ((st = BG_NEW(q, l * m, what, err)) != BG_OK)
        goto out;
    if ((st = BG_NEW(z, l * n, what, err)) != BG_OK)
        goto out;
    if ((st = BG_NEW(tau, l, what, err)) != BG_OK)
        goto out;
    if ((st = BG_NEW(scaled, l * r, what, err)) != BG_OK)
        goto out;
    if ((st = BG_NEW(wide, l * n, what, err)) != BG_OK)
        goto out;
    if ((st = BG_NEW(s, l, what, err)) != BG_OK)
        goto out;
    if ((st = BG_NEW(right, l * n, what, err)) != BG_OK)
        goto out;
    if ((st = BG_NEW(left, l * l, what, err)) != BG_OK)
        goto out;

    if ((st = find_range(m, n, x, l, seed, stream, q, z, tau, err)) != BG_OK)
        goto out;
    bg_gemm((bg_extent){ l, n, m }, 1, bg_f32(BG_N, q, m), bg_f32(BG_N, x, n), 0, z, n);
    if ((st = svd(l, n, z, wide, s, right, left, err)) != BG_OK)
        goto out;
    take_factors(l, n, l, r, s, right, left, scaled, v);
    bg_gemm((bg_extent){ m, r, l }, 1, bg_f32(BG_T, q, m), bg_f32(BG_N, scaled, r), 0, u, r);
out:
    bg_free(left);
    bg_free(right);
    bg_free(s);
    bg_free(wide);
    bg_free(scaled);
    bg_free(tau);
    bg_free(z);
    bg_free(q);
    return st;
}

bg_status bg_low_rank(size_t m, size_t n, const float *x, size_t r, uint64_t seed, uint64_t stream, float *u, float *v,
                      bg_err *err)
{
    size_t side = smaller(m, n);
    if (r == 0 || side <= ALWAYS_EXACT_SIDE || r >= side / 4 || oversampled(r) >= side / 2)
        return bg_low_rank_exact(m, n, x, r, u, v, err);
    bg_status st = check_sizes(m, n, r, err);
    return st == BG_OK ? low_rank_randomised(m, n, x, r, seed, stream, u, v, err) : st;
}
