/* The memory of a pass: one arena, sized from one table before anything runs. */
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/kernels.h"
#include "bregman/memory.h"
#include "bregman/pass.h"
#include "pass_state.h"

/* Rows beyond which products gain no speed, and only memory is spent. */
enum { MOST_ROWS = 1536 };
/* Weights widened at a time: products of so many are at full speed, and one more such buffer would not be noticed. */
enum { MOST_WIDENED = 16 << 20 };

static size_t round16(size_t n) { return (n + 15) / 16 * 16; }

/* Blocks below the lowest tracked one keep nothing for a backward pass: they have one state together. */
static size_t states(const bg_model *m, const bg_share *s)
{
    size_t kept = m->lowest_block <= s->first ? s->end - s->first
                  : m->lowest_block < s->end  ? s->end - m->lowest_block
                                              : 0;
    return kept + (kept < s->end - s->first) + 1; /* + the share's output */
}

static void set_widths(bg_pass *p, const bg_model *m, const bg_share *share, size_t depth, size_t max_rows,
                       size_t logits_bytes)
{
    const bg_model_config *c = &m->config;
    p->model = m;
    p->share = share != NULL ? *share : bg_model_whole(m);
    p->depth = depth;
    p->max_rows = max_rows;
    p->w_qk = (c->n_heads + c->n_kv_heads) * c->d_head;
    p->w_qkv = p->w_qk + c->n_kv_heads * c->d_head;
    p->ld_d = round16(c->d_model + 1);
    p->ld_att = round16(c->n_heads * c->d_head + 1);
    p->ld_ff = round16((c->d_ff > c->d_expert ? c->d_ff : c->d_expert) + 1);
    p->chunk_rows = bg_head_rows(m, logits_bytes, max_rows);
    p->threads = omp_get_max_threads();
    p->n_saved = states(m, &p->share);
}

/* What is widened at a time of matrices that are not float32 in the file: the largest of the share if it is small
 * enough. */
static size_t widening_floats(const bg_model *m, const bg_share *share)
{
    size_t most = 0, row = 0;
    for (size_t i = 0; i < m->n_sites; i++) {
        const bg_tensor *t = m->site[i].weight;
        if (t == NULL)
            continue;
        bool ours = m->site[i].section == BG_SECTION_HEAD
                        ? share->has_head
                        : m->site[i].section >= share->first && m->site[i].section < share->end;
        bool aligned = (uintptr_t)t->data % sizeof(float) == 0;
        if (!ours || (t->dtype == BG_ST_F32 && aligned))
            continue;
        /* an adapter's are not cut into slices */
        size_t at_once = m->site[i].part == BG_PART_WEIGHT ? t->shape[1] : t->shape[0] * t->shape[1];
        most = t->shape[0] * t->shape[1] > most ? t->shape[0] * t->shape[1] : most;
        row = at_once > row ? at_once : row;
    }
    size_t enough = MOST_WIDENED > row ? MOST_WIDENED : row;
    return most < enough ? most : enough;
}

/* The largest rank of an adapter's matrices; 0 without one. */
static size_t most_ranks(const bg_model *m)
{
    size_t most = 0;
    for (size_t i = 0; i < m->n_sites; i++)
        if (m->site[i].part == BG_PART_LORA_A && m->site[i].n_out > most)
            most = m->site[i].n_out;
    return most;
}

/* Take n floats of the arena, or count them while there is none. */
static float *take(bg_pass *p, size_t *used, size_t n)
{
    float *at = p->arena == NULL ? NULL : p->arena + *used;
    *used += round16(n);
    return at;
}

