/* Truncated factors: the exact ones against what is known of them, the randomised ones against the exact. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bregman/eigen.h"
#include "bregman/low_rank.h"
#include "bregman/rng.h"

static float *floats(size_t n)
{
    float *x = calloc(n + 1, sizeof *x);
    assert_non_null(x);
    return x;
}

/* Removes from each of the `count` rows of x [count, d] its components along the earlier ones, and normalises. */
static void gram_schmidt(size_t count, size_t d, float *x)
{
    for (size_t i = 0; i < count; i++) {
        for (size_t pass = 0; pass < 2; pass++)
            for (size_t j = 0; j < i; j++) {
                double dot = 0;
                for (size_t l = 0; l < d; l++)
                    dot += (double)x[i * d + l] * (double)x[j * d + l];
                for (size_t l = 0; l < d; l++)
                    x[i * d + l] -= (float)dot * x[j * d + l];
            }
        double norm = 0;
        for (size_t l = 0; l < d; l++)
            norm += (double)x[i * d + l] * (double)x[i * d + l];
        for (size_t l = 0; l < d; l++)
            x[i * d + l] /= (float)sqrt(norm);
    }
}

typedef double spectrum(size_t i);
static double geometric(size_t i) { return pow(0.8, (double)i); }
static double power_law(size_t i) { return 100 / (double)(1 + i); }
static double rank_five(size_t i) { return i < 5 ? 3.0 - 0.5 * (double)i : 0; }
static double zero(size_t i)
{
    (void)i;
    return 0;
}

/* X = sum of s_i a_i b_iᵀ with random orthonormal a, b. */
static float *matrix(size_t m, size_t n, spectrum *s)
{
    size_t k = m < n ? m : n;
    float *x = floats(m * n), *a = floats(k * m), *b = floats(k * n);
    bg_normal_fill(5, 1, k * m, a);
    bg_normal_fill(5, 2, k * n, b);
    gram_schmidt(k, m, a);
    gram_schmidt(k, n, b);
    double *sum = calloc(m * n, sizeof *sum);
    assert_non_null(sum);
    for (size_t l = 0; l < k && s(l) > 0; l++)
        for (size_t i = 0; i < m; i++) {
            double sa = s(l) * (double)a[l * m + i];
            for (size_t j = 0; j < n; j++)
                sum[i * n + j] += sa * (double)b[l * n + j];
        }
    for (size_t i = 0; i < m * n; i++)
        x[i] = (float)sum[i];
    free(sum);
    free(b);
    free(a);
    return x;
}

static double residual(size_t m, size_t n, size_t r, const float *x, const float *u, const float *v)
{
    double sum = 0;
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            double e = (double)x[i * n + j];
            for (size_t l = 0; l < r; l++)
                e -= (double)u[i * r + l] * (double)v[j * r + l];
            sum += e * e;
        }
    return sqrt(sum);
}

static double norm_of(size_t n, const float *x)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sqrt(sum);
}

static double tail_of(size_t k, size_t r, spectrum *s)
{
    double sum = 0;
    for (size_t i = r; i < k; i++)
        sum += s(i) * s(i);
    return sqrt(sum);
}

/* The Frobenius error is the best possible, columns of V are orthonormal with fixed signs, those of U
 * as long as the singular values. */
static void check_factors(size_t m, size_t n, size_t r, spectrum *s, const float *x, const float *u, const float *v)
{
    double scale = norm_of(m * n, x), best = tail_of(m < n ? m : n, r, s);
    double got = residual(m, n, r, x, u, v);
    assert_true(got <= best * 1.001 + 3e-6 * scale);
    for (size_t a = 0; a < r; a++) {
        size_t largest = 0;
        double length = 0;
        for (size_t b = 0; b <= a; b++) {
            double dot = 0;
            for (size_t j = 0; j < n; j++)
                dot += (double)v[j * r + a] * (double)v[j * r + b];
            assert_true(fabs(dot - (a == b)) <= 1e-5);
        }
        for (size_t j = 0; j < n; j++)
            if (fabsf(v[j * r + a]) > fabsf(v[largest * r + a]))
                largest = j;
        assert_true(v[largest * r + a] > 0);
        for (size_t i = 0; i < m; i++)
            length += (double)u[i * r + a] * (double)u[i * r + a];
        assert_true(fabs(sqrt(length) - s(a)) <= 1e-3 * s(a) + 3e-6 * scale);
    }
}

