/* products.h - the rows of a pair against compressed queries: δ_tᵀ U Vᵀ a_t (math.md M10).
 *
 * Two thin products with the columns of a group of queries side by side, and a row-wise dot product a query.
 */
#ifndef BG_PRODUCTS_H
#define BG_PRODUCTS_H

#include "bregman/queries.h"
#include "bregman/tap.h"

typedef struct {
    float *left, *right; /* [rows, columns of a group] */
    float *dot;          /* [rows, queries of a group] */
} bg_products;

/* For pairs of up to most_rows rows.  Clear with bg_products_clear, also after an error.  Errors: BG_ENOMEM. */
bg_status bg_products_init(bg_products *p, const bg_queries_extent *q, size_t most_rows, bg_err *err) BG_MUST_CHECK;
void bg_products_clear(bg_products *p);
/* Bytes that bg_products_init would take. */
size_t bg_products_bytes(const bg_queries_extent *q, size_t most_rows);

/* Rows that a group is multiplied with at a time: they depend on its columns only. */
size_t bg_products_rows(const bg_query_group *g);
/* Rows [first, first + n) of a pair, n up to that, against a group of its module's queries.  Returns dot [n, g->n],
 * valid until the next call. */
const float *bg_products_dot(bg_products *p, const bg_pair *pair, size_t first, size_t n, const bg_query_group *g);

#endif /* BG_PRODUCTS_H */
