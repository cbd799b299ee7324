/* dataset.c - one dataset against its row of the schema, and every value read, so that every checksum is. */
#include <hdf5_hl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/walk.h"
#include "verify.h"

enum { READ_BYTES = 8 << 20 };

typedef struct {
    const verify_place *at;
    hid_t id, type;
    const bg_schema_row *row;
    int n_dims;
    hsize_t dims[H5S_MAX_RANK];
    uint64_t sum;                /* of the row lengths of a ragged array */
    int64_t least, most;         /* of the rows that `document` names */
} dataset;

static bool bad(const dataset *d, const char *what)
{
    verify_say(d->at->path, "damaged: \"%s%s\" %s", d->at->prefix, d->at->name, what);
    return false;
}

/* ---- type, attributes ---- */

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

/* ---- values ---- */

static void add_lengths(dataset *d, const uint32_t *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        d->sum += x[i];
}

static bool names_documents(const dataset *d)
{
    return strcmp(d->row->format, "bregman/tokens") == 0 && strcmp(d->row->path, "document") == 0;
}

static void add_range(dataset *d, const int64_t *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        d->least = x[i] < d->least ? x[i] : d->least;
        d->most = x[i] > d->most ? x[i] : d->most;
    }
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
    else if (good && names_documents(d))
        add_range(d, buffer, (size_t)H5Sget_simple_extent_npoints(memory));
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
    const verify_place *at = d->at;
    if (d->row->sample_dimension == NULL || !verify_length_of(at->file, at->prefix, d->row->sample_dimension, false, &length) ||
        length == d->sum)
        return true;
    verify_say(at->path, "damaged: \"%s%s\" adds up to %" PRIu64 ", but \"%s%s\" has %" PRIu64 " values", at->prefix,
               at->name, d->sum, at->prefix, d->row->sample_dimension, (uint64_t)length);
    return false;
}

/* Sequences are cut from documents that are there, where the file describes documents. */
static bool check_documents(const dataset *d)
{
    hsize_t n;
    hid_t file = d->at->file;
    if (!names_documents(d) || d->dims[0] == 0 ||
        (!verify_length_of(file, "documents/", "id", false, &n) && !verify_length_of(file, "documents/", "source", false, &n) &&
         !verify_length_of(file, "documents/", "lang", false, &n)))
        return true;
    int64_t wrong = d->least < 0 ? d->least : d->most;
    if (wrong >= 0 && (uint64_t)wrong < n)
        return true;
    verify_say(d->at->path, "damaged: \"document\" names row %" PRId64 " of \"documents\", which has %" PRIu64, wrong,
               (uint64_t)n);
    return false;
}

/* Nothing is read that is not stored: HDF5 makes up values for it, as many as are declared. */
static bool check_values(dataset *d)
{
    char whole[BG_PATH_BYTES];
    bg_err err = { 0 };
    d->least = INT64_MAX;
    d->most = INT64_MIN;
    if (bg_path(whole, &err, "%s%s", d->at->prefix, d->at->name) != BG_OK ||
        bg_storage_check(d->id, whole, d->at->path, &err) != BG_OK) {
        verify_say(d->at->path, "damaged: %s", err.msg);
        return false;
    }
    return read_values(d) && check_ragged(d) && check_documents(d);
}

static bg_status check_row(dataset *d, bool known, bool *good, bg_err *err)
{
    bg_status st = BG_OK;
    bool axes = false, others = H5Lexists(d->at->file, "run", H5P_DEFAULT) <= 0;    /* they need not describe their data */
    if (!has_dtype(d->type, d->row->dtype)) {
        *good = bad(d, "has another type of number than its format says");
        return BG_OK;
    }
    *good = others || check_attributes(d);
    if (d->n_dims != d->row->n_dims)
        (void)bad(d, "has another number of axes than its format says");
    else
        st = verify_axes(d->at, d->row, d->dims, &axes, err);
    *good = *good && axes && (known || check_values(d));
    return st;
}

/* The kinds of work files have one format: what is a dataset in one can be an axis without values in another. */
static bool is_bare_axis(const dataset *d)
{
    return strcmp(d->row->format, "bregman/work") == 0 && d->row->n_dims == 1 && strcmp(d->row->path, d->row->dim[0]) == 0 &&
           H5DSis_scale(d->id) > 0 && H5Dget_storage_size(d->id) == 0;
}

bg_status verify_dataset(const verify_place *at, hid_t id, bool known, bool *good, bg_err *err)
{
    dataset d = { .at = at, .id = id, .type = H5Dget_type(id) };
    char whole[BG_PATH_BYTES];
    hid_t space = H5Dget_space(id);
    bg_status st = BG_OK;
    d.row = bg_path(whole, NULL, "%s%s", at->prefix, at->name) == BG_OK ? bg_schema_find(at->format, whole) : NULL;
    d.n_dims = H5Sget_simple_extent_dims(space, d.dims, NULL);
    H5Sclose(space);
    *good = true;
    if (d.row != NULL && !is_bare_axis(&d))
        st = check_row(&d, known, good, err);
    else if (d.row == NULL && H5DSis_scale(id) <= 0)    /* a bare scale has no values */
        *good = bad(&d, "is no dataset of its format");
    H5Tclose(d.type);
    H5Eclear2(H5E_DEFAULT);
    return st;
}
