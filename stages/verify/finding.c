#include "finding.h"

#include <search.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void verify_say(const char *path, const char *fmt, ...)
{
    va_list ap;
    printf("%s: ", path);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const verify_seen *)a)->path, ((const verify_seen *)b)->path);
}

static void free_seen(void *node)
{
    free(((verify_seen *)node)->path);
    free(node);
}

const verify_seen *verify_find(const verify_set *set, const char *path)
{
    verify_seen key = { .path = strdup(path) }; /* of any length: a file says what its inputs were called */
    verify_seen *const *found = key.path != NULL ? tfind(&key, set, by_path) : NULL;
    free(key.path);
    return found != NULL ? *found : NULL;
}

bg_status verify_remember(verify_set *set, const char *path, bool good, const bg_hash *hash, bg_err *err)
{
    verify_seen *seen = calloc(1, sizeof *seen);
    char *copy = strdup(path);
    if (seen != NULL && copy != NULL) {
        *seen = (verify_seen){ .path = copy, .good = good, .hash = hash != NULL ? *hash : (bg_hash){ "" } };
        if (tsearch(seen, set, by_path) != NULL)
            return BG_OK;
    }
    free(copy);
    free(seen);
    return BG_FAIL(err, BG_ENOMEM, "out of memory for the list of files");
}

void verify_forget(verify_set *set) { tdestroy(*set, free_seen); }
