/* The pass itself: what a block computes, forward and backward, for every family by its options. */
#include "bregman/pass.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "pass_state.h"

static void copy_rows(size_t n, size_t d, const float *x, size_t ldx, float *y, size_t ldy)
{
    for (size_t i = 0; i < n; i++)
        memcpy(y + i * ldy, x + i * ldx, d * sizeof *x);
}

bg_saved *bg_pass_saved(const bg_pass *p, size_t block)
{
    size_t first = p->share.first, low = p->model->lowest_block > first ? p->model->lowest_block : first;
    bg_saved *of_slot = p->saved + p->slot * p->n_saved;
    if (block == p->share.end)
        return of_slot + p->n_saved - 1;
    return of_slot + (block < low ? 0 : block - low + (low > first));
}

size_t bg_qkv_offset(const bg_model_config *c, bg_role role)
{
    return role == BG_ROLE_K   ? c->n_heads * c->d_head
           : role == BG_ROLE_V ? (c->n_heads + c->n_kv_heads) * c->d_head
                               : 0;
}

/* Heads of q (which 0) or k (1) in a row of qkv, and the offset of the first. */
static bg_heads head_run(const bg_model_config *c, int which, size_t *offset)
{
    bool inter = c->qkv == BG_QKV_INTERLEAVED;
    *offset = which == 0 ? 0 : inter ? c->d_head : c->n_heads * c->d_head;
    return (bg_heads){ which == 0 ? c->n_heads : c->n_kv_heads, inter ? 3 * c->d_head : c->d_head };
}

void bg_pass_rotate(const bg_pass *p, size_t l, size_t rows, float *qkv, int direction)
{
    const bg_model_config *c = &p->model->config;
    const float *table = c->layer[l] & BG_LAYER_SLIDES ? p->sliding_rope : p->rope;
    for (int which = 0; which < 2 && bg_rotates(c, l); which++) {
        size_t offset;
        bg_heads heads = head_run(c, which, &offset);
        bg_rope_apply(rows, heads, c->rotary_dims, (bg_out){ qkv + offset, p->w_qkv }, p->position, table, direction);
    }
}

/* Where q, k and v are clipped, raw keeps q and k as they were; of v what was clipped is seen from what it became. */
static void clip_forward(const bg_pass *p, size_t rows, float *qkv, float *raw)
{
    const bg_model_config *c = &p->model->config;
    if (c->clip_qkv <= 0)
        return;
    copy_rows(rows, p->w_qk, qkv, p->w_qkv, raw, p->w_qk);
    bg_clip_forward(rows, p->w_qkv, (float)c->clip_qkv, (bg_out){ qkv, p->w_qkv });
}

void bg_clip_gradient(const bg_pass *p, size_t rows, const bg_saved *s, float *dqkv)
{
    const bg_model_config *c = &p->model->config;
    const float below = nextafterf((float)c->clip_qkv, 0);
    if (c->clip_qkv <= 0)
        return;
    bg_clip_backward(rows, p->w_qk, (float)c->clip_qkv, (bg_in){ s->qk_raw, p->w_qk }, (bg_out){ dqkv, p->w_qkv });
    bg_clip_backward(rows, p->w_qkv - p->w_qk, below, (bg_in){ s->qkv + p->w_qk, p->w_qkv },
                     (bg_out){ dqkv + p->w_qk, p->w_qkv });
}

bg_head_norm bg_head_norm_of(const bg_model_config *c, const bg_block *blk, int which)
{
    const bg_norm_weights *w = which == 0 ? &blk->q_norm : &blk->k_norm;
    bg_head_norm q = { .norm = { BG_NORM_RMS, c->norm_epsilon, w->gain, NULL }, .site = w->site, .d = c->d_head };
    bg_heads heads = head_run(c, which, &q.offset);
    q.n = heads.n;
    q.stride = heads.stride;
    if (c->qk_norm == BG_QK_NORM_FULL) {
        q.d = heads.n * c->d_head;
        q.n = 1;
    }
    return q;
}

