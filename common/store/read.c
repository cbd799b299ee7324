/* Files opened for reading. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bregman/manifest.h"
#include "bregman/memory.h"
#include "check.h"
#include "hdf5_lib.h"
#include "heaps.h"

/* ---- opening ---- */

/* What the system says about a file, before HDF5 puts it less clearly. */
static bg_status look_at(const char *path, struct stat *about, bg_err *err)
{
    int fd;
    bg_status st = bg_manifest_open_file(path, &fd, err);
    if (st != BG_OK)
        return st;
    if (fstat(fd, about) != 0)
        st = BG_FAIL(err, BG_EIO, "cannot read \"%s\": %s", path, strerror(errno));
    close(fd);
    return st;
}

static bg_status open_hdf5(bg_store *s, bg_err *err)
{
    hid_t access = bg_hdf5_access();
    s->file = H5Fopen(s->path, H5F_ACC_RDONLY, access);
    bg_status st = s->file < 0 ? bg_hdf5_fail(err, BG_EFORMAT, "read \"%s\"", s->path) : BG_OK;
    H5Pclose(access);
    if (st == BG_OK)
        return st;
    htri_t is_hdf5 = H5Fis_hdf5(s->path);
    if (is_hdf5 < 0)
        return bg_hdf5_fail(err, BG_EIO, "read \"%s\"", s->path);
    return is_hdf5 > 0 ? st : BG_FAIL(err, BG_EFORMAT, "\"%s\" is not an HDF5 file", s->path);
}

/* A manifest that cannot be read vouches for nothing. */
static bool is_listed(const char *path, const struct stat *about)
{
    bg_manifest_entry entry;
    bool listed = false;
    return bg_manifest_lookup(path, &listed, &entry, NULL) == BG_OK && listed &&
           entry.size_bytes == (uint64_t)about->st_size;
}

/* vouched [in]: somebody has said already that the file is whole; else its folder's manifest is asked, if `ask`. */
static bg_status open_file(bg_store **out, const char *path, bool vouched, bool ask, bg_err *err)
{
    struct stat about;
    *out = NULL;
    bg_hdf5_prepare();
    bg_status st = look_at(path, &about, err);
    if (st != BG_OK)
        return st;
    bg_store *s = calloc(1, sizeof *s);
    if (s == NULL)
        return BG_FAIL(err, BG_ENOMEM, "out of memory to read \"%s\"", path);
    s->file = H5I_INVALID_HID;
    s->access = bg_link_access(s);
    s->path = strdup(path);
    s->cache = calloc(1, sizeof *s->cache);
    if (s->path == NULL || s->cache == NULL) {
        bg_store_free(s);
        return BG_FAIL(err, BG_ENOMEM, "out of memory to read \"%s\"", path);
    }
    st = open_hdf5(s, err);
    if (st == BG_OK && !vouched && !(ask && is_listed(path, &about)) &&
        (st = bg_heaps_check(path, &about, err)) != BG_OK)
        H5Fclose(s->file);
    if (st != BG_OK) {
        H5Pclose(s->access);
        bg_store_free(s);
        return st;
    }
    *out = s;
    return BG_OK;
}

bool bg_store_is_hdf5(const char *path)
{
    bg_hdf5_prepare();
    bool is_hdf5 = H5Fis_hdf5(path) > 0;
    H5Eclear2(H5E_DEFAULT);
    return is_hdf5;
}

bg_status bg_store_open_any(bg_store **out, const char *path, bg_err *err)
{
    return open_file(out, path, false, false, err);
}

static bool may_lack_format(const char *format)
{
    return strcmp(format, "bregman/tokens") == 0 || strcmp(format, "bregman/queries") == 0;
}

