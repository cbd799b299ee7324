/* tangent.c - the pass in forward mode: each function is the derivative of the one of that name in pass.c or head.c.
 *
 * A block's tangents lie where its gradients will: both have the same shapes, and never live at once.  The state that
 * the forward pass left is read, not changed. */
#include "bregman/tangent.h"

#include <string.h>

#include "bregman/memory.h"
#include "pass_state.h"

struct bg_tangent {
    bg_pass *pass;
    float *x;       /* 2 of [rows, d] and a trailer: of the residual stream */
    float *product; /* [rows, rank] */
    float *norm;    /* [chunk, d] */
    float *logits;  /* [chunk, vocab] */
};

/* Floats of each. */
typedef struct {
    size_t x, product, norm, logits;
} extent;

static size_t stream_floats(const bg_model *m, size_t max_rows)
{
    return (max_rows * m->config.d_model + BG_PASS_TRAILER + 15) / 16 * 16;
}

static extent extent_of(const bg_model *m, const bg_share *s, size_t max_rows, size_t chunk, size_t rank)
{
    size_t d = m->config.d_model;
    chunk = s->has_head ? chunk : 0;
    return (extent){ .x = 2 * stream_floats(m, max_rows),
                     .product = max_rows * rank,
                     .norm = chunk * d,
                     .logits = chunk * m->config.vocab_size };
}

size_t bg_tangent_bytes(const bg_model *m, const bg_share *s, size_t max_rows, size_t logits_bytes, size_t rank)
{
    extent e = extent_of(m, s, max_rows, bg_head_rows(m, logits_bytes, max_rows), rank);
    return (e.x + e.product + e.norm + e.logits) * sizeof(float);
}

bg_status bg_tangent_new(bg_tangent **out, bg_pass *p, size_t rank, bg_err *err)
{
    const extent e = extent_of(p->model, &p->share, p->max_rows, p->chunk_rows, rank);
    bg_tangent *t = NULL;
    *out = NULL;
    bg_status st = BG_NEW(t, 1, "tangents", err);
    if (st != BG_OK)
        return st;
    t->pass = p;
    const struct {
        float **to;
        size_t n;
    } array[] = { { &t->x, e.x }, { &t->product, e.product }, { &t->norm, e.norm }, { &t->logits, e.logits } };
    for (size_t i = 0; i < sizeof array / sizeof *array && st == BG_OK; i++)
        st = BG_NEW(*array[i].to, array[i].n, "tangents", err);
    if (st != BG_OK) {
        bg_tangent_free(t);
        return st;
    }
    *out = t;
    return BG_OK;
}

void bg_tangent_free(bg_tangent *t)
{
    if (t == NULL)
        return;
    bg_free(t->x);
    bg_free(t->product);
    bg_free(t->norm);
    bg_free(t->logits);
    bg_free(t);
}

float *bg_tangent_stream(const bg_tangent *t, int which)
{
    return t->x + (which == 0 ? 0 : stream_floats(t->pass->model, t->pass->max_rows));
}

/* ---- a module ---- */

/* Do the weights of a site move?  Of a site that is not there or not tracked they do not. */
static bool moves(const bg_along *w, const bg_site *site)
{
    return site != NULL && site->tracked && w->direction[site->index].left != NULL;
}

/* Those of a site's own, or of its adapter. */
static bool any_moves(const bg_along *w, const bg_site *site)
{
    return moves(w, site) || (site != NULL && (moves(w, site->lora_a) || moves(w, site->lora_b)));
}

/* ty += V_B h + s B V_A a, of an adapter that moves. */
static void adapter(const bg_tangent *t, const bg_along *w, const bg_site *site, bg_in a, bg_out ty)
{
    bg_pass *p = t->pass;
    const bg_site *of_a = site->lora_a, *of_b = site->lora_b;
    size_t rows = w->batch->n_rows, r = of_a->n_out;
    if (moves(w, of_b)) {
        bg_pass_lora_hidden(p, site, rows, a);
        bg_direction_apply(&w->direction[of_b->index], of_b, rows, (bg_in){ p->lora, r }, t->product, ty);
    }
    if (moves(w, of_a)) {
        memset(p->lora, 0, rows * r * sizeof *p->lora);
        bg_direction_apply(&w->direction[of_a->index], of_a, rows, a, t->product, (bg_out){ p->lora, r });
        for (size_t i = 0; i < rows * r; i++)
            p->lora[i] *= site->lora_scale;
        bg_pass_lora_output(p, site, rows, ty);
    }
}

/* ty = (accumulate ? ty : 0) + ta Wᵀ + ā Vᵀ; a is read only where the weights move. */
static void linear(const bg_tangent *t, const bg_along *w, const bg_site *site, bg_in a, bg_in ta, bg_out ty,
                   bool accumulate)
{
    size_t rows = w->batch->n_rows;
    bg_pass_times(t->pass, site, rows, ta, ty, accumulate);
    if (moves(w, site))
        bg_direction_apply(&w->direction[site->index], site, rows, a, t->product, ty);
    if (site->lora_a != NULL)
        adapter(t, w, site, a, ty);
}

