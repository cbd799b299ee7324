#include "bregman/threads.h"

#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* About 0.06 ms: longer than from one region of a pass to the next, shorter than what a region saves.  By default GNU's
 * threads spin for some milliseconds, and take that long from whatever else wants their core, the rank's own other
 * threads included.  LLVM's and Intel's OpenMP do not read it. */
static const char spin_count[] = "3000";

/* Valgrind leaves a program that executes another one, unless told to follow; its library is preloaded. */
static bool runs_under_valgrind(void)
{
    const char *preloaded = getenv("LD_PRELOAD");
    return preloaded != NULL && strstr(preloaded, "vgpreload") != NULL;
}

static bool is_set_one_of(const char *const *name, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (getenv(name[i]) != NULL)
            return true;
    return false;
}

void bg_threads_sleep_when_idle(char **argv)
{
    static const char *const chosen[] = { "OMP_WAIT_POLICY", "GOMP_SPINCOUNT" };
    /* by these the library, once it is loaded, has bound this thread to its place: the program would go on with that
     * CPU alone */
    static const char *const bound[] = { "OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY" };
    char program[PATH_MAX];
    if (is_set_one_of(chosen, 2) || is_set_one_of(bound, 3) || runs_under_valgrind())
        return;
    /* by its path: a process that executes /proc/self/exe is listed as "exe" */
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    if (n <= 0 || setenv("GOMP_SPINCOUNT", spin_count, 1) != 0)
        return;
    program[n] = '\0';
    execv(program, argv);
}
