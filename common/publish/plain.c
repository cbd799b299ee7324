#include "bregman/plain.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bregman/folder.h"
#include "bregman/hash.h"
#include "bregman/manifest.h"
#include "bregman/memory.h"
#include "bregman/path.h"
#include "bregman/writer.h"

struct bg_plain {
    FILE *file;
    char path[BG_PATH_BYTES], temporary[BG_PATH_BYTES];
};

static bg_status fail(const bg_plain *f, int cause, bg_err *err)
{
    return BG_FAIL(err, BG_EIO, "cannot write \"%s\": %s", f->path, strerror(cause));
}

static void discard(bg_plain *f)
{
    if (f->file != NULL)
        fclose(f->file);
    unlink(f->temporary);
    bg_free(f);
}

bg_status bg_plain_create(bg_plain **out, const char *path, bg_err *err)
{
    char writer[BG_WRITER_BYTES];
    bg_plain *f = NULL;
    *out = NULL;
    bg_status st = BG_NEW(f, 1, path, err);
    if (st != BG_OK)
        return st;
    bg_writer_name(writer);
    st = bg_path(f->path, err, "%s", path);
    if (st == BG_OK)
        st = bg_path(f->temporary, err, "%s.tmp-%s", path, writer);
    if (st == BG_OK && (f->file = fopen(f->temporary, "wbe")) == NULL)
        st = fail(f, errno, err);
    if (st != BG_OK) {
        bg_free(f);
        return st;
    }
    *out = f;
    return BG_OK;
}

bg_status bg_plain_write(bg_plain *f, const void *data, size_t n_bytes, bg_err *err)
{
    return fwrite(data, 1, n_bytes, f->file) == n_bytes ? BG_OK : fail(f, errno, err);
}

static bg_status give_name(const bg_plain *f, bg_err *err)
{
    return rename(f->temporary, f->path) == 0 ? BG_OK : fail(f, errno, err);
}

/* Over a file that is there the new one is listed first (invariant 3 of store/publish.c). */
static bg_status publish(const bg_plain *f, bg_err *err)
{
    struct stat about;
    bg_hash hash;
    char folder[BG_PATH_BYTES];
    bool there = access(f->path, F_OK) == 0;
    bg_status st = bg_sync_path(f->temporary, f->path, 0, err);
    if (st == BG_OK)
        st = bg_hash_file(f->temporary, &hash, err);
    if (st == BG_OK && stat(f->temporary, &about) != 0)
        st = fail(f, errno, err);
    if (st == BG_OK && !there)
        st = give_name(f, err);
    if (st == BG_OK)
        st = bg_manifest_append(f->path, &hash, (uint64_t)about.st_size, err);
    if (st == BG_OK && there)
        st = give_name(f, err);
    if (st == BG_OK)
        st = bg_folder_of(f->path, folder, err);
    return st == BG_OK ? bg_sync_path(folder, f->path, O_DIRECTORY, err) : st;
}

bg_status bg_plain_end(bg_plain *f, bg_status st, bg_err *err)
{
    if (f == NULL)
        return st;
    if (st == BG_OK) {
        bool closed = fclose(f->file) == 0;
        f->file = NULL;
        st = closed ? publish(f, err) : fail(f, errno, err);
    }
    discard(f);
    return st;
}

bg_status bg_plain_copy(const char *from, const char *to, bg_err *err)
{
    char piece[1 << 16];
    bg_plain *f = NULL;
    FILE *source = fopen(from, "rbe");
    if (source == NULL)
        return BG_FAIL(err, BG_EIO, "cannot read \"%s\": %s", from, strerror(errno));
    bg_status st = bg_plain_create(&f, to, err);
    for (size_t n; st == BG_OK && (n = fread(piece, 1, sizeof piece, source)) > 0;)
        st = bg_plain_write(f, piece, n, err);
    if (st == BG_OK && ferror(source))
        st = BG_FAIL(err, BG_EIO, "cannot read \"%s\": %s", from, strerror(errno));
    fclose(source);
    return bg_plain_end(f, st, err);
}
