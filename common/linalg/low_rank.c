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

static bg_status check_sizes(const bg_low_rank_problem *of, bg_err *err)
{
    if (of->r > smaller(of->m, of->n))
        return BG_FAIL(err, BG_EARG, "rank %zu is above the smaller side of a %zu x %zu matrix", of->r, of->m, of->n);
    if (of->m > INT_MAX || of->n > INT_MAX)
        return BG_FAIL(err, BG_EARG, "a %zu x %zu matrix is too large for LAPACK", of->m, of->n);
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

/* Singular value decomposition of a matrix [rows, columns], row-major; k = the smaller side. */
typedef struct {
    size_t rows, columns, k;
    double *a;     /* [rows, columns] scratch */
    double *s;     /* [k] */
    double *right; /* [k, columns]: right singular vectors in rows */
    double *left;  /* [rows, k]: left ones in columns */
} decomposition;

static bg_status decomposition_new(decomposition *d, size_t rows, size_t columns, bg_err *err)
{
    size_t k = smaller(rows, columns);
    *d = (decomposition){ .rows = rows, .columns = columns, .k = k };
    bg_status st = BG_NEW(d->a, rows * columns, what, err);
    if (st == BG_OK)
        st = BG_NEW(d->s, k, what, err);
    if (st == BG_OK)
        st = BG_NEW(d->right, k * columns, what, err);
    if (st == BG_OK)
        st = BG_NEW(d->left, k * rows, what, err);
    return st;
}

static void decomposition_free(decomposition *d)
{
    bg_free(d->left);
    bg_free(d->right);
    bg_free(d->s);
    bg_free(d->a);
}

/* Of x.  By divide and conquer; what that does not converge on, QR iteration mostly does. */
static bg_status svd(const float *x, decomposition *d, bg_err *err)
{
    lapack_int m = (lapack_int)d->columns, n = (lapack_int)d->rows, k = (lapack_int)d->k;
    size_t size = d->rows * d->columns;
    double *rest = NULL;
    bg_status st = BG_OK;
    bool alone = size <= BG_PARALLEL_ENTRIES;
    if (alone)
        bg_gemm_serial_begin();
    widen(size, x, d->a);
    lapack_int info = BG_BLAS(LAPACKE_dgesdd)(LAPACK_COL_MAJOR, 'S', m, n, d->a, m, d->s, d->right, m, d->left, k);
    if (info > 0) {
        bg_log("warning: %s: dgesdd did not converge, dgesvd is used", what);
        st = BG_NEW(rest, (size_t)k, what, err);
        widen(size, x, d->a);
        if (st == BG_OK)
            info = BG_BLAS(LAPACKE_dgesvd)(LAPACK_COL_MAJOR, 'S', 'S', m, n, d->a, m, d->s, d->right, m, d->left, k,
                                           rest);
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
static bg_status find_range(const bg_low_rank_problem *of, size_t l, float *q, float *z, float *tau, bg_err *err)
{
    size_t m = of->m, n = of->n;
    bg_normal_fill(of->seed, of->stream, l * n, z);
    for (int pass = 0;; pass++) {
        bg_gemm((bg_extent){ l, m, n }, 1, bg_f32(BG_N, z, n), bg_f32(BG_T, of->x, n), 0, q, m);
        bg_status st = orthonormalise(l, m, q, tau, err);
        if (st != BG_OK || pass == POWER_ITERATIONS)
            return st;
        bg_gemm((bg_extent){ l, n, m }, 1, bg_f32(BG_N, q, m), bg_f32(BG_N, of->x, n), 0, z, n);
        st = orthonormalise(l, n, z, tau, err);
        if (st != BG_OK)
            return st;
    }
}

/* v [columns, r] = the first r right singular vectors, with bg_eigen's signs, and the left ones multiplied by the
 * singular values and the same signs into scaled [rows, r]. */
static void take_factors(const decomposition *d, size_t r, float *scaled, float *v)
{
    for (size_t j = 0; j < r; j++) {
        const double *column = d->right + j * d->columns;
        double sign = sign_of(d->columns, column);
        for (size_t i = 0; i < d->columns; i++)
            v[i * r + j] = (float)(sign * column[i]);
        for (size_t i = 0; i < d->rows; i++)
            scaled[i * r + j] = (float)(sign * d->s[j] * d->left[i * d->k + j]);
    }
}

bg_status bg_low_rank_exact(const bg_low_rank_problem *of, float *u, float *v, bg_err *err)
{
    decomposition d;
    bg_status st = check_sizes(of, err);
    if (st != BG_OK || of->r == 0)
        return st;
    st = decomposition_new(&d, of->m, of->n, err);
    if (st == BG_OK)
        st = svd(of->x, &d, err);
    if (st == BG_OK)
        take_factors(&d, of->r, u, v);
    decomposition_free(&d);
    return st;
}

/* X ≈ Qᵀ (Q X) with l rows in Q; the SVD is of the small Q X. */
static bg_status low_rank_randomised(const bg_low_rank_problem *of, float *u, float *v, bg_err *err)
{
    size_t m = of->m, n = of->n, r = of->r, l = oversampled(r);
    float *q = NULL, *z = NULL, *tau = NULL, *scaled = NULL;
    decomposition d = { .a = NULL };
    bg_status st;
    if ((st = BG_NEW(q, l * m, what, err)) != BG_OK)
        goto out;
    if ((st = BG_NEW(z, l * n, what, err)) != BG_OK)
        goto out;
    if ((st = BG_NEW(tau, l, what, err)) != BG_OK)
        goto out;
    if ((st = BG_NEW(scaled, l * r, what, err)) != BG_OK)
        goto out;
    if ((st = decomposition_new(&d, l, n, err)) != BG_OK)
        goto out;
    if ((st = find_range(of, l, q, z, tau, err)) != BG_OK)
        goto out;
    bg_gemm((bg_extent){ l, n, m }, 1, bg_f32(BG_N, q, m), bg_f32(BG_N, of->x, n), 0, z, n);
    if ((st = svd(z, &d, err)) != BG_OK)
        goto out;
    take_factors(&d, r, scaled, v);
    bg_gemm((bg_extent){ m, r, l }, 1, bg_f32(BG_T, q, m), bg_f32(BG_N, scaled, r), 0, u, r);
out:
    decomposition_free(&d);
    bg_free(scaled);
    bg_free(tau);
    bg_free(z);
    bg_free(q);
    return st;
}

static bool is_exact(size_t m, size_t n, size_t r)
{
    size_t side = smaller(m, n);
    return r == 0 || side <= ALWAYS_EXACT_SIDE || r >= side / 4 || oversampled(r) >= side / 2;
}

bg_status bg_low_rank(const bg_low_rank_problem *of, float *u, float *v, bg_err *err)
{
    if (is_exact(of->m, of->n, of->r))
        return bg_low_rank_exact(of, u, v, err);
    bg_status st = check_sizes(of, err);
    return st == BG_OK ? low_rank_randomised(of, u, v, err) : st;
}

/* LAPACK's Householder QR and small SVD reach about a quarter of a product's rate, the SVD in float64. */
void bg_low_rank_cost(bg_cost *cost, size_t m_, size_t n_, size_t r_)
{
    const double slower = 4, wide = 2, svd = 20, passes = POWER_ITERATIONS + 1;
    double m = (double)m_, n = (double)n_, r = (double)r_, l = (double)oversampled(r_);
    if (is_exact(m_, n_, r_)) {
        cost->of[BG_COST_FLOP] += slower * wide * svd * m * n * (double)smaller(m_, n_);
        return;
    }
    bg_cost_product(cost, l, m, n, passes);
    bg_cost_product(cost, l, n, m, passes);
    bg_cost_product(cost, m, r, l, 1);
    cost->of[BG_COST_FLOP] += slower * (4 * l * l * (passes * m + POWER_ITERATIONS * n) + wide * svd * l * l * n);
    cost->of[BG_COST_SERIAL] += l * n * (passes + 1);
}
