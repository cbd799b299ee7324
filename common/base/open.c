#include "bregman/open.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *kind_of(mode_t mode)
{
    return S_ISREG(mode)    ? NULL
           : S_ISDIR(mode)  ? "it is a folder"
           : S_ISFIFO(mode) ? "it is a named pipe"
           : S_ISSOCK(mode) ? "it is a socket"
                            : "it is a device";
}

bg_status bg_open_file(const char *path, int *fd, bg_err *err)
{
    struct stat about;
    /* O_NONBLOCK: a pipe is opened at once; regular files are read as ever */
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int cause = *fd < 0 ? errno : 0;
    int told = *fd >= 0 ? fstat(*fd, &about) : cause == ENXIO ? stat(path, &about) : -1; /* ENXIO: a socket */
    if (*fd >= 0 && told != 0)
        cause = errno;
    const char *kind = told == 0 ? kind_of(about.st_mode) : NULL;
    if (cause == 0 && kind == NULL)
        return BG_OK;
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
    bg_status st = BG_FAIL(err, BG_EIO, "cannot read \"%s\": %s", path, kind != NULL ? kind : strerror(cause));
    errno = kind != NULL ? EINVAL : cause;
    return st;
}

bg_status bg_open_stream(const char *path, FILE **out, bg_err *err)
{
    int fd;
    *out = NULL;
    bg_status st = bg_open_file(path, &fd, err);
    if (st == BG_OK && (*out = fdopen(fd, "r")) == NULL) {
        st = BG_FAIL(err, BG_EIO, "cannot read \"%s\": %s", path, strerror(errno));
        close(fd);
    }
    return st;
}
