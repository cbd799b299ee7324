#include "bregman/pair.h"

#include <string.h>

#include "bregman/gemm.h"

static void add_one_hot(const bg_pair *p, size_t first, size_t n, float *g)
{
    for (size_t i = first; i < first + n; i++)
        for (size_t j = 0; j < p->site->n_out; j++)
            g[j * p->site->n_in1 + p->token[i]] += p->gradient[i * p->ld_gradient + j];
}

static void product(const bg_pair *p, size_t first, size_t n, float keep, float *g)
{
    bg_gemm((bg_extent){ p->site->n_out, p->site->n_in1, n }, 1.0f,
            bg_f32(BG_T, p->gradient + first * p->ld_gradient, p->ld_gradient),
            bg_f32(BG_N, p->activation + first * p->ld_activation, p->ld_activation), keep, g, p->site->n_in1);
}

void bg_pair_gradient(const bg_pair *p, size_t first, size_t n, float *g)
{
    if (p->token == NULL) {
        product(p, first, n, 0.0f, g);
        return;
    }
    memset(g, 0, p->site->n_out * p->site->n_in1 * sizeof *g);
    add_one_hot(p, first, n, g);
}

void bg_pair_add_gradient(const bg_pair *p, size_t first, size_t n, float *g)
{
    if (p->token == NULL)
        product(p, first, n, 1.0f, g);
    else
        add_one_hot(p, first, n, g);
}

void bg_pair_gradient_cost(bg_cost *cost, const bg_site *site, double rows, double times)
{
    if (site->kind != BG_SITE_EMBEDDING)
        bg_cost_product(cost, (double)site->n_out, (double)site->n_in1, rows, times);
}
