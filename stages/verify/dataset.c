/* dataset.c - one dataset against its row of the schema, and every value read, so that every checksum is. */
#include <hdf5_hl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "verify.h"

enum { READ_BYTES = 8 << 20 };

typedef struct {
    const char *path, *prefix, *name;
    hid_t file, id, type;
    const bg_schema_row *row;
    int n_dims;
    hsize_t dims[H5S_MAX_RANK];
    uint64_t sum;                /* of the row lengths of a ragged array */
} dataset;

static bool bad(const dataset *d, const char *what)
{
    verify_say(d->path, "damaged: \"%s%s\" %s", d->prefix, d->name, what);
    return false;
}

/* ---- type, axes, attributes ---- */

static bool has_dtype(hid_t type, bg_dtype dtype)
{
    static const struct { H5T_class_t class; size_t bytes; H5T_sign_t sign; } want[] = {
        [BG_F32] = { H5T_FLOAT, 4, H5T_SGN_ERROR }, [BG_F64] = { H5T_FLOAT, 8, H5T_SGN_ERROR },
        [BG_I64] = { H5T_INTEGER, 8, H5T_SGN_2 }, [BG_U32] = { H5T_INTEGER, 4, H5T_SGN_NONE },
        [BG_U8] = { H5T_INTEGER, 1, H5T_SGN_NONE }, [BG_STRING] = { H5T_STRING, 0, H5T_SGN_ERROR },
    };
    H5T_class_t class = H5Tget_class(type);
    return class == want[dtype].class && (want[dtype].bytes == 0 || H5Tget_size(type) == want[dtype].bytes) &&
           (class != H5T_INTEGER || H5Tget_sign(type) == want[dtype].sign);
}

static bool check_attributes(const dataset *d)
{
    char *units = bg_hdf5_text(d->id, "units"), *description = bg_hdf5_text(d->id, "description");
    bool good = true;
    if (units == NULL || strcmp(units, d->row->units) != 0)
        good = bad(d, units == NULL ? "has no units" : "has other units than its format says");
    if (description == NULL || description[0] == '\0')
        good = bad(d, "has no description");
    free(units);
    free(description);
    return good;
}

/* Length of PREFIX/NAME, a dataset of one axis; false if there is none. */
static bool length_of(const dataset *d, const char *prefix, const char *name, bool scale_only, hsize_t *length)
{
    char path[BG_PATH_BYTES];
    hsize_t dims[H5S_MAX_RANK];
    bool found = false;
    if (bg_path(path, NULL, "%s%s", prefix, name) != BG_OK || H5Lexists(d->file, path, H5P_DEFAULT) <= 0)
        return false;
    hid_t id = H5Oopen(d->file, path, H5P_DEFAULT);
    if (id < 0)
        return false;
    if (H5Iget_type(id) == H5I_DATASET && (!scale_only || H5DSis_scale(id) > 0)) {
        hid_t space = H5Dget_space(id);
        found = H5Sget_simple_extent_ndims(space) == 1 && H5Sget_simple_extent_dims(space, dims, NULL) == 1;
        H5Sclose(space);
    }
    H5Oclose(id);
    if (found)
        *length = dims[0];
    return found;
}

/* Every axis is as long as its scale, which is in the dataset's own group or in the root.  The packed sums of work files are
 * no arrays: the sides of a module share the name of the axis, not its length. */
static bool check_axes(const dataset *d)
{
    hsize_t length;
    if (d->n_dims != d->row->n_dims)
        return bad(d, "has another number of axes than its format says");
    bool packed = strcmp(d->row->format, "bregman/work") == 0 && d->n_dims == 1 && strcmp(d->row->dim[0], "value") == 0;
    for (int i = 0; i < d->n_dims && !packed; i++)
        if ((length_of(d, d->prefix, d->row->dim[i], true, &length) || length_of(d, "", d->row->dim[i], true, &length)) &&
            length != d->dims[i]) {
            verify_say(d->path, "damaged: axis \"%s\" of \"%s%s\" has %" PRIu64 " steps, its scale %" PRIu64,
                       d->row->dim[i], d->prefix, d->name, (uint64_t)d->dims[i], (uint64_t)length);
            return false;
        }
    return true;
}

/* ---- values ---- */

static void add_lengths(dataset *d, const uint32_t *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        d->sum += x[i];
}

