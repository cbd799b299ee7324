/* file.h - what the store's own files share: the open file, HDF5's errors, types. */
#ifndef BG_STORE_FILE_H
#define BG_STORE_FILE_H

#include <sys/stat.h>

#include "bregman/store.h"
#include "bregman/walk.h"

enum { BG_FORMAT_VERSION = 1 };

/* A dataset stays open between calls, so that rows written or read one after the other meet their
 * chunk in the cache.  A handful is enough and bounds the memory of the caches. */
enum { BG_OPEN_DATASETS = 8 };
typedef struct { char *path; hid_t id; uint64_t last_use; } bg_open_dataset;
typedef struct {
    bg_open_dataset slot[BG_OPEN_DATASETS];
    uint64_t clock;
    bg_err close_err;        /* if one could not be closed: its chunks were not written */
    void *axes;              /* lengths of axes met so far: a tree of search.h */
    char *outside;           /* where a link would have led that was not followed, or NULL */
} bg_dataset_cache;

/* A dataset made by this process. */
typedef struct { char *path; const bg_schema_row *row; uint64_t dims[3]; } bg_made_dataset;

struct bg_store {
    hid_t file;
    hid_t access;            /* how objects are opened: links into other files are not followed; H5P_DEFAULT when writing */
    char *path;              /* the final name, for messages too */
    char *temporary;         /* NULL when reading */
    char format[64];
    bool failed;             /* a write failed: HDF5's own state may be beyond flushing */
    bg_dataset_cache *cache;
    bg_made_dataset *made;   /* writing only */
    size_t n_made, made_capacity;
};

/* Prepare the library: no error printing, no clean-up at exit (a file that could not be closed on
 * a full disk makes it crash or spin there; this module closes what it opens). */
void bg_hdf5_prepare(void);

/* Fail with "cannot WHAT: CAUSE", the cause from errno as HDF5's error stack reports it, else in
 * HDF5's own words.  To be called at once: any other HDF5 call, even a close, clears the stack. */
bg_status bg_hdf5_fail(bg_err *err, bg_status code, const char *fmt, ...) BG_PRINTF(3, 4);

/* Access properties of every file here; close with H5Pclose. */
hid_t bg_hdf5_access(void);

hid_t bg_string_type(void);                /* UTF-8, variable length; close with H5Tclose */
hid_t bg_memory_type(bg_dtype dtype);      /* native; not for BG_STRING; not to be closed */
size_t bg_dtype_bytes(bg_dtype dtype);     /* of one element in the file */

/* Open dataset from the cache, lent.  One to be read has passed bg_dataset_check. */
bg_status bg_dataset_open(const bg_store *s, const char *path, hid_t *id, bg_err *err) BG_MUST_CHECK;
void bg_dataset_close_all(bg_store *s);

/* check.c: what a reader expects.  A dataset as a whole, before a byte of it is used; then n values as read, of which the first is
 * element `first` of the dataset; texts. */
bg_status bg_dataset_check(const bg_store *s, const char *path, hid_t id, bg_err *err) BG_MUST_CHECK;
bg_status bg_values_check(const bg_store *s, const char *path, bg_dtype dtype, const void *data, uint64_t first, uint64_t n,
                          bg_err *err) BG_MUST_CHECK;
void bg_axis_free(void *axis);             /* one of bg_dataset_cache.axes */
bg_status bg_texts_check(const bg_store *s, const char *path, char *const *text, size_t n, bg_err *err) BG_MUST_CHECK;
/* Smallest value of a whole-number attribute of the root; 0 where the schema has none. */
uint64_t bg_schema_attribute_least(const char *format, const char *name);
/* How a reader opens objects: < 0 if HDF5 fails.  Close with H5Pclose. */
hid_t bg_link_access(bg_store *s);
/* The first error that closing datasets met, if any. */
bg_status bg_dataset_close_status(const bg_store *s, bg_err *err) BG_MUST_CHECK;

/* Give every axis of the datasets made its dimension scale. */
bg_status bg_axes_attach(bg_store *s, bg_err *err) BG_MUST_CHECK;

/* BG_EFORMAT if heaps of strings in the file are damaged so that HDF5 would hang or crash.  Reads up to 32 MiB of it, once in this
 * process as long as `about` stays the same. */
bg_status bg_heaps_check(const char *path, const struct stat *about, bg_err *err) BG_MUST_CHECK;
/* Do n strings of variable length refer to objects of heaps that are there and as long as they say?  To be asked before HDF5 reads
 * them: it writes beyond its memory if not.
 *   memory, space [in]  of a dataset: as for H5Dread; an attribute has all its values read */
bool bg_references_are_sound(hid_t object, hid_t memory, hid_t space, size_t n) BG_MUST_CHECK;
void bg_references_prepare(void);          /* once */

/* The identity (inputs.h) that the file itself has, or "". */
bg_status bg_store_identity(const bg_store *s, bg_hash *out, bg_err *err) BG_MUST_CHECK;

/* The part of a path behind its last slash; the part before it, with the slash ("./" if there is none). */
const char *bg_base_name(const char *path);
bg_status bg_folder_of(const char *path, char out[BG_PATH_BYTES], bg_err *err) BG_MUST_CHECK;
/* fsync a file, or a folder with flags O_DIRECTORY; errors name `shown`. */
bg_status bg_sync_path(const char *path, const char *shown, int flags, bg_err *err) BG_MUST_CHECK;

/* "2024-05-01T12:00:00Z" */
void bg_utc_text(double seconds_since_epoch, char out[32]);

void bg_store_free(bg_store *s);           /* the memory only */

#endif /* BG_STORE_FILE_H */
