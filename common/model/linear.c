/* A linear module, forward, to its input, and along a direction: s = W ā, da = Wᵀ δ and V ā, in whichever layout the
 * weight is stored.  A matrix that is not float32 in the file is widened some rows at a time. */
#include <assert.h>

#include "bregman/gemm.h"
#include "pass_state.h"

static bool in_place(const bg_tensor *t) { return t->dtype == BG_ST_F32 && (uintptr_t)t->data % sizeof(float) == 0; }

size_t bg_pass_weight_rows(const bg_pass *p, const bg_tensor *t)
{
    size_t fit = p->weight_floats / t->shape[1];
    return in_place(t) || fit > t->shape[0] ? t->shape[0] : fit;
}

const float *bg_pass_weight(bg_pass *p, const bg_tensor *t, size_t first, size_t n)
{
    if (in_place(t))
        return (const float *)t->data + first * t->shape[1];
    assert(n * t->shape[1] <= p->weight_floats);
    bg_tensor_widen(t, first * t->shape[1], n * t->shape[1], p->weight);
    return p->weight;
}

void bg_pass_lora_hidden(bg_pass *p, const bg_site *site, size_t rows, bg_in a)
{
    const bg_site *s = site->lora_a;
    bg_gemm((bg_extent){ rows, s->n_out, s->n_in }, site->lora_scale, bg_f32(BG_N, a.x, a.ld),
            bg_f32(BG_T, bg_pass_weight(p, s->weight, 0, s->n_out), s->n_in), 0.0f, p->lora, s->n_out);
}

void bg_pass_lora_output(bg_pass *p, const bg_site *site, size_t rows, bg_out y)
{
    const bg_site *s = site->lora_b;
    bg_gemm((bg_extent){ rows, s->n_out, s->n_in }, 1.0f, bg_f32(BG_N, p->lora, s->n_in),
            bg_f32(BG_T, bg_pass_weight(p, s->weight, 0, s->n_out), s->n_in), 1.0f, y.x, y.ld);
}

void bg_pass_lora_back(bg_pass *p, const bg_site *site, size_t rows, bg_in dy)
{
    const bg_site *s = site->lora_b;
    bg_gemm((bg_extent){ rows, s->n_in, s->n_out }, site->lora_scale, bg_f32(BG_N, dy.x, dy.ld),
            bg_f32(BG_N, bg_pass_weight(p, s->weight, 0, s->n_out), s->n_in), 0.0f, p->dlora, s->n_in);
}

/* Rows of the stored matrix are outputs, or inputs where config.transposed: then the slices' products add up. */
void bg_pass_times(bg_pass *p, const bg_site *site, size_t rows, bg_in a, bg_out y, bool accumulate)
{
    const bg_tensor *t = site->weight;
    size_t step = bg_pass_weight_rows(p, t);
    for (size_t r = 0; r < t->shape[0]; r += step) {
        size_t n = t->shape[0] - r < step ? t->shape[0] - r : step;
        const float *w = bg_pass_weight(p, t, r, n);
        if (p->model->config.transposed)
            bg_gemm((bg_extent){ rows, site->n_out, n }, 1.0f, bg_f32(BG_N, a.x + r, a.ld),
                    bg_f32(BG_N, w, site->n_out), accumulate || r > 0 ? 1.0f : 0.0f, y.x, y.ld);
        else
            bg_gemm((bg_extent){ rows, n, site->n_in }, 1.0f, bg_f32(BG_N, a.x, a.ld), bg_f32(BG_T, w, site->n_in),
                    accumulate ? 1.0f : 0.0f, y.x + r, y.ld);
    }
    if (site->lora_a != NULL) {
        bg_pass_lora_hidden(p, site, rows, a);
        bg_pass_lora_output(p, site, rows, y);
    }
    bg_pass_poke(p);
}

void bg_pass_linear(bg_pass *p, const bg_site *site, size_t rows, bg_in a, bg_out y, bool accumulate)
{
    bg_pass_times(p, site, rows, a, y, accumulate);
    if (site->bias != NULL)
        bg_add_bias(rows, site->n_out, site->bias, y);
}

void bg_pass_linear_back(bg_pass *p, const bg_site *site, size_t rows, bg_in dy, bg_out dx, bool accumulate)
{
    const bg_tensor *t = site->weight;
    size_t step = bg_pass_weight_rows(p, t);
    for (size_t r = 0; r < t->shape[0]; r += step) {
        size_t n = t->shape[0] - r < step ? t->shape[0] - r : step;
        const float *w = bg_pass_weight(p, t, r, n);
        if (p->model->config.transposed)
            bg_gemm((bg_extent){ rows, n, site->n_out }, 1.0f, bg_f32(BG_N, dy.x, dy.ld), bg_f32(BG_T, w, site->n_out),
                    accumulate ? 1.0f : 0.0f, dx.x + r, dx.ld);
        else
            bg_gemm((bg_extent){ rows, site->n_in, n }, 1.0f, bg_f32(BG_N, dy.x + r, dy.ld),
                    bg_f32(BG_N, w, site->n_in), accumulate || r > 0 ? 1.0f : 0.0f, dx.x, dx.ld);
    }
    if (site->lora_a != NULL) {
        const bg_site *s = site->lora_a;
        bg_pass_lora_back(p, site, rows, dy);
        bg_gemm((bg_extent){ rows, s->n_in, s->n_out }, 1.0f, bg_f32(BG_N, p->dlora, s->n_out),
                bg_f32(BG_N, bg_pass_weight(p, s->weight, 0, s->n_out), s->n_in), 1.0f, dx.x, dx.ld);
    }
    bg_pass_poke(p);
}

void bg_direction_apply(const bg_direction *v, const bg_site *site, size_t rows, bg_in a, float *product, bg_out y)
{
    size_t p = site->n_out, m = site->n_in1, r = v->rank;
    if (v->left == NULL)
        return;
    if (r == 0) {
        bg_gemm((bg_extent){ rows, p, m }, 1.0f, bg_f32(BG_N, a.x, a.ld), bg_f32(BG_T, v->left, v->ld_left), 1.0f, y.x,
                y.ld);
        return;
    }
    bg_gemm((bg_extent){ rows, r, m }, 1.0f, bg_f32(BG_N, a.x, a.ld), bg_f32(BG_N, v->right, v->ld_right), 0.0f,
            product, r);
    bg_gemm((bg_extent){ rows, p, r }, 1.0f, bg_f32(BG_N, product, r), bg_f32(BG_T, v->left, v->ld_left), 1.0f, y.x,
            y.ld);
}
