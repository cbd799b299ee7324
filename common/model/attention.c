/* Causal attention in row blocks of BG_ATTENTION_ROWS queries: a block multiplies only the keys up to its
 * last row, and backward recomputes the probabilities instead of keeping T x T of them.  A task is
 * one key/value head of one document, so that no two tasks write the same gradient. */
#include <math.h>
#include <omp.h>
#include <stdbool.h>

#include "bregman/gemm.h"
#include "bregman/threads.h"
#include "pass_state.h"

typedef struct {
    size_t q, k, v; /* offsets in a row of qkv */
    size_t out;     /* offset in a row of att */
} head_place;

static head_place place(const bg_model_config *c, size_t h)
{
    size_t hd = c->d_head, kv = h / (c->n_heads / c->n_kv_heads);
    head_place at = { .out = h * hd };
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

/* Probabilities of query rows [i0, i0 + n) over keys [0, i0 + n): s [n, i0 + n]. */
static void probabilities(const bg_pass *p, const float *q, const float *k, size_t i0, size_t n, float *s)
{
    size_t hd = p->model->config.d_head, keys = i0 + n;
    bg_gemm((bg_extent){ n, keys, hd }, 1.0f, bg_f32(BG_N, q + i0 * p->w_qkv, p->w_qkv), bg_f32(BG_T, k, p->w_qkv),
            0.0f, s, keys);
    bg_softmax_causal(n, keys, i0, 1.0f / sqrtf((float)hd), (bg_out){ s, keys });
}

static void head_forward(const bg_pass *p, head_place at, size_t rows, const float *qkv, float *att, float *s)
{
    size_t hd = p->model->config.d_head;
    for (size_t i0 = 0; i0 < rows; i0 += BG_ATTENTION_ROWS) {
        size_t n = rows - i0 < BG_ATTENTION_ROWS ? rows - i0 : BG_ATTENTION_ROWS, keys = i0 + n;
        probabilities(p, qkv + at.q, qkv + at.k, i0, n, s);
        bg_gemm((bg_extent){ n, hd, keys }, 1.0f, bg_f32(BG_N, s, keys), bg_f32(BG_N, qkv + at.v, p->w_qkv), 0.0f,
                att + i0 * p->ld_att + at.out, p->ld_att);
    }
}

/* o = P v, so ȯ = Ṗ v + P v̇, and Ṡ = q̇ kᵀ + q k̇ᵀ; ds follows s. */
static void head_tangent(const bg_pass *p, head_place at, size_t rows, const float *qkv, const float *tqkv, float *tatt,
                         float *s)
{
    const bg_model_config *c = &p->model->config;
    size_t hd = c->d_head, w = p->w_qkv, ldo = c->n_heads * hd;
    float *ds = s + (size_t)BG_ATTENTION_ROWS * p->max_rows, scale = 1.0f / sqrtf((float)hd);
    for (size_t i0 = 0; i0 < rows; i0 += BG_ATTENTION_ROWS) {
        size_t n = rows - i0 < BG_ATTENTION_ROWS ? rows - i0 : BG_ATTENTION_ROWS, keys = i0 + n;
        float *out = tatt + i0 * ldo + at.out;
        probabilities(p, qkv + at.q, qkv + at.k, i0, n, s);
        bg_gemm((bg_extent){ n, keys, hd }, 1.0f, bg_f32(BG_N, tqkv + i0 * w + at.q, w), bg_f32(BG_T, qkv + at.k, w),
                0.0f, ds, keys);
        bg_gemm((bg_extent){ n, keys, hd }, 1.0f, bg_f32(BG_N, qkv + i0 * w + at.q, w), bg_f32(BG_T, tqkv + at.k, w),
                1.0f, ds, keys);
        for (size_t i = 0; i < n; i++)
            (void)bg_softmax_tangent(keys, scale, s + i * keys, ds + i * keys);
        bg_gemm((bg_extent){ n, hd, keys }, 1.0f, bg_f32(BG_N, ds, keys), bg_f32(BG_N, qkv + at.v, w), 0.0f, out, ldo);
        bg_gemm((bg_extent){ n, hd, keys }, 1.0f, bg_f32(BG_N, s, keys), bg_f32(BG_N, tqkv + at.v, w), 1.0f, out, ldo);
    }
}

/* Rows of one document: what its backward reads, and dqkv, what it writes. */
typedef struct {
    size_t rows;
    const float *qkv, *att, *datt;
    float *dqkv;
} sequence;

/* Rows from the last block to the first: the last sees all keys, so it sets dk and dv (if no other head of the group
 * has) and the others add to them. */
static void head_backward(const bg_pass *p, head_place at, const sequence *z, bool add, float *s, float *dot)
{
    const float *qkv = z->qkv;
    float *dqkv = z->dqkv;
    const bg_model_config *c = &p->model->config;
    size_t rows = z->rows, hd = c->d_head, w = p->w_qkv, ldo = c->n_heads * hd;
    float scale = 1.0f / sqrtf((float)hd);
    size_t n_blocks = (rows + BG_ATTENTION_ROWS - 1) / BG_ATTENTION_ROWS;
    for (size_t block = n_blocks; block-- > 0; add = true) {
        size_t i0 = block * BG_ATTENTION_ROWS, keys = i0 + BG_ATTENTION_ROWS < rows ? i0 + BG_ATTENTION_ROWS : rows;
        size_t n = keys - i0;
        const float *d_o = z->datt + i0 * ldo + at.out;
        float *ds = s + (size_t)BG_ATTENTION_ROWS * p->max_rows, keep = add ? 1.0f : 0.0f;
        probabilities(p, qkv + at.q, qkv + at.k, i0, n, s);
        bg_group_dot(n, 1, hd, (bg_in){ d_o, ldo }, (bg_in){ z->att + i0 * p->ld_att + at.out, p->ld_att },
                     (bg_out){ dot, 1 });
        bg_gemm((bg_extent){ n, keys, hd }, 1.0f, bg_f32(BG_N, d_o, ldo), bg_f32(BG_T, qkv + at.v, w), 0.0f, ds, keys);
        bg_gemm((bg_extent){ keys, hd, n }, 1.0f, bg_f32(BG_T, s, keys), bg_f32(BG_N, d_o, ldo), keep, dqkv + at.v, w);
        bg_softmax_backward(n, keys, scale, s, dot, ds);
        bg_gemm((bg_extent){ n, hd, keys }, 1.0f, bg_f32(BG_N, ds, keys), bg_f32(BG_N, qkv + at.k, w), 0.0f,
                dqkv + i0 * w + at.q, w);
        bg_gemm((bg_extent){ keys, hd, n }, 1.0f, bg_f32(BG_T, ds, keys), bg_f32(BG_N, qkv + i0 * w + at.q, w), keep,
                dqkv + at.k, w);
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
void bg_attention_forward(bg_pass *p, const bg_batch *b, const float *qkv, float *att)
{
    const bg_model_config *c = &p->model->config;
    size_t tasks = b->n_documents * c->n_heads;
    bg_gemm_serial_begin();
#pragma omp parallel for schedule(dynamic) num_threads(p->threads) if (is_shared_out(c, b))
    for (size_t t = 0; t < tasks; t++) {
        size_t z = t / c->n_heads, r0 = b->document_start[z], rows = b->document_start[z + 1] - r0;
        float *s = p->score + (size_t)omp_get_thread_num() * 2 * BG_ATTENTION_ROWS * p->max_rows;
        head_forward(p, place(c, t % c->n_heads), rows, qkv + r0 * p->w_qkv, att + r0 * p->ld_att, s);
    }
    bg_gemm_serial_end();
}

void bg_attention_tangent(bg_pass *p, const bg_batch *b, const float *qkv, const float *tqkv, float *tatt)
{
    const bg_model_config *c = &p->model->config;
    size_t tasks = b->n_documents * c->n_heads, ldo = c->n_heads * c->d_head;
    bg_gemm_serial_begin();
#pragma omp parallel for schedule(dynamic) num_threads(p->threads) if (is_shared_out(c, b))
    for (size_t t = 0; t < tasks; t++) {
        size_t z = t / c->n_heads, r0 = b->document_start[z], rows = b->document_start[z + 1] - r0;
        float *s = p->score + (size_t)omp_get_thread_num() * 2 * BG_ATTENTION_ROWS * p->max_rows;
        head_tangent(p, place(c, t % c->n_heads), rows, qkv + r0 * p->w_qkv, tqkv + r0 * p->w_qkv, tatt + r0 * ldo, s);
    }
    bg_gemm_serial_end();
}

void bg_attention_backward(bg_pass *p, const bg_batch *b, const float *qkv, const float *att, const float *datt,
                           float *dqkv)
{
    const bg_model_config *c = &p->model->config;
    size_t tasks = b->n_documents * c->n_kv_heads, group = c->n_heads / c->n_kv_heads, ldo = c->n_heads * c->d_head;
    bg_gemm_serial_begin();
#pragma omp parallel for schedule(dynamic) num_threads(p->threads) if (is_shared_out(c, b))
    for (size_t t = 0; t < tasks; t++) {
        size_t r0 = b->document_start[t / c->n_kv_heads], end = b->document_start[t / c->n_kv_heads + 1];
        sequence z = { end - r0, qkv + r0 * p->w_qkv, att + r0 * p->ld_att, datt + r0 * ldo, dqkv + r0 * p->w_qkv };
        int thread = omp_get_thread_num();
        float *s = p->score + (size_t)thread * 2 * BG_ATTENTION_ROWS * p->max_rows;
        float *dot = p->attention_dot + (size_t)thread * BG_ATTENTION_ROWS;
        for (size_t g = 0; g < group; g++)
            head_backward(p, place(c, t % c->n_kv_heads * group + g), &z, g > 0, s, dot);
    }
    bg_gemm_serial_end();
}