static bg_status check_format(const bg_store *s, const char *format, bg_err *err)
{
    char *text = NULL;
    bool found;
    uint64_t version = BG_FORMAT_VERSION;
    if (strcmp(format, "bregman/candidates") == 0) /* any file that has them */
        return BG_OK;
    bg_status st = bg_store_get_text(s, "/", "format", &text, &found, err);
    if (st == BG_OK && !found && !may_lack_format(format))
        st = BG_FAIL(err, BG_EFORMAT, "\"%s\" has no format attribute; expected \"%s\"", s->path, format);
    if (st == BG_OK && found && strcmp(text, format) != 0)
        st = BG_FAIL(err, BG_EFORMAT, "\"%s\" holds \"%s\", not \"%s\"", s->path, text, format);
    if (st == BG_OK && found)
        st = bg_store_get_u64(s, "/", "format_version", &version, NULL, err);
    if (st == BG_OK && version != BG_FORMAT_VERSION)
        st = BG_FAIL(err, BG_EFORMAT, "\"%s\" has format version %" PRIu64 "; this program reads %d", s->path, version,
                     BG_FORMAT_VERSION);
    free(text);
    return st;
}

bg_status bg_store_open(bg_store **out, const char *path, const char *format, bg_err *err)
{
    bg_store *s;
    *out = NULL;
    bg_status st = open_file(&s, path, strcmp(format, "bregman/work") == 0, true, err);
    if (st != BG_OK)
        return st;
    snprintf(s->format, sizeof s->format, "%s", format);
    if ((st = check_format(s, format, err)) != BG_OK) {
        bg_store_close(s);
        return st;
    }
    *out = s;
    return BG_OK;
}

bg_status bg_store_open_sequences(bg_store **out, const char *path, bg_err *err)
{
    bg_store *s;
    char *text = NULL;
    bool found = false;
    *out = NULL;
    bg_status st = open_file(&s, path, false, true, err);
    if (st != BG_OK)
        return st;
    st = bg_store_get_text(s, "/", "format", &text, &found, err);
    bool queries = st == BG_OK && (found ? strcmp(text, "bregman/queries") == 0 : bg_store_has(s, "completion_start"));
    free(text);
    snprintf(s->format, sizeof s->format, "%s", queries ? "bregman/queries" : "bregman/tokens");
    if (st == BG_OK)
        st = check_format(s, s->format, err);
    if (st != BG_OK) {
        bg_store_close(s);
        return st;
    }
    *out = s;
    return BG_OK;
}

/* ---- shapes ---- */

bg_status bg_store_dims(const bg_store *s, const char *path, int n_dims, uint64_t *dims, bg_err *err)
{
    hid_t id;
    hsize_t shape[H5S_MAX_RANK];
    bg_status st = bg_dataset_open(s, path, &id, err);
    if (st != BG_OK)
        return st;
    hid_t space = H5Dget_space(id);
    int found = H5Sget_simple_extent_ndims(space);
    if (found == n_dims)
        H5Sget_simple_extent_dims(space, shape, NULL);
    H5Sclose(space);
    if (found != n_dims)
        return BG_FAIL(err, BG_ESHAPE, "\"%s\" of \"%s\" has %d axes instead of %d", path, s->path, found, n_dims);
    for (int d = 0; d < n_dims; d++)
        dims[d] = shape[d];
    return BG_OK;
}

/* ---- numbers ---- */

/* A value that the caller's type cannot hold ends the read; HDF5 alone would put in the nearest. */
static H5T_conv_ret_t refuse_out_of_range(H5T_conv_except_t what, hid_t from, hid_t to, void *source, void *target,
                                          void *out_of_range)
{
    (void)from, (void)to, (void)source, (void)target;
    if (what != H5T_CONV_EXCEPT_RANGE_HI && what != H5T_CONV_EXCEPT_RANGE_LOW)
        return H5T_CONV_UNHANDLED;
    *(bool *)out_of_range = true;
    return H5T_CONV_ABORT;
}

/* Whole numbers are read as whole numbers, fractions as fractions. */
static bool same_class(hid_t dataset, bg_dtype dtype)
{
    hid_t type = H5Dget_type(dataset);
    bool same = dtype != BG_STRING && H5Tget_class(type) == H5Tget_class(bg_memory_type(dtype));
    H5Tclose(type);
    return same;
}

