/* hash.h - content hashes: XXH3, 128 bits, as 32 lower-case hex digits. */
#ifndef BG_HASH_H
#define BG_HASH_H

#include <stddef.h>

#include "bregman/status.h"

typedef struct {
    char hex[33];
} bg_hash;

bg_hash bg_hash_bytes(const void *data, size_t n_bytes);

/* Hash of a file's content.  Reads it once (about 10 GB/s from the page cache).
 * Errors: BG_EIO, naming the file. */
bg_status bg_hash_file(const char *path, bg_hash *out, bg_err *err) BG_MUST_CHECK;

/* The same of an input, which may take minutes: BG_ESTOPPED when a stop is asked for (stop.h). */
bg_status bg_hash_input(const char *path, bg_hash *out, bg_err *err) BG_MUST_CHECK;

/* Hash of several texts in order (their lengths count, so parts cannot run together). */
bg_hash bg_hash_texts(const char *const *text, size_t n);

#endif /* BG_HASH_H */
