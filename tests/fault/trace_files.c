/* trace_files.c - preloaded into a stage: writes down, in order, what it does to the files under $TRACE_FOLDER.
 * One line an event in $TRACE_LOG:
 *   create PATH · write PATH · list MANIFEST.d/WRITER NAME · sync PATH · rename FROM TO · link FROM TO
 * A kill cannot show whether data were on disk; the order of these calls does. */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

int open64(const char *path, int flags, ...);
int fdatasync(int fd);
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at);

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

/* As the process began: MPI's threads change the environment while others of them read files, and getenv has no lock. */
static const char *folder, *log_name;

__attribute__((constructor)) static void read_environment(void)
{
    folder = getenv("TRACE_FOLDER");
    log_name = getenv("TRACE_LOG");
}

static int in_folder(const char *path) { return folder != NULL && strncmp(path, folder, strlen(folder)) == 0; }

static void record(const char *event, const char *path, const char *rest)
{
    static FILE *log;
    if (!in_folder(path) || (log == NULL && (log_name == NULL || (log = fopen(log_name, "ae")) == NULL)))
        return;
    fprintf(log, "%s %s%s%s\n", event, path, rest[0] != '\0' ? " " : "", rest);
    fflush(log);
}

static void record_fd(const char *event, int fd, const char *rest)
{
    char link[32], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0)
        return;
    path[n] = '\0';
    record(event, path, rest);
}

/* A write to a manifest is the listing of a name: the last word of "HASH SIZE NAME". */
static void record_write(int fd, const void *data, size_t n)
{
    char link[32], path[4096], line[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length > 0 ? length : 0] = '\0';
    if (strstr(path, "/MANIFEST.d/") == NULL || n == 0 || n >= sizeof line) {
        record_fd("write", fd, "");
        return;
    }
    memcpy(line, data, n);
    line[n - 1] = '\0';
    const char *space = strrchr(line, ' ');
    record_fd("list", fd, space != NULL ? space + 1 : line);
}

static int open_any(const char *name, const char *path, int flags, mode_t mode)
{
    int (*next)(const char *, int, ...) = (int (*)(const char *, int, ...))real(name);
    int is_new = (flags & O_CREAT) != 0 && access(path, F_OK) != 0;
    int fd = next(path, flags, mode);
    if (fd >= 0 && is_new)
        record_fd("create", fd, "");
    return fd;
}

#define OPEN(name)                                                     \
    int name(const char *path, int flags, ...)                         \
    {                                                                  \
        va_list ap;                                                    \
        va_start(ap, flags);                                           \
        mode_t mode = (flags & O_CREAT) != 0 ? va_arg(ap, mode_t) : 0; \
        va_end(ap);                                                    \
        return open_any(#name, path, flags, mode);                     \
    }
OPEN(open)
OPEN(open64)

ssize_t write(int fd, const void *data, size_t n)
{
    ssize_t (*next)(int, const void *, size_t) = (ssize_t(*)(int, const void *, size_t))real("write");
    record_write(fd, data, n);
    return next(fd, data, n);
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t at)
{
    ssize_t (*next)(int, const void *, size_t, off_t) = (ssize_t(*)(int, const void *, size_t, off_t))real("pwrite");
    record_fd("write", fd, "");
    return next(fd, data, n, at);
}

ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at)
{
    ssize_t (*next)(int, const void *, size_t,
                    off64_t) = (ssize_t(*)(int, const void *, size_t, off64_t))real("pwrite64");
    record_fd("write", fd, "");
    return next(fd, data, n, at);
}

static int sync_any(const char *name, int fd)
{
    int (*next)(int) = (int (*)(int))real(name);
    int result = next(fd);
    if (result == 0)
        record_fd("sync", fd, "");
    return result;
}

int fsync(int fd) { return sync_any("fsync", fd); }
int fdatasync(int fd) { return sync_any("fdatasync", fd); }

static int name_any(const char *name, const char *from, const char *to)
{
    int (*next)(const char *, const char *) = (int (*)(const char *, const char *))real(name);
    int result = next(from, to);
    if (result == 0)
        record(name, from, to);
    return result;
}

int rename(const char *from, const char *to) { return name_any("rename", from, to); }
int link(const char *from, const char *to) { return name_any("link", from, to); }
