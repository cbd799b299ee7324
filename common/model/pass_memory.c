/* The memory of a pass: one arena, sized from one table before anything runs. */
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/kernels.h"
#include "bregman/memory.h"
#include "pass_state.h"

/* Rows beyond which products gain no speed, and only memory is spent. */
enum { MOST_ROWS = 1536 };

static size_t round16(size_t n) { return (n + 15) / 16 * 16; }

/* Blocks below the lowest tracked one keep nothing for a backward pass: they share one slot. */
static size_t slots(const bg_model *m)
{
    return m->config.n_blocks - m->lowest_block + (m->lowest_block > 0) + 1;    /* + the last block's output */
}

static void set_widths(bg_pass *p, const bg_model *m, size_t max_rows, size_t logits_bytes)
{
    const bg_model_config *c = &m->config;
    p->model = m;
    p->max_rows = max_rows;
    p->w_qk = (c->n_heads + c->n_kv_heads) * c->d_head;
    p->w_qkv = p->w_qk + c->n_kv_heads * c->d_head;
    p->ld_d = round16(c->d_model + 1);
    p->ld_att = round16(c->n_heads * c->d_head + 1);
    p->ld_ff = round16(c->d_ff + 1);
    p->chunk_rows = logits_bytes / (c->vocab_size * sizeof(float));
    if (p->chunk_rows < 1)
        p->chunk_rows = 1;
    if (p->chunk_rows > max_rows)
        p->chunk_rows = max_rows;
    p->threads = omp_get_max_threads();
    p->n_saved = slots(m);
}

/* Largest block matrix that is not float32 in the file; the head is widened in slices of this. */
static size_t widening_floats(const bg_model *m)
{
    size_t most = 0;
    for (size_t i = 0; i < m->n_modules; i++) {
        const bg_module *mod = &m->module[i];
        bool aligned = (uintptr_t)mod->weight->data % sizeof(float) == 0;
        size_t n = mod->n_in * mod->n_out;
        if ((mod->weight->dtype != BG_ST_F32 || !aligned) && n > most)
            most = n;
    }
    bool head_aligned = m->head->dtype == BG_ST_F32 && (uintptr_t)m->head->data % sizeof(float) == 0;
    if (!head_aligned) {
        size_t head = m->config.vocab_size * m->config.d_model, slice = 4096 * m->config.d_model;
        size_t want = m->head->dtype == BG_ST_F32 || head < slice ? head : slice;
        most = most > want ? most : want;
    }
    return most;
}

/* Take n floats of the arena, or count them while there is none. */
static float *take(bg_pass *p, size_t *used, size_t n)
{
    float *at = p->arena == NULL ? NULL : p->arena + *used;
    *used += round16(n);
    return at;
}

static void lay_out_slot(bg_pass *p, bg_saved *s, size_t *used)
{
    const bg_model_config *c = &p->model->config;
    size_t t = p->max_rows, d = c->d_model;
    bg_saved at = { 0 };
    at.x = take(p, used, t * d);
    at.qkv = take(p, used, t * p->w_qkv);
    at.qk_raw = c->qk_norm == BG_QK_NORM_NONE ? NULL : take(p, used, t * p->w_qk);
    at.att = take(p, used, t * p->ld_att);
    at.att_out = c->post_norm ? take(p, used, t * d) : NULL;
    at.mid = c->parallel_residual ? NULL : take(p, used, t * d);
    at.gate = c->gated ? take(p, used, t * c->d_ff) : NULL;
    at.up = take(p, used, t * c->d_ff);
    at.mlp_out = c->post_norm ? take(p, used, t * d) : NULL;
    if (s != NULL)
        *s = at;
}

