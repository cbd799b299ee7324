#include "bregman/score.h"

#include <stdlib.h>
#include <string.h>

#include "bregman/gemm.h"
#include "bregman/kernels.h"
#include "bregman/log.h"
#include "bregman/memory.h"

enum { PRODUCT_BYTES = 32 << 20 }; /* the two thin products of a chunk of rows */

/* One module's queries, side by side: query q has columns [q r, (q + 1) r). */
typedef struct {
    size_t r;
    float *u; /* [P, Q r] */
    float *v; /* [M, Q r] */
} module_queries;

struct bg_scorer {
    const bg_model *model;
    const bg_share *share; /* [n_shares] */
    int n_shares, rank;
    size_t *n_of; /* [n_shares] bytes of a unit's results from each */
    bg_score_detail detail;
    size_t n_queries, n_layers; /* layers of the model; of the share if this is not the first rank */
    char **id;
    module_queries *module;           /* [n_tracked], of the share */
    size_t unit_sequences, unit_rows; /* most of a unit */
    size_t sequences, rows;           /* of the unit in hand */
    double *layer;                    /* [n_layers, sequences, Q] */
    float *token;                     /* [n_layers, rows, Q], in place of it */
    size_t chunk;                     /* rows at a time */
    float *left, *right;              /* [chunk, Q r] */
    float *dot;                       /* [chunk, Q] */
    uint64_t first;                   /* the batch's first sequence in the unit */
    size_t row0, batch_rows;          /* the batch's first row in the unit, and its rows */
};

/* dataset [Q, n, r] -> side by side [n, Q r] */
static bg_status load_side(const bg_store *f, const char *name, const bg_module *mod, size_t n_queries, size_t n,
                           size_t *r, float **out, bg_err *err)
{
    char path[BG_PATH_BYTES];
    uint64_t dims[3];
    float *one = NULL;
    bg_status st = bg_path(path, err, "%s/%s", mod->name, name);
    if (st == BG_OK)
        st = bg_store_dims(f, path, 3, dims, err);
    if (st == BG_OK && dims[1] != n)
        st = BG_FAIL(err, BG_ESHAPE, "%s: %s has a side of %llu, but the model makes it %zu", bg_store_path(f), path,
                     (unsigned long long)dims[1], n);
    if (st != BG_OK)
        return st;
    *r = dims[2];
    st = BG_NEW(*out, n * n_queries * *r, "compressed queries", err);
    if (st == BG_OK)
        st = BG_NEW(one, n * *r, "compressed queries", err);
    for (size_t q = 0; q < n_queries && st == BG_OK; q++) {
        st = bg_store_read_rows(f, path, BG_F32, (bg_slab){ q, 1, n * *r }, one, err);
        for (size_t i = 0; i < n && st == BG_OK; i++)
            memcpy(*out + (i * n_queries + q) * *r, one + i * *r, *r * sizeof *one);
    }
    bg_free(one);
    return st;
}

static bg_status check_model(const bg_store *f, const bg_model *model, const bg_hash *hash, bg_err *err)
{
    char *text = NULL;
    bg_status st = bg_store_get_text(f, "/", "model_hash", &text, NULL, err);
    if (st == BG_OK && strcmp(text, hash->hex) != 0)
        st = BG_FAIL(err, BG_ESTALE, "%s was made with another model (%.8s) than %s (%.8s)", bg_store_path(f), text,
                     model->dir, hash->hex);
    free(text);
    return st;
}

static bg_status find_least_kept(const bg_store *f, const bg_module *mod, uint64_t n_queries, float *least, bg_err *err)
{
    char path[BG_PATH_BYTES];
    float *kept = NULL;
    bg_status st = bg_path(path, err, "%s/kept", mod->name);
    if (st == BG_OK)
        st = BG_NEW(kept, n_queries, "compressed queries", err);
    if (st == BG_OK)
        st = bg_store_read(f, path, BG_F32, &n_queries, kept, err);
    for (uint64_t q = 0; q < n_queries && st == BG_OK; q++)
        *least = kept[q] < *least ? kept[q] : *least;
    bg_free(kept);
    return st;
}

static bg_status load(bg_scorer *s, const bg_store *f, bg_err *err)
{
    const bg_share *own = &s->share[s->rank];
    float least = 1;
    bg_status st = bg_store_read_strings(f, "id", &s->id, &s->n_queries, err);
    if (st == BG_OK)
        st = BG_NEW(s->module, s->model->n_tracked, "compressed queries", err);
    for (size_t i = own->first_tracked; i < own->end_tracked && st == BG_OK; i++) {
        const bg_module *mod = s->model->tracked[i];
        module_queries *m = &s->module[i];
        st = load_side(f, "left", mod, s->n_queries, mod->n_out, &m->r, &m->u, err);
        if (st == BG_OK)
            st = load_side(f, "right", mod, s->n_queries, mod->n_in1, &m->r, &m->v, err);
        if (st == BG_OK)
            st = find_least_kept(f, mod, s->n_queries, &least, err);
    }
    if (st == BG_OK)
        bg_log("the compressed queries keep at least %.3f of a module's expected score variance", (double)least);
    return st;
}

