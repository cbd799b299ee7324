/* json.h - JSON files and their values, with errors that name the file and the key. */
#ifndef BG_FORMATS_JSON_H
#define BG_FORMATS_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "bregman/status.h"

/* Parse a whole file whose root is an object without duplicate keys; free with json_decref.
 * NaN, Infinity and numbers beyond 64 bits, which Python writes, are read as "".
 * Errors: BG_EIO if it cannot be read; BG_EFORMAT with the line, or for a Git LFS pointer. *out is NULL after one. */
bg_status bg_json_read(json_t **out, const char *path, bg_err *err) BG_MUST_CHECK;

/* A value by key.  A key that is absent or null leaves *out as it is and is no error:
 * *out holds the default on entry.  `where` names the file in messages.
 * Errors: BG_EFORMAT if the value is of another type or out of range. */
bg_status bg_json_size(const json_t *object, const char *key, const char *where, size_t *out,
                       bg_err *err) BG_MUST_CHECK; /* 1 .. 2^31 - 1 */
bg_status bg_json_positive(const json_t *object, const char *key, const char *where, double *out,
                           bg_err *err) BG_MUST_CHECK; /* a normal float32, > 0 */
bg_status bg_json_flag(const json_t *object, const char *key, const char *where, bool *out, bg_err *err) BG_MUST_CHECK;
bg_status bg_json_text(const json_t *object, const char *key, const char *where, const char **out,
                       bg_err *err) BG_MUST_CHECK; /* lent by object */

/* BG_EFORMAT naming the key unless it is there (it may be null). */
bg_status bg_json_require(const json_t *object, const char *key, const char *where, bg_err *err) BG_MUST_CHECK;

/* The value, or NULL if the key is absent or null. */
const json_t *bg_json_value(const json_t *object, const char *key);

#endif /* BG_FORMATS_JSON_H */
