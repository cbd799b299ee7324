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
                           at->columns == 1 ? "a number" : "a line of two numbers", line);
        bg_status st = push(l, x, err);
        if (st != BG_OK)
            return st;
        text = next;
    }
    return BG_OK;
}

bg_status bg_number_lines_read(const char *path, size_t columns, uint64_t **number, size_t *n, bg_err *err)
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
