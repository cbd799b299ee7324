/* Global heaps, where HDF5 keeps the bytes of strings.  They alone carry no checksum, and HDF5 1.10 walks their
 * objects without a look at the sizes: one of size 0 is an endless loop, a large one reads beyond the heap.
 * So the heaps are walked here first (HDF5 file format specification, III.E). */
#include "heaps.h"

#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bregman/open.h"
#include "hdf5_lib.h"

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

/* Do the objects of the heap at `heap` stay within it?  Their numbers must rise: the library appends objects,
 * and closes the gap when one is removed.  It uses an object's number as an index without checking it. */
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
        uint64_t step = is_free ? bytes : OBJECT_BYTES + (bytes + 7) / 8 * 8; /* free space counts its own head */
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

typedef struct {
    unsigned char *byte;
    size_t n;
} image;

static bg_status map_file(const char *path, image *out, bg_err *err)
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
    else
        *out = (image){ map, (size_t)about.st_size };
    close(fd); /* the map stays */
    return st;
}

static bg_status scan_file(const char *path, bg_err *err)
{
    image file;
    bg_status st = map_file(path, &file, err);
    if (st != BG_OK)
        return st;
    size_t front = file.n < END_BYTES ? file.n : END_BYTES;
    size_t back = file.n - front < END_BYTES ? front : file.n - END_BYTES;
    bool sound = heaps_are_sound(file.byte, file.n, 0, front) && heaps_are_sound(file.byte, file.n, back, file.n);
    munmap(file.byte, file.n);
    return sound ? BG_OK
                 : BG_FAIL(err, BG_EFORMAT, "\"%s\" is damaged: a heap of strings does not hold together", path);
}

/* Files that this process has found sound, as the system described them then. */
typedef struct {
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec changed;
} sound_file;

static int by_content(const void *a_, const void *b_)
{
    const sound_file *a = a_, *b = b_;
    if (a->device != b->device)
        return a->device < b->device ? -1 : 1;
    if (a->inode != b->inode)
        return a->inode < b->inode ? -1 : 1;
    if (a->size != b->size)
        return a->size < b->size ? -1 : 1;
    if (a->changed.tv_sec != b->changed.tv_sec)
        return a->changed.tv_sec < b->changed.tv_sec ? -1 : 1;
    return (a->changed.tv_nsec > b->changed.tv_nsec) - (a->changed.tv_nsec < b->changed.tv_nsec);
}

bg_status bg_heaps_check(const char *path, const struct stat *about, bg_err *err)
{
    static void *sound_files;
    const sound_file key = { about->st_dev, about->st_ino, about->st_size, about->st_mtim };
    if (tfind(&key, &sound_files, by_content) != NULL)
        return BG_OK;
    bg_status st = scan_file(path, err);
    sound_file *known = st == BG_OK ? malloc(sizeof *known) : NULL;
    if (known != NULL) {
        *known = key;
        if (tsearch(known, &sound_files, by_content) == NULL)
            free(known); /* it is looked at again */
    }
    return st;
}

/* ---- what refers to the heaps ---- */

/* In the file a string is its length, the place of a heap and the number of an object there.  HDF5 makes room for as
 * many bytes as the one says and reads as many as the other has. */
enum { REFERENCE_BYTES = 16 };

/* References as they are in the file, whatever layout and filters it has: a conversion that changes nothing. */
static herr_t keep_references(hid_t from, hid_t to, H5T_cdata_t *about, size_t n, size_t stride, size_t other_stride,
                              void *data, void *other, hid_t transfer)
{
    (void)n, (void)stride, (void)other_stride, (void)data, (void)other, (void)transfer;
    about->need_bkg = H5T_BKG_NO;
    return H5Tget_size(from) == REFERENCE_BYTES && H5Tget_size(to) == REFERENCE_BYTES ? 0 : -1;
}

static void prepare(void)
{
    static bool done;
    bg_hdf5_prepare();
    if (done)
        return;
    done = true;
    hid_t text = bg_string_type(), raw = H5Tcreate(H5T_OPAQUE, REFERENCE_BYTES);
    H5Tregister(H5T_PERS_SOFT, "references", text, raw, keep_references);
    H5Tclose(raw);
    H5Tclose(text);
}

/* A heap that was met, with its objects by number: there may be tens of thousands, and as many references to each heap.
 */
typedef struct {
    uint64_t number, bytes;
} heap_object;
typedef struct {
    uint64_t at;
    size_t n;
    heap_object *object;
} known_heap;

