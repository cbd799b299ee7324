#include "bregman/room.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bregman/memory.h"

static bg_status map_scratch(bg_room *out, size_t n_bytes, const char *scratch, const char *what, bg_err *err)
{
    char name[4096];
    if ((size_t)snprintf(name, sizeof name, "%s/bregman-scratch-XXXXXX", scratch) >= sizeof name)
        return BG_FAIL(err, BG_EARG, "--scratch: path too long: %.60s...", scratch);
    int fd = mkostemp(name, O_CLOEXEC);
    if (fd < 0)
        return BG_FAIL(err, BG_EIO, "cannot write into scratch folder \"%s\": %s", scratch, strerror(errno));
    unlink(name); /* gone with the process, however that ends */
    int error = posix_fallocate(fd, 0, (off_t)n_bytes);
    void *x = error == 0 ? mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (error == 0 && x == MAP_FAILED)
        error = errno;
    close(fd);
    if (x == MAP_FAILED)
        return BG_FAIL(err, BG_EIO, "scratch folder \"%s\": no room for %zu bytes of %s: %s", scratch, n_bytes, what,
                       strerror(error));
    *out = (bg_room){ x, n_bytes, true };
    return BG_OK;
}

bg_status bg_room_new(bg_room *out, size_t n_bytes, const char *scratch, const char *what, bg_err *err)
{
    *out = (bg_room){ NULL, n_bytes, false };
    if (scratch != NULL && n_bytes > 0)
        return map_scratch(out, n_bytes, scratch, what, err);
    return bg_allocated(out->x = bg_alloc(n_bytes, 1, what, err));
}

void bg_room_free(bg_room *r)
{
    if (r->on_disk)
        munmap(r->x, r->n_bytes);
    else
        bg_free(r->x);
    *r = (bg_room){ NULL, 0, false };
}

void bg_room_let_go(const bg_room *r, const float *from, size_t n_floats)
{
    if (!r->on_disk)
        return;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)from / page * page;
    /* shared pages of a file: what was written stays in it */
    madvise((void *)at, (uintptr_t)(from + n_floats) - at, MADV_DONTNEED);
}

void bg_room_clear(const bg_room *r)
{
    const size_t piece = (size_t)16 << 20, n = r->n_bytes / sizeof *r->x;
    for (size_t i = 0; i < n; i += piece) {
        size_t w = n - i < piece ? n - i : piece;
        memset(r->x + i, 0, w * sizeof *r->x);
        bg_room_let_go(r, r->x + i, w);
    }
}
