#include "bregman/score.h"

#include <string.h>

#include "bregman/gemm.h"
#include "bregman/kernels.h"
#include "bregman/memory.h"

enum { PRODUCT_BYTES = 32 << 20 }; /* the two thin products of a chunk of rows */

struct bg_scorer {
    const bg_model *model;
    const bg_queries *queries;
    bg_score_task task;
    size_t *n_of;            /* [n_shares] bytes of a unit's results from each */
    size_t n_layers;         /* of the model; of the share if this is not the first rank */
    size_t first_layer;      /* of the share's, among the model's */
    size_t sequences, rows;  /* of the unit in hand */
    double *layer;           /* [n_layers, sequences, Q] */
    float *token;            /* [n_layers, rows, Q], in place of it */
    size_t chunk;            /* rows at a time */
    float *left, *right;     /* [chunk, Q r] */
    float *dot;              /* [chunk, Q] */
    uint64_t first;          /* the batch's first sequence in the unit */
    size_t row0, batch_rows; /* the batch's first row in the unit, and its rows */
};

static size_t chunk_rows(size_t columns, size_t batch_rows)
{
    size_t rows = PRODUCT_BYTES / (2 * sizeof(float) * columns);
    rows = rows < 64 ? 64 : rows > 8192 ? 8192 : rows;
    return rows < batch_rows ? rows : batch_rows;
}

/* Bytes of results with this many layers, sequences and rows. */
static size_t result_bytes(const bg_score_task *t, size_t n_queries, size_t layers, size_t sequences, size_t rows)
{
    size_t n = layers * n_queries;
    return t->detail == BG_SCORE_TOKENS ? n * rows * sizeof(float) : n * sequences * sizeof(double);
}

static size_t unit_bytes(const bg_score_task *t, size_t n_queries, size_t layers)
{
    return result_bytes(t, n_queries, layers, t->unit_sequences, t->unit_rows);
}

/* The first rank gathers those of all. */
static size_t kept_layers(const bg_score_task *t, const bg_model *model)
{
    return t->rank == 0 ? bg_model_layers(model) : bg_share_layers(model, &t->share[t->rank]);
}

size_t bg_scorer_bytes(const bg_score_task *t, const bg_queries_extent *q, const bg_model *model)
{
    return chunk_rows(q->columns, t->batch_rows) * (2 * q->columns + q->n_queries) * sizeof(float) +
           unit_bytes(t, q->n_queries, kept_layers(t, model));
}

void bg_scorer_cost(bg_cost *cost, const bg_queries_extent *q, size_t rank, const bg_model *model,
                    const bg_share *share, size_t rows)
{
    size_t chunk = chunk_rows(q->columns, rows);
    for (size_t i = share->first_tracked; i < share->end_tracked; i++) {
        const bg_site *site = model->tracked[i];
        double columns = (double)(q->n_queries * bg_queries_columns(site, rank));
        for (size_t r0 = 0; r0 < rows; r0 += chunk) {
            double n = (double)(rows - r0 < chunk ? rows - r0 : chunk);
            bg_cost_product(cost, n, columns, (double)site->n_out, 1);
            if (site->kind != BG_SITE_EMBEDDING)
                bg_cost_product(cost, n, columns, (double)site->n_in1, 1);
        }
        cost->of[BG_COST_DOT] += (double)rows * columns;
        cost->of[BG_COST_SERIAL] += (double)(rows * q->n_queries);
    }
}

static bg_status take_memory(bg_scorer *s, bg_err *err)
{
    const bg_queries_extent *q = &s->queries->extent;
    void *result = bg_alloc(unit_bytes(&s->task, q->n_queries, s->n_layers), 1, "scores of a unit", err);
    bg_status st = bg_allocated(result);
    if (s->task.detail == BG_SCORE_TOKENS)
        s->token = result;
    else
        s->layer = result;
    if (st == BG_OK)
        st = BG_NEW(s->n_of, (size_t)s->task.n_shares, "scores of a unit", err);
    if (st == BG_OK)
        st = BG_NEW(s->left, s->chunk * q->columns, "score products", err);
    if (st == BG_OK)
        st = BG_NEW(s->right, s->chunk * q->columns, "score products", err);
    return st == BG_OK ? BG_NEW(s->dot, s->chunk * q->n_queries, "score products", err) : st;
}

bg_status bg_scorer_new(bg_scorer **out, const bg_score_task *task, const bg_queries *queries, const bg_model *model,
                        bg_err *err)
{
    bg_scorer *s = NULL;
    *out = NULL;
    bg_status st = BG_NEW(s, 1, "scorer", err);
    if (st != BG_OK)
        return st;
    s->model = model;
    s->queries = queries;
    for (int r = 0; r < task->rank; r++)
        s->first_layer += bg_share_layers(model, &task->share[r]);
    s->task = *task;
    s->n_layers = kept_layers(task, model);
    s->chunk = chunk_rows(queries->extent.columns, task->batch_rows);
    st = take_memory(s, err);
    if (st != BG_OK) {
        bg_scorer_free(s);
        return st;
    }
    *out = s;
    return BG_OK;
}

size_t bg_scorer_gather_bytes(const bg_scorer *s)
{
    return unit_bytes(&s->task, s->queries->extent.n_queries, bg_share_layers(s->model, &s->task.share[s->task.rank]));
}