static size_t chunk_rows(size_t columns)
{
    size_t rows = PRODUCT_BYTES / (2 * sizeof(float) * columns);
    return rows < 64 ? 64 : rows > 8192 ? 8192 : rows;
}

/* Bytes of a unit's results with this many layers. */
static size_t result_bytes(bg_score_detail detail, size_t layers, size_t n_queries, size_t sequences, size_t rows)
{
    size_t n = layers * n_queries;
    return detail == BG_SCORE_TOKENS ? n * rows * sizeof(float) : n * sequences * sizeof(double);
}

static size_t own_layers(const bg_share *s) { return s->end - s->first; }

static bg_status open_memory(bg_scorer *s, bg_err *err)
{
    const bg_share *own = &s->share[s->rank];
    size_t most = 1, floats = 0;
    for (size_t i = own->first_tracked; i < own->end_tracked; i++) {
        size_t n = s->n_queries * s->module[i].r;
        most = n > most ? n : most;
        floats += n * (s->model->tracked[i]->n_out + s->model->tracked[i]->n_in1);
    }
    s->chunk = chunk_rows(most);
    bg_log("compressed queries of a rank: %.0f MB (%zu queries, up to %zu columns a module)",
           (double)floats * sizeof(float) * 1e-6, s->n_queries, most);
    size_t bytes = result_bytes(s->detail, s->n_layers, s->n_queries, s->unit_sequences, s->unit_rows);
    void *result = bg_alloc(bytes, 1, "scores of a unit", err);
    bg_status st = bg_allocated(result);
    if (s->detail == BG_SCORE_TOKENS)
        s->token = result;
    else
        s->layer = result;
    if (st == BG_OK)
        st = BG_NEW(s->n_of, (size_t)s->n_shares, "scores of a unit", err);
    if (st == BG_OK)
        st = BG_NEW(s->left, s->chunk * most, "score products", err);
    if (st == BG_OK)
        st = BG_NEW(s->right, s->chunk * most, "score products", err);
    return st == BG_OK ? BG_NEW(s->dot, s->chunk * s->n_queries, "score products", err) : st;
}

bg_status bg_scorer_new(bg_scorer **out, const char *file, const bg_model *model, const bg_hash *model_hash,
                        const bg_share *share, int n_shares, int rank, bg_score_detail detail, size_t unit_sequences,
                        size_t unit_rows, bg_err *err)
{
    bg_scorer *s = NULL;
    bg_store *f = NULL;
    *out = NULL;
    bg_status st = BG_NEW(s, 1, "scorer", err);
    if (st != BG_OK)
        return st;
    s->model = model;
    s->share = share;
    s->n_shares = n_shares;
    s->rank = rank;
    s->detail = detail;
    s->n_layers = rank == 0 ? model->config.n_blocks : own_layers(&share[rank]);
    s->unit_sequences = unit_sequences;
    s->unit_rows = unit_rows;
    st = bg_store_open(&f, file, "bregman/compressed", err);
    if (st == BG_OK)
        st = check_model(f, model, model_hash, err);
    if (st == BG_OK)
        st = load(s, f, err);
    if (st == BG_OK)
        st = open_memory(s, err);
    bg_store_close(f);
    if (st != BG_OK) {
        bg_scorer_free(s);
        return st;
    }
    *out = s;
    return BG_OK;
}

bg_status bg_scorer_bytes(const char *file, const bg_model *model, const bg_share *share, bg_score_detail detail,
                          size_t unit_sequences, size_t unit_rows, size_t *bytes, bg_err *err)
{
    char path[BG_PATH_BYTES];
    uint64_t dims[3] = { 0 }, n_queries = 0;
    size_t floats = 0, most = 1;
    bg_store *f = NULL;
    bg_status st = bg_store_open(&f, file, "bregman/compressed", err);
    if (st == BG_OK)
        st = bg_store_dims(f, "id", 1, &n_queries, err);
    for (size_t i = share->first_tracked; i < share->end_tracked && st == BG_OK; i++) {
        const bg_module *mod = model->tracked[i];
        st = bg_path(path, err, "%s/left", mod->name);
        if (st == BG_OK)
            st = bg_store_dims(f, path, 3, dims, err);
        floats += n_queries * dims[2] * (mod->n_out + mod->n_in1);
        most = n_queries * dims[2] > most ? n_queries * dims[2] : most;
    }
    bg_store_close(f);
    size_t layers = share->embeds ? model->config.n_blocks : own_layers(share);
    *bytes = (floats + chunk_rows(most) * (2 * most + n_queries)) * sizeof(float) +
             result_bytes(detail, layers, n_queries, unit_sequences, unit_rows);
    return st;
}

size_t bg_scorer_gather_bytes(const bg_scorer *s)
{
    return result_bytes(s->detail, own_layers(&s->share[s->rank]), s->n_queries, s->unit_sequences, s->unit_rows);
}

