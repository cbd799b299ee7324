/* pass_cost.c - what a pass computes for a micro-batch: the calls of pass.c, attention.c and head.c, in the same
 * shapes. */
#include <omp.h>

#include "bregman/tangent.h"
#include "pass_state.h"

/* What is the same for all blocks. */
typedef struct {
    bg_cost *cost;
    const bg_model *model;
    const bg_batch_shape *batch;
    double rows, w_qk;
} walk;

static walk walk_of(bg_cost *cost, const bg_model *m, const bg_batch_shape *b)
{
    const bg_model_config *c = &m->config;
    return (walk){ .cost = cost,
                   .model = m,
                   .batch = b,
                   .rows = (double)(b->sequences * b->rows),
                   .w_qk = (double)((c->n_heads + c->n_kv_heads) * c->d_head) };
}

static void elements(const walk *w, double of_a_row) { w->cost->of[BG_COST_ELEMENT] += w->rows * of_a_row; }

static void activations(const walk *w, const bg_block *b, double times)
{
    const bg_model_config *c = &w->model->config;
    size_t hidden = b->expert != NULL ? c->experts_per_token * c->d_expert : c->d_ff;
    w->cost->of[BG_COST_ACTIVATION] += times * w->rows * (double)hidden;
}

/* One product with a matrix of an adapter, from its inputs to its outputs or back. */
static void lora(const walk *w, const bg_site *site, bool back)
{
    double n_out = (double)site->n_out, n_in = (double)site->n_in;
    if (site->weight->dtype != BG_ST_F32)
        w->cost->of[BG_COST_WIDENED] += n_out * n_in;
    bg_cost_product(w->cost, w->rows, back ? n_in : n_out, back ? n_out : n_in, 1);
}

/* What the pairs of an adapter take beside the pass. */
static void lora_pairs(const walk *w, const bg_site *site)
{
    if (site == NULL || site->lora_a == NULL)
        return;
    if (site->lora_b->tracked)
        lora(w, site->lora_a, false);
    if (site->lora_a->tracked)
        lora(w, site->lora_b, true);
}

static void linear(const walk *w, const bg_site *site, bool back)
{
    if (site->lora_a != NULL) {
        lora(w, site->lora_a, back);
        lora(w, site->lora_b, back);
    }
    double n_out = (double)site->n_out, n_in = (double)site->n_in;
    if (site->weight->dtype != BG_ST_F32)
        w->cost->of[BG_COST_WIDENED] += n_out * n_in;
    bg_cost_product(w->cost, bg_model_site_rows(w->model, site, w->rows), back ? n_in : n_out, back ? n_out : n_in, 1);
    if (!back && site->bias != NULL)
        elements(w, 2 * n_out);
}

/* A block's attention. */
typedef struct {
    size_t block;
    double products, pair_passes; /* small products, and passes over the pairs, of each BG_ATTENTION_ROWS rows */
    size_t heads_at_once;
} attention_work;

/* Of all heads. */
static void attention(const walk *w, attention_work of)
{
    const bg_model_config *c = &w->model->config;
    size_t rows = w->batch->rows, window = bg_window_of(c, of.block);
    double pairs = 0, heads = (double)c->n_heads * (double)w->batch->sequences;
    for (size_t i = 0; i < rows; i += BG_ATTENTION_ROWS) {
        size_t n = rows - i < BG_ATTENTION_ROWS ? rows - i : BG_ATTENTION_ROWS;
        pairs += (double)n * (double)(i + n - (i < window ? 0 : i - window + 1));
    }
    double flops = of.products * 2 * pairs * (double)c->d_head * heads;
    /* threads take whole tasks: some have none at the end */
    size_t tasks = w->batch->sequences * of.heads_at_once, threads = (size_t)omp_get_max_threads();
    double uneven = (double)((tasks + threads - 1) / threads * threads) / (double)tasks;
    w->cost->flops += flops;
    w->cost->of[BG_COST_ATTENTION_FLOP] += uneven * flops;
    w->cost->of[BG_COST_ATTENTION_PAIR] += uneven * pairs * heads * (of.pair_passes + (c->attention_cap > 0));
}

static double rotated(const walk *w, size_t l) { return bg_rotates(&w->model->config, l) ? 2 * w->w_qk : 0; }

/* Products of all experts from one role to another, and `times` times rows of them gathered or added up.  The router's
 * softmax is that of a logit, and the choice goes through its row once for each of the chosen. */
