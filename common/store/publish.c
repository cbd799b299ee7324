/* publish.c - from a temporary file to a published one, and whether a file is done.  What a crash leaves at any moment:
 *
 * 1. A name that no reader looks at (PATH.tmp-WRITER) until the file is closed and on disk: a final name is never seen
 *    half written.
 * 2. A final name that no manifest lists, until its folder is on disk (bg_manifest_append syncs it first): no line is
 * on disk before the file.  Such a file is made again.
 * 3. Over a file that is listed the new one is listed first, then renamed: of the two lines the one that has the file's
 *    size counts, whichever file has the name.
 * 4. Of two attempts one takes the name, by link; the other's file goes.  Who finds a file with another fingerprint
 * there stops with BG_ESTALE: nobody's file is replaced. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "bregman/folder.h"
#include "bregman/hash_cache.h"
#include "bregman/manifest.h"
#include "handle.h"
#include "hdf5_lib.h"
#include "scales.h"

/* ---- closing ---- */

/* Close the HDF5 file with everything written.  The flush comes first, since after a failed
 * close there is nothing left to close properly. */
static bg_status close_file(bg_store *s, bg_err *err)
{
    char finished[32];
    bg_utc_text((double)time(NULL), finished);
    bg_status st = bg_axes_attach(s, err);
    if (st == BG_OK && H5Aexists_by_name(s->file, "run", "finished", H5P_DEFAULT) <= 0)
        st = bg_store_attr_text(s, "run", "finished", finished, err);
    if (st != BG_OK)
        return st;
    if (H5Fflush(s->file, H5F_SCOPE_GLOBAL) < 0) {
        s->failed = true;
        return bg_hdf5_fail(err, BG_EIO, "write \"%s\"", s->path);
    }
    bg_dataset_close_all(s);
    if ((st = bg_dataset_close_status(s, err)) != BG_OK) {
        s->failed = true;
        return st;
    }
    herr_t status = H5Fclose(s->file);
    s->file = H5I_INVALID_HID;
    return status < 0 ? bg_hdf5_fail(err, BG_EIO, "write \"%s\"", s->path) : BG_OK;
}

static bool is_work(const bg_store *s) { return strcmp(s->format, "bregman/work") == 0; }

/* On disk, and its content's hash and size, unless it is a work file.  inode [out]: the file's */
static bg_status settle(const bg_store *s, bg_manifest_entry *listed, ino_t *inode, bg_err *err)
{
    struct stat about = { .st_size = 0 };
    bg_status st = bg_sync_path(s->temporary, s->path, 0, err);
    if (st == BG_OK && !is_work(s))
        st = bg_hash_file(s->temporary, &listed->hash, err);
    if (st == BG_OK && stat(s->temporary, &about) != 0)
        st = BG_FAIL(err, BG_EIO, "cannot write \"%s\": %s", s->path, strerror(errno));
    listed->size_bytes = (uint64_t)about.st_size;
    *inode = about.st_ino;
    return st;
}

static bg_status give_name(const bg_store *s, bg_err *err)
{
    if (rename(s->temporary, s->path) != 0)
        return BG_FAIL(err, BG_EIO, "cannot write \"%s\": %s", s->path, strerror(errno));
    return BG_OK;
}

/* In the place of a file that is listed: listed first, so that it is listed as it is whenever this ends. */
static bg_status replace(const bg_store *s, const bg_manifest_entry *e, bg_err *err)
{
    char folder[BG_PATH_BYTES];
    bg_status st = bg_folder_of(s->path, folder, err);
    if (st == BG_OK)
        st = bg_manifest_append(s->path, &e->hash, e->size_bytes, err);
    if (st == BG_OK)
        st = give_name(s, err);
    return st == BG_OK ? bg_sync_path(folder, s->path, O_DIRECTORY, err) : st;
}

