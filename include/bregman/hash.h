/* hash.h - content hashes: XXH3, 128 bits, as 32 lower-case hex digits. */
#ifndef BG_HASH_H
#define BG_HASH_H

#include <stddef.h>

#include "bregman/status.h"

typedef struct { char hex[33]; } bg_hash;

bg_hash bg_hash_bytes(const void *data, size_t n_bytes);

/* Hash of a file's content.  Reads it once (about 10 GB/s from the page cache).
 * Errors: BG_EIO, naming the file. */
bg_status bg_hash_file(const char *path, bg_hash *out, bg_err *err) BG_MUST_CHECK;

/* The same, but a file of 1 MiB or more is read once as long as it stays the same: its hash is remembered in a folder that outlives
 * the job, with its full path, inode, size and the times of its last changes (of content, and of the record of it) in nanoseconds.
 * The folder is that of bg_hash_cache_folder, else $BREGMAN_HASH_CACHE (empty: nothing is remembered), else
 * $XDG_CACHE_HOME/bregman/hashes, else $HOME/.cache/bregman/hashes.  Any number of jobs may use it at once: an entry is a file
 * of its own that appears whole.  One that is damaged, or of the file as it once was, is none.  A file that was changed within
 * the last 2 seconds is not remembered, nor is one that changes while it is read.  A folder that cannot be
 * written costs a line in the log.  Not for several threads at once. */
bg_status bg_hash_file_once(const char *path, bg_hash *out, bg_err *err) BG_MUST_CHECK;
void bg_hash_cache_folder(const char *folder);    /* "": as if it was not called */
/* From now on bg_hash_file_once reads every file and remembers none; of one that is remembered with another hash, `wrong`
 * is told. */
void bg_hash_reread(void (*wrong)(const char *path, const char *entry, void *self), void *self);

/* Hash of several texts in order (their lengths count, so parts cannot run together). */
bg_hash bg_hash_texts(const char *const *text, size_t n);

#endif /* BG_HASH_H */