/* ---- a block ---- */

/* The tangent of the modules' input, into p->da; and the input itself, into p->a_d, if it is needed. */
static void module_input(const bg_tangent *t, const bg_norm_weights *norm, size_t rows, const float *x, const float *tx,
                         bool needed)
{
    bg_pass *p = t->pass;
    size_t d = p->model->config.d_model;
    if (norm->gain == NULL)
        memcpy(p->da, tx, rows * d * sizeof *tx);
    else
        bg_norm_tangent(bg_norm_of(p, norm), rows, d, (bg_in){ x, d }, (bg_in){ tx, d }, (bg_out){ p->da, d });
    if (needed)
        bg_module_input(p, norm, rows, x);
}

static void qk_norm(const bg_pass *p, const bg_block *blk, size_t rows, const float *raw, float *tqkv)
{
    const bg_model_config *c = &p->model->config;
    for (int which = 0; which < 2 && c->qk_norm != BG_QK_NORM_NONE; which++) {
        const bg_head_norm q = bg_head_norm_of(c, blk, which);
        for (size_t at = q.offset, h = 0; h < q.n; h++, at += q.stride)
            bg_norm_tangent(q.norm, rows, q.d, (bg_in){ raw + at, p->w_qk }, (bg_in){ tqkv + at, p->w_qkv },
                            (bg_out){ tqkv + at, p->w_qkv });
    }
}

/* From the block's input to the heads' outputs, into p->datt. */
static void attention(const bg_tangent *t, const bg_along *w, size_t l, const float *tx)
{
    bg_pass *p = t->pass;
    const bg_block *blk = &p->model->block[l];
    const bg_saved *s = bg_pass_saved(p, l);
    size_t rows = w->batch->n_rows, d = p->model->config.d_model;
    bool needed = false;
    for (bg_role r = BG_ROLE_Q; r <= BG_ROLE_QKV; r++)
        needed = needed || any_moves(w, blk->site[r]);
    module_input(t, &blk->attention_norm, rows, s->x, tx, needed);
    for (bg_role r = BG_ROLE_Q; r <= BG_ROLE_QKV; r++)
        if (blk->site[r] != NULL)
            linear(t, w, blk->site[r], (bg_in){ p->a_d, p->ld_d }, (bg_in){ p->da, d },
                   (bg_out){ p->dqkv + bg_qkv_offset(&p->model->config, r), p->w_qkv }, false);
    qk_norm(p, blk, rows, s->qk_raw, p->dqkv);
    bg_clip_gradient(p, rows, s, p->dqkv);
    bg_pass_rotate(p, l, rows, p->dqkv, +1);
    bg_attention_tangent(p, l, w->batch, s->qkv, p->dqkv, p->datt);
}

/* From the MLP's input x to its hidden activations, into p->dff. */
static void mlp(const bg_tangent *t, const bg_along *w, size_t l, const float *x, const float *tx)
{
    bg_pass *p = t->pass;
    const bg_model_config *c = &p->model->config;
    const bg_block *blk = &p->model->block[l];
    const bg_site *gate = blk->site[BG_ROLE_GATE], *up = blk->site[BG_ROLE_UP];
    const bg_saved *s = bg_pass_saved(p, l);
    size_t rows = w->batch->n_rows, ff = c->d_ff;
    const bg_in a = { p->a_d, p->ld_d }, ta = { p->da, c->d_model };
    module_input(t, &blk->mlp_norm, rows, x, tx, any_moves(w, gate) || any_moves(w, up));
    if (gate != NULL)
        linear(t, w, gate, a, ta, (bg_out){ p->dgate, ff }, false);
    linear(t, w, up, a, ta, (bg_out){ p->dup, ff }, false);
    if (c->gated)
        bg_gated_tangent(c->activation, rows, ff, (bg_gated){ s->gate, s->up, ff }, (bg_gated){ p->dgate, p->dup, ff },
                         (bg_out){ p->dff, ff });
    else
        bg_mlp_slope(p, blk, rows, s->up, p->dup, p->dff);
    if (any_moves(w, blk->site[BG_ROLE_DOWN]))
        bg_mlp_hidden(p, blk, rows, s);
}

/* What a module adds to the residual stream, added to p->dmid or put there; raw: its output before the norm that
 * follows it, if one does. */
