/* hash_cache.h - hashes of large inputs, computed once and remembered. */
#ifndef BG_HASH_CACHE_H
#define BG_HASH_CACHE_H

#include <sys/types.h>

#include "bregman/hash.h"
#include "bregman/status.h"

/* As bg_hash_file, but a file of 1 MiB or more is read once as long as it stays the same: its hash is remembered in a
 * folder that outlives the job, with its full path, inode, size and the times of its last changes (of content, and of
 * the record of it) in nanoseconds. The folder is that of bg_hash_cache_folder, else $BREGMAN_HASH_CACHE (empty:
 * nothing is remembered), else $XDG_CACHE_HOME/bregman/hashes, else $HOME/.cache/bregman/hashes.  Any number of jobs
 * may use it at once: an entry is a file of its own that appears whole.  One that is damaged, or of the file as it once
 * was, is none.  A file that was changed within the last 2 seconds is not remembered by this call, nor is one that
 * changes while it is read.  A folder that cannot be written costs a line in the log.  Not for several threads at once.
 */
bg_status bg_hash_file_once(const char *path, bg_hash *out, bg_err *err) BG_MUST_CHECK;
/* Remember the hash of a file that this process has just published, so that those who read it need not: of a thousand
 * jobs that start at once each would.  Nothing is remembered if another file has the name by now.
 *   inode [in]  the file's */
void bg_hash_remember(const char *path, ino_t inode, const bg_hash *hash);
void bg_hash_cache_folder(const char *folder); /* "": as if it was not called */
/* From now on bg_hash_file_once reads every file and remembers none; of one that is remembered with another hash,
 * `wrong` is told. */
void bg_hash_reread(void (*wrong)(const char *path, const char *entry, void *self), void *self);

#endif /* BG_HASH_CACHE_H */
