#include "bregman/ranking.h"

#include <stdlib.h>
#include <string.h>

#include "bregman/memory.h"

const char *const bg_side_name[BG_SIDES] = { "top", "bottom" };

/* ---- one side ---- */

bg_status bg_ranked_alloc(bg_ranked *side, size_t n_queries, size_t k, bg_err *err)
{
    size_t n = n_queries * k;
    bg_status st = BG_NEW(side->sequence, n, "ranked sequences", err);
    if (st == BG_OK)
        st = BG_NEW(side->score, n, "ranked scores", err);
    if (st == BG_OK)
        st = BG_NEW(side->start, n, "documents of ranked sequences", err);
    if (st == BG_OK && (side->document = calloc(n + 1, sizeof *side->document)) == NULL)
        st = BG_FAIL(err, BG_ENOMEM, "out of memory for documents of ranked sequences");
    for (size_t i = 0; i < n && st == BG_OK; i++)
        side->sequence[i] = side->start[i] = -1;
    return st;
}

bg_status bg_ranked_add_prefilter(bg_ranked *side, size_t n_queries, size_t k, bg_err *err)
{
    return BG_NEW(side->prefilter_rank, n_queries * k, "ranks of the prefilter", err);
}

void bg_ranked_clear(bg_ranked *side, size_t n_queries, size_t k)
{
    bg_free(side->prefilter_rank);
    bg_free(side->sequence);
    bg_free(side->score);
    bg_free(side->start);
    bg_strings_free(side->document, n_queries * k);
    *side = (bg_ranked){ 0 };
}

/* Paths of a side's datasets. */
typedef struct {
    char sequence[32], score[32], document[32], start[32], prefilter_rank[32];
} side_paths;

static side_paths paths_of(const char *side)
{
    side_paths p;
    snprintf(p.sequence, sizeof p.sequence, "%s/sequence", side);
    snprintf(p.score, sizeof p.score, "%s/score", side);
    snprintf(p.document, sizeof p.document, "%s/document", side);
    snprintf(p.start, sizeof p.start, "%s/start", side);
    snprintf(p.prefilter_rank, sizeof p.prefilter_rank, "%s/prefilter_rank", side);
    return p;
}

bg_status bg_ranked_write(const bg_ranked *side, const char *name, size_t n_queries, size_t k, bg_store *s, bg_err *err)
{
    const side_paths p = paths_of(name);
    const uint64_t dims[2] = { n_queries, k };
    const char **text = NULL;
    bg_status st = BG_NEW(text, n_queries * k, "documents of ranked sequences", err);
    for (size_t i = 0; i < n_queries * k && st == BG_OK; i++)
        text[i] = side->document[i] != NULL ? side->document[i] : "";
    if (st == BG_OK)
        st = bg_store_write(s, p.sequence, dims, side->sequence, err);
    if (st == BG_OK)
        st = bg_store_write(s, p.score, dims, side->score, err);
    if (st == BG_OK)
        st = bg_store_write(s, p.document, dims, text, err);
    if (st == BG_OK)
        st = bg_store_write(s, p.start, dims, side->start, err);
    bg_free(text);
    return st == BG_OK && side->prefilter_rank != NULL
               ? bg_store_write(s, p.prefilter_rank, dims, side->prefilter_rank, err)
               : st;
}

/* A short text takes 32 bytes beside the reference to it; and there is what is said of the token files. */
double bg_ranked_disk_bytes(double queries, double k, double n)
{
    double listed = queries * k, named = queries * (n < k ? n : k);
    return 2 * (bg_store_dataset_bytes(listed, 8) + bg_store_dataset_bytes(listed, 4) + listed * (8 + 16) +
                named * 32) +
           3000;
}

static bg_status read_prefilter(bg_ranked *side, const side_paths *p, const uint64_t dims[2], const bg_store *s,
                                bg_err *err)
{
    if (!bg_store_has(s, p->prefilter_rank))
        return BG_OK;
    bg_status st = bg_ranked_add_prefilter(side, dims[0], dims[1], err);
    return st == BG_OK ? bg_store_read(s, p->prefilter_rank, BG_I64, dims, side->prefilter_rank, err) : st;
}

