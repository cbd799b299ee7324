/* related.c - which documents the user says are related to each query, and where they are in the corpus. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/log.h"
#include "bregman/memory.h"
#include "compare_scales.h"
#include "costs.h"

/* ---- what queries.h5 says ---- */

static bg_status read_rows(comparison *w, const bg_store *s, uint32_t *count, bg_err *err)
{
    related_documents *r = &w->related;
    size_t n = 0;
    bg_status st = bg_store_read(s, "related/count", BG_U32, (uint64_t[]){ w->n_queries }, count, err);
    if (st == BG_OK)
        st = bg_store_read_strings(s, "related/relation", &r->relation, &r->n_rows, err);
    if (st == BG_OK)
        st = bg_store_read_strings(s, "related/document", &r->document, &n, err);
    if (st == BG_OK && n != r->n_rows)
        st = BG_FAIL(err, BG_ESHAPE, "%s: \"related/document\" has %zu rows, \"related/relation\" %zu", w->c->queries,
                     n, r->n_rows);
    return st;
}

/* A pair for each relation that a query has.  Rows of one query follow one another. */
static void make_pairs(comparison *w, const uint32_t *count)
{
    related_documents *r = &w->related;
    for (size_t q = 0, row = 0; q < w->n_queries; q++) {
        size_t first = r->n_pairs;
        for (uint32_t i = 0; i < count[q]; i++, row++) {
            size_t p = first;
            while (p < r->n_pairs && strcmp(r->pair[p].relation, r->relation[row]) != 0)
                p++;
            if (p == r->n_pairs)
                r->pair[r->n_pairs++] = (related_pair){ .query = q, .relation = r->relation[row] };
            r->pair_of[row] = p;
        }
    }
}

static bg_status read_queries(comparison *w, bg_err *err)
{
    related_documents *r = &w->related;
    uint32_t *count = NULL;
    size_t n = 0;
    bg_store *s = NULL;
    bg_status st = bg_store_open_sequences(&s, w->c->queries, err);
    if (st == BG_OK && bg_store_has(s, "kind"))
        st = bg_store_read_strings(s, "kind", &w->kind, &n, err);
    if (st == BG_OK && bg_store_has(s, "related/count")) {
        st = BG_NEW(count, w->n_queries, "related documents", err);
        if (st == BG_OK)
            st = read_rows(w, s, count, err);
        if (st == BG_OK)
            st = BG_NEW(r->pair, r->n_rows, "related documents", err);
        if (st == BG_OK)
            st = BG_NEW(r->pair_of, r->n_rows, "related documents", err);
        if (st == BG_OK)
            make_pairs(w, count);
    }
    bg_free(count);
    bg_store_close(s);
    return st;
}

/* ---- where the documents are ---- */

/* A row of related/document, by the document's id. */
typedef struct {
    const char *id;
    size_t row;
} wanted;

static int by_id(const void *a, const void *b)
{
    const wanted *x = a, *y = b;
    int order = strcmp(x->id, y->id);
    return order != 0 ? order : (x->row > y->row) - (x->row < y->row);
}

/* A sequence of a pair. */
typedef struct {
    size_t pair;
    uint64_t sequence;
} place;

static int by_pair(const void *a, const void *b)
{
    const place *x = a, *y = b;
    if (x->pair != y->pair)
        return x->pair < y->pair ? -1 : 1;
    return (x->sequence > y->sequence) - (x->sequence < y->sequence);
}

/* A document of the file in hand that somebody wants. */
typedef struct {
    int64_t document; /* row of documents/id */
    size_t first;     /* of want */
} known;

typedef struct {
    comparison *w;
    wanted *want; /* [n_rows] by id */
    place *found;
    size_t n_found, room;
    known *known; /* of the file in hand, ascending */
    size_t n_known, known_room;
    uint64_t n_ids; /* of the file's documents */
} search;

