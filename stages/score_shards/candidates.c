/* candidates.c - the list of sequences that a prefilter chose. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/memory.h"
#include "bregman/open.h"
#include "scoring.h"

typedef struct {
    uint64_t *item;
    uint64_t n, capacity;
} list;

static bg_status push(list *l, uint64_t x, bg_err *err)
{
    if (l->n == l->capacity) {
        uint64_t *bigger = NULL;
        uint64_t capacity = 2 * l->capacity + 1024;
        bg_status st = BG_NEW(bigger, capacity, "candidates", err);
        if (st != BG_OK)
            return st;
        if (l->n > 0)
            memcpy(bigger, l->item, l->n * sizeof *bigger);
        bg_free(l->item);
        l->item = bigger;
        l->capacity = capacity;
    }
    l->item[l->n++] = x;
    return BG_OK;
}

static bg_status read_text(FILE *f, const char *path, list *l, bg_err *err)
{
    char *line = NULL;
    size_t capacity = 0;
    uint64_t number = 0;
    bg_status st = BG_OK;
    for (ssize_t n; st == BG_OK && (n = getline(&line, &capacity, f)) >= 0;) {
        char *end, *at = line + strspn(line, " \t\r\n");
        number++;
        if (strlen(line) != (size_t)n)
            st = BG_FAIL(err, BG_EFORMAT, "%s:%" PRIu64 ": a zero byte: is it UTF-16, or no text at all?", path,
                         number);
        if (st != BG_OK || *at == '\0' || *at == '#')
            continue;
        errno = 0;
        uint64_t x = strtoull(at, &end, 10);
        if (*at < '0' || *at > '9' || errno != 0 || end[strspn(end, " \t\r\n")] != '\0')
            st = BG_FAIL(err, BG_EFORMAT, "%s:%" PRIu64 ": not a sequence number: %.40s", path, number, line);
        else
            st = push(l, x, err);
    }
    if (st == BG_OK && ferror(f))
        st = BG_FAIL(err, BG_EIO, "%s: cannot read: %s", path, strerror(errno));
    free(line);
    return st;
}

/* Any HDF5 file with a one-dimensional dataset `sequence`.  Read as signed: a negative number, which HDF5 would
 * turn into 0, then becomes one that is beyond every corpus. */
static bg_status read_hdf5(const char *path, list *l, bg_err *err)
{
    bg_store *s = NULL;
    bg_status st = bg_store_open(&s, path, "bregman/candidates", err);
    if (st == BG_OK)
        st = bg_store_dims(s, "sequence", 1, &l->n, err);
    if (st == BG_OK)
        st = BG_NEW(l->item, l->n, "candidates", err);
    if (st == BG_OK)
        st = bg_store_read(s, "sequence", BG_I64, &l->n, l->item, err);
    bg_store_close(s);
    return st;
}

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

bg_status score_read_candidates(const char *path, uint64_t n_corpus, uint64_t **out, uint64_t *n, bg_err *err)
{
    list l = { 0 };
    FILE *f;
    bg_status st = bg_open_stream(path, &f, err); /* before HDF5 opens it: that would wait for a pipe's writer */
    if (st != BG_OK)
        return st;
    st = H5Fis_hdf5(path) > 0 ? read_hdf5(path, &l, err) : read_text(f, path, &l, err);
    fclose(f);
    uint64_t kept = 0;
    if (st == BG_OK && l.n > 0)
        qsort(l.item, l.n, sizeof *l.item, ascending);
    for (uint64_t i = 0; i < l.n && st == BG_OK; i++) {
        if (l.item[i] >= n_corpus)
            st = BG_FAIL(err, BG_EFORMAT, "%s: sequence %" PRId64 ", but the token files hold %" PRIu64, path,
                         (int64_t)l.item[i], n_corpus);
        if (kept == 0 || l.item[i] != l.item[kept - 1])
            l.item[kept++] = l.item[i];
    }
    if (st == BG_OK && kept == 0)
        st = BG_FAIL(err, BG_EFORMAT, "%s: no candidates", path);
    if (st != BG_OK) {
        bg_free(l.item);
        return st;
    }
    *out = l.item;
    *n = kept;
    return BG_OK;
}
