#include "bregman/units.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bregman/memory.h"
#include "bregman/site.h"
#include "bregman/writer.h"

enum { NAME_BYTES = 192 };

uint64_t bg_units_count(const bg_units *u) { return (u->n_sequences + u->unit_sequences - 1) / u->unit_sequences; }

uint64_t bg_units_size(const bg_units *u, uint64_t unit)
{
    uint64_t left = u->n_sequences - unit * u->unit_sequences;
    return left < u->unit_sequences ? left : u->unit_sequences;
}

void bg_units_describe(const bg_units *u, char line[BG_UNITS_LINE_BYTES])
{
    snprintf(line, BG_UNITS_LINE_BYTES, "%s %" PRIu64 " %" PRIu64 " %zu\n", u->kind, u->n_sequences, u->unit_sequences,
             u->n_groups);
}

/* ---- names ---- */

static void write_name(const char *kind, const bg_segment *g, char out[NAME_BYTES])
{
    char section[BG_SECTION_NAME_BYTES] = "";
    if (g->group != BG_WHOLE_MODEL)
        bg_section_name(g->group, section);
    snprintf(out, NAME_BYTES, "%s-%05" PRIu64 "%s%s.%06" PRIu64 "-%06" PRIu64 ".h5", kind, g->unit,
             *section != '\0' ? "-" : "", section, g->first, g->end);
}

/* The digits at *at, which then is behind them; too many give another number, and so another name. */
static uint64_t take_number(const char **at)
{
    char *end;
    if (**at < '0' || **at > '9')
        return 0;
    uint64_t n = strtoull(*at, &end, 10);
    *at = end;
    return n;
}

static void skip(const char **at, const char *text)
{
    if (strncmp(*at, text, strlen(text)) == 0)
        *at += strlen(text);
}

/* "-head", "-embedding", else "-block-" and its number. */
static size_t take_section(const char **at)
{
    const char *const begin = *at;
    skip(at, "-head");
    if (*at != begin)
        return BG_SECTION_HEAD;
    skip(at, "-embedding");
    if (*at != begin)
        return BG_SECTION_EMBEDDING;
    skip(at, "-block-");
    return take_number(at);
}

/* What the numbers in it would be, if it is one: writing them down again tells. */
bool bg_units_parse(const char *name, char kind[BG_UNIT_KIND_BYTES], bg_segment *out)
{
    char own[BG_UNIT_KIND_BYTES], again[NAME_BYTES];
    bg_segment g = { .group = BG_WHOLE_MODEL };
    const char *at = name + strcspn(name, "-");
    if (at == name || (size_t)(at - name) >= sizeof own)
        return false;
    snprintf(own, sizeof own, "%.*s", (int)(at - name), name);
    skip(&at, "-");
    g.unit = take_number(&at);
    if (*at == '-')
        g.group = take_section(&at);
    skip(&at, ".");
    g.first = take_number(&at);
    skip(&at, "-");
    g.end = take_number(&at);
    write_name(own, &g, again);
    if (strcmp(again, name) != 0)
        return false;
    memcpy(kind, own, sizeof own);
    *out = g;
    return true;
}

static bg_status path_of(const bg_units *u, const bg_segment *g, char out[BG_PATH_BYTES], bg_err *err)
{
    char name[NAME_BYTES];
    write_name(u->kind, g, name);
    return bg_path(out, err, "%s/%s", u->folder, name);
}

/* ---- what is there ---- */

static bool has_group(const bg_units *u, size_t group)
{
    bool has = u->group == NULL && group == BG_WHOLE_MODEL;
    for (size_t i = 0; u->group != NULL && i < u->n_groups && !has; i++)
        has = u->group[i] == group;
    return has;
}

static bool is_ours(const bg_units *u, const char *name, bg_segment *g)
{
    char kind[BG_UNIT_KIND_BYTES];
    return bg_units_parse(name, kind, g) && strcmp(kind, u->kind) == 0 && has_group(u, g->group) &&
           g->unit < bg_units_count(u) && g->first < g->end && g->end <= bg_units_size(u, g->unit) &&
           (g->first == 0 || !u->cumulative);
}

/* By unit, group and first sequence; of those that begin together the longest is first. */
static int in_order(const void *a_, const void *b_)
{
    const bg_segment *a = a_, *b = b_;
    if (a->unit != b->unit)
        return a->unit < b->unit ? -1 : 1;
    if (a->group != b->group)
        return a->group < b->group ? -1 : 1;
    if (a->first != b->first)
        return a->first < b->first ? -1 : 1;
    return (a->end < b->end) - (a->end > b->end);
}

