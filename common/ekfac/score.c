#include "bregman/score.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/gemm.h"
#include "bregman/kernels.h"
#include "bregman/log.h"
#include "bregman/memory.h"

enum { PRODUCT_BYTES = 32 << 20 };     /* the two thin products of a chunk of rows */

/* One module's queries, side by side: query q has columns [q r, (q + 1) r). */
typedef struct {
    size_t r;
    float *u;                          /* [P, Q r] */
    float *v;                          /* [M, Q r] */
} module_queries;

struct bg_scorer {
    const bg_model *model;
    bg_score_detail detail;
    size_t n_queries, n_layers;
    char **id;
    module_queries *module;            /* [n_tracked] */
    size_t unit_sequences, unit_rows;
    double *score, *layer;             /* [unit_sequences, Q], [unit_sequences, Q, L] */
    float *token;                      /* [unit_rows, Q, L] */
    size_t chunk;                      /* rows at a time */
    float *left, *right;               /* [chunk, Q r] */
    float *dot;                        /* [chunk, Q] */
    uint64_t first;                    /* the batch's first sequence in the unit */
    size_t row0, batch_rows;           /* the batch's first row in the unit, and its rows */
};

/* dataset [Q, n, r] -> side by side [n, Q r] */
static bg_status load_side(const bg_store *f, const char *name, const bg_module *mod, size_t n_queries, size_t n,
                           size_t *r, float **out, bg_err *err)
{
    char path[BG_PATH_BYTES];
    uint64_t dims[3];
    float *one = NULL;
    bg_status st = bg_path(path, err, "%s/%s", mod->name, name);
    if (st == BG_OK && !bg_store_has(f, path))
        return BG_FAIL(err, BG_ESTALE, "%s holds no gradients of %s: it was made with other --modules", bg_store_path(f),
                       mod->name);
    if (st == BG_OK)
        st = bg_store_dims(f, path, 3, dims, err);
    if (st == BG_OK && (dims[0] != n_queries || dims[1] != n || (*r != 0 && dims[2] != *r)))
        st = BG_FAIL(err, BG_ESHAPE, "%s: %s does not fit %zu queries and a side of %zu", bg_store_path(f), path,
                     n_queries, n);
    if (st != BG_OK)
        return st;
    *r = dims[2];
    st = BG_NEW(*out, n * n_queries * *r, "compressed queries", err);
    if (st == BG_OK)
        st = BG_NEW(one, n * *r, "compressed queries", err);
    for (size_t q = 0; q < n_queries && st == BG_OK; q++) {
        st = bg_store_read_rows(f, path, BG_F32, q, 1, one, err);
        for (size_t i = 0; i < n * *r && st == BG_OK; i++)
            if (!isfinite(one[i]))
                st = BG_FAIL(err, BG_ENUMERIC, "%s: %s of query %zu holds a NaN or infinity", bg_store_path(f), path, q);
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

static bg_status load(bg_scorer *s, const bg_store *f, bg_err *err)
{
    bg_status st = bg_store_read_strings(f, "id", &s->id, &s->n_queries, err);
    if (st == BG_OK)
        st = BG_NEW(s->module, s->model->n_tracked, "compressed queries", err);
    for (size_t i = 0; i < s->model->n_tracked && st == BG_OK; i++) {
        const bg_module *mod = s->model->tracked[i];
        module_queries *m = &s->module[i];
        st = load_side(f, "left", mod, s->n_queries, mod->n_out, &m->r, &m->u, err);
        if (st == BG_OK)
            st = load_side(f, "right", mod, s->n_queries, mod->n_in1, &m->r, &m->v, err);
    }
    return st;
}

/* Columns of all queries in the module that has most, and floats of all modules' factors. */
static size_t most_columns(const bg_scorer *s, size_t *floats)
{
    size_t most = 1;
    *floats = 0;
    for (size_t i = 0; i < s->model->n_tracked; i++) {
        const bg_module *mod = s->model->tracked[i];
        size_t n = s->n_queries * s->module[i].r;
        most = n > most ? n : most;
        *floats += n * (mod->n_out + mod->n_in1);
    }
    return most;
}

static bg_status open_memory(bg_scorer *s, bg_err *err)
{
    size_t floats, most = most_columns(s, &floats), n = s->unit_sequences * s->n_queries;
    s->chunk = PRODUCT_BYTES / (2 * sizeof(float) * most);
    s->chunk = s->chunk < 64 ? 64 : s->chunk > 8192 ? 8192 : s->chunk;
    bg_log("memory a rank, MB: compressed queries %.0f (%zu queries, up to %zu columns a module)",
           (double)floats * sizeof(float) * 1e-6, s->n_queries, most);
    bg_status st = BG_NEW(s->score, n, "scores", err);
    if (st == BG_OK && s->detail == BG_SCORE_LAYERS)
        st = BG_NEW(s->layer, n * s->n_layers, "layer scores", err);
    if (st == BG_OK && s->detail == BG_SCORE_TOKENS)
        st = BG_NEW(s->token, s->unit_rows * s->n_queries * s->n_layers, "token scores", err);
    if (st == BG_OK)
        st = BG_NEW(s->left, s->chunk * most, "score products", err);
    if (st == BG_OK)
        st = BG_NEW(s->right, s->chunk * most, "score products", err);
    return st == BG_OK ? BG_NEW(s->dot, s->chunk * s->n_queries, "score products", err) : st;
}

bg_status bg_scorer_new(bg_scorer **out, const char *file, const bg_model *model, const bg_hash *model_hash,
                        bg_score_detail detail, size_t unit_sequences, size_t unit_rows, bg_err *err)
{
    bg_scorer *s = NULL;
    bg_store *f = NULL;
    *out = NULL;
    bg_status st = BG_NEW(s, 1, "scorer", err);
    if (st != BG_OK)
        return st;
    s->model = model;
    s->detail = detail;
    s->n_layers = model->config.n_blocks;
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
    bg_free(s->score);
    bg_free(s->layer);
    bg_free(s->token);
    bg_free(s->left);
    bg_free(s->right);
    bg_free(s->dot);
    bg_free(s);
}

size_t bg_scorer_queries(const bg_scorer *s) { return s->n_queries; }
const char *const *bg_scorer_query_ids(const bg_scorer *s) { return (const char *const *)s->id; }
const double *bg_scorer_score(const bg_scorer *s) { return s->score; }
const double *bg_scorer_layers(const bg_scorer *s) { return s->layer; }
const float *bg_scorer_tokens(const bg_scorer *s) { return s->token; }

bg_status bg_compressed_modules(const char *file, char **modules, bg_err *err)
{
    bg_store *f = NULL;
    bg_status st = bg_store_open(&f, file, "bregman/compressed", err);
    if (st == BG_OK)
        st = bg_store_get_text(f, "/", "modules", modules, NULL, err);
    bg_store_close(f);
    return st;
}

void bg_scorer_begin_unit(bg_scorer *s)
{
    size_t n = s->unit_sequences * s->n_queries;
    memset(s->score, 0, n * sizeof *s->score);
    if (s->layer != NULL)
        memset(s->layer, 0, n * s->n_layers * sizeof *s->layer);
    if (s->token != NULL)
        memset(s->token, 0, s->unit_rows * s->n_queries * s->n_layers * sizeof *s->token);
    s->row0 = s->batch_rows = 0;
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
    size_t nq = s->n_queries, nl = s->n_layers, layer = pair->module->block, z = 0;
    for (size_t i = 0; i < n; i++) {
        while (b->row_start[z + 1] <= r0 + i)
            z++;
        size_t at = (s->first + z) * nq;
        for (size_t q = 0; q < nq; q++) {
            float x = s->dot[i * nq + q];
            s->score[at + q] += (double)x;
            if (s->layer != NULL)
                s->layer[(at + q) * nl + layer] += (double)x;
            if (s->token != NULL)
                s->token[((s->row0 + r0 + i) * nq + q) * nl + layer] += x;
        }
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
        bg_gemm(BG_N, BG_N, n, columns, mod->n_out, 1.0f, pair->gradient + r0 * pair->ld_gradient, pair->ld_gradient,
                m->u, columns, 0.0f, s->left, columns);
        bg_gemm(BG_N, BG_N, n, columns, mod->n_in1, 1.0f, pair->activation + r0 * pair->ld_activation,
                pair->ld_activation, m->v, columns, 0.0f, s->right, columns);
        bg_group_dot(n, s->n_queries, m->r, s->left, columns, s->right, columns, s->dot, s->n_queries);
        keep(s, pair, r0, n);
    }
    return BG_OK;
}