static bg_status list(const bg_store *s, const bg_manifest_entry *e, bg_err *err)
{
    return is_work(s) ? BG_OK : bg_manifest_append(s->path, &e->hash, e->size_bytes, err);
}

bg_status bg_store_publish(bg_store *s, bg_hash *hash, bg_err *err)
{
    bg_manifest_entry e = { .name = NULL };
    ino_t inode = 0;
    bg_status st = close_file(s, err);
    if (st == BG_OK)
        st = settle(s, &e, &inode, err);
    if (st == BG_OK && !is_work(s) && access(s->path, F_OK) == 0)
        st = replace(s, &e, err);
    else if (st == BG_OK && (st = give_name(s, err)) == BG_OK)
        st = list(s, &e, err);
    if (st == BG_OK && hash != NULL)
        *hash = e.hash;
    if (st == BG_OK && !is_work(s))
        bg_hash_remember(s->path, inode, &e.hash);
    bg_store_discard(s);
    return st;
}

bg_status bg_store_end(bg_store *s, bg_status st, bg_err *err)
{
    if (st == BG_OK)
        return bg_store_publish(s, NULL, err);
    bg_store_discard(s);
    return st;
}

/* ---- done? ---- */

static bg_status check_fingerprint(const char *path, const char *fingerprint, bg_err *err)
{
    bg_store *s = NULL;
    char *found = NULL;
    bg_status st = bg_store_open_any(&s, path, err);
    if (st == BG_OK)
        st = bg_store_get_text(s, "run", "fingerprint", &found, NULL, err);
    if (st == BG_OK && strcmp(found, fingerprint) != 0)
        st = BG_FAIL(err, BG_ESTALE, "\"%s\" was made from other inputs or options: remove it or choose another output",
                     path);
    free(found);
    bg_store_close(s);
    return st;
}

/* A file that no manifest lists may be what a crash left between renaming and listing: it is made again.  Anything
 * else is somebody's, and not to be replaced. */
static bg_status check_unlisted(const char *path, const char *fingerprint, bg_err *err)
{
    struct stat about;
    if (fingerprint == NULL || stat(path, &about) != 0)
        return BG_OK;
    if (S_ISDIR(about.st_mode))
        return BG_FAIL(err, BG_EIO, "cannot write \"%s\": %s", path, strerror(EISDIR));
    if (check_fingerprint(path, fingerprint, NULL) == BG_OK)
        return BG_OK;
    return BG_FAIL(err, BG_ESTALE,
                   "\"%s\" is there, but not as a file of this command line: remove it or choose another output", path);
}

bg_status bg_store_is_done(const char *path, const char *fingerprint, bool *done, bg_err *err)
{
    bg_manifest_entry entry;
    struct stat about;
    bool listed;
    *done = false;
    bg_status st = bg_manifest_lookup(path, &listed, &entry, err);
    if (st == BG_OK && !listed)
        st = check_unlisted(path, fingerprint, err);
    if (st != BG_OK || !listed)
        return st;
    if (stat(path, &about) != 0) {
        if (errno == ENOENT || errno == ENOTDIR)
            return BG_OK;
        return BG_FAIL(err, BG_EIO, "cannot read \"%s\": %s", path, strerror(errno));
    }
    if ((uint64_t)about.st_size != entry.size_bytes) {
        /* renamed, but not yet or never listed, over one that was listed: as good as one that never was */
        if (fingerprint != NULL && check_fingerprint(path, fingerprint, NULL) == BG_OK)
            return BG_OK;
        return BG_FAIL(err, BG_EFORMAT,
                       "\"%s\" has %jd bytes, %" PRIu64 " by its folder's MANIFEST: "
                       "it was changed or cut short; remove it",
                       path, (intmax_t)about.st_size, entry.size_bytes);
    }
    if (fingerprint != NULL)
        st = check_fingerprint(path, fingerprint, err);
    *done = st == BG_OK;
    return st;
}

