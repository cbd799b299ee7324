#include "bregman/gradient_norm.h"

#include "bregman/gemm.h"
#include "bregman/memory.h"

enum { PANEL = 64 }; /* rows whose products with all others are formed at a time */

size_t bg_gradient_norm_bytes(size_t most_rows) { return 2 * PANEL * most_rows * sizeof(float); }

bg_status bg_gradient_norm_init(bg_gradient_norm *g, size_t most_rows, bg_err *err)
{
    *g = (bg_gradient_norm){ 0 };
    bg_status st = BG_NEW(g->delta, PANEL * most_rows, "products of rows", err);
    return st == BG_OK ? BG_NEW(g->a, PANEL * most_rows, "products of rows", err) : st;
}

void bg_gradient_norm_clear(bg_gradient_norm *g)
{
    bg_free(g->delta);
    bg_free(g->a);
    *g = (bg_gradient_norm){ 0 };
}

/* out [n, rows]: inner products of rows [first, first + n) of x with all. */
static void multiply(const float *x, size_t ld, size_t width, size_t first, size_t n, size_t rows, float *out)
{
    bg_gemm((bg_extent){ n, rows, width }, 1.0f, bg_f32(BG_N, x + first * ld, ld), bg_f32(BG_T, x, ld), 0.0f, out,
            rows);
}

/* Of one-hot rows: 1 where two have the same token. */
static void compare(const uint32_t *token, size_t first, size_t n, size_t rows, float *out)
{
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < rows; j++)
            out[i * rows + j] = token[first + i] == token[j] ? 1.0f : 0.0f;
}

double bg_gradient_norm_square(bg_gradient_norm *g, const bg_pair *pair, size_t i)
{
    size_t row0 = pair->row_start[i], rows = pair->row_start[i + 1] - row0;
    double sum = 0;
    for (size_t first = 0, n; first < rows; first += n) {
        n = rows - first < PANEL ? rows - first : PANEL;
        multiply(pair->gradient + row0 * pair->ld_gradient, pair->ld_gradient, pair->site->n_out, first, n, rows,
                 g->delta);
        if (pair->token != NULL)
            compare(pair->token + row0, first, n, rows, g->a);
        else
            multiply(pair->activation + row0 * pair->ld_activation, pair->ld_activation, pair->site->n_in1, first, n,
                     rows, g->a);
        for (size_t k = 0; k < n * rows; k++)
            sum += (double)g->delta[k] * (double)g->a[k];
    }
    return sum > 0 ? sum : 0; /* rounding may leave a gradient of zeros a little below */
}

void bg_gradient_norm_cost(bg_cost *cost, const bg_model *model, const bg_share *share, double sequences,
                           double rows_of_all)
{
    for (size_t i = share->sites.first; i < share->sites.end; i++) {
        const bg_site *site = model->tracked[i];
        double rows = bg_model_site_rows(model, site, rows_of_all);
        bg_cost_product(cost, rows, rows, (double)site->n_out, sequences);
        if (site->kind != BG_SITE_EMBEDDING)
            bg_cost_product(cost, rows, rows, (double)site->n_in1, sequences);
        cost->of[BG_COST_SERIAL] += sequences * rows * rows;
    }
}
