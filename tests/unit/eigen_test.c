/* Eigendecompositions: A Q = Q diag(w), Q orthogonal, signs, and what is refused. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bregman/eigen.h"
#include "bregman/gemm.h"
#include "bregman/rng.h"

static double *doubles(size_t n)
{
    double *x = calloc(n + 1, sizeof *x);
    assert_non_null(x);
    return x;
}

/* Xᵀ X of random X [rows, n]: rank min(rows, n). */
static double *gram(size_t n, size_t rows)
{
    double *a = doubles(n * n);
    float *x = malloc((rows * n + 1) * sizeof *x);
    assert_non_null(x);
    bg_normal_fill(3, n, rows * n, x);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++)
            for (size_t t = 0; t < rows; t++)
                a[i * n + j] += (double)x[t * n + i] * (double)x[t * n + j];
    free(x);
    return a;
}

static void check_close(double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance))
        fail_msg("got %.9g, want %.9g within %g", got, want, tolerance);
}

static void check_decomposition(size_t n, const double *a, const double *q, const double *w)
{
    double scale = 1e-12 * (double)n * (1 + fabs(w[n - 1]));
    for (size_t j = 0; j < n; j++) {
        size_t largest = 0;
        for (size_t i = 0; i < n; i++) {
            double aq = 0, qq = 0;
            for (size_t l = 0; l < n; l++) {
                aq += a[i * n + l] * q[l * n + j];
                qq += q[l * n + i] * q[l * n + j];
            }
            check_close(aq, w[j] * q[i * n + j], scale);
            check_close(qq, i == j ? 1 : 0, 1e-12 * (double)n);
            if (fabs(q[i * n + j]) > fabs(q[largest * n + j]))
                largest = i;
        }
        assert_true(q[largest * n + j] > 0);
        assert_true(j == 0 || w[j] >= w[j - 1]);
    }
}

static void decomposes(void **state)
{
    (void)state;
    const size_t n[] = { 1, 2, 3, 31, 33, 97 }, rows[] = { 5, 5, 2, 40, 33, 20 };
    for (size_t i = 0; i < 6; i++) {
        bg_err err;
        double *a = gram(n[i], rows[i]), *q = gram(n[i], rows[i]), *w = doubles(n[i]);
        assert_int_equal(bg_eigen(n[i], q, w, "A", &err), BG_OK);
        check_decomposition(n[i], a, q, w);
        free(w);
        free(q);
        free(a);
    }
}

static void known_case(void **state)
{
    (void)state;
    bg_err err;
    double a[4] = { 2, -1, -1, 2 }, w[2];
    assert_int_equal(bg_eigen(2, a, w, "A", &err), BG_OK);
    check_close(w[0], 1, 1e-14);
    check_close(w[1], 3, 1e-14);
    check_close(a[0] * a[2], 0.5, 1e-14);  /* (1, 1) / sqrt 2 in the first column */
    check_close(a[1] * a[3], -0.5, 1e-14); /* (1, -1) / sqrt 2, either sign: the entries tie */
    assert_int_equal(bg_eigen(0, NULL, NULL, "A", &err), BG_OK);
}

/* LAPACK of a matrix this small stays on one thread: the same bytes whatever the number of threads. */
static void threads_do_not_change_small_ones(void **state)
{
    (void)state;
    const size_t n[] = { 16, 97, 200 };
    for (size_t i = 0; i < 3; i++) {
        bg_err err;
        double *q[2], *w[2];
        for (int t = 0; t < 2; t++) {
            q[t] = gram(n[i], 20);
            w[t] = doubles(n[i]);
            bg_gemm_set_threads(t + 1);
            assert_int_equal(bg_eigen(n[i], q[t], w[t], "A", &err), BG_OK);
        }
        assert_memory_equal(q[0], q[1], n[i] * n[i] * sizeof *q[0]);
        assert_memory_equal(w[0], w[1], n[i] * sizeof *w[0]);
        double *all[] = { q[0], q[1], w[0], w[1] };
        for (size_t j = 0; j < 4; j++)
            free(all[j]);
    }
    bg_gemm_set_threads(1);
}

static void refuses_nan_and_infinity(void **state)
{
    (void)state;
    bg_err err;
    double w[2], a[4] = { 1, 0, NAN, 1 }, b[4] = { 1, 0, 0, INFINITY };
    assert_int_equal(bg_eigen(2, a, w, "S of h.0.mlp", &err), BG_ENUMERIC);
    assert_non_null(strstr(err.msg, "\"S of h.0.mlp\""));
    assert_int_equal(bg_eigen(2, b, w, "S", &err), BG_ENUMERIC);
    assert_int_equal(bg_eigen(40000, a, w, "S", &err), BG_EARG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decomposes),
        cmocka_unit_test(known_case),
        cmocka_unit_test(threads_do_not_change_small_ones),
        cmocka_unit_test(refuses_nan_and_infinity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
