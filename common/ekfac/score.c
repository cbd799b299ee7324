#include "bregman/score.h"

#include <math.h>

size_t bg_scorer_bytes(const bg_score_task *t, const bg_queries_extent *q)
{
    size_t sent = t->rank > 0 ? bg_score_sums_gather_bytes(t, q->n_queries) : 0; /* a copy, on its way */
    size_t norms = t->gradient_norms ? bg_gradient_norm_bytes(t->batch_rows) : 0;
    return bg_products_bytes(q, t->batch_rows) + bg_score_sums_bytes(t, q->n_queries) + sent + norms;
}

void bg_scorer_cost(bg_cost *cost, const bg_queries_extent *q, size_t most_columns, const bg_model *model,
                    const bg_share *share, size_t batch_rows)
{
    for (size_t i = share->sites.first; i < share->sites.end; i++) {
        const bg_site *site = model->tracked[i];
        size_t rows = (size_t)ceil(bg_model_site_rows(model, site, (double)batch_rows));
        bg_query_group g = { .r = bg_queries_columns(site, most_columns) };
        for (g.first = 0; g.first < q->n_queries; g.first += g.n) {
            g.n = bg_queries_in_group(g.r, q->n_queries - g.first);
            double times = (double)((rows + bg_products_rows(&g) - 1) / bg_products_rows(&g)), n = (double)rows / times;
            bg_cost_product(cost, n, (double)(g.n * g.r), (double)site->n_out, times);
            if (site->kind != BG_SITE_EMBEDDING)
                bg_cost_product(cost, n, (double)(g.n * g.r), (double)site->n_in1, times);
        }
        cost->of[BG_COST_DOT] += (double)(rows * q->n_queries * g.r);
        cost->of[BG_COST_SERIAL] += (double)(rows * q->n_queries);
    }
}

/* Behind the queries' columns. */
static void add_norms(const bg_scorer *s, const bg_pair *pair)
{
    for (size_t i = 0; i < pair->n_sequences; i++) {
        if (pair->row_start[i + 1] == pair->row_start[i]) /* the site has read none of this sequence */
            continue;
        float square = (float)bg_gradient_norm_square(s->norm, pair, i);
        bg_score_sums_add(s->sums, pair, (bg_dots){ pair->row_start[i], 1, s->queries->extent.n_queries, 1, &square });
    }
}

bg_status bg_scorer_pair(void *scorer, const bg_pair *pair, bg_err *err)
{
    const bg_scorer *s = scorer;
    bg_query_group g = { 0 };
    (void)err;
    for (size_t q = 0; q < s->queries->extent.n_queries; q += g.n) {
        g = bg_queries_group(s->queries, pair->site, q);
        size_t most = bg_products_rows(&g);
        for (size_t row = 0, n; row < pair->n_rows; row += n) {
            n = pair->n_rows - row < most ? pair->n_rows - row : most;
            const float *dot = bg_products_dot(s->products, pair, row, n, &g);
            bg_score_sums_add(s->sums, pair, (bg_dots){ row, n, q, g.n, dot });
        }
        bg_queries_let_go(s->queries, pair->site, &g);
    }
    if (s->norm != NULL)
        add_norms(s, pair);
    return BG_OK;
}
