/* Causal attention in row blocks of BG_ATTENTION_ROWS queries: a block multiplies only the keys from the first that its
 * first row sees, where attention slides, up to its last row, and backward recomputes the probabilities instead of
 * keeping T x T of them.  A task is one key/value head of one document, so that no two tasks write the same gradient. */
#include <math.h>
#include <omp.h>
#include <stdbool.h>
#include <string.h>

#include "bregman/gemm.h"
#include "bregman/threads.h"
#include "pass_state.h"

typedef struct {
    size_t q, k, v; /* offsets in a row of qkv */
    size_t out;     /* offset in a row of att */
    size_t window;  /* keys that a query sees, its own included; SIZE_MAX: all before it */
    float scale;    /* of the scores */
    float cap;      /* and what bounds them; 0: nothing */
} head_place;

static head_place place(const bg_model_config *c, size_t block, size_t h)
{
    size_t hd = c->d_head, kv = h / (c->n_heads / c->n_kv_heads);
    head_place at = { .out = h * hd, .window = bg_window_of(c, block), .cap = (float)c->attention_cap };
    at.scale = c->attention_scale > 0 ? (float)c->attention_scale : 1.0f / sqrtf((float)hd);
    if (c->qkv == BG_QKV_INTERLEAVED) {
        at.q = 3 * h * hd;
        at.k = at.q + hd;
        at.v = at.k + hd;
    } else {
        at.q = h * hd;
        at.k = (c->n_heads + kv) * hd;
        at.v = (c->n_heads + c->n_kv_heads + kv) * hd;
    }
    return at;
}

/* Queries [i0, i0 + n), and the keys [k0, k0 + keys) that any of them sees. */
typedef struct {
    size_t i0, n, k0, keys;
} span;

static span span_at(const head_place *at, size_t rows, size_t i0)
{
    span b = { .i0 = i0, .n = rows - i0 < BG_ATTENTION_ROWS ? rows - i0 : BG_ATTENTION_ROWS };
    b.k0 = i0 < at->window ? 0 : i0 - at->window + 1;
    b.keys = i0 + b.n - b.k0;
    return b;
}

/* Probabilities of the queries over the keys: s [n, keys]; scores with a cap leave its slopes, scaled, two arrays on. */
static void probabilities(const bg_pass *p, const head_place *at, const float *qkv, span b, float *s)
{
    size_t w = p->w_qkv;
    bg_gemm((bg_extent){ b.n, b.keys, p->model->config.d_head }, 1.0f, bg_f32(BG_N, qkv + b.i0 * w + at->q, w),
            bg_f32(BG_T, qkv + b.k0 * w + at->k, w), 0.0f, s, b.keys);
    if (at->cap > 0)
        bg_softcap(b.n * b.keys, at->scale, at->cap, s, s + 2 * (size_t)BG_ATTENTION_ROWS * p->max_rows);
    bg_softmax_causal(b.n, b.keys, (bg_band){ b.i0 - b.k0, at->window }, at->cap > 0 ? 1.0f : at->scale,
                      (bg_out){ s, b.keys });
}

/* ds, which follows s: of the scores before their cap from that after, or how the latter move from the former. */
static void times_cap_slope(const bg_pass *p, const head_place *at, span b, float *ds)
{
    if (at->cap > 0)
        bg_times(b.n * b.keys, ds + (size_t)BG_ATTENTION_ROWS * p->max_rows, ds);
}

static void head_forward(const bg_pass *p, head_place at, size_t rows, const float *qkv, float *att, float *s)
{
    size_t hd = p->model->config.d_head, w = p->w_qkv;
    for (size_t i0 = 0; i0 < rows; i0 += BG_ATTENTION_ROWS) {
        const span b = span_at(&at, rows, i0);
        probabilities(p, &at, qkv, b, s);
        bg_gemm((bg_extent){ b.n, hd, b.keys }, 1.0f, bg_f32(BG_N, s, b.keys), bg_f32(BG_N, qkv + b.k0 * w + at.v, w),
                0.0f, att + i0 * p->ld_att + at.out, p->ld_att);
    }
}

