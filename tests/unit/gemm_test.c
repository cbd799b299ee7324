/* Products and symmetric accumulators against loops in float64. */
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bregman/gemm.h"
#include "bregman/rng.h"
#include "bregman/symmetric.h"
#include "bregman/threads.h"

static float *normals(uint64_t stream, size_t n)
{
    float *x = malloc((n + 1) * sizeof *x);
    assert_non_null(x);
    bg_normal_fill(1, stream, n, x);
    return x;
}

static void check_close(double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance)) /* a NaN fails */
        fail_msg("got %.9g, want %.9g within %g", got, want, tolerance);
}

static double entry(bg_op op, const float *x, size_t ld, size_t i, size_t j)
{
    return (double)(op == BG_N ? x[i * ld + j] : x[j * ld + i]);
}

static void check_gemm(bg_op op_a, bg_op op_b, size_t m, size_t n, size_t k, float alpha, float beta)
{
    size_t lda = (op_a == BG_N ? k : m) + 3, ldb = (op_b == BG_N ? n : k) + 2, ldc = n + 1;
    float *a = normals(1, (op_a == BG_N ? m : k) * lda), *b = normals(2, (op_b == BG_N ? k : n) * ldb);
    float *c = normals(3, m * ldc), *before = normals(3, m * ldc);
    bg_gemm((bg_extent){ m, n, k }, alpha, bg_f32(op_a, a, lda), bg_f32(op_b, b, ldb), beta, c, ldc);
    for (size_t i = 0; i < m; i++) {
        for (size_t j = 0; j < n; j++) {
            double want = (double)beta * (double)before[i * ldc + j];
            for (size_t l = 0; l < k; l++)
                want += (double)alpha * entry(op_a, a, lda, i, l) * entry(op_b, b, ldb, l, j);
            check_close((double)c[i * ldc + j], want, 1e-6 * (double)(k + 10));
        }
        assert_true(c[i * ldc + n] == before[i * ldc + n]); /* beyond the row: untouched */
    }
    free(before);
    free(c);
    free(b);
    free(a);
}

static void gemm_matches_loops(void **state)
{
    (void)state;
    const size_t size[] = { 0, 1, 2, 17, 64 };
    for (size_t i = 0; i < 5 * 5 * 5 * 4; i++) {
        bg_op op_a = i % 2 ? BG_T : BG_N, op_b = i / 2 % 2 ? BG_T : BG_N;
        size_t m = size[i / 4 % 5], n = size[i / 20 % 5], k = size[i / 100];
        check_gemm(op_a, op_b, m, n, k, 1, 0);
        check_gemm(op_a, op_b, m, n, k, -0.5f, 2);
    }
}

static void beta_zero_overwrites_nan(void **state)
{
    (void)state;
    for (size_t k = 0; k < 3; k++) {
        float a[4] = { 1, 2, 3, 4 }, c[4] = { NAN, NAN, NAN, NAN };
        bg_gemm((bg_extent){ 2, 2, k }, 1, bg_f32(BG_N, a, 2), bg_f32(BG_N, a, 2), 0, c, 2);
        for (size_t i = 0; i < 4; i++)
            assert_true(isfinite(c[i]));
    }
}

static void flops_are_counted(void **state)
{
    (void)state;
    float a[6] = { 0 }, c[4];
    uint64_t before = bg_gemm_flops();
#pragma omp parallel for
    for (int i = 0; i < 10; i++) {
        float private_c[4];
        bg_gemm((bg_extent){ 2, 2, 3 }, 1, bg_f32(BG_N, a, 3), bg_f32(BG_T, a, 3), 0, private_c, 2);
    }
    bg_gemm((bg_extent){ 0, 2, 3 }, 1, bg_f32(BG_N, a, 3), bg_f32(BG_N, a, 2), 0, c, 2);
    assert_int_equal(bg_gemm_flops() - before, 10 * 24);
}

static void library_is_named_and_fast(void **state)
{
    (void)state;
    assert_true(strlen(bg_gemm_library()) > 4);
    int threads = omp_get_max_threads();
    double efficiency = bg_gemm_efficiency();
    print_message("%s, efficiency %.2f\n", bg_gemm_library(), efficiency);
    assert_true(efficiency > 0.01 && isfinite(efficiency));
    assert_int_equal(omp_get_max_threads(), threads);
}