typedef struct {
    bg_segment *s;
    size_t n, capacity;
} segments;

static bg_status add_segment(segments *list, const bg_segment *g, bg_err *err)
{
    if (list->n == list->capacity) {
        size_t capacity = 2 * list->capacity + 64;
        bg_segment *more = realloc(list->s, capacity * sizeof *more);
        if (more == NULL)
            return BG_FAIL(err, BG_ENOMEM, "out of memory for a list of %zu work files", capacity);
        list->s = more;
        list->capacity = capacity;
    }
    list->s[list->n++] = *g;
    return BG_OK;
}

/* All files of the kind in order; free with free(). */
static bg_status list_folder(const bg_units *u, segments *list, bg_err *err)
{
    bg_status st = BG_OK;
    bg_segment g;
    *list = (segments){ 0 };
    DIR *folder = opendir(u->folder);
    if (folder == NULL)
        return BG_FAIL(err, BG_EIO, "cannot read folder \"%s\": %s", u->folder, strerror(errno));
    for (const struct dirent *e; st == BG_OK && (errno = 0, e = readdir(folder)) != NULL;)
        if (is_ours(u, e->d_name, &g))
            st = add_segment(list, &g, err);
    if (st == BG_OK && errno != 0)
        st = BG_FAIL(err, BG_EIO, "cannot read folder \"%s\": %s", u->folder, strerror(errno));
    closedir(folder);
    if (list->n > 0)
        qsort(list->s, list->n, sizeof *list->s, in_order);
    return st;
}

/* How many of n segments in order, from the first on, are of its unit, or of its unit and group. */
static size_t of_unit(const bg_segment *s, size_t n)
{
    size_t i = 0;
    while (i < n && s[i].unit == s[0].unit)
        i++;
    return i;
}

static size_t of_group(const bg_segment *s, size_t n)
{
    size_t i = 0;
    while (i < n && s[i].unit == s[0].unit && s[i].group == s[0].group)
        i++;
    return i;
}

/* How far a group's files reach without a gap. */
static uint64_t reach(const bg_segment *s, size_t n)
{
    uint64_t at = 0;
    for (size_t i = 0; i < n && s[i].first <= at; i++)
        at = s[i].end > at ? s[i].end : at;
    return at;
}

static bool has_end(const bg_segment *s, size_t n, uint64_t end)
{
    for (size_t i = 0; i < n; i++)
        if (s[i].end == end)
            return true;
    return false;
}

/* Sequences kept of all groups, from the n files of a unit. */
static uint64_t kept_rows(const bg_units *u, const bg_segment *s, size_t n)
{
    uint64_t least = UINT64_MAX;
    size_t groups = 0;
    for (size_t i = 0, m; i < n; i += m, groups++) {
        m = of_group(s + i, n - i);
        uint64_t at = reach(s + i, m);
        least = at < least ? at : least;
    }
    return groups == u->n_groups ? least : 0;
}

static uint64_t kept_sums(const bg_units *u, const bg_segment *s, size_t n)
{
    uint64_t most = 0, size = bg_units_size(u, s[0].unit);
    for (size_t k = 0; k < n; k++) {
        size_t groups = 0;
        for (size_t i = 0, m; i < n && s[k].end > most; i += m) {
            m = of_group(s + i, n - i);
            groups += has_end(s + i, m, s[k].end) || has_end(s + i, m, size);
        }
        most = groups == u->n_groups ? s[k].end : most;
    }
    return most;
}

void bg_units_remove(const bg_units *u, const bg_segment *g)
{
    char path[BG_PATH_BYTES];
    if (path_of(u, g, path, NULL) == BG_OK)
        unlink(path);
}

bg_status bg_units_find(const bg_units *u, bool *done, uint64_t *part, bg_err *err)
{
    segments list;
    bg_status st = list_folder(u, &list, err);
    memset(done, 0, bg_units_count(u) * sizeof *done);
    memset(part, 0, bg_units_count(u) * sizeof *part);
    for (size_t i = 0, m; i < list.n && st == BG_OK; i += m) {
        const bg_segment *s = list.s + i;
        m = of_unit(s, list.n - i);
        uint64_t kept = u->cumulative ? kept_sums(u, s, m) : kept_rows(u, s, m);
        done[s->unit] = kept == bg_units_size(u, s->unit);
        part[s->unit] = done[s->unit] ? 0 : kept;
        for (size_t k = 0; k < m && u->cumulative; k++)
            if (s[k].end < kept) /* one that is longer may be what another attempt is writing */
                bg_units_remove(u, &s[k]);
    }
    free(list.s);
    return st;
}