/* Rows of a dataset of at most three axes, which they lie within. */
static bg_status read_selection(const bg_store *s, const char *path, hid_t id, bg_dtype dtype, bg_slab rows, void *data,
                                bg_err *err)
{
    hsize_t start[3] = { rows.first }, count[3];
    bool out_of_range = false;
    bg_status st = BG_OK;
    hid_t space = H5Dget_space(id), transfer = H5Pcreate(H5P_DATASET_XFER);
    int n_dims = H5Sget_simple_extent_dims(space, count, NULL);
    count[0] = rows.n;
    hid_t memory = H5Screate_simple(n_dims, count, NULL);
    H5Pset_type_conv_cb(transfer, refuse_out_of_range, &out_of_range);
    H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL);
    if (H5Dread(id, bg_memory_type(dtype), memory, space, transfer, data) < 0) {
        st = bg_hdf5_fail(err, BG_EFORMAT, "read \"%s\" of \"%s\"", path, s->path);
        if (out_of_range)
            st = BG_FAIL(err, BG_ESHAPE, "\"%s\" of \"%s\" has a value out of range", path, s->path);
    }
    H5Pclose(transfer);
    H5Sclose(memory);
    H5Sclose(space);
    return st;
}

bg_status bg_store_read_rows(const bg_store *s, const char *path, bg_dtype dtype, bg_slab rows, void *data, bg_err *err)
{
    static const char *const kind[] = { "float32", "float64", "int64", "uint32", "uint8", "text" };
    const bg_schema_row *row = bg_schema_find(s->format, path);
    uint64_t dims[3] = { 0, 1, 1 };
    hid_t id;
    if (row == NULL)
        return BG_FAIL(err, BG_EARG, "\"%s\" is no dataset of format \"%s\"", path, s->format);
    bg_status st = bg_store_dims(s, path, row->n_dims, dims, err);
    if (st != BG_OK || (st = bg_dataset_open(s, path, &id, err)) != BG_OK)
        return st;
    if (!same_class(id, dtype))
        return BG_FAIL(err, BG_ESHAPE, "\"%s\" of \"%s\" cannot be read as %s", path, s->path, kind[dtype]);
    if (dims[1] * dims[2] != rows.row_size)
        return BG_FAIL(err, BG_ESHAPE, "\"%s\" of \"%s\" has %" PRIu64 " values in a row; expected %" PRIu64, path,
                       s->path, dims[1] * dims[2], rows.row_size);
    if (rows.first > dims[0] || rows.n > dims[0] - rows.first)
        return BG_FAIL(err, BG_ESHAPE,
                       "\"%s\" of \"%s\" has %" PRIu64 " rows; rows %" PRIu64 " to %" PRIu64 " are asked for", path,
                       s->path, dims[0], rows.first, rows.first + rows.n);
    if (rows.n > 0 && rows.row_size > 0)
        st = read_selection(s, path, id, dtype, rows, data, err);
    return st == BG_OK ? bg_values_check(s, path, dtype, data, rows.first * rows.row_size, rows.n * rows.row_size, err)
                       : st;
}

bg_status bg_store_read(const bg_store *s, const char *path, bg_dtype dtype, const uint64_t *dims, void *data,
                        bg_err *err)
{
    const bg_schema_row *row = bg_schema_find(s->format, path);
    uint64_t found[3], row_size = 1;
    bg_status st = row != NULL ? bg_store_dims(s, path, row->n_dims, found, err)
                               : BG_FAIL(err, BG_EARG, "\"%s\" is no dataset of format \"%s\"", path, s->format);
    for (int d = 0; st == BG_OK && d < row->n_dims; d++) {
        if (found[d] != dims[d])
            return BG_FAIL(err, BG_ESHAPE,
                           "\"%s\" of \"%s\" has length %" PRIu64 " along the axis \"%s\"; expected %" PRIu64, path,
                           s->path, found[d], row->dim[d], dims[d]);
        row_size *= d > 0 ? dims[d] : 1;
    }
    return st == BG_OK ? bg_store_read_rows(s, path, dtype, (bg_slab){ 0, dims[0], row_size }, data, err) : st;
}

