/* The library itself: set-up, its errors in one line, types, open datasets. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"

enum { CACHE_BYTES = 4 << 20, CACHE_SLOTS = 521 };

void bg_hdf5_prepare(void)
{
    static bool done;
    if (done)
        return;
    H5dont_atexit();    /* must come before any other call */
    H5open();
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    bg_references_prepare();
    done = true;
}

typedef struct { int errnum; char text[160]; } hdf5_cause;

/* Innermost first.  The file drivers write "errno = N" into their description. */
static herr_t find_cause(unsigned depth, const H5E_error2_t *error, void *data)
{
    hdf5_cause *cause = data;
    const char *desc = error->desc != NULL ? error->desc : "";
    if (depth == 0)
        snprintf(cause->text, sizeof cause->text, "%s", desc);
    const char *number = strstr(desc, "errno = ");
    if (number != NULL && cause->errnum == 0)
        cause->errnum = (int)strtol(number + strlen("errno = "), NULL, 10);
    return 0;
}

bg_status bg_hdf5_fail(bg_err *err, bg_status code, const char *fmt, ...)
{
    char what[320];
    hdf5_cause cause = { 0, "HDF5 gives no reason" };
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, find_cause, &cause);
    H5Eclear2(H5E_DEFAULT);
    return BG_FAIL(err, code, "cannot %s: %s", what,
                   cause.errnum != 0 ? strerror(cause.errnum) : cause.text);
}

hid_t bg_hdf5_access(void)
{
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    if (access < 0)
        return access;
#if H5_VERSION_GE(1, 10, 2)
    H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110);
#else
    H5Pset_libver_bounds(access, H5F_LIBVER_LATEST, H5F_LIBVER_LATEST);
#endif
    /* Many cluster file systems have no flock; nothing here is shared while it is written. */
#if H5_VERSION_GE(1, 12, 1) || (H5_VERSION_GE(1, 10, 7) && !H5_VERSION_GE(1, 12, 0))
    H5Pset_file_locking(access, false, true);
#endif
    H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
    /* 1 MiB chunks in a cache of a few; those written in full are the first to go */
    H5Pset_cache(access, 0, CACHE_SLOTS, CACHE_BYTES, 1.0);
    return access;
}

hid_t bg_string_type(void)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, H5T_VARIABLE);
    H5Tset_cset(type, H5T_CSET_UTF8);
    return type;
}

hid_t bg_memory_type(bg_dtype dtype)
{
    switch (dtype) {
    case BG_F32: return H5T_NATIVE_FLOAT;
    case BG_F64: return H5T_NATIVE_DOUBLE;
    case BG_I64: return H5T_NATIVE_INT64;
    case BG_U32: return H5T_NATIVE_UINT32;
    case BG_U8:  return H5T_NATIVE_UINT8;
    case BG_STRING: break;
    }
    return H5I_INVALID_HID;
}

size_t bg_dtype_bytes(bg_dtype dtype)
{
    switch (dtype) {
    case BG_F32: case BG_U32: return 4;
    case BG_F64: case BG_I64: return 8;
    case BG_U8: return 1;
    case BG_STRING: break;
    }
    return 16;    /* a reference into the file's heap */
}

static void close_slot(const bg_store *s, bg_open_dataset *slot)
{
    bg_err err;
    if (slot->path == NULL)
        return;
    if (H5Dclose(slot->id) < 0 &&
        bg_hdf5_fail(&err, BG_EIO, "write \"%s\" of \"%s\"", slot->path, s->path) != BG_OK &&
        s->cache->close_err.code == BG_OK)
        s->cache->close_err = err;
    free(slot->path);
    *slot = (bg_open_dataset){ 0 };
}

static bg_status open_to_read(const bg_store *s, const char *path, hid_t id, bg_err *err)
{
    if (id >= 0)
        return bg_dataset_check(s, path, id, err);
    bg_status st = bg_hdf5_fail(err, BG_EFORMAT, "read \"%s\" of \"%s\"", path, s->path);
    if (s->cache->outside != NULL)
        return BG_FAIL(err, BG_EFORMAT, "\"%s\" of \"%s\" is a link into another file, \"%s\", which no hash of this one covers: "
                       "it must hold the data itself", path, s->path, s->cache->outside);
    return bg_store_has(s, path) ? st : BG_FAIL(err, BG_EFORMAT, "\"%s\" has no dataset \"%s\"", s->path, path);
}

bg_status bg_dataset_open(const bg_store *s, const char *path, hid_t *id, bg_err *err)
{
    bg_dataset_cache *cache = s->cache;
    bg_open_dataset *oldest = &cache->slot[0];
    for (size_t i = 0; i < BG_OPEN_DATASETS; i++) {
        bg_open_dataset *slot = &cache->slot[i];
        if (slot->path != NULL && strcmp(slot->path, path) == 0) {
            slot->last_use = ++cache->clock;
            *id = slot->id;
            return BG_OK;
        }
        if (slot->last_use < oldest->last_use)
            oldest = slot;
    }
    free(cache->outside);
    cache->outside = NULL;    /* what an earlier question met says nothing of this path */
    *id = H5Dopen2(s->file, path, s->access);
    bg_status st = s->temporary == NULL ? open_to_read(s, path, *id, err)
        : *id < 0 ? bg_hdf5_fail(err, BG_EIO, "write \"%s\" of \"%s\"", path, s->path) : BG_OK;
    char *copy = st == BG_OK ? strdup(path) : NULL;
    if (st == BG_OK && copy == NULL)
        st = BG_FAIL(err, BG_ENOMEM, "out of memory for \"%s\" of \"%s\"", path, s->path);
    if (st != BG_OK) {
        if (*id >= 0)
            H5Dclose(*id);
        return st;
    }
    close_slot(s, oldest);
    *oldest = (bg_open_dataset){ copy, *id, ++cache->clock };
    return BG_OK;
}

void bg_dataset_close_all(bg_store *s)
{
    for (size_t i = 0; i < BG_OPEN_DATASETS; i++)
        close_slot(s, &s->cache->slot[i]);
}

bg_status bg_dataset_close_status(const bg_store *s, bg_err *err)
{
    const bg_err *first = &s->cache->close_err;
    return first->code == BG_OK ? BG_OK : BG_FAIL(err, first->code, "%s", first->msg);
}