static bg_status add_place(search *x, size_t pair, uint64_t sequence, bg_err *err)
{
    if (x->n_found == x->room) {
        x->room = 2 * x->room + 64;
        place *more = realloc(x->found, x->room * sizeof *more);
        if (more == NULL)
            return BG_FAIL(err, BG_ENOMEM, "out of memory for related sequences");
        x->found = more;
    }
    x->found[x->n_found++] = (place){ pair, sequence };
    return BG_OK;
}

static size_t first_wanted(const search *x, const char *id)
{
    size_t n = x->w->related.n_rows, low = 0, high = n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(x->want[middle].id, id) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low < n && strcmp(x->want[low].id, id) == 0 ? low : n;
}

static bg_status add_known(search *x, int64_t document, size_t first, bg_err *err)
{
    if (x->n_known == x->known_room) {
        x->known_room = 2 * x->known_room + 64;
        known *more = realloc(x->known, x->known_room * sizeof *more);
        if (more == NULL)
            return BG_FAIL(err, BG_ENOMEM, "out of memory for related documents");
        x->known = more;
    }
    x->known[x->n_known++] = (known){ document, first };
    return BG_OK;
}

/* Which of the file's documents are wanted. */
static bg_status search_ids(search *x, const bg_store *s, bg_err *err)
{
    bg_status st = bg_store_dims(s, "documents/id", 1, &x->n_ids, err);
    x->n_known = 0;
    for (uint64_t at = 0, n; at < x->n_ids && st == BG_OK; at += n) {
        char **id = NULL;
        n = x->n_ids - at < COMPARE_PIECE ? x->n_ids - at : COMPARE_PIECE;
        st = bg_store_read_string_rows(s, "documents/id", (bg_slab){ at, n, 1 }, &id, err);
        for (uint64_t i = 0; i < n && st == BG_OK; i++) {
            size_t first = first_wanted(x, id[i]);
            if (first < x->w->related.n_rows)
                st = add_known(x, (int64_t)(at + i), first, err);
        }
        bg_strings_free(id, n);
    }
    return st;
}

/* All rows that want the document. */
static bg_status take(search *x, int64_t document, uint64_t sequence, const char *path, bg_err *err)
{
    const related_documents *r = &x->w->related;
    size_t low = 0, high = x->n_known;
    if (document >= 0 && (uint64_t)document >= x->n_ids)
        return BG_FAIL(err, BG_EFORMAT, "%s: a sequence is of document %" PRId64 " of %" PRIu64, path, document,
                       x->n_ids);
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (x->known[middle].document < document)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == x->n_known || x->known[low].document != document)
        return BG_OK;
    const size_t first = x->known[low].first;
    bg_status st = BG_OK;
    for (size_t i = first; i < r->n_rows && strcmp(x->want[i].id, x->want[first].id) == 0 && st == BG_OK; i++)
        st = add_place(x, r->pair_of[x->want[i].row], sequence, err);
    return st;
}

/* A dataset of whole numbers, read a piece at a time. */
typedef struct {
    const bg_store *s;
    const char *path;
    uint64_t n, at;
    int64_t *value; /* [COMPARE_PIECE] */
} column;

static bg_status open_column(column *c, const bg_store *s, const char *path, bg_err *err)
{
    *c = (column){ .s = s, .path = path };
    bg_status st = bg_store_dims(s, path, 1, &c->n, err);
    return st == BG_OK ? BG_NEW(c->value, COMPARE_PIECE, path, err) : st;
}

static bg_status next(column *c, int64_t *out, bg_err *err)
{
    uint64_t i = c->at % COMPARE_PIECE, left = c->n - c->at;
    bg_status st = BG_OK;
    if (left == 0)
        return BG_FAIL(err, BG_ESHAPE, "\"%s\" of \"%s\" ends too early", c->path, bg_store_path(c->s));
    if (i == 0)
        st = bg_store_read_rows(c->s, c->path, BG_I64,
                                (bg_slab){ c->at, left < COMPARE_PIECE ? left : COMPARE_PIECE, 1 }, c->value, err);
    *out = c->value[i];
    c->at++;
    return st;
}

