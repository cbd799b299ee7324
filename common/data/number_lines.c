#include "bregman/number_lines.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/memory.h"
#include "bregman/open.h"

typedef struct {
    uint64_t *item;
    size_t n, capacity;
} list;

static bg_status push(list *l, uint64_t x, bg_err *err)
{
    if (l->n == l->capacity) {
        uint64_t *bigger = NULL;
        size_t capacity = 2 * l->capacity + 1024;
        bg_status st = BG_NEW(bigger, capacity, "list of numbers", err);
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

/* Where a line is. */
typedef struct {
    const char *path;
    size_t number, columns;
} place;

static bg_status read_line(const char *line, const place *at, list *l, bg_err *err)
{
    const char *blank = " \t\r\n", *text = line + strspn(line, blank);
    if (*text == '\0' || *text == '#')
        return BG_OK;
    for (size_t i = 0; i < at->columns; i++) {
        char *end;
        errno = 0;
        uint64_t x = strtoull(text, &end, 10);
        const char *next = end + strspn(end, blank);
        bool whole = *text >= '0' && *text <= '9' && errno == 0 && (next > end || *end == '\0');
        if (!whole || (*next == '\0') != (i + 1 == at->columns))
            return BG_FAIL(err, BG_EFORMAT, "%s:%zu: not %s: %.40s", at->path, at->number,
                           at->columns == 1 ? "a sequence number" : "a line of two numbers", line);
        bg_status st = push(l, x, err);
        if (st != BG_OK)
            return st;
        text = next;
    }
    return BG_OK;
}

bg_status bg_number_lines_read(const char *path, size_t columns, uint64_t **number, uint64_t *n, bg_err *err)
{
    list l = { 0 };
    place at = { path, 0, columns };
    FILE *f;
    char *line = NULL;
    size_t capacity = 0;
    bg_status st = bg_open_stream(path, &f, err);
    *number = NULL;
    if (st != BG_OK)
        return st;
    for (ssize_t k; st == BG_OK && (k = getline(&line, &capacity, f)) >= 0;) {
        at.number++;
        st = strlen(line) == (size_t)k
                 ? read_line(line, &at, &l, err)
                 : BG_FAIL(err, BG_EFORMAT, "%s:%zu: a zero byte: is it UTF-16, or no text at all?", path, at.number);
    }
    if (st == BG_OK && ferror(f))
        st = BG_FAIL(err, BG_EIO, "%s: cannot read: %s", path, strerror(errno));
    if (st == BG_OK && l.n == 0)
        st = BG_FAIL(err, BG_EFORMAT, "%s: no line with numbers in it", path);
    free(line);
    fclose(f);
    if (st != BG_OK) {
        bg_free(l.item);
        return st;
    }
    *number = l.item;
    *n = l.n / columns;
    return BG_OK;
}

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

bg_status bg_sequences_settle(const char *path, uint64_t *number, uint64_t *n, uint64_t n_corpus, bg_err *err)
{
    uint64_t kept = 0;
    if (*n == 0)
        return BG_FAIL(err, BG_EFORMAT, "%s: no sequence in it", path);
    qsort(number, *n, sizeof *number, ascending);
    for (uint64_t i = 0; i < *n; i++) {
        if (number[i] >= n_corpus)
            return BG_FAIL(err, BG_EFORMAT, "%s: sequence %" PRId64 ", but the token files hold %" PRIu64, path,
                           (int64_t)number[i], n_corpus);
        if (kept == 0 || number[i] != number[kept - 1])
            number[kept++] = number[i];
    }
    *n = kept;
    return BG_OK;
}
