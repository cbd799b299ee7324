/* Attention over sequences of several blocks of queries, sliding or not, against softmax(q kᵀ) v written out in
 * float64: the outputs, how they move, and the gradient, which is what they move by the other way round. */
#include <math.h>

#include "../../common/model/pass_state.h"
#include "bregman/rng.h"
#include "golden.h"

enum { LONG = 2 * BG_ATTENTION_ROWS + 41, ROWS = LONG + 1 + 70 };
static const double STEP = 1e-4, LIMIT = 3e-6;

/* A model whose blocks all slide, and a batch of three sequences: several blocks of queries, one row, some. */
typedef struct {
    golden g;
    bg_model *model;
    bg_batch *batch;
    bg_pass *pass;
    size_t w, ldo; /* floats of a row of q, k and v, and of the heads' outputs */
} bench;

static void bench_open(bench *b, size_t window)
{
    const size_t tokens[] = { LONG + 1, 2, 71 };
    uint32_t id[LONG + 1] = { 0 };
    bg_err err;
    golden_open(&b->g, "mistral");
    b->model = golden_model(&b->g, "all");
    b->model->config.window = window;
    b->model->config.max_positions = LONG;
    assert_ok(bg_batch_new(&b->batch, 3, ROWS, &err), err);
    for (size_t z = 0; z < 3; z++)
        assert_true(bg_batch_add(b->batch, z, id, tokens[z], 0));
    assert_ok(bg_pass_new(&b->pass, b->model, NULL, 1, ROWS, 1 << 16, &err), err);
    b->w = b->pass->w_qkv;
    b->ldo = b->model->config.n_heads * b->model->config.d_head;
}

static void bench_close(bench *b)
{
    bg_pass_free(b->pass);
    bg_batch_free(b->batch);
    bg_model_close(b->model);
    bg_tensors_close(b->g.tensors);
}

/* out [d] of query i, with qkv + h t in place of qkv. */
static void reference_row(const bench *b, const float *qkv, const float *t, double h, size_t i, size_t head,
                          double *out)
{
    const bg_model_config *c = &b->model->config;
    size_t d = c->d_head, kv = c->n_heads + head / (c->n_heads / c->n_kv_heads), window = bg_window_of(c, 0);
    double sum = 0;
    memset(out, 0, d * sizeof *out);
    for (size_t j = i + 1 > window ? i + 1 - window : 0; j <= i; j++) {
        double score = 0;
        for (size_t e = 0; e < d; e++) {
            size_t q = i * b->w + head * d + e, k = j * b->w + kv * d + e;
            score += ((double)qkv[q] + h * (double)t[q]) * ((double)qkv[k] + h * (double)t[k]);
        }
        double p = exp(score / sqrt((double)d));
        sum += p;
        for (size_t e = 0; e < d; e++) {
            size_t v = j * b->w + (kv + c->n_kv_heads) * d + e;
            out[e] += p * ((double)qkv[v] + h * (double)t[v]);
        }
    }
    for (size_t e = 0; e < d; e++)
        out[e] /= sum;
}

/* att [rows, ldo], sequence by sequence. */
static double *reference(const bench *b, const float *qkv, const float *t, double h)
{
    const bg_model_config *c = &b->model->config;
    double *att = calloc(ROWS * b->ldo, sizeof *att);
    assert_non_null(att);
    for (size_t z = 0; z < b->batch->n_sequences; z++)
        for (size_t r0 = b->batch->row_start[z], i = 0; r0 + i < b->batch->row_start[z + 1]; i++)
            for (size_t head = 0; head < c->n_heads; head++)
                reference_row(b, qkv + r0 * b->w, t + r0 * b->w, h, i, head,
                              att + (r0 + i) * b->ldo + head * c->d_head);
    return att;
}

static float *normals(uint64_t seed, size_t n)
{
    float *x = calloc(n, sizeof *x);
    assert_non_null(x);
    bg_normal_fill(seed, 0, n, x);
    return x;
}

static double dot(size_t n, const float *x, const float *y)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)y[i];
    return sum;
}