/* Rows read at a time: whole chunks, about READ_BYTES. */
static hsize_t rows_at_once(const dataset *d, size_t row_bytes)
{
    hsize_t chunk[H5S_MAX_RANK], n = READ_BYTES / row_bytes;
    hid_t create = H5Dget_create_plist(d->id);
    bool chunked = H5Pget_layout(create) == H5D_CHUNKED && H5Pget_chunk(create, H5S_MAX_RANK, chunk) > 0;
    H5Pclose(create);
    if (chunked)
        n = n < chunk[0] ? chunk[0] : n / chunk[0] * chunk[0];
    n = n > d->dims[0] ? d->dims[0] : n;
    return n > 0 ? n : 1;
}

static bool read_rows(dataset *d, hid_t memory_type, hid_t space, hsize_t first, hsize_t n, void *buffer)
{
    hsize_t start[H5S_MAX_RANK] = { first }, count[H5S_MAX_RANK];
    memcpy(count, d->dims, sizeof count);
    count[0] = n;
    hid_t memory = H5Screate_simple(d->n_dims, count, NULL);
    H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL);
    bool good = H5Dread(d->id, memory_type, memory, space, H5P_DEFAULT, buffer) >= 0;
    if (good && d->row->dtype == BG_STRING && H5Tis_variable_str(memory_type) > 0)
        H5Dvlen_reclaim(memory_type, memory, H5P_DEFAULT, buffer);
    else if (good && d->row->sample_dimension != NULL)
        add_lengths(d, buffer, (size_t)H5Sget_simple_extent_npoints(memory));
    H5Sclose(memory);
    return good;
}

static bool read_values(dataset *d)
{
    bool good = true;
    hid_t memory_type = d->row->dtype == BG_STRING ? H5Tcopy(d->type) : H5Tget_native_type(d->type, H5T_DIR_ASCEND);
    size_t row_bytes = H5Tget_size(memory_type), bytes;
    for (int i = 1; i < d->n_dims; i++)
        good = good && !__builtin_mul_overflow(row_bytes, (size_t)d->dims[i], &row_bytes);
    hsize_t n = good && row_bytes > 0 ? rows_at_once(d, row_bytes) : 0;
    void *buffer = n > 0 && !__builtin_mul_overflow(row_bytes, (size_t)n, &bytes) ? malloc(bytes) : NULL;
    hid_t space = H5Dget_space(d->id);
    if (H5Sget_simple_extent_npoints(space) == 0)
        n = 0;                   /* nothing to read */
    else if (buffer == NULL)
        good = bad(d, "is too large to be read");
    for (hsize_t first = 0; n > 0 && first < d->dims[0] && good; first += n)
        if (!read_rows(d, memory_type, space, first, d->dims[0] - first < n ? d->dims[0] - first : n, buffer))
            good = bad(d, "cannot be read: a checksum or the format is wrong");
    H5Sclose(space);
    H5Tclose(memory_type);
    free(buffer);
    return good;
}

/* The rows of a ragged array are as long together as it is. */
static bool check_ragged(const dataset *d)
{
    hsize_t length;
    if (d->row->sample_dimension == NULL || !length_of(d, d->prefix, d->row->sample_dimension, false, &length) ||
        length == d->sum)
        return true;
    verify_say(d->path, "damaged: \"%s%s\" adds up to %" PRIu64 ", but \"%s%s\" has %" PRIu64 " values", d->prefix,
               d->name, d->sum, d->prefix, d->row->sample_dimension, (uint64_t)length);
    return false;
}

static bool check_row(dataset *d)
{
    if (!has_dtype(d->type, d->row->dtype))
        return bad(d, "has another type of number than its format says");
    bool others = H5Lexists(d->file, "run", H5P_DEFAULT) <= 0;    /* they need not describe their data */
    bool good = (others || check_attributes(d)) && check_axes(d);
    return good && read_values(d) && check_ragged(d);
}

bool verify_dataset(const char *path, const char *format, hid_t file, hid_t id, const char *prefix, const char *name)
{
    dataset d = { .path = path, .prefix = prefix, .name = name, .file = file, .id = id, .type = H5Dget_type(id) };
    char whole[BG_PATH_BYTES];
    bool good = bg_path(whole, NULL, "%s%s", prefix, name) == BG_OK;
    hid_t space = H5Dget_space(id);
    d.row = good ? bg_schema_find(format, whole) : NULL;
    d.n_dims = H5Sget_simple_extent_dims(space, d.dims, NULL);
    H5Sclose(space);
    if (d.row != NULL)
        good = check_row(&d);
    else if (H5DSis_scale(id) <= 0)    /* a bare scale has no values */
        good = bad(&d, "is no dataset of its format");
    H5Tclose(d.type);
    H5Eclear2(H5E_DEFAULT);
    return good;
}
