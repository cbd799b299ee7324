/* manifest.h - a folder's MANIFEST: which of its files are published, with their sizes and content hashes.
 *
 * A text file of lines "HASH SIZE NAME" (XXH3-128 in hexadecimal, bytes, a name in this folder), only ever appended to.
 * The last line for a name counts.  A line that a crash cut short is no entry, nor is any other line of another shape.
 * Nothing here depends on a clock.  Local.
 */
#ifndef BG_MANIFEST_H
#define BG_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "bregman/hash.h"
#include "bregman/status.h"

typedef struct {
    const char *name;            /* lent by the table */
    bg_hash hash;
    uint64_t size_bytes;
    size_t line;                 /* from 1 */
    struct timespec written;     /* bg_manifest_lookup only: the last write to the manifest, by the file system's clock */
} bg_manifest_entry;

typedef struct {
    bool exists;                 /* the folder has a MANIFEST */
    size_t n;
    bg_manifest_entry *entry;    /* by name, those of one name in the order of their lines */
    size_t n_malformed;          /* whole lines that are no entry */
    bool torn;                   /* the last line has no end */
    char *text;                  /* the names point into it */
} bg_manifest;

/* Read a folder's manifest into a table.  A folder that has none, or is not there, gives an empty one.
 *   folder [in]  "DIR/": with its last slash
 * Free with bg_manifest_clear, also after an error.  Errors: BG_EIO naming the manifest, BG_ENOMEM.  Cost: n log n. */
bg_status bg_manifest_read(bg_manifest *m, const char *folder, bg_err *err) BG_MUST_CHECK;
void bg_manifest_clear(bg_manifest *m);

/* The entry that counts for a name, or NULL.  Lent. */
const bg_manifest_entry *bg_manifest_find(const bg_manifest *m, const char *name);

/* What the manifest of its folder says of the file `path`.  The table of the last folder asked about is kept and read
 * again when its file has changed, so that a loop over a folder's files reads it once.  Not for several threads at once.
 *   entry [out]  without a name; untouched if the file is not listed
 * Errors: those of bg_manifest_read. */
bg_status bg_manifest_lookup(const char *path, bool *listed, bg_manifest_entry *entry, bg_err *err) BG_MUST_CHECK;

/* List a file that has been renamed to `path`: append its line, in one write.  The folder is fsynced first, when it has
 * a manifest: no line is on disk before the names of the file and of the manifest are.  Then the manifest is.
 * Errors: BG_EIO naming the file or the manifest, BG_ENOMEM. */
bg_status bg_manifest_append(const char *path, const bg_hash *hash, uint64_t size_bytes, bg_err *err) BG_MUST_CHECK;

/* Open a file for reading.  One that is not there is waited for, some seconds, if its folder's manifest lists it: file systems
 * of several hosts (NFS) may show the line before the file's new name.
 *   fd [out]  to be closed by the caller
 * Errors: BG_EIO naming the file, and saying so if it is listed. */
bg_status bg_manifest_open_file(const char *path, int *fd, bg_err *err) BG_MUST_CHECK;

#endif /* BG_MANIFEST_H */
