/* Folders and paths. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bregman/store.h"
#include "bregman/writer.h"

bg_status bg_path(char out[BG_PATH_BYTES], bg_err *err, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(out, BG_PATH_BYTES, fmt, ap);
    va_end(ap);
    if (n < 0 || n >= BG_PATH_BYTES)
        return BG_FAIL(err, BG_EARG, "path longer than %d bytes: \"%.60s...\"", BG_PATH_BYTES - 1, out);
    return BG_OK;
}

bg_status bg_make_folder(const char *path, bg_err *err)
{
    char part[BG_PATH_BYTES];
    bg_status st = bg_path(part, err, "%s", path);
    if (st != BG_OK)
        return st;
    int parent_error = 0;    /* of the first parent that could not be made: why the last then has none */
    for (char *c = part + 1; *c != '\0'; c++)
        if (*c == '/') {
            *c = '\0';
            if (mkdir(part, 0777) != 0 && errno != EEXIST && parent_error == 0)
                parent_error = errno;
            *c = '/';
        }
    struct stat about;
    if (mkdir(part, 0777) != 0 && errno != EEXIST)
        return BG_FAIL(err, BG_EIO, "cannot make folder \"%s\": %s", path,
                       strerror(errno == ENOENT && parent_error != 0 ? parent_error : errno));
    if (stat(part, &about) != 0)
        return BG_FAIL(err, BG_EIO, "cannot use folder \"%s\": %s", path, strerror(errno));
    if (!S_ISDIR(about.st_mode))
        return BG_FAIL(err, BG_EIO, "cannot make folder \"%s\": a file has this name", path);
    if (access(part, W_OK | X_OK) != 0)
        return BG_FAIL(err, BG_EIO, "cannot write into folder \"%s\": %s", path, strerror(errno));
    return BG_OK;
}

static bg_status remove_files(const char *path, bg_err *err)
{
    DIR *folder = opendir(path);
    if (folder == NULL && errno == ENOENT)
        return BG_OK;
    if (folder == NULL)
        return BG_FAIL(err, BG_EIO, "cannot remove folder \"%s\": %s", path, strerror(errno));
    bg_status st = BG_OK;
    for (const struct dirent *e; st == BG_OK && (e = readdir(folder)) != NULL;)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
            unlinkat(dirfd(folder), e->d_name, 0) != 0 && errno != ENOENT)
            st = BG_FAIL(err, BG_EIO, "cannot remove \"%s/%s\": %s", path, e->d_name, strerror(errno));
    closedir(folder);
    return st;
}

bg_status bg_remove_folder(const char *path, bg_err *err)
{
    bg_status st = BG_OK;
    for (int tries = 0; tries < 100 && st == BG_OK; tries++) {
        st = remove_files(path, err);
        if (st != BG_OK || rmdir(path) == 0 || errno == ENOENT)
            return st;
        if (errno != ENOTEMPTY && errno != EEXIST)
            st = BG_FAIL(err, BG_EIO, "cannot remove folder \"%s\": %s", path, strerror(errno));
    }
    return st;
}

bg_status bg_write_units(const char *folder, const char *text, bg_err *err)
{
    char path[BG_PATH_BYTES], temporary[BG_PATH_BYTES], writer[BG_WRITER_BYTES];
    bg_status st = bg_path(path, err, "%s/UNITS", folder);
    bg_writer_name(writer);
    if (st == BG_OK)
        st = bg_path(temporary, err, "%s.tmp-%s", path, writer);
    if (st != BG_OK)
        return st;
    FILE *file = fopen(temporary, "we");
    bool written = file != NULL && fputs(text, file) >= 0;
    if (file != NULL && fclose(file) != 0)
        written = false;
    if (!written || rename(temporary, path) != 0)
        st = BG_FAIL(err, BG_EIO, "cannot write \"%s\": %s", path, strerror(errno));
    if (st != BG_OK)
        unlink(temporary);
    return st;
}
