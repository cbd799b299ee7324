/* The life of an open file, and of the datasets that are open in it. */
#include "handle.h"

#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "hdf5_lib.h"

void bg_utc_text(double seconds_since_epoch, char out[32])
{
    time_t t = (time_t)seconds_since_epoch;
    struct tm utc;
    gmtime_r(&t, &utc);
    strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &utc);
}

/* ---- open datasets ---- */

/* Chunks of up to 4 MiB a dataset, and as many blocks of memory for the next ones, up to 16 MiB. */
double bg_store_cached_bytes(const double *dataset, size_t n)
{
    const double chunks = 4 << 20, spare = 16 << 20;
    double bytes = 0;
    for (size_t i = 0; i < n; i++)
        bytes += dataset[i] < chunks ? dataset[i] : chunks;
    return bytes + (bytes < spare ? bytes : spare);
}

static void close_slot(const bg_store *s, bg_open_dataset *slot)
{
    bg_err err;
    if (slot->path == NULL)
        return;
    if (H5Dclose(slot->id) < 0 && bg_hdf5_fail(&err, BG_EIO, "write \"%s\" of \"%s\"", slot->path, s->path) != BG_OK &&
        s->cache->close_err.code == BG_OK)
        s->cache->close_err = err;
    free(slot->path);
    *slot = (bg_open_dataset){ 0 };
}

bool bg_dataset_cached(const bg_store *s, const char *path, hid_t *id)
{
    bg_dataset_cache *cache = s->cache;
    for (size_t i = 0; i < BG_STORE_OPEN; i++) {
        bg_open_dataset *slot = &cache->slot[i];
        if (slot->path != NULL && strcmp(slot->path, path) == 0) {
            slot->last_use = ++cache->clock;
            *id = slot->id;
            return true;
        }
    }
    return false;
}

bg_status bg_dataset_keep(const bg_store *s, const char *path, hid_t id, bg_err *err)
{
    bg_dataset_cache *cache = s->cache;
    bg_open_dataset *oldest = &cache->slot[0];
    for (size_t i = 1; i < BG_STORE_OPEN; i++)
        if (cache->slot[i].last_use < oldest->last_use)
            oldest = &cache->slot[i];
    char *copy = strdup(path);
    if (copy == NULL)
        return BG_FAIL(err, BG_ENOMEM, "out of memory for \"%s\" of \"%s\"", path, s->path);
    close_slot(s, oldest);
    *oldest = (bg_open_dataset){ copy, id, ++cache->clock };
    return BG_OK;
}

void bg_dataset_close_all(bg_store *s)
{
    for (size_t i = 0; i < BG_STORE_OPEN; i++)
        close_slot(s, &s->cache->slot[i]);
}

bg_status bg_dataset_close_status(const bg_store *s, bg_err *err)
{
    const bg_err *first = &s->cache->close_err;
    return first->code == BG_OK ? BG_OK : BG_FAIL(err, first->code, "%s", first->msg);
}

void bg_axis_length_free(void *axis)
{
    bg_axis_length *a = axis;
    free(a->key);
    free(a->dataset);
    free(a);
}

/* ---- links ---- */

/* The files of sections, to which the index of factors beside them links. */
static bool is_of_factors(const char *file)
{
    return (strncmp(file, "block-", 6) == 0 && strchr(file, '/') == NULL) || strcmp(file, "embedding.h5") == 0 ||
           strcmp(file, "head.h5") == 0;
}

/* Bytes that lie elsewhere are in no hash of this file, and are not read. */
static herr_t follow_link(const char *parent_file, const char *parent_group, const char *file, const char *object,
                          unsigned *flags, hid_t access, void *store)
{
    const bg_store *s = store;
    (void)parent_file, (void)parent_group, (void)object, (void)flags, (void)access;
    if (strcmp(s->format, "bregman/factors") == 0 && is_of_factors(file))
        return 0;
    free(s->cache->outside);
    s->cache->outside = strdup(file);
    return -1;
}

hid_t bg_link_access(bg_store *s)
{
    hid_t access = H5Pcreate(H5P_DATASET_ACCESS);
    if (access >= 0)
        H5Pset_elink_cb(access, follow_link, s);
    return access;
}

/* ---- the file ---- */

void bg_store_free(bg_store *s)
{
    for (size_t i = 0; i < s->n_made; i++)
        free(s->made[i].path);
    free(s->made);
    if (s->cache != NULL) {
        tdestroy(s->cache->axes, bg_axis_length_free);
        free(s->cache->outside);
    }
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

void bg_store_let_go(bg_store *s) { bg_dataset_close_all(s); }

void bg_store_close(bg_store *s)
{
    if (s == NULL)
        return;
    bg_dataset_close_all(s);
    H5Pclose(s->access);
    H5Fclose(s->file);
    H5Eclear2(H5E_DEFAULT);
    bg_store_free(s);
}

const char *bg_store_path(const bg_store *s) { return s->path; }
hid_t bg_store_file(const bg_store *s) { return s->file; }

bool bg_store_has(const bg_store *s, const char *path)
{
    bool there = H5Oexists_by_name(s->file, path, s->access) > 0;
    H5Eclear2(H5E_DEFAULT); /* asking is no failure */
    return there;
}
