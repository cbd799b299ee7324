/* A folder's manifest: read, asked, appended to; and paths' parts, for those who publish. */
#include "bregman/manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "bregman/open.h"
#include "file.h"

enum { HASH_DIGITS = 32 };

/* ---- paths ---- */

const char *bg_base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

bg_status bg_folder_of(const char *path, char out[BG_PATH_BYTES], bg_err *err)
{
    size_t n = (size_t)(bg_base_name(path) - path);
    return n == 0 ? bg_path(out, err, "./") : bg_path(out, err, "%.*s", (int)n, path);
}

bg_status bg_sync_path(const char *path, const char *shown, int flags, bg_err *err)
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

/* ---- lines ---- */

/* "HASH SIZE NAME", ended by a NUL.  A name with a slash is none of this folder. */
static bool parse_line(char *line, bg_manifest_entry *entry)
{
    const char *digits = line + HASH_DIGITS + 1;
    char *end;
    if (strspn(line, "0123456789abcdef") != HASH_DIGITS || line[HASH_DIGITS] != ' ' || *digits < '0' || *digits > '9')
        return false;
    errno = 0;
    uint64_t size = strtoull(digits, &end, 10);
    if (errno != 0 || *end != ' ' || end[1] == '\0' || strchr(end, '/') != NULL)
        return false;
    memcpy(entry->hash.hex, line, HASH_DIGITS);
    entry->hash.hex[HASH_DIGITS] = '\0';
    entry->size_bytes = size;
    entry->name = end + 1;
    return true;
}

static int by_name(const void *a, const void *b)
{
    const bg_manifest_entry *x = a, *y = b;
    int order = strcmp(x->name, y->name);
    return order != 0 ? order : x->line < y->line ? -1 : x->line > y->line;
}

/* Cut the text into lines and those into entries.  A torn line that was followed by another one ends in a slash: see
 * bg_manifest_append. */
static bg_status parse_text(bg_manifest *m, size_t n_bytes, const char *manifest, bg_err *err)
{
    size_t n_lines = 0, number = 0;
    for (size_t i = 0; i < n_bytes; i++)
        n_lines += m->text[i] == '\n';
    m->torn = n_bytes > 0 && m->text[n_bytes - 1] != '\n';
    if ((m->entry = calloc(n_lines + 1, sizeof *m->entry)) == NULL)
        return BG_FAIL(err, BG_ENOMEM, "out of memory for the entries of \"%s\"", manifest);
    for (char *line = m->text, *end; (end = memchr(line, '\n', (size_t)(m->text + n_bytes - line))) != NULL; line = end + 1) {
        char *last = end > line && end[-1] == '\r' ? end - 1 : end;    /* other systems' editors end lines so */
        *last = '\0';
        number++;
        /* a NUL within the line makes it none */
        if (strlen(line) == (size_t)(last - line) && parse_line(line, &m->entry[m->n]))
            m->entry[m->n++].line = number;
        else if (last > line && strcmp(line, "/") != 0)
            m->n_malformed++;
    }
    qsort(m->entry, m->n, sizeof *m->entry, by_name);
    return BG_OK;
}

/* ---- reading ---- */

/* -1 if there is none, with a status that says whether that is an error. */
static bg_status open_manifest(const char *manifest, int *fd, bg_err *err)
{
    bg_status st = bg_open_file(manifest, fd, err);
    return st != BG_OK && (errno == ENOENT || errno == ENOTDIR) ? BG_OK : st;
}

/* What the file holds now: it may grow meanwhile, but never by less than a line that was written at once. */
static bg_status read_text(bg_manifest *m, int fd, size_t size, const char *manifest, size_t *n_bytes, bg_err *err)
{
    ssize_t got = 0;
    *n_bytes = 0;
    if ((m->text = malloc(size + 1)) == NULL)
        return BG_FAIL(err, BG_ENOMEM, "out of memory to read \"%s\"", manifest);
    while (*n_bytes < size && (got = pread(fd, m->text + *n_bytes, size - *n_bytes, (off_t)*n_bytes)) > 0)
        *n_bytes += (size_t)got;
    return got >= 0 ? BG_OK : BG_FAIL(err, BG_EIO, "cannot read \"%s\": %s", manifest, strerror(errno));
}

static bg_status read_open(bg_manifest *m, int fd, const struct stat *about, const char *manifest, bg_err *err)
{
    size_t n_bytes;
    m->exists = true;
    bg_status st = read_text(m, fd, (size_t)about->st_size, manifest, &n_bytes, err);
    return st == BG_OK ? parse_text(m, n_bytes, manifest, err) : st;
}

bg_status bg_manifest_read(bg_manifest *m, const char *folder, bg_err *err)
{
    char manifest[BG_PATH_BYTES];
    struct stat about;
    int fd;
    *m = (bg_manifest){ 0 };
    bg_status st = bg_path(manifest, err, "%sMANIFEST", folder);
    if (st == BG_OK)
        st = open_manifest(manifest, &fd, err);
    if (st != BG_OK || fd < 0)
        return st;
    st = fstat(fd, &about) == 0 ? read_open(m, fd, &about, manifest, err)
                                : BG_FAIL(err, BG_EIO, "cannot read \"%s\": %s", manifest, strerror(errno));
    close(fd);
    return st;
}

void bg_manifest_clear(bg_manifest *m)
{
    free(m->entry);
    free(m->text);
    *m = (bg_manifest){ 0 };
}

const bg_manifest_entry *bg_manifest_find(const bg_manifest *m, const char *name)
{
    size_t low = 0, high = m->n;    /* the first entry behind those of the name */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(m->entry[middle].name, name) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low > 0 && strcmp(m->entry[low - 1].name, name) == 0 ? &m->entry[low - 1] : NULL;
}

