#include "bregman/memory.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/resource.h>

enum { ALIGNMENT = 64 };

/* calloc, not aligned_alloc + memset: large arrays come from the kernel as zero pages that
 * take no memory until they are touched.  calloc's own pointer is kept just below the array. */
bg_status bg_alloc(void **out, size_t n, size_t size, const char *what, bg_err *err)
{
    const size_t extra = ALIGNMENT + sizeof(void *);
    *out = NULL;
    if (size != 0 && n > (SIZE_MAX - extra) / size)
        return BG_FAIL(err, BG_ENOMEM, "%s: %zu items of %zu bytes overflow size_t", what, n, size);
    char *base = calloc(1, n * size + extra);
    if (base == NULL)
        return BG_FAIL(err, BG_ENOMEM, "out of memory: %s needs %zu bytes", what, n * size);
    char *p = base + extra;
    p -= (uintptr_t)p % ALIGNMENT;
    ((void **)(void *)p)[-1] = base;
    *out = p;
    return BG_OK;
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
    return (size_t)usage.ru_maxrss * 1024;    /* Linux counts in KiB */
}
