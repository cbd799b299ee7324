/* inject_fault.c - preloaded into the ranks of a job: one call to the system fails, waits or raises a signal.
 *   FAULT_CALL    open, read, write, fsync, rename or link (with their like: pwrite64, fdatasync, linkat)
 *   FAULT_PATH    pattern as of the shell's case (a * takes slashes too, @(a|b) is one of them) of the file;
 *                 of a rename or link its new name
 *   FAULT_NTH     which of these calls, from 1 on (1)
 *   FAULT_RANK    on this rank alone (all)
 *   FAULT_ACTION  ENOSPC or EIO: the call and all such calls after it fail, as a full disk goes on being full;
 *                 SIGTERM, SIGUSR1, SIGKILL, SIGSTOP: raised before the call, once;
 *                 a number: seconds that it waits, once
 *   FAULT_LOG     a line is appended when it happens: "CALL PATH" */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

/* What is asked, as the process began: MPI's threads change the environment while others of them read files, and getenv
 * has no lock. */
static struct {
    const char *call; /* NULL on other ranks */
    const char *path, *nth, *action, *log;
} asked;

/* Of a process without a launcher: 0. */
static const char *own_rank(void)
{
    static const char *const name[] = { "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK" };
    for (size_t i = 0; i < sizeof name / sizeof *name; i++)
        if (getenv(name[i]) != NULL)
            return getenv(name[i]);
    return "0";
}

__attribute__((constructor)) static void read_environment(void)
{
    const char *rank = getenv("FAULT_RANK");
    asked.path = getenv("FAULT_PATH");
    asked.nth = getenv("FAULT_NTH");
    asked.action = getenv("FAULT_ACTION");
    asked.log = getenv("FAULT_LOG");
    if (asked.path != NULL && asked.action != NULL && (rank == NULL || strcmp(rank, own_rank()) == 0))
        asked.call = getenv("FAULT_CALL");
}

static bool is_asked(const char *call) { return asked.call != NULL && strcmp(asked.call, call) == 0; }

static void write_log(const char *call, const char *path)
{
    ssize_t (*write_line)(int, const void *, size_t) = (ssize_t(*)(int, const void *, size_t))real("write");
    int (*open_log)(const char *, int, ...) = (int (*)(const char *, int, ...))real("open");
    char line[5000];
    int fd = asked.log == NULL ? -1 : open_log(asked.log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    int n = snprintf(line, sizeof line, "%s %s\n", call, path);
    if (fd < 0)
        return;
    if (write_line(fd, line, (size_t)n) != n)
        abort();
    close(fd);
}

static int signal_of(const char *action)
{
    static const struct {
        const char *name;
        int number;
    } known[] = {
        { "SIGTERM", SIGTERM },
        { "SIGUSR1", SIGUSR1 },
        { "SIGKILL", SIGKILL },
        { "SIGSTOP", SIGSTOP },
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(action, known[i].name) == 0)
            return known[i].number;
    return 0;
}

/* Is the call to fail?  errno is set then. */
static bool struck(const char *call, const char *path)
{
    static long seen;
    const char *action = asked.action;
    int saved = errno;
    if (!is_asked(call) || fnmatch(asked.path, path, FNM_EXTMATCH) != 0)
        return false;
    long at = __atomic_add_fetch(&seen, 1, __ATOMIC_RELAXED), wanted = asked.nth != NULL ? atol(asked.nth) : 1;
    if (at < wanted)
        return false;
    bool once = at == wanted;
    if (once)
        write_log(call, path);
    errno = saved;
    if (strcmp(action, "ENOSPC") == 0 || strcmp(action, "EIO") == 0) {
        errno = strcmp(action, "EIO") == 0 ? EIO : ENOSPC;
        return true;
    }
    if (once && signal_of(action) != 0) {
        raise(signal_of(action));
    } else if (once) {
        double seconds = atof(action);
        nanosleep(&(struct timespec){ (time_t)seconds, (long)(1e9 * (seconds - (double)(time_t)seconds)) }, NULL);
    }
    errno = saved;
    return false;
}

static bool struck_fd(const char *call, int fd)
{
    char link[32], path[4096];
    if (!is_asked(call))
        return false;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0)
        return false;
    path[n] = '\0';
    return struck(call, path);
}

#define OPEN(name)                                                                          \
    int name(const char *path, int flags, ...)                                              \
    {                                                                                       \
        int (*next)(const char *, int, ...) = (int (*)(const char *, int, ...))real(#name); \
        va_list ap;                                                                         \
        va_start(ap, flags);                                                                \
        mode_t mode = (flags & O_CREAT) != 0 ? va_arg(ap, mode_t) : 0;                      \
        va_end(ap);                                                                         \
        return struck("open", path) ? -1 : next(path, flags, mode);                         \
    }
OPEN(open)
OPEN(open64)

/* A call named `name` on its first parameter, fd. */
#define ON_FD(result, call, name, parameters, arguments)              \
    result name parameters;                                           \
    result name parameters                                            \
    {                                                                 \
        result(*next) parameters = (result(*) parameters)real(#name); \
        return struck_fd(call, fd) ? -1 : next arguments;             \
    }
ON_FD(ssize_t, "read", read, (int fd, void *data, size_t n), (fd, data, n))
ON_FD(ssize_t, "read", pread, (int fd, void *data, size_t n, off_t at), (fd, data, n, at))
ON_FD(ssize_t, "read", pread64, (int fd, void *data, size_t n, off64_t at), (fd, data, n, at))
ON_FD(ssize_t, "write", write, (int fd, const void *data, size_t n), (fd, data, n))
ON_FD(ssize_t, "write", pwrite, (int fd, const void *data, size_t n, off_t at), (fd, data, n, at))
ON_FD(ssize_t, "write", pwrite64, (int fd, const void *data, size_t n, off64_t at), (fd, data, n, at))
ON_FD(int, "fsync", fsync, (int fd), (fd))
ON_FD(int, "fsync", fdatasync, (int fd), (fd))

int rename(const char *from, const char *to)
{
    int (*next)(const char *, const char *) = (int (*)(const char *, const char *))real("rename");
    return struck("rename", to) ? -1 : next(from, to);
}

int link(const char *from, const char *to)
{
    int (*next)(const char *, const char *) = (int (*)(const char *, const char *))real("link");
    return struck("link", to) ? -1 : next(from, to);
}

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags)
{
    int (*next)(int, const char *, int, const char *,
                int) = (int (*)(int, const char *, int, const char *, int))real("linkat");
    return struck("link", to) ? -1 : next(from_folder, from, to_folder, to, flags);
}
