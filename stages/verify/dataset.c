/* dataset.c - one dataset against its row of the schema, and every value read, so that every checksum is. */
#include <hdf5_hl.h>
#include <stdlib.h>
#include <string.h>

#include "verify.h"

enum { READ_BYTES = 8 << 20 };

typedef struct {
    const verify_place *at;
    hid_t id, type;
    const bg_schema_row *row;
    int n_dims;
    hsize_t dims[H5S_MAX_RANK];
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

/* ---- shape and values: as every reader takes them ---- */

/* Rows read at a time: whole chunks, about READ_BYTES; lengths all at once, since they are added up. */
static hsize_t rows_at_once(const dataset *d, size_t row_bytes)
{
    hsize_t chunk[H5S_MAX_RANK], n = d->row->sample_dimension != NULL ? d->dims[0] : READ_BYTES / row_bytes;
    hid_t create = H5Dget_create_plist(d->id);
    bool chunked = H5Pget_layout(create) == H5D_CHUNKED && H5Pget_chunk(create, H5S_MAX_RANK, chunk) > 0;
    H5Pclose(create);
    if (chunked)
        n = n < chunk[0] ? chunk[0] : n / chunk[0] * chunk[0];
    n = n > d->dims[0] ? d->dims[0] : n;
    return n > 0 ? n : 1;
}

/* All elements are stored, so that their number can be counted. */
static bg_status read_numbers(const dataset *d, const char *path, bg_err *err)
{
    uint64_t row_size = 1;
    size_t bytes = H5Tget_size(d->type);
    for (int i = 1; i < d->n_dims; i++)
        row_size *= d->dims[i];
    hsize_t n = rows_at_once(d, row_size * bytes);
    void *buffer = malloc(n * row_size * bytes);
    bg_status st = buffer != NULL ? BG_OK : BG_FAIL(err, BG_ENOMEM, "out of memory to read \"%s\" of \"%s\"", path, d->at->path);
    for (hsize_t first = 0; first < d->dims[0] && st == BG_OK; first += n)
        st = bg_store_read_rows(d->at->store, path, d->row->dtype, first, d->dims[0] - first < n ? d->dims[0] - first : n, row_size,
                                buffer, err);
    free(buffer);
    return st;
}

static bg_status read_values(const dataset *d, const char *path, bg_err *err)
{
    char **text = NULL;
    size_t n = 0;
    bool empty = false;
    for (int i = 0; i < d->n_dims; i++)
        empty = empty || d->dims[i] == 0;
    if (d->row->dtype != BG_STRING)
        return empty ? BG_OK : read_numbers(d, path, err);
    bg_status st = bg_store_read_strings(d->at->store, path, &text, &n, err);
    bg_strings_free(text, n);
    return st;
}

static bool check_values(const dataset *d, const char *path, bool known)
{
    uint64_t dims[3];
    bg_err err;
    bg_status st = bg_store_dims(d->at->store, path, d->row->n_dims, dims, &err);
    if (st == BG_OK && !known)
        st = read_values(d, path, &err);
    if (st != BG_OK)
        verify_say(d->at->path, "damaged: %s", err.msg);
    return st == BG_OK;
}

static bool check_row(const dataset *d, const char *path, bool known)
{
    bool others = H5Lexists(d->at->file, "run", H5P_DEFAULT) <= 0;    /* they need not describe their data */
    if (!has_dtype(d->type, d->row->dtype))
        return bad(d, "has another type of number than its format says");
    bool good = others || check_attributes(d);
    return check_values(d, path, known) && verify_scales(d->at, d->row, d->dims) && good;
}

/* The kinds of work files have one format: what is a dataset in one can be an axis without values in another. */
static bool is_bare_axis(const dataset *d)
{
    return strcmp(d->row->format, "bregman/work") == 0 && d->row->n_dims == 1 && strcmp(d->row->path, d->row->dim[0]) == 0 &&
           H5DSis_scale(d->id) > 0 && H5Dget_storage_size(d->id) == 0;
}

bool verify_dataset(const verify_place *at, hid_t id, bool known)
{
    dataset d = { .at = at, .id = id, .type = H5Dget_type(id) };
    char whole[BG_PATH_BYTES];
    hid_t space = H5Dget_space(id);
    bool good = true;
    d.row = bg_path(whole, NULL, "%s%s", at->prefix, at->name) == BG_OK ? bg_schema_find(at->format, whole) : NULL;
    d.n_dims = H5Sget_simple_extent_dims(space, d.dims, NULL);
    H5Sclose(space);
    if (d.row != NULL && !is_bare_axis(&d))
        good = check_row(&d, whole, known);
    else if (d.row == NULL && H5DSis_scale(id) <= 0)    /* a bare scale has no values */
        good = bad(&d, "is no dataset of its format");
    H5Tclose(d.type);
    H5Eclear2(H5E_DEFAULT);
    return good;
}
