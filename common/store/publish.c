/* From a temporary file to a published one: close, fsync, rename, list; and what a folder's
 * manifest says. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "file.h"

void bg_utc_text(double seconds_since_epoch, char out[32])
{
    time_t t = (time_t)seconds_since_epoch;
    struct tm utc;
    gmtime_r(&t, &utc);
    strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &utc);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

/* The folder of a path, with its last slash; "./" if it has none. */
static bg_status folder_of(const char *path, char out[BG_PATH_BYTES], bg_err *err)
{
    size_t n = (size_t)(base_name(path) - path);
    return n == 0 ? bg_path(out, err, "./") : bg_path(out, err, "%.*s", (int)n, path);
}

static bg_status sync_path(const char *path, const char *shown, int flags, bg_err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | flags);
    if (fd < 0)
        return BG_FAIL(err, BG_EIO, "cannot write \"%s\": %s", shown, strerror(errno));
    bg_status st = BG_OK;
    /* EINVAL: some file systems cannot fsync a folder */
    if (fsync(fd) != 0 && !(errno == EINVAL && (flags & O_DIRECTORY) != 0))
        st = BG_FAIL(err, BG_EIO, "cannot write \"%s\": %s", shown, strerror(errno));
    close(fd);
    return st;
}

/* ---- the manifest ---- */

typedef struct { bool listed; uint64_t size_bytes; } manifest_entry;

/* A line "HASH SIZE NAME"; a line cut short by a crash is none. */
static bool parse_line(const char *line, ssize_t length, const char *name, uint64_t *size_bytes)
{
    if (length < 35 || line[length - 1] != '\n' || line[32] != ' ' || strspn(line, "0123456789abcdef") != 32)
        return false;
    char *end;
    uint64_t size = strtoull(line + 33, &end, 10);
    size_t n = strlen(name);
    if (end == line + 33 || *end != ' ' || strncmp(end + 1, name, n) != 0 || end[1 + n] != '\n')
        return false;
    *size_bytes = size;
    return true;
}

/* The last line for a name counts. */
static bg_status find_entry(const char *path, manifest_entry *entry, bg_err *err)
{
    char folder[BG_PATH_BYTES], manifest[BG_PATH_BYTES];
    char *line = NULL;
    size_t capacity = 0;
    ssize_t length;
    *entry = (manifest_entry){ 0 };
    bg_status st = folder_of(path, folder, err);
    if (st == BG_OK)
        st = bg_path(manifest, err, "%sMANIFEST", folder);
    if (st != BG_OK)
        return st;
    FILE *file = fopen(manifest, "re");
    if (file == NULL && errno != ENOENT && errno != ENOTDIR)
        return BG_FAIL(err, BG_EIO, "cannot read \"%s\": %s", manifest, strerror(errno));
    if (file == NULL)
        return BG_OK;
    while ((length = getline(&line, &capacity, file)) > 0)
        if (parse_line(line, length, base_name(path), &entry->size_bytes))
            entry->listed = true;
    if (ferror(file))
        st = BG_FAIL(err, BG_EIO, "cannot read \"%s\": %s", manifest, strerror(errno));
    free(line);
    fclose(file);
    return st;
}

/* Does the file end inside a line?  Then a crash cut it short. */
static bool ends_torn(int fd)
{
    struct stat about;
    char last;
    return fstat(fd, &about) == 0 && about.st_size > 0 &&
           pread(fd, &last, 1, about.st_size - 1) == 1 && last != '\n';
}

static bg_status append_entry(const char *folder, const char *name, const bg_hash *hash,
                              uint64_t size_bytes, bg_err *err)
{
    char manifest[BG_PATH_BYTES];
    char *line = NULL;
    bg_status st = bg_path(manifest, err, "%sMANIFEST", folder);
    if (st != BG_OK)
        return st;
    int fd = open(manifest, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0)
        return BG_FAIL(err, BG_EIO, "cannot write \"%s\": %s", manifest, strerror(errno));
    int n = asprintf(&line, "%s%s %" PRIu64 " %s\n", ends_torn(fd) ? "\n" : "", hash->hex, size_bytes, name);
    if (n < 0) {
        close(fd);
        return BG_FAIL(err, BG_ENOMEM, "out of memory for a line of \"%s\"", manifest);
    }
    /* one write: the lines of several writers do not mix */
    errno = ENOSPC;    /* what a short write means */
    if (write(fd, line, (size_t)n) != n || fsync(fd) != 0)
        st = BG_FAIL(err, BG_EIO, "cannot write \"%s\": %s", manifest, strerror(errno));
    if (close(fd) != 0 && st == BG_OK)
        st = BG_FAIL(err, BG_EIO, "cannot write \"%s\": %s", manifest, strerror(errno));
    free(line);
    return st;
}

/* ---- closing ---- */

