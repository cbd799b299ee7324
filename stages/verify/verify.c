/* verify.c - a folder at a time: what its manifest lists, what else is in it, what a rerun would do. */
#include "bregman/stop.h"
#include "verify.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_STRANGERS = 10 };

static bool is_folder(const char *path)
{
    struct stat about;
    return stat(path, &about) == 0 && S_ISDIR(about.st_mode);
}

/* ---- what is in a folder ---- */

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static bg_status add_name(verify_folder *f, size_t *capacity, const char *name, bg_err *err)
{
    if (f->n_names == *capacity) {
        char **more = realloc(f->name, (2 * *capacity + 64) * sizeof *more);
        if (more == NULL)
            return BG_FAIL(err, BG_ENOMEM, "out of memory for the names in \"%s\"", f->path);
        f->name = more;
        *capacity = 2 * *capacity + 64;
    }
    if ((f->name[f->n_names] = strdup(name)) == NULL)
        return BG_FAIL(err, BG_ENOMEM, "out of memory for the names in \"%s\"", f->path);
    f->n_names++;
    return BG_OK;
}

static bg_status list_names(verify_folder *f, bg_err *err)
{
    size_t capacity = 0;
    bg_status st = BG_OK;
    DIR *dir = opendir(f->path);
    if (dir == NULL)
        return BG_FAIL(err, BG_EIO, "cannot read \"%s\": %s", f->path, strerror(errno));
    for (const struct dirent *e; st == BG_OK && (e = readdir(dir)) != NULL;)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            st = add_name(f, &capacity, e->d_name, err);
    closedir(dir);
    if (f->n_names > 0)
        qsort(f->name, f->n_names, sizeof *f->name, by_text);
    return st;
}

static bg_status open_folder(verify_folder *f, const char *path, bg_err *err)
{
    *f = (verify_folder){ .path = path };
    bg_status st = list_names(f, err);
    if (st == BG_OK)
        st = bg_manifest_read(&f->manifest, path, err);
    verify_read_units(f);
    f->good = calloc(f->manifest.n + 1, sizeof *f->good);
    f->sound = calloc(f->n_names + 1, sizeof *f->sound);
    if (st == BG_OK && (f->good == NULL || f->sound == NULL))
        st = BG_FAIL(err, BG_ENOMEM, "out of memory for the files of \"%s\"", path);
    return st;
}

static void close_folder(verify_folder *f)
{
    for (size_t i = 0; i < f->n_names; i++)
        free(f->name[i]);
    free(f->name);
    free(f->good);
    free(f->sound);
    bg_manifest_clear(&f->manifest);
}

/* ---- what else is there ---- */

static bool is_own(const char *name)
{
    return strcmp(name, "MANIFEST") == 0 || strcmp(name, "UNITS") == 0 || strcmp(name, "IDENTITY") == 0 ||
           strcmp(name, "stop") == 0;
}

static bg_status say_others(const verify_folder *f, bg_err *err)
{
    char path[BG_PATH_BYTES];
    size_t strangers = 0;
    bg_status st = BG_OK;
    for (size_t i = 0; i < f->n_names && st == BG_OK; i++) {
        const char *temporary = strstr(f->name[i], ".tmp-");
        st = bg_path(path, err, "%s%s", f->path, f->name[i]);
        if (st != BG_OK || is_own(f->name[i]) || bg_manifest_find(&f->manifest, f->name[i]) != NULL ||
            is_folder(path) || verify_is_work_file(f, f->name[i]))
            continue;
        if (temporary != NULL)
            verify_leftover(path, temporary + strlen(".tmp-"));
        else if (++strangers <= MOST_STRANGERS)
            verify_say(path, "not listed in the MANIFEST: no stage reads it as published");
    }
    if (strangers > MOST_STRANGERS)
        verify_say(f->path, "%zu more files are not listed", strangers - MOST_STRANGERS);
    if (f->manifest.torn)
        verify_say(f->path, "the MANIFEST's last line is cut short: its file is not listed, a rerun makes it again");
    if (f->manifest.n_malformed > 0 && f->manifest.n == 0)
        verify_say(f->path,
                   "none of the %zu lines of the MANIFEST can be read: it is not one of these programs', or damaged",
                   f->manifest.n_malformed);
    else if (f->manifest.n_malformed > 0)
        verify_say(f->path, "%zu line%s of the MANIFEST cannot be read", f->manifest.n_malformed,
                   f->manifest.n_malformed == 1 ? "" : "s");
    return st;
}