static void experts(const walk *w, const bg_block *b, const bg_role range[2], bool back, double times)
{
    const bg_model_config *c = &w->model->config;
    double e = (double)c->n_experts, k = (double)c->experts_per_token;
    for (size_t i = 0; i < c->n_experts; i++)
        for (bg_role r = range[0]; r <= range[1]; r++)
            linear(w, bg_block_expert(b, i, r), back);
    w->cost->of[BG_COST_LOGIT] += w->rows * e;
    w->cost->of[BG_COST_SERIAL] += back ? 0 : w->rows * e * k;
    elements(w, times * k * (double)c->d_model);
}

static void block_forward(const walk *w, size_t l)
{
    const bg_block *b = &w->model->block[l];
    const bg_model_config *c = &w->model->config;
    double d = (double)c->d_model;
    for (bg_role r = 0; r < BG_ROLES; r++)
        if (b->site[r] != NULL)
            linear(w, b->site[r], false);
    if (b->expert != NULL)
        experts(w, b, (bg_role[]){ BG_ROLE_GATE, BG_ROLE_DOWN }, false, 5);
    attention(w, (attention_work){ l, 2, 1, c->n_heads });
    activations(w, b, 1);
    elements(w, 10 * d + rotated(w, l) + (c->qk_norm == BG_QK_NORM_NONE ? 0 : 5 * w->w_qk) +
                    (bg_norms_outputs(c) ? 6 * d : 0));
}

/* Does backward go on below the MLP? */
static bool mlp_backward(const walk *w, const bg_block *b)
{
    const bg_model *m = w->model;
    if (!bg_model_goes_deeper(m, b->site[BG_ROLE_DOWN]))
        return false;
    linear(w, b->site[BG_ROLE_DOWN], true);
    activations(w, b, 2);
    elements(w, 3 * (double)m->config.d_model);
    if (!bg_model_goes_deeper(m, bg_block_first_mlp(b)))
        return false;
    linear(w, b->site[BG_ROLE_UP], true);
    if (b->site[BG_ROLE_GATE] != NULL)
        linear(w, b->site[BG_ROLE_GATE], true);
    return true;
}

/* The same.  How deep it goes into each expert is experts.c's to say. */
static bool experts_backward(const walk *w, const bg_block *b)
{
    const bg_model *m = w->model;
    bool on = bg_model_goes_deeper(m, bg_block_first_mlp(b)), routed = on || b->site[BG_ROLE_ROUTER]->tracked;
    for (size_t i = 0; i < m->config.n_experts; i++)
        if (routed || bg_block_expert(b, i, BG_ROLE_GATE)->tracked || bg_block_expert(b, i, BG_ROLE_UP)->tracked)
            linear(w, bg_block_expert(b, i, BG_ROLE_DOWN), true);
    activations(w, b, 2);
    if (!on)
        return false;
    experts(w, b, (bg_role[]){ BG_ROLE_GATE, BG_ROLE_UP }, true, 8);
    linear(w, b->site[BG_ROLE_ROUTER], true);
    return true;
}

static void block_backward(const walk *w, size_t l)
{
    const bg_model *m = w->model;
    const bg_block *b = &m->block[l];
    double d = (double)m->config.d_model;
    for (bg_role r = 0; r < BG_ROLES; r++)
        lora_pairs(w, b->site[r]);
    if (!(b->expert != NULL ? experts_backward(w, b) : mlp_backward(w, b)))
        return;
    if (!bg_model_goes_deeper(m, b->site[BG_ROLE_ATTENTION_OUT]))
        return;
    linear(w, b->site[BG_ROLE_ATTENTION_OUT], true);
    attention(w, (attention_work){ l, 5, 2, m->config.n_kv_heads });
    elements(w, 9 * d + rotated(w, l));
    if (!bg_model_goes_deeper(m, bg_block_first_attention(b)))
        return;
    for (bg_role r = BG_ROLE_Q; r <= BG_ROLE_QKV; r++)
        if (b->site[r] != NULL)
            linear(w, b->site[r], true);
    elements(w, 6 * d);
}