/* The documents of sequences [first, first + n), whether each is of one or of several pieces. */
static bg_status search_sequences(search *x, const bg_store *s, uint64_t first, uint64_t n, bg_err *err)
{
    bool pieces = bg_store_has(s, "piece/count");
    column count = { 0 }, document = { 0 };
    bg_status st = pieces ? open_column(&count, s, "piece/count", err) : BG_OK;
    if (st == BG_OK)
        st = open_column(&document, s, pieces ? "piece/document" : "document", err);
    for (uint64_t z = 0; z < n && st == BG_OK; z++) {
        int64_t several = 1, one = -1;
        if (pieces)
            st = next(&count, &several, err);
        for (int64_t i = 0; i < several && st == BG_OK; i++) {
            st = next(&document, &one, err);
            if (st == BG_OK)
                st = take(x, one, first + z, bg_store_path(s), err);
        }
    }
    if (st == BG_OK && document.at < document.n)
        st = BG_FAIL(err, BG_ESHAPE, "\"%s\" of \"%s\" goes on after the last sequence", document.path,
                     bg_store_path(s));
    bg_free(count.value);
    bg_free(document.value);
    return st;
}

static bg_status search_file(search *x, size_t file, uint64_t first, bg_err *err)
{
    bg_store *s = NULL;
    bg_status st = bg_store_open_sequences(&s, bg_tokens_path(x->w->tokens, file), err);
    bool named = st == BG_OK && bg_store_has(s, "documents/id") &&
                 (bg_store_has(s, "document") || bg_store_has(s, "piece/document"));
    if (named)
        st = search_ids(x, s, err);
    if (named && st == BG_OK)
        st = search_sequences(x, s, first, bg_tokens_file_sequences(x->w->tokens, file), err);
    bg_store_close(s);
    return st;
}

/* In the order of their pairs, each sequence once. */
static bg_status keep_places(search *x, bg_err *err)
{
    related_documents *r = &x->w->related;
    size_t n = 0;
    bg_status st = BG_NEW(r->sequence, x->n_found, "related sequences", err);
    if (st != BG_OK || x->n_found == 0)
        return st;
    qsort(x->found, x->n_found, sizeof *x->found, by_pair);
    for (size_t i = 0; i < x->n_found; i++) {
        const place *p = &x->found[i];
        if (i > 0 && by_pair(p, p - 1) == 0)
            continue;
        related_pair *of = &r->pair[p->pair];
        if (of->end == 0)
            of->first = n;
        r->sequence[n++] = p->sequence;
        of->end = n;
    }
    return BG_OK;
}

bg_status compare_read_related(comparison *w, bg_err *err)
{
    related_documents *r = &w->related;
    search x = { .w = w };
    bg_status st = read_queries(w, err);
    if (st == BG_OK)
        st = BG_NEW(x.want, r->n_rows, "related documents", err);
    for (size_t i = 0; i < r->n_rows && st == BG_OK; i++)
        x.want[i] = (wanted){ r->document[i], i };
    if (st == BG_OK && r->n_rows > 0)
        qsort(x.want, r->n_rows, sizeof *x.want, by_id);
    uint64_t first = 0;
    for (size_t i = 0; i < bg_tokens_files(w->tokens) && st == BG_OK && r->n_rows > 0; i++) {
        st = search_file(&x, i, first, err);
        first += bg_tokens_file_sequences(w->tokens, i);
    }
    if (st == BG_OK)
        st = keep_places(&x, err);
    free(x.found);
    free(x.known);
    bg_free(x.want);
    return st;
}

void compare_clear_related(comparison *w)
{
    related_documents *r = &w->related;
    bg_free(r->pair);
    bg_free(r->pair_of);
    bg_free(r->sequence);
    bg_strings_free(r->relation, r->n_rows);
    bg_strings_free(r->document, r->n_rows);
    bg_strings_free(w->kind, w->n_queries);
}
