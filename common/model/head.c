/* Final norm, head, loss and their gradient, a chunk of rows at a time so that logits never take
 * more than their budget. */
#include <inttypes.h>
#include <math.h>
#include <omp.h>
#include <stdbool.h>
#include <string.h>

#include "bregman/gemm.h"
#include "bregman/rng.h"
#include "bregman/threads.h"
#include "pass_state.h"

/* out [n, vocab] = x [n, d] Wᵀ */
static void times_head(bg_pass *p, size_t n, const float *x, float *out)
{
    const bg_model_config *c = &p->model->config;
    const bg_site *head = bg_model_head(p->model);
    size_t step = bg_pass_weight_rows(p, head->weight);
    for (size_t v = 0; v < c->vocab_size; v += step) {
        size_t w = c->vocab_size - v < step ? c->vocab_size - v : step;
        bg_gemm((bg_extent){ n, w, c->d_model }, 1.0f, bg_f32(BG_N, x, c->d_model),
                bg_f32(BG_T, bg_pass_weight(p, head->weight, v, w), c->d_model), 0.0f, out + v, c->vocab_size);
    }
}

static void chunk_logits(bg_pass *p, size_t n)
{
    size_t v = p->model->config.vocab_size;
    const float *bias = bg_model_head(p->model)->bias;
    times_head(p, n, p->head_n, p->logits);
    if (bias != NULL)
        bg_add_bias(n, v, bias, (bg_out){ p->logits, v });
}

/* Logits of a row, within their cap if they have one; its slopes into this thread's p->cap_slope. */
static void cap_row(const bg_pass *p, float *logit)
{
    size_t v = p->model->config.vocab_size;
    if (p->cap_slope != NULL)
        bg_softcap(v, 1.0f, (float)p->model->config.logit_cap, logit, p->cap_slope + (size_t)omp_get_thread_num() * v);
}

static void times_cap_slope(const bg_pass *p, float *x)
{
    size_t v = p->model->config.vocab_size;
    if (p->cap_slope != NULL)
        bg_times(v, p->cap_slope + (size_t)omp_get_thread_num() * v, x);
}

/* head_n = dlogits W */
static void chunk_gradient(bg_pass *p, size_t n)
{
    const bg_model_config *c = &p->model->config;
    const bg_site *head = bg_model_head(p->model);
    size_t step = bg_pass_weight_rows(p, head->weight);
    for (size_t v = 0; v < c->vocab_size; v += step) {
        size_t w = c->vocab_size - v < step ? c->vocab_size - v : step;
        bg_gemm((bg_extent){ n, c->d_model, w }, 1.0f, bg_f32(BG_N, p->logits + v, c->vocab_size),
                bg_f32(BG_N, bg_pass_weight(p, head->weight, v, w), c->d_model), v == 0 ? 0.0f : 1.0f, p->head_n,
                c->d_model);
    }
}

/* head_n = norm(head_x) of n gathered rows */
static void chunk_norm(bg_pass *p, size_t n)
{
    const bg_model_config *c = &p->model->config;
    bg_norm_forward(bg_norm_of(p, &p->model->final_norm), n, c->d_model, (bg_in){ p->head_x, c->d_model },
                    (bg_out){ p->head_n, c->d_model });
}

void bg_head_logits(bg_pass *p, size_t n_rows, const float *x, float *logits)
{
    size_t d = p->model->config.d_model, v = p->model->config.vocab_size;
    for (size_t i = 0; i < n_rows; i += p->chunk_rows) {
        size_t n = n_rows - i < p->chunk_rows ? n_rows - i : p->chunk_rows;
        memcpy(p->head_x, x + i * d, n * d * sizeof *x);
        chunk_norm(p, n);
        chunk_logits(p, n);
        for (size_t j = 0; j < n; j++)
            cap_row(p, p->logits + j * v);
        memcpy(logits + i * v, p->logits, n * v * sizeof *logits);
    }
}

/* Index of the sequence that a row belongs to. */
static size_t sequence_of(const bg_batch *b, size_t row)
{
    size_t lo = 0, hi = b->n_sequences;
    while (hi - lo > 1) {
        size_t m = (lo + hi) / 2;
        if (b->row_start[m] <= row)
            lo = m;
        else
            hi = m;
    }
    return lo;
}

