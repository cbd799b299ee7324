#include "bregman/products.h"

#include "bregman/gemm.h"
#include "bregman/kernels.h"
#include "bregman/memory.h"

enum { PRODUCT_BYTES = 32 << 20 }; /* of the two thin products */

/* Queries of a group at most, also of a module where each has one column. */
static size_t most_queries(const bg_queries_extent *q)
{
    return q->n_queries < BG_GROUP_COLUMNS ? q->n_queries : BG_GROUP_COLUMNS;
}

static size_t rows_for(const bg_queries_extent *q, size_t most_rows)
{
    size_t rows = PRODUCT_BYTES / (2 * sizeof(float) * bg_queries_group_columns(q));
    rows = rows < 64 ? 64 : rows > 8192 ? 8192 : rows;
    return rows < most_rows ? rows : most_rows;
}

size_t bg_products_bytes(const bg_queries_extent *q, size_t most_rows)
{
    return rows_for(q, most_rows) * (2 * bg_queries_group_columns(q) + most_queries(q)) * sizeof(float);
}

bg_status bg_products_init(bg_products *p, const bg_queries_extent *q, size_t most_rows, bg_err *err)
{
    size_t columns = bg_queries_group_columns(q);
    *p = (bg_products){ .rows = rows_for(q, most_rows) };
    bg_status st = BG_NEW(p->left, p->rows * columns, "score products", err);
    if (st == BG_OK)
        st = BG_NEW(p->right, p->rows * columns, "score products", err);
    return st == BG_OK ? BG_NEW(p->dot, p->rows * most_queries(q), "score products", err) : st;
}

void bg_products_clear(bg_products *p)
{
    bg_free(p->left);
    bg_free(p->right);
    bg_free(p->dot);
    *p = (bg_products){ 0 };
}

const float *bg_products_dot(bg_products *p, const bg_pair *pair, size_t first, size_t n, const bg_query_group *g)
{
    size_t columns = g->n * g->r;
    bg_gemm((bg_extent){ n, columns, pair->site->n_out }, 1.0f,
            bg_f32(BG_N, pair->gradient + first * pair->ld_gradient, pair->ld_gradient), bg_f32(BG_N, g->u, columns),
            0.0f, p->left, columns);
    bg_gemm((bg_extent){ n, columns, pair->site->n_in1 }, 1.0f,
            bg_f32(BG_N, pair->activation + first * pair->ld_activation, pair->ld_activation),
            bg_f32(BG_N, g->v, columns), 0.0f, p->right, columns);
    bg_group_dot(n, g->n, g->r, (bg_in){ p->left, columns }, (bg_in){ p->right, columns }, (bg_out){ p->dot, g->n });
    return p->dot;
}