static bg_status read_side(bg_ranked *side, const char *name, size_t n_queries, size_t k, const bg_store *s,
                           bg_err *err)
{
    const side_paths p = paths_of(name);
    const uint64_t dims[2] = { n_queries, k };
    size_t n;
    bg_status st = bg_ranked_alloc(side, n_queries, k, err);
    if (st == BG_OK)
        st = bg_store_read(s, p.sequence, BG_I64, dims, side->sequence, err);
    if (st == BG_OK)
        st = bg_store_read(s, p.score, BG_F32, dims, side->score, err);
    if (st == BG_OK)
        st = bg_store_read(s, p.start, BG_I64, dims, side->start, err);
    if (st == BG_OK)
        st = read_prefilter(side, &p, dims, s, err);
    if (st != BG_OK)
        return st;
    free(side->document);
    return bg_store_read_strings(s, p.document, &side->document, &n, err);
}

/* ---- documents ---- */

typedef struct {
    int64_t sequence;
    char **document;
    int64_t *start;
} cell;

static int by_sequence(const void *a, const void *b)
{
    int64_t x = ((const cell *)a)->sequence, y = ((const cell *)b)->sequence;
    return (x > y) - (x < y);
}

bg_status bg_ranked_find_documents(bg_ranked side[BG_SIDES], size_t n, const bg_tokens *t, bg_err *err)
{
    cell *all = NULL;
    size_t n_cells = 0;
    bg_status st = BG_NEW(all, BG_SIDES * n, "ranked sequences", err);
    for (size_t i = 0; i < BG_SIDES * n && st == BG_OK; i++) {
        bg_ranked *r = &side[i / n];
        if (r->sequence[i % n] >= 0)
            all[n_cells++] = (cell){ r->sequence[i % n], &r->document[i % n], &r->start[i % n] };
    }
    if (n_cells > 0)
        qsort(all, n_cells, sizeof *all, by_sequence);
    for (size_t i = 0; i < n_cells && st == BG_OK; i++) {
        free(*all[i].document);
        st = bg_tokens_document(t, (uint64_t)all[i].sequence, all[i].document, all[i].start, err);
    }
    bg_free(all);
    return st;
}

/* ---- the whole ---- */

/* One array of a ranking and the dataset it is. */
typedef struct {
    const char *path;
    bg_dtype dtype;
    size_t size; /* of an element */
    int n_dims;
    uint64_t dims[2];
    size_t at; /* of the pointer in bg_ranking */
} array;

enum { ARRAYS = 11 };

static void list_arrays(const bg_ranking *r, array out[ARRAYS])
{
    uint64_t q = r->n_queries;
    const array all[ARRAYS] = {
        { "moments/count", BG_I64, 8, 1, { q, 1 }, offsetof(bg_ranking, count) },
        { "moments/sum", BG_F64, 8, 1, { q, 1 }, offsetof(bg_ranking, sum) },
        { "moments/sum_positive", BG_F64, 8, 1, { q, 1 }, offsetof(bg_ranking, sum_positive) },
        { "moments/mean", BG_F64, 8, 1, { q, 1 }, offsetof(bg_ranking, mean) },
        { "moments/sd", BG_F64, 8, 1, { q, 1 }, offsetof(bg_ranking, sd) },
        { "moments/minimum", BG_F64, 8, 1, { q, 1 }, offsetof(bg_ranking, minimum) },
        { "moments/maximum", BG_F64, 8, 1, { q, 1 }, offsetof(bg_ranking, maximum) },
        { "histogram/edge", BG_F64, 8, 1, { r->n_bins + 1, 1 }, offsetof(bg_ranking, edge) },
        { "histogram/count", BG_I64, 8, 2, { q, r->n_bins }, offsetof(bg_ranking, bin) },
        { "tail/count", BG_U32, 4, 1, { q, 1 }, offsetof(bg_ranking, tail_count) },
        { "tail/score", BG_F32, 4, 1, { r->n_tail, 1 }, offsetof(bg_ranking, tail) },
    };
    memcpy(out, all, sizeof all);
}

static void *data_of(const bg_ranking *r, const array *a)
{
    void *data;
    memcpy(&data, (const char *)r + a->at, sizeof data);
    return data;
}