uint64_t bg_units_finished(const bg_units *u, bg_segment *s, size_t n)
{
    uint64_t finished = 0;
    if (n > 0)
        qsort(s, n, sizeof *s, in_order);
    for (size_t i = 0, m; i < n; i += m) {
        m = of_group(s + i, n - i);
        finished += s[i].unit < bg_units_count(u) && reach(s + i, m) == bg_units_size(u, s[i].unit);
    }
    return finished;
}

/* ---- one file ---- */

bool bg_units_has(const bg_units *u, const bg_segment *g)
{
    char path[BG_PATH_BYTES];
    return path_of(u, g, path, NULL) == BG_OK && access(path, F_OK) == 0;
}

bg_status bg_units_create(bg_store **out, const bg_units *u, const bg_segment *g, bg_err *err)
{
    char path[BG_PATH_BYTES];
    *out = NULL;
    bg_status st = path_of(u, g, path, err);
    return st == BG_OK ? bg_store_create(out, path, "bregman/work", u->run, err) : st;
}

bg_status bg_units_end(bg_store *s, const bg_units *u, const bg_segment *g, uint64_t end, bg_status st, bg_err *err)
{
    char path[BG_PATH_BYTES];
    bg_segment shorter = *g;
    shorter.end = end;
    if (st == BG_OK && end < g->end)
        st = path_of(u, &shorter, path, err);
    if (st == BG_OK && end < g->end)
        st = bg_store_cut(s, path, end - g->first, err);
    return bg_store_end(s, st, err);
}

/* Closes the file of another call. */
static bg_status check_call(bg_store **s, const bg_provenance *run, bg_err *err)
{
    char *fingerprint = NULL;
    bg_status st = bg_store_get_text(*s, "run", "fingerprint", &fingerprint, NULL, err);
    if (st == BG_OK && strcmp(fingerprint, run->fingerprint) != 0)
        st = BG_FAIL(err, BG_ESTALE,
                     "\"%s\" was made from other inputs or options: give those again to go on, or remove its folder",
                     bg_store_path(*s));
    free(fingerprint);
    if (st != BG_OK) {
        bg_store_close(*s);
        *s = NULL;
    }
    return st;
}

bg_status bg_work_open(bg_store **out, const char *path, const bg_provenance *run, bg_err *err)
{
    bg_err found;
    bg_status st = bg_store_open(out, path, "bregman/work", &found);
    if (st == BG_EFORMAT)
        return BG_FAIL(err, st, "%.380s; remove it, then run the same command again", found.msg);
    if (st != BG_OK && err != NULL)
        *err = found;
    return st == BG_OK ? check_call(out, run, err) : st;
}

bg_status bg_units_open(bg_store **out, const bg_units *u, const bg_segment *g, bg_err *err)
{
    char path[BG_PATH_BYTES];
    *out = NULL;
    bg_status st = path_of(u, g, path, err);
    return st == BG_OK ? bg_work_open(out, path, u->run, err) : st;
}

/* ---- reading what a finished sweep has left ---- */

/* Rows [row, row + n) of a file are those of sequences [first, first + n). */
typedef struct {
    const bg_segment *file;
    uint64_t first, n, row;
} run;

struct bg_units_reader {
    const bg_units *u;
    segments list;
    run *run; /* [n_runs] of the group in hand; there is room for one a file */
    size_t n_runs;
    bg_store *open[BG_UNITS_OPEN]; /* files of the first runs */
    bg_store *other;               /* of the last run asked for, if it is none of those */
    bg_store *last;                /* one of them: the file asked for last; NULL: none */
};

bg_status bg_units_reader_new(bg_units_reader **out, const bg_units *u, bg_err *err)
{
    bg_units_reader *r = NULL;
    *out = NULL;
    bg_status st = BG_NEW(r, 1, "list of work files", err);
    if (st != BG_OK)
        return st;
    r->u = u;
    st = list_folder(u, &r->list, err);
    if (st == BG_OK)
        st = BG_NEW(r->run, r->list.n, "list of work files", err);
    if (st != BG_OK) {
        bg_units_reader_free(r);
        return st;
    }
    *out = r;
    return BG_OK;
}

