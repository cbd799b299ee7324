/* manifest.h - a folder's manifest: which of its files are published, with their sizes and content hashes.
 *
 * Lines "HASH SIZE NAME" (XXH3-128 in hexadecimal, bytes, a name in this folder): in the text file MANIFEST and, while
 * somebody writes into the folder or after an attempt was cut off, in the folder MANIFEST.d, where each writer has a
 * file: none has two. All are read together.  Of several lines for a name the one counts that has the file's size, and
 * of these the last: those of MANIFEST come first, then those of the writers in the order of their last change.  A line
 * that a crash cut short is no entry, nor is any other line of another shape.  Local.
 */
#ifndef BG_MANIFEST_H
#define BG_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "bregman/hash.h"
#include "bregman/status.h"

/* How names in MANIFEST.d end: WRITER.open is the file of a writer at work, WRITER.fold says that one folds the folder.
 */
#define BG_MANIFEST_OPEN ".open"
#define BG_MANIFEST_FOLD ".fold"

typedef struct {
    const char *name; /* lent by the table */
    bg_hash hash;
    uint64_t size_bytes;
    size_t file, line;       /* 0: MANIFEST, else a writer's; from 1 */
    struct timespec written; /* the last write to that file, by the file system's clock: for the order of files */
} bg_manifest_entry;

typedef struct {
    bool exists; /* the folder has one */
    size_t n;
    bg_manifest_entry *entry; /* by name, those of one name in the order of their lines */
    size_t n_malformed;       /* whole lines that are no entry */
    bool torn;                /* a file's last line has no end */
    char **text;              /* [n_texts] what the names point into */
    size_t n_texts;
} bg_manifest;

/* Read a folder's manifest into a table.  A folder that has none, or is not there, gives an empty one.
 *   folder [in]  "DIR/": with its last slash
 * Free with bg_manifest_clear, also after an error.  Errors: BG_EIO naming the manifest, BG_ENOMEM.  Cost: n log n. */
bg_status bg_manifest_read(bg_manifest *m, const char *folder, bg_err *err) BG_MUST_CHECK;
void bg_manifest_clear(bg_manifest *m);

/* The entry that counts for a name, or NULL.  Lent. */
const bg_manifest_entry *bg_manifest_find(const bg_manifest *m, const char *name);

/* What the manifest of its folder says of the file `path`.  The table of the last folder asked about is kept and read
 * again when its files have changed, so that a loop over a folder's files reads it once.  Not for several threads at
 * once. entry [out]  without a name; untouched if the file is not listed Errors: those of bg_manifest_read.  Cost:
 * names of the writers' files, and a look at those of writers at work. */
bg_status bg_manifest_lookup(const char *path, bool *listed, bg_manifest_entry *entry, bg_err *err) BG_MUST_CHECK;

/* List a file that has its name: append its line to this process's own file, in one write.  The folder is fsynced
 * first: no line is on disk before the name of the file is.
 * Errors: BG_EIO naming the file or the manifest, BG_ENOMEM. */
bg_status bg_manifest_append(const char *path, const bg_hash *hash, uint64_t size_bytes, bg_err *err) BG_MUST_CHECK;
/* This process lists no more files: its own files of all folders that it has listed some in are closed.
 *   folds [in]  take the closed files of MANIFEST.d into MANIFEST, unless another does: for the last that writes.
 * No error: lines that cannot be folded are read where they are, and a line in the log says why they stay. */
void bg_manifest_close(bool folds);

/* Open a file for reading.  One that is not there is waited for, some seconds, if its folder's manifest lists it: file
 * systems of several hosts (NFS) may show the line before the file's new name. fd [out]  to be closed by the caller
 * Errors: BG_EIO naming the file, and saying so if it is listed. */
bg_status bg_manifest_open_file(const char *path, int *fd, bg_err *err) BG_MUST_CHECK;

#endif /* BG_MANIFEST_H */
