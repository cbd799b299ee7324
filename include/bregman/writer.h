/* writer.h - names by which files in the making say who makes them, and whether that one still lives.
 *
 * HOST.BOOT.NAMESPACE-PID.START-RANDOM: host name, first 8 digits of the kernel's boot id, inode of the PID namespace,
 * process, when that began in ticks since the boot, random 32 bits.  Of a process of another host, boot or container
 * nothing can be said.  No clock of a file system decides. */
#ifndef BG_WRITER_H
#define BG_WRITER_H

#include <stdbool.h>

#include "bregman/status.h"

enum { BG_WRITER_BYTES = 160 };

/* Another name at each call.  Local. */
void bg_writer_name(char out[BG_WRITER_BYTES]);
/* Is it certain that the writer is gone?  There is no such process of this host, or it began at another time.
 *   name  [in]  a writer's name */
bool bg_writer_is_dead(const char *name);

/* Remove what dead writers have left of files whose paths begin with `prefix` ("out/block-", "out/c.h5"):
 * PATH.tmp-WRITER, of all files of a folder if it ends in a slash.  What others may still be writing stays.  A folder
 * that is not there, or cannot be read, has none. Errors: BG_EIO naming the file. */
bg_status bg_remove_leftovers(const char *prefix, bg_err *err) BG_MUST_CHECK;

#endif /* BG_WRITER_H */
