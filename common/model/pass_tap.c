/* pass_tap.c - pairs, handed over to the tap of a backward pass. */
#include "pass_state.h"

static bg_status hand_over(const bg_backward *w, const bg_pair *pair)
{
    if (!(w->tap->wants & BG_WANTS(pair->site->kind)))
        return BG_OK;
    bg_status st = w->tap->pair(w->tap->self, pair, w->err);
    bg_pass_poke(w->p);
    return st;
}

/* All rows of the batch. */
static bg_pair whole_pair(const bg_backward *w, const bg_site *site, bg_in a, bg_in dy)
{
    const bg_batch *b = w->batch;
    return (bg_pair){ .site = site,
                      .batch = b,
                      .n_rows = b->n_rows,
                      .n_sequences = b->n_sequences,
                      .row_start = b->row_start,
                      .activation = a.x,
                      .ld_activation = a.ld,
                      .gradient = dy.x,
                      .ld_gradient = dy.ld };
}

static bg_status tap_tracked(const bg_backward *w, const bg_site *site, bg_in a, bg_in dy)
{
    if (!site->tracked)
        return BG_OK;
    const bg_pair pair = whole_pair(w, site, a, dy);
    return hand_over(w, &pair);
}

/* The pairs (h, dy) of B and (a, s Bᵀ dy) of A. */
static bg_status tap_adapter(const bg_backward *w, const bg_site *site, bg_in a, bg_in dy)
{
    bg_pass *p = w->p;
    size_t rows = w->batch->n_rows, r = site->lora_a->n_out;
    bg_status st = BG_OK;
    if (site->lora_b->tracked) {
        bg_pass_lora_hidden(p, site, rows, a);
        st = tap_tracked(w, site->lora_b, (bg_in){ p->lora, r }, dy);
    }
    if (st == BG_OK && site->lora_a->tracked) {
        bg_pass_lora_back(p, site, rows, dy);
        st = tap_tracked(w, site->lora_a, a, (bg_in){ p->dlora, r });
    }
    return st;
}

bg_status bg_tap_site(const bg_backward *w, const bg_site *site, bg_in a, bg_in dy)
{
    if (site == NULL)
        return BG_OK;
    bg_status st = tap_tracked(w, site, a, dy);
    return st == BG_OK && site->lora_a != NULL ? tap_adapter(w, site, a, dy) : st;
}

bg_status bg_tap_expert(const bg_backward *w, const bg_saved *s, const bg_site *site, bg_in a, bg_in dy)
{
    if (!site->tracked)
        return BG_OK;
    size_t *start = w->p->expert_pair, first = s->expert_start[site->expert - 1];
    bg_pair pair = whole_pair(w, site, a, dy);
    pair.n_rows = s->expert_start[site->expert] - first;
    pair.row = s->expert_row + first;
    pair.row_start = start;
    start[0] = 0;
    for (size_t z = 0, i = 0; z < w->batch->n_sequences; z++) {
        while (i < pair.n_rows && pair.row[i] < w->batch->row_start[z + 1])
            i++;
        start[z + 1] = i;
    }
    return hand_over(w, &pair);
}

bg_status bg_tap_embeddings(const bg_backward *w, float *dx)
{
    const bg_model *m = w->p->model;
    size_t d = m->config.d_model;
    bg_status st = BG_OK;
    if (!w->p->share.embeds)
        return BG_OK;
    for (size_t i = 2; i-- > 0 && st == BG_OK;) { /* positions, then tokens */
        const bg_site *site = &m->site[i];
        if (!site->tracked || (site->kind != BG_SITE_EMBEDDING && site->kind != BG_SITE_POSITION))
            continue;
        if (site->kind == BG_SITE_EMBEDDING) /* an erased token is not looked up: no weight has a part in its row */
            bg_batch_clear_erased(w->batch, d, dx);
        if (site->kind == BG_SITE_EMBEDDING && m->config.embedding_scale > 0)
            bg_scale(w->batch->n_rows * d, (float)m->config.embedding_scale, dx);
        bg_pair pair = whole_pair(w, site, (bg_in){ NULL, 0 }, (bg_in){ dx, d });
        pair.token = site->kind == BG_SITE_EMBEDDING ? w->batch->input : w->p->position;
        st = hand_over(w, &pair);
    }
    return st;
}

bg_status bg_tap_loss_rows(const bg_backward *w, const bg_site *site, bg_rows_of_loss r, bg_in a, bg_in dy)
{
    bg_pass *p = w->p;
    const bg_batch *b = w->batch;
    if (w->tap == NULL || site == NULL || !site->tracked)
        return BG_OK;
    bg_pair pair = whole_pair(w, site, a, dy);
    pair.n_rows = r.n;
    pair.row = p->loss_row + r.first;
    pair.row_start = p->loss_start;
    p->loss_start[0] = 0;
    for (size_t z = 0, i = 0; z < b->n_sequences; z++) {
        while (i < r.n && pair.row[i] < b->row_start[z + 1])
            i++;
        p->loss_start[z + 1] = i;
    }
    return hand_over(w, &pair);
}
