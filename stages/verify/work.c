/* work.c - folders of work files: what their UNITS and the names in them say. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/memory.h"
#include "bregman/open.h"
#include "verify.h"

/* "covariance 1024 16 12" or "activation 4"; false for a line of another shape. */
static bool read_line(const char *line, verify_kind *k)
{
    char number[3][20];
    uint64_t n[3] = { 0 };
    *k = (verify_kind){ .total = 0 };
    int fields = sscanf(line, "%31s %19[0-9] %19[0-9] %19[0-9]", k->kind, number[0], number[1], number[2]);
    for (int i = 0; i < fields - 1; i++)
        n[i] = strtoull(number[i], NULL, 10);
    k->total = n[0];
    if (fields != 4)
        return fields == 2;
    k->units = (bg_units){ .n_sequences = n[0], .unit_sequences = n[1], .n_groups = n[2] };
    if (n[0] == 0 || n[1] == 0 || n[2] == 0)
        return false;
    k->total = bg_units_count(&k->units) * n[2];
    return true;
}

void verify_read_units(verify_folder *f)
{
    char path[BG_PATH_BYTES], line[256];
    FILE *file;
    if (bg_path(path, NULL, "%sUNITS", f->path) != BG_OK || bg_open_stream(path, &file, NULL) != BG_OK)
        return;
    while (f->n_kinds < VERIFY_MOST_KINDS && fgets(line, sizeof line, file) != NULL)
        f->n_kinds += read_line(line, &f->kind[f->n_kinds]);
    fclose(file);
}

/* A segment of this kind's units. */
static bool is_segment(const verify_kind *k, const char *name, bg_segment *g)
{
    char kind[BG_UNIT_KIND_BYTES];
    return k->units.n_sequences > 0 && bg_units_parse(name, kind, g) && strcmp(kind, k->kind) == 0 &&
           g->unit < bg_units_count(&k->units) && g->first < g->end && g->end <= bg_units_size(&k->units, g->unit);
}

static bool is_plain(const verify_kind *k, const char *name)
{
    size_t n = strlen(k->kind);
    return k->units.n_sequences == 0 && strncmp(name, k->kind, n) == 0 && name[n] == '-' && bg_ends_in(name, ".h5");
}

bool verify_is_work_file(const verify_folder *f, const char *name)
{
    bg_segment g;
    for (size_t k = 0; k < f->n_kinds; k++)
        if (is_segment(&f->kind[k], name, &g) || is_plain(&f->kind[k], name))
            return true;
    return false;
}

/* What is finished of a kind.  s: room for a segment a name. */
static uint64_t count_sound(const verify_folder *f, const verify_kind *k, bg_segment *s)
{
    size_t segments = 0, plain = 0;
    for (size_t i = 0; i < f->n_names; i++) {
        segments += f->sound[i] && is_segment(k, f->name[i], &s[segments]);
        plain += f->sound[i] && is_plain(k, f->name[i]);
    }
    return k->units.n_sequences > 0 ? bg_units_finished(&k->units, s, segments) : plain;
}

bg_status verify_describe_units(const verify_folder *f, char *line, size_t n_bytes, bg_err *err)
{
    bg_segment *s = NULL;
    bg_status st = BG_NEW(s, f->n_names + 1, "list of work files", err);
    for (size_t k = 0; k < f->n_kinds && st == BG_OK; k++) {
        size_t n = strlen(line);
        snprintf(line + n, n_bytes - n, "%s%" PRIu64 " of %" PRIu64 " units of %s", n > 0 ? ", " : "",
                 count_sound(f, &f->kind[k], s), f->kind[k].total, f->kind[k].kind);
    }
    bg_free(s);
    return st;
}
