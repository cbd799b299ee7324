/* values.c - the arrays of the results: one table says of which datasets, shapes and types. */
#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "bregman/log.h"
#include "bregman/memory.h"
#include "compare_scales.h"

typedef struct {
    const char *path;
    size_t at;  /* of the pointer in compared_values */
    bool whole; /* int64_t, not double */
    int n_dims;
    uint64_t dims[3];
} value_array;

enum { ARRAYS = 21 };

static void list_arrays(const comparison *w, value_array out[ARRAYS])
{
    uint64_t m = w->n_models, q = w->n_queries, k = w->k, p = w->related.n_pairs;
#define AT(name) offsetof(compared_values, name)
    const value_array all[ARRAYS] = {
        { "loss", AT(loss), false, 2, { m, q, 1 } },
        { "count", AT(count), true, 2, { m, q, 1 } },
        { "mean", AT(mean), false, 2, { m, q, 1 } },
        { "sd", AT(sd), false, 2, { m, q, 1 } },
        { "top_percent", AT(top_percent), false, 2, { m, q, 1 } },
        { "top/sequence", AT(top_sequence), true, 3, { m, q, k } },
        { "top/score", AT(top_score), false, 3, { m, q, k } },
        { "top/overlap", AT(top_overlap), false, 3, { m, q, k } },
        { "top/run", AT(top_run), true, 3, { m, q, k } },
        { "top/bm25_place", AT(top_bm25_place), true, 3, { m, q, k } },
        { "top/sparsity", AT(top_sparsity), false, 3, { m, q, k } },
        { "tail", AT(tail), false, 3, { m, q, w->n_tail } },
        { "agreement/spearman", AT(spearman), false, 3, { m, m, q } },
        { "agreement/top", AT(top_shared), false, 3, { m, m, q } },
        { "pair/scored", AT(pair_scored), true, 2, { m, p, 1 } },
        { "pair/mean", AT(pair_mean), false, 2, { m, p, 1 } },
        { "pair/z", AT(pair_z), false, 2, { m, p, 1 } },
        { "pair/place", AT(pair_place), false, 2, { m, p, 1 } },
        { "pair/percentile", AT(pair_percentile), false, 2, { m, p, 1 } },
        { "pair/positive", AT(pair_positive), false, 2, { m, p, 1 } },
        { "pair/top", AT(pair_top), false, 2, { m, p, 1 } },
    };
#undef AT
    memcpy(out, all, sizeof all);
}

static size_t elements(const value_array *a) { return a->dims[0] * a->dims[1] * a->dims[2]; }

static void *data_of(const comparison *w, const value_array *a)
{
    void *data;
    memcpy(&data, (const char *)&w->v + a->at, sizeof data);
    return data;
}

bg_status compare_new_values(comparison *w, bg_err *err)
{
    value_array a[ARRAYS];
    list_arrays(w, a);
    bg_status st = BG_OK;
    for (int i = 0; i < ARRAYS && st == BG_OK; i++) {
        if (data_of(w, &a[i]) != NULL) /* losses are there already */
            continue;
        void *data = bg_alloc(elements(&a[i]), sizeof(double), a[i].path, err);
        memcpy((char *)&w->v + a[i].at, &data, sizeof data);
        st = bg_allocated(data);
    }
    return st == BG_OK ? BG_NEW(w->v.layer_share, w->n_layers * w->n_queries, "shares of layers", err) : st;
}

void compare_free_values(comparison *w)
{
    value_array a[ARRAYS];
    list_arrays(w, a);
    for (int i = 0; i < ARRAYS; i++)
        bg_free(data_of(w, &a[i]));
    bg_free(w->v.layer_share);
}

/* Of each number all ranks but one have 0. */
static void add_up(comparison *w, void *data, size_t n, MPI_Datatype type)
{
    enum { AT_ONCE = 1 << 24 };
    for (size_t at = 0; at < n; at += AT_ONCE)
        MPI_Allreduce(MPI_IN_PLACE, (char *)data + at * sizeof(double), (int)(n - at < AT_ONCE ? n - at : AT_ONCE),
                      type, MPI_SUM, w->ctx->grid.world);
}

void compare_add_up(comparison *w)
{
    value_array a[ARRAYS];
    list_arrays(w, a);
    for (int i = 0; i < ARRAYS; i++)
        if (strcmp(a[i].path, "loss") != 0) /* which all ranks have */
            add_up(w, data_of(w, &a[i]), elements(&a[i]), a[i].whole ? MPI_INT64_T : MPI_DOUBLE);
    add_up(w, w->v.layer_share, w->n_layers * w->n_queries, MPI_DOUBLE);
}

/* ---- writing ---- */

