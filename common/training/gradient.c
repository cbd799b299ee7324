#include "bregman/gradient.h"

#include "bregman/gemm.h"
#include "bregman/kernels.h"
#include "bregman/memory.h"
#include "bregman/threads.h"

/* Where a tracked site's gradients begin in the sum; bias SIZE_MAX: it has none. */
typedef struct {
    size_t weight, bias;
} place;

struct bg_gradient {
    const bg_parameters *parameters;
    place *place; /* [n_tracked] */
    float *sum;
    float *scratch; /* [max_rows, 2] */
};

bg_status bg_gradient_new(bg_gradient **out, const bg_parameters *p, size_t max_rows, bg_err *err)
{
    const bg_model *m = p->model;
    bg_gradient *g = NULL;
    *out = NULL;
    bg_status st = BG_NEW(g, 1, "gradient", err);
    if (st != BG_OK)
        return st;
    g->parameters = p;
    st = BG_NEW(g->place, m->n_tracked, "gradient", err);
    if (st == BG_OK)
        st = BG_NEW(g->scratch, 2 * max_rows, "gradient", err);
    if (st != BG_OK) {
        bg_gradient_free(g);
        return st;
    }
    for (size_t i = 0; i < m->n_tracked; i++) {
        const bg_site *site = m->tracked[i];
        g->place[i].weight = bg_parameters_of(p, site, false)->first;
        g->place[i].bias = site->bias == NULL ? SIZE_MAX : bg_parameters_of(p, site, true)->first;
    }
    *out = g;
    return BG_OK;
}

void bg_gradient_free(bg_gradient *g)
{
    if (g == NULL)
        return;
    bg_free(g->place);
    bg_free(g->scratch);
    bg_free(g);
}

void bg_gradient_into(bg_gradient *g, float *sum) { g->sum = sum; }

/* Each thread adds some of the columns, of all rows in their order. */
static void add_rows(const bg_pair *p, size_t padding, float *sum)
{
    enum { COLUMNS = 64 };
    size_t d = p->site->n_out;
#pragma omp parallel for if (p->n_rows * d > BG_PARALLEL_FLOATS)
    for (size_t j = 0; j < d; j += COLUMNS) {
        size_t w = d - j < COLUMNS ? d - j : COLUMNS;
        for (size_t i = 0; i < p->n_rows; i++) {
            const float *from = p->gradient + i * p->ld_gradient + j;
            float *to = sum + p->token[i] * d + j;
            for (size_t k = 0; k < w && p->token[i] != padding; k++)
                to[k] += from[k];
        }
    }
}

static void add_product(const bg_pair *p, bool transposed, float *sum)
{
    const bg_site *s = p->site;
    if (transposed)
        bg_gemm((bg_extent){ s->n_in, s->n_out, p->n_rows }, 1.0f, bg_f32(BG_T, p->activation, p->ld_activation),
                bg_f32(BG_N, p->gradient, p->ld_gradient), 1.0f, sum, s->n_out);
    else
        bg_gemm((bg_extent){ s->n_out, s->n_in, p->n_rows }, 1.0f, bg_f32(BG_T, p->gradient, p->ld_gradient),
                bg_f32(BG_N, p->activation, p->ld_activation), 1.0f, sum, s->n_in);
}

bg_status bg_gradient_pair(void *self, const bg_pair *pair, bg_err *err)
{
    bg_gradient *g = self;
    const bg_model_config *c = &g->parameters->model->config;
    const bg_site *s = pair->site;
    const place at = g->place[s->index];
    bg_in dy = { pair->gradient, pair->ld_gradient }, x = { pair->activation, pair->ld_activation };
    float *weight = g->sum + at.weight, *bias = at.bias == SIZE_MAX ? NULL : g->sum + at.bias;
    (void)err;
    switch (s->kind) {
    case BG_SITE_NORM:
        bg_norm_gradient((bg_norm){ s->norm, c->norm_epsilon, s->gain, s->bias }, pair->n_rows, s->n_out, x, dy,
                         g->scratch, (bg_norm_sums){ weight, bias });
        break;
    case BG_SITE_EMBEDDING: add_rows(pair, c->padding_token, weight); break;
    case BG_SITE_POSITION: add_rows(pair, SIZE_MAX, weight); break;
    default:
        add_product(pair, bg_site_is_transposed(s, c->transposed), weight);
        if (bias != NULL)
            bg_add_columns(pair->n_rows, s->n_out, dy, bias);
    }
    return BG_OK;
}

void bg_gradient_cost(bg_cost *cost, const bg_model *m, double rows, double loss_rows)
{
    for (size_t i = 0; i < m->n_tracked; i++) {
        const bg_site *s = m->tracked[i];
        double n = s->kind == BG_SITE_HEAD ? loss_rows : rows;
        if (s->kind == BG_SITE_LINEAR || s->kind == BG_SITE_HEAD)
            bg_cost_product(cost, (double)s->n_out, (double)s->n_in, n, 1);
        cost->of[BG_COST_ELEMENT] += n * (double)s->n_out * (s->kind == BG_SITE_NORM ? 4 : s->bias != NULL ? 1 : 0);
    }
}
