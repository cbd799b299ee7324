#include "bregman/attempt.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bregman/folder.h"
#include "bregman/log.h"
#include "bregman/manifest.h"
#include "bregman/open.h"
#include "bregman/stop.h"
#include "bregman/store.h"
#include "bregman/writer.h"

/* ---- IDENTITY ---- */

typedef struct {
    char stage[64], call[sizeof((bg_hash *)0)->hex];
    size_t rows;
    ino_t inode;
} identity;

enum { IDENTITY_BYTES = 256, MOST_ROWS = 1 << 30 };

/* *found false if there is none. */
static bg_status read_identity(const char *work, identity *id, bool *found, bg_err *err)
{
    char path[BG_PATH_BYTES], text[IDENTITY_BYTES], rows[16] = "";
    int fd, end = 0;
    *found = false;
    bg_status st = bg_path(path, err, "%s/IDENTITY", work);
    if (st != BG_OK)
        return st;
    st = bg_open_file(path, &fd, err);
    if (st != BG_OK)
        return errno == ENOENT || errno == ENOTDIR ? BG_OK : st;
    struct stat about = { .st_ino = 0 };
    ssize_t n = read(fd, text, sizeof text - 1);
    if (n < 0 || fstat(fd, &about) != 0)
        st = BG_FAIL(err, BG_EIO, "cannot read \"%s\": %s", path, strerror(errno));
    close(fd);
    if (st != BG_OK)
        return st;
    text[n] = '\0';
    *found = true;
    id->inode = about.st_ino;
    bool whole = sscanf(text, "stage %63s\ncall %32[0-9a-f]\nrows %15[0-9]%n", id->stage, id->call, rows, &end) == 3;
    id->rows = whole ? strtoull(rows, NULL, 10) : 0;
    if (whole && strcmp(text + end, "\n") == 0 && id->rows > 0 && id->rows <= MOST_ROWS)
        return BG_OK;
    return BG_FAIL(err, BG_EFORMAT, "\"%s\" is damaged: remove the folder \"%s\"", path, work);
}

