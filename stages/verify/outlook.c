/* outlook.c - what a rerun would do with a folder, in one line. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/shard.h"
#include "verify.h"

enum { LINE_BYTES = 1024 };

bool verify_is_last_entry(const bg_manifest *m, size_t i)
{
    return i + 1 == m->n || strcmp(m->entry[i].name, m->entry[i + 1].name) != 0;
}

static void add(char line[LINE_BYTES], const char *fmt, ...) BG_PRINTF(2, 3);
static void add(char line[LINE_BYTES], const char *fmt, ...)
{
    size_t n = strlen(line);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line + n, LINE_BYTES - n, fmt, ap);
    va_end(ap);
}

static bool has_name(const verify_folder *f, const char *name)
{
    for (size_t i = 0; i < f->n_names; i++)
        if (strcmp(f->name[i], name) == 0)
            return true;
    return false;
}

/* The division that a shard's file, its folder of units or an attempt at either belongs to. */
static bool shard_of(const char *name, uint64_t *n)
{
    char own[BG_SHARD_NAME_BYTES];
    uint64_t i;
    snprintf(own, sizeof own, "%.*s.h5", (int)strcspn(name, "."), name);
    return bg_shard_parse(own, &i, n);
}

/* "3 of 4 shards"; complete [out]: all of every division into shards that has one, finished or begun. */
static bool describe_shards(const verify_folder *f, char line[LINE_BYTES], bool *complete)
{
    uint64_t *done = calloc(BG_MOST_SHARDS + 1, sizeof *done), i,
             n; /* of each division met: 1, and 1 for each finished */
    *complete = true;
    for (size_t k = 0; k < f->n_names && done != NULL; k++)
        if (shard_of(f->name[k], &n))
            done[n] = 1;
    for (size_t e = 0; e < f->manifest.n && done != NULL; e++)
        if (verify_is_last_entry(&f->manifest, e) && f->good[e] && bg_shard_parse(f->manifest.entry[e].name, &i, &n))
            done[n] += done[n] > 0;
    for (n = 1; n <= BG_MOST_SHARDS && done != NULL; n++)
        if (done[n] > 0) {
            add(line, "%s%" PRIu64 " of %" PRIu64 " shards", line[0] != '\0' ? ", " : "", done[n] - 1, n);
            *complete = *complete && done[n] - 1 == n;
        }
    free(done);
    return line[0] != '\0';
}

/* The index of factors is written last: with it a rerun looks no further. */
static bool is_factors(const verify_folder *f)
{
    bool has_index = has_name(f, "index.h5");
    for (size_t i = 0; i < f->manifest.n && !has_index; i++)
        if (strncmp(f->manifest.entry[i].name, "block-", 6) == 0 || strcmp(f->manifest.entry[i].name, "index.h5") == 0)
            return true;
    return has_index || has_name(f, "work");
}

static void describe_repair(const verify_folder *f, char line[LINE_BYTES])
{
    const bg_manifest_entry *index = is_factors(f) ? bg_manifest_find(&f->manifest, "index.h5") : NULL;
    bool index_too = index != NULL && has_name(f, "index.h5") && strcmp(f->first_bad, "index.h5") != 0;
    bool remove = f->first_is_there || f->n_bad > 1 || index_too;
    add(line, "; %zu damaged or missing: ", f->n_bad);
    if (!remove)
        add(line, "a rerun makes %s again", f->first_bad);
    else if (f->n_bad > 1)
        add(line, "remove the %zu named above%s, then a rerun makes them again", f->n_bad,
            index_too ? " and index.h5" : "");
    else if (!f->first_is_there)
        add(line, "remove index.h5, then a rerun makes %s again", f->first_bad);
    else
        add(line, "remove %s%s, then a rerun makes it again", f->first_bad, index_too ? " and index.h5" : "");
}

bg_status verify_outlook(const verify_folder *f, bg_err *err)
{
    char line[LINE_BYTES] = "";
    bool complete = true, in_progress = f->n_kinds > 0;
    bg_status st = verify_describe_units(f, line, sizeof line, err);
    if (st != BG_OK)
        return st;
    if (!in_progress && !describe_shards(f, line, &complete)) {
        complete = !is_factors(f) || bg_manifest_find(&f->manifest, "index.h5") != NULL;
        add(line, "%zu file%s", f->n_listed, f->n_listed == 1 ? "" : "s");
    }
    if (f->n_bad > 0)
        describe_repair(f, line);
    else if (!f->manifest.exists && !in_progress)
        add(line, " published here: a rerun starts from the beginning");
    else if (in_progress)
        add(line, " are finished: a rerun goes on");
    else
        add(line, complete ? ", complete: a rerun says already done" : ", not complete: a rerun goes on");
    verify_say(f->path, "%s", line);
    return BG_OK;
}
