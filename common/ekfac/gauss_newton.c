#include "bregman/gauss_newton.h"

#include <string.h>

#include "bregman/memory.h"
#include "bregman/stop.h"

struct bg_gauss_newton {
    const bg_model *model;
    bg_pass *pass;
    bg_tangent *tangent;
    bg_batch *const *batch; /* [n_batches] */
    size_t n_batches, n_sequences;
    bg_direction *direction; /* [n_tracked] */
    float *sum;              /* the vector that the tap adds to */
};

size_t bg_vector_offset(const bg_model *m, const bg_site *site)
{
    size_t at = 0;
    for (size_t i = 0; i < site->index; i++)
        at += m->tracked[i]->n_out * m->tracked[i]->n_in1;
    return at;
}

size_t bg_vector_floats(const bg_model *m)
{
    const bg_site *last = m->tracked[m->n_tracked - 1];
    return bg_vector_offset(m, last) + last->n_out * last->n_in1;
}

size_t bg_gauss_newton_bytes(const bg_model *m, size_t max_rows)
{
    const bg_share whole = bg_model_whole(m);
    return bg_tangent_bytes(m, &whole, max_rows, BG_LOGITS_BYTES, 0) + m->n_tracked * sizeof(bg_direction);
}

bg_status bg_gauss_newton_new(bg_gauss_newton **out, const bg_model *model, bg_pass *pass, bg_batch *const *batch,
                              size_t n_batches, bg_err *err)
{
    bg_gauss_newton *g = NULL;
    *out = NULL;
    bg_status st = BG_NEW(g, 1, "Gauss-Newton products", err);
    if (st != BG_OK)
        return st;
    *g = (bg_gauss_newton){ .model = model, .pass = pass, .batch = batch, .n_batches = n_batches };
    for (size_t b = 0; b < n_batches; b++)
        g->n_sequences += batch[b]->n_sequences;
    st = bg_tangent_new(&g->tangent, pass, 0, err);
    if (st == BG_OK)
        st = BG_NEW(g->direction, model->n_tracked, "Gauss-Newton products", err);
    if (st != BG_OK) {
        bg_gauss_newton_free(g);
        return st;
    }
    *out = g;
    return BG_OK;
}

void bg_gauss_newton_free(bg_gauss_newton *g)
{
    if (g == NULL)
        return;
    bg_free(g->direction);
    bg_tangent_free(g->tangent);
    bg_free(g);
}

/* The head's gradient at its input, a vector's pass back through the blocks, and gradients of the tracked weights. */
static void back_cost(bg_cost *cost, const bg_model *m, const bg_share *body, const bg_batch_shape *b)
{
    double rows = (double)(b->sequences * b->rows);
    const bg_site *head = bg_model_head(m);
    bg_batch_shape forward = *b;
    bg_cost both = { 0 }, once = { 0 };
    forward.forward = true;
    bg_pass_cost(&both, m, body, b);
    bg_pass_cost(&once, m, body, &forward);
    bg_cost_add(cost, &both, 1);
    bg_cost_add(cost, &once, -1);
    if (bg_model_goes_deeper(m, head))
        bg_cost_product(cost, rows, (double)head->n_in, (double)head->n_out, 1);
    for (size_t i = 0; i < m->n_tracked; i++)
        bg_pair_gradient_cost(cost, m->tracked[i], bg_model_site_rows(m, m->tracked[i], rows), 1);
}

void bg_gauss_newton_cost(bg_cost *cost, const bg_model *m, const bg_batch_shape *b, double n)
{
    const bg_share whole = bg_model_whole(m);
    bg_share body = whole;
    bg_batch_shape forward = *b;
    bg_cost each = { 0 };
    body.has_head = false; /* its logits are computed once for each vector */
    forward.forward = true;
    bg_pass_cost(cost, m, &body, &forward);
    bg_tangent_cost(&each, m, &whole, b, 0);
    back_cost(&each, m, &body, b);
    bg_cost_add(cost, &each, n);
}

/* ---- products ---- */

static bg_status add_pair(void *self, const bg_pair *pair, bg_err *err)
{
    bg_gauss_newton *g = self;
    (void)err;
    bg_pair_add_gradient(pair, 0, pair->n_rows, g->sum + bg_vector_offset(g->model, pair->site));
    return BG_OK;
}

static void set_direction(bg_gauss_newton *g, const float *v)
{
    for (size_t i = 0; i < g->model->n_tracked; i++) {
        const bg_site *site = g->model->tracked[i];
        g->direction[i] = (bg_direction){ .left = v, .ld_left = site->n_in1 };
        v += site->n_out * site->n_in1;
    }
}

static bg_status add_batch(bg_gauss_newton *g, const bg_batch *batch, const float *v, float *sum, bg_err *err)
{
    const bg_along along = { 0, batch, g->direction };
    const bg_tap tap = { add_pair, g, BG_WANTS_MAPS };
    bg_status st = bg_stop_check("products with the Gauss-Newton matrix", err);
    if (st != BG_OK)
        return st;
    g->sum = sum;
    set_direction(g, v);
    st = bg_tangent_forward(g->tangent, &along, NULL, err);
    return st == BG_OK ? bg_tangent_gauss_newton(g->tangent, &along, NULL, &tap, NULL, NULL, err) : st;
}

bg_status bg_gauss_newton_product(bg_gauss_newton *g, size_t n, float *const *v, float *const *out, bg_err *err)
{
    size_t floats = bg_vector_floats(g->model);
    float scale = 1.0f / (float)g->n_sequences, *ignored;
    bg_status st = BG_OK;
    for (size_t i = 0; i < n; i++)
        memset(out[i], 0, floats * sizeof *out[i]);
    for (size_t b = 0; b < g->n_batches && st == BG_OK; b++) {
        st = bg_pass_forward(g->pass, 0, g->batch[b], NULL, &ignored, err);
        for (size_t i = 0; i < n && st == BG_OK; i++)
            st = add_batch(g, g->batch[b], v[i], out[i], err);
    }
    for (size_t i = 0; i < n && st == BG_OK; i++)
        for (size_t j = 0; j < floats; j++)
            out[i][j] *= scale;
    return st;
}