static bg_status write_names(const comparison *w, bg_store *s, bg_err *err)
{
    uint64_t nm = w->n_models, nq = w->n_queries;
    const char **name = NULL;
    double *parameters = NULL;
    bg_status st = BG_NEW(name, nm, "names of models", err);
    if (st == BG_OK)
        st = BG_NEW(parameters, nm, "sizes of models", err);
    for (size_t m = 0; m < nm && st == BG_OK; m++) {
        name[m] = m < w->n_rankings ? w->model[m].name : "bm25";
        parameters[m] = m < w->n_rankings ? w->model[m].parameters : nan("");
    }
    if (st == BG_OK)
        st = bg_store_write(s, "model", &nm, name, err);
    if (st == BG_OK)
        st = bg_store_write(s, "parameters", &nm, parameters, err);
    if (st == BG_OK)
        st = bg_store_dataset(s, "query", &nq, err);
    for (uint64_t q = 0; q < nq && st == BG_OK; q++) {
        const char *id = bg_tokens_query_id(w->queries, q);
        st = bg_store_write_rows(s, "query", q, 1, &id, err);
    }
    if (st == BG_OK && w->kind != NULL)
        st = bg_store_write(s, "kind", &nq, w->kind, err);
    bg_free(name);
    bg_free(parameters);
    return st;
}

static bg_status write_pairs(const comparison *w, bg_store *s, bg_err *err)
{
    const related_documents *r = &w->related;
    uint64_t n = r->n_pairs;
    const char **relation = NULL;
    int64_t *query = NULL, *sequences = NULL;
    bg_status st = BG_NEW(relation, n, "relations", err);
    if (st == BG_OK)
        st = BG_NEW(query, n, "relations", err);
    if (st == BG_OK)
        st = BG_NEW(sequences, n, "relations", err);
    for (size_t p = 0; p < n && st == BG_OK; p++) {
        relation[p] = r->pair[p].relation;
        query[p] = (int64_t)r->pair[p].query;
        sequences[p] = (int64_t)(r->pair[p].end - r->pair[p].first);
    }
    if (st == BG_OK)
        st = bg_store_write(s, "pair/relation", &n, relation, err);
    if (st == BG_OK)
        st = bg_store_write(s, "pair/query", &n, query, err);
    if (st == BG_OK)
        st = bg_store_write(s, "pair/sequences", &n, sequences, err);
    bg_free(relation);
    bg_free(query);
    bg_free(sequences);
    return st;
}

static bg_status write_layers(const comparison *w, bg_store *s, bg_err *err)
{
    uint64_t nm = w->n_models, dims[2] = { w->n_layers, w->n_queries };
    uint32_t *count = NULL;
    const char **name = NULL;
    size_t at = 0;
    bg_status st = BG_NEW(count, nm, "layers", err);
    if (st == BG_OK)
        st = BG_NEW(name, w->n_layers, "layers", err);
    for (size_t m = 0; m < w->n_rankings && st == BG_OK; m++) {
        count[m] = (uint32_t)w->model[m].n_layers;
        for (size_t l = 0; l < w->model[m].n_layers; l++)
            name[at++] = w->model[m].layer[l];
    }
    if (st == BG_OK)
        st = bg_store_write(s, "layer/count", &nm, count, err);
    if (st == BG_OK)
        st = bg_store_write(s, "layer/name", dims, name, err);
    if (st == BG_OK)
        st = bg_store_write(s, "layer/share", dims, w->v.layer_share, err);
    bg_free(count);
    bg_free(name);
    return st;
}

static bg_status write_values(const comparison *w, bg_store *s, bg_err *err)
{
    value_array a[ARRAYS];
    list_arrays(w, a);
    bg_status st = BG_OK;
    for (int i = 0; i < ARRAYS && st == BG_OK; i++)
        if (w->related.n_pairs > 0 || strncmp(a[i].path, "pair/", 5) != 0)
            st = bg_store_write(s, a[i].path, a[i].dims, data_of(w, &a[i]), err);
    if (st == BG_OK && w->related.n_pairs > 0)
        st = write_pairs(w, s, err);
    return st == BG_OK && w->n_layers > 0 ? write_layers(w, s, err) : st;
}

static bg_status write_all(const comparison *w, bg_store *s, bg_err *err)
{
    char how[160];
    snprintf(how, sizeof how, "the paper's form, over prompt and completion, runs of 1 to %" PRIu64 " tokens",
             w->c->ngrams);
    bg_status st = bg_store_attr_u64(s, "/", "corpus_sequences", w->n_sequences, err);
    if (st == BG_OK)
        st = bg_store_attr_text(s, "/", "bm25", how, err);
    if (st == BG_OK)
        st = bg_origin_write_tokens(&w->model[0].r.origin, s, err);
    if (st == BG_OK)
        st = write_names(w, s, err);
    return st == BG_OK ? write_values(w, s, err) : st;
}

bg_status compare_publish(comparison *w, bg_err *err)
{
    bg_store *s = NULL;
    bg_status st = bg_store_create(&s, w->c->output, "bregman/comparison", &w->in.run, err);
    if (st == BG_OK)
        st = write_all(w, s, err);
    st = bg_store_end_once(s, st, err);
    if (st == BG_OK)
        bg_log("wrote %s: %zu model%s, %zu queries, %" PRIu64 " sequences", w->c->output, w->n_rankings,
               w->n_rankings == 1 ? "" : "s", w->n_queries, w->n_sequences);
    return st;
}