/* Logits of one row -> gradient of its loss, in place; returns the loss. */
static double row_loss(const bg_pass *p, const bg_batch *b, bg_labels labels, size_t row, float *logit)
{
    size_t v = p->model->config.vocab_size, label = b->target[row];
    cap_row(p, logit);
    double raw = (double)logit[label], lse = bg_softmax_row(v, logit);
    if (labels.sampled) {
        size_t z = sequence_of(b, row);
        double u = bg_uniform(labels.seed, b->sequence[z], (uint32_t)(row - b->row_start[z]));
        label = bg_sample_row(v, logit, u);
        double drawn = (double)logit[label];
        logit[label] -= 1.0f;
        return -log(drawn);
    }
    logit[label] -= 1.0f;
    return lse - raw;
}

/* The same times the row's weight. */
static double weighted_loss(const bg_pass *p, const bg_batch *b, bg_labels labels, size_t row, float *logit)
{
    size_t v = p->model->config.vocab_size;
    double loss = row_loss(p, b, labels, row, logit);
    for (size_t i = 0; i < v && b->weight[row] != 1; i++)
        logit[i] *= b->weight[row];
    return (double)b->weight[row] * loss;
}

/* Losses of a chunk's rows, and the gradient of their sum in place of the logits; returns the first row whose loss is
 * not finite, or SIZE_MAX. */
static size_t chunk_loss(const bg_backward *w, bg_labels labels, bg_rows_of_loss r, float *loss)
{
    const bg_pass *p = w->p;
    size_t bad = SIZE_MAX, v = p->model->config.vocab_size;
    const uint32_t *row = p->loss_row + r.first;
#pragma omp parallel for schedule(static) num_threads(p->threads) if (r.n * v > BG_PARALLEL_FLOATS)
    for (size_t i = 0; i < r.n; i++) {
        double l = weighted_loss(p, w->batch, labels, row[i], p->logits + i * v);
        times_cap_slope(p, p->logits + i * v);
        if (loss != NULL)
            loss[row[i]] = (float)l;
        if (!isfinite(l)) {
#pragma omp critical
            bad = row[i] < bad ? row[i] : bad;
        }
    }
    return bad;
}

/* A chunk's logits, and how they move -> how its rows' losses move, and H J V (math.md M13) in place of the logits;
 * returns the first row whose loss's tangent is not finite, or SIZE_MAX. */
static size_t chunk_tangent(const bg_backward *w, bg_rows_of_loss r)
{
    const bg_pass *p = w->p;
    const bg_head_tangent *t = w->tangent;
    size_t bad = SIZE_MAX, v = p->model->config.vocab_size;
    const uint32_t *row = p->loss_row + r.first;
#pragma omp parallel for schedule(static) num_threads(p->threads) if (r.n * v > BG_PARALLEL_FLOATS)
    for (size_t i = 0; i < r.n; i++) {
        float *prob = p->logits + i * v, *moves = t->logits + i * v;
        cap_row(p, prob);
        times_cap_slope(p, moves);
        double of_label = (double)moves[w->batch->target[row[i]]];
        (void)bg_softmax_row(v, prob);
        double loss = bg_softmax_tangent(v, 1.0f, prob, moves) - of_label;
        if (t->loss != NULL)
            t->loss[row[i]] = (float)loss;
        if (w->tap != NULL)
            memcpy(prob, moves, v * sizeof *prob);
        times_cap_slope(p, prob);
        if (!isfinite(loss)) {
#pragma omp critical
            bad = row[i] < bad ? row[i] : bad;
        }
    }
    return bad;
}

