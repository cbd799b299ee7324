#include "bregman/covariance.h"

#include <stdio.h>
#include <string.h>

#include "bregman/memory.h"
#include "bregman/room.h"
#include "bregman/symmetric.h"

struct bg_covariance {
    const bg_model *model;
    bg_site_range sites;
    size_t k;
    bg_room sum;                    /* all sums back to back */
    float **activation, **gradient; /* [n_tracked]; activation NULL where another module owns the input */
};

static bool owns_input(const bg_site *site) { return site->input == site->index; }

size_t bg_covariance_bytes(const bg_model *model, bg_site_range sites, size_t k)
{
    size_t n = 0;
    for (size_t i = sites.first; i < sites.end; i++) {
        const bg_site *site = model->tracked[i];
        n += bg_symmetric_floats((bg_symmetric){ site->n_out, k });
        if (owns_input(site))
            n += bg_symmetric_floats((bg_symmetric){ site->n_in1, k });
    }
    return n * sizeof(float);
}

bg_status bg_covariance_new(bg_covariance **out, const bg_model *model, bg_site_range sites, size_t k,
                            const char *scratch, bg_err *err)
{
    bg_covariance *c = NULL;
    *out = NULL;
    bg_status st = BG_NEW(c, 1, "covariance", err);
    if (st != BG_OK)
        return st;
    c->model = model;
    c->sites = sites;
    c->k = k;
    st = BG_NEW(c->activation, model->n_tracked, "covariance", err);
    if (st == BG_OK)
        st = BG_NEW(c->gradient, model->n_tracked, "covariance", err);
    if (st == BG_OK)
        st = bg_room_new(&c->sum, bg_covariance_bytes(model, sites, k), scratch, "covariance sums", err);
    if (st != BG_OK) {
        bg_covariance_free(c);
        return st;
    }
    float *at = c->sum.x;
    for (size_t i = sites.first; i < sites.end; i++) {
        const bg_site *site = model->tracked[i];
        c->gradient[i] = at;
        at += bg_symmetric_floats((bg_symmetric){ site->n_out, k });
        if (owns_input(site)) {
            c->activation[i] = at;
            at += bg_symmetric_floats((bg_symmetric){ site->n_in1, k });
        }
    }
    *out = c;
    return BG_OK;
}

void bg_covariance_free(bg_covariance *c)
{
    if (c == NULL)
        return;
    bg_free(c->activation);
    bg_free(c->gradient);
    bg_room_free(&c->sum);
    bg_free(c);
}

void bg_covariance_clear(bg_covariance *c) { bg_room_clear(&c->sum); }

static void add(bg_covariance *c, size_t n, float *sum, size_t rows, const float *x, size_t ldx)
{
    bg_symmetric s = { n, c->k };
    bg_symmetric_add(s, sum, rows, x, ldx);
    bg_room_let_go(&c->sum, sum, bg_symmetric_floats(s));
}

bg_status bg_covariance_pair(void *covariance, const bg_pair *pair, bg_err *err)
{
    bg_covariance *c = covariance;
    const bg_site *site = pair->site;
    (void)err;
    if (site->index < c->sites.first || site->index >= c->sites.end)
        return BG_OK;
    add(c, site->n_out, c->gradient[site->index], pair->n_rows, pair->gradient, pair->ld_gradient);
    if (owns_input(site))
        add(c, site->n_in1, c->activation[site->index], pair->n_rows, pair->activation, pair->ld_activation);
    return BG_OK;
}

void bg_covariance_cost(bg_cost *cost, const bg_model *model, bg_site_range sites, size_t k, size_t rows)
{
    for (size_t i = sites.first; i < sites.end; i++) {
        const bg_site *site = model->tracked[i];
        bg_symmetric_cost(cost, (bg_symmetric){ site->n_out, k }, (double)rows);
        if (owns_input(site))
            bg_symmetric_cost(cost, (bg_symmetric){ site->n_in1, k }, (double)rows);
    }
}

/* One sum of a module, to a file (`to`) or from one. */
static bg_status move_sum(const bg_covariance *c, const bg_site *site, bool activation, bg_store *to,
                          const bg_store *from, bg_err *err)
{
    char path[BG_PATH_BYTES];
    float *sum = activation ? c->activation[site->index] : c->gradient[site->index];
    uint64_t floats = bg_symmetric_floats((bg_symmetric){ activation ? site->n_in1 : site->n_out, c->k });
    bg_status st = bg_path(path, err, "%s/%s_sum", site->name, activation ? "activation" : "gradient");
    if (st == BG_OK)
        st = to != NULL ? bg_store_write(to, path, &floats, sum, err)
                        : bg_store_read(from, path, BG_F32, &floats, sum, err);
    bg_room_let_go(&c->sum, sum, floats);
    return st;
}

static bg_status move_block(const bg_covariance *c, size_t block, bg_store *to, const bg_store *from, bg_err *err)
{
    bg_status st = BG_OK;
    for (size_t i = c->sites.first; i < c->sites.end && st == BG_OK; i++) {
        const bg_site *site = c->model->tracked[i];
        if (site->block != block)
            continue;
        st = move_sum(c, site, false, to, from, err);
        if (st == BG_OK && owns_input(site))
            st = move_sum(c, site, true, to, from, err);
    }
    return st;
}

bg_status bg_covariance_write(const bg_covariance *c, size_t block, bg_store *s, bg_err *err)
{
    return move_block(c, block, s, NULL, err);
}

bg_status bg_covariance_read(bg_covariance *c, size_t block, const bg_store *s, bg_err *err)
{
    return move_block(c, block, NULL, s, err);
}
