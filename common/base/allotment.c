#include "bregman/allotment.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/open.h"
#include "bregman/path.h"

static uint64_t smaller(uint64_t a, uint64_t b) { return a < b ? a : b; }

static FILE *open_under(const char *root, const char *path)
{
    char name[BG_PATH_BYTES];
    FILE *f = NULL;
    return bg_path(name, NULL, "%s%s", root, path) == BG_OK && bg_open_stream(name, &f, NULL) == BG_OK ? f : NULL;
}

/* The number that follows `key` in a line of a file, times `unit`; UINT64_MAX if there is none, as after "max". */
static uint64_t number_in(const char *root, const char *path, const char *key, uint64_t unit)
{
    char line[256];
    uint64_t n = UINT64_MAX;
    FILE *f = open_under(root, path);
    while (f != NULL && n == UINT64_MAX && fgets(line, sizeof line, f) != NULL)
        if (strncmp(line, key, strlen(key)) == 0 && sscanf(line + strlen(key), "%" SCNu64, &n) == 1)
            n = n < UINT64_MAX / unit ? n * unit : UINT64_MAX;
    if (f != NULL)
        fclose(f);
    return n;
}

/* Of a group and of all above it.  A container sees its own as the uppermost, and may be told a path above that. */
static uint64_t group_limit(const char *root, const char *mount, char *group, const char *file)
{
    uint64_t least = UINT64_MAX;
    for (char *end = group; end != NULL;) {
        char path[BG_PATH_BYTES];
        if (bg_path(path, NULL, "%s%s/%s", mount, group, file) == BG_OK)
            least = smaller(least, number_in(root, path, "", 1));
        if ((end = strrchr(group, '/')) != NULL)
            *end = '\0';
    }
    return least;
}

/* Lines "ID:CONTROLLERS:GROUP"; of version 2 one, with no controllers. */
static uint64_t groups_limit(const char *root)
{
    char line[BG_PATH_BYTES];
    uint64_t least = UINT64_MAX;
    FILE *f = open_under(root, "/proc/self/cgroup");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        char *controllers = strchr(line, ':'), *group = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
        if (group == NULL)
            continue;
        *group++ = '\0';
        group[strcspn(group, "\n")] = '\0';
        if (controllers[1] == '\0')
            least = smaller(least, group_limit(root, "/sys/fs/cgroup", group, "memory.max"));
        else if (strstr(controllers, "memory") != NULL)
            least = smaller(least, group_limit(root, "/sys/fs/cgroup/memory", group, "memory.limit_in_bytes"));
    }
    if (f != NULL)
        fclose(f);
    return least;
}

/* 0 if it is not set. */
static uint64_t variable(const char *name)
{
    const char *text = getenv(name);
    return text != NULL ? strtoull(text, NULL, 10) : 0;
}

/* In MiB; 0 is all of the node. */
static uint64_t slurm_limit(void)
{
    uint64_t mib = variable("SLURM_MEM_PER_NODE");
    if (mib == 0)
        mib = variable("SLURM_MEM_PER_CPU") * variable("SLURM_CPUS_ON_NODE");
    return mib == 0 || mib > UINT64_MAX >> 20 ? UINT64_MAX : mib << 20;
}

uint64_t bg_allotment_bytes(const char *root)
{
    uint64_t machine = number_in(root, "/proc/meminfo", "MemAvailable:", 1024);
    return smaller(machine, smaller(groups_limit(root), slurm_limit()));
}
