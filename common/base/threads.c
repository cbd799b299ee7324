#include "bregman/threads.h"

#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* About 0.02 ms: longer than from one region of a pass to the next, shorter than what a region saves.  By default GNU's
 * threads spin for some milliseconds, and take that long from whatever else wants their core, the rank's own other
 * threads included.  LLVM's and Intel's OpenMP do not read it. */
static const char spin_count[] = "1000";

/* Valgrind leaves a program that executes another one, unless told to follow; its library is preloaded. */
static bool runs_under_valgrind(void)
{
    const char *preloaded = getenv("LD_PRELOAD");
    return preloaded != NULL && strstr(preloaded, "vgpreload") != NULL;
}

void bg_threads_sleep_when_idle(char **argv)
{
    char program[PATH_MAX];
    if (getenv("OMP_WAIT_POLICY") != NULL || getenv("GOMP_SPINCOUNT") != NULL || runs_under_valgrind())
        return;
    /* by its path: a process that executes /proc/self/exe is listed as "exe" */
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    if (n <= 0 || setenv("GOMP_SPINCOUNT", spin_count, 1) != 0)
        return;
    program[n] = '\0';
    execv(program, argv);
}