/* ---- two attempts at once ---- */

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* Give the temporary file its name unless another has it (*taken).  File systems without hard links may know another
 * way; on one that has none, of two that end in the same moment the last one's file stays. */
static bg_status take_name(const bg_store *s, bool *taken, bg_err *err)
{
    struct stat own, there;
    *taken = false;
    if (link(s->temporary, s->path) == 0)
        return BG_OK;
    int cause = errno;
    if (cause == EPERM || cause == EOPNOTSUPP || cause == ENOSYS || cause == EMLINK) {
        if (renameat2(AT_FDCWD, s->temporary, AT_FDCWD, s->path, RENAME_NOREPLACE) == 0)
            return BG_OK;
        cause = errno;
        if ((cause == EINVAL || cause == ENOSYS) && access(s->path, F_OK) != 0)
            return give_name(s, err);
    }
    bool is_there = lstat(s->path, &there) == 0;
    if (is_there && stat(s->temporary, &own) == 0 &&
        same_file(&own, &there)) /* NFS asked twice, and answered the second time */
        return BG_OK;
    *taken = is_there || cause == EEXIST;
    return *taken ? BG_OK : BG_FAIL(err, BG_EIO, "cannot write \"%s\": %s", s->path, strerror(cause));
}

/* Another attempt's file has the name: will it be listed?  One that still lives does so within a moment.  The waits of
 * a process are bounded all together: where a lost manifest lists none of many files, no wait helps. */
static bg_status other_is_done(const char *path, const char *fingerprint, bool *done, bg_err *err)
{
    enum { WAIT_S = 2, POLLS_PER_S = 50 };
    static int polls = WAIT_S * POLLS_PER_S;
    const struct timespec pause = { .tv_nsec = 1000000000 / POLLS_PER_S };
    bg_status st = bg_store_is_done(path, fingerprint, done, err);
    for (; polls > 0 && st == BG_OK && !*done; polls--) {
        nanosleep(&pause, NULL);
        st = bg_store_is_done(path, fingerprint, done, err);
    }
    return st;
}

/* The name is another's.  If that is held between taking it and listing it, its file has its temporary name too: it
 * stays, and is listed for it.  If it was killed there, and what it left has been removed, its file is replaced: *e is
 * listed by the caller. */
static bg_status yield_name(const bg_store *s, const char *fingerprint, bg_manifest_entry *e, bool *done, bg_err *err)
{
    struct stat about = { .st_nlink = 0 };
    bool held = stat(s->path, &about) == 0 &&
                about.st_nlink > 1; /* before the manifest is read: it lists first, then removes */
    bg_status st = other_is_done(s->path, fingerprint, done, err);
    if (st != BG_OK || *done)
        return st;
    if (!held)
        return give_name(s, err);
    e->size_bytes = (uint64_t)about.st_size;
    return bg_hash_file(s->path, &e->hash, err);
}

bg_status bg_store_end_once(bg_store *s, bg_status st, bg_err *err)
{
    char *fingerprint = NULL, path[BG_PATH_BYTES] = "";
    bg_manifest_entry e = { .name = NULL };
    ino_t inode = 0;
    bool taken = false, done = false;
    if (st == BG_OK)
        st = bg_store_get_text(s, "run", "fingerprint", &fingerprint, NULL, err);
    if (st == BG_OK)
        st = close_file(s, err);
    if (st == BG_OK)
        st = settle(s, &e, &inode, err);
    if (st == BG_OK)
        st = take_name(s, &taken, err);
    if (st == BG_OK && taken)
        st = yield_name(s, fingerprint, &e, &done, err);
    if (st == BG_OK && !done)
        st = list(s, &e, err);
    free(fingerprint);
    if (st == BG_OK)
        snprintf(path, sizeof path, "%s", s->path);
    bg_store_discard(s); /* with its temporary name, which changes the file's record */
    if (st == BG_OK && !taken)
        bg_hash_remember(path, inode, &e.hash);
    return st;
}
