#include "bregman/writer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "bregman/path.h"

static const char mark[] = ".tmp-";

/* ---- what the system says ---- */

/* HOST.BOOT.NAMESPACE; false if the system does not tell, or tells of another namespace's processes. */
static bool find_place(char out[BG_WRITER_BYTES])
{
    char host[65] = "host", boot[9] = "0", self[32] = "";
    struct stat space = { .st_ino = 0 };
    bool told = gethostname(host, sizeof host - 1) == 0 && readlink("/proc/self", self, sizeof self - 1) > 0 &&
                strtol(self, NULL, 10) == getpid();
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
    told = f != NULL && fscanf(f, "%8[0-9a-f]", boot) == 1 && stat("/proc/self/ns/pid", &space) == 0 && told;
    if (f != NULL)
        fclose(f);
    snprintf(out, BG_WRITER_BYTES, "%s.%s.%ju", host, boot, (uintmax_t)space.st_ino);
    return told;
}

/* When a process began, in ticks since the boot, and the letter of its state; false if that cannot be told. */
static bool look_at_process(long pid, uint64_t *ticks, char *letter)
{
    char path[64], line[1024] = "";
    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return false;
    /* behind the command's name in brackets, which may have any character */
    const char *at = fgets(line, sizeof line, f) != NULL ? strrchr(line, ')') : NULL;
    fclose(f);
    return at != NULL &&
           sscanf(at, ") %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %" SCNu64, letter,
                  ticks) == 2;
}

/* ---- names ---- */

void bg_writer_name(char out[BG_WRITER_BYTES])
{
    char here[BG_WRITER_BYTES];
    uint32_t random = 0;
    uint64_t ticks = 0;
    char letter;
    (void)find_place(here);
    (void)look_at_process((long)getpid(), &ticks, &letter);
    if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random)
        random = (uint32_t)clock();
    snprintf(out, BG_WRITER_BYTES, "%.100s-%ld.%" PRIu64 "-%08" PRIx32, here, (long)getpid(), ticks, random);
}

bool bg_writer_is_dead(const char *name)
{
    char here[BG_WRITER_BYTES], *end, letter;
    uint64_t now;
    if (!find_place(here))
        return false;
    size_t n = strlen(here);
    if (strncmp(name, here, n) != 0 || name[n] != '-')
        return false;
    long pid = strtol(name + n + 1, &end, 10);
    uint64_t ticks = *end == '.' ? strtoull(end + 1, &end, 10) : 0;
    if (pid <= 0 || pid > INT_MAX || *end != '-' || strlen(end + 1) != 8 || strspn(end + 1, "0123456789abcdef") != 8)
        return false;
    if (kill((pid_t)pid, 0) != 0 && errno == ESRCH)
        return true;
    if (ticks == 0 || !look_at_process(pid, &now, &letter))
        return false;
    return now != ticks || letter == 'Z' || letter == 'X'; /* it has ended, and nobody has asked how */
}

/* ---- leftovers ---- */

bg_status bg_remove_leftovers(const char *prefix, bg_err *err)
{
    char folder[BG_PATH_BYTES];
    const char *base = bg_base_name(prefix);
    bg_status st = bg_folder_of(prefix, folder, err);
    if (st != BG_OK)
        return st;
    DIR *dir = opendir(folder);
    if (dir == NULL) /* who writes there will say why that cannot be */
        return BG_OK;
    for (const struct dirent *e; st == BG_OK && (e = readdir(dir)) != NULL;) {
        const char *writer = strstr(e->d_name, mark);
        struct stat about;
        if (strncmp(e->d_name, base, strlen(base)) != 0 || writer == NULL ||
            fstatat(dirfd(dir), e->d_name, &about, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(about.st_mode) ||
            !bg_writer_is_dead(writer + strlen(mark)))
            continue;
        if (unlinkat(dirfd(dir), e->d_name, 0) != 0 && errno != ENOENT)
            st = BG_FAIL(err, BG_EIO, "cannot remove \"%s%s\", which an attempt that was killed has left: %s", folder,
                         e->d_name, strerror(errno));
    }
    closedir(dir);
    return st;
}