/* o = P v, so ȯ = Ṗ v + P v̇, and Ṡ = q̇ kᵀ + q k̇ᵀ; ds follows s. */
static void head_tangent(const bg_pass *p, head_place at, size_t rows, const float *qkv, const float *tqkv, float *tatt,
                         float *s)
{
    const bg_model_config *c = &p->model->config;
    size_t hd = c->d_head, w = p->w_qkv, ldo = c->n_heads * hd;
    float *ds = s + (size_t)BG_ATTENTION_ROWS * p->max_rows;
    for (size_t i0 = 0; i0 < rows; i0 += BG_ATTENTION_ROWS) {
        const span b = span_at(&at, rows, i0);
        const bg_extent scores = { b.n, b.keys, hd }, outputs = { b.n, hd, b.keys };
        const float *k = qkv + b.k0 * w + at.k, *tk = tqkv + b.k0 * w + at.k;
        float *out = tatt + i0 * ldo + at.out;
        probabilities(p, &at, qkv, b, s);
        bg_gemm(scores, 1.0f, bg_f32(BG_N, tqkv + i0 * w + at.q, w), bg_f32(BG_T, k, w), 0.0f, ds, b.keys);
        bg_gemm(scores, 1.0f, bg_f32(BG_N, qkv + i0 * w + at.q, w), bg_f32(BG_T, tk, w), 1.0f, ds, b.keys);
        times_cap_slope(p, &at, b, ds);
        for (size_t i = 0; i < b.n; i++)
            (void)bg_softmax_tangent(b.keys, at.cap > 0 ? 1.0f : at.scale, s + i * b.keys, ds + i * b.keys);
        bg_gemm(outputs, 1.0f, bg_f32(BG_N, ds, b.keys), bg_f32(BG_N, qkv + b.k0 * w + at.v, w), 0.0f, out, ldo);
        bg_gemm(outputs, 1.0f, bg_f32(BG_N, s, b.keys), bg_f32(BG_N, tqkv + b.k0 * w + at.v, w), 1.0f, out, ldo);
    }
}

/* Rows of one document: what its backward reads, and dqkv, what it writes. */
typedef struct {
    size_t rows;
    const float *qkv, *att, *datt;
    float *dqkv;
} sequence;

/* Keys [0, k0) of a sequence, which the last block of queries does not see: nothing is in their gradients yet. */
static void clear_keys(const bg_pass *p, head_place at, size_t k0, float *dqkv)
{
    size_t bytes = p->model->config.d_head * sizeof *dqkv;
    for (size_t i = 0; i < k0; i++) {
        memset(dqkv + i * p->w_qkv + at.k, 0, bytes);
        memset(dqkv + i * p->w_qkv + at.v, 0, bytes);
    }
}

/* Rows from the last block to the first: the last sets dk and dv of the keys that it sees (if no other head of the
 * group has) and the others add to them. */
static void head_backward(const bg_pass *p, head_place at, const sequence *z, bool add, float *s, float *dot)
{
    const float *qkv = z->qkv;
    float *dqkv = z->dqkv, *ds = s + (size_t)BG_ATTENTION_ROWS * p->max_rows;
    const bg_model_config *c = &p->model->config;
    size_t rows = z->rows, hd = c->d_head, w = p->w_qkv, ldo = c->n_heads * hd;
    size_t n_blocks = (rows + BG_ATTENTION_ROWS - 1) / BG_ATTENTION_ROWS;
    for (size_t block = n_blocks; block-- > 0; add = true) {
        const span b = span_at(&at, rows, block * BG_ATTENTION_ROWS);
        const float *d_o = z->datt + b.i0 * ldo + at.out;
        const bg_extent of_keys = { b.keys, hd, b.n };
        float keep = add ? 1.0f : 0.0f;
        if (!add)
            clear_keys(p, at, b.k0, dqkv);
        probabilities(p, &at, qkv, b, s);
        bg_group_dot(b.n, 1, hd, (bg_in){ d_o, ldo }, (bg_in){ z->att + b.i0 * p->ld_att + at.out, p->ld_att },
                     (bg_out){ dot, 1 });
        bg_gemm((bg_extent){ b.n, b.keys, hd }, 1.0f, bg_f32(BG_N, d_o, ldo), bg_f32(BG_T, qkv + b.k0 * w + at.v, w),
                0.0f, ds, b.keys);
        bg_gemm(of_keys, 1.0f, bg_f32(BG_T, s, b.keys), bg_f32(BG_N, d_o, ldo), keep, dqkv + b.k0 * w + at.v, w);
        bg_softmax_backward(b.n, b.keys, at.cap > 0 ? 1.0f : at.scale, s, dot, ds);
        times_cap_slope(p, &at, b, ds);
        bg_gemm((bg_extent){ b.n, hd, b.keys }, 1.0f, bg_f32(BG_N, ds, b.keys), bg_f32(BG_N, qkv + b.k0 * w + at.k, w),
                0.0f, dqkv + b.i0 * w + at.q, w);
        bg_gemm(of_keys, 1.0f, bg_f32(BG_T, ds, b.keys), bg_f32(BG_N, qkv + b.i0 * w + at.q, w), keep,
                dqkv + b.k0 * w + at.k, w);
    }
}

