/* memory.h - overflow-checked heap arrays, aligned for the vector units. */
#ifndef BG_MEMORY_H
#define BG_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

#include "bregman/status.h"

void bg_free(void *p); /* of bg_alloc and BG_NEW, and of nothing else; NULL is fine */

/* gcc then warns of bg_alloc freed by free, or of malloc by bg_free, where it sees both. */
#if defined __GNUC__ && !defined __clang__ && __GNUC__ >= 11
#define BG_FREED_BY(function) __attribute__((malloc(function, 1)))
#else
#define BG_FREED_BY(function)
#endif

/* Allocate n * size bytes, zeroed, 64-byte aligned; free with bg_free().
 *
 * `what` names the array in the error.  n * size == 0 gives a valid pointer.
 * NULL: BG_ENOMEM, with the number of bytes.  A system that promises more than it has says so later, by a signal: what
 * a stage takes is for its budget to know (budget.h). */
void *bg_alloc(size_t n, size_t size, const char *what, bg_err *err) BG_MUST_CHECK BG_FREED_BY(bg_free);

BG_MUST_CHECK static inline bg_status bg_allocated(const void *p) { return p != NULL ? BG_OK : BG_ENOMEM; }
/* An array of n into ptr, NULL on failure; the status. */
#define BG_NEW(ptr, n, what, err) bg_allocated((ptr) = bg_alloc((n), sizeof *(ptr), (what), (err)))

/* Peak resident set of this process so far, in bytes (mapped files count). */
size_t bg_peak_rss_bytes(void);
/* Resident now; 0 where the system does not say. */
size_t bg_rss_bytes(void);

#endif /* BG_MEMORY_H */
