/* δᵀa of every kind of linear layer against central differences of the loss, in every family: the entries where
 * the gradient is largest, and a random direction through the whole matrix.  Not OLMo 1: it clips, and float32 needs
 * steps that cross the kinks; make_training.py takes its differences in float64. */
#include <math.h>

#include "bregman/rng.h"
#include "golden.h"

static const char *const cases[] = { "gpt2",          "neox",         "neox_serial",
                                     "llama",         "llama_pad",    "llama_llama3",
                                     "llama_linear",  "llama_half",   "qwen2",
                                     "qwen3",         "olmo2",        "starcoder2",
                                     "mistral",       "qwen2_window", "gpt_neo",
                                     "llama_yarn",    "olmo3",        "smollm3",
                                     "gemma2",        "gemma3",       "apertus",
                                     "lora_llama",    "lora_gpt2",    "qwen3_moe",
                                     "qwen3_moe_raw", "olmoe",        "olmoe_renormalised" };
enum { ENTRIES = 4 };
/* Float32 losses leave about 1e-5 of rounding in the sum, against steps that move it by about 0.05. */
static const double LIMIT = 1e-2, MOVE_NATS = 0.05;

/* A model of which one module's weights, [P, M] with the bias as last column, are ours to change. */
typedef struct {
    bg_model *model;
    bg_pass *pass;
    bg_batch *batch;
    float *loss;
    bg_site *site;
    bg_tensor tensor;
    float *weight, *bias; /* what the module points at */
    float *origin;        /* [P, M] */
    const bg_tensor *module_tensor;
    const float *module_bias;
} bench;

static void bench_open(bench *b, const char *name)
{
    golden g;
    golden_open(&g, name);
    *b = (bench){ .model = golden_model(&g, "embedding,all,router,adapter,head"), .batch = golden_batch(&g, 0, 2) };
    /* every row to all experts: which are chosen would jump (pass_test has the choice) */
    b->model->config.experts_per_token = b->model->config.n_experts;
    b->pass = golden_pass(b->model, b->batch);
    b->loss = calloc(b->batch->n_rows, sizeof *b->loss);
    assert_non_null(b->loss);
    bg_tensors_close(g.tensors);
}

static void bench_close(bench *b)
{
    free(b->loss);
    bg_pass_free(b->pass);
    bg_batch_free(b->batch);
    bg_model_close(b->model);
}

/* Where W[i][j] is in a module's stored weights. */
static size_t weight_at(const bench *b, size_t i, size_t j)
{
    const bg_site *m = b->site;
    return bg_site_is_transposed(m, b->model->config.transposed) ? j * m->n_out + i : i * m->n_in + j;
}

/* Put our own copy of a module's weights in place of the file's. */
static void take_site(bench *b, bg_site *m)
{
    size_t n = m->n_out * m->n_in;
    b->site = m;
    b->module_tensor = m->weight;
    b->module_bias = m->bias;
    b->weight = calloc(n, sizeof *b->weight);
    b->bias = calloc(m->n_out, sizeof *b->bias);
    b->origin = calloc(m->n_out * m->n_in1, sizeof *b->origin);
    assert_true(b->weight != NULL && b->bias != NULL && b->origin != NULL);
    bg_tensor_widen(m->weight, 0, n, b->weight);
    for (size_t i = 0; i < m->n_out; i++) {
        for (size_t j = 0; j < m->n_in; j++)
            b->origin[i * m->n_in1 + j] = b->weight[weight_at(b, i, j)];
        if (m->bias != NULL)
            b->origin[i * m->n_in1 + m->n_in] = m->bias[i];
    }
    b->tensor = *m->weight;
    b->tensor.dtype = BG_ST_F32;
    b->tensor.n_bytes = n * sizeof(float);
    b->tensor.data = b->weight;
    m->weight = &b->tensor;
    m->bias = m->bias != NULL ? b->bias : NULL;
}

static void return_module(bench *b)
{
    b->site->weight = b->module_tensor;
    b->site->bias = b->module_bias;
    free(b->weight);
    free(b->bias);
    free(b->origin);
}

/* Summed loss at origin + step * direction. */
static double loss_at(bench *b, const float *direction, double step)
{
    const bg_site *m = b->site;
    bg_err err;
    double sum = 0;
    for (size_t i = 0; i < m->n_out; i++) {
        for (size_t j = 0; j < m->n_in1; j++) {
            size_t at = i * m->n_in1 + j;
            float w = (float)((double)b->origin[at] + step * (double)direction[at]);
            if (j == m->n_in)
                b->bias[i] = w;
            else
                b->weight[weight_at(b, i, j)] = w;
        }
    }
    assert_ok(bg_pass_run(b->pass, b->batch, (bg_labels){ 0 }, NULL, b->loss, &err), err);
    for (size_t i = 0; i < b->batch->n_rows; i++)
        sum += (double)b->loss[i];
    return sum;
}