static bg_status alloc_arrays(bg_ranking *r, bg_err *err)
{
    array a[ARRAYS];
    bg_status st = BG_OK;
    list_arrays(r, a);
    for (int i = 0; i < ARRAYS && st == BG_OK; i++) {
        void *data = bg_alloc(a[i].dims[0] * a[i].dims[1], a[i].size, a[i].path, err);
        memcpy((char *)r + a[i].at, &data, sizeof data);
        st = bg_allocated(data);
    }
    return st;
}

bg_status bg_ranking_alloc(bg_ranking *r, bg_err *err)
{
    bg_status st = alloc_arrays(r, err);
    for (int side = 0; side < BG_SIDES && st == BG_OK; side++)
        st = bg_ranked_alloc(&r->side[side], r->n_queries, r->k, err);
    for (int side = 0; side < BG_SIDES && st == BG_OK && r->prefilter != NULL; side++)
        st = bg_ranked_add_prefilter(&r->side[side], r->n_queries, r->k, err);
    return st;
}

void bg_ranking_clear(bg_ranking *r)
{
    array a[ARRAYS];
    list_arrays(r, a);
    for (int i = 0; i < ARRAYS; i++)
        bg_free(data_of(r, &a[i]));
    for (int side = 0; side < BG_SIDES; side++)
        bg_ranked_clear(&r->side[side], r->n_queries, r->k);
    for (int i = 0; i < BG_RUN_TEXTS; i++)
        free(r->run_text[i]);
    bg_origin_clear(&r->origin);
    bg_strings_free(r->query, r->n_queries);
    bg_free(r->query_loss);
    bg_strings_free(r->input_name, r->n_inputs);
    bg_strings_free(r->input_hash, r->n_inputs);
    free(r->prefilter);
    free(r->explained);
    memset(r, 0, sizeof *r);
}

