/* plain.h - files that are not HDF5, published as store.h publishes those that are: written beside (PATH.tmp-WRITER),
 * fsynced, renamed, and listed in their folder's manifest.  Local. */
#ifndef BG_PLAIN_H
#define BG_PLAIN_H

#include <stddef.h>

#include "bregman/status.h"

typedef struct bg_plain bg_plain;

/* Errors of all calls: BG_EIO naming the file, BG_ENOMEM. */
bg_status bg_plain_create(bg_plain **out, const char *path, bg_err *err) BG_MUST_CHECK;
bg_status bg_plain_write(bg_plain *f, const void *data, size_t n_bytes, bg_err *err) BG_MUST_CHECK;
/* Publish if all went well (st is BG_OK), else discard and pass st on.  Frees f whatever happens; NULL is fine. */
bg_status bg_plain_end(bg_plain *f, bg_status st, bg_err *err) BG_MUST_CHECK;

/* Publish a copy of a file. */
bg_status bg_plain_copy(const char *from, const char *to, bg_err *err) BG_MUST_CHECK;

#endif /* BG_PLAIN_H */