static void check_outputs(const bench *b, const float *att, const double *want)
{
    for (size_t i = 0; i < ROWS * b->ldo; i++)
        if (!(fabs((double)att[i / b->ldo * b->pass->ld_att + i % b->ldo] - want[i]) < LIMIT))
            fail_msg("window %zu, row %zu: %g, want %g", b->model->config.window, i / b->ldo,
                     (double)att[i / b->ldo * b->pass->ld_att + i % b->ldo], want[i]);
}

static void check_window(size_t window)
{
    bench b;
    bench_open(&b, window);
    size_t n = ROWS * b.w, m = ROWS * b.ldo;
    float *qkv = normals(1, n), *att = normals(2, ROWS * b.pass->ld_att), *tatt = normals(3, m), *dqkv = normals(4, n);
    bg_attention_forward(b.pass, 0, b.batch, qkv, att);
    for (uint64_t seed = 10; seed < 13; seed++) {
        float *t = normals(seed, n), *datt = normals(seed + 10, m);
        double *want = reference(&b, qkv, t, 0), *up = reference(&b, qkv, t, STEP),
               *down = reference(&b, qkv, t, -STEP);
        check_outputs(&b, att, want);
        bg_attention_tangent(b.pass, 0, b.batch, qkv, t, tatt);
        for (size_t i = 0; i < m; i++)
            if (!(fabs((double)tatt[i] - (up[i] - down[i]) / (2 * STEP)) < 10 * LIMIT))
                fail_msg("window %zu, row %zu: the tangent is %g, want %g", window, i / b.ldo, (double)tatt[i],
                         (up[i] - down[i]) / (2 * STEP));
        bg_attention_backward(b.pass, 0, b.batch, qkv, att, datt, dqkv);
        double moved = dot(m, tatt, datt), gradient = dot(n, t, dqkv);
        if (!(fabs(moved - gradient) < 1e-5 * sqrt(dot(m, tatt, tatt) * dot(m, datt, datt))))
            fail_msg("window %zu: along a direction %g, by the gradient %g", window, moved, gradient);
        free(t);
        free(datt);
        free(want);
        free(up);
        free(down);
    }
    free(qkv);
    free(att);
    free(tatt);
    free(dqkv);
    bench_close(&b);
}

/* Shorter than a block of queries and longer, at its edges, and as long as the sequence: then nothing is masked. */
static void slides(void **state)
{
    (void)state;
    const size_t window[] = { 1,        2,    37,      BG_ATTENTION_ROWS - 1, BG_ATTENTION_ROWS, BG_ATTENTION_ROWS + 1,
                              LONG - 1, LONG, LONG + 5 };
    for (size_t i = 0; i < sizeof window / sizeof window[0]; i++)
        check_window(window[i]);
}

/* What a window costs is what it multiplies: blocks of queries, and the keys that they see. */
static void windows_cost_less(void **state)
{
    (void)state;
    bench b;
    bench_open(&b, 64);
    const bg_share whole = bg_model_whole(b.model);
    const bg_batch_shape shape = { .sequences = 1, .rows = 1024, .loss_rows = 1024, .max_rows = 1024, .forward = true };
    bg_cost slides = { 0 }, full = { 0 };
    bg_pass_cost(&slides, b.model, &whole, &shape);
    b.model->config.window = SIZE_MAX;
    bg_pass_cost(&full, b.model, &whole, &shape);
    double heads = (double)b.model->config.n_heads * (double)b.model->config.n_blocks, pairs = 0, all = 0;
    for (size_t i = 0; i < 1024; i += BG_ATTENTION_ROWS) {
        pairs += BG_ATTENTION_ROWS * (double)(BG_ATTENTION_ROWS + (i == 0 ? 0 : 63));
        all += BG_ATTENTION_ROWS * (double)(i + BG_ATTENTION_ROWS);
    }
    double d = (double)b.model->config.d_head;
    assert_true(fabs(full.flops - slides.flops - 2 * 2 * d * heads * (all - pairs)) < 1e-9 * full.flops);
    bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(slides), cmocka_unit_test(windows_cost_less) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