/* How the chunk's logits move: J V, into tangent->logits.  head_x and head_n hold the rows and their norm. */
static void chunk_logits_tangent(const bg_backward *w, bg_rows_of_loss r)
{
    bg_pass *p = w->p;
    const bg_head_tangent *t = w->tangent;
    size_t d = p->model->config.d_model, v = p->model->config.vocab_size;
    for (size_t i = 0; i < r.n; i++)
        memcpy(t->norm + i * d, t->x + p->loss_row[r.first + i] * d, d * sizeof *t->x);
    bg_norm_tangent(bg_norm_of(p, &p->model->final_norm), r.n, d, (bg_in){ p->head_x, d }, (bg_in){ t->norm, d },
                    (bg_out){ t->norm, d });
    times_head(p, r.n, t->norm, t->logits);
    bg_direction_apply(t->direction, bg_model_head(p->model), r.n, (bg_in){ p->a_head, p->ld_d }, t->product,
                       (bg_out){ t->logits, v });
}

/* The head's input as its tap and its direction have it, with the homogeneous 1. */
static void set_head_input(const bg_backward *w, size_t n)
{
    const bg_pass *p = w->p;
    size_t d = p->model->config.d_model;
    bool needed = bg_model_head(p->model)->tracked && (w->tap != NULL || w->tangent != NULL);
    for (size_t i = 0; i < n && needed; i++)
        memcpy(p->a_head + i * p->ld_d, p->head_n + i * d, d * sizeof *p->head_n);
}

static bg_status tap_head(const bg_backward *w, bg_rows_of_loss r)
{
    const bg_pass *p = w->p;
    if (w->tap == NULL || !bg_model_head(p->model)->tracked)
        return BG_OK;
    return bg_tap_loss_rows(w, bg_model_head(p->model), r, (bg_in){ p->a_head, p->ld_d },
                            (bg_in){ p->logits, p->model->config.vocab_size });
}

/* From the logits' gradient to that of x, in dx. */
static bg_status chunk_backward(const bg_backward *w, bg_rows_of_loss r, float *dx)
{
    bg_pass *p = w->p;
    const bg_norm_weights *norm = &p->model->final_norm;
    size_t d = p->model->config.d_model;
    bg_in x = { p->head_x, d }, dy = { p->head_n, d };
    chunk_gradient(p, r.n);
    bg_status st = bg_tap_loss_rows(w, norm->site, r, x, dy);
    bg_norm_backward(bg_norm_of(p, norm), r.n, d, x, dy, (bg_out){ p->head_n, d }, false);
    for (size_t i = 0; i < r.n; i++)
        memcpy(dx + p->loss_row[r.first + i] * d, p->head_n + i * d, d * sizeof *dx);
    return st;
}

bg_status bg_head_run(const bg_backward *w, bg_labels labels, const float *x, float *dx, float *loss)
{
    bg_pass *p = w->p;
    const bg_batch *b = w->batch;
    size_t d = p->model->config.d_model, bad = SIZE_MAX;
    bg_status st = BG_OK;
    if (dx != NULL)
        memset(dx, 0, b->n_rows * d * sizeof *dx);
    loss = w->tangent != NULL ? w->tangent->loss : loss;
    if (loss != NULL)
        memset(loss, 0, b->n_rows * sizeof *loss);
    for (size_t i0 = 0; i0 < p->n_loss_rows && st == BG_OK; i0 += p->chunk_rows) {
        const bg_rows_of_loss r = { i0, p->n_loss_rows - i0 < p->chunk_rows ? p->n_loss_rows - i0 : p->chunk_rows };
        for (size_t i = 0; i < r.n; i++)
            memcpy(p->head_x + i * d, x + p->loss_row[i0 + i] * d, d * sizeof *x);
        chunk_norm(p, r.n);
        set_head_input(w, r.n);
        if (w->tangent != NULL)
            chunk_logits_tangent(w, r);
        chunk_logits(p, r.n);
        bad = w->tangent != NULL ? chunk_tangent(w, r) : chunk_loss(w, labels, r, loss);
        if (bad != SIZE_MAX)
            return BG_FAIL(w->err, BG_ENUMERIC, "%s: the loss of sequence %" PRIu64 " at position %zu%s is not finite",
                           p->model->dir, b->sequence[sequence_of(b, bad)], bad - b->row_start[sequence_of(b, bad)],
                           w->tangent != NULL ? " or its change along the direction" : "");
        st = tap_head(w, r);
        if (st == BG_OK && dx != NULL)
            st = chunk_backward(w, r, dx);
    }
    return st;
}