void bg_store_free(bg_store *s)
{
    for (size_t i = 0; i < s->n_made; i++)
        free(s->made[i].path);
    free(s->made);
    free(s->cache);
    free(s->temporary);
    free(s->path);
    free(s);
}

void bg_store_discard(bg_store *s)
{
    if (s == NULL)
        return;
    /* HDF5 must be able to write what it still holds, or its state stays behind in memory: on
     * a full disk the file itself gives the room. */
    bool emptied = s->failed && truncate(s->temporary, 0) == 0;
    (void)emptied;
    if (s->cache != NULL)
        bg_dataset_close_all(s);
    if (s->file >= 0)
        H5Fclose(s->file);
    H5Eclear2(H5E_DEFAULT);
    if (s->temporary != NULL)
        unlink(s->temporary);
    bg_store_free(s);
}

/* Close the HDF5 file with everything written.  The flush comes first, since after a failed
 * close there is nothing left to close properly. */
static bg_status close_file(bg_store *s, bg_err *err)
{
    char finished[32];
    bg_utc_text((double)time(NULL), finished);
    bg_status st = bg_axes_attach(s, err);
    if (st == BG_OK)
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

bg_status bg_store_publish(bg_store *s, bg_hash *hash, bg_err *err)
{
    char folder[BG_PATH_BYTES];
    struct stat about;
    bg_hash content;
    bg_status st = folder_of(s->path, folder, err);
    if (st == BG_OK)
        st = close_file(s, err);
    if (st == BG_OK)
        st = sync_path(s->temporary, s->path, 0, err);
    if (st == BG_OK)
        st = bg_hash_file(s->temporary, &content, err);
    if (st == BG_OK && (stat(s->temporary, &about) != 0 || rename(s->temporary, s->path) != 0))
        st = BG_FAIL(err, BG_EIO, "cannot write \"%s\": %s", s->path, strerror(errno));
    if (st == BG_OK)
        st = sync_path(folder, s->path, O_DIRECTORY, err);
    if (st == BG_OK)
        st = append_entry(folder, base_name(s->path), &content, (uint64_t)about.st_size, err);
    if (st == BG_OK && hash != NULL)
        *hash = content;
    bg_store_discard(s);
    return st;
}

/* ---- done? ---- */

/* What to do about a file of another command line.  Of work files there may be thousands: all go at once. */
static bg_status stale(const char *path, bool work, bg_err *err)
{
    if (work)
        return BG_FAIL(err, BG_ESTALE, "\"%s\" was made from other inputs or options: give those again to go on, "
                       "or remove its folder \"%.*s\"", path, (int)(base_name(path) - path), path);
    return BG_FAIL(err, BG_ESTALE, "\"%s\" was made from other inputs or options: remove it or choose another output",
                   path);
}

static bg_status check_fingerprint(const char *path, const char *fingerprint, bg_err *err)
{
    bg_store *s = NULL;
    char *found = NULL, *format = NULL;
    bg_status st = bg_store_open_any(&s, path, err);
    if (st == BG_OK)
        st = bg_store_get_text(s, "run", "fingerprint", &found, NULL, err);
    if (st == BG_OK)
        st = bg_store_get_text(s, "/", "format", &format, NULL, err);
    if (st == BG_OK && strcmp(found, fingerprint) != 0)
        st = stale(path, strcmp(format, "bregman/work") == 0, err);
    free(found);
    free(format);
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
    return BG_FAIL(err, BG_ESTALE, "\"%s\" is there, but not as a file of this command line: remove it or choose another output",
                   path);
}

bg_status bg_store_is_done(const char *path, const char *fingerprint, bool *done, bg_err *err)
{
    manifest_entry entry;
    struct stat about;
    *done = false;
    bg_status st = find_entry(path, &entry, err);
    if (st == BG_OK && !entry.listed)
        st = check_unlisted(path, fingerprint, err);
    if (st != BG_OK || !entry.listed)
        return st;
    if (stat(path, &about) != 0) {
        if (errno == ENOENT || errno == ENOTDIR)
            return BG_OK;
        return BG_FAIL(err, BG_EIO, "cannot read \"%s\": %s", path, strerror(errno));
    }
    if ((uint64_t)about.st_size != entry.size_bytes)
        return BG_FAIL(err, BG_EFORMAT, "\"%s\" has %jd bytes, %" PRIu64 " by its folder's MANIFEST: "
                       "it was changed or cut short; remove it", path, (intmax_t)about.st_size, entry.size_bytes);
    if (fingerprint != NULL)
        st = check_fingerprint(path, fingerprint, err);
    *done = st == BG_OK;
    return st;
}

bg_status bg_store_end(bg_store *s, bg_status st, bg_err *err)
{
    if (st == BG_OK)
        return bg_store_publish(s, NULL, err);
    bg_store_discard(s);
    return st;
}