bg_status bg_store_read_optional(const bg_store *s, const char *path, uint64_t n, double **out, bg_err *err)
{
    *out = NULL;
    if (!bg_store_has(s, path))
        return BG_OK;
    bg_status st = BG_NEW(*out, n, path, err);
    return st == BG_OK ? bg_store_read(s, path, BG_F64, &n, *out, err) : st;
}

/* ---- strings ---- */

void bg_strings_free(char **strings, size_t n)
{
    for (size_t i = 0; strings != NULL && i < n; i++)
        free(strings[i]);
    free(strings);
}

/* Texts of a string dataset that are selected in it, and the shape they have in memory. */
typedef struct {
    hid_t id, type, space, memory;
    size_t n;
} text_selection;

/* HDF5's own strings are copied, so that the caller frees with free(). */
static bg_status read_variable(const bg_store *s, const char *path, const text_selection *t, char **out, bg_err *err)
{
    if (!bg_references_are_sound(t->id, t->memory, t->space, t->n))
        return BG_FAIL(err, BG_EFORMAT, "\"%s\" of \"%s\" is damaged: its texts are not where it says, or not as long",
                       path, s->path);
    char **lent = calloc(t->n + 1, sizeof *lent);
    if (lent == NULL)
        return BG_FAIL(err, BG_ENOMEM, "out of memory for \"%s\" of \"%s\"", path, s->path);
    bg_status st = BG_OK;
    if (H5Dread(t->id, t->type, t->memory, t->space, H5P_DEFAULT, lent) < 0)
        st = bg_hdf5_fail(err, BG_EFORMAT, "read \"%s\" of \"%s\"", path, s->path);
    for (size_t i = 0; i < t->n; i++) {
        if (st == BG_OK && (out[i] = strdup(lent[i] != NULL ? lent[i] : "")) == NULL)
            st = BG_FAIL(err, BG_ENOMEM, "out of memory for \"%s\" of \"%s\"", path, s->path);
        H5free_memory(lent[i]);
    }
    free(lent);
    return st;
}

static bg_status read_fixed(const bg_store *s, const char *path, const text_selection *t, char **out, bg_err *err)
{
    size_t width = H5Tget_size(t->type);
    char *all = calloc(t->n + 1, width);
    if (all == NULL)
        return BG_FAIL(err, BG_ENOMEM, "out of memory for \"%s\" of \"%s\"", path, s->path);
    bg_status st = BG_OK;
    if (H5Dread(t->id, t->type, t->memory, t->space, H5P_DEFAULT, all) < 0)
        st = bg_hdf5_fail(err, BG_EFORMAT, "read \"%s\" of \"%s\"", path, s->path);
    for (size_t i = 0; i < t->n && st == BG_OK; i++)
        if ((out[i] = strndup(all + i * width, width)) == NULL)
            st = BG_FAIL(err, BG_ENOMEM, "out of memory for \"%s\" of \"%s\"", path, s->path);
    free(all);
    return st;
}

