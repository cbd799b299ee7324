/* handle.h - an open file, as the store's own files see it. */
#ifndef BG_STORE_HANDLE_H
#define BG_STORE_HANDLE_H

#include "bregman/store.h"

/* A dataset stays open between calls, so that rows written or read one after the other meet their
 * chunk in the cache.  A handful is enough and bounds the memory of the caches. */
typedef struct {
    char *path;
    hid_t id;
    uint64_t last_use;
} bg_open_dataset;
typedef struct {
    bg_open_dataset slot[BG_STORE_OPEN];
    uint64_t clock;
    bg_err close_err; /* if one could not be closed: its chunks were not written */
    void *axes;       /* lengths of axes met so far: a tree of search.h */
    char *outside;    /* where a link would have led that was not followed, or NULL */
} bg_dataset_cache;

/* A dataset made by this process. */
typedef struct {
    char *path;
    const bg_schema_row *row;
    uint64_t dims[3];
} bg_made_dataset;

struct bg_store {
    hid_t file;
    hid_t access;    /* how objects are opened: links into other files are not followed; H5P_DEFAULT when writing */
    char *path;      /* the final name, for messages too */
    char *temporary; /* NULL when reading */
    char format[64];
    bool failed; /* a write failed: HDF5's own state may be beyond flushing */
    bg_dataset_cache *cache;
    bg_made_dataset *made; /* writing only */
    size_t n_made, made_capacity;
};

/* Length of an axis, as the first dataset met along it has it: what bg_dataset_cache.axes holds. */
typedef struct {
    char *key, *dataset;
    uint64_t length;
} bg_axis_length;
void bg_axis_length_free(void *axis);

/* A dataset in the cache; and an open one to keep there, closing the one that was used longest ago. */
bool bg_dataset_cached(const bg_store *s, const char *path, hid_t *id);
bg_status bg_dataset_keep(const bg_store *s, const char *path, hid_t id, bg_err *err) BG_MUST_CHECK;
void bg_dataset_close_all(bg_store *s);

/* How a reader opens objects: < 0 if HDF5 fails.  Close with H5Pclose. */
hid_t bg_link_access(bg_store *s);
/* The first error that closing datasets met, if any. */
bg_status bg_dataset_close_status(const bg_store *s, bg_err *err) BG_MUST_CHECK;

/* "2024-05-01T12:00:00Z" */
void bg_utc_text(double seconds_since_epoch, char out[32]);

void bg_store_free(bg_store *s); /* the memory only */

#endif /* BG_STORE_HANDLE_H */
