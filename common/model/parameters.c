#include "bregman/parameters.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "bregman/memory.h"

/* A shared matrix is the embedding's parameter. */
static const bg_site *owner_of(const bg_model *m, const bg_site *site)
{
    return site == bg_model_head(m) && m->config.tied_head ? bg_model_embedding(m) : site;
}

static bg_parameter describe(const bg_model *m, const bg_site *site, bool is_bias)
{
    bg_parameter p = { .site = site, .is_bias = is_bias, .trained = site->tracked, .n_dims = 1 };
    bool matrix = !is_bias && site->kind != BG_SITE_NORM;
    bool transposed = bg_site_is_transposed(site, m->config.transposed);
    p.shape[0] = matrix && transposed ? site->n_in : site->n_out;
    p.shape[1] = !matrix ? 1 : transposed ? site->n_out : site->n_in;
    p.n_dims = matrix ? 2 : 1;
    p.n = p.shape[0] * p.shape[1];
    snprintf(p.name, sizeof p.name, "%s.%s", site->name, is_bias ? "bias" : "weight");
    return p;
}

/* List those that are trained, or the others, behind the n that p has; p->at NULL: count them. */
static void list(bg_parameters *p, const bg_model *m, bool trained)
{
    for (size_t i = 0; i < m->n_sites; i++) {
        const bg_site *site = &m->site[i];
        if (site->tracked != trained)
            continue;
        for (int bias = 0; bias < 2; bias++) {
            if (bias == 0 ? owner_of(m, site) != site : site->bias == NULL)
                continue;
            const bg_parameter of = describe(m, site, bias);
            if (p->at != NULL) {
                p->at[p->n] = of;
                p->at[p->n].first = p->n_values;
            }
            p->n++;
            p->n_values += of.n;
        }
    }
    if (trained)
        p->n_trained = p->n_values;
}

static void list_all(bg_parameters *p, const bg_model *m)
{
    p->n = p->n_values = 0;
    list(p, m, true);
    if (m->sketched != NULL)
        list(p, m, false);
}

bg_parameter_counts bg_parameters_count(const bg_model *model)
{
    bg_parameters p = { 0 };
    list_all(&p, model);
    return (bg_parameter_counts){ p.n_trained, p.n_values };
}

/* What the model reads, in its tables of sites and of norms. */
static void point_norm(bg_norm_weights *w)
{
    if (w->site == NULL)
        return;
    w->gain = w->site->gain;
    w->bias = w->site->bias;
}

static void point(bg_parameters *p, size_t i)
{
    bg_model *m = p->model;
    const bg_parameter *of = &p->at[i];
    bg_site *site = &m->site[of->site - m->site];
    float *value = p->value + of->first;
    if (of->is_bias) {
        site->bias = value;
    } else if (site->kind == BG_SITE_NORM) {
        site->gain = value;
    } else {
        p->matrix[i] = (bg_tensor){ .name = of->name,
                                    .file = m->dir,
                                    .dtype = BG_ST_F32,
                                    .n_dims = 2,
                                    .shape = { of->shape[0], of->shape[1] },
                                    .n_bytes = of->n * sizeof(float),
                                    .data = value };
        site->weight = &p->matrix[i];
    }
}

static void point_all(bg_parameters *p)
{
    bg_model *m = p->model;
    for (size_t i = 0; i < p->n; i++)
        point(p, i);
    bg_site *head = &m->site[m->n_sites - 1];
    head->weight = owner_of(m, head)->weight;
    for (size_t i = 0; i < m->n_sites && m->position_embedding != NULL; i++)
        if (m->site[i].kind == BG_SITE_POSITION)
            m->position_embedding = m->site[i].weight;
    for (size_t b = 0; b < m->config.n_blocks; b++) {
        bg_block *blk = &m->block[b];
        point_norm(&blk->attention_norm);
        point_norm(&blk->mlp_norm);
        point_norm(&blk->attention_out_norm);
        point_norm(&blk->mlp_out_norm);
        point_norm(&blk->q_norm);
        point_norm(&blk->k_norm);
    }
    point_norm(&m->final_norm);
}

/* What the checkpoint has; a config has nothing. */
static void copy_values(bg_parameters *p)
{
    for (size_t i = 0; i < p->n && p->model->sketched == NULL; i++) {
        const bg_parameter *of = &p->at[i];
        const float *vector = of->is_bias ? of->site->bias : of->site->gain;
        if (of->n_dims == 2)
            bg_tensor_widen(of->site->weight, 0, of->n, p->value + of->first);
        else
            memcpy(p->value + of->first, vector, of->n * sizeof *vector);
    }
}

bg_status bg_parameters_own(bg_parameters **out, bg_model *model, bg_err *err)
{
    bg_parameters *p = NULL;
    *out = NULL;
    assert(model->trained);
    bg_status st = BG_NEW(p, 1, "parameters", err);
    if (st != BG_OK)
        return st;
    p->model = model;
    list_all(p, model);
    st = BG_NEW(p->at, p->n, "parameters", err);
    if (st == BG_OK)
        st = BG_NEW(p->matrix, p->n, "parameters", err);
    if (st == BG_OK)
        st = BG_NEW(p->value, p->n_values, "parameters", err);
    if (st != BG_OK) {
        bg_parameters_free(p);
        return st;
    }
    list_all(p, model);
    copy_values(p);
    point_all(p);
    *out = p;
    return BG_OK;
}

void bg_parameters_free(bg_parameters *p)
{
    if (p == NULL)
        return;
    bg_free(p->at);
    bg_free(p->matrix);
    bg_free(p->value);
    bg_free(p);
}

const bg_parameter *bg_parameters_of(const bg_parameters *p, const bg_site *site, bool is_bias)
{
    const bg_site *owner = is_bias ? site : owner_of(p->model, site);
    size_t i = 0;
    while (i < p->n && (p->at[i].site != owner || p->at[i].is_bias != is_bias))
        i++;
    assert(i < p->n);
    return &p->at[i];
}

const bg_parameter *bg_parameters_with(const bg_parameters *p, size_t at)
{
    size_t i = 0;
    while (i + 1 < p->n && p->at[i + 1].first <= at)
        i++;
    return &p->at[i];
}
