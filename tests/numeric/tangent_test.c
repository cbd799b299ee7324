/* Forward mode against PyTorch's, in every family: how hidden states and losses move along a direction in all weights,
 * and products with the Gauss-Newton matrix; and against the gradient, which the other tests check. */
#include "bregman/tangent.h"

#include <math.h>
#include <unistd.h>

#include "bregman/gemm.h"
#include "golden.h"

static const char *const cases[] = {
    "gpt2",         "neox",    "neox_serial", "llama",         "llama_pad",  "llama_llama3",      "llama_linear",
    "qwen2",        "qwen3",   "olmo2",       "gpt2_ends",     "llama_ends", "starcoder2",        "mistral",
    "qwen2_window", "gpt_neo", "olmo",        "llama_yarn",    "olmo3",      "smollm3",           "gemma2",
    "gemma3",       "apertus", "qwen3_moe",   "qwen3_moe_raw", "olmoe",      "olmoe_renormalised"
};
static const char *const with_adapters[] = { "lora_llama", "lora_gpt2" }; /* against the gradient alone */
enum { N_CASES = sizeof cases / sizeof cases[0], RANK = 2 };
static const double LIMIT = 1e-5; /* of the largest */

/* A model, a batch after its forward pass, and a direction: V_ij = 0.1 sin(0.9 i + 0.31 j + k), as make_tangents.py has
 * it. */
typedef struct {
    golden g;
    bg_tensors *want;
    bg_model *model;
    bg_batch *batch;
    bg_pass *pass;
    bg_tangent *tangent;
    bg_direction *dense, *low; /* [n_tracked] the same, of full and of low rank */
    float *loss;
} bench;

static float *floats(size_t n)
{
    float *x = calloc(n, sizeof *x);
    assert_non_null(x);
    return x;
}

static void set_direction(const bg_site *s, bg_direction *dense, bg_direction *low)
{
    size_t p = s->n_out, m = s->n_in1;
    unsigned sum = 0;
    float *v = floats(p * m), *left = floats(p * RANK), *right = floats(m * RANK);
    for (const char *c = s->name; *c != '\0'; c++)
        sum += (unsigned char)*c;
    double k = (double)(sum % 97);
    for (size_t i = 0; i < p; i++) {
        for (size_t j = 0; j < m; j++)
            v[i * m + j] = (float)(0.1 * sin(0.9 * (double)i + 0.31 * (double)j + k));
        left[i * RANK] = (float)(0.1 * sin(0.9 * (double)i + k));
        left[i * RANK + 1] = (float)(0.1 * cos(0.9 * (double)i + k));
    }
    for (size_t j = 0; j < m; j++) {
        right[j * RANK] = (float)cos(0.31 * (double)j);
        right[j * RANK + 1] = (float)sin(0.31 * (double)j);
    }
    *dense = (bg_direction){ .left = v, .ld_left = m };
    *low = (bg_direction){ .rank = RANK, .left = left, .right = right, .ld_left = RANK, .ld_right = RANK };
}

static void bench_open(bench *b, const char *name, const char *modules)
{
    char path[1100];
    bg_err err;
    float *out;
    *b = (bench){ 0 };
    golden_open(&b->g, name);
    snprintf(path, sizeof path, "%s/tangents.safetensors", b->g.dir);
    if (access(path, F_OK) == 0)
        assert_ok(bg_tensors_open_file(&b->want, path, &err), err);
    b->model = golden_model(&b->g, modules);
    b->batch = golden_batch(&b->g, 0, SIZE_MAX);
    b->pass = golden_pass(b->model, b->batch);
    b->dense = calloc(b->model->n_tracked, sizeof *b->dense);
    b->low = calloc(b->model->n_tracked, sizeof *b->low);
    b->loss = floats(b->batch->n_rows);
    assert_true(b->dense != NULL && b->low != NULL);
    for (size_t i = 0; i < b->model->n_tracked; i++)
        set_direction(b->model->tracked[i], &b->dense[i], &b->low[i]);
    assert_ok(bg_tangent_new(&b->tangent, b->pass, RANK, &err), err);
    assert_ok(bg_pass_forward(b->pass, 0, b->batch, NULL, &out, &err), err);
}

static void free_directions(const bench *b, bg_direction *v)
{
    for (size_t i = 0; i < b->model->n_tracked; i++) {
        free((void *)(uintptr_t)v[i].left);
        free((void *)(uintptr_t)v[i].right);
    }
    free(v);
}

static void bench_close(bench *b)
{
    free_directions(b, b->dense);
    free_directions(b, b->low);
    free(b->loss);
    bg_tangent_free(b->tangent);
    bg_pass_free(b->pass);
    bg_batch_free(b->batch);
    bg_model_close(b->model);
    bg_tensors_close(b->want);
    bg_tensors_close(b->g.tensors);
}

