/* A linear module, forward and to its input: s = W ā and da = Wᵀ δ, in whichever layout the weight is stored. */
#include <assert.h>

#include "bregman/gemm.h"
#include "bregman/kernels.h"
#include "pass_state.h"

const float *bg_pass_weight(bg_pass *p, const bg_tensor *t)
{
    if (t->dtype == BG_ST_F32 && (uintptr_t)t->data % sizeof(float) == 0)
        return t->data;
    assert(t->shape[0] * t->shape[1] <= p->weight_floats);
    bg_tensor_widen(t, 0, t->shape[0] * t->shape[1], p->weight);
    return p->weight;
}

void bg_pass_linear(bg_pass *p, const bg_module *mod, size_t rows, const float *a, size_t lda,
                    float *y, size_t ldy, bool accumulate)
{
    const float *w = bg_pass_weight(p, mod->weight);
    bool io = p->model->config.transposed;
    bg_gemm(BG_N, io ? BG_N : BG_T, rows, mod->n_out, mod->n_in, 1.0f, a, lda, w, io ? mod->n_out : mod->n_in,
            accumulate ? 1.0f : 0.0f, y, ldy);
    if (mod->bias != NULL)
        bg_add_bias(rows, mod->n_out, mod->bias, y, ldy);
}

void bg_pass_linear_back(bg_pass *p, const bg_module *mod, size_t rows, const float *dy, size_t lddy,
                         float *dx, size_t lddx, bool accumulate)
{
    const float *w = bg_pass_weight(p, mod->weight);
    bool io = p->model->config.transposed;
    bg_gemm(BG_N, io ? BG_T : BG_N, rows, mod->n_in, mod->n_out, 1.0f, dy, lddy, w, io ? mod->n_out : mod->n_in,
            accumulate ? 1.0f : 0.0f, dx, lddx);
}
