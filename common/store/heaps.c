/* Global heaps, where HDF5 keeps the bytes of strings.  They alone carry no checksum, and HDF5 1.10 walks their
 * objects without a look at the sizes: one of size 0 is an endless loop, a large one reads beyond the heap.
 * So the heaps are walked here first (HDF5 file format specification, III.E). */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bregman/open.h"
#include "file.h"

/* Heaps are looked for at either end of a file, where the attributes' and names' lie: all of a file of terabytes
 * is too much to read. */
static const size_t END_BYTES = (size_t)16 << 20;
enum { HEADER_BYTES = 16, OBJECT_BYTES = 16 };
static const unsigned char SIGNATURE[8] = { 'G', 'C', 'O', 'L', 1, 0, 0, 0 };

static uint64_t little_endian(const unsigned char *at, int n)
{
    uint64_t x = 0;
    for (int i = n - 1; i >= 0; i--)
        x = x << 8 | at[i];
    return x;
}

/* Do the objects of the heap at `heap` stay within it?  Their numbers rise, since the library appends objects, and
 * closes up those that stay when one is removed; it takes the number of an object for a place in a table unseen. */
static bool heap_is_sound(const unsigned char *heap, size_t left)
{
    if (left < HEADER_BYTES)
        return false;
    uint64_t size = little_endian(heap + 8, 8);
    if (size < HEADER_BYTES || size > left)
        return false;
    uint64_t before = 0;
    for (uint64_t at = HEADER_BYTES; size - at >= OBJECT_BYTES;) {
        uint64_t number = little_endian(heap + at, 2), room = size - at, bytes = little_endian(heap + at + 8, 8);
        bool is_free = number == 0;
        if (bytes > room || (is_free ? bytes == 0 : number <= before))
            return false;
        before = is_free ? before : number;
        uint64_t step = is_free ? bytes : OBJECT_BYTES + (bytes + 7) / 8 * 8;    /* free space counts its own head */
        if (step > room)
            return false;
        at += step;
    }
    return true;
}

static bool heaps_are_sound(const unsigned char *map, size_t n, size_t begin, size_t end)
{
    const unsigned char *at = map + begin;
    while ((at = memmem(at, (size_t)(map + end - at), SIGNATURE, sizeof SIGNATURE)) != NULL) {
        if (!heap_is_sound(at, (size_t)(map + n - at)))
            return false;
        at += sizeof SIGNATURE;
    }
    return true;
}

bg_status bg_heaps_check(const char *path, bg_err *err)
{
    struct stat about;
    void *map = MAP_FAILED;
    int fd;
    bg_status st = bg_open_file(path, &fd, err);
    if (st != BG_OK)
        return st;
    if (fstat(fd, &about) == 0)
        map = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        st = BG_FAIL(err, BG_EIO, "cannot read \"%s\": %s", path, strerror(errno));
    close(fd);    /* the map stays */
    if (st != BG_OK)
        return st;
    size_t n = (size_t)about.st_size, front = n < END_BYTES ? n : END_BYTES;
    size_t back = n - front < END_BYTES ? front : n - END_BYTES;
    bool sound = heaps_are_sound(map, n, 0, front) && heaps_are_sound(map, n, back, n);
    munmap(map, n);
    return sound ? BG_OK : BG_FAIL(err, BG_EFORMAT, "\"%s\" is damaged: a heap of strings does not hold together", path);
}
