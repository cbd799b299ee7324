#include "bregman/covariance.h"

#include <string.h>

#include "bregman/memory.h"
#include "bregman/room.h"
#include "bregman/symmetric.h"
#include "summed.h"

struct bg_covariance {
    const bg_model *model;
    bg_site_range sites;
    int64_t *positions;             /* [n_tracked] rows summed up */
    bg_room sum;                    /* all sums back to back */
    float **activation, **gradient; /* [n_tracked]; activation NULL where another module owns the input */
};

size_t bg_covariance_bytes(const bg_model *model, bg_site_range sites)
{
    size_t n = 0;
    for (size_t i = sites.first; i < sites.end; i++) {
        const bg_site *site = model->tracked[i];
        n += bg_symmetric_floats(site->s);
        if (bg_site_owns_input(site))
            n += bg_symmetric_floats(site->a);
    }
    return n * sizeof(float);
}

bg_status bg_covariance_new(bg_covariance **out, const bg_model *model, bg_site_range sites, const char *scratch,
                            bg_err *err)
{
    bg_covariance *c = NULL;
    *out = NULL;
    bg_status st = BG_NEW(c, 1, "covariance", err);
    if (st != BG_OK)
        return st;
    c->model = model;
    c->sites = sites;
    st = BG_NEW(c->positions, model->n_tracked, "covariance", err);
    if (st == BG_OK)
        st = BG_NEW(c->activation, model->n_tracked, "covariance", err);
    if (st == BG_OK)
        st = BG_NEW(c->gradient, model->n_tracked, "covariance", err);
    if (st == BG_OK)
        st = bg_room_new(&c->sum, bg_covariance_bytes(model, sites), scratch, "covariance sums", err);
    if (st != BG_OK) {
        bg_covariance_free(c);
        return st;
    }
    float *at = c->sum.x;
    for (size_t i = sites.first; i < sites.end; i++) {
        const bg_site *site = model->tracked[i];
        c->gradient[i] = at;
        at += bg_symmetric_floats(site->s);
        if (bg_site_owns_input(site)) {
            c->activation[i] = at;
            at += bg_symmetric_floats(site->a);
        }
    }
    *out = c;
    return BG_OK;
}

void bg_covariance_free(bg_covariance *c)
{
    if (c == NULL)
        return;
    bg_free(c->positions);
    bg_free(c->activation);
    bg_free(c->gradient);
    bg_room_free(&c->sum);
    bg_free(c);
}

void bg_covariance_clear(bg_covariance *c)
{
    bg_room_clear(&c->sum);
    memset(c->positions, 0, c->model->n_tracked * sizeof *c->positions);
}

bg_status bg_covariance_pair(void *covariance, const bg_pair *pair, bg_err *err)
{
    bg_covariance *c = covariance;
    const bg_site *site = pair->site;
    float *a = c->activation[site->index], *s = c->gradient[site->index];
    (void)err;
    if (site->index < c->sites.first || site->index >= c->sites.end)
        return BG_OK;
    c->positions[site->index] += (int64_t)pair->n_rows;
    bg_symmetric_add(site->s, s, pair->n_rows, pair->gradient, pair->ld_gradient);
    bg_room_let_go(&c->sum, s, bg_symmetric_floats(site->s));
    if (!bg_site_owns_input(site))
        return BG_OK;
    if (pair->activation != NULL)
        bg_symmetric_add(site->a, a, pair->n_rows, pair->activation, pair->ld_activation);
    else
        for (size_t i = 0; i < pair->n_rows; i++)
            a[pair->token[i]] += 1;
    bg_room_let_go(&c->sum, a, bg_symmetric_floats(site->a));
    return BG_OK;
}

/* Of one-hot inputs only the rows are counted. */
void bg_covariance_cost(bg_cost *cost, const bg_model *model, bg_site_range sites, size_t rows)
{
    for (size_t i = sites.first; i < sites.end; i++) {
        const bg_site *site = model->tracked[i];
        bg_symmetric_cost(cost, site->s, (double)rows);
        if (bg_site_owns_input(site) && site->kind != BG_SITE_EMBEDDING)
            bg_symmetric_cost(cost, site->a, (double)rows);
    }
}

static bg_status move_section(const bg_covariance *c, size_t section, bg_store *to, const bg_store *from, bg_err *err)
{
    bg_status st = BG_OK;
    for (size_t i = c->sites.first; i < c->sites.end; i++) {
        const bg_site *site = c->model->tracked[i];
        const bg_summed set[] = { { "gradient_sum", BG_F32, { bg_symmetric_floats(site->s) }, c->gradient[i] },
                                  { "positions", BG_I64, { 1 }, &c->positions[i] },
                                  { "activation_sum", BG_F32, { bg_symmetric_floats(site->a) }, c->activation[i] } };
        for (int k = 0; k < 2 + bg_site_owns_input(site) && st == BG_OK && site->section == section; k++) {
            st = bg_summed_move(site, &set[k], to, from, err);
            if (set[k].type == BG_F32)
                bg_room_let_go(&c->sum, set[k].data, set[k].dims[0]);
        }
    }
    return st;
}

bg_status bg_covariance_write(const bg_covariance *c, size_t section, bg_store *s, bg_err *err)
{
    return move_section(c, section, s, NULL, err);
}

bg_status bg_covariance_read(bg_covariance *c, size_t section, const bg_store *s, bg_err *err)
{
    return move_section(c, section, NULL, s, err);
}
