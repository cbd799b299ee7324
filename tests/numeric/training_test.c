/* Gradients of every parameter against PyTorch's in float64, in every family, whatever the micro-batches; and what is
 * owned of a model is what it computes with. */
#include <math.h>

#include "bregman/gradient.h"
#include "bregman/recipe.h"
#include "golden.h"

static const char *const cases[] = { "gpt2",         "neox",         "neox_serial", "llama",   "llama_pad",
                                     "llama_llama3", "llama_linear", "qwen2",       "qwen3",   "olmo2",
                                     "gpt2_ends",    "llama_ends",   "starcoder2",  "mistral", "qwen2_window",
                                     "gpt_neo",      "olmo",         "olmo3",       "smollm3" };
static const double LIMIT = 1e-5; /* of a tensor's norm */

typedef struct {
    golden given, expected;
    bg_model *model;
    bg_parameters *parameters;
    bg_gradient *gradient;
    float *sum;
} bench;

static void bench_open(bench *b, const char *name, const char *modules)
{
    char path[1100];
    bg_err err;
    golden_open(&b->given, name);
    b->expected = b->given;
    snprintf(path, sizeof path, "%s/training.safetensors", b->given.dir);
    assert_ok(bg_tensors_open_file(&b->expected.tensors, path, &err), err);
    assert_ok(bg_model_open_trained(&b->model, b->given.dir, modules, &err), err);
    assert_ok(bg_parameters_own(&b->parameters, b->model, &err), err);
    b->sum = calloc(b->parameters->n_trained, sizeof *b->sum);
    assert_non_null(b->sum);
}

static void bench_close(bench *b)
{
    free(b->sum);
    bg_parameters_free(b->parameters);
    bg_model_close(b->model);
    bg_tensors_close(b->given.tensors);
    bg_tensors_close(b->expected.tensors);
}

/* Add the gradients of all sequences, so many at a time. */
static void add_gradients(bench *b, size_t at_once)
{
    bg_err err;
    size_t n;
    (void)golden_integers(&b->given, "train_count", &n);
    memset(b->sum, 0, b->parameters->n_trained * sizeof *b->sum);
    for (size_t z = 0; z < n; z += at_once) {
        bg_batch *batch = golden_batch(&b->given, z, at_once);
        bg_pass *pass = golden_pass(b->model, batch);
        assert_ok(bg_gradient_new(&b->gradient, b->parameters, batch->n_rows, &err), err);
        bg_gradient_into(b->gradient, b->sum);
        const bg_tap tap = { bg_gradient_pair, b->gradient, BG_WANTS_ALL };
        assert_ok(bg_pass_run(pass, batch, (bg_labels){ 0 }, &tap, NULL, &err), err);
        bg_gradient_free(b->gradient);
        bg_pass_free(pass);
        bg_batch_free(batch);
    }
}

static double distance(const float *x, const float *y, size_t n)
{
    double difference = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        difference += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
        norm += (double)y[i] * (double)y[i];
    }
    return sqrt(difference / norm);
}

static void gradients_are_pytorchs(void **state)
{
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        bench b;
        double worst = 0;
        const char *of = "";
        bench_open(&b, cases[c], "everything");
        for (size_t at_once = 5; at_once <= 12; at_once += 7) {
            add_gradients(&b, at_once);
            for (size_t i = 0; i < b.parameters->n; i++) {
                const bg_parameter *p = &b.parameters->at[i];
                double d = distance(b.sum + p->first, golden_floats(&b.expected, "gradient/", p->name, p->n), p->n);
                of = d > worst ? p->name : of;
                worst = d > worst ? d : worst;
            }
        }
        printf("%-12s %zu parameters, worst %.1e (%s)\n", cases[c], b.parameters->n, worst, of);
        assert_true(worst < LIMIT);
        bench_close(&b);
    }
}

/* Of some modules only: what is not trained stays in the file, and backward ends at the lowest. */
static void some_modules_alone(void **state)
{
    (void)state;
    static const char *const modules[] = { "mlp", "norm", "position", "head", "layers.1|h.1", "final_layer_norm|ln_f" };
    for (size_t c = 0; c < 2; c++) {
        for (size_t k = 0; k < sizeof modules / sizeof modules[0]; k++) {
            bench b;
            if (c == 1 && strcmp(modules[k], "position") == 0)
                continue;
            bench_open(&b, c == 0 ? "gpt2" : "neox", modules[k]);
            add_gradients(&b, 12);
            assert_true(b.parameters->n > 0);
            for (size_t i = 0; i < b.parameters->n; i++) {
                const bg_parameter *p = &b.parameters->at[i];
                assert_true(p->trained);
                const float *expected = golden_floats(&b.expected, "gradient/", p->name, p->n);
                assert_true(distance(b.sum + p->first, expected, p->n) < LIMIT);
            }
            bench_close(&b);
        }
    }
}

