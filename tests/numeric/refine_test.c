/* The refined solve against a dense one in float64, whose matrix is made of products with unit vectors: those,
 * tangent_test compares with PyTorch's. */
#include "bregman/refine.h"

#include <lapacke.h>
#include <math.h>

#include "golden.h"

enum { QUERIES = 2 };

typedef struct {
    bg_model *model;
    bg_batch *batch;
    bg_pass *pass;
    bg_gauss_newton *matrix;
    bg_curvature *curvature; /* [n_tracked] of a diagonal preconditioner */
    size_t n;                /* parameters */
    double *dense;           /* [n, n] G_B */
    float *vectors[QUERIES], *room;
    double mean; /* of its diagonal */
} bench;

static void *zeros(size_t n, size_t size)
{
    void *x = calloc(n, size);
    assert_non_null(x);
    return x;
}

static void make_dense(bench *b)
{
    float *unit = zeros(b->n, sizeof *unit), *out = zeros(b->n, sizeof *out);
    bg_err err;
    b->dense = zeros(b->n * b->n, sizeof *b->dense);
    for (size_t i = 0; i < b->n; i++) {
        unit[i] = 1;
        assert_ok(bg_gauss_newton_product(b->matrix, 1, &unit, &out, &err), err);
        unit[i] = 0;
        for (size_t j = 0; j < b->n; j++)
            b->dense[i * b->n + j] = (double)out[j];
        b->mean += (double)out[i] / (double)b->n;
    }
    for (size_t i = 0; i < b->n; i++)
        for (size_t j = 0; j < i; j++) {
            double x = b->dense[i * b->n + j], y = b->dense[j * b->n + i];
            assert_true(fabs(x - y) <= 1e-4 * b->mean); /* symmetric */
            b->dense[i * b->n + j] = b->dense[j * b->n + i] = (x + y) / 2;
        }
    free(unit);
    free(out);
}

/* The preconditioner is the matrix's diagonal; `factor` times its mean is λ. */
static void set_damping(bench *b, double factor)
{
    size_t at = 0;
    for (size_t i = 0; i < b->model->n_tracked; i++) {
        bg_curvature *c = &b->curvature[i];
        const bg_site *site = b->model->tracked[i];
        size_t n = site->n_out * site->n_in1;
        if (c->c == NULL)
            c->c = zeros(n, sizeof *c->c);
        c->kind = BG_DIAGONAL;
        c->p = site->n_out;
        c->m = site->n_in1;
        c->lambda = factor * b->mean;
        for (size_t j = 0; j < n; j++, at++)
            c->c[j] = (float)fmax(b->dense[at * b->n + at], 0);
    }
}

static void bench_open(bench *b, const char *name, const char *modules)
{
    golden g;
    bg_err err;
    *b = (bench){ 0 };
    golden_open(&g, name);
    b->model = golden_model(&g, modules);
    b->batch = golden_batch(&g, 0, 4);
    b->pass = golden_pass(b->model, b->batch);
    assert_ok(bg_gauss_newton_new(&b->matrix, b->model, b->pass, &b->batch, 1, &err), err);
    b->n = bg_vector_floats(b->model);
    b->curvature = zeros(b->model->n_tracked, sizeof *b->curvature);
    b->room = zeros(bg_refine_room_floats(b->model), sizeof *b->room);
    for (int q = 0; q < QUERIES; q++)
        b->vectors[q] = zeros(BG_REFINE_VECTORS * b->n, sizeof(float));
    make_dense(b);
    bg_tensors_close(g.tensors);
}

static void bench_close(bench *b)
{
    for (size_t i = 0; i < b->model->n_tracked; i++)
        free(b->curvature[i].c);
    free(b->curvature);
    free(b->dense);
    free(b->room);
    for (int q = 0; q < QUERIES; q++)
        free(b->vectors[q]);
    bg_gauss_newton_free(b->matrix);
    bg_pass_free(b->pass);
    bg_batch_free(b->batch);
    bg_model_close(b->model);
}

/* Gradients of any numbers. */
static void set_gradients(bench *b)
{
    for (int q = 0; q < QUERIES; q++)
        for (size_t i = 0; i < b->n; i++)
            b->vectors[q][i] = (float)sin(1.7 * (double)i * (q + 1) + 0.01 * (double)i * (double)i);
}

