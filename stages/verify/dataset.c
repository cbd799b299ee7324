/* dataset.c - one dataset against its row of the schema, and every value read, so that every checksum is. */
#include <hdf5_hl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/memory.h"
#include "verify.h"

enum { READ_BYTES = 8 << 20 };

typedef struct {
    const verify_place *at;
    char path[BG_PATH_BYTES]; /* within the file */
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
    static const struct {
        H5T_class_t class;
        size_t bytes;
        H5T_sign_t sign;
    } want[] = {
        [BG_F32] = { H5T_FLOAT, 4, H5T_SGN_ERROR }, [BG_F64] = { H5T_FLOAT, 8, H5T_SGN_ERROR },
        [BG_I64] = { H5T_INTEGER, 8, H5T_SGN_2 },   [BG_U32] = { H5T_INTEGER, 4, H5T_SGN_NONE },
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

/* ---- axes ---- */

/* Length of the scale PREFIX/AXIS; false if there is none. */
static bool length_of_scale(const dataset *d, const char *prefix, const char *axis, hsize_t *length)
{
    char path[BG_PATH_BYTES];
    hsize_t dims[H5S_MAX_RANK];
    H5L_info_t link;
    hid_t file = bg_store_file(d->at->store);
    bool found = false;
    if (bg_path(path, NULL, "%s%s", prefix, axis) != BG_OK || H5Lexists(file, path, H5P_DEFAULT) <= 0 ||
        H5Lget_info(file, path, &link, H5P_DEFAULT) < 0 || link.type != H5L_TYPE_HARD)
        return false;
    hid_t id = H5Oopen(file, path, H5P_DEFAULT);
    if (id >= 0 && H5Iget_type(id) == H5I_DATASET && H5DSis_scale(id) > 0) {
        hid_t space = H5Dget_space(id);
        found = H5Sget_simple_extent_ndims(space) == 1 && H5Sget_simple_extent_dims(space, dims, NULL) == 1;
        H5Sclose(space);
    }
    if (id >= 0)
        H5Oclose(id);
    if (found)
        *length = dims[0];
    return found;
}

/* An axis is as long as its scale, which is in the dataset's own group or in the root. */
static bool check_scales(const dataset *d)
{
    for (int i = 0; i < d->n_dims; i++) {
        const char *axis = d->row->dim[i];
        hsize_t length;
        if ((length_of_scale(d, d->at->prefix, axis, &length) || length_of_scale(d, "", axis, &length)) &&
            length != d->dims[i]) {
            verify_say(d->at->path, "damaged: axis \"%s\" of \"%s\" has %" PRIu64 " steps, its scale %" PRIu64, axis,
                       d->path, (uint64_t)d->dims[i], (uint64_t)length);
            return false;
        }
    }
    return true;
}

/* ---- values ---- */

/* Rows read at a time: whole chunks, about READ_BYTES; lengths of a ragged array all at once, to be added up. */
static uint64_t rows_at_once(const dataset *d, size_t row_bytes)
{
    hsize_t chunk[H5S_MAX_RANK], n = READ_BYTES / row_bytes;
    hid_t create = H5Dget_create_plist(d->id);
    bool chunked = H5Pget_layout(create) == H5D_CHUNKED && H5Pget_chunk(create, H5S_MAX_RANK, chunk) > 0;
    H5Pclose(create);
    if (chunked)
        n = n < chunk[0] ? chunk[0] : n / chunk[0] * chunk[0];
    n = n > d->dims[0] || d->row->sample_dimension != NULL ? d->dims[0] : n;
    return n > 0 ? n : 1;
}

static bg_status read_numbers(const dataset *d, bg_err *err)
{
    uint64_t row_size = 1;
    for (int i = 1; i < d->n_dims; i++)
        row_size *= d->dims[i];
    size_t row_bytes = row_size * H5Tget_size(d->type);
    uint64_t n = rows_at_once(d, row_bytes > 0 ? row_bytes : 1);
    void *buffer = bg_alloc(n, row_bytes > 0 ? row_bytes : 1, d->path, err);
    bg_status st = bg_allocated(buffer);
    for (uint64_t first = 0; first < d->dims[0] && st == BG_OK; first += n) {
        uint64_t rows = d->dims[0] - first < n ? d->dims[0] - first : n;
        st = bg_store_read_rows(d->at->store, d->path, d->row->dtype, (bg_slab){ first, rows, row_size }, buffer, err);
    }
    bg_free(buffer);
    return st;
}

static bg_status read_texts(const dataset *d, bg_err *err)
{
    char **text;
    size_t n;
    bg_status st = bg_store_read_strings(d->at->store, d->path, &text, &n, err);
    bg_strings_free(text, n);
    return st;
}

/* The store refuses what a reader would refuse, shapes that are stored whole first: nothing is walked through on a
 * file's word. */
static bool check_values(const dataset *d, bool known)
{
    bg_err err = { 0 };
    uint64_t dims[3];
    bg_status st = bg_store_dims(d->at->store, d->path, d->row->n_dims, dims, &err);
    if (st == BG_OK && !known)
        st = d->row->dtype == BG_STRING ? read_texts(d, &err) : read_numbers(d, &err);
    if (st != BG_OK && strcmp(err.msg, d->at->said->msg) != 0)
        verify_say(d->at->path, "damaged: %s", err.msg);
    if (st != BG_OK)
        *d->at->said = err;
    return st == BG_OK;
}

static bool check_row(const dataset *d, bool known)
{
    bool others = H5Lexists(bg_store_file(d->at->store), "run", H5P_DEFAULT) <=
                  0; /* they need not describe their data */
    if (!has_dtype(d->type, d->row->dtype))
        return bad(d, "has another type of number than its format says");
    bool good = others || check_attributes(d);
    if (d->n_dims != d->row->n_dims)
        return bad(d, "has another number of axes than its format says");
    return check_scales(d) && check_values(d, known) && good;
}

bool verify_dataset(const verify_place *at, hid_t id, bool known)
{
    dataset d = { .at = at, .id = id, .type = H5Dget_type(id) };
    hid_t space = H5Dget_space(id);
    bool good = bg_path(d.path, NULL, "%s%s", at->prefix, at->name) == BG_OK;
    d.row = good ? bg_schema_find(at->format, d.path) : NULL;
    d.n_dims = H5Sget_simple_extent_dims(space, d.dims, NULL);
    H5Sclose(space);
    if (d.row != NULL)
        good = check_row(&d, known);
    else if (H5DSis_scale(id) <= 0) /* a bare scale has no values */
        good = bad(&d, "is no dataset of its format");
    H5Tclose(d.type);
    H5Eclear2(H5E_DEFAULT);
    return good;
}