/* One block's state.  x_of_message: its input lies in the buffer that the rank before sent it to. */
static void lay_out_state(bg_pass *p, bg_saved *s, bool x_of_message, size_t *used)
{
    const bg_model_config *c = &p->model->config;
    size_t t = p->max_rows, d = c->d_model, routed = c->experts_per_token * c->d_expert;
    size_t hidden = routed > c->d_ff ? routed : c->d_ff; /* a block's MLP has experts or is a plain one */
    bg_saved at = { 0 };
    at.x = x_of_message ? NULL : take(p, used, t * d);
    at.qkv = take(p, used, t * p->w_qkv);
    at.qk_raw = c->qk_norm == BG_QK_NORM_NONE && c->clip_qkv <= 0 ? NULL : take(p, used, t * p->w_qk);
    at.att = take(p, used, t * p->ld_att);
    at.att_out = bg_norms_outputs(c) ? take(p, used, t * d) : NULL;
    at.mid = c->parallel_residual ? NULL : take(p, used, t * d);
    at.gate = c->gated ? take(p, used, t * hidden) : NULL;
    at.up = take(p, used, t * hidden);
    at.mlp_out = bg_norms_outputs(c) ? take(p, used, t * d) : NULL;
    if (c->n_experts > 0) {
        at.part = take(p, used, t * c->n_experts);
        at.expert_row = (uint32_t *)(void *)take(p, used, t * c->experts_per_token);
        at.expert_start = (uint32_t *)(void *)take(p, used, c->n_experts + 1);
    }
    if (s != NULL)
        *s = at;
}

/* Room to work in for one expert at a time, which may have all rows. */
static void lay_out_experts(bg_pass *p, size_t *used)
{
    const bg_model_config *c = &p->model->config;
    size_t t = p->max_rows;
    if (c->n_experts == 0)
        return;
    p->x_expert = take(p, used, t * c->d_model);
    p->y_expert = take(p, used, t * c->d_model);
    p->dpart = take(p, used, t * c->n_experts);
    p->dot = take(p, used, t);
    p->chosen = (uint32_t *)(void *)take(p, used, t * c->experts_per_token);
    p->expert_pair = (size_t *)(void *)take(p, used, (t + 1) * sizeof(size_t) / sizeof(float));
}

/* Lay the arena out; with p->arena NULL only its size is found.  Returns floats. */
static size_t lay_out(bg_pass *p)
{
    const bg_model_config *c = &p->model->config;
    size_t t = p->max_rows, d = c->d_model, used = 0, threads = (size_t)p->threads;
    size_t hidden = c->d_ff > c->d_expert ? c->d_ff : c->d_expert;
    for (size_t slot = 0; slot < p->depth; slot++) {
        bg_saved *s = p->saved == NULL ? NULL : p->saved + slot * p->n_saved;
        for (size_t i = 0; i + 1 < p->n_saved; i++)
            lay_out_state(p, s == NULL ? NULL : &s[i], i == 0 && !p->share.embeds, &used);
        float *last = take(p, &used, t * d + BG_PASS_TRAILER);
        if (s != NULL)
            s[p->n_saved - 1] = (bg_saved){ .x = last };
    }
    p->a_d = take(p, &used, t * p->ld_d);
    p->a_ff = take(p, &used, t * p->ld_ff);
    p->dx = p->share.embeds && p->share.has_head ? take(p, &used, t * d) : NULL;
    size_t shared = used; /* a block's gradients begin where the head's logits, by then done with, have been */
    p->dmid = take(p, &used, t * d);
    p->da = take(p, &used, t * d);
    p->dqkv = take(p, &used, t * p->w_qkv);
    p->datt = take(p, &used, t * c->n_heads * c->d_head);
    p->dff = take(p, &used, t * hidden);
    p->dgate = c->gated ? take(p, &used, t * hidden) : NULL;
    p->dup = take(p, &used, t * hidden);
    lay_out_experts(p, &used);
    if (p->share.has_head) {
        size_t end = used;
        used = shared;
        p->head_x = take(p, &used, p->chunk_rows * d);
        p->head_n = take(p, &used, p->chunk_rows * d);
        p->logits = take(p, &used, p->chunk_rows * c->vocab_size);
        used = used > end ? used : end;
    }
    if (p->share.has_head && p->model->tracked[p->model->n_tracked - 1]->section == BG_SECTION_HEAD) {
        p->a_head = take(p, &used, p->chunk_rows * p->ld_d);
        p->loss_start = (size_t *)(void *)take(p, &used, (t + 1) * sizeof(size_t) / sizeof(float));
    }
    p->weight_floats = widening_floats(p->model, &p->share);
    p->weight = take(p, &used, p->weight_floats);
    p->lora = take(p, &used, t * most_ranks(p->model));
    p->dlora = take(p, &used, t * most_ranks(p->model));
    p->score_floats = (c->attention_cap > 0 ? 3 : 2) * (size_t)BG_ATTENTION_ROWS * t;
    p->score = take(p, &used, threads * p->score_floats);
    p->attention_dot = take(p, &used, threads * BG_ATTENTION_ROWS);
    p->cap_slope = p->share.has_head && c->logit_cap > 0 ? take(p, &used, threads * c->vocab_size) : NULL;
    p->rope = take(p, &used, t * c->rotary_dims);
    p->sliding_rope = c->has_sliding_rope ? take(p, &used, t * c->rotary_dims) : p->rope;
    p->loss = p->share.has_head ? take(p, &used, t) : NULL;
    p->position = (uint32_t *)(void *)take(p, &used, t);
    p->loss_row = (uint32_t *)(void *)take(p, &used, t);
    return used;
}

