#include "bregman/products.h"

#include <string.h>

#include "bregman/gemm.h"
#include "bregman/kernels.h"
#include "bregman/memory.h"

enum { PRODUCT_BYTES = 32 << 20 /* of the two thin products */, LEAST_ROWS = 64 };

static size_t rows_for(size_t columns)
{
    size_t rows = PRODUCT_BYTES / (2 * sizeof(float) * columns);
    return rows > LEAST_ROWS ? rows : LEAST_ROWS;
}

size_t bg_products_rows(const bg_query_group *g) { return rows_for(g->n * g->r); }

/* Floats of one product, whatever columns a group has. */
static size_t product_floats(const bg_queries_extent *q, size_t most_rows)
{
    size_t columns = bg_queries_group_columns(q), most = PRODUCT_BYTES / (2 * sizeof(float));
    most = columns * LEAST_ROWS > most ? columns * LEAST_ROWS : most;
    return columns * most_rows < most ? columns * most_rows : most;
}

/* As if each query had one column: no group has more of them. */
static size_t dot_floats(const bg_queries_extent *q, size_t most_rows)
{
    size_t floats = (q->n_queries < BG_GROUP_COLUMNS ? q->n_queries : BG_GROUP_COLUMNS) * most_rows;
    return floats < product_floats(q, most_rows) ? floats : product_floats(q, most_rows);
}

size_t bg_products_bytes(const bg_queries_extent *q, size_t most_rows)
{
    return (2 * product_floats(q, most_rows) + dot_floats(q, most_rows)) * sizeof(float);
}

bg_status bg_products_init(bg_products *p, const bg_queries_extent *q, size_t most_rows, bg_err *err)
{
    *p = (bg_products){ 0 };
    bg_status st = BG_NEW(p->left, product_floats(q, most_rows), "score products", err);
    if (st == BG_OK)
        st = BG_NEW(p->right, product_floats(q, most_rows), "score products", err);
    return st == BG_OK ? BG_NEW(p->dot, dot_floats(q, most_rows), "score products", err) : st;
}

void bg_products_clear(bg_products *p)
{
    bg_free(p->left);
    bg_free(p->right);
    bg_free(p->dot);
    *p = (bg_products){ 0 };
}

/* a V of one-hot rows a. */
static void take_rows(size_t n, size_t columns, const float *v, const uint32_t *token, float *out)
{
    for (size_t i = 0; i < n; i++)
        memcpy(out + i * columns, v + token[i] * columns, columns * sizeof *out);
}

const float *bg_products_dot(bg_products *p, const bg_pair *pair, size_t first, size_t n, const bg_query_group *g)
{
    size_t columns = g->n * g->r;
    bg_gemm((bg_extent){ n, columns, pair->site->n_out }, 1.0f,
            bg_f32(BG_N, pair->gradient + first * pair->ld_gradient, pair->ld_gradient), bg_f32(BG_N, g->u, columns),
            0.0f, p->left, columns);
    if (pair->token != NULL)
        take_rows(n, columns, g->v, pair->token + first, p->right);
    else
        bg_gemm((bg_extent){ n, columns, pair->site->n_in1 }, 1.0f,
                bg_f32(BG_N, pair->activation + first * pair->ld_activation, pair->ld_activation),
                bg_f32(BG_N, g->v, columns), 0.0f, p->right, columns);
    bg_group_dot(n, g->n, g->r, (bg_in){ p->left, columns }, (bg_in){ p->right, columns }, (bg_out){ p->dot, g->n });
    return p->dot;
}