static double summed_loss(bench *b)
{
    bg_err err;
    double sum = 0;
    bg_batch *batch = golden_batch(&b->given, 0, 12);
    bg_pass *pass = golden_pass(b->model, batch);
    float *loss = calloc(batch->n_rows, sizeof *loss);
    assert_non_null(loss);
    assert_ok(bg_pass_run(pass, batch, (bg_labels){ 0 }, NULL, loss, &err), err);
    for (size_t i = 0; i < batch->n_rows; i++)
        sum += (double)loss[i];
    free(loss);
    bg_pass_free(pass);
    bg_batch_free(batch);
    return sum;
}

/* A step along the gradient changes the loss as it says: every parameter is one that the model reads. */
static void the_model_reads_what_is_owned(void **state)
{
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        bench b;
        bench_open(&b, cases[c], "everything");
        add_gradients(&b, 12);
        for (size_t i = 0; i < b.parameters->n; i++) {
            const bg_parameter *p = &b.parameters->at[i];
            double square = 0, change[2];
            float *x = b.parameters->value + p->first, *keep = malloc(p->n * sizeof *x);
            assert_non_null(keep);
            memcpy(keep, x, p->n * sizeof *x);
            for (size_t k = 0; k < p->n; k++)
                square += (double)b.sum[p->first + k] * (double)b.sum[p->first + k];
            double step = fmin(0.05 / sqrt(square), 0.5 / square);
            for (int side = 0; side < 2; side++) {
                for (size_t k = 0; k < p->n; k++)
                    x[k] = keep[k] + (float)((side ? step : -step) * (double)b.sum[p->first + k]);
                change[side] = summed_loss(&b);
            }
            memcpy(x, keep, p->n * sizeof *x);
            free(keep);
            double expected = 2 * step * square, found = change[1] - change[0];
            if (fabs(found - expected) > 0.05 * expected + 2e-3)
                fail_msg("%s: %s moves the loss by %g, not %g", cases[c], p->name, found, expected);
        }
        bench_close(&b);
    }
}

/* One step on sequences [first, first + 4): mean loss; what torch.optim does, clipped to a norm of 1. */
static double train_step(bench *b, const bg_recipe *r, uint64_t k, float *const moment[2], double *norm)
{
    bg_err err;
    double loss = 0, square = 0;
    bg_batch *batch = golden_batch(&b->given, (4 * k) % 12, 4);
    bg_pass *pass = golden_pass(b->model, batch);
    float *row_loss = calloc(batch->n_rows, sizeof *row_loss);
    assert_non_null(row_loss);
    memset(b->sum, 0, b->parameters->n_trained * sizeof *b->sum);
    assert_ok(bg_gradient_new(&b->gradient, b->parameters, batch->n_rows, &err), err);
    bg_gradient_into(b->gradient, b->sum);
    const bg_tap tap = { bg_gradient_pair, b->gradient, BG_WANTS_ALL };
    assert_ok(bg_pass_run(pass, batch, (bg_labels){ 0 }, &tap, row_loss, &err), err);
    for (size_t i = 0; i < batch->n_rows; i++)
        loss += (double)row_loss[i];
    for (size_t i = 0; i < b->parameters->n_trained; i++)
        square += (double)b->sum[i] * (double)b->sum[i];
    double n = (double)batch->n_rows;
    *norm = sqrt(square) / n;
    bg_recipe_update(r, k, b->parameters,
                     &(bg_update){ 0, b->parameters->n_trained, b->sum, (*norm + 1e-6 > 1 ? 1 / (*norm + 1e-6) : 1) / n,
                                   moment[0], moment[1] });
    free(row_loss);
    bg_gradient_free(b->gradient);
    bg_pass_free(pass);
    bg_batch_free(batch);
    return loss / n;
}