void bg_scorer_free(bg_scorer *s)
{
    if (s == NULL)
        return;
    bg_free(s->n_of);
    bg_free(s->layer);
    bg_free(s->token);
    bg_free(s->left);
    bg_free(s->right);
    bg_free(s->dot);
    bg_free(s);
}

void bg_scorer_begin_unit(bg_scorer *s, size_t n_sequences, size_t n_rows, size_t row0)
{
    size_t bytes = result_bytes(&s->task, s->queries->extent.n_queries, s->n_layers, n_sequences, n_rows);
    s->sequences = n_sequences;
    s->rows = n_rows;
    memset(s->task.detail == BG_SCORE_TOKENS ? (void *)s->token : (void *)s->layer, 0, bytes);
    s->row0 = row0;
    s->batch_rows = 0;
}

void bg_scorer_begin_batch(bg_scorer *s, const bg_batch *batch, uint64_t first)
{
    s->first = first;
    s->row0 += s->batch_rows;
    s->batch_rows = batch->n_rows;
}

/* Add rows [r0, r0 + n) of one module to what is kept; dot [n, Q]. */
static void keep(bg_scorer *s, const bg_pair *pair, size_t r0, size_t n)
{
    size_t nq = s->queries->extent.n_queries, layer = pair->site->layer - s->first_layer, z = 0;
    for (size_t i = 0; i < n && s->task.detail == BG_SCORE_TOKENS; i++) {
        float *to = s->token + (layer * s->rows + s->row0 + bg_pair_row(pair, r0 + i)) * nq;
        for (size_t q = 0; q < nq; q++)
            to[q] += s->dot[i * nq + q];
    }
    for (size_t i = 0; i < n && s->task.detail != BG_SCORE_TOKENS; i++) {
        while (pair->row_start[z + 1] <= r0 + i)
            z++;
        double *to = s->layer + (layer * s->sequences + s->first + bg_pair_sequence(pair, z)) * nq;
        for (size_t q = 0; q < nq; q++)
            to[q] += (double)s->dot[i * nq + q];
    }
}

/* a V of one-hot rows a. */
static void take_rows(size_t n, size_t columns, const float *v, const uint32_t *token, float *out)
{
    for (size_t i = 0; i < n; i++)
        memcpy(out + i * columns, v + token[i] * columns, columns * sizeof *out);
}

bg_status bg_scorer_pair(void *scorer, const bg_pair *pair, bg_err *err)
{
    bg_scorer *s = scorer;
    const bg_site *site = pair->site;
    const bg_site_queries *m = &s->queries->site[site->index];
    size_t columns = s->queries->extent.n_queries * m->r, rows = pair->n_rows;
    (void)err;
    for (size_t r0 = 0; r0 < rows; r0 += s->chunk) {
        size_t n = rows - r0 < s->chunk ? rows - r0 : s->chunk;
        bg_gemm((bg_extent){ n, columns, site->n_out }, 1.0f,
                bg_f32(BG_N, pair->gradient + r0 * pair->ld_gradient, pair->ld_gradient), bg_f32(BG_N, m->u, columns),
                0.0f, s->left, columns);
        if (pair->token != NULL)
            take_rows(n, columns, m->v, pair->token + r0, s->right);
        else
            bg_gemm((bg_extent){ n, columns, site->n_in1 }, 1.0f,
                    bg_f32(BG_N, pair->activation + r0 * pair->ld_activation, pair->ld_activation),
                    bg_f32(BG_N, m->v, columns), 0.0f, s->right, columns);
        bg_group_dot(n, s->queries->extent.n_queries, m->r, (bg_in){ s->left, columns }, (bg_in){ s->right, columns },
                     (bg_out){ s->dot, s->queries->extent.n_queries });
        keep(s, pair, r0, n);
    }
    return BG_OK;
}

bg_status bg_scorer_gather(bg_scorer *s, bg_pipeline *l, bg_err *err)
{
    size_t layer_bytes = result_bytes(&s->task, s->queries->extent.n_queries, 1, s->sequences, s->rows);
    char *own = s->task.detail == BG_SCORE_TOKENS ? (char *)s->token : (char *)s->layer;
    for (int r = 0; r < s->task.n_shares; r++)
        s->n_of[r] = bg_share_layers(s->model, &s->task.share[r]) * layer_bytes;
    return bg_pipeline_gather(l, own, s->n_of[s->task.rank], own + s->n_of[0], s->n_of, err);
}

void bg_scorer_scores(const bg_scorer *s, float *out)
{
    size_t n = s->sequences * s->queries->extent.n_queries;
    for (size_t i = 0; i < n; i++) {
        double sum = 0;
        for (size_t l = 0; l < s->n_layers; l++)
            sum += s->layer[l * n + i];
        out[i] = (float)sum;
    }
}

void bg_scorer_layers(const bg_scorer *s, float *out)
{
    size_t n = s->sequences * s->queries->extent.n_queries;
    for (size_t i = 0; i < n; i++)
        for (size_t l = 0; l < s->n_layers; l++)
            out[i * s->n_layers + l] = (float)s->layer[l * n + i];
}

void bg_scorer_tokens(const bg_scorer *s, size_t row, size_t query, float *out)
{
    for (size_t l = 0; l < s->n_layers; l++)
        out[l] = s->token[(l * s->rows + row) * s->queries->extent.n_queries + query];
}