static void check_low_rank(size_t m, size_t n, size_t r, spectrum *s)
{
    bg_err err;
    float *x = matrix(m, n, s), *u = floats(m * r), *v = floats(n * r), *again = floats(n * r);
    assert_int_equal(bg_low_rank_exact(&(bg_low_rank_problem){ m, n, r, x, 0, 0 }, u, v, &err), BG_OK);
    check_factors(m, n, r, s, x, u, v);
    assert_int_equal(bg_low_rank(&(bg_low_rank_problem){ m, n, r, x, 7, 1 }, u, v, &err), BG_OK);
    check_factors(m, n, r, s, x, u, v);
    assert_int_equal(bg_low_rank(&(bg_low_rank_problem){ m, n, r, x, 7, 1 }, u, again, &err), BG_OK);
    assert_memory_equal(v, again, n * r * sizeof *v);
    free(again);
    free(v);
    free(u);
    free(x);
}

static void factors_are_best(void **state)
{
    (void)state;
    spectrum *const s[] = { geometric, power_law, rank_five, zero };
    for (size_t i = 0; i < 4; i++) {
        check_low_rank(1, 1, 1, s[i]);
        check_low_rank(3, 7, 2, s[i]);
        check_low_rank(150, 190, 1, s[i]);
        check_low_rank(190, 150, 20, s[i]);
        check_low_rank(150, 170, 40, s[i]);
        check_low_rank(140, 131, 131, s[i]);
    }
}

/* Scores against random (delta, a), the randomised factors' beside the exact ones'. */
static void scores_match_exact(void **state)
{
    (void)state;
    enum { M = 300, N = 260, R = 32, PAIRS = 200 };
    bg_err err;
    float *x = matrix(M, N, power_law), *delta = floats(PAIRS * M), *a = floats(PAIRS * N);
    float *u[2] = { floats(M * R), floats(M * R) }, *v[2] = { floats(N * R), floats(N * R) };
    assert_int_equal(bg_low_rank_exact(&(bg_low_rank_problem){ M, N, R, x, 0, 0 }, u[0], v[0], &err), BG_OK);
    assert_int_equal(bg_low_rank(&(bg_low_rank_problem){ M, N, R, x, 1, 1 }, u[1], v[1], &err), BG_OK);
    bg_normal_fill(9, 1, PAIRS * M, delta);
    bg_normal_fill(9, 2, PAIRS * N, a);
    double worst = 0, largest = 0;
    for (size_t p = 0; p < PAIRS; p++) {
        double score[2] = { 0, 0 };
        for (size_t which = 0; which < 2; which++)
            for (size_t l = 0; l < R; l++) {
                double du = 0, va = 0;
                for (size_t i = 0; i < M; i++)
                    du += (double)delta[p * M + i] * (double)u[which][i * R + l];
                for (size_t j = 0; j < N; j++)
                    va += (double)a[p * N + j] * (double)v[which][j * R + l];
                score[which] += du * va;
            }
        worst = fmax(worst, fabs(score[1] - score[0]));
        largest = fmax(largest, fabs(score[0]));
    }
    print_message("randomised against exact: %.2g of the largest score\n", worst / largest);
    assert_true(worst <= 1e-4 * largest);
    for (size_t which = 0; which < 2; which++) {
        free(u[which]);
        free(v[which]);
    }
    free(a);
    free(delta);
    free(x);
}

static void refuses_bad_input(void **state)
{
    (void)state;
    enum { SIDE = 200 };
    bg_err err;
    float *x = floats(SIDE * SIDE), *u = floats(SIDE * SIDE), *v = floats(SIDE * SIDE);
    assert_int_equal(bg_low_rank(&(bg_low_rank_problem){ SIDE, SIDE, SIDE + 1, x, 1, 1 }, u, v, &err), BG_EARG);
    assert_int_equal(bg_low_rank(&(bg_low_rank_problem){ SIDE, SIDE, 0, x, 1, 1 }, u, v, &err), BG_OK);
    x[77] = NAN;
    assert_int_equal(bg_low_rank(&(bg_low_rank_problem){ SIDE, SIDE, 4, x, 1, 1 }, u, v, &err), BG_ENUMERIC);
    assert_int_equal(bg_low_rank(&(bg_low_rank_problem){ SIDE, SIDE, SIDE, x, 1, 1 }, u, v, &err), BG_ENUMERIC);
    free(v);
    free(u);
    free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(factors_are_best),
        cmocka_unit_test(scores_match_exact),
        cmocka_unit_test(refuses_bad_input),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
