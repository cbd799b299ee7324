/* The pass against PyTorch in float64, for every family: logits, losses, and a and δ of every linear module. */
#include <math.h>

#include "../../common/model/pass_state.h"
#include "bregman/gemm.h"
#include "golden.h"

static const char *const cases[] = {
    "gpt2",       "neox",       "neox_serial", "llama",     "llama_pad",     "llama_llama3", "llama_linear",
    "llama_half", "qwen2",      "qwen3",       "olmo2",     "starcoder2",    "mistral",      "qwen2_window",
    "gpt_neo",    "olmo",       "llama_yarn",  "olmo3",     "smollm3",       "gemma2",       "gemma3",
    "apertus",    "lora_llama", "lora_gpt2",   "qwen3_moe", "qwen3_moe_raw", "olmoe",        "olmoe_renormalised"
};
static const char *const with_ends[] = { "llama_ends", "gpt2_ends", "gemma2" };
static const char *const with_adapters[] = { "lora_llama", "lora_gpt2" };
enum { N_CASES = sizeof cases / sizeof cases[0], COMPARED = 2 /* sequences with stored a, δ and logits */ };
static const double LIMIT = 1e-5;

/* Largest difference over the reference's largest entry, columns [0, width) of rows; infinite for a NaN. */
static double difference(size_t rows, size_t width, const float *x, size_t ldx, const float *want, size_t ldw)
{
    double most = 0, scale = 0;
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < width; j++) {
            double d = fabs((double)x[i * ldx + j] - (double)want[i * ldw + j]);
            most = d <= most ? most : isnan(d) ? HUGE_VAL : d;
            scale = fmax(scale, fabs((double)want[i * ldw + j]));
        }
    return rows == 0 ? 0 : most / scale;
}

static void check(const char *name, const char *what, double found)
{
    if (!(found <= LIMIT))
        fail_msg("%s: %s differs by %.1e", name, what, found);
}

static void logits_and_losses(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_CASES; i++) {
        golden g;
        bg_err err;
        golden_open(&g, cases[i]);
        bg_model *m = golden_model(&g, "mlp");
        bg_batch *b = golden_batch(&g, 0, SIZE_MAX), *two = golden_batch(&g, 0, COMPARED);
        size_t v = m->config.vocab_size;
        bg_pass *p = golden_pass(m, b);
        float *logits = calloc(two->n_rows * v, sizeof *logits), *loss = calloc(b->n_rows, sizeof *loss);
        assert_ok(bg_pass_logits(p, two, logits, &err), err);
        check(cases[i], "logits",
              difference(two->n_rows, v, logits, v, golden_floats(&g, "", "logits", two->n_rows * v), v));
        assert_ok(bg_pass_run(p, b, (bg_labels){ 0 }, NULL, loss, &err), err);
        check(cases[i], "loss",
              difference(1, b->n_rows, loss, b->n_rows, golden_floats(&g, "", "loss", b->n_rows), b->n_rows));
        free(logits);
        free(loss);
        bg_pass_free(p);
        bg_batch_free(two);
        bg_batch_free(b);
        bg_model_close(m);
        bg_tensors_close(g.tensors);
    }
}

/* The golden's activation of a module: stored once for those that read the same input. */
/* The golden has one-hot inputs of an embedding written out, as catch_pair does. */
static const float *golden_activation(const golden *g, const bg_model *all, const bg_site *m, size_t n)
{
    const char *name = NULL;
    for (size_t i = 0; i < all->n_tracked; i++)
        if (strcmp(all->tracked[i]->name, m->name) == 0)
            name = all->tracked[all->tracked[i]->input]->name;
    if (name == NULL)
        fail_msg("%s is no module of %s", m->name, g->dir);
    return golden_floats(g, "a/", name, n);
}

