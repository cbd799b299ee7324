#include "bregman/writer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "file.h"

static const char mark[] = ".tmp-";

/* HOST.BOOT.NAMESPACE */
static void place(char out[BG_WRITER_BYTES])
{
    char host[65] = "host", boot[9] = "0";
    struct stat space = { .st_ino = 0 };
    gethostname(host, sizeof host - 1);
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (f != NULL && fscanf(f, "%8[0-9a-f]", boot) != 1)
        boot[0] = '\0';
    if (f != NULL)
        fclose(f);
    (void)stat("/proc/self/ns/pid", &space);
    snprintf(out, BG_WRITER_BYTES, "%s.%s.%ju", host, boot, (uintmax_t)space.st_ino);
}

void bg_writer_name(char out[BG_WRITER_BYTES])
{
    char here[BG_WRITER_BYTES];
    uint32_t random = 0;
    place(here);
    if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random)
        random = (uint32_t)clock();
    snprintf(out, BG_WRITER_BYTES, "%.120s-%ld-%08" PRIx32, here, (long)getpid(), random);
}

/* Seconds since the epoch when a process began; a negative number if that cannot be told. */
static double began(long pid)
{
    char path[64];
    unsigned long long ticks = 0;
    struct timespec now, up;
    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return -1;
    /* behind the command's name in brackets, which may have any character, the 20th field */
    char line[1024] = "", *at = fgets(line, sizeof line, f) != NULL ? strrchr(line, ')') : NULL;
    fclose(f);
    for (int i = 0; at != NULL && i < 20; i++)
        at = strchr(at + 1, ' ');
    if (at == NULL || sscanf(at, " %llu", &ticks) != 1)
        return -1;
    clock_gettime(CLOCK_REALTIME, &now);
    clock_gettime(CLOCK_BOOTTIME, &up);
    return (double)now.tv_sec - (double)up.tv_sec + (double)ticks / (double)sysconf(_SC_CLK_TCK);
}

bool bg_writer_is_dead(const char *name, const struct stat *about)
{
    const double clock_error_s = 2;
    char here[BG_WRITER_BYTES];
    place(here);
    size_t n = strlen(here);
    char *end;
    if (strncmp(name, here, n) != 0 || name[n] != '-')
        return false;
    long pid = strtol(name + n + 1, &end, 10);
    if (pid <= 0 || *end != '-' || strspn(end + 1, "0123456789abcdef") != 8)
        return false;
    if (kill((pid_t)pid, 0) != 0 && errno == ESRCH)
        return true;
    return began(pid) > (double)about->st_mtim.tv_sec + clock_error_s;
}

bg_status bg_remove_leftovers(const char *prefix, bg_err *err)
{
    char folder[BG_PATH_BYTES];
    const char *base = bg_base_name(prefix);
    bg_status st = bg_folder_of(prefix, folder, err);
    if (st != BG_OK)
        return st;
    DIR *dir = opendir(folder);
    if (dir == NULL)                           /* who writes there will say why that cannot be */
        return BG_OK;
    for (const struct dirent *e; st == BG_OK && (e = readdir(dir)) != NULL;) {
        const char *writer = strstr(e->d_name, mark);
        struct stat about;
        if (strncmp(e->d_name, base, strlen(base)) != 0 || writer == NULL || fstatat(dirfd(dir), e->d_name, &about, AT_SYMLINK_NOFOLLOW) != 0
            || !S_ISREG(about.st_mode) || !bg_writer_is_dead(writer + strlen(mark), &about))
            continue;
        if (unlinkat(dirfd(dir), e->d_name, 0) != 0 && errno != ENOENT)
            st = BG_FAIL(err, BG_EIO, "cannot remove \"%s%s\", which an attempt that was killed has left: %s", folder, e->d_name, strerror(errno));
    }
    closedir(dir);
    return st;
}