static void close_files(bg_units_reader *r)
{
    for (size_t i = 0; i < BG_UNITS_OPEN; i++) {
        bg_store_close(r->open[i]);
        r->open[i] = NULL;
    }
    bg_store_close(r->other);
    r->other = r->last = NULL;
}

void bg_units_reader_free(bg_units_reader *r)
{
    if (r == NULL)
        return;
    close_files(r);
    free(r->list.s);
    bg_free(r->run);
    bg_free(r);
}

/* The runs of a unit, of a group's n files. */
static bg_status add_runs(bg_units_reader *r, uint64_t unit, size_t group, const bg_segment *s, size_t n, bg_err *err)
{
    uint64_t at = 0, size = bg_units_size(r->u, unit);
    for (size_t i = 0; i < n && at < size; i++) {
        if (s[i].first > at || s[i].end <= at || (r->u->cumulative && s[i].end < size))
            continue;
        r->run[r->n_runs++] = (run){ &s[i], unit * r->u->unit_sequences + at, s[i].end - at, at - s[i].first };
        at = s[i].end;
    }
    if (at == size)
        return BG_OK;
    char path[BG_PATH_BYTES];
    bg_segment missing = { unit, group, at, size };
    bg_status st = path_of(r->u, &missing, path, err);
    return st == BG_OK ? BG_FAIL(err, BG_EIO, "\"%s\" is gone, and no other file has its rows", path) : st;
}

bg_status bg_units_choose(bg_units_reader *r, size_t group, bg_err *err)
{
    const segments *list = &r->list;
    bg_status st = BG_OK;
    size_t i = 0;
    close_files(r);
    r->n_runs = 0;
    for (uint64_t unit = 0; unit < bg_units_count(r->u) && st == BG_OK; unit++) {
        while (i < list->n && (list->s[i].unit < unit || (list->s[i].unit == unit && list->s[i].group < group)))
            i++;
        bool there = i < list->n && list->s[i].unit == unit && list->s[i].group == group;
        size_t n = there ? of_group(list->s + i, list->n - i) : 0;
        st = add_runs(r, unit, group, list->s + i, n, err);
    }
    return st;
}

size_t bg_units_runs(const bg_units_reader *r) { return r->n_runs; }

size_t bg_units_run_of(const bg_units_reader *r, uint64_t sequence)
{
    size_t lo = 0, hi = r->n_runs;
    while (hi - lo > 1) {
        size_t m = (lo + hi) / 2;
        if (r->run[m].first <= sequence)
            lo = m;
        else
            hi = m;
    }
    return lo;
}

bg_status bg_units_read(bg_units_reader *r, size_t i, bg_rows *out, bg_err *err)
{
    const run *found = &r->run[i];
    bg_store **slot = i < BG_UNITS_OPEN ? &r->open[i] : &r->other;
    bg_status st = BG_OK;
    if (r->last != NULL && r->last != *slot)
        bg_store_let_go(r->last);
    bg_store_close(r->other);
    r->other = NULL;
    if (*slot == NULL)
        st = bg_units_open(slot, r->u, found->file, err);
    r->last = *slot;
    *out = (bg_rows){ *slot, found->first, found->n, found->row };
    return st;
}

/* ---- UNITS ---- */

bg_status bg_units_promise(const char *folder, const char *text, bg_err *err)
{
    char path[BG_PATH_BYTES], temporary[BG_PATH_BYTES], writer[BG_WRITER_BYTES];
    bg_status st = bg_path(path, err, "%s/UNITS", folder);
    bg_writer_name(writer);
    if (st == BG_OK)
        st = bg_path(temporary, err, "%s.tmp-%s", path, writer);
    if (st != BG_OK)
        return st;
    FILE *file = fopen(temporary, "we");
    bool written = file != NULL && fputs(text, file) >= 0;
    if (file != NULL && fclose(file) != 0)
        written = false;
    if (!written || rename(temporary, path) != 0)
        st = BG_FAIL(err, BG_EIO, "cannot write \"%s\": %s", path, strerror(errno));
    if (st != BG_OK)
        unlink(temporary);
    return st;
}