size_t bg_pass_bytes(const bg_model *model, const bg_share *share, size_t depth, size_t max_rows, size_t logits_bytes)
{
    bg_pass p = { 0 };
    set_widths(&p, model, share, depth, max_rows, logits_bytes);
    return lay_out(&p) * sizeof(float);
}

size_t bg_pass_rows_for(const bg_model *model, size_t longest, size_t budget_bytes)
{
    /* the difference of two sizes is what a row takes, whatever the fixed part */
    size_t per_row = (bg_pass_bytes(model, NULL, 1, 1024, 1) - bg_pass_bytes(model, NULL, 1, 512, 1)) / 512;
    size_t rows = budget_bytes / per_row;
    rows = rows > MOST_ROWS ? MOST_ROWS : rows;
    return rows < longest - 1 ? longest - 1 : rows;
}

static void set_ones(float *a, size_t rows, size_t ld, size_t column)
{
    for (size_t i = 0; i < rows && a != NULL; i++)
        a[i * ld + column] = 1.0f;
}

void bg_pass_set_ones(const bg_pass *p, size_t rows)
{
    const bg_model_config *c = &p->model->config;
    set_ones(p->a_d, rows, p->ld_d, c->d_model);
    set_ones(p->a_ff, rows, p->ld_ff, c->d_ff);
    set_ones(p->a_head, rows < p->chunk_rows ? rows : p->chunk_rows, p->ld_d, c->d_model);
    for (size_t i = 0; i < p->n_saved; i++)
        set_ones(p->saved[p->slot * p->n_saved + i].att, rows, p->ld_att, c->n_heads * c->d_head);
}

bg_status bg_pass_new(bg_pass **out, const bg_model *model, const bg_share *share, size_t depth, size_t max_rows,
                      size_t logits_bytes, bg_err *err)
{
    const bg_model_config *c = &model->config;
    bg_pass *p = NULL;
    *out = NULL;
    bg_status st = BG_NEW(p, 1, "pass", err);
    if (st != BG_OK)
        return st;
    set_widths(p, model, share, depth, max_rows, logits_bytes);
    st = BG_NEW(p->saved, p->depth * p->n_saved, "pass", err);
    size_t floats = lay_out(p);
    if (st == BG_OK)
        st = BG_NEW(p->arena, floats, "activations", err);
    if (st != BG_OK) {
        bg_pass_free(p);
        return st;
    }
    (void)lay_out(p);
    bg_rope_table(&c->rope, c->rotary_dims, max_rows, p->rope);
    bg_rope_table(&c->sliding_rope, c->rotary_dims, max_rows, p->sliding_rope);
    *out = p;
    return BG_OK;
}

void bg_pass_free(bg_pass *p)
{
    if (p == NULL)
        return;
    bg_free(p->arena);
    bg_free(p->saved);
    bg_free(p);
}

size_t bg_pass_max_rows(const bg_pass *p) { return p->max_rows; }
size_t bg_pass_depth(const bg_pass *p) { return p->depth; }
const bg_share *bg_pass_share(const bg_pass *p) { return &p->share; }
const float *bg_pass_losses(const bg_pass *p) { return p->loss; }

void bg_pass_set_poke(bg_pass *p, void (*poke)(void *self), void *self)
{
    p->poke = poke;
    p->poked = self;
}