/* Lay the arena out; with p->arena NULL only its size is found.  Returns floats. */
static size_t lay_out(bg_pass *p)
{
    const bg_model_config *c = &p->model->config;
    size_t t = p->max_rows, d = c->d_model, used = 0, threads = (size_t)p->threads;
    for (size_t i = 0; i + 1 < p->n_saved; i++)
        lay_out_slot(p, p->saved == NULL ? NULL : &p->saved[i], &used);
    float *last = take(p, &used, t * d);
    if (p->saved != NULL)
        p->saved[p->n_saved - 1] = (bg_saved){ .x = last };
    p->a_d = take(p, &used, t * p->ld_d);
    p->a_ff = take(p, &used, t * p->ld_ff);
    p->dx = take(p, &used, t * d);
    p->dmid = take(p, &used, t * d);
    p->da = take(p, &used, t * d);
    p->dqkv = take(p, &used, t * p->w_qkv);
    p->datt = take(p, &used, t * c->n_heads * c->d_head);
    p->dff = take(p, &used, t * c->d_ff);
    p->dgate = c->gated ? take(p, &used, t * c->d_ff) : NULL;
    p->dup = take(p, &used, t * c->d_ff);
    p->head_x = take(p, &used, p->chunk_rows * d);
    p->head_n = take(p, &used, p->chunk_rows * d);
    p->logits = take(p, &used, p->chunk_rows * c->vocab_size);
    p->weight_floats = widening_floats(p->model);
    p->weight = take(p, &used, p->weight_floats);
    p->score = take(p, &used, threads * 2 * BG_ATTENTION_ROWS * t);
    p->attention_dot = take(p, &used, threads * BG_ATTENTION_ROWS);
    p->rope = take(p, &used, t * c->rotary_dims);
    p->position = (uint32_t *)(void *)take(p, &used, t);
    p->loss_row = (uint32_t *)(void *)take(p, &used, t);
    return used;
}

size_t bg_pass_bytes(const bg_model *model, size_t max_rows, size_t logits_bytes)
{
    bg_pass p = { 0 };
    set_widths(&p, model, max_rows, logits_bytes);
    return lay_out(&p) * sizeof(float);
}

size_t bg_pass_rows_for(const bg_model *model, size_t longest, size_t budget_bytes)
{
    /* the difference of two sizes is what a row takes, whatever the fixed part */
    size_t per_row = (bg_pass_bytes(model, 1024, 1) - bg_pass_bytes(model, 512, 1)) / 512;
    size_t rows = budget_bytes / per_row;
    rows = rows > MOST_ROWS ? MOST_ROWS : rows;
    return rows < longest - 1 ? longest - 1 : rows;
}

/* The inputs' homogeneous coordinate: a column of ones that nothing overwrites. */
static void set_ones(float *a, size_t rows, size_t ld, size_t column)
{
    for (size_t i = 0; i < rows; i++)
        a[i * ld + column] = 1.0f;
}

bg_status bg_pass_new(bg_pass **out, const bg_model *model, size_t max_rows, size_t logits_bytes, bg_err *err)
{
    const bg_model_config *c = &model->config;
    bg_pass *p = NULL;
    *out = NULL;
    bg_status st = BG_NEW(p, 1, "pass", err);
    if (st != BG_OK)
        return st;
    set_widths(p, model, max_rows, logits_bytes);
    st = BG_NEW(p->saved, p->n_saved, "pass", err);
    size_t floats = lay_out(p);
    if (st == BG_OK)
        st = BG_NEW(p->arena, floats, "activations", err);
    if (st != BG_OK) {
        bg_pass_free(p);
        return st;
    }
    (void)lay_out(p);
    set_ones(p->a_d, max_rows, p->ld_d, c->d_model);
    set_ones(p->a_ff, max_rows, p->ld_ff, c->d_ff);
    for (size_t i = 0; i + 1 < p->n_saved; i++)
        set_ones(p->saved[i].att, max_rows, p->ld_att, c->n_heads * c->d_head);
    if (c->rope != BG_ROPE_NONE)
        bg_rope_table(c, max_rows, p->rope);
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