/* A block of a string dataset, which it lies within, into out[], which holds NULLs. */
static bg_status read_texts(const bg_store *s, const char *path, const hsize_t start[3], const hsize_t count[3],
                            char **out, bg_err *err)
{
    text_selection t;
    bg_status st = bg_dataset_open(s, path, &t.id, err);
    if (st != BG_OK)
        return st;
    t.n = count[0] * count[1] * count[2];
    t.type = H5Dget_type(t.id);
    t.space = H5Dget_space(t.id);
    t.memory = H5Screate_simple(H5Sget_simple_extent_ndims(t.space), count, NULL);
    H5Sselect_hyperslab(t.space, H5S_SELECT_SET, start, NULL, count, NULL);
    if (H5Tget_class(t.type) != H5T_STRING)
        st = BG_FAIL(err, BG_ESHAPE, "\"%s\" of \"%s\" cannot be read as text", path, s->path);
    else if (t.n > 0 && H5Tis_variable_str(t.type) > 0)
        st = read_variable(s, path, &t, out, err);
    else if (t.n > 0)
        st = read_fixed(s, path, &t, out, err);
    H5Sclose(t.memory);
    H5Sclose(t.space);
    H5Tclose(t.type);
    return st;
}

static bg_status text_dims(const bg_store *s, const char *path, uint64_t dims[3], bg_err *err)
{
    const bg_schema_row *row = bg_schema_find(s->format, path);
    dims[0] = dims[1] = dims[2] = 1;
    if (row == NULL)
        return BG_FAIL(err, BG_EARG, "\"%s\" is no dataset of format \"%s\"", path, s->format);
    return bg_store_dims(s, path, row->n_dims, dims, err);
}

bg_status bg_store_read_strings(const bg_store *s, const char *path, char ***out, size_t *n, bg_err *err)
{
    uint64_t dims[3];
    *out = NULL;
    *n = 0;
    bg_status st = text_dims(s, path, dims, err);
    if (st == BG_OK)
        st = bg_store_read_string_rows(s, path, (bg_slab){ 0, dims[0], dims[1] }, out, err);
    if (st != BG_OK)
        return st;
    *n = dims[0] * dims[1];
    st = bg_texts_check(s, path, *out, *n, err);
    if (st != BG_OK) {
        bg_strings_free(*out, *n);
        *out = NULL;
        *n = 0;
    }
    return st;
}

bg_status bg_store_read_string_rows(const bg_store *s, const char *path, bg_slab rows, char ***out, bg_err *err)
{
    uint64_t dims[3];
    *out = NULL;
    bg_status st = text_dims(s, path, dims, err);
    if (st == BG_OK && (rows.first > dims[0] || rows.n > dims[0] - rows.first || rows.row_size != dims[1]))
        st = BG_FAIL(err, BG_ESHAPE,
                     "\"%s\" of \"%s\" has %" PRIu64 " rows of %" PRIu64 "; rows %" PRIu64 " to %" PRIu64 " of %" PRIu64
                     " are asked for",
                     path, s->path, dims[0], dims[1], rows.first, rows.first + rows.n, rows.row_size);
    if (st != BG_OK)
        return st;
    size_t n = rows.n * rows.row_size;
    char **strings = calloc(n + 1, sizeof *strings);
    if (strings == NULL)
        return BG_FAIL(err, BG_ENOMEM, "out of memory for \"%s\" of \"%s\"", path, s->path);
    st = read_texts(s, path, (const hsize_t[]){ rows.first, 0, 0 }, (const hsize_t[]){ rows.n, rows.row_size, 1 },
                    strings, err);
    if (st == BG_OK)
        *out = strings;
    else
        bg_strings_free(strings, n);
    return st;
}

bg_status bg_store_read_string(const bg_store *s, const char *path, uint64_t row, uint64_t column, char **text,
                               bg_err *err)
{
    uint64_t dims[3];
    *text = NULL;
    bg_status st = text_dims(s, path, dims, err);
    if (st == BG_OK && (row >= dims[0] || column >= dims[1]))
        st = BG_FAIL(err, BG_ESHAPE,
                     "\"%s\" of \"%s\" has %" PRIu64 " rows of %" PRIu64 "; row %" PRIu64 ", column %" PRIu64
                     " is asked for",
                     path, s->path, dims[0], dims[1], row, column);
    return st == BG_OK
               ? read_texts(s, path, (const hsize_t[]){ row, column, 0 }, (const hsize_t[]){ 1, 1, 1 }, text, err)
               : st;
}
