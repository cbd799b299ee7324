#include "bregman/eigenbasis.h"

size_t bg_eigenbasis_bytes(const bg_model *model, bg_site_range sites)
{
    size_t n = 0;
    for (size_t i = sites.first; i < sites.end; i++) {
        const bg_site *site = model->tracked[i];
        n += site->n_out * bg_block_width(site->n_out, site->s.k);
        n += bg_site_owns_input(site) ? site->n_in1 * bg_block_width(site->n_in1, site->a.k) : 0;
    }
    return n * sizeof(float);
}

static size_t width_of(bg_symmetric side) { return bg_symmetric_is_diagonal(side) ? 0 : side.n; }

bg_rotated_widths bg_eigenbasis_widths(const bg_model *model, bg_site_range sites)
{
    bg_rotated_widths w = { 0, 0 };
    for (size_t i = sites.first; i < sites.end; i++) {
        size_t a = width_of(model->tracked[i]->a), d = width_of(model->tracked[i]->s);
        w.a = a > w.a ? a : w.a;
        w.d = d > w.d ? d : w.d;
    }
    return w;
}

void bg_eigenbasis_rotate_cost(bg_cost *cost, const bg_site *site, bool has_a, double rows)
{
    if (!bg_symmetric_is_diagonal(site->a) && !has_a)
        bg_blockdiag_cost(cost, site->a, rows, 1);
    if (!bg_symmetric_is_diagonal(site->s))
        bg_blockdiag_cost(cost, site->s, rows, 1);
}

bg_pair bg_eigenbasis_rotate(const bg_eigenbasis *q, const bg_pair *pair, const bg_rotated *room, bool has_a)
{
    const bg_site *site = pair->site;
    bg_pair out = *pair;
    if (!bg_symmetric_is_diagonal(site->a)) {
        if (!has_a)
            bg_blockdiag_apply(&q->q_a, BG_N, pair->n_rows, pair->activation, pair->ld_activation, room->a,
                               site->n_in1);
        out.activation = room->a;
        out.ld_activation = site->n_in1;
    }
    if (!bg_symmetric_is_diagonal(site->s)) {
        bg_blockdiag_apply(&q->q_s, BG_N, pair->n_rows, pair->gradient, pair->ld_gradient, room->d, site->n_out);
        out.gradient = room->d;
        out.ld_gradient = site->n_out;
    }
    return out;
}