/* Whole or not at all, and the first attempt's stays. */
static bg_status write_identity(const bg_attempt *a, const char *writer, bg_err *err)
{
    char path[BG_PATH_BYTES], temporary[BG_PATH_BYTES], text[IDENTITY_BYTES];
    bg_status st = bg_path(path, err, "%s/IDENTITY", a->work);
    if (st == BG_OK)
        st = bg_path(temporary, err, "%s.tmp-%s", path, writer);
    if (st != BG_OK)
        return st;
    int n = snprintf(text, sizeof text, "stage %s\ncall %s\nrows %zu\n", a->ctx->name, a->in->call.hex, a->rows);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    errno = fd < 0 ? errno : ENOSPC; /* what a short write means */
    bool written = fd >= 0 && write(fd, text, (size_t)n) == n && fsync(fd) == 0;
    if (!written || (link(temporary, path) != 0 && errno != EEXIST && rename(temporary, path) != 0))
        st = BG_FAIL(err, BG_EIO, "cannot write \"%s\": %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    unlink(temporary);
    return st;
}

static bool is_of_call(const identity *id, const bg_context *ctx, const bg_inputs *in)
{
    return strcmp(id->stage, ctx->name) == 0 && strcmp(id->call, in->call.hex) == 0;
}

/* ---- who is in the folder ---- */

/* Each attempt that may keep something has a flag of its own in it, an empty file, as long as it lives. */
static const char flag[] = "ATTEMPT.tmp-";

/* Nothing is kept in the folder, and no other attempt is in it, as far as is certain.
 *   mine [in]  this attempt's writer's name, or "" */
static bool is_abandoned(const char *work, const char *mine)
{
    bool idle = true;
    DIR *dir = opendir(work);
    for (const struct dirent *e; dir != NULL && idle && (e = readdir(dir)) != NULL;) {
        const char *writer = strncmp(e->d_name, flag, strlen(flag)) == 0 ? e->d_name + strlen(flag) : NULL;
        idle = !bg_ends_in(e->d_name, ".h5") &&
               (writer == NULL || strcmp(writer, mine) == 0 || bg_writer_is_dead(writer));
    }
    if (dir != NULL)
        closedir(dir);
    return idle;
}

static bg_status raise_flag(const char *work, const char *mine, bg_err *err)
{
    char path[BG_PATH_BYTES];
    bg_status st = bg_path(path, err, "%s/%s%s", work, flag, mine);
    int fd = st == BG_OK ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666) : -1;
    if (st == BG_OK && fd < 0)
        st = BG_FAIL(err, BG_EIO, "cannot write \"%s\": %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return st;
}

bg_status bg_attempt_recall(const bg_context *ctx, const bg_inputs *in, const char *work, size_t *rows, bg_err *err)
{
    identity id;
    bool found = false;
    bg_status st = ctx->grid.world_rank == 0 ? read_identity(work, &id, &found, err) : BG_OK;
    st = bg_agree(ctx->grid.world, st, err);
    *rows = found && is_of_call(&id, ctx, in) && !is_abandoned(work, "") ? id.rows : 0;
    bg_broadcast(ctx->grid.world, rows, sizeof *rows, 0);
    return st;
}

/* ---- the call, on rank 0 ---- */

/* Which option of the other call's differs, if that is what does. */
static void add_difference(const bg_attempt *a, const char *recorded, bg_err *err)
{
    json_t *then = json_loads(recorded, 0, NULL), *now = json_loads(a->ctx->identity, 0, NULL), *value;
    size_t used = strlen(err->msg);
    const char *key;
    char *was = NULL, *is = NULL;
    json_object_foreach(now, key, value)
    {
        const json_t *before = json_object_get(then, key);
        if (before == NULL || json_equal(before, value))
            continue;
        was = json_dumps(before, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
        is = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
        break;
    }
    if (was != NULL && is != NULL)
        snprintf(err->msg + used, sizeof err->msg - used, "; %.40s was %.60s, and is %.60s now", key, was, is);
    else if (then != NULL && now != NULL)
        snprintf(err->msg + used, sizeof err->msg - used, "; its options are the same, an input is another");
    free(was);
    free(is);
    json_decref(then);
    json_decref(now);
}

static bg_status look_for_output(const bg_attempt *a, bool *done, bg_err *err)
{
    bg_store *s = NULL;
    char *recorded = NULL;
    *done = false;
    bg_status st = a->is_done != NULL ? a->is_done(a->self, done, err)
                                      : bg_store_is_done(a->output, a->in->fingerprint.hex, done, err);
    if (st == BG_ESTALE && strstr(err->msg, "was made from other inputs or options") != NULL &&
        bg_store_open_any(&s, a->output, NULL) == BG_OK &&
        bg_store_get_text(s, "run", "options", &recorded, NULL, NULL) == BG_OK)
        add_difference(a, recorded, err);
    free(recorded);
    bg_store_close(s);
    return st;
}

static bg_status check_identity(const identity *id, const bg_attempt *a, bg_err *err)
{
    if (!is_of_call(id, a->ctx, a->in))
        return BG_FAIL(err, BG_ESTALE,
                       "\"%s/IDENTITY\" was made from other inputs or options: give those again to go on, or remove its "
                       "folder \"%s\" once no job is at work in it (it has a file %s... of each)",
                       a->work, a->work, flag);
    if (id->rows != a->rows)
        return BG_FAIL(err, BG_ESTALE,
                       "\"%s/IDENTITY\" says that another run of the same command has begun meanwhile, with micro-batches "
                       "of %zu rows: run it again",
                       a->work, id->rows);
    return BG_OK;
}

/* Take IDENTITY away if it still is the one that was read: another may be taking the folder over too. */
static bg_status discard_identity(const char *work, const identity *read, const char *mine, bg_err *err)
{
    char path[BG_PATH_BYTES], aside[BG_PATH_BYTES];
    struct stat about;
    bg_status st = bg_path(path, err, "%s/IDENTITY", work);
    if (st == BG_OK)
        st = bg_path(aside, err, "%s.tmp-%s", path, mine);
    if (st != BG_OK || rename(path, aside) != 0)
        return st;
    if (stat(aside, &about) == 0 && about.st_ino != read->inode && link(aside, path) != 0)
        st = BG_FAIL(err, BG_ESTALE, "\"%s\" is being taken over by another job: run the same command again", work);
    unlink(aside);
    return st;
}

/* The work folder, of this call and of no other. */
static bg_status take_work(const bg_attempt *a, const char *mine, bg_err *err)
{
    identity id;
    bool found = false;
    bg_status st = bg_make_folder(a->work, err);
    if (st == BG_OK)
        st = raise_flag(a->work, mine, err);
    if (st == BG_OK)
        st = read_identity(a->work, &id, &found, err);
    if (st == BG_OK && found && is_abandoned(a->work, mine))
        st = discard_identity(a->work, &id, mine, err);
    if (st == BG_OK)
        st = write_identity(a, mine, err);
    found = false;
    if (st == BG_OK)
        st = read_identity(a->work, &id, &found, err);
    return st == BG_OK && found ? check_identity(&id, a, err) : st;
}

/* After a failure, as where the memory does not suffice: a folder in which nothing was kept, and nobody else is, goes,
 * so that the command may be given again with other options. */
static void leave_work(const char *work, const char *mine)
{
    static const char *const text[] = { "IDENTITY", "UNITS" };
    char path[BG_PATH_BYTES];
    for (size_t i = 0; i < sizeof text / sizeof *text && is_abandoned(work, mine); i++)
        if (bg_path(path, NULL, "%s/%s", work, text[i]) == BG_OK)
            unlink(path);
    if (bg_path(path, NULL, "%s/%s%s", work, flag, mine) == BG_OK)
        unlink(path);
    rmdir(work); /* if it is empty */
}

static bg_status remove_all_leftovers(const bg_attempt *a, bg_err *err)
{
    char folder[BG_PATH_BYTES];
    bg_status st = bg_folder_of(a->output, folder, err);
    if (st == BG_OK)
        st = bg_remove_leftovers(folder, err);
    if (st == BG_OK && a->work != NULL)
        st = bg_path(folder, err, "%s/", a->work);
    return st == BG_OK && a->work != NULL ? bg_remove_leftovers(folder, err) : st;
}

/* Another attempt that ends takes the folder away, also one that this attempt has just made sure of. */
static bool is_taken_away(const char *work) { return access(work, F_OK) != 0 && errno == ENOENT; }

/* What killed attempts have left goes first: its room may be needed. */
static bg_status look(const bg_attempt *a, const char *mine, bool *done, bg_err *err)
{
    enum { TRIES = 100 };
    bg_status st = remove_all_leftovers(a, err);
    for (int tries = 0; tries < TRIES && st == BG_OK; tries++) {
        st = look_for_output(a, done, err);
        if (st != BG_OK || a->work == NULL)
            return st;
        if (*done)
            return bg_remove_folder(a->work, err);
        st = take_work(a, mine, err);
        if (st == BG_OK || tries + 1 == TRIES || !is_taken_away(a->work))
            return st;
        st = BG_OK;
    }
    return st;
}

/* ---- the call ---- */

/* How it has really ended: another attempt may have published the output meanwhile and taken the work folder away. */
static bg_status outcome(const bg_attempt *a, bg_status st, bg_err *err)
{
    bg_err ignored;
    bool done = false;
    if (st == BG_OK || st == BG_ESTOPPED)
        return st;
    if (a->ctx->grid.world_rank == 0)
        done = look_for_output(a, &done, &ignored) == BG_OK && done &&
               (a->work == NULL || bg_remove_folder(a->work, &ignored) == BG_OK);
    bg_broadcast(a->ctx->grid.world, &done, sizeof done, 0);
    if (!done)
        return st;
    *err = (bg_err){ .rank = -1, .file = "" };
    bg_log("%s: finished by another run of the same command", a->output);
    return BG_OK;
}

/* What is listed is folded by the last that writes, rank 0; the work folder goes. */
static bg_status finish(const bg_attempt *a, bg_status st, bg_err *err)
{
    MPI_Comm world = a->ctx->grid.world;
    bool first = a->ctx->grid.world_rank == 0;
    if (!first || st != BG_OK)
        bg_manifest_close(false);
    if (st != BG_OK || (st = bg_agree(world, st, err)) != BG_OK)
        return st;
    if (first)
        bg_manifest_close(true);
    if (first && a->work != NULL)
        st = bg_remove_folder(a->work, err);
    return bg_agree(world, st, err);
}

bg_status bg_attempt_run(const bg_attempt *a, bg_err *err)
{
    MPI_Comm world = a->ctx->grid.world;
    bool done = false, first = a->ctx->grid.world_rank == 0;
    char mine[BG_WRITER_BYTES];
    bg_writer_name(mine);
    bg_status st = bg_agree(world, first ? look(a, mine, &done, err) : BG_OK, err);
    bg_broadcast(world, &done, sizeof done, 0);
    if (st == BG_OK && done)
        bg_log("%s: already done", a->output);
    if (st == BG_OK && !done && a->work != NULL)
        st = bg_agree(world, bg_stop_beside(a->work, err), err);
    if (st == BG_OK && !done)
        st = finish(a, outcome(a, a->run(a->self, err), err), err);
    if (st != BG_OK && first && a->work != NULL)
        leave_work(a->work, mine);
    return st;
}