static int by_place(const void *a, const void *b)
{
    uint64_t x = ((const known_heap *)a)->at, y = ((const known_heap *)b)->at;
    return (x > y) - (x < y);
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = ((const heap_object *)a)->number, y = ((const heap_object *)b)->number;
    return (x > y) - (x < y);
}

static void forget_heap(void *heap)
{
    free(((known_heap *)heap)->object);
    free(heap);
}

/* Of a sound heap. */
static void list_objects(const unsigned char *heap, known_heap *out)
{
    uint64_t size = little_endian(heap + 8, 8);
    for (uint64_t at = HEADER_BYTES; size - at >= OBJECT_BYTES;) {
        uint64_t number = little_endian(heap + at, 2), bytes = little_endian(heap + at + 8, 8);
        at += number == 0 ? bytes : OBJECT_BYTES + (bytes + 7) / 8 * 8;
        if (number == 0)
            continue;
        if (out->object != NULL)
            out->object[out->n] = (heap_object){ number, bytes };
        out->n++;
    }
}

/* NULL if there is no heap at that place that holds together. */
static const known_heap *find_heap(const image *file, uint64_t at, void **heaps)
{
    known_heap *const *found = tfind(&(known_heap){ .at = at }, heaps, by_place);
    if (found != NULL)
        return *found;
    if (at > file->n || file->n - at < HEADER_BYTES || memcmp(file->byte + at, SIGNATURE, sizeof SIGNATURE) != 0 ||
        !heap_is_sound(file->byte + at, file->n - at))
        return NULL;
    known_heap *heap = calloc(1, sizeof *heap);
    if (heap != NULL) {
        heap->at = at;
        list_objects(file->byte + at, heap);
        heap->object = calloc(heap->n + 1, sizeof *heap->object);
        heap->n = 0;
    }
    if (heap != NULL && (heap->object == NULL || tsearch(heap, heaps, by_place) == NULL)) {
        forget_heap(heap);
        return NULL;
    }
    if (heap != NULL)
        list_objects(file->byte + at, heap);
    return heap;
}

static bool refers_to_text(const image *file, uint64_t base, void **heaps, const unsigned char *reference)
{
    uint64_t length = little_endian(reference, 4), at = little_endian(reference + 4, 8);
    const heap_object key = { .number = little_endian(reference + 12, 4) };
    if (at == 0)
        return true; /* no text */
    const known_heap *heap = at <= UINT64_MAX - base ? find_heap(file, base + at, heaps) : NULL;
    const heap_object *found = heap != NULL ? bsearch(&key, heap->object, heap->n, sizeof key, by_number) : NULL;
    return found != NULL && found->bytes == length;
}

static bool read_references(hid_t object, hid_t memory, hid_t space, unsigned char *reference)
{
    hid_t raw = H5Tcreate(H5T_OPAQUE, REFERENCE_BYTES);
    bool good = H5Iget_type(object) == H5I_ATTR ? H5Aread(object, raw, reference) >= 0
                                                : H5Dread(object, raw, memory, space, H5P_DEFAULT, reference) >= 0;
    H5Tclose(raw);
    return good;
}

bool bg_references_are_sound(hid_t object, hid_t memory, hid_t space, size_t n)
{
    char path[BG_PATH_BYTES];
    image file;
    hsize_t base = 0;
    unsigned intent = H5F_ACC_RDONLY;
    prepare();
    hid_t holder = H5Iget_file_id(object), create = H5Fget_create_plist(holder);
    if (H5Fget_intent(holder, &intent) >= 0 &&
        (intent & H5F_ACC_RDWR) != 0) { /* our own, and not all of it on disk yet */
        H5Pclose(create);
        H5Fclose(holder);
        return true;
    }
    unsigned char *reference = calloc(n + 1, REFERENCE_BYTES);
    bool sound = reference != NULL && read_references(object, memory, space, reference) &&
                 H5Pget_userblock(create, &base) >= 0 && H5Fget_name(object, path, sizeof path) > 0 &&
                 map_file(path, &file, NULL) == BG_OK;
    if (sound) {
        void *heaps = NULL;
        for (size_t i = 0; i < n && sound; i++)
            sound = refers_to_text(&file, base, &heaps, reference + i * REFERENCE_BYTES);
        tdestroy(heaps, forget_heap);
        munmap(file.byte, file.n);
    }
    H5Pclose(create);
    H5Fclose(holder);
    free(reference);
    return sound;
}