static bg_status read_sizes(bg_ranking *r, const bg_store *s, bg_err *err)
{
    uint64_t dims[2] = { 0, 0 };
    bg_status st = bg_store_read_strings(s, "query", &r->query, &r->n_queries, err);
    if (st == BG_OK)
        st = bg_store_read_optional(s, "query_loss", r->n_queries, &r->query_loss, err);
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

static const char *const run_text[BG_RUN_TEXTS] = {
    [BG_RUN_STAGE] = "stage",
    [BG_RUN_OPTIONS] = "options",
    [BG_RUN_FINGERPRINT] = "fingerprint",
    "git_revision",
    "version",
    "library_versions",
    "precision",
    "started",
    "finished",
};
static const char *const run_number[BG_RUN_NUMBERS] = { "ranks", "threads", "seed" };

static bg_status read_run(bg_ranking *r, const bg_store *s, bg_err *err)
{
    bool found;
    size_t n_hashes;
    bg_status st = BG_OK;
    for (int i = 0; i < BG_RUN_TEXTS && st == BG_OK; i++)
        st = bg_store_get_text(s, "/run", run_text[i], &r->run_text[i], i < BG_RUN_REQUIRED_TEXTS ? NULL : &found, err);
    for (int i = 0; i < BG_RUN_NUMBERS && st == BG_OK; i++)
        st = bg_store_get_u64(s, "/run", run_number[i], &r->run_number[i], &found, err);
    if (st == BG_OK)
        st = bg_store_read_strings(s, "run/input_name", &r->input_name, &r->n_inputs, err);
    return st == BG_OK ? bg_store_read_strings(s, "run/input_hash", &r->input_hash, &n_hashes, err) : st;
}

static bg_status read_origin(bg_ranking *r, const bg_store *s, bg_err *err)
{
    bool found;
    bg_status st = read_run(r, s, err);
    if (st == BG_OK)
        st = bg_store_get_u64(s, "/", "corpus_sequences", &r->corpus_sequences, NULL, err);
    if (st == BG_OK)
        st = bg_origin_read(&r->origin, s, "remove it and merge the shards again", err);
    if (st == BG_OK)
        st = bg_store_get_text(s, "/", "prefilter", &r->prefilter, &found, err);
    return st == BG_OK ? bg_store_get_text(s, "/", "explained", &r->explained, &found, err) : st;
}

static int by_number(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* A query's list is in the order of its scores, the places without a sequence last, and names a sequence once. */
static bg_status check_list(const bg_ranking *r, int side, size_t q, int64_t *sorted, const char *path, bg_err *err)
{
    const int64_t *sequence = r->side[side].sequence + q * r->k;
    const float *score = r->side[side].score + q * r->k;
    size_t n = 0;
    bool good = true;
    while (n < r->k && sequence[n] >= 0)
        n++;
    for (size_t i = 0; i < r->k; i++)
        good = good && (i < n ? i == 0 || (side == BG_TOP ? score[i] <= score[i - 1] : score[i] >= score[i - 1])
                              : sequence[i] < 0);
    if (n > 0) {
        memcpy(sorted, sequence, n * sizeof *sorted);
        qsort(sorted, n, sizeof *sorted, by_number);
    }
    for (size_t i = 1; i < n; i++)
        good = good && sorted[i] != sorted[i - 1];
    return good
               ? BG_OK
               : BG_FAIL(err, BG_EFORMAT,
                         "%s: \"%s\" of query \"%.100s\" is not in the order of its scores, or names a sequence twice: "
                         "remove it and merge the shards again",
                         path, bg_side_name[side], r->query[q]);
}

static bg_status check_lists(const bg_ranking *r, const char *path, bg_err *err)
{
    int64_t *sorted = NULL;
    bg_status st = BG_NEW(sorted, r->k, "ranked sequences", err);
    for (int side = 0; side < BG_SIDES; side++)
        for (size_t q = 0; q < r->n_queries && st == BG_OK; q++)
            st = check_list(r, side, q, sorted, path, err);
    bg_free(sorted);
    return st;
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
        st = alloc_arrays(r, err);
    list_arrays(r, a);
    for (int i = 0; i < ARRAYS && st == BG_OK; i++)
        st = bg_store_read(s, a[i].path, a[i].dtype, a[i].dims, data_of(r, &a[i]), err);
    for (int side = 0; side < BG_SIDES && st == BG_OK; side++)
        st = read_side(&r->side[side], bg_side_name[side], r->n_queries, r->k, s, err);
    bg_store_close(s);
    if (st == BG_OK)
        st = check_lists(r, path, err);
    if (st != BG_OK)
        bg_ranking_clear(r);
    return st;
}

/* The provenance of the merge that made it stays that of a ranking that is written anew. */
static bg_status keep_run(const bg_ranking *r, bg_store *s, bg_err *err)
{
    bg_status st = BG_OK;
    for (int i = 0; i < BG_RUN_TEXTS && st == BG_OK; i++)
        if (r->run_text[i] != NULL)
            st = bg_store_attr_text(s, "/run", run_text[i], r->run_text[i], err);
    for (int i = 0; i < BG_RUN_NUMBERS && st == BG_OK; i++)
        if (r->run_text[BG_RUN_STAGE] != NULL)
            st = bg_store_attr_u64(s, "/run", run_number[i], r->run_number[i], err);
    return st;
}

bg_status bg_ranking_write(const bg_ranking *r, bg_store *s, bg_err *err)
{
    array a[ARRAYS];
    uint64_t n = r->n_queries;
    bg_status st = bg_store_write(s, "query", &n, r->query, err);
    if (st == BG_OK && r->query_loss != NULL)
        st = bg_store_write(s, "query_loss", &n, r->query_loss, err);
    list_arrays(r, a);
    for (int i = 0; i < ARRAYS && st == BG_OK; i++)
        st = bg_store_write(s, a[i].path, a[i].dims, data_of(r, &a[i]), err);
    for (int side = 0; side < BG_SIDES && st == BG_OK; side++)
        st = bg_ranked_write(&r->side[side], bg_side_name[side], r->n_queries, r->k, s, err);
    if (st == BG_OK)
        st = bg_origin_write(&r->origin, s, err);
    if (st == BG_OK)
        st = keep_run(r, s, err);
    if (st == BG_OK)
        st = bg_store_attr_u64(s, "/", "corpus_sequences", r->corpus_sequences, err);
    if (st == BG_OK && r->prefilter != NULL)
        st = bg_store_attr_text(s, "/", "prefilter", r->prefilter, err);
    if (st == BG_OK && r->explained != NULL)
        st = bg_store_attr_text(s, "/", "explained", r->explained, err);
    return st;
}
