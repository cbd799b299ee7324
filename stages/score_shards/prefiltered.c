/* prefiltered.c - candidates that prefilter chose: whose corpus they are of, and their places in its lists. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/log.h"
#include "bregman/memory.h"
#include "scoring.h"

/* NULL if it is a text, which says nothing but numbers. */
static bg_status open_file(bg_store **s, const char *path, bg_err *err)
{
    *s = NULL;
    return bg_store_is_hdf5(path) ? bg_store_open(s, path, "bregman/candidates", err) : BG_OK;
}

bg_status score_check_candidates(const scoring *w, bg_err *err)
{
    const char *path = w->c->candidates;
    char what[BG_DIFFERENCE_BYTES];
    bg_origin its = { 0 };
    bg_store *s = NULL;
    bg_status st = open_file(&s, path, err);
    if (st == BG_OK && s != NULL && bg_store_has(s, "corpus/file")) {
        st = bg_origin_read_tokens(&its, s, "remove it and choose them again", err);
        if (st == BG_OK && bg_origin_differs(&w->in.origin, &its, what))
            st = BG_FAIL(err, BG_ESTALE,
                         "%.140s was made from other inputs: %s; give the token files that they were chosen from, in "
                         "their order, or choose them again",
                         path, what);
    }
    bg_origin_clear(&its);
    bg_store_close(s);
    return st;
}

/* ---- places ---- */

typedef struct {
    int64_t sequence, rank;
} listed;

static int by_sequence(const void *a, const void *b)
{
    int64_t x = ((const listed *)a)->sequence, y = ((const listed *)b)->sequence;
    return (x > y) - (x < y);
}

/* A query's list. */
typedef struct {
    uint64_t n;
    int64_t *sequence;
    listed *by_sequence;
} filtered;

static bg_status read_list(filtered *f, const bg_store *s, uint64_t row, bg_err *err)
{
    bg_status st = bg_store_read_rows(s, "top/sequence", BG_I64, (bg_slab){ row, 1, f->n }, f->sequence, err);
    for (uint64_t i = 0; i < f->n && st == BG_OK; i++)
        f->by_sequence[i] = (listed){ f->sequence[i], (int64_t)i + 1 };
    if (st == BG_OK)
        qsort(f->by_sequence, f->n, sizeof *f->by_sequence, by_sequence);
    return st;
}

static void find_places(const filtered *f, bg_ranked side[BG_SIDES], size_t first, size_t k)
{
    for (size_t i = 0; i < BG_SIDES * k; i++) {
        bg_ranked *r = &side[i / k];
        size_t cell = first + i % k;
        const listed key = { r->sequence[cell], 0 };
        const listed *found = key.sequence < 0 ? NULL : bsearch(&key, f->by_sequence, f->n, sizeof key, by_sequence);
        r->prefilter_rank[cell] = found != NULL ? found->rank : -1;
    }
}

/* The row of a query's list; n if it has none. */
static uint64_t row_of(char **name, uint64_t n, const char *id)
{
    uint64_t row = 0;
    while (row < n && strcmp(name[row], id) != 0)
        row++;
    return row;
}

/* name [n]: the queries of the file. */
static bg_status find_all(const scoring *w, const bg_store *s, char **name, uint64_t n, bg_ranked side[BG_SIDES],
                          size_t k, bg_err *err)
{
    const bg_queries *q = w->made.queries;
    uint64_t dims[2] = { 0, 0 };
    filtered f = { 0 };
    bg_status st = bg_store_dims(s, "top/sequence", 2, dims, err);
    f.n = dims[1];
    if (st == BG_OK)
        st = BG_NEW(f.sequence, f.n, "a list of candidates", err);
    if (st == BG_OK)
        st = BG_NEW(f.by_sequence, f.n, "a list of candidates", err);
    for (size_t i = 0; i < q->extent.n_queries && st == BG_OK; i++) {
        uint64_t row = row_of(name, n, q->id[i]);
        if (row == n)
            continue;
        st = read_list(&f, s, row, err);
        if (st == BG_OK)
            find_places(&f, side, i * k, k);
    }
    bg_free(f.sequence);
    bg_free(f.by_sequence);
    return st;
}

/* Was it made by prefilter, and for the queries that these were compressed from? */
static bg_status is_for_these(const scoring *w, const bg_store *s, bool *yes, bg_err *err)
{
    char *hash = NULL;
    bool found = false;
    *yes = false;
    if (!bg_store_has(s, "query") || !bg_store_has(s, "top/sequence"))
        return BG_OK;
    bg_status st = bg_store_get_text(s, "/", "queries_hash", &hash, &found, err);
    *yes = st == BG_OK && found && strcmp(hash, w->in.origin.queries.hex) == 0;
    if (st == BG_OK && !*yes)
        bg_log("%s was made for other queries than %s: its ranks are left out", w->c->candidates, w->c->queries);
    free(hash);
    return st;
}

static bg_status describe(const bg_store *s, char **how, bg_err *err)
{
    char text[128], *form = NULL;
    uint64_t dims[2] = { 0, 0 };
    bg_status st = bg_store_get_text(s, "/", "form", &form, NULL, err);
    if (st == BG_OK)
        st = bg_store_dims(s, "top/sequence", 2, dims, err);
    snprintf(text, sizeof text, "BM25 (%.40s), the best %" PRIu64 " of each query", form != NULL ? form : "", dims[1]);
    free(form);
    if (st == BG_OK && (*how = strdup(text)) == NULL)
        st = BG_FAIL(err, BG_ENOMEM, "out of memory");
    return st;
}

bg_status score_find_places(const scoring *w, bg_ranked side[BG_SIDES], size_t k, char **how, bg_err *err)
{
    bg_store *s = NULL;
    char **name = NULL;
    size_t n = 0;
    bool yes = false;
    *how = NULL;
    bg_status st = open_file(&s, w->c->candidates, err);
    if (st == BG_OK && s != NULL)
        st = is_for_these(w, s, &yes, err);
    if (st == BG_OK && yes)
        st = bg_store_read_strings(s, "query", &name, &n, err);
    for (int i = 0; i < BG_SIDES && st == BG_OK && yes; i++)
        st = bg_ranked_add_prefilter(&side[i], w->made.queries->extent.n_queries, k, err);
    if (st == BG_OK && yes)
        st = find_all(w, s, name, n, side, k, err);
    if (st == BG_OK && yes)
        st = describe(s, how, err);
    bg_strings_free(name, n);
    bg_store_close(s);
    return st;
}
