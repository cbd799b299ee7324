#include "bregman/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

enum { ALIGNMENT = 64 };

/* calloc, not aligned_alloc + memset: large arrays come from the kernel as zero pages that
 * take no memory until they are touched.  calloc's own pointer is kept just below the array. */
void *bg_alloc(size_t n, size_t size, const char *what, bg_err *err)
{
    const size_t extra = ALIGNMENT + sizeof(void *);
    if (size != 0 && n > (SIZE_MAX - extra) / size) {
        (void)BG_FAIL(err, BG_ENOMEM, "%s: %zu items of %zu bytes overflow size_t", what, n, size);
        return NULL;
    }
    char *base = calloc(1, n * size + extra);
    if (base == NULL) {
        (void)BG_FAIL(err, BG_ENOMEM, "out of memory: %s needs %zu bytes", what, n * size);
        return NULL;
    }
    char *p = base + extra;
    p -= (uintptr_t)p % ALIGNMENT;
    ((void **)(void *)p)[-1] = base;
    return p;
}

void bg_free(void *p)
{
    if (p != NULL)
        free(((void **)p)[-1]);
}

size_t bg_peak_rss_bytes(void)
{
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0)
        return 0;
    return (size_t)usage.ru_maxrss * 1024; /* Linux counts in KiB */
}

size_t bg_rss_bytes(void)
{
    size_t pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f == NULL || fscanf(f, "%*u %zu", &pages) != 1)
        pages = 0;
    if (f != NULL)
        fclose(f);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}
