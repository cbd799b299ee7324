#include "bregman/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bregman/path.h"

bg_status bg_make_folder(const char *path, bg_err *err)
{
    char part[BG_PATH_BYTES];
    bg_status st = bg_path(part, err, "%s", path);
    if (st != BG_OK)
        return st;
    int parent_error = 0; /* of the first parent that could not be made: why the last then has none */
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
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 && unlinkat(dirfd(folder), e->d_name, 0) != 0 &&
            errno != ENOENT)
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

bg_status bg_sync_path(const char *path, const char *shown, int flags, bg_err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | flags);
    if (fd < 0)
        return BG_FAIL(err, BG_EIO, "cannot write \"%s\": %s", shown, strerror(errno));
    bg_status st = BG_OK;
    /* EINVAL: some file systems cannot fsync a folder */
    if (fsync(fd) != 0 && !(errno == EINVAL && (flags & O_DIRECTORY) != 0))
        st = BG_FAIL(err, BG_EIO, "cannot write \"%s\": %s", shown, strerror(errno));
    close(fd);
    return st;
}