/* Derivative along a direction: two central differences, their h² error extrapolated away. */
static double derivative(bench *b, const float *direction, double expected)
{
    double h = MOVE_NATS / fmax(fabs(expected), 0.2); /* a weight moves by 0.25 at most */
    double near = (loss_at(b, direction, h) - loss_at(b, direction, -h)) / (2 * h);
    double far = (loss_at(b, direction, 2 * h) - loss_at(b, direction, -2 * h)) / (4 * h);
    return (4 * near - far) / 3;
}

static void check_direction(bench *b, const char *name, const float *direction, const double *gradient)
{
    size_t n = b->site->n_out * b->site->n_in1;
    double expected = 0;
    for (size_t i = 0; i < n; i++)
        expected += gradient[i] * (double)direction[i];
    double found = derivative(b, direction, expected);
    if (!(fabs(found - expected) <= LIMIT * fabs(expected)))
        fail_msg("%s: %s: derivative %.6g, from delta and a %.6g", name, b->site->name, found, expected);
}

/* δᵀa, [P, M] */
static double *pair_gradient(const caught_pair *pair)
{
    size_t p = pair->site->n_out, m = pair->site->n_in1;
    double *g = calloc(p * m, sizeof *g);
    assert_non_null(g);
    for (size_t t = 0; t < pair->n_rows; t++)
        for (size_t i = 0; i < p; i++)
            for (size_t j = 0; j < m; j++)
                g[i * m + j] += (double)pair->delta[t * p + i] * (double)pair->a[t * m + j];
    return g;
}

/* The bias's largest entry comes first where there is one, then the largest of the others. */
static size_t next_entry(const double *g, const char *used, size_t p, size_t m, bool bias)
{
    size_t best = SIZE_MAX;
    for (size_t i = 0; i < p * m; i++)
        if (!used[i] && (!bias || i % m == m - 1) && (best == SIZE_MAX || fabs(g[i]) > fabs(g[best])))
            best = i;
    return best;
}

static void check_site(bench *b, const char *name, const caught_pair *pair)
{
    bg_site *site = b->model->tracked[pair->site->index];
    size_t p = site->n_out, m = site->n_in1;
    double *gradient = pair_gradient(pair), norm2 = 0;
    float *direction = calloc(p * m, sizeof *direction);
    char *used = calloc(p * m, 1);
    assert_true(direction != NULL && used != NULL);
    take_site(b, site);
    for (int k = 0; k < ENTRIES; k++) {
        size_t at = next_entry(gradient, used, p, m, k == 0 && site->bias != NULL);
        used[at] = 1;
        direction[at] = 1;
        check_direction(b, name, direction, gradient);
        direction[at] = 0;
    }
    /* half the gradient's own direction, so that the derivative is not near 0 by chance; half noise of that norm */
    bg_normal_fill(11, site->index, p * m, direction);
    for (size_t i = 0; i < p * m; i++)
        norm2 += gradient[i] * gradient[i];
    for (size_t i = 0; i < p * m; i++)
        direction[i] = (float)(gradient[i] / sqrt(norm2) + (double)direction[i] / sqrt((double)(p * m)));
    check_direction(b, name, direction, gradient);
    return_module(b);
    free(gradient);
    free(direction);
    free(used);
}

static void every_layer_kind(void **state)
{
    (void)state;
    bool role_seen[BG_ROLES] = { false }, kind_seen[BG_SITE_KINDS] = { false }, part_seen[3] = { false };
    size_t n = 0;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bench b;
        bg_err err;
        caught c = { 0 };
        bench_open(&b, cases[i]);
        assert_ok(bg_pass_run(b.pass, b.batch, (bg_labels){ 0 }, &(bg_tap){ catch_pair, &c, BG_WANTS_ALL }, NULL, &err),
                  err);
        for (size_t k = 0; k < c.n; k++, n++) {
            role_seen[c.pair[k].site->role] = true;
            kind_seen[c.pair[k].site->kind] = true;
            part_seen[c.pair[k].site->part] = true;
            check_site(&b, cases[i], &c.pair[k]);
        }
        caught_clear(&c);
        bench_close(&b);
    }
    for (int r = 0; r < BG_ROLES; r++)
        assert_true(role_seen[r]);
    assert_true(part_seen[BG_PART_LORA_A] && part_seen[BG_PART_LORA_B]);
    for (int k = 0; k <= BG_SITE_HEAD; k++) /* training_test has the others */
        assert_true(kind_seen[k]);
    print_message("%zu modules\n", n);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(every_layer_kind) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