/* ---- folders ---- */

static bg_status check_one(verifying *v, const bg_manifest *m, const char *path, bool *good, bg_err *err)
{
    bool listed;
    bg_status st = verify_published(v, m, path, good, &listed, err);
    bool other = listed && !bg_ends_in(path, ".h5") && !bg_store_is_hdf5(path); /* a model's weights, a log as CSV */
    if (st == BG_OK && *good && !v->c->quick && !other)
        st = verify_content(v, path, listed, good, err);
    v->n_files++;
    v->n_bad += !*good;
    if (st == BG_OK && bg_stop_requested())
        st = BG_FAIL(err, BG_ESTOPPED, "stopped on request");
    return st;
}

static void count_bad(verify_folder *f, const char *name, const char *path)
{
    if (f->n_bad++ == 0) {
        f->first_bad = name;
        f->first_is_there = access(path, F_OK) == 0;
    }
}

static bg_status check_listed(verifying *v, verify_folder *f, bg_err *err)
{
    char path[BG_PATH_BYTES];
    bg_status st = BG_OK;
    for (size_t i = 0; i < f->manifest.n && st == BG_OK; i++) {
        const char *name = f->manifest.entry[i].name;
        st = bg_path(path, err, "%s%s", f->path, name);
        if (st != BG_OK || !verify_is_last_entry(&f->manifest, i))
            continue;
        st = check_one(v, &f->manifest, path, &f->good[i], err);
        f->n_listed++;
        if (st == BG_OK && !f->good[i])
            count_bad(f, name, path);
    }
    return st;
}

/* Work files stand by their name, without a line in a manifest.  They come and go while a stage runs. */
static bg_status check_work_files(verifying *v, verify_folder *f, bg_err *err)
{
    char path[BG_PATH_BYTES];
    bg_status st = BG_OK;
    for (size_t i = 0; i < f->n_names && st == BG_OK; i++) {
        st = bg_path(path, err, "%s%s", f->path, f->name[i]);
        if (st != BG_OK || !verify_is_work_file(f, f->name[i]) || access(path, F_OK) != 0)
            continue;
        st = check_one(v, &f->manifest, path, &f->sound[i], err);
        if (st == BG_OK && !f->sound[i])
            count_bad(f, f->name[i], path);
    }
    return st;
}

/* Folders of work files are looked into, those of others not. */
static bool is_work(const char *path, const char *name)
{
    char inside[BG_PATH_BYTES];
    if (strcmp(name, "work") == 0 || bg_ends_in(name, ".work"))
        return true;
    return bg_path(inside, NULL, "%s/MANIFEST", path) == BG_OK && access(inside, F_OK) == 0;
}

static bg_status check_folder(verifying *v, const char *path, bg_err *err)
{
    char inner[BG_PATH_BYTES];
    verify_folder f;
    bg_status st = open_folder(&f, path, err);
    if (st == BG_OK)
        st = check_listed(v, &f, err);
    if (st == BG_OK)
        st = check_work_files(v, &f, err);
    if (st == BG_OK)
        st = say_others(&f, err);
    if (st == BG_OK)
        st = verify_writers(path, err);
    for (size_t i = 0; i < f.n_names && st == BG_OK; i++) {
        st = bg_path(inner, err, "%s%s", path, f.name[i]);
        if (st == BG_OK && is_folder(inner) && is_work(inner, f.name[i])) {
            st = bg_path(inner, err, "%s%s/", path, f.name[i]);
            if (st == BG_OK)
                st = check_folder(v, inner, err);
        }
    }
    if (st == BG_OK)
        st = verify_outlook(&f, err);
    close_folder(&f);
    return st;
}

/* ---- files ---- */