/* An expert's rows are those that the golden says. */
static void check_rows(const golden *g, const caught_pair *pair)
{
    char name[200];
    size_t n;
    snprintf(name, sizeof name, "row/%s", pair->site->name);
    const int64_t *row = golden_integers(g, name, &n);
    assert_int_equal(pair->n_rows, n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(pair->row[i], row[i]);
}

static void check_pair(const golden *g, const bg_model *all, const caught_pair *pair)
{
    const bg_site *m = pair->site;
    char what[200];
    if (m->expert > 0)
        check_rows(g, pair);
    snprintf(what, sizeof what, "a of %s", m->name);
    check(g->dir, what,
          difference(pair->n_rows, m->n_in1, pair->a, m->n_in1, golden_activation(g, all, m, pair->n_rows * m->n_in1),
                     m->n_in1));
    snprintf(what, sizeof what, "delta of %s", m->name);
    check(g->dir, what,
          difference(pair->n_rows, m->n_out, pair->delta, m->n_out,
                     golden_floats(g, "delta/", m->name, pair->n_rows * m->n_out), m->n_out));
}

/* Any choice of modules: those are handed over once each, top block first, and shared inputs one after the other (of
 * adapters with their other matrix in between). */
static void check_choice(const golden *g, const bg_model *all, const char *modules, size_t *n_checked)
{
    bg_err err;
    bg_model *m = golden_model(g, modules);
    bg_batch *b = golden_batch(g, 0, COMPARED);
    bg_pass *p = golden_pass(m, b);
    caught c = { 0 };
    for (int twice = 0; twice < 2; twice++) { /* a pass leaves nothing behind for the next */
        caught_clear(&c);
        assert_ok(bg_pass_run(p, b, (bg_labels){ 0 }, &(bg_tap){ catch_pair, &c, BG_WANTS_ALL }, NULL, &err), err);
        assert_int_equal(c.n, m->n_tracked);
        for (size_t i = 0; i < c.n; i++) {
            const bg_site *site = c.pair[i].site;
            check_pair(g, all, &c.pair[i]);
            for (size_t j = 0; j < i; j++)
                assert_ptr_not_equal(c.pair[j].site, site);
            if (i > 0)
                assert_true(site->layer <= c.pair[i - 1].site->layer);
            if (site->input != site->index && site->part == BG_PART_WEIGHT && all->adapter == NULL)
                assert_int_equal(c.pair[i - 1].site->input, site->input);
        }
    }
    *n_checked += c.n;
    caught_clear(&c);
    bg_pass_free(p);
    bg_batch_free(b);
    bg_model_close(m);
}

/* Every choice in each case; all_modules: those that its golden has. */
static size_t check_choices(const char *const *name, size_t n_cases, const char *all_modules, const char *const *choice,
                            size_t n_choices)
{
    size_t n_checked = 0;
    for (size_t i = 0; i < n_cases; i++) {
        golden g;
        golden_open(&g, name[i]);
        bg_model *all = golden_model(&g, all_modules);
        for (size_t k = 0; k < n_choices; k++)
            check_choice(&g, all, choice[k], &n_checked);
        bg_model_close(all);
        bg_tensors_close(g.tensors);
    }
    return n_checked;
}

static void embedding_and_head(void **state)
{
    (void)state;
    static const char *const choice[] = { "embedding", "head", "head,embedding", "embedding,all,head",
                                          "attention,head" };
    assert_true(check_choices(with_ends, sizeof with_ends / sizeof *with_ends, "all,embedding,head", choice,
                              sizeof choice / sizeof *choice) > 10);
}

/* Both matrices of an adapter, with or without the weights that they change. */
static void adapters(void **state)
{
    (void)state;
    static const char *const choice[] = { "adapter",
                                          "all,adapter",
                                          "attention,adapter",
                                          "lora_A$",
                                          "1\\..*lora_B$",
                                          "(q_proj|c_attn)\\.lora",
                                          "1\\..*(down_proj|mlp.c_proj)\\.lora_A" };
    size_t n = check_choices(with_adapters, 2, "all,adapter", choice, sizeof choice / sizeof *choice);
    assert_int_equal(n, (20 + 34 + 28 + 10 + 5 + 4 + 1) + (16 + 24 + 20 + 8 + 4 + 4 + 1));
}

/* An expression that names modules means their weights alone. */
static void expressions_mean_weights(void **state)
{
    (void)state;
    golden g;
    golden_open(&g, "lora_llama");
    bg_model *m = golden_model(&g, "q_proj");
    assert_int_equal(m->n_tracked, 2);
    for (size_t i = 0; i < 2; i++)
        assert_true(m->tracked[i]->part == BG_PART_WEIGHT && m->tracked[i]->lora_a != NULL);
    bg_model_close(m);
    bg_tensors_close(g.tensors);
}

/* The products that are counted are those that are made. */
static void cost_of_adapters(void **state)
{
    (void)state;
    static const char *const choice[] = { "adapter", "all", "1\\..*lora_A", "lora_B" };
    for (size_t i = 0; i < 8; i++) {
        golden g;
        bg_err err;
        bg_cost want = { 0 };
        golden_open(&g, with_adapters[i % 2]);
        bg_model *m = golden_model(&g, choice[i / 2]);
        bg_batch *b = golden_batch(&g, 0, 1);
        bg_pass *p = golden_pass(m, b);
        const bg_share whole = bg_model_whole(m);
        const bg_batch_shape shape = { 1, b->n_rows, b->n_rows, b->n_rows, false, false };
        caught c = { 0 };
        uint64_t before = bg_gemm_flops();
        assert_ok(bg_pass_run(p, b, (bg_labels){ 0 }, &(bg_tap){ catch_pair, &c, BG_WANTS_ALL }, NULL, &err), err);
        bg_pass_cost(&want, m, &whole, &shape);
        assert_int_equal(bg_gemm_flops() - before, (uint64_t)want.flops);
        caught_clear(&c);
        bg_pass_free(p);
        bg_batch_free(b);
        bg_model_close(m);
        bg_tensors_close(g.tensors);
    }
}

static void activations_and_gradients(void **state)
{
    (void)state;
    static const char *const choice[] = { "all,router",
                                          "mlp",
                                          "attention",
                                          "1\\..*(o_proj|c_proj|dense)$",
                                          "0\\..*(proj|fc|dense|value|h|gate)$",
                                          "mlp\\.(experts\\.[02]\\.)?(up_proj|c_fc|dense_h_to_4h)$",
                                          "1\\..*(q_proj|v_proj|up_proj|c_attn|query_key_value)$",
                                          "1\\..*(down_proj|mlp.c_proj|4h_to_h)$" };
    print_message("%zu modules\n", check_choices(cases, N_CASES, "all,router", choice, sizeof choice / sizeof *choice));
}

/* Of a sequence's pair and its rows, from r0 on, of the batch's. */
static double difference_alone(const caught_pair *one, const caught *together, uint32_t r0)
{
    const caught_pair *all = together->pair;
    size_t n = one->site->n_out, first = 0;
    while (all->site != one->site)
        all++;
    while (first < all->n_rows && all->row[first] < r0)
        first++;
    for (size_t i = 0; i < one->n_rows; i++)
        assert_int_equal(all->row[first + i], r0 + one->row[i]);
    return difference(one->n_rows, n, one->delta, n, all->delta + first * n, n);
}

/* A sequence's losses and pairs do not depend on what else is in its batch. */
static void batches_do_not_mix(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_CASES; i++) {
        golden g;
        bg_err err;
        golden_open(&g, cases[i]);
        bg_model *m = golden_model(&g, "all");
        bg_batch *b = golden_batch(&g, 0, SIZE_MAX);
        bg_pass *p = golden_pass(m, b);
        caught together = { 0 }, alone = { 0 };
        assert_ok(bg_pass_run(p, b, (bg_labels){ 0 }, &(bg_tap){ catch_pair, &together, BG_WANTS_ALL }, NULL, &err),
                  err);
        for (size_t z = 0; z < b->n_sequences; z += 5) {
            bg_batch *one = golden_batch(&g, z, 1);
            size_t r0 = b->row_start[z];
            assert_ok(bg_pass_run(p, one, (bg_labels){ 0 }, &(bg_tap){ catch_pair, &alone, BG_WANTS_ALL }, NULL, &err),
                      err);
            for (size_t k = 0; k < alone.n; k++)
                check(cases[i], "delta alone", difference_alone(&alone.pair[k], &together, (uint32_t)r0));
            caught_clear(&alone);
            bg_batch_free(one);
        }
        caught_clear(&together);
        bg_pass_free(p);
        bg_batch_free(b);
        bg_model_close(m);
        bg_tensors_close(g.tensors);
    }
}