/* raw keeps what they were. */
static void qk_norm_forward(const bg_pass *p, const bg_block *blk, size_t rows, float *qkv, float *raw)
{
    const bg_model_config *c = &p->model->config;
    if (c->qk_norm == BG_QK_NORM_NONE)
        return;
    copy_rows(rows, p->w_qk, qkv, p->w_qkv, raw, p->w_qk);
    for (int which = 0; which < 2; which++) {
        const bg_head_norm q = bg_head_norm_of(c, blk, which);
        for (size_t at = q.offset, h = 0; h < q.n; h++, at += q.stride)
            bg_norm_forward(q.norm, rows, q.d, (bg_in){ raw + at, p->w_qk }, (bg_out){ qkv + at, p->w_qkv });
    }
}

static bg_status qk_norm_backward(const bg_backward *w, const bg_block *blk, float *dqkv, const float *raw)
{
    const bg_pass *p = w->p;
    const bg_model_config *c = &p->model->config;
    size_t rows = w->batch->n_rows;
    bg_status st = BG_OK;
    for (int which = 0; which < 2 && c->qk_norm != BG_QK_NORM_NONE; which++) {
        const bg_head_norm q = bg_head_norm_of(c, blk, which);
        for (size_t at = q.offset, h = 0; h < q.n && st == BG_OK; h++, at += q.stride) {
            bg_in x = { raw + at, p->w_qk }, dy = { dqkv + at, p->w_qkv };
            st = bg_tap_site(w, q.site, x, dy);
            bg_norm_backward(q.norm, rows, q.d, x, dy, (bg_out){ dqkv + at, p->w_qkv }, false);
        }
    }
    return st;
}

void bg_module_input(const bg_pass *p, const bg_norm_weights *norm, size_t rows, const float *x)
{
    const bg_model_config *c = &p->model->config;
    if (norm->gain == NULL)
        copy_rows(rows, c->d_model, x, c->d_model, p->a_d, p->ld_d);
    else
        bg_norm_forward(bg_norm_of(p, norm), rows, c->d_model, (bg_in){ x, c->d_model }, (bg_out){ p->a_d, p->ld_d });
}

/* residual += norm?(module(a)); out_raw keeps the module's output where a norm follows it. */
static void add_output(bg_pass *p, const bg_site *site, const bg_norm_weights *norm, size_t rows, bg_in a,
                       float *out_raw, float *residual)
{
    size_t d = p->model->config.d_model;
    if (norm->gain == NULL) {
        bg_pass_linear(p, site, rows, a, (bg_out){ residual, d }, true);
        return;
    }
    bg_pass_linear(p, site, rows, a, (bg_out){ out_raw, d }, false);
    bg_norm_forward(bg_norm_of(p, norm), rows, d, (bg_in){ out_raw, d }, (bg_out){ p->da, d });
    bg_add(rows, d, (bg_in){ p->da, d }, (bg_out){ residual, d });
}

static void attention_inputs(bg_pass *p, size_t l, const bg_batch *b, bg_saved *s)
{
    const bg_model_config *c = &p->model->config;
    const bg_block *blk = &p->model->block[l];
    bg_module_input(p, &blk->attention_norm, b->n_rows, s->x);
    for (bg_role r = BG_ROLE_Q; r <= BG_ROLE_QKV; r++)
        if (blk->site[r] != NULL)
            bg_pass_linear(p, blk->site[r], b->n_rows, (bg_in){ p->a_d, p->ld_d },
                           (bg_out){ s->qkv + bg_qkv_offset(c, r), p->w_qkv }, false);
    qk_norm_forward(p, blk, b->n_rows, s->qkv, s->qk_raw);
    clip_forward(p, b->n_rows, s->qkv, s->qk_raw);
    bg_pass_rotate(p, l, b->n_rows, s->qkv, +1);
    bg_attention_forward(p, l, b, s->qkv, s->att);
}

void bg_mlp_hidden(const bg_pass *p, const bg_block *blk, size_t rows, const bg_saved *s)
{
    const bg_model_config *c = &p->model->config;
    if (c->activation == BG_ACT_XIELU)
        bg_xielu_forward(blk->xielu, rows, c->d_ff, (bg_in){ s->up, c->d_ff }, (bg_out){ p->a_ff, p->ld_ff });
    else if (c->gated)
        bg_gated_forward(c->activation, rows, c->d_ff, (bg_gated){ s->gate, s->up, c->d_ff },
                         (bg_out){ p->a_ff, p->ld_ff });
    else
        bg_act_forward(c->activation, rows, c->d_ff, (bg_in){ s->up, c->d_ff }, (bg_out){ p->a_ff, p->ld_ff });
}