static void serial_region_gives_the_same(void **state)
{
    (void)state;
    enum { SIDE = 150 };
    float *a = normals(1, SIDE * SIDE), *want = normals(2, SIDE * SIDE), *got = normals(3, 4 * SIDE * SIDE);
    bg_gemm_set_threads(1);
    bg_gemm((bg_extent){ SIDE, SIDE, SIDE }, 1, bg_f32(BG_N, a, SIDE), bg_f32(BG_T, a, SIDE), 0, want, SIDE);
    bg_gemm_set_threads(2);
    bg_gemm_serial_begin();
#pragma omp parallel for num_threads(2)
    for (size_t i = 0; i < 4; i++)
        bg_gemm((bg_extent){ SIDE, SIDE, SIDE }, 1, bg_f32(BG_N, a, SIDE), bg_f32(BG_T, a, SIDE), 0,
                got + i * SIDE * SIDE, SIDE);
    bg_gemm_serial_end();
    for (size_t i = 0; i < 4; i++)
        assert_memory_equal(got + i * SIDE * SIDE, want, SIDE * SIDE * sizeof *want);
    free(got);
    free(want);
    free(a);
}

/* Products that one thread keeps.  OpenBLAS rounds the odd ones differently on two. */
static void threads_do_not_change_small_products(void **state)
{
    (void)state;
    const struct {
        bg_op a, b;
        size_t m, n, k;
    } shape[] = {
        { BG_N, BG_T, 91, 77, 514 },   { BG_T, BG_T, 53, 65, 1170 },  { BG_N, BG_N, 101, 115, 673 },
        { BG_T, BG_N, 94, 165, 1035 }, { BG_N, BG_T, 256, 256, 256 },
    };
    for (size_t i = 0; i < sizeof shape / sizeof shape[0]; i++) {
        size_t m = shape[i].m, n = shape[i].n, k = shape[i].k;
        assert_true(m * n * k <= BG_PARALLEL_PRODUCTS);
        float *a = normals(1, m * k), *b = normals(2, k * n), *c[2];
        for (int t = 0; t < 2; t++) {
            c[t] = normals(3, m * n);
            bg_gemm_set_threads(t + 1);
            bg_gemm((bg_extent){ m, n, k }, 1, bg_f32(shape[i].a, a, shape[i].a == BG_N ? k : m),
                    bg_f32(shape[i].b, b, shape[i].b == BG_N ? n : k), 0, c[t], n);
        }
        assert_memory_equal(c[0], c[1], m * n * sizeof(float));
        float *all[] = { a, b, c[0], c[1] };
        for (size_t j = 0; j < 4; j++)
            free(all[j]);
    }
    bg_gemm_set_threads(1);
}

/* Small products, large ones and bracketed ones leave OpenMP's number of threads as they found it. */
static void products_keep_the_number_of_threads(void **state)
{
    (void)state;
    enum { SIDE = 300 };
    float *a = normals(1, SIDE * SIDE), *c = normals(2, SIDE * SIDE);
    bg_gemm_set_threads(2);
    omp_set_num_threads(3);
    for (size_t side = 100; side <= SIDE; side += 200) {
        bg_gemm((bg_extent){ side, side, side }, 1, bg_f32(BG_N, a, side), bg_f32(BG_N, a, side), 0, c, side);
        assert_int_equal(omp_get_max_threads(), 3);
    }
    bg_gemm_serial_begin();
    bg_gemm((bg_extent){ SIDE, SIDE, SIDE }, 1, bg_f32(BG_N, a, SIDE), bg_f32(BG_N, a, SIDE), 0, c, SIDE);
    bg_gemm_serial_end();
    assert_int_equal(omp_get_max_threads(), 3);
    bg_gemm_set_threads(1);
    omp_set_num_threads(1);
    free(c);
    free(a);
}

/* Diagonal block j, whole, from its panels. */
static void expand(bg_symmetric s, const double *sum, size_t j, double *block)
{
    size_t side = bg_symmetric_side(s, j), c0, w;
    for (size_t c = 0; c < side; c++) {
        const double *panel = sum + bg_symmetric_panel(s, j, c, &c0, &w);
        assert_true(c0 <= c && c < c0 + w && c0 + w <= side);
        for (size_t r = c; r < side; r++)
            block[r * side + c] = block[c * side + r] = panel[(r - c0) * w + c - c0];
    }
}

/* The same of X as it is stored the other way, and of X and 2 X. */
static void check_products(bg_symmetric s, size_t rows, const float *x, size_t ldx, const float *sum)
{
    size_t floats = bg_symmetric_floats(s);
    float *turned = malloc((s.n * rows + 1) * sizeof *turned), *twice = malloc((s.n * rows + 1) * sizeof *twice),
          *found = calloc(floats + 1, sizeof *found);
    assert_true(turned != NULL && twice != NULL && found != NULL);
    for (size_t t = 0; t < rows; t++)
        for (size_t i = 0; i < s.n; i++) {
            turned[i * rows + t] = x[t * ldx + i];
            twice[t * s.n + i] = 2 * x[t * ldx + i];
        }
    bg_symmetric_add_product(s, found, rows, bg_f32(BG_N, turned, rows), bg_f32(BG_T, turned, rows));
    bg_symmetric_add_product(s, found, rows, bg_f32(BG_T, x, ldx), bg_f32(BG_N, twice, s.n));
    for (size_t i = 0; i < floats; i++)
        check_close(found[i], 3 * (double)sum[i], 6e-6 * (double)(rows + 10));
    assert_true(found[floats] == 0);
    free(turned);
    free(twice);
    free(found);
}