/* Matrices that must be widened some rows at a time (here all are, as if they were not aligned in their file): stored
 * by outputs and, in GPT-2, by inputs. */
static void weights_in_slices(void **state)
{
    (void)state;
    static const char *const stored[] = { "gpt2", "llama", "llama_half", "qwen3_moe" };
    for (size_t i = 0; i < sizeof stored / sizeof *stored; i++) {
        golden g;
        bg_err err;
        golden_open(&g, stored[i]);
        bg_model *m = golden_model(&g, "all"), *all = golden_model(&g, "all");
        bg_tensor *moved = calloc(m->n_sites, sizeof *moved);
        for (size_t k = 0; k < m->n_sites; k++) {
            moved[k] = *m->site[k].weight;
            unsigned char *bytes = malloc(moved[k].n_bytes + 2);
            moved[k].data = memcpy(bytes + 2, m->site[k].weight->data, moved[k].n_bytes);
            m->site[k].weight = &moved[k];
        }
        bg_batch *b = golden_batch(&g, 0, COMPARED);
        bg_pass *p = golden_pass(m, b);
        p->weight_floats = 3 * 160; /* 3 rows of the widest matrix */
        caught c = { 0 };
        assert_ok(bg_pass_run(p, b, (bg_labels){ 0 }, &(bg_tap){ catch_pair, &c, BG_WANTS_ALL }, NULL, &err), err);
        assert_int_equal(c.n, m->n_tracked);
        for (size_t k = 0; k < c.n; k++) {
            assert_true(bg_pass_weight_rows(p, c.pair[k].site->weight) < c.pair[k].site->weight->shape[0]);
            check_pair(&g, all, &c.pair[k]);
        }
        caught_clear(&c);
        bg_pass_free(p);
        bg_batch_free(b);
        for (size_t k = 0; k < m->n_sites; k++)
            free((char *)(uintptr_t)moved[k].data - 2);
        bg_model_close(m);
        bg_model_close(all);
        bg_tensors_close(g.tensors);
        free(moved);
    }
}