void bg_mlp_slope(const bg_pass *p, const bg_block *blk, size_t rows, const float *up, const float *dy, float *dx)
{
    const bg_model_config *c = &p->model->config;
    const bg_in x = { up, c->d_ff }, from = { dy, c->d_ff };
    const bg_out to = { dx, c->d_ff };
    if (c->activation == BG_ACT_XIELU)
        bg_xielu_backward(blk->xielu, rows, c->d_ff, x, from, to);
    else
        bg_act_backward(c->activation, rows, c->d_ff, x, from, to);
}

static void mlp_inputs(bg_pass *p, const bg_block *blk, size_t rows, const float *x, bg_saved *s)
{
    size_t ff = p->model->config.d_ff;
    bg_module_input(p, &blk->mlp_norm, rows, x);
    if (blk->site[BG_ROLE_GATE] != NULL)
        bg_pass_linear(p, blk->site[BG_ROLE_GATE], rows, (bg_in){ p->a_d, p->ld_d }, (bg_out){ s->gate, ff }, false);
    bg_pass_linear(p, blk->site[BG_ROLE_UP], rows, (bg_in){ p->a_d, p->ld_d }, (bg_out){ s->up, ff }, false);
    bg_mlp_hidden(p, blk, rows, s);
}

/* Block l from its input s->x to the next block's; next may be s->x itself (nothing is kept then). */
static void block_forward(bg_pass *p, size_t l, const bg_batch *b, float *next)
{
    const bg_block *blk = &p->model->block[l];
    bg_saved *s = bg_pass_saved(p, l);
    size_t rows = b->n_rows, d = p->model->config.d_model;
    const bg_site *att = blk->site[BG_ROLE_ATTENTION_OUT], *down = blk->site[BG_ROLE_DOWN];
    attention_inputs(p, l, b, s);
    if (p->model->config.parallel_residual) {
        mlp_inputs(p, blk, rows, s->x, s);
        if (next != s->x)
            memcpy(next, s->x, rows * d * sizeof *next);
        bg_pass_linear(p, att, rows, (bg_in){ s->att, p->ld_att }, (bg_out){ next, d }, true);
        bg_pass_linear(p, down, rows, (bg_in){ p->a_ff, p->ld_ff }, (bg_out){ next, d }, true);
        return;
    }
    memcpy(s->mid, s->x, rows * d * sizeof *next);
    add_output(p, att, &blk->attention_out_norm, rows, (bg_in){ s->att, p->ld_att }, s->att_out, s->mid);
    if (blk->expert != NULL) {
        bg_module_input(p, &blk->mlp_norm, rows, s->mid);
        memcpy(next, s->mid, rows * d * sizeof *next);
        bg_experts_forward(p, blk, rows, s, next);
        return;
    }
    mlp_inputs(p, blk, rows, s->mid, s);
    memcpy(next, s->mid, rows * d * sizeof *next);
    add_output(p, down, &blk->mlp_out_norm, rows, (bg_in){ p->a_ff, p->ld_ff }, s->mlp_out, next);
}

/* ---- backward ---- */

/* Gradient at a module's output from that at the residual: through the norm after it, if any, into p->dmid. */
static bg_status output_gradient(const bg_backward *w, const bg_norm_weights *norm, const float *raw, const float *dx,
                                 const float **out)
{
    bg_pass *p = w->p;
    size_t rows = w->batch->n_rows, d = p->model->config.d_model;
    *out = dx;
    if (norm->gain == NULL)
        return BG_OK;
    bg_status st = bg_tap_site(w, norm->site, (bg_in){ raw, d }, (bg_in){ dx, d });
    bg_norm_backward(bg_norm_of(p, norm), rows, d, (bg_in){ raw, d }, (bg_in){ dx, d }, (bg_out){ p->dmid, d }, false);
    *out = p->dmid;
    return st;
}

/* dx += gradient through the norm before a module (or straight, if there is none) of p->da. */
static bg_status input_gradient(const bg_backward *w, const bg_norm_weights *norm, const float *x, float *dx)
{
    bg_pass *p = w->p;
    size_t rows = w->batch->n_rows, d = p->model->config.d_model;
    if (norm->gain == NULL) {
        bg_add(rows, d, (bg_in){ p->da, d }, (bg_out){ dx, d });
        return BG_OK;
    }
    bg_status st = bg_tap_site(w, norm->site, (bg_in){ x, d }, (bg_in){ p->da, d });
    bg_norm_backward(bg_norm_of(p, norm), rows, d, (bg_in){ x, d }, (bg_in){ p->da, d }, (bg_out){ dx, d }, true);
    return st;
}

