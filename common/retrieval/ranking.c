#include "bregman/ranking.h"

#include <stdlib.h>
#include <string.h>

#include "bregman/memory.h"

const char *const bg_side_name[BG_SIDES] = { "top", "bottom" };

/* One array of a ranking and the dataset it is. */
typedef struct {
    const char *path;
    bg_dtype dtype;
    size_t size;               /* of an element */
    int n_dims;
    uint64_t dims[2];
    void **data;
} array;

enum { ARRAYS = 15 };

static void list_arrays(bg_ranking *r, array out[ARRAYS])
{
    uint64_t q = r->n_queries, k = r->k;
    const array all[ARRAYS] = {
        { "top/sequence", BG_I64, 8, 2, { q, k }, (void **)&r->side[BG_TOP].sequence },
        { "top/score", BG_F32, 4, 2, { q, k }, (void **)&r->side[BG_TOP].score },
        { "bottom/sequence", BG_I64, 8, 2, { q, k }, (void **)&r->side[BG_BOTTOM].sequence },
        { "bottom/score", BG_F32, 4, 2, { q, k }, (void **)&r->side[BG_BOTTOM].score },
        { "moments/count", BG_I64, 8, 1, { q, 1 }, (void **)&r->count },
        { "moments/sum", BG_F64, 8, 1, { q, 1 }, (void **)&r->sum },
        { "moments/sum_positive", BG_F64, 8, 1, { q, 1 }, (void **)&r->sum_positive },
        { "moments/mean", BG_F64, 8, 1, { q, 1 }, (void **)&r->mean },
        { "moments/sd", BG_F64, 8, 1, { q, 1 }, (void **)&r->sd },
        { "moments/minimum", BG_F64, 8, 1, { q, 1 }, (void **)&r->minimum },
        { "moments/maximum", BG_F64, 8, 1, { q, 1 }, (void **)&r->maximum },
        { "histogram/edge", BG_F64, 8, 1, { r->n_bins + 1, 1 }, (void **)&r->edge },
        { "histogram/count", BG_I64, 8, 2, { q, r->n_bins }, (void **)&r->bin },
        { "tail/count", BG_U32, 4, 1, { q, 1 }, (void **)&r->tail_count },
        { "tail/score", BG_F32, 4, 1, { r->n_tail, 1 }, (void **)&r->tail },
    };
    memcpy(out, all, sizeof all);
}

bg_status bg_ranking_alloc(bg_ranking *r, bg_err *err)
{
    array a[ARRAYS];
    bg_status st = BG_OK;
    list_arrays(r, a);
    for (int i = 0; i < ARRAYS && st == BG_OK; i++)
        st = bg_alloc(a[i].data, a[i].dims[0] * a[i].dims[1], a[i].size, a[i].path, err);
    return st;
}

void bg_ranking_clear(bg_ranking *r)
{
    array a[ARRAYS];
    list_arrays(r, a);
    for (int i = 0; i < ARRAYS; i++)
        bg_free(*a[i].data);
    bg_strings_free(r->query, r->n_queries);
    bg_strings_free(r->input_name, r->n_inputs);
    bg_strings_free(r->input_hash, r->n_inputs);
    free(r->stage);
    free(r->options);
    free(r->fingerprint);
    free(r->explained);
    memset(r, 0, sizeof *r);
}

static bg_status read_sizes(bg_ranking *r, const bg_store *s, bg_err *err)
{
    uint64_t dims[2] = { 0, 0 };
    bg_status st = bg_store_read_strings(s, "query", &r->query, &r->n_queries, err);
    if (st == BG_OK)
        st = bg_store_dims(s, "top/sequence", 2, dims, err);
    r->k = dims[1];
    if (st == BG_OK)
        st = bg_store_dims(s, "histogram/count", 2, dims, err);
    r->n_bins = dims[1];
    if (st == BG_OK)
        st = bg_store_dims(s, "tail/score", 1, dims, err);
    r->n_tail = dims[0];
    return st;
}

static bg_status read_origin(bg_ranking *r, const bg_store *s, bg_err *err)
{
    bool found;
    bg_status st = bg_store_get_text(s, "/run", "stage", &r->stage, NULL, err);
    if (st == BG_OK)
        st = bg_store_get_text(s, "/run", "options", &r->options, NULL, err);
    if (st == BG_OK)
        st = bg_store_get_text(s, "/run", "fingerprint", &r->fingerprint, NULL, err);
    if (st == BG_OK)
        st = bg_store_read_strings(s, "run/input_name", &r->input_name, &r->n_inputs, err);
    if (st == BG_OK)
        st = bg_store_read_strings(s, "run/input_hash", &r->input_hash, &r->n_inputs, err);
    if (st == BG_OK)
        st = bg_store_get_u64(s, "/", "corpus_sequences", &r->corpus_sequences, NULL, err);
    return st == BG_OK ? bg_store_get_text(s, "/", "explained", &r->explained, &found, err) : st;
}

bg_status bg_ranking_read(bg_ranking *r, const char *path, bg_err *err)
{
    bg_store *s = NULL;
    array a[ARRAYS];
    memset(r, 0, sizeof *r);
    bg_status st = bg_store_open(&s, path, "bregman/ranking", err);
    if (st == BG_OK)
        st = read_sizes(r, s, err);
    if (st == BG_OK)
        st = read_origin(r, s, err);
    if (st == BG_OK)
        st = bg_ranking_alloc(r, err);
    list_arrays(r, a);
    for (int i = 0; i < ARRAYS && st == BG_OK; i++)
        st = bg_store_read(s, a[i].path, a[i].dtype, a[i].dims, *a[i].data, err);
    bg_store_close(s);
    if (st != BG_OK)
        bg_ranking_clear(r);
    return st;
}

bg_status bg_ranking_write(const bg_ranking *r, bg_store *s, bg_err *err)
{
    bg_ranking view = *r;
    array a[ARRAYS];
    uint64_t n = r->n_queries;
    bg_status st = bg_store_write(s, "query", &n, r->query, err);
    list_arrays(&view, a);
    for (int i = 0; i < ARRAYS && st == BG_OK; i++)
        st = bg_store_write(s, a[i].path, a[i].dims, *a[i].data, err);
    if (st == BG_OK)
        st = bg_store_attr_u64(s, "/", "corpus_sequences", r->corpus_sequences, err);
    if (st == BG_OK && r->explained != NULL)
        st = bg_store_attr_text(s, "/", "explained", r->explained, err);
    return st;
}