static bg_status refine(bench *b, bg_refinement kind, size_t steps, double *residual, bg_err *err)
{
    static const char *name[QUERIES] = { "first", "second" };
    const bg_refine_task t = { kind, b->model, b->matrix, b->curvature, steps, QUERIES, name, b->vectors, b->room };
    return bg_refine(&t, residual, err);
}

static void check_solution(const bench *b, double factor, int q, double limit, const char *what)
{
    double *a = zeros(b->n * b->n, sizeof *a), *x = zeros(b->n, sizeof *x), most = 0, worst = 0;
    memcpy(a, b->dense, b->n * b->n * sizeof *a);
    for (size_t i = 0; i < b->n; i++) {
        a[i * b->n + i] += factor * b->mean;
        x[i] = sin(1.7 * (double)i * (q + 1) + 0.01 * (double)i * (double)i);
    }
    assert_int_equal(LAPACKE_dposv(LAPACK_ROW_MAJOR, 'L', (lapack_int)b->n, 1, a, (lapack_int)b->n, x, 1), 0);
    for (size_t i = 0; i < b->n; i++) {
        most = fmax(most, fabs(x[i]));
        worst = fmax(worst, fabs((double)b->vectors[q][i] - x[i]));
    }
    print_message("%s, damping %g: %.1e of the largest\n", what, factor, worst / most);
    assert_true(worst <= limit * most);
    free(a);
    free(x);
}

static void as_a_dense_solve(void **state)
{
    (void)state;
    static const double factor[] = { 1, 30 };
    enum { STEPS = 200, LISSA_STEPS = 60 };
    bench b;
    bg_err err;
    double residual[QUERIES * (STEPS + 1)];
    bench_open(&b, "qwen2", "0\\.self_attn\\.v_proj|1\\.self_attn\\.k_proj");
    assert_int_equal(b.model->n_tracked, 2);
    for (int k = 0; k < 2; k++) {
        set_damping(&b, factor[k]);
        set_gradients(&b);
        assert_ok(refine(&b, BG_REFINE_CG, STEPS, residual, &err), err);
        for (int q = 0; q < QUERIES; q++) {
            assert_true(residual[q * (STEPS + 1)] >= 1 && residual[q * (STEPS + 1)] <= 1);
            assert_true(residual[q * (STEPS + 1) + STEPS] < 1e-6);
            check_solution(&b, factor[k], q, 1e-5, "CG");
        }
    }
    set_damping(&b, 300);
    set_gradients(&b);
    assert_ok(refine(&b, BG_REFINE_LISSA, LISSA_STEPS, residual, &err), err);
    for (int q = 0; q < QUERIES; q++)
        check_solution(&b, 300, q, 1e-4, "LiSSA");
    bench_close(&b);
}

/* Step 1 is along the preconditioner's answer; a query without a gradient has none; where λ is infinite nothing moves. */
static void the_first_step(void **state)
{
    (void)state;
    bench b;
    bg_err err;
    double residual[QUERIES * 2];
    bench_open(&b, "neox", "[01]\\.attention\\.dense");
    set_damping(&b, 10);
    set_gradients(&b);
    float *g = zeros(b.n, sizeof *g);
    memcpy(g, b.vectors[0], b.n * sizeof *g);
    memset(b.vectors[1], 0, b.n * sizeof *g);
    assert_ok(refine(&b, BG_REFINE_CG, 1, residual, &err), err);
    double xw = 0, ww = 0, xx = 0;
    for (size_t i = 0, at = 0; i < b.model->n_tracked; i++)
        for (size_t j = 0; j < b.curvature[i].p * b.curvature[i].m; j++, at++) {
            double want = (double)g[at] / ((double)b.curvature[i].c[j] + b.curvature[i].lambda);
            double x = (double)b.vectors[0][at];
            xw += x * want;
            ww += want * want;
            xx += x * x;
            assert_true(fabs((double)b.vectors[1][at]) <= 0);
        }
    double ratio = xw / ww;
    assert_true(fabs(xw / sqrt(xx * ww) - 1) < 1e-10);
    assert_true(ratio > 0 && residual[1] < 1 && residual[2] <= 0 && residual[3] <= 0);
    b.curvature[1].lambda = INFINITY;
    memcpy(b.vectors[0], g, b.n * sizeof *g);
    assert_ok(refine(&b, BG_REFINE_CG, 1, residual, &err), err);
    size_t first = b.curvature[0].p * b.curvature[0].m;
    assert_true(fabs((double)b.vectors[0][1]) > 0 && fabs((double)b.vectors[0][first]) <= 0);
    free(g);
    bench_close(&b);
}