/* Taps of the MLP, and da = gradient at its input, where that is needed.  dout: gradient at down's output. */
static bg_status mlp_backward(const bg_backward *w, size_t l, const float *x, const float *dout)
{
    bg_pass *p = w->p;
    const bg_model_config *c = &p->model->config;
    const bg_block *blk = &p->model->block[l];
    const bg_site *gate = blk->site[BG_ROLE_GATE], *up = blk->site[BG_ROLE_UP], *down = blk->site[BG_ROLE_DOWN];
    const bg_saved *s = bg_pass_saved(p, l);
    size_t rows = w->batch->n_rows, ff = c->d_ff, d = c->d_model;

    bg_mlp_hidden(p, blk, rows, s);
    bg_status st = bg_tap_site(w, down, (bg_in){ p->a_ff, p->ld_ff }, (bg_in){ dout, d });
    if (st != BG_OK || !bg_model_goes_deeper(p->model, down))
        return st;
    bg_pass_linear_back(p, down, rows, (bg_in){ dout, d }, (bg_out){ p->dff, ff }, false);
    if (c->gated)
        bg_gated_backward(c->activation, rows, ff, (bg_gated){ s->gate, s->up, ff }, (bg_in){ p->dff, ff },
                          (bg_out){ p->dgate, ff }, (bg_out){ p->dup, ff });
    else
        bg_mlp_slope(p, blk, rows, s->up, p->dff, p->dup);
    if (bg_site_reads_input(up) || bg_site_reads_input(gate))
        bg_module_input(p, &blk->mlp_norm, rows, x);
    if (gate != NULL)
        st = bg_tap_site(w, gate, (bg_in){ p->a_d, p->ld_d }, (bg_in){ p->dgate, ff });
    if (st == BG_OK)
        st = bg_tap_site(w, up, (bg_in){ p->a_d, p->ld_d }, (bg_in){ p->dup, ff });
    if (st != BG_OK || !bg_model_goes_deeper(p->model, bg_block_first_mlp(blk)))
        return st;
    bg_pass_linear_back(p, up, rows, (bg_in){ p->dup, ff }, (bg_out){ p->da, d }, false);
    if (gate != NULL)
        bg_pass_linear_back(p, gate, rows, (bg_in){ p->dgate, ff }, (bg_out){ p->da, d }, true);
    return BG_OK;
}

/* Taps of the attention modules, and da = gradient at their input, where that is needed.  dout: gradient at
 * attention_out's output. */
static bg_status attention_backward(const bg_backward *w, size_t l, const float *dout)
{
    bg_pass *p = w->p;
    const bg_model_config *c = &p->model->config;
    const bg_block *blk = &p->model->block[l];
    const bg_saved *s = bg_pass_saved(p, l);
    size_t rows = w->batch->n_rows, d = c->d_model, w_att = c->n_heads * c->d_head;
    bool tracked = false, first = true, go_on = bg_model_goes_deeper(p->model, bg_block_first_attention(blk));
    const bg_site *out = blk->site[BG_ROLE_ATTENTION_OUT];

    bg_status st = bg_tap_site(w, out, (bg_in){ s->att, p->ld_att }, (bg_in){ dout, d });
    if (st != BG_OK || !bg_model_goes_deeper(p->model, out))
        return st;
    bg_pass_linear_back(p, out, rows, (bg_in){ dout, d }, (bg_out){ p->datt, w_att }, false);
    bg_attention_backward(p, l, w->batch, s->qkv, s->att, p->datt, p->dqkv);
    bg_pass_rotate(p, l, rows, p->dqkv, -1);
    bg_clip_gradient(p, rows, s, p->dqkv);
    if ((st = qk_norm_backward(w, blk, p->dqkv, s->qk_raw)) != BG_OK)
        return st;
    for (bg_role r = BG_ROLE_Q; r <= BG_ROLE_QKV; r++)
        tracked = tracked || bg_site_reads_input(blk->site[r]);
    if (tracked)
        bg_module_input(p, &blk->attention_norm, rows, s->x);
    for (bg_role r = BG_ROLE_Q; r <= BG_ROLE_QKV && st == BG_OK; r++)
        st = bg_tap_site(w, blk->site[r], (bg_in){ p->a_d, p->ld_d },
                         (bg_in){ p->dqkv + bg_qkv_offset(c, r), p->w_qkv });
    for (bg_role r = BG_ROLE_Q; r <= BG_ROLE_QKV && st == BG_OK && go_on; r++) {
        if (blk->site[r] == NULL)
            continue;
        bg_pass_linear_back(p, blk->site[r], rows, (bg_in){ p->dqkv + bg_qkv_offset(c, r), p->w_qkv },
                            (bg_out){ p->da, d }, !first);
        first = false;
    }
    return st;
}

