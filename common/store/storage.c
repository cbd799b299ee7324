/* Does a file hold what a dataset declares?  HDF5 reads what was never written, and what a virtual dataset cannot find,
 * as the fill value and without an error, and values kept in other files are covered by no hash of this one. */
#include <inttypes.h>
#include <stdio.h>

#include "bregman/storage.h"
#include "hdf5_lib.h"

enum { SHAPE_BYTES = 240 };

typedef struct {
    hid_t id, space;
    const char *path, *file;
    int n_dims;
    hsize_t dims[H5S_MAX_RANK];
    uint64_t file_bytes;
    bg_err *err;
} storage;

/* One axis that is 0 long, or no axes and no value. */
static bool is_empty(const storage *d)
{
    bool empty = H5Sget_simple_extent_type(d->space) == H5S_NULL;
    for (int i = 0; i < d->n_dims; i++)
        empty = empty || d->dims[i] == 0;
    return empty;
}

/* "[3, 200]", cut short if there are very many axes. */
static const char *shape_text(const storage *d, char out[SHAPE_BYTES])
{
    int n = snprintf(out, SHAPE_BYTES, "[");
    for (int i = 0; i < d->n_dims && n < SHAPE_BYTES; i++)
        n += snprintf(out + n, (size_t)(SHAPE_BYTES - n), "%s%" PRIu64, i > 0 ? ", " : "", (uint64_t)d->dims[i]);
    if (n < SHAPE_BYTES)
        snprintf(out + n, (size_t)(SHAPE_BYTES - n), "]");
    return out;
}

static bg_status lacking(const storage *d, const char *what)
{
    char shape[SHAPE_BYTES];
    H5Eclear2(H5E_DEFAULT);
    return BG_FAIL(d->err, BG_EFORMAT, "\"%s\" of \"%s\": declared %s, %s", d->path, d->file, shape_text(d, shape),
                   what);
}

/* Elements, or pieces of `step` elements, that the axes add up to; false if no file could hold as many. */
static bool count_pieces(const storage *d, const hsize_t *step, uint64_t *n)
{
    *n = 1;
    for (int i = 0; i < d->n_dims; i++) {
        uint64_t along = step == NULL ? d->dims[i] : (d->dims[i] - 1) / step[i] + 1;
        if (__builtin_mul_overflow(*n, along, n))
            return false;
    }
    return true;
}

static bg_status check_contiguous(const storage *d, H5D_layout_t layout)
{
    uint64_t bytes;
    hid_t type = H5Dget_type(d->id);
    bool fits = count_pieces(d, NULL, &bytes) && !__builtin_mul_overflow(bytes, (uint64_t)H5Tget_size(type), &bytes);
    H5Tclose(type);
    uint64_t stored = H5Dget_storage_size(d->id);
    haddr_t at = layout == H5D_COMPACT ? 0 : H5Dget_offset(d->id);
    if (stored == 0 || at == HADDR_UNDEF)
        return lacking(d, "nothing is stored");
    if (!fits || stored < bytes || stored > d->file_bytes || at > d->file_bytes - stored)
        return lacking(d, "less is stored");
    return BG_OK;
}

static bool count_chunks(const storage *d, uint64_t needed, hsize_t *stored)
{
#if H5_VERSION_GE(1, 10, 5)
    (void)needed;
    return H5Dget_num_chunks(d->id, d->space, stored) >= 0;
#else
    H5D_space_status_t status;
    bool known = H5Dget_space_status(d->id, &status) >= 0;
    *stored = known && status == H5D_SPACE_STATUS_ALLOCATED ? needed : 0;
    return known;
#endif
}

/* A chunk is in memory as a whole while any part of it is read, and zeros are packed a thousandfold: one that is large,
 * and much larger than the dataset, was not made for it. */
static bool is_swollen(const storage *d, const hsize_t *chunk)
{
    const uint64_t large_bytes = 64 << 20;
    uint64_t bytes, elements;
    hid_t type = H5Dget_type(d->id);
    bytes = H5Tget_size(type);
    H5Tclose(type);
    if (!count_pieces(d, NULL, &elements) || __builtin_mul_overflow(elements, 4 * bytes, &elements))
        return false;
    for (int i = 0; i < d->n_dims; i++)
        if (__builtin_mul_overflow(bytes, (uint64_t)chunk[i], &bytes))
            return true;
    return bytes > large_bytes && bytes > elements;
}

/* Counting takes as long as the index is: nothing is counted that the file could not hold. */
static bg_status check_chunks(const storage *d, hid_t create)
{
    hsize_t chunk[H5S_MAX_RANK], stored;
    char what[96];
    uint64_t needed;
    bool fits = H5Pget_chunk(create, H5S_MAX_RANK, chunk) == d->n_dims;
    for (int i = 0; i < d->n_dims && fits; i++)
        fits = chunk[i] > 0;
    if (!fits || !count_pieces(d, chunk, &needed) || needed > d->file_bytes) {
        snprintf(what, sizeof what, "but the whole file has %" PRIu64 " bytes", d->file_bytes);
        return lacking(d, what);
    }
    if (is_swollen(d, chunk))
        return lacking(d, "but its chunks are much larger: write it in smaller ones");
    if (!count_chunks(d, needed, &stored))
        return bg_hdf5_fail(d->err, BG_EFORMAT, "read the chunks of \"%s\" of \"%s\"", d->path, d->file);
    if (stored >= needed)
        return BG_OK;
    snprintf(what, sizeof what, "%" PRIu64 " of %" PRIu64 " chunks are stored", (uint64_t)stored, needed);
    return lacking(d, stored == 0 ? "nothing is stored" : what);
}

static bg_status check_layout(const storage *d)
{
    hid_t create = H5Dget_create_plist(d->id);
    bg_status st = BG_OK;
    switch (create < 0 ? H5D_LAYOUT_ERROR : H5Pget_layout(create)) {
    case H5D_COMPACT: st = check_contiguous(d, H5D_COMPACT); break;
    case H5D_CONTIGUOUS:
        st = H5Pget_external_count(create) != 0 ? lacking(d, "its values are not here but in other, raw files")
                                                : check_contiguous(d, H5D_CONTIGUOUS);
        break;
    case H5D_CHUNKED: st = check_chunks(d, create); break;
    case H5D_VIRTUAL: st = lacking(d, "its values are not here but in other datasets (it is virtual)"); break;
    default: st = lacking(d, "in a layout that cannot be told");
    }
    if (create >= 0)
        H5Pclose(create);
    return st;
}

bg_status bg_storage_check(hid_t dataset, const char *path, const char *file, bg_err *err)
{
    storage d = { .id = dataset, .space = H5Dget_space(dataset), .path = path, .file = file, .err = err };
    hsize_t file_bytes = 0;
    hid_t holder = H5Iget_file_id(dataset);
    d.n_dims = H5Sget_simple_extent_dims(d.space, d.dims, NULL);
    bg_status st = BG_OK;
    if (d.n_dims < 0 || H5Fget_filesize(holder, &file_bytes) < 0)
        st = bg_hdf5_fail(err, BG_EFORMAT, "read \"%s\" of \"%s\"", path, file);
    d.file_bytes = file_bytes;
    if (st == BG_OK && !is_empty(&d))
        st = check_layout(&d);
    if (d.space >= 0)
        H5Sclose(d.space);
    if (holder >= 0)
        H5Fclose(holder);
    return st;
}