/* 200 steps beside torch.optim's in float64, on the same batches. */
static void optimisers_are_torchs(void **state)
{
    (void)state;
    static const char *const of[] = { "gpt2", "qwen2", "neox" };
    enum { STEPS = 200 };
    for (size_t c = 0; c < 3; c++) {
        for (int sgd = 0; sgd < 2; sgd++) {
            bench b;
            double worst = 0, worst_norm = 0;
            bench_open(&b, of[c], "everything");
            const bg_recipe r = { .optimizer = sgd ? BG_SGD : BG_ADAMW,
                                  .rate = sgd ? 0.01 : 1e-3,
                                  .beta1 = 0.9,
                                  .beta2 = 0.95,
                                  .epsilon = 1e-8,
                                  .momentum = 0.9,
                                  .weight_decay = sgd ? 0.01 : 0.1,
                                  .schedule = BG_COSINE,
                                  .steps = STEPS,
                                  .warmup_steps = 20,
                                  .final_rate = 0.1 };
            size_t n = b.parameters->n_trained;
            float *const moment[2] = { calloc(n, sizeof(float)), calloc(n, sizeof(float)) };
            assert_true(moment[0] != NULL && moment[1] != NULL);
            const float *loss = golden_floats(&b.expected, "losses/", sgd ? "sgd" : "adamw", STEPS);
            const float *norm = golden_floats(&b.expected, "grad_norm/", "adamw", STEPS);
            for (uint64_t k = 0; k < STEPS; k++) {
                double found_norm, found = train_step(&b, &r, k, moment, &found_norm);
                worst = fmax(worst, fabs(found - (double)loss[k]) / (double)loss[k]);
                if (!sgd)
                    worst_norm = fmax(worst_norm, fabs(found_norm - (double)norm[k]) / (double)norm[k]);
            }
            printf("%-6s %-5s losses within %.1e, norms %.1e\n", of[c], sgd ? "sgd" : "adamw", worst, worst_norm);
            assert_true(worst < 1e-4 && worst_norm < 1e-2);
            for (size_t i = 0; i < b.parameters->n && c == 0 && !sgd; i++) {
                const bg_parameter *p = &b.parameters->at[i];
                const float *expected = golden_floats(&b.expected, "final/adamw/", p->name, p->n);
                double d = distance(b.parameters->value + p->first, expected, p->n);
                /* keys' biases change no loss: Adam makes steps of what rounding leaves of their gradients */
                if (d > 1e-4 && strstr(p->name, "c_attn.bias") == NULL)
                    fail_msg("%s ends %g from PyTorch's", p->name, d);
            }
            free(moment[0]);
            free(moment[1]);
            bench_close(&b);
        }
    }
}

/* A new model's weights are spread as the family says. */
static void new_models_begin_as_their_family(void **state)
{
    (void)state;
    static const char *const of[] = { "gpt2", "neox", "qwen3" };
    for (size_t c = 0; c < 3; c++) {
        golden g;
        bg_model *m;
        bg_parameters *p;
        bg_err err;
        golden_open(&g, of[c]);
        assert_ok(bg_model_from_config(&m, g.dir, "everything", &err), err);
        assert_ok(bg_parameters_own(&p, m, &err), err);
        bg_parameters_initialise(p, 5);
        for (size_t i = 0; i < p->n; i++) {
            double sum = 0, square = 0, expected = 0.02, n = (double)p->at[i].n;
            const float *x = p->value + p->at[i].first;
            for (size_t k = 0; k < p->at[i].n; k++) {
                sum += (double)x[k];
                square += (double)x[k] * (double)x[k];
            }
            if (p->at[i].n_dims == 1) {
                assert_true(square == (p->at[i].is_bias ? 0 : n));
                continue;
            }
            if (c == 0 && strstr(p->at[i].name, "c_proj") != NULL)
                expected /= 2; /* sqrt(2 * 2 blocks) */
            size_t d = m->config.d_model;
            if (m->config.padding_token == 0 && p->at[i].site->kind == BG_SITE_EMBEDDING) {
                for (size_t k = 0; k < d; k++)
                    assert_true(x[k] == 0);
                n -= (double)d;
            }
            assert_true(fabs(sum / n) < 5 * expected / sqrt(n));
            assert_true(fabs(sqrt(square / n) / expected - 1) < 5 / sqrt(2 * n));
        }
        bg_parameters_free(p);
        bg_model_close(m);
        bg_tensors_close(g.tensors);
    }
}

/* Families that have what nothing here trains, from weights or from sizes alone. */
static void the_untrained_are_refused(void **state)
{
    static const char *const name[] = { "gemma2", "gemma3", "apertus" };
    (void)state;
    for (size_t i = 0; i < sizeof name / sizeof *name; i++) {
        golden g;
        bg_model *m;
        bg_err err = { .msg = "" };
        golden_open(&g, name[i]);
        assert_int_equal(bg_model_open_trained(&m, g.dir, "everything", &err), BG_EFORMAT);
        assert_says(err, "cannot be trained here: its ");
        assert_says(err, g.dir);
        assert_int_equal(bg_model_from_config(&m, g.dir, "everything", &err), BG_EFORMAT);
        assert_says(err, "cannot be trained here: its ");
        bg_tensors_close(g.tensors);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_are_pytorchs), cmocka_unit_test(the_untrained_are_refused),
        cmocka_unit_test(some_modules_alone),     cmocka_unit_test(the_model_reads_what_is_owned),
        cmocka_unit_test(optimisers_are_torchs),  cmocka_unit_test(new_models_begin_as_their_family)
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