static void check(const char *name, const char *what, size_t n, const float *x, const float *want)
{
    double most = 0, worst = 0;
    for (size_t i = 0; i < n; i++) {
        most = fmax(most, fabs((double)want[i]));
        worst = fmax(worst, fabs((double)x[i] - (double)want[i]));
    }
    if (!(most > 0 && worst <= LIMIT * most)) /* a NaN fails too */
        fail_msg("%s: %s is off by %.1e of its largest", name, what, worst / most);
}

static const float *wanted(const bench *b, const char *prefix, const char *name, size_t n)
{
    const golden g = { .tensors = b->want };
    return golden_floats(&g, prefix, name, n);
}

/* Sums up δᵀ a of each site. */
typedef struct {
    float **sum; /* [n_tracked] */
} gradients;

static bg_status add_gradient(void *self, const bg_pair *pair, bg_err *err)
{
    gradients *g = self;
    (void)err;
    bg_pair_gradient(pair, 0, pair->n_rows, g->sum[pair->site->index]);
    return BG_OK;
}

static gradients gradients_new(const bg_model *m)
{
    gradients g = { calloc(m->n_tracked, sizeof *g.sum) };
    assert_non_null(g.sum);
    for (size_t i = 0; i < m->n_tracked; i++)
        g.sum[i] = floats(m->tracked[i]->n_out * m->tracked[i]->n_in1);
    return g;
}

static void gradients_free(const bg_model *m, gradients *g)
{
    for (size_t i = 0; i < m->n_tracked; i++)
        free(g->sum[i]);
    free(g->sum);
}

static void check_direction(bench *b, const char *name, const bg_direction *direction)
{
    const bg_along along = { 0, b->batch, direction };
    size_t rows = b->batch->n_rows, d = b->model->config.d_model;
    float *hidden = floats(rows * d);
    gradients g = gradients_new(b->model);
    const bg_tap tap = { add_gradient, &g, BG_WANTS_ALL };
    bg_err err;
    assert_ok(bg_tangent_forward(b->tangent, &along, hidden, &err), err);
    check(name, "hidden", rows * d, hidden, wanted(b, "", "hidden", rows * d));
    assert_ok(bg_tangent_loss(b->tangent, &along, hidden, b->loss, &err), err);
    check(name, "loss", rows, b->loss, wanted(b, "", "loss", rows));
    memset(b->loss, 0, rows * sizeof *b->loss);
    assert_ok(bg_tangent_gauss_newton(b->tangent, &along, hidden, &tap, NULL, b->loss, &err), err);
    check(name, "loss beside the product", rows, b->loss, wanted(b, "", "loss", rows));
    for (size_t i = 0; i < b->model->n_tracked; i++) {
        const bg_site *s = b->model->tracked[i];
        size_t n = s->n_out * s->n_in1;
        check(name, s->name, n, g.sum[i], wanted(b, "gauss_newton/", s->name, n));
    }
    gradients_free(b->model, &g);
    free(hidden);
}

static void as_pytorch(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_CASES; i++) {
        bench b;
        bench_open(&b, cases[i], "embedding,all,router,head");
        assert_int_equal(bg_tensors_count(b.want), b.model->n_tracked + 2);
        check_direction(&b, cases[i], b.dense);
        check_direction(&b, cases[i], b.low); /* the state that the first left is still good */
        bench_close(&b);
    }
}

/* Σ_t of a sequence's tangents = <its gradient, V>, whatever is tracked, ragged or alone, and where some rows are not
 * in the loss. */
static void check_against_gradient(const char *name, const char *modules)
{
    bench b;
    bg_err err;
    float *out;
    bench_open(&b, name, modules);
    gradients g = gradients_new(b.model);
    const bg_tap tap = { add_gradient, &g, BG_WANTS_ALL };
    for (size_t z = 0; z < b.batch->n_sequences; z += 4) {
        bg_batch *one = golden_batch(&b.g, z, 1);
        one->loss_start[0] = (uint32_t)z / 2;
        const bg_along along = { 0, one, b.low };
        double sum = 0, inner = 0, size = 0;
        assert_ok(bg_pass_forward(b.pass, 0, one, NULL, &out, &err), err);
        assert_ok(bg_tangent_forward(b.tangent, &along, NULL, &err), err);
        assert_ok(bg_tangent_loss(b.tangent, &along, NULL, b.loss, &err), err);
        for (size_t t = 0; t < one->n_rows; t++)
            sum += (double)b.loss[t];
        assert_ok(bg_pass_run(b.pass, one, (bg_labels){ 0 }, &tap, NULL, &err), err);
        for (size_t k = 0; k < b.model->n_tracked; k++) {
            const bg_site *s = b.model->tracked[k];
            for (size_t j = 0; j < s->n_out * s->n_in1; j++) {
                double x = (double)g.sum[k][j] * (double)b.dense[k].left[j];
                inner += x;
                size += fabs(x);
            }
        }
        if (!(size > 0 && fabs(sum - inner) <= LIMIT * size))
            fail_msg("%s, %s: %.6g along the direction, %.6g by the gradient", name, modules, sum, inner);
        bg_batch_free(one);
    }
    gradients_free(b.model, &g);
    bench_close(&b);
}