void bg_scorer_free(bg_scorer *s)
{
    if (s == NULL)
        return;
    for (size_t i = 0; s->module != NULL && i < s->model->n_tracked; i++) {
        bg_free(s->module[i].u);
        bg_free(s->module[i].v);
    }
    bg_free(s->module);
    bg_strings_free(s->id, s->n_queries);
    bg_free(s->n_of);
    bg_free(s->layer);
    bg_free(s->token);
    bg_free(s->left);
    bg_free(s->right);
    bg_free(s->dot);
    bg_free(s);
}

size_t bg_scorer_queries(const bg_scorer *s) { return s->n_queries; }
const char *const *bg_scorer_query_ids(const bg_scorer *s) { return (const char *const *)s->id; }

bg_status bg_compressed_modules(const char *file, char **modules, bg_err *err)
{
    bg_store *f = NULL;
    bg_status st = bg_store_open(&f, file, "bregman/compressed", err);
    if (st == BG_OK)
        st = bg_store_get_text(f, "/", "modules", modules, NULL, err);
    bg_store_close(f);
    return st;
}

void bg_scorer_begin_unit(bg_scorer *s, size_t n_sequences, size_t n_rows, size_t row0)
{
    size_t bytes = result_bytes(s->detail, s->n_layers, s->n_queries, n_sequences, n_rows);
    s->sequences = n_sequences;
    s->rows = n_rows;
    memset(s->detail == BG_SCORE_TOKENS ? (void *)s->token : (void *)s->layer, 0, bytes);
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
    const bg_batch *b = pair->batch;
    size_t nq = s->n_queries, layer = pair->module->block - s->share[s->rank].first, z = 0;
    for (size_t i = 0; i < n && s->detail == BG_SCORE_TOKENS; i++) {
        float *to = s->token + (layer * s->rows + s->row0 + r0 + i) * nq;
        for (size_t q = 0; q < nq; q++)
            to[q] += s->dot[i * nq + q];
    }
    for (size_t i = 0; i < n && s->detail != BG_SCORE_TOKENS; i++) {
        while (b->row_start[z + 1] <= r0 + i)
            z++;
        double *to = s->layer + (layer * s->sequences + s->first + z) * nq;
        for (size_t q = 0; q < nq; q++)
            to[q] += (double)s->dot[i * nq + q];
    }
}

bg_status bg_scorer_pair(void *scorer, const bg_pair *pair, bg_err *err)
{
    bg_scorer *s = scorer;
    const bg_module *mod = pair->module;
    const module_queries *m = &s->module[mod->index];
    size_t columns = s->n_queries * m->r, rows = pair->batch->n_rows;
    (void)err;
    for (size_t r0 = 0; r0 < rows; r0 += s->chunk) {
        size_t n = rows - r0 < s->chunk ? rows - r0 : s->chunk;
        bg_gemm((bg_extent){ n, columns, mod->n_out }, 1.0f,
                bg_f32(BG_N, pair->gradient + r0 * pair->ld_gradient, pair->ld_gradient), bg_f32(BG_N, m->u, columns),
                0.0f, s->left, columns);
        bg_gemm((bg_extent){ n, columns, mod->n_in1 }, 1.0f,
                bg_f32(BG_N, pair->activation + r0 * pair->ld_activation, pair->ld_activation),
                bg_f32(BG_N, m->v, columns), 0.0f, s->right, columns);
        bg_group_dot(n, s->n_queries, m->r, (bg_in){ s->left, columns }, (bg_in){ s->right, columns },
                     (bg_out){ s->dot, s->n_queries });
        keep(s, pair, r0, n);
    }
    return BG_OK;
}

bg_status bg_scorer_gather(bg_scorer *s, bg_pipeline *l, bg_err *err)
{
    size_t layer_bytes = result_bytes(s->detail, 1, s->n_queries, s->sequences, s->rows);
    char *own = s->detail == BG_SCORE_TOKENS ? (char *)s->token : (char *)s->layer;
    for (int r = 0; r < s->n_shares; r++)
        s->n_of[r] = own_layers(&s->share[r]) * layer_bytes;
    return bg_pipeline_gather(l, own, s->n_of[s->rank], own + s->n_of[0], s->n_of, err);
}

void bg_scorer_scores(const bg_scorer *s, float *out)
{
    size_t n = s->sequences * s->n_queries;
    for (size_t i = 0; i < n; i++) {
        double sum = 0;
        for (size_t l = 0; l < s->n_layers; l++)
            sum += s->layer[l * n + i];
        out[i] = (float)sum;
    }
}

void bg_scorer_layers(const bg_scorer *s, float *out)
{
    size_t n = s->sequences * s->n_queries;
    for (size_t i = 0; i < n; i++)
        for (size_t l = 0; l < s->n_layers; l++)
            out[i * s->n_layers + l] = (float)s->layer[l * n + i];
}

void bg_scorer_tokens(const bg_scorer *s, size_t row, size_t query, float *out)
{
    for (size_t l = 0; l < s->n_layers; l++)
        out[l] = s->token[(l * s->rows + row) * s->n_queries + query];
}