/* ---- asking ---- */

/* The table of the last folder asked about, and the file it was read from. */
static struct {
    char *manifest;
    struct stat about;
    bg_manifest table;
} kept;

/* Any difference counts, a time that went backward too: the times are compared, not ordered. */
static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static void forget(void)
{
    bg_manifest_clear(&kept.table);
    free(kept.manifest);
    kept.manifest = NULL;
}

/* Opened each time, not only looked at: that makes an NFS client ask the server how the file is now. */
static bg_status refresh(const char *manifest, bg_err *err)
{
    struct stat about;
    int fd;
    bg_status st = open_manifest(manifest, &fd, err);
    if (st != BG_OK || fd < 0) {
        forget();
        return st;
    }
    if (fstat(fd, &about) != 0)
        st = BG_FAIL(err, BG_EIO, "cannot read \"%s\": %s", manifest, strerror(errno));
    else if (kept.manifest == NULL || strcmp(kept.manifest, manifest) != 0 || !same_file(&about, &kept.about)) {
        forget();
        kept.about = about;
        if ((kept.manifest = strdup(manifest)) == NULL)
            st = BG_FAIL(err, BG_ENOMEM, "out of memory to read \"%s\"", manifest);
        else
            st = read_open(&kept.table, fd, &about, manifest, err);
    }
    if (st != BG_OK)
        forget();
    close(fd);
    return st;
}

bg_status bg_manifest_lookup(const char *path, bool *listed, bg_manifest_entry *entry, bg_err *err)
{
    char folder[BG_PATH_BYTES], manifest[BG_PATH_BYTES];
    *listed = false;
    bg_status st = bg_folder_of(path, folder, err);
    if (st == BG_OK)
        st = bg_path(manifest, err, "%sMANIFEST", folder);
    if (st == BG_OK)
        st = refresh(manifest, err);
    if (st != BG_OK)
        return st;
    const bg_manifest_entry *found = bg_manifest_find(&kept.table, bg_base_name(path));
    if (found == NULL)
        return BG_OK;
    *listed = true;
    *entry = *found;
    entry->name = NULL;
    entry->written = kept.about.st_mtim;
    return BG_OK;
}

/* ---- appending ---- */

/* Does the file end inside a line?  Then a crash cut it short. */
static bool ends_torn(int fd)
{
    struct stat about;
    char last;
    return fstat(fd, &about) == 0 && about.st_size > 0 &&
           pread(fd, &last, 1, about.st_size - 1) == 1 && last != '\n';
}

/* One write: the lines of several writers do not mix.  A torn line is closed by a slash: whatever is there
 * of its name, that is no file's. */
static bg_status write_line(int fd, const char *manifest, const char *name, const bg_hash *hash, uint64_t size_bytes,
                            bg_err *err)
{
    char *line = NULL;
    int n = asprintf(&line, "%s%s %" PRIu64 " %s\n", ends_torn(fd) ? "/\n" : "", hash->hex, size_bytes, name);
    if (n < 0)
        return BG_FAIL(err, BG_ENOMEM, "out of memory for a line of \"%s\"", manifest);
    errno = ENOSPC;    /* what a short write means */
    bg_status st = write(fd, line, (size_t)n) == n && fsync(fd) == 0
        ? BG_OK : BG_FAIL(err, BG_EIO, "cannot write \"%s\": %s", manifest, strerror(errno));
    free(line);
    return st;
}

bg_status bg_manifest_append(const char *path, const bg_hash *hash, uint64_t size_bytes, bg_err *err)
{
    char folder[BG_PATH_BYTES], manifest[BG_PATH_BYTES];
    bg_status st = bg_folder_of(path, folder, err);
    if (st == BG_OK)
        st = bg_path(manifest, err, "%sMANIFEST", folder);
    if (st != BG_OK)
        return st;
    int fd = open(manifest, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0)
        return BG_FAIL(err, BG_EIO, "cannot write \"%s\": %s", manifest, strerror(errno));
    st = bg_sync_path(folder, path, O_DIRECTORY, err);
    if (st == BG_OK)
        st = write_line(fd, manifest, bg_base_name(path), hash, size_bytes, err);
    if (close(fd) != 0 && st == BG_OK)
        st = BG_FAIL(err, BG_EIO, "cannot write \"%s\": %s", manifest, strerror(errno));
    return st;
}

/* ---- waiting for what is listed ---- */

enum { WAIT_S = 5, POLLS_PER_S = 20 };

/* Opening the folder makes an NFS client forget that a name was not in it. */
static void look_again(const char *folder)
{
    const struct timespec pause = { .tv_nsec = 1000000000 / POLLS_PER_S };
    nanosleep(&pause, NULL);
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0)
        close(fd);
}

bg_status bg_manifest_open_file(const char *path, int *fd, bg_err *err)
{
    char folder[BG_PATH_BYTES];
    bg_manifest_entry entry;
    bool listed = false;
    bg_status st = bg_open_file(path, fd, err);
    int cause = errno;
    /* as long as it is listed: another attempt may be removing the folder */
    for (int i = 0; i < WAIT_S * POLLS_PER_S && *fd < 0 && cause == ENOENT && bg_folder_of(path, folder, NULL) == BG_OK &&
                    bg_manifest_lookup(path, &listed, &entry, NULL) == BG_OK && listed; i++) {
        look_again(folder);
        st = bg_open_file(path, fd, err);
        cause = errno;
    }
    return st == BG_OK || !listed ? st : BG_FAIL(err, BG_EIO, "cannot read \"%s\": %s, though its folder's MANIFEST lists it",
                                                 path, strerror(cause));
}
