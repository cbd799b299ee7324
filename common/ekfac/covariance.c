#include <stdio.h>
#include <string.h>

#include "bregman/factors.h"
#include "bregman/memory.h"

struct bg_covariance {
    const bg_model *model;
    size_t k, n_floats;
    float *sum;                        /* all sums back to back */
    float **activation, **gradient;    /* [n_tracked]; activation NULL where another module owns the input */
};

static bool owns_input(const bg_module *mod) { return mod->input == mod->index; }

size_t bg_covariance_bytes(const bg_model *model, size_t k)
{
    size_t n = 0;
    for (size_t i = 0; i < model->n_tracked; i++) {
        const bg_module *mod = model->tracked[i];
        n += bg_symmetric_floats((bg_symmetric){ mod->n_out, k });
        if (owns_input(mod))
            n += bg_symmetric_floats((bg_symmetric){ mod->n_in1, k });
    }
    return n * sizeof(float);
}

bg_status bg_covariance_new(bg_covariance **out, const bg_model *model, size_t k, bg_err *err)
{
    bg_covariance *c = NULL;
    *out = NULL;
    bg_status st = BG_NEW(c, 1, "covariance", err);
    if (st != BG_OK)
        return st;
    c->model = model;
    c->k = k;
    c->n_floats = bg_covariance_bytes(model, k) / sizeof(float);
    st = BG_NEW(c->activation, model->n_tracked, "covariance", err);
    if (st == BG_OK)
        st = BG_NEW(c->gradient, model->n_tracked, "covariance", err);
    if (st == BG_OK)
        st = BG_NEW(c->sum, c->n_floats, "covariance sums", err);
    if (st != BG_OK) {
        bg_covariance_free(c);
        return st;
    }
    float *at = c->sum;
    for (size_t i = 0; i < model->n_tracked; i++) {
        const bg_module *mod = model->tracked[i];
        c->gradient[i] = at;
        at += bg_symmetric_floats((bg_symmetric){ mod->n_out, k });
        if (owns_input(mod)) {
            c->activation[i] = at;
            at += bg_symmetric_floats((bg_symmetric){ mod->n_in1, k });
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
    bg_free(c->sum);
    bg_free(c);
}

void bg_covariance_clear(bg_covariance *c)
{
    memset(c->sum, 0, c->n_floats * sizeof *c->sum);
}

bg_status bg_covariance_pair(void *covariance, const bg_pair *pair, bg_err *err)
{
    bg_covariance *c = covariance;
    const bg_module *mod = pair->module;
    (void)err;
    bg_symmetric_add((bg_symmetric){ mod->n_out, c->k }, c->gradient[mod->index], pair->batch->n_rows,
                     pair->gradient, pair->ld_gradient);
    if (owns_input(mod))
        bg_symmetric_add((bg_symmetric){ mod->n_in1, c->k }, c->activation[mod->index], pair->batch->n_rows,
                         pair->activation, pair->ld_activation);
    return BG_OK;
}

bg_status bg_covariance_write(const bg_covariance *c, bg_store *s, bg_err *err)
{
    char path[BG_PATH_BYTES];
    bg_status st = BG_OK;
    for (size_t i = 0; i < c->model->n_tracked && st == BG_OK; i++) {
        const bg_module *mod = c->model->tracked[i];
        uint64_t n = bg_symmetric_floats((bg_symmetric){ mod->n_out, c->k });
        st = bg_path(path, err, "%s/gradient_sum", mod->name);
        if (st == BG_OK)
            st = bg_store_write(s, path, &n, c->gradient[i], err);
        if (st != BG_OK || !owns_input(mod))
            continue;
        n = bg_symmetric_floats((bg_symmetric){ mod->n_in1, c->k });
        st = bg_path(path, err, "%s/activation_sum", mod->name);
        if (st == BG_OK)
            st = bg_store_write(s, path, &n, c->activation[i], err);
    }
    return st;
}
