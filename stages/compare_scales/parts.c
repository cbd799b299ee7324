/* parts.c - what a score is made of: layers, and token scores. */
#include <math.h>
#include <string.h>

#include "bregman/memory.h"
#include "compare_scales.h"

size_t compare_first_layer(const comparison *w, size_t model)
{
    size_t first = 0;
    for (size_t m = 0; m < model; m++)
        first += w->model[m].n_layers;
    return first;
}

/* ---- layers ---- */

/* Add one sequence's layers to sum [n_layers].  x: room for all queries' layers. */
static bg_status add_layers(const comparison *w, const ranked_model *m, size_t query, uint64_t sequence, float *x,
                            double *sum, bg_err *err)
{
    uint64_t row = 0;
    bg_store *s = NULL;
    bg_status st = compare_find_row(m, sequence, &s, &row, err);
    if (st == BG_OK)
        st = bg_store_read_rows(s, "layer_score", BG_F32, (bg_slab){ row, 1, w->n_queries * m->n_layers }, x, err);
    for (size_t l = 0; l < m->n_layers && st == BG_OK; l++)
        sum[l] += (double)x[m->query[query] * m->n_layers + l];
    bg_store_close(s);
    return st;
}

bg_status compare_layers(comparison *w, size_t model, size_t query, bg_err *err)
{
    const ranked_model *m = &w->model[model];
    if (model == w->n_rankings || m->n_layers == 0)
        return BG_OK;
    const int64_t *top = w->v.top_sequence + (model * w->n_queries + query) * w->k;
    size_t first = compare_first_layer(w, model);
    float *x = NULL;
    double *sum = NULL, all = 0;
    bg_status st = BG_NEW(x, w->n_queries * m->n_layers, "layer scores", err);
    if (st == BG_OK)
        st = BG_NEW(sum, m->n_layers, "layer scores", err);
    for (size_t i = 0; i < w->k && st == BG_OK && top[i] >= 0; i++)
        st = add_layers(w, m, query, (uint64_t)top[i], x, sum, err);
    for (size_t l = 0; l < m->n_layers && st == BG_OK; l++)
        all += sum[l];
    for (size_t l = 0; l < m->n_layers && st == BG_OK; l++)
        w->v.layer_share[(first + l) * w->n_queries + query] = all != 0 ? sum[l] / all : nan("");
    bg_free(x);
    bg_free(sum);
    return st;
}

/* ---- token scores ---- */

static double sparsity(const float *x, size_t n)
{
    double l1 = 0, l2 = 0;
    for (size_t i = 0; i < n; i++) {
        l1 += fabs((double)x[i]);
        l2 += (double)x[i] * (double)x[i];
    }
    return l1 > 0 ? sqrt(l2) / l1 : nan("");
}

/* Token scores of one ranked sequence. */
static bg_status read_sparsity(const bg_store *s, uint64_t at, uint32_t n, double *out, bg_err *err)
{
    float *x = NULL;
    bg_status st = BG_NEW(x, n, "token scores", err);
    if (st == BG_OK && n > 0)
        st = bg_store_read_rows(s, "top/token_score", BG_F32, (bg_slab){ at, n, 1 }, x, err);
    if (st == BG_OK)
        *out = sparsity(x, n);
    bg_free(x);
    return st;
}

/* Of those of a query's best sequences that the ranking lists, too: it may be of more than what all have scored. */
static bg_status search_ranking(const comparison *w, const ranked_model *m, size_t query, const int64_t *top,
                                double *out, bg_err *err)
{
    size_t row = m->query[query] * m->r.k;
    uint64_t dims[2] = { m->r.n_queries, m->r.k }, at = 0;
    uint32_t *count = NULL;
    bg_store *s = NULL;
    bg_status st = bg_store_open(&s, m->path, "bregman/ranking", err);
    if (st == BG_OK)
        st = BG_NEW(count, dims[0] * dims[1], "lengths of ranked sequences", err);
    if (st == BG_OK)
        st = bg_store_read(s, "top/count", BG_U32, dims, count, err);
    for (size_t i = 0; i < row + m->r.k && st == BG_OK; at += count[i++])
        for (size_t k = 0; i >= row && k < w->k && st == BG_OK; k++)
            if (top[k] >= 0 && top[k] == m->r.side[BG_TOP].sequence[i])
                st = read_sparsity(s, at, count[i], &out[k], err);
    bg_free(count);
    bg_store_close(s);
    return st;
}

bg_status compare_sparsity(comparison *w, size_t model, size_t query, bg_err *err)
{
    size_t cell = (model * w->n_queries + query) * w->k;
    for (size_t i = 0; i < w->k; i++)
        w->v.top_sparsity[cell + i] = nan("");
    if (model == w->n_rankings || w->model[model].r.explained == NULL)
        return BG_OK;
    return search_ranking(w, &w->model[model], query, w->v.top_sequence + cell, w->v.top_sparsity + cell, err);
}
