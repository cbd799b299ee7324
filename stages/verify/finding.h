/* finding.h - what was looked at, and what is said of it. */
#ifndef BG_STAGES_VERIFY_FINDING_H
#define BG_STAGES_VERIFY_FINDING_H

#include <stdbool.h>

#include "bregman/hash.h"
#include "bregman/status.h"

/* One line on standard output: PATH: TEXT. */
void verify_say(const char *path, const char *fmt, ...) BG_PRINTF(2, 3);

/* A file that was looked at, or an input that was hashed. */
typedef struct {
    char *path;
    bool good;
    bg_hash hash; /* of an input */
} verify_seen;

typedef void *verify_set; /* of verify_seen by path: a tree of search.h */

/* hash [in, may be NULL] */
const verify_seen *verify_find(const verify_set *set, const char *path);
bg_status verify_remember(verify_set *set, const char *path, bool good, const bg_hash *hash, bg_err *err) BG_MUST_CHECK;
void verify_forget(verify_set *set);

#endif /* BG_STAGES_VERIFY_FINDING_H */
