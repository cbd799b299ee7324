/* leftover.c - what attempts have left, or are at work on: temporary files, and files in MANIFEST.d. */
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "bregman/writer.h"
#include "verify.h"

/* "process 12 of node7", from a writer's name; false if it is none. */
static bool describe(const char *writer, long *process, char who[BG_WRITER_BYTES + 32])
{
    const char *end = strrchr(writer, '-'), *pid = NULL;
    *process = end == NULL || (pid = memrchr(writer, '-', (size_t)(end - writer))) == NULL ? 0
                                                                                           : strtol(pid + 1, NULL, 10);
    if (*process <= 0 || *process > INT_MAX)
        return false;
    int host = (int)(pid - writer);
    for (int dots = 0; host > 0 && dots < 2; host--) /* boot and namespace are no news to a reader */
        dots += writer[host - 1] == '.';
    snprintf(who, BG_WRITER_BYTES + 32, "process %ld of %.*s", *process, host > 0 ? host : (int)(pid - writer), writer);
    return true;
}

void verify_leftover(const char *path, const char *writer)
{
    char who[BG_WRITER_BYTES + 32];
    long process;
    if (!describe(writer, &process, who))
        verify_say(path, "left over by an unknown attempt");
    else if (bg_writer_is_dead(writer))
        verify_say(path,
                   "left over by process %ld, which is gone: it can be removed, or the same command run again does so",
                   process);
    else
        verify_say(path, "being written by %s, or left over by it: remove it if that runs no more", who);
}

/* Closed by hand its lines stay; removed they would be lost. */
static void say_open(const char *path, const char *writer, const char *who)
{
    struct stat about;
    char last[32] = "an unknown time";
    struct tm utc;
    if (stat(path, &about) != 0) /* closed or folded since the folder was listed */
        return;
    if (gmtime_r(&about.st_mtim.tv_sec, &utc) != NULL)
        strftime(last, sizeof last, "%Y-%m-%dT%H:%M:%SZ", &utc);
    if (bg_writer_is_dead(writer))
        verify_say(path, "left over by %s, which is gone: its lines count, the next job that publishes here folds them",
                   who);
    else
        verify_say(path,
                   "lines of %s, which may still be at work (last line at %s): they count; if that runs no more, take "
                   "\"%s\" off the file's name, then the next job that publishes here folds them",
                   who, last, BG_MANIFEST_OPEN);
}

static void say_folding(const char *path, const char *writer, const char *who)
{
    if (bg_writer_is_dead(writer))
        verify_say(path, "left over by %s, which is gone: the next job that publishes here removes it", who);
    else
        verify_say(path,
                   "%s folds the MANIFEST, or was cut off meanwhile, and nobody else does: remove this file, which has no "
                   "lines, if that runs no more",
                   who);
}

bg_status verify_writers(const char *folder, bg_err *err)
{
    char path[BG_PATH_BYTES];
    struct dirent **entry = NULL;
    bg_status st = bg_path(path, err, "%sMANIFEST.d", folder);
    int n = st == BG_OK ? scandir(path, &entry, NULL, alphasort)
                        : 0; /* none if it cannot be read: that has been told */
    for (int i = 0; i < n; i++) {
        char writer[sizeof entry[i]->d_name], who[BG_WRITER_BYTES + 32];
        long process;
        bool folds = bg_ends_in(entry[i]->d_name, BG_MANIFEST_FOLD);
        if (st == BG_OK && (folds || bg_ends_in(entry[i]->d_name, BG_MANIFEST_OPEN)) &&
            (st = bg_path(path, err, "%sMANIFEST.d/%s", folder, entry[i]->d_name)) == BG_OK) {
            snprintf(writer, sizeof writer, "%.*s", (int)(strrchr(entry[i]->d_name, '.') - entry[i]->d_name),
                     entry[i]->d_name);
            if (!describe(writer, &process, who))
                snprintf(who, sizeof who, "an unknown attempt");
            (folds ? say_folding : say_open)(path, writer, who);
        }
        free(entry[i]);
    }
    free(entry);
    return st;
}