/* Final norm, logits, loss and gradient, a chunk of rows at a time. */
static void head(const walk *w)
{
    const bg_tensor *t = bg_model_head(w->model)->weight;
    double d = (double)w->model->config.d_model, v = (double)w->model->config.vocab_size;
    size_t rows = w->batch->sequences * w->batch->loss_rows;
    size_t chunk = bg_head_rows(w->model, BG_LOGITS_BYTES, w->batch->max_rows);
    bool back = !w->batch->forward && bg_model_goes_deeper(w->model, bg_model_head(w->model));
    for (size_t i = 0; i < rows; i += chunk) {
        double n = (double)(rows - i < chunk ? rows - i : chunk);
        bg_cost_product(w->cost, n, v, d, 1);
        if (back)
            bg_cost_product(w->cost, n, d, v, 1);
        w->cost->of[BG_COST_WIDENED] += t->dtype != BG_ST_F32 ? (back ? 2 : 1) * v * d : 0;
    }
    w->cost->of[BG_COST_LOGIT] += (double)rows * v;
    w->cost->of[BG_COST_SAMPLED] += w->batch->sampled ? (double)rows * v : 0;
    w->cost->of[BG_COST_ELEMENT] += (double)rows * (back ? 12 : 6) * d;
}

void bg_pass_cost(bg_cost *cost, const bg_model *m, const bg_share *share, const bg_batch_shape *b)
{
    const walk w = walk_of(cost, m, b);
    if (b->sequences == 0)
        return;
    if (share->embeds)
        elements(&w, 2 * (double)m->config.d_model);
    for (size_t l = share->first; l < share->end; l++)
        block_forward(&w, l);
    if (share->has_head)
        head(&w);
    for (size_t l = share->end; l-- > share->first && l >= m->lowest_block && !b->forward;)
        block_backward(&w, l);
}

/* A site's moving weights against its input. */
static void moving(const walk *w, const bg_site *site, double rows, size_t rank)
{
    double p = (double)site->n_out, m = (double)site->n_in1;
    if (site->tracked && rank == 0)
        bg_cost_product(w->cost, rows, p, m, 1);
    if (site->tracked && rank > 0) {
        bg_cost_product(w->cost, rows, (double)rank, m, 1);
        bg_cost_product(w->cost, rows, p, (double)rank, 1);
    }
}

/* Of a site: its weights against how its input moves, and its moving weights against its input. */
static void site_tangent(const walk *w, const bg_site *site, double rows, size_t rank)
{
    bg_cost_product(w->cost, rows, (double)site->n_out, (double)site->n_in, 1);
    if (site->weight->dtype != BG_ST_F32)
        w->cost->of[BG_COST_WIDENED] += (double)site->n_out * (double)site->n_in;
    moving(w, site, rows, rank);
    if (site->lora_a == NULL)
        return;
    lora(w, site->lora_a, false);
    lora(w, site->lora_b, false);
    moving(w, site->lora_a, rows, rank);
    moving(w, site->lora_b, rows, rank);
    if (site->lora_b->tracked)
        lora(w, site->lora_a, false);
    if (site->lora_a->tracked)
        lora(w, site->lora_b, false);
}

static void block_tangent(const walk *w, size_t l, size_t rank)
{
    const bg_block *b = &w->model->block[l];
    const bg_model_config *c = &w->model->config;
    double d = (double)c->d_model;
    for (bg_role r = 0; r < BG_ROLES; r++)
        if (b->site[r] != NULL)
            site_tangent(w, b->site[r], w->rows, rank);
    for (size_t i = 0; i < 3 * c->n_experts && b->expert != NULL; i++)
        site_tangent(w, &b->expert[i], bg_model_site_rows(w->model, &b->expert[i], w->rows), rank);
    attention(w, (attention_work){ l, 5, 2, c->n_heads });
    activations(w, b, 2);
    elements(w, 20 * d + rotated(w, l) + (c->qk_norm == BG_QK_NORM_NONE ? 0 : 5 * w->w_qk));
}

void bg_tangent_cost(bg_cost *cost, const bg_model *m, const bg_share *share, const bg_batch_shape *b, size_t rank)
{
    const walk w = walk_of(cost, m, b);
    double in_loss = (double)(b->sequences * b->loss_rows), v = (double)m->config.vocab_size,
           d = (double)m->config.d_model;
    if (b->sequences == 0)
        return;
    for (size_t l = share->first > m->lowest_block ? share->first : m->lowest_block; l < share->end; l++)
        block_tangent(&w, l, rank);
    if (!share->has_head)
        return;
    bg_cost_product(cost, in_loss, v, d, 1); /* the logits themselves */
    site_tangent(&w, bg_model_head(m), in_loss, rank);
    cost->of[BG_COST_LOGIT] += 2 * in_loss * v;
    cost->of[BG_COST_ELEMENT] += 12 * in_loss * d;
}