/* The folder of a file's own, or of its units: "./", "DIR/". */
static bg_status folder_of(const char *path, char out[BG_PATH_BYTES], bg_err *err)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL ? bg_path(out, err, "./") : bg_path(out, err, "%.*s", (int)(slash + 1 - path), path);
}

static bg_status check_file(verifying *v, const char *path, bg_err *err)
{
    char folder[BG_PATH_BYTES];
    bg_manifest m = { 0 };
    bool good = false;
    bg_status st = folder_of(path, folder, err);
    if (st == BG_OK)
        st = bg_manifest_read(&m, folder, err);
    if (st == BG_OK)
        st = check_one(v, &m, path, &good, err);
    bool listed = st == BG_OK &&
                  bg_manifest_find(&m, strrchr(path, '/') != NULL ? strrchr(path, '/') + 1 : path) != NULL;
    if (st == BG_OK && good)
        verify_say(path,
                   listed ? "complete: a rerun says already done" : "sound, but not listed in its folder's MANIFEST");
    else if (st == BG_OK)
        verify_say(path, access(path, F_OK) == 0 ? "remove it, then a rerun makes it again" : "a rerun makes it again");
    bg_manifest_clear(&m);
    return st;
}

/* A file that is still being made has its units in PATH.work. */
static bg_status check_path(verifying *v, const char *path, bg_err *err)
{
    char units[BG_PATH_BYTES];
    size_t n = strlen(path);
    bg_status st = bg_path(units, err, "%s%s", path, n > 0 && path[n - 1] == '/' ? "" : "/");
    if (st == BG_OK && is_folder(path))
        return check_folder(v, units, err);
    bool there = access(path, F_OK) == 0;
    if (st == BG_OK && there)
        st = check_file(v, path, err);
    if (st == BG_OK)
        st = bg_path(units, err, "%s.work/", path);
    if (st == BG_OK && is_folder(units))
        return check_folder(v, units, err);
    if (st == BG_OK && !there) {
        verify_say(path, "missing");
        v->n_files++;
        v->n_bad++;
    }
    return st;
}

/* ---- the whole ---- */

/* Bytes to be hashed, for the progress: what the manifests say. */
static uint64_t bytes_of(const char *path)
{
    char folder[BG_PATH_BYTES];
    bg_manifest m = { 0 };
    uint64_t n = 0;
    bool all = is_folder(path);
    bg_status st = all ? bg_path(folder, NULL, "%s/", path) : folder_of(path, folder, NULL);
    if (st == BG_OK && bg_manifest_read(&m, folder, NULL) == BG_OK)
        for (size_t i = 0; i < m.n; i++)
            n += all && verify_is_last_entry(&m, i) ? m.entry[i].size_bytes : 0;
    const bg_manifest_entry *own =
        all ? NULL : bg_manifest_find(&m, strrchr(path, '/') != NULL ? strrchr(path, '/') + 1 : path);
    n += own != NULL ? own->size_bytes : 0;
    bg_manifest_clear(&m);
    return n;
}

static bg_status verify_all(verifying *v, bg_err *err)
{
    const bg_list *paths = &v->c->paths;
    uint64_t total = 0;
    bg_status st = BG_OK;
    for (size_t i = 0; i < paths->n; i++)
        total += bytes_of(paths->item[i]);
    bg_progress_start(&v->progress, "reading", "MiB", 0, total >> 20);
    for (size_t i = 0; i < paths->n && st == BG_OK; i++)
        st = check_path(v, paths->item[i], err);
    if (st == BG_OK && (fflush(stdout) != 0 || ferror(stdout)))
        st = BG_FAIL(err, BG_EIO, "cannot write to standard output");
    if (st == BG_OK && v->n_bad > 0)
        st = BG_FAIL(err, BG_EFORMAT, "%zu of %zu files are damaged, missing or stale", v->n_bad, v->n_files);
    return st;
}

bg_status verify_run(const void *config, const bg_context *ctx, bg_err *err)
{
    verifying v = { .c = config };
    bg_status st = ctx->grid.world_rank == 0 ? verify_all(&v, err) : BG_OK;
    verify_forget(&v.files);
    verify_forget(&v.inputs);
    return bg_agree(ctx->grid.world, st, err);
}
