#include "bregman/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "bregman/memory.h"

enum { MAX_DIGITS = 18, LISTED_BYTES = 256 };

static bool is_folder(const char *path)
{
    struct stat about;
    return stat(path, &about) == 0 && S_ISDIR(about.st_mode);
}

/* A text of digits only. */
static bool read_step(const char *text, uint64_t *out)
{
    size_t n = strspn(text, "0123456789");
    if (n == 0 || n > MAX_DIGITS || text[n] != '\0')
        return false;
    *out = strtoull(text, NULL, 10);
    return true;
}

/* The step of a checkpoint's folder by its name. */
static bool step_of(const char *name, uint64_t *out)
{
    static const char *const prefix[] = { "step-", "checkpoint-" };
    for (size_t i = 0; i < 2; i++)
        if (strncmp(name, prefix[i], strlen(prefix[i])) == 0)
            return read_step(name + strlen(prefix[i]), out);
    return false;
}

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* All steps of a folder, up to n of them; how many there are. */
static size_t list_steps(DIR *folder, uint64_t *step, size_t n)
{
    size_t found = 0;
    uint64_t at;
    rewinddir(folder);
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;)
        if (step_of(entry->d_name, &at)) {
            if (found < n)
                step[found] = at;
            found++;
        }
    return found < n || n == 0 ? found : n;
}

static bg_status fail_with_steps(const char *dir, uint64_t wanted, bg_err *err)
{
    uint64_t *step = NULL;
    char text[LISTED_BYTES] = "no checkpoint";
    DIR *folder = opendir(dir);
    if (folder == NULL)
        return BG_FAIL(err, BG_EIO, "cannot read \"%s\": %s", dir, strerror(errno));
    size_t n = list_steps(folder, NULL, 0);
    bg_status st = BG_NEW(step, n, "list of checkpoints", err);
    if (st == BG_OK) {
        n = list_steps(folder, step, n);
        qsort(step, n, sizeof *step, ascending);
        for (size_t i = 0, used = 0; i < n && used < sizeof text; i++)
            used += (size_t)snprintf(text + used, sizeof text - used, "%s%" PRIu64, i > 0 ? ", " : "steps ", step[i]);
        if (strlen(text) == sizeof text - 1)
            memcpy(text + sizeof text - 5, " ...", 5);
        st = BG_FAIL(err, BG_EIO, "\"%s\" has no checkpoint of step %" PRIu64 ": it has %s", dir, wanted, text);
    }
    bg_free(step);
    closedir(folder);
    return st;
}

bg_status bg_checkpoint_folder(const char *name, char out[BG_PATH_BYTES], bg_err *err)
{
    char dir[BG_PATH_BYTES];
    uint64_t step = 0;
    const char *at = strrchr(name, '@');
    bg_status st = bg_path(out, err, "%s", name);
    if (st != BG_OK || at == NULL || !read_step(at + 1, &step) || is_folder(name))
        return st;
    st = bg_path(dir, err, "%.*s", (int)(at - name), name);
    if (st != BG_OK || !is_folder(dir))
        return st; /* whoever opens it says that it is not there */
    for (size_t i = 0; i < 2 && st == BG_OK; i++) {
        st = i == 0 ? bg_path(out, err, "%s/step-%08" PRIu64, dir, step)
                    : bg_path(out, err, "%s/checkpoint-%" PRIu64, dir, step);
        if (st == BG_OK && is_folder(out))
            return BG_OK;
    }
    return st == BG_OK ? fail_with_steps(dir, step, err) : st;
}
