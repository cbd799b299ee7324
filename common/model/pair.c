#include "bregman/pair.h"

#include <string.h>

#include "bregman/gemm.h"

static void one_hot_gradient(const bg_pair *p, size_t first, size_t n, float *g)
{
    memset(g, 0, p->site->n_out * p->site->n_in1 * sizeof *g);
    for (size_t i = first; i < first + n; i++)
        for (size_t j = 0; j < p->site->n_out; j++)
            g[j * p->site->n_in1 + p->token[i]] += p->gradient[i * p->ld_gradient + j];
}

void bg_pair_gradient(const bg_pair *p, size_t first, size_t n, float *g)
{
    if (p->token != NULL) {
        one_hot_gradient(p, first, n, g);
        return;
    }
    bg_gemm((bg_extent){ p->site->n_out, p->site->n_in1, n }, 1.0f,
            bg_f32(BG_T, p->gradient + first * p->ld_gradient, p->ld_gradient),
            bg_f32(BG_N, p->activation + first * p->ld_activation, p->ld_activation), 0.0f, g, p->site->n_in1);
}
