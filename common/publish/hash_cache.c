/* Hashes of files, remembered between runs: a small file for each, written under another name and renamed, so that any
 * number of jobs may share the folder. */
#include "bregman/hash_cache.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "bregman/folder.h"
#include "bregman/log.h"
#include "bregman/path.h"
#include "bregman/writer.h"

enum { LEAST_BYTES = 1 << 20, SETTLED_S = 2, HEX_DIGITS = 32, ENTRY_BYTES = 2 * PATH_MAX };

/* ---- where ---- */

static char chosen[PATH_MAX];

void bg_hash_cache_folder(const char *folder) { snprintf(chosen, sizeof chosen, "%s", folder); }

static const char *env(const char *name)
{
    const char *text = getenv(name);
    return text != NULL ? text : "";
}

/* False if nothing is to be remembered. */
static bool find_folder(char out[BG_PATH_BYTES])
{
    bg_status st;
    if (chosen[0] != '\0')
        st = bg_path(out, NULL, "%s", chosen);
    else if (getenv("BREGMAN_HASH_CACHE") != NULL)
        st = bg_path(out, NULL, "%s", env("BREGMAN_HASH_CACHE"));
    else if (env("XDG_CACHE_HOME")[0] == '/')
        st = bg_path(out, NULL, "%s/bregman/hashes", env("XDG_CACHE_HOME"));
    else
        st = env("HOME")[0] == '/' ? bg_path(out, NULL, "%s/.cache/bregman/hashes", env("HOME")) : BG_EARG;
    return st == BG_OK && out[0] != '\0';
}

/* ---- entries ---- */

/* A file as it is now, where its hash is remembered, and what stands there behind the hash. */
typedef struct {
    struct stat about;
    char folder[BG_PATH_BYTES], entry[BG_PATH_BYTES];
    char key[ENTRY_BYTES];
} remembered;

/* The device has no part in it: on a network file system its number differs from node to node.  The time of the last
 * change of the file's record has, as no program can set that back. */
static bool describe(const char *path, remembered *r)
{
    char real[PATH_MAX];
    const struct stat *s = &r->about;
    if (stat(path, &r->about) != 0 || !S_ISREG(s->st_mode) || s->st_size < LEAST_BYTES ||
        realpath(path, real) == NULL || !find_folder(r->folder))
        return false;
    int n = snprintf(r->key, sizeof r->key, "%jd %ju %jd.%09ld %jd.%09ld %s\n", (intmax_t)s->st_size,
                     (uintmax_t)s->st_ino, (intmax_t)s->st_mtim.tv_sec, s->st_mtim.tv_nsec, (intmax_t)s->st_ctim.tv_sec,
                     s->st_ctim.tv_nsec, real);
    return n > 0 && (size_t)n < sizeof r->key &&
           bg_path(r->entry, NULL, "%s/%s", r->folder, bg_hash_bytes(real, strlen(real)).hex) == BG_OK;
}

/* "HASH KEY\n", and the hash of that line; its length. */
static size_t compose(const remembered *r, const bg_hash *hash, char out[ENTRY_BYTES + 80])
{
    int n = snprintf(out, ENTRY_BYTES, "%s %s", hash->hex, r->key);
    return (size_t)(n + sprintf(out + n, "%s\n", bg_hash_bytes(out, (size_t)n).hex));
}

/* Anything but just what would be written now is no entry. */
static bool recall(const remembered *r, bg_hash *out)
{
    char found[ENTRY_BYTES + 80], expected[ENTRY_BYTES + 80];
    int fd = open(r->entry, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t n = fd >= 0 ? read(fd, found, sizeof found) : -1;
    if (fd >= 0)
        close(fd);
    if (n <= HEX_DIGITS)
        return false;
    memcpy(out->hex, found, HEX_DIGITS);
    out->hex[HEX_DIGITS] = '\0';
    return strspn(out->hex, "0123456789abcdef") == HEX_DIGITS && compose(r, out, expected) == (size_t)n &&
           memcmp(found, expected, (size_t)n) == 0;
}

/* ---- remembering ---- */

static void say_once(const char *folder, const char *why)
{
    static bool said;
    if (!said)
        bg_log("hashes of inputs cannot be remembered in \"%s\", so every run reads them anew: %s; --hash-cache names "
               "another folder",
               folder, why);
    said = true;
}

/* The text under a name that appears at once. */
static bool put(const remembered *r, const char *text, size_t n)
{
    char temporary[BG_PATH_BYTES], writer[BG_WRITER_BYTES];
    bg_writer_name(writer);
    if (bg_path(temporary, NULL, "%s.tmp-%s", r->entry, writer) != BG_OK)
        return false;
    int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0)
        return false;
    errno = ENOSPC; /* what a short write means */
    bool good = write(fd, text, n) == (ssize_t)n && fchmod(fd, 0644) == 0;
    good = close(fd) == 0 && good && rename(temporary, r->entry) == 0;
    int cause = errno;
    if (!good)
        unlink(temporary);
    errno = cause;
    return good;
}

/* What attempts that were killed have left. */
static void remove_leftovers_once(const char *folder)
{
    static bool removed;
    char all[BG_PATH_BYTES];
    if (removed || bg_path(all, NULL, "%s/", folder) != BG_OK)
        return;
    removed = true;
    bg_status st = bg_remove_leftovers(all, NULL);
    (void)st; /* what cannot be removed is another user's */
}

/* A file that was written to a moment ago may be written to again without another time. */
static bool is_settled(const struct stat *about)
{
    time_t last = about->st_mtim.tv_sec > about->st_ctim.tv_sec ? about->st_mtim.tv_sec : about->st_ctim.tv_sec;
    return time(NULL) - last > SETTLED_S;
}

static void put_hash(const remembered *r, const bg_hash *hash)
{
    char text[ENTRY_BYTES + 80];
    bg_err why;
    if (bg_make_folder(r->folder, &why) != BG_OK) {
        say_once(r->folder, why.msg);
        return;
    }
    remove_leftovers_once(r->folder);
    if (!put(r, text, compose(r, hash, text)))
        say_once(r->folder, strerror(errno));
}

/* Of a file that was as `before` says when the reading began. */
static void remember(const char *path, const remembered *before, const bg_hash *hash)
{
    remembered *after = malloc(sizeof *after);
    if (after != NULL && describe(path, after) && strcmp(after->key, before->key) == 0 && is_settled(&after->about))
        put_hash(before, hash);
    free(after);
}

void bg_hash_remember(const char *path, ino_t inode, const bg_hash *hash)
{
    remembered *now = malloc(sizeof *now);
    if (now != NULL && describe(path, now) && now->about.st_ino == inode)
        put_hash(now, hash);
    free(now);
}

/* ---- asking ---- */

static struct {
    void (*wrong)(const char *path, const char *entry, void *self);
    void *self;
} reread;

void bg_hash_reread(void (*wrong)(const char *path, const char *entry, void *self), void *self)
{
    reread.wrong = wrong;
    reread.self = self;
}

bg_status bg_hash_file_once(const char *path, bg_hash *out, bg_err *err)
{
    bg_hash before;
    remembered *r = malloc(sizeof *r);
    bool described = r != NULL && describe(path, r), known = described && recall(r, &before);
    bg_status st = BG_OK;
    if (!known || reread.wrong != NULL)
        st = bg_hash_input(path, out, err);
    else
        *out = before;
    if (st == BG_OK && known && strcmp(out->hex, before.hex) != 0)
        reread.wrong(path, r->entry, reread.self);
    if (st == BG_OK && described && !known && reread.wrong == NULL)
        remember(path, r, out);
    free(r);
    return st;
}