/* By the multiply-adds of the probabilities, as though nothing were masked: no product of a task is larger. */
static bool is_shared_out(const bg_model_config *c, const bg_batch *b)
{
    size_t products = 0;
    for (size_t z = 0; z < b->n_documents; z++) {
        size_t rows = b->document_start[z + 1] - b->document_start[z];
        products += rows * rows * c->n_heads * c->d_head;
    }
    return products > BG_PARALLEL_PRODUCTS;
}

/* Run task(document, key/value head) for all, shared out over threads. */
void bg_attention_forward(bg_pass *p, size_t block, const bg_batch *b, const float *qkv, float *att)
{
    const bg_model_config *c = &p->model->config;
    size_t tasks = b->n_documents * c->n_heads;
    bg_gemm_serial_begin();
#pragma omp parallel for schedule(dynamic) num_threads(p->threads) if (is_shared_out(c, b))
    for (size_t t = 0; t < tasks; t++) {
        size_t z = t / c->n_heads, r0 = b->document_start[z], rows = b->document_start[z + 1] - r0;
        float *s = p->score + (size_t)omp_get_thread_num() * p->score_floats;
        head_forward(p, place(c, block, t % c->n_heads), rows, qkv + r0 * p->w_qkv, att + r0 * p->ld_att, s);
    }
    bg_gemm_serial_end();
}

void bg_attention_tangent(bg_pass *p, size_t block, const bg_batch *b, const float *qkv, const float *tqkv, float *tatt)
{
    const bg_model_config *c = &p->model->config;
    size_t tasks = b->n_documents * c->n_heads, ldo = c->n_heads * c->d_head;
    bg_gemm_serial_begin();
#pragma omp parallel for schedule(dynamic) num_threads(p->threads) if (is_shared_out(c, b))
    for (size_t t = 0; t < tasks; t++) {
        size_t z = t / c->n_heads, r0 = b->document_start[z], rows = b->document_start[z + 1] - r0;
        float *s = p->score + (size_t)omp_get_thread_num() * p->score_floats;
        head_tangent(p, place(c, block, t % c->n_heads), rows, qkv + r0 * p->w_qkv, tqkv + r0 * p->w_qkv,
                     tatt + r0 * ldo, s);
    }
    bg_gemm_serial_end();
}

void bg_attention_backward(bg_pass *p, size_t block, const bg_batch *b, const float *qkv, const float *att,
                           const float *datt, float *dqkv)
{
    const bg_model_config *c = &p->model->config;
    size_t tasks = b->n_documents * c->n_kv_heads, group = c->n_heads / c->n_kv_heads, ldo = c->n_heads * c->d_head;
    bg_gemm_serial_begin();
#pragma omp parallel for schedule(dynamic) num_threads(p->threads) if (is_shared_out(c, b))
    for (size_t t = 0; t < tasks; t++) {
        size_t r0 = b->document_start[t / c->n_kv_heads], end = b->document_start[t / c->n_kv_heads + 1];
        sequence z = { end - r0, qkv + r0 * p->w_qkv, att + r0 * p->ld_att, datt + r0 * ldo, dqkv + r0 * p->w_qkv };
        int thread = omp_get_thread_num();
        float *s = p->score + (size_t)thread * p->score_floats;
        float *dot = p->attention_dot + (size_t)thread * BG_ATTENTION_ROWS;
        for (size_t g = 0; g < group; g++)
            head_backward(p, place(c, block, t % c->n_kv_heads * group + g), &z, g > 0, s, dot);
    }
    bg_gemm_serial_end();
}