/* Two batches into one accumulator, then every block against a float64 XᵀX. */
static void check_symmetric(size_t n, size_t k, size_t rows)
{
    bg_symmetric s = { n, k };
    size_t floats = bg_symmetric_floats(s), ldx = n + 5, first = rows / 3;
    float *x = normals(n, rows * ldx), *sum = calloc(floats + 1, sizeof *sum);
    double *wide = malloc((floats + 1) * sizeof *wide), *block = malloc((n * n + 1) * sizeof *block);
    assert_true(sum != NULL && wide != NULL && block != NULL);
    sum[floats] = 7;
    bg_symmetric_add(s, sum, first, x, ldx);
    bg_symmetric_add(s, sum, rows - first, x + first * ldx, ldx);
    assert_true(sum[floats] == 7);
    if (n > 0 && rows > 0)
        check_products(s, rows, x, ldx, sum);
    for (size_t i = 0; i < floats; i++)
        wide[i] = (double)sum[i];
    size_t start = 0;
    for (size_t j = 0; j < k; j++) {
        size_t side = bg_symmetric_side(s, j);
        expand(s, wide, j, block);
        for (size_t r = 0; r < side; r++)
            for (size_t c = 0; c < side; c++) {
                double want = 0;
                for (size_t t = 0; t < rows; t++)
                    want += (double)x[t * ldx + start + r] * (double)x[t * ldx + start + c];
                check_close(block[r * side + c], want, 2e-6 * (double)(rows + 10));
                assert_true(block[r * side + c] == block[c * side + r]);
            }
        start += side;
    }
    assert_int_equal(start, n);
    free(block);
    free(wide);
    free(sum);
    free(x);
}

static void symmetric_matches_loops(void **state)
{
    (void)state;
    for (size_t k = 1; k <= 3; k++) {
        check_symmetric(0, k, 3);
        check_symmetric(1, k, 2);
        check_symmetric(5, k, 0);
        check_symmetric(257, k, 7);
        check_symmetric(256, k, 9);
        check_symmetric(601, k, 31);
    }
}

static void symmetric_keeps_about_half(void **state)
{
    (void)state;
    assert_int_equal(bg_symmetric_floats((bg_symmetric){ 512, 1 }), 512 * 256 + 256 * 256);
    assert_int_equal(bg_symmetric_floats((bg_symmetric){ 512, 2 }), 2 * 256 * 256);
}

/* What math.md says of a work unit of 1024 sequences of 512 tokens: here four columns, the first far from 0 as some
 * activations are, added three sequences at a time. */
static void sums_of_a_unit_are_good_to_a_millionth(void **state)
{
    (void)state;
    enum { N = 4, ROWS = 3 * 511, TIMES = 341 };
    bg_symmetric s = { N, 1 };
    float *x = malloc(ROWS * N * sizeof *x), sum[N * N] = { 0 };
    double want[N * N] = { 0 };
    assert_int_equal(bg_symmetric_floats(s), N * N);
    assert_non_null(x);
    for (uint64_t i = 0; i < TIMES; i++) {
        for (size_t j = 0; j < ROWS * N; j++)
            x[j] = (float)(bg_uniform(1, i, (uint32_t)j) + (j % N == 0 ? 10.0 : -0.5));
        bg_symmetric_add(s, sum, ROWS, x, N);
        for (size_t t = 0; t < ROWS; t++)
            for (size_t e = 0; e < N * N; e++)
                want[e] += (double)x[t * N + e / N] * (double)x[t * N + e % N];
    }
    for (size_t r = 0; r < N; r++)
        for (size_t c = 0; c <= r; c++)
            check_close((double)sum[r * N + c], want[r * N + c], 1e-6 * want[0]);
    free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gemm_matches_loops),
        cmocka_unit_test(beta_zero_overwrites_nan),
        cmocka_unit_test(flops_are_counted),
        cmocka_unit_test(library_is_named_and_fast),
        cmocka_unit_test(serial_region_gives_the_same),
        cmocka_unit_test(threads_do_not_change_small_products),
        cmocka_unit_test(products_keep_the_number_of_threads),
        cmocka_unit_test(symmetric_matches_loops),
        cmocka_unit_test(symmetric_keeps_about_half),
        cmocka_unit_test(sums_of_a_unit_are_good_to_a_millionth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