/* dx: on entry the gradient at the block's output, on return at its input. */
static bg_status block_backward(const bg_backward *w, size_t l, float *dx)
{
    bg_pass *p = w->p;
    const bg_model *m = p->model;
    const bg_block *blk = &m->block[l];
    const bg_saved *s = bg_pass_saved(p, l);
    size_t rows = w->batch->n_rows, d = m->config.d_model;
    bool parallel = m->config.parallel_residual;
    const float *mlp_x = parallel ? s->x : s->mid, *dout;

    bg_status st = output_gradient(w, &blk->mlp_out_norm, s->mlp_out, dx, &dout);
    if (st == BG_OK)
        st = blk->expert != NULL ? bg_experts_backward(w, l, mlp_x, dout) : mlp_backward(w, l, mlp_x, dout);
    if (st != BG_OK || !bg_model_goes_deeper(m, bg_block_first_mlp(blk)))
        return st;
    if (parallel) {
        /* both branches start from the same residual gradient: the MLP's part waits in dmid */
        memset(p->dmid, 0, rows * d * sizeof *dx);
        st = input_gradient(w, &blk->mlp_norm, mlp_x, p->dmid);
        dout = dx;
    } else {
        st = input_gradient(w, &blk->mlp_norm, mlp_x, dx);
        if (st == BG_OK)
            st = output_gradient(w, &blk->attention_out_norm, s->att_out, dx, &dout);
    }
    if (st == BG_OK)
        st = attention_backward(w, l, dout);
    if (st != BG_OK || !bg_model_goes_deeper(m, bg_block_first_attention(blk)))
        return st;
    st = input_gradient(w, &blk->attention_norm, s->x, dx);
    if (parallel)
        bg_add(rows, d, (bg_in){ p->dmid, d }, (bg_out){ dx, d });
    return st;
}

/* ---- the whole ---- */

bg_status bg_pass_set_rows(bg_pass *p, const bg_batch *b, bg_err *err)
{
    const bg_model_config *c = &p->model->config;
    assert(b->n_rows <= p->max_rows);
    p->n_loss_rows = 0;
    for (size_t z = 0; z < b->n_sequences; z++) {
        size_t rows = b->row_start[z + 1] - b->row_start[z], longest = 0;
        for (size_t i = 0; i < rows; i++) {
            size_t row = b->row_start[z] + i;
            p->position[row] = b->position[row];
            longest = b->position[row] >= longest ? b->position[row] + 1 : longest;
            if (i >= b->loss_start[z] && b->target[row] != BG_NO_TARGET)
                p->loss_row[p->n_loss_rows++] = (uint32_t)row;
        }
        if (longest > c->max_positions)
            return BG_FAIL(err, BG_EARG, "sequence %" PRIu64 " has %zu tokens%s, but %s takes %zu positions (%s)",
                           b->sequence[z], longest + 1, longest < rows ? " in a document" : "", p->model->dir,
                           c->max_positions, c->positions_key);
    }
    return BG_OK;
}

static void embed(bg_pass *p, const bg_batch *b, float *x)
{
    const bg_model *m = p->model;
    size_t d = m->config.d_model;
    for (size_t i = 0; i < b->n_rows; i++)
        bg_tensor_widen(bg_model_embedding(m)->weight, (size_t)b->input[i] * d, d, x + i * d);
    if (m->config.embedding_scale > 0)
        bg_scale(b->n_rows * d, (float)m->config.embedding_scale, x);
    bg_batch_clear_erased(b, d, x);
    for (size_t i = 0; i < b->n_rows && m->position_embedding != NULL; i++) {
        bg_tensor_widen(m->position_embedding, (size_t)p->position[i] * d, d, p->da);
        bg_add(1, d, (bg_in){ p->da, d }, (bg_out){ x + i * d, d });
    }
}