/* A λ that is not a damping makes the curvature along a direction negative; a wrong one makes LiSSA diverge. */
static void not_positive(void **state)
{
    (void)state;
    bench b;
    bg_err err;
    double residual[QUERIES * 61];
    bench_open(&b, "llama", "1\\.self_attn\\.v_proj");
    set_damping(&b, -1e3);
    for (size_t j = 0; j < b.n; j++)
        b.curvature[0].c[j] = (float)(2e3 * b.mean); /* the preconditioner itself is positive */
    set_gradients(&b);
    assert_int_equal(refine(&b, BG_REFINE_CG, 3, residual, &err), BG_ENUMERIC);
    assert_non_null(strstr(err.msg, "query first: step 1"));
    assert_non_null(strstr(err.msg, "more damping"));
    set_gradients(&b);
    assert_int_equal(refine(&b, BG_REFINE_LISSA, 60, residual, &err), BG_ENUMERIC);
    assert_non_null(strstr(err.msg, "LiSSA diverges"));
    bench_close(&b);
}

/* The products that are counted are those that are made: of vectors with the matrix of a sequence, and of a solve whose
 * preconditioner is a diagonal. */
static void cost(void **state)
{
    static const char *const name[] = { "neox", "llama" }, *const modules[] = { "[01]\\.attention\\.dense",
                                                                                "1\\.self_attn\\.v_proj" };
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        bench b;
        bg_err err;
        double residual[QUERIES * 4];
        bg_cost product = { 0 }, solve = { 0 }, turned = { 0 };
        bench_open(&b, name[i], modules[i]);
        bg_batch *one = NULL;
        bg_gauss_newton *of_all = b.matrix;
        golden g;
        golden_open(&g, name[i]);
        one = golden_batch(&g, 0, 1);
        bg_tensors_close(g.tensors);
        assert_ok(bg_gauss_newton_new(&b.matrix, b.model, b.pass, &one, 1, &err), err);
        float *out[QUERIES] = { zeros(b.n, sizeof(float)), zeros(b.n, sizeof(float)) };
        const bg_batch_shape shape = { 1, one->n_rows, one->n_rows, b.batch->n_rows, false, false };
        const bg_refine_load load = { BG_REFINE_CG, 3, 1, one->n_rows, one->n_rows + 1 };
        set_gradients(&b);
        uint64_t before = bg_gemm_flops();
        assert_ok(bg_gauss_newton_product(b.matrix, QUERIES, b.vectors, out, &err), err);
        bg_gauss_newton_cost(&product, b.model, &shape, QUERIES);
        assert_int_equal(bg_gemm_flops() - before, (uint64_t)product.flops);
        set_damping(&b, 10);
        before = bg_gemm_flops();
        assert_ok(refine(&b, BG_REFINE_CG, 3, residual, &err), err);
        bg_refine_cost(&solve, b.model, &load, QUERIES, b.batch->n_rows);
        for (size_t k = 0; k < b.model->n_tracked; k++)
            bg_curvature_rotate_cost(&turned, b.model->tracked[k], 1);
        assert_true(turned.flops > 0);
        assert_int_equal(bg_gemm_flops() - before, (uint64_t)(solve.flops - 2 * QUERIES * 4 * turned.flops));
        for (int q = 0; q < QUERIES; q++)
            free(out[q]);
        bg_gauss_newton_free(of_all);
        bg_batch_free(one);
        bench_close(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(as_a_dense_solve), cmocka_unit_test(the_first_step),
                                        cmocka_unit_test(not_positive), cmocka_unit_test(cost) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