static void as_the_gradient(void **state)
{
    (void)state;
    static const char *const choice[] = {
        "mlp", "mlp,router", "attention", "head", "embedding", "1\\.", "embedding,all,router,head"
    };
    static const char *const of_adapter[] = { "all", "adapter", "all,adapter,head", "lora_A", "1\\..*lora_B" };
    for (size_t i = 0; i < N_CASES * (sizeof choice / sizeof *choice); i++)
        check_against_gradient(cases[i % N_CASES], choice[i / N_CASES]);
    for (size_t i = 0; i < 2 * (sizeof of_adapter / sizeof *of_adapter); i++)
        check_against_gradient(with_adapters[i % 2], of_adapter[i / 2]);
}

/* In shares, one after the other, it is the whole model's to the last bit. */
static void in_shares(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_CASES; i++) {
        bench b;
        bg_err err;
        bg_share share[2];
        bg_pass *pass[2];
        bg_tangent *tangent[2];
        bench_open(&b, cases[i], "embedding,all,router,head");
        size_t n = b.batch->n_rows * b.model->config.d_model;
        float *whole = floats(b.batch->n_rows), *x = floats(n), *out = NULL;
        const bg_along along = { 0, b.batch, b.low };
        assert_ok(bg_tangent_forward(b.tangent, &along, NULL, &err), err);
        assert_ok(bg_tangent_loss(b.tangent, &along, NULL, whole, &err), err);
        assert_ok(bg_model_divide(b.model, 2, NULL, share, &err), err);
        assert_true(share[0].end > share[0].first);
        for (int r = 0; r < 2; r++) {
            size_t logits = 10 * b.model->config.vocab_size * sizeof(float);
            assert_ok(bg_pass_new(&pass[r], b.model, &share[r], 1, b.batch->n_rows, logits, &err), err);
            assert_ok(bg_tangent_new(&tangent[r], pass[r], RANK, &err), err);
            assert_ok(bg_pass_forward(pass[r], 0, b.batch, out, &out, &err), err);
            assert_ok(bg_tangent_forward(tangent[r], &along, x, &err), err);
        }
        assert_ok(bg_tangent_loss(tangent[1], &along, x, b.loss, &err), err);
        assert_memory_equal(b.loss, whole, b.batch->n_rows * sizeof *whole);
        for (int r = 0; r < 2; r++) {
            bg_tangent_free(tangent[r]);
            bg_pass_free(pass[r]);
        }
        free(whole);
        free(x);
        bench_close(&b);
    }
}

/* The products that are counted are those that are made. */
static void cost(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2 * (N_CASES + 2); i++) {
        bench b;
        bg_err err;
        bg_cost want = { 0 };
        bool adapter = i / 2 >= N_CASES;
        bench_open(&b, adapter ? with_adapters[i / 2 - N_CASES] : cases[i / 2],
                   adapter ? "1\\..*lora" : "(h|layers)\\.1\\.");
        bg_batch *one = golden_batch(&b.g, 0, 1);
        const bg_share whole = bg_model_whole(b.model);
        const bg_batch_shape shape = { 1, one->n_rows, one->n_rows, b.batch->n_rows, false, true };
        const bg_along along = { 0, one, i % 2 ? b.low : b.dense };
        float *out;
        assert_ok(bg_pass_forward(b.pass, 0, one, NULL, &out, &err), err);
        uint64_t before = bg_gemm_flops();
        assert_ok(bg_tangent_forward(b.tangent, &along, NULL, &err), err);
        assert_ok(bg_tangent_loss(b.tangent, &along, NULL, b.loss, &err), err);
        bg_tangent_cost(&want, b.model, &whole, &shape, i % 2 ? RANK : 0);
        assert_int_equal(bg_gemm_flops() - before, (uint64_t)llround(want.flops));
        want = (bg_cost){ 0 };
        before = bg_gemm_flops();
        assert_ok(bg_pass_run(b.pass, one, (bg_labels){ 0 }, &(bg_tap){ NULL, NULL, 0 }, NULL, &err), err);
        bg_pass_cost(&want, b.model, &whole,
                     &(bg_batch_shape){ 1, one->n_rows, one->n_rows, b.batch->n_rows, false, false });
        assert_int_equal(bg_gemm_flops() - before, (uint64_t)llround(want.flops));
        bg_batch_free(one);
        bench_close(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(as_pytorch), cmocka_unit_test(as_the_gradient),
                                        cmocka_unit_test(in_shares), cmocka_unit_test(cost) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