/* With all logits equal each row's experts are the first; and with a NaN among them the loss is one, which is refused. */
static void routes_of_equal_logits(void **state)
{
    (void)state;
    golden g;
    bg_err err;
    golden_open(&g, "olmoe_renormalised");
    bg_model *m = golden_model(&g, "mlp");
    bg_batch *b = golden_batch(&g, 0, COMPARED);
    bg_pass *p = golden_pass(m, b);
    bg_site *router = (bg_site *)(uintptr_t)m->block[1].site[BG_ROLE_ROUTER];
    bg_tensor zeros = *router->weight;
    float *x = calloc(zeros.n_bytes, 1);
    caught c = { 0 };
    assert_non_null(x);
    zeros.data = x;
    router->weight = &zeros;
    assert_ok(bg_pass_run(p, b, (bg_labels){ 0 }, &(bg_tap){ catch_pair, &c, BG_WANTS_ALL }, NULL, &err), err);
    for (size_t i = 0; i < c.n; i++)
        if (c.pair[i].site->section == 1)
            assert_int_equal(c.pair[i].n_rows, c.pair[i].site->expert <= 3 ? b->n_rows : 0);
    x[0] = NAN;
    assert_int_equal(bg_pass_run(p, b, (bg_labels){ 0 }, NULL, NULL, &err), BG_ENUMERIC);
    caught_clear(&c);
    free(x);
    bg_pass_free(p);
    bg_batch_free(b);
    bg_model_close(m);
    bg_tensors_close(g.tensors);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_and_losses),        cmocka_unit_test(activations_and_gradients),
        cmocka_unit_test(embedding_and_head),       cmocka_unit_test(batches_do_not_mix),
        cmocka_unit_test(weights_in_slices),        cmocka_unit_test(adapters),
        cmocka_unit_test(expressions_mean_weights), cmocka_unit_test(cost_of_adapters),
        cmocka_unit_test(routes_of_equal_logits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
