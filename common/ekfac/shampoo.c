#include "shampoo.h"

#include <string.h>

#include "bregman/gemm.h"
#include "bregman/kernels.h"

/* How a sequence's G Gᵀ and Gᵀ G are made. */
typedef enum { BY_TOKENS, BY_GRAM, BY_GRADIENT } form;

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* ---- which is the cheaper one ---- */

static bg_cost cost_of(const bg_site *site, form f, size_t rows)
{
    double p = (double)site->n_out, m = (double)site->n_in1, t = (double)rows;
    bg_cost c = { 0 };
    if (f == BY_TOKENS) {
        c.of[BG_COST_SERIAL] += 2 * t * p;
        bg_symmetric_cost(&c, site->s, t);
    } else if (f == BY_GRAM) {
        bg_cost_product(&c, t, t, m, 1);
        bg_cost_product(&c, t, p, t, 1);
        bg_symmetric_cost(&c, site->s, t);
        bg_cost_product(&c, t, t, p, 1);
        bg_cost_product(&c, t, m, t, 1);
        bg_symmetric_cost(&c, site->a, t);
    } else {
        bg_cost_product(&c, p, m, t, 1);
        bg_symmetric_cost(&c, site->s, m);
        bg_symmetric_cost(&c, site->a, p);
    }
    return c;
}

static form form_of(const bg_site *site, size_t rows)
{
    if (site->kind == BG_SITE_EMBEDDING)
        return BY_TOKENS;
    return cost_of(site, BY_GRAM, rows).flops < cost_of(site, BY_GRADIENT, rows).flops ? BY_GRAM : BY_GRADIENT;
}

void bg_shampoo_cost(bg_cost *cost, const bg_site *site, size_t rows, double sequences)
{
    const bg_cost one = cost_of(site, form_of(site, rows), rows);
    bg_cost_add(cost, &one, sequences);
}

static size_t floats_of(const bg_site *site, form f, size_t rows)
{
    return f == BY_TOKENS     ? rows * site->n_out
           : f == BY_GRADIENT ? site->n_out * site->n_in1
                              : rows * (rows + larger(site->n_out, site->n_in1));
}

/* The gram matrices' FLOPs less G's are convex in T and not above 0 at T = 0: from some T on G is the cheaper one, and
 * the longest sequence before that takes most room of those with gram matrices. */
size_t bg_shampoo_floats(const bg_site *site, size_t rows)
{
    size_t gram = 0, gradient = rows;
    if (form_of(site, rows) != BY_GRADIENT)
        return floats_of(site, form_of(site, rows), rows);
    while (gradient - gram > 1) {
        size_t middle = gram + (gradient - gram) / 2;
        if (form_of(site, middle) == BY_GRAM)
            gram = middle;
        else
            gradient = middle;
    }
    return larger(floats_of(site, BY_GRADIENT, rows), floats_of(site, BY_GRAM, gram));
}

/* ---- the sums ---- */

/* sum += Xᵀ (Y Yᵀ) X over a sequence's rows, of x [rows, s.n] and y [rows, width]. */
static void add_by_gram(bg_symmetric s, float *sum, size_t rows, bg_in x, bg_in y, size_t width, float *room)
{
    float *gram = room, *product = room + rows * rows;
    bg_gemm((bg_extent){ rows, rows, width }, 1.0f, bg_f32(BG_N, y.x, y.ld), bg_f32(BG_T, y.x, y.ld), 0.0f, gram, rows);
    bg_gemm((bg_extent){ rows, s.n, rows }, 1.0f, bg_f32(BG_N, gram, rows), bg_f32(BG_N, x.x, x.ld), 0.0f, product,
            s.n);
    bg_symmetric_add_product(s, sum, rows, bg_f32(BG_T, x.x, x.ld), bg_f32(BG_N, product, s.n));
}

/* Column j of G is the sum of the rows of δ that read token j.  It takes the row of the first of them, the others' are
 * 0: so the products are as many whatever the tokens are. */
static void add_by_tokens(const bg_pair *pair, size_t first, size_t rows, float *g, float *left, float *right)
{
    const bg_site *site = pair->site;
    size_t p = site->n_out;
    memset(g, 0, rows * p * sizeof *g);
    for (size_t i = 0; i < rows; i++) {
        size_t at = 0;
        while (pair->token[first + at] != pair->token[first + i])
            at++;
        bg_add(1, p, (bg_in){ pair->gradient + (first + i) * pair->ld_gradient, p }, (bg_out){ g + at * p, p });
    }
    bg_symmetric_add(site->s, left, rows, g, p);
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < p; j++)
            right[pair->token[first + i]] += g[i * p + j] * g[i * p + j];
}

void bg_shampoo_add(const bg_pair *pair, size_t i, float *room, float *left, float *right)
{
    const bg_site *site = pair->site;
    size_t first = pair->row_start[i], rows = pair->row_start[i + 1] - first, p = site->n_out, m = site->n_in1;
    form f = form_of(site, rows);
    if (f == BY_TOKENS) {
        add_by_tokens(pair, first, rows, room, left, right);
    } else if (f == BY_GRAM) {
        const bg_in a = { pair->activation + first * pair->ld_activation, pair->ld_activation },
                    d = { pair->gradient + first * pair->ld_gradient, pair->ld_gradient };
        add_by_gram(site->s, left, rows, d, a, m, room);
        add_by_gram(site->a, right, rows, a, d, p, room);
    } else {
        bg_pair_gradient(pair, first, rows, room);
        bg_symmetric_add_product(site->s, left, m, bg_f32(BG_N, room, m), bg_f32(BG_T, room, m));
        bg_symmetric_add(site->a, right, p, room, m);
    }
}
