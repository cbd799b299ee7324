/* file.c - a file against its folder's manifest. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "verify.h"

static const char *name_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

/* Two attempts of one job may publish a file at the same time: either's line may be the last, and the file is whole if
 * it is as either says. */
static bool any_line_says(const bg_manifest *m, const bg_manifest_entry *last, const bg_hash *hash)
{
    for (const bg_manifest_entry *e = last; e >= m->entry && strcmp(e->name, last->name) == 0; e--)
        if (strcmp(e->hash.hex, hash->hex) == 0)
            return true;
    return false;
}

static bool any_line_has_size(const bg_manifest *m, const bg_manifest_entry *last, uint64_t size)
{
    for (const bg_manifest_entry *e = last; e >= m->entry && strcmp(e->name, last->name) == 0; e--)
        if (e->size_bytes == size)
            return true;
    return false;
}

static bool is_as_listed(verifying *v, const bg_manifest *m, const bg_manifest_entry *entry, const char *path)
{
    struct stat about;
    bg_hash hash;
    bg_err err;
    if (stat(path, &about) != 0) {
        verify_say(path, errno == ENOENT ? "missing: the MANIFEST lists it" : "cannot be read: %s", strerror(errno));
        return false;
    }
    if (!S_ISREG(about.st_mode)) {
        verify_say(path, "damaged: not a regular file");
        return false;
    }
    if (!any_line_has_size(m, entry, (uint64_t)about.st_size)) {
        verify_say(path, "damaged: has %jd bytes, %" PRIu64 " by the MANIFEST", (intmax_t)about.st_size,
                   entry->size_bytes);
        return false;
    }
    if (v->c->quick)
        return true;
    if (bg_hash_file(path, &hash, &err) != BG_OK) {
        verify_say(path, "%s", err.msg);
        return false;
    }
    bool same = any_line_says(m, entry, &hash);
    if (!same)
        verify_say(path, "damaged: its content has hash %s, %s by the MANIFEST", hash.hex, entry->hash.hex);
    return same;
}

bg_status verify_published(verifying *v, const bg_manifest *m, const char *path, bool *good, bool *listed, bg_err *err)
{
    const bg_manifest_entry *entry = bg_manifest_find(m, name_of(path));
    const verify_seen *seen = verify_find(&v->files, path);
    *listed = entry != NULL;
    *good = seen != NULL ? seen->good : entry == NULL || is_as_listed(v, m, entry, path);
    if (seen != NULL)
        return BG_OK;
    if (entry != NULL && !v->c->quick)
        bg_progress_update(&v->progress, (v->done_bytes += entry->size_bytes) >> 20);
    return verify_remember(&v->files, path, *good, NULL, err);
}
