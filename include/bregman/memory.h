/* memory.h - overflow-checked heap arrays, aligned for the vector units. */
#ifndef BG_MEMORY_H
#define BG_MEMORY_H

#include <stddef.h>

#include "bregman/status.h"

/* Allocate n * size bytes, zeroed, 64-byte aligned; free with bg_free().
 *
 * `what` names the array in the error.  n * size == 0 gives a valid pointer.
 * *out (a void ** in disguise: pass (void **)&pointer) is NULL on failure.
 * Errors: BG_ENOMEM, with the number of bytes. */
bg_status bg_alloc(void **out, size_t n, size_t size, const char *what,
                   bg_err *err) BG_MUST_CHECK;
#define BG_NEW(ptr, n, what, err) bg_alloc((void **)&(ptr), (n), sizeof *(ptr), (what), (err))
void bg_free(void *p);    /* NULL is fine */

/* Peak resident set of this process so far, in bytes (mapped files count). */
size_t bg_peak_rss_bytes(void);

#endif /* BG_MEMORY_H */
