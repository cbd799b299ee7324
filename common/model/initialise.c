/* initialise.c - the random values a model of each family begins with, those of transformers' _init_weights. */
#include <math.h>
#include <string.h>

#include "bregman/parameters.h"
#include "bregman/rng.h"

/* GPT-2 scales what is added to the residual stream, which 2 n_blocks modules do. */
static double deviation_of(const bg_model_config *c, const bg_site *site)
{
    bool residual = site->kind == BG_SITE_LINEAR && (site->role == BG_ROLE_ATTENTION_OUT || site->role == BG_ROLE_DOWN);
    return c->initializer_range / (residual && c->scaled_residual ? sqrt(2.0 * (double)c->n_blocks) : 1);
}

static void fill(const bg_parameters *p, size_t i, uint64_t seed)
{
    const bg_model_config *c = &p->model->config;
    const bg_parameter *of = &p->at[i];
    float *x = p->value + of->first;
    if (of->n_dims == 1) {
        for (size_t k = 0; k < of->n; k++)
            x[k] = of->is_bias ? 0.0f : 1.0f;
        return;
    }
    float deviation = (float)deviation_of(c, of->site);
    bg_normal_fill(seed, (uint64_t)(of->site - p->model->site), of->n, x);
    for (size_t k = 0; k < of->n; k++)
        x[k] *= deviation;
    if (of->site->kind == BG_SITE_EMBEDDING && c->padding_token < c->vocab_size)
        memset(x + c->padding_token * c->d_model, 0, c->d_model * sizeof *x);
}

void bg_parameters_initialise(bg_parameters *p, uint64_t seed)
{
    for (size_t i = 0; i < p->n; i++)
        fill(p, i, seed);
}