static void output(const bg_tangent *t, const bg_along *w, const bg_site *site, const bg_norm_weights *norm,
                   const float *raw, bool accumulate)
{
    bg_pass *p = t->pass;
    const bg_model_config *c = &p->model->config;
    size_t d = c->d_model;
    bool down = site->role == BG_ROLE_DOWN;
    const bg_in ta = down ? (bg_in){ p->dff, c->d_ff } : (bg_in){ p->datt, c->n_heads * c->d_head };
    const bg_in a = down ? (bg_in){ p->a_ff, p->ld_ff } : (bg_in){ bg_pass_saved(p, site->section)->att, p->ld_att };
    linear(t, w, site, a, ta, (bg_out){ p->dmid, d }, accumulate);
    if (norm->gain != NULL)
        bg_norm_tangent(bg_norm_of(p, norm), w->batch->n_rows, d, (bg_in){ raw, d }, (bg_in){ p->dmid, d },
                        (bg_out){ p->dmid, d });
}

/* tx: on entry the tangent of the block's input, on return of its output. */
static void block(const bg_tangent *t, const bg_along *w, size_t l, float *tx)
{
    bg_pass *p = t->pass;
    const bg_block *blk = &p->model->block[l];
    const bg_saved *s = bg_pass_saved(p, l);
    size_t rows = w->batch->n_rows, d = p->model->config.d_model;
    bool parallel = p->model->config.parallel_residual; /* both branches start from the same input */
    attention(t, w, l, tx);
    output(t, w, blk->site[BG_ROLE_ATTENTION_OUT], &blk->attention_out_norm, s->att_out, false);
    if (!parallel)
        bg_add(rows, d, (bg_in){ p->dmid, d }, (bg_out){ tx, d });
    if (blk->expert != NULL) {
        module_input(t, &blk->mlp_norm, rows, s->mid, tx, true);
        bg_experts_tangent(p, blk, rows, w->direction, t->product);
    } else {
        mlp(t, w, l, parallel ? s->x : s->mid, tx);
        output(t, w, blk->site[BG_ROLE_DOWN], &blk->mlp_out_norm, s->mlp_out, parallel);
    }
    bg_add(rows, d, (bg_in){ p->dmid, d }, (bg_out){ tx, d });
}

/* ---- the whole ---- */

/* Of one-hot inputs ā Vᵀ is a column of V. */
static void embed(const bg_tangent *t, const bg_along *w, float *tx)
{
    const bg_model *m = t->pass->model;
    const bg_site *site = bg_model_embedding(m);
    size_t d = m->config.d_model;
    memset(tx, 0, w->batch->n_rows * d * sizeof *tx);
    if (!moves(w, site))
        return;
    const bg_direction *v = &w->direction[site->index];
    for (size_t i = 0; i < w->batch->n_rows; i++) {
        size_t token = w->batch->input[i];
        for (size_t j = 0; j < d; j++) {
            const float *left = v->left + j * v->ld_left;
            if (v->rank == 0)
                tx[i * d + j] = left[token];
            for (size_t k = 0; k < v->rank; k++)
                tx[i * d + j] += left[k] * v->right[token * v->ld_right + k];
        }
    }
    if (m->config.embedding_scale > 0)
        bg_scale(w->batch->n_rows * d, (float)m->config.embedding_scale, tx);
    bg_batch_clear_erased(w->batch, d, tx);
}

/* What moves nothing is passed over: below the lowest tracked block the stream stands still. */
bg_status bg_tangent_forward(bg_tangent *t, const bg_along *w, float *x, bg_err *err)
{
    bg_pass *p = t->pass;
    size_t first = p->share.first > p->model->lowest_block ? p->share.first : p->model->lowest_block;
    p->slot = w->slot;
    bg_status st = bg_pass_set_rows(p, w->batch, err);
    if (st != BG_OK)
        return st;
    x = x != NULL ? x : t->x;
    if (p->share.embeds)
        embed(t, w, x);
    for (size_t l = first; l < p->share.end; l++)
        block(t, w, l, x);
    return BG_OK;
}

static bg_head_tangent at_head(const bg_tangent *t, const bg_along *w, const float *x, float *loss)
{
    static const bg_direction none;
    const bg_site *head = bg_model_head(t->pass->model);
    return (bg_head_tangent){ .direction = head->tracked ? &w->direction[head->index] : &none,
                              .x = x != NULL ? x : t->x,
                              .norm = t->norm,
                              .logits = t->logits,
                              .product = t->product,
                              .loss = loss };
}

bg_status bg_tangent_loss(bg_tangent *t, const bg_along *w, const float *x, float *loss, bg_err *err)
{
    const bg_head_tangent head = at_head(t, w, x, loss);
    return bg_share_backward(&(bg_backward){ t->pass, w->batch, NULL, err, &head }, w->slot, (bg_labels){ 0 }, NULL,
                             NULL);
}

bg_status bg_tangent_gauss_newton(bg_tangent *t, const bg_along *w, const float *x, const bg_tap *tap, float *gradient,
                                  float *loss, bg_err *err)
{
    const bg_head_tangent head = at_head(t, w, x, loss);
    gradient = gradient != NULL ? gradient : t->pass->dx;
    return bg_share_backward(&(bg_backward){ t->pass, w->batch, tap, err, &head }, w->slot, (bg_labels){ 0 }, gradient,
                             NULL);
}