bg_status bg_pass_forward(bg_pass *p, size_t slot, const bg_batch *b, float *x, float **out, bg_err *err)
{
    p->slot = slot;
    bg_status st = bg_pass_set_rows(p, b, err);
    if (st != BG_OK)
        return st;
    bg_pass_set_ones(p, b->n_rows);
    if (p->share.embeds)
        embed(p, b, bg_pass_saved(p, p->share.first)->x);
    else
        bg_pass_saved(p, p->share.first)->x = x;
    for (size_t l = p->share.first; l < p->share.end; l++)
        block_forward(p, l, b, bg_pass_saved(p, l + 1)->x);
    *out = bg_pass_saved(p, p->share.end)->x;
    return BG_OK;
}

/* The first weight matrix that holds a NaN or infinity. */
static const bg_tensor *broken_of(const bg_tensors *tensors)
{
    float x[4096];
    for (size_t i = 0; i < bg_tensors_count(tensors); i++) {
        const bg_tensor *t = bg_tensors_at(tensors, i);
        bg_number type;
        if (!bg_tensor_number(t, &type))
            continue;
        size_t n = t->n_bytes / bg_number_bytes(type), step = sizeof x / sizeof x[0];
        for (size_t at = 0; at < n; at += step) {
            size_t w = n - at < step ? n - at : step;
            bg_tensor_widen(t, at, w, x);
            for (size_t j = 0; j < w; j++)
                if (!isfinite(x[j]))
                    return t;
        }
    }
    return NULL;
}

/* If that is why a loss is not finite. */
static const bg_tensor *broken_tensor(const bg_model *m)
{
    const bg_tensor *t = broken_of(m->tensors);
    return t == NULL && m->adapter != NULL ? broken_of(bg_adapter_tensors(m->adapter)) : t;
}

static bg_status head(const bg_backward *w, bg_labels labels, float *dx, float *loss)
{
    bg_pass *p = w->p;
    bg_err *err = w->err;
    bool goes_on = w->tap != NULL && bg_model_goes_deeper(p->model, bg_model_head(p->model));
    bg_status st = bg_head_run(w, labels, bg_pass_saved(p, p->share.end)->x, goes_on ? dx : NULL, loss);
    if (st == BG_ENUMERIC) {
        const bg_tensor *t = broken_tensor(p->model);
        if (t != NULL)
            return BG_FAIL(err, BG_ENUMERIC, "%s: tensor \"%s\" holds a NaN or infinity", t->file, t->name);
    }
    return st;
}

bg_status bg_share_backward(const bg_backward *w, size_t slot, bg_labels labels, float *dx, float *loss)
{
    bg_pass *p = w->p;
    p->slot = slot;
    bg_status st = bg_pass_set_rows(p, w->batch, w->err);
    if (st == BG_OK && p->share.has_head)
        st = head(w, labels, dx, loss);
    for (size_t l = p->share.end; l-- > p->share.first && l >= p->model->lowest_block && w->tap != NULL && st == BG_OK;)
        st = block_backward(w, l, dx);
    return st == BG_OK && w->tap != NULL ? bg_tap_embeddings(w, dx) : st;
}

bg_status bg_pass_backward(bg_pass *p, size_t slot, const bg_batch *batch, bg_labels labels, const bg_tap *tap_,
                           float *dx, bg_err *err)
{
    return bg_share_backward(&(bg_backward){ p, batch, tap_, err, NULL }, slot, labels, dx, p->loss);
}

bg_status bg_pass_run(bg_pass *p, const bg_batch *batch, bg_labels labels, const bg_tap *tap_, float *loss, bg_err *err)
{
    float *out;
    assert(p->share.embeds && p->share.has_head);
    if (batch->n_rows == 0)
        return BG_OK;
    bg_status st = bg_pass_forward(p, 0, batch, NULL, &out, err);
    return st == BG_OK ? bg_share_backward(&(bg_backward){ p, batch, tap_, err, NULL }, 0, labels, p->dx, loss) : st;
}

bg_status bg_pass_logits(bg_pass *p, const bg_batch *batch, float *logits, bg_err *err)
{
    float *out;
    bg_status st = bg_pass_forward(p, 0, batch, NULL, &out, err);
    if (st == BG_OK)
        bg_head_logits(p, batch->n_rows, out, logits);
    return st;
}
