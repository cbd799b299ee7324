/* Datasets opened: what a reader expects of a dataset, before a byte of it is used: the type, the axes and the domain
 * that its row of the schema has, axes of one name equally long throughout the file, and every element stored in it. */
#include "check.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/storage.h"
#include "hdf5_lib.h"

/* ---- axes ---- */

static int by_key(const void *a, const void *b)
{
    return strcmp(((const bg_axis_length *)a)->key, ((const bg_axis_length *)b)->key);
}

static const bg_axis_length *find_axis(const bg_store *s, char *key)
{
    bg_axis_length *const *found = tfind(&(bg_axis_length){ .key = key }, &s->cache->axes, by_key);
    return found != NULL ? *found : NULL;
}

static bg_status remember_axis(const bg_store *s, const char *key, const char *dataset, uint64_t length, bg_err *err)
{
    bg_axis_length *a = calloc(1, sizeof *a);
    if (a != NULL)
        *a = (bg_axis_length){ strdup(key), strdup(dataset), length };
    if (a != NULL && a->key != NULL && a->dataset != NULL && tsearch(a, &s->cache->axes, by_key) != NULL)
        return BG_OK;
    if (a != NULL)
        bg_axis_length_free(a);
    return BG_FAIL(err, BG_ENOMEM, "out of memory for the axes of \"%s\"", s->path);
}

/* Of some things there is at least one: without queries, columns or layers every score would be 0, or none. */
static bool may_be_empty(const char *axis)
{
    static const char *const never[] = { "query", "r", "layer", "k", "bin", "input", "output" };
    for (size_t i = 0; i < sizeof never / sizeof never[0]; i++)
        if (strcmp(axis, never[i]) == 0)
            return false;
    return true;
}

static bg_status check_axis(const bg_store *s, const char *path, const char *axis, uint64_t length, bg_err *err)
{
    char key[BG_PATH_BYTES];
    if (length == 0 && !may_be_empty(axis))
        return BG_FAIL(err, BG_ESHAPE, "\"%s\" of \"%s\" is empty: its axis \"%s\" has length 0", path, s->path, axis);
    bg_schema_axis_key(s->format, path, axis, key);
    const bg_axis_length *known = find_axis(s, key);
    if (known == NULL)
        return remember_axis(s, key, path, length, err);
    if (known->length != length)
        return BG_FAIL(err, BG_ESHAPE,
                       "\"%s\" of \"%s\" has %" PRIu64 " along the axis \"%s\", but \"%s\" has %" PRIu64, path, s->path,
                       length, axis, known->dataset, known->length);
    return BG_OK;
}

/* Length of an axis of `path`, from a dataset along it that may not have been opened yet; *found false if the file has
 * none. */
static bg_status length_along(const bg_store *s, const char *path, const char *axis, uint64_t *length, bool *found,
                              bg_err *err)
{
    char key[BG_PATH_BYTES], other[BG_PATH_BYTES];
    size_t n;
    hid_t id;
    const bg_schema_row *row = bg_schema_rows(&n);
    bg_status st = BG_OK;
    bg_schema_axis_key(s->format, path, axis, key);
    for (size_t i = 0; i < n && st == BG_OK && find_axis(s, key) == NULL; i++)
        for (int d = 0; d < row[i].n_dims && st == BG_OK; d++) {
            bg_schema_axis_key(s->format, row[i].path, row[i].dim[d], other);
            if (strcmp(row[i].format, s->format) == 0 && strcmp(other, key) == 0 && bg_store_has(s, row[i].path))
                st = bg_dataset_open(s, row[i].path, &id, err);
        }
    const bg_axis_length *known = find_axis(s, key);
    *found = known != NULL;
    *length = *found ? known->length : 0;
    return st;
}

/* ---- a dataset as a whole ---- */

static bool has_class(hid_t id, bg_dtype dtype)
{
    static const H5T_class_t class[] = { [BG_F32] = H5T_FLOAT,   [BG_F64] = H5T_FLOAT,  [BG_I64] = H5T_INTEGER,
                                         [BG_U32] = H5T_INTEGER, [BG_U8] = H5T_INTEGER, [BG_STRING] = H5T_STRING };
    hid_t type = H5Dget_type(id);
    bool same = H5Tget_class(type) == class[dtype];
    H5Tclose(type);
    return same;
}

/* HDF5 itself says of a filter that it lacks only which folder of plug-ins it looked into. */
static bg_status check_filters(const bg_store *s, const char *path, hid_t id, bg_err *err)
{
    bg_status st = BG_OK;
    hid_t create = H5Dget_create_plist(id);
    for (int i = 0; i < H5Pget_nfilters(create) && st == BG_OK; i++) {
        unsigned flags, config;
        size_t n = 0;
        char name[64] = "";
        H5Z_filter_t filter = H5Pget_filter2(create, (unsigned)i, &flags, &n, NULL, sizeof name, name, &config);
        if (H5Zfilter_avail(filter) <= 0)
            st = BG_FAIL(err, BG_EFORMAT,
                         "\"%s\" of \"%s\" is stored with the filter %.60s (%d), which this HDF5 library lacks: "
                         "write it with gzip or without a filter",
                         path, s->path, name, filter);
    }
    H5Pclose(create);
    H5Eclear2(H5E_DEFAULT);
    return st;
}

static bg_status check_dataset(const bg_store *s, const char *path, hid_t id, bg_err *err)
{
    static const char *const kind[] = { "numbers with fractions", "numbers with fractions", "whole numbers",
                                        "whole numbers",          "whole numbers",          "text" };
    hsize_t length[H5S_MAX_RANK];
    const bg_schema_row *row = bg_schema_find(s->format, path);
    if (row == NULL)
        return BG_FAIL(err, BG_EARG, "\"%s\" is no dataset of format \"%s\"", path, s->format);
    if (!has_class(id, row->dtype))
        return BG_FAIL(err, BG_ESHAPE, "\"%s\" of \"%s\" does not hold %s, as its format says", path, s->path,
                       kind[row->dtype]);
    hid_t space = H5Dget_space(id);
    int n_dims = H5Sget_simple_extent_ndims(space);
    if (n_dims == row->n_dims)
        H5Sget_simple_extent_dims(space, length, NULL);
    H5Sclose(space);
    if (n_dims != row->n_dims)
        return BG_FAIL(err, BG_ESHAPE, "\"%s\" of \"%s\" has %d axes instead of %d", path, s->path, n_dims,
                       row->n_dims);
    bg_status st = check_filters(s, path, id, err);
    if (st == BG_OK)
        st = bg_storage_check(id, path, s->path, err);
    for (int d = 0; d < n_dims && st == BG_OK; d++)
        st = check_axis(s, path, row->dim[d], length[d], err);
    return st;
}

/* ---- opening ---- */

static bg_status open_to_read(const bg_store *s, const char *path, hid_t id, bg_err *err)
{
    if (id >= 0)
        return check_dataset(s, path, id, err);
    bg_status st = bg_hdf5_fail(err, BG_EFORMAT, "read \"%s\" of \"%s\"", path, s->path);
    if (s->cache->outside != NULL)
        return BG_FAIL(err, BG_EFORMAT,
                       "\"%s\" of \"%s\" is a link into another file, \"%s\", which no hash of this one covers: "
                       "it must hold the data itself",
                       path, s->path, s->cache->outside);
    return bg_store_has(s, path) ? st : BG_FAIL(err, BG_EFORMAT, "\"%s\" has no dataset \"%s\"", s->path, path);
}

bg_status bg_dataset_open(const bg_store *s, const char *path, hid_t *id, bg_err *err)
{
    if (bg_dataset_cached(s, path, id))
        return BG_OK;
    free(s->cache->outside);
    s->cache->outside = NULL; /* what an earlier question met says nothing of this path */
    *id = H5Dopen2(s->file, path, s->access);
    bg_status st = s->temporary == NULL ? open_to_read(s, path, *id, err)
                   : *id < 0            ? bg_hdf5_fail(err, BG_EIO, "write \"%s\" of \"%s\"", path, s->path)
                                        : BG_OK;
    if (st == BG_OK)
        st = bg_dataset_keep(s, path, *id, err);
    if (st != BG_OK && *id >= 0)
        H5Dclose(*id);
    return st;
}

/* ---- values ---- */

typedef struct {
    double least, most;
    const char *expected;
} range;
static const range ranges[] = {
    [BG_FINITE] = { -DBL_MAX, DBL_MAX, "a finite number" },
    [BG_NOT_NEGATIVE] = { 0, DBL_MAX, "a number that is not negative" },
    [BG_SHARE_KEPT] = { -DBL_MAX, 1 + 1e-3, "1 at most" },
    [BG_FROM_0] = { 0, DBL_MAX, "0 or more" },
    [BG_FROM_0_OR_NONE] = { -1, DBL_MAX, "0 or more, or -1" },
    [BG_SEQUENCE_LENGTH] = { 2, UINT32_MAX, "2 or more: a sequence of one token predicts nothing" },
    [BG_SEQUENCE] = { 0, DBL_MAX, "the number of a sequence" },
    [BG_SEQUENCE_OR_NONE] = { -1, DBL_MAX, "the number of a sequence, or -1" },
    [BG_DOCUMENT] = { -1, DBL_MAX, "a row of documents, or -1" },
};

/* Index of the first value outside of [least, most], or n.  A NaN is outside of all. */
#define FIND_OUTSIDE(name, type)                                               \
    static uint64_t name(const type *x, uint64_t n, double least, double most) \
    {                                                                          \
        uint64_t i = 0;                                                        \
        while (i < n && (double)x[i] >= least && (double)x[i] <= most)         \
            i++;                                                               \
        return i;                                                              \
    }
FIND_OUTSIDE(outside_f32, float)
FIND_OUTSIDE(outside_f64, double)
FIND_OUTSIDE(outside_i64, int64_t)
FIND_OUTSIDE(outside_u32, uint32_t)

static uint64_t find_outside(bg_dtype dtype, const void *x, uint64_t n, const range *r, double *value)
{
    uint64_t i = n;
    switch (dtype) {
    case BG_F32:
        i = outside_f32(x, n, r->least, r->most);
        *value = i < n ? (double)((const float *)x)[i] : 0;
        break;
    case BG_F64:
        i = outside_f64(x, n, r->least, r->most);
        *value = i < n ? ((const double *)x)[i] : 0;
        break;
    case BG_I64:
        i = outside_i64(x, n, r->least, r->most);
        *value = i < n ? (double)((const int64_t *)x)[i] : 0;
        break;
    case BG_U32:
        i = outside_u32(x, n, r->least, r->most);
        *value = i < n ? ((const uint32_t *)x)[i] : 0;
        break;
    case BG_U8:
    case BG_STRING: break;
    }
    return i;
}

/* Where numbers point into something whose size the file tells, they lie within it. */
static bg_status narrow(const bg_store *s, const bg_schema_row *row, range *r, char expected[96], bg_err *err)
{
    bool found = false;
    uint64_t n = 0;
    bg_status st = BG_OK;
    snprintf(expected, 96, "%s", r->expected);
    if (row->domain == BG_SEQUENCE || row->domain == BG_SEQUENCE_OR_NONE)
        st = bg_store_get_u64(s, "/", "corpus_sequences", &n, &found, err);
    else if (row->domain == BG_DOCUMENT)
        st = length_along(s, "documents/id", "document", &n, &found, err);
    if (found) {
        r->most = (double)n - 1;
        snprintf(expected, 96, "%s, below %" PRIu64, r->expected, n);
    }
    return st;
}

static bg_status check_sum(const bg_store *s, const char *path, const bg_schema_row *row, bg_dtype dtype,
                           const void *data, uint64_t n, bg_err *err)
{
    uint64_t sum = 0, length;
    bool found;
    for (uint64_t i = 0; i < n; i++)
        sum += dtype == BG_U32 ? ((const uint32_t *)data)[i] : (uint64_t)((const int64_t *)data)[i];
    bg_status st = length_along(s, path, row->sample_dimension, &length, &found, err);
    if (st == BG_OK && found && sum != length)
        st = BG_FAIL(err, BG_EFORMAT, "\"%s\" of \"%s\" adds up to %" PRIu64 ", but there are %" PRIu64 " along \"%s\"",
                     path, s->path, sum, length, row->sample_dimension);
    return st;
}

/* Elements of the whole dataset, as far as its axes are known: all are, since it is open. */
static uint64_t elements(const bg_store *s, const char *path, const bg_schema_row *row)
{
    char key[BG_PATH_BYTES];
    uint64_t n = 1;
    for (int d = 0; d < row->n_dims; d++) {
        bg_schema_axis_key(s->format, path, row->dim[d], key);
        n *= find_axis(s, key)->length;
    }
    return n;
}

bg_status bg_values_check(const bg_store *s, const char *path, bg_dtype dtype, const void *data, uint64_t first,
                          uint64_t n, bg_err *err)
{
    const bg_schema_row *row = bg_schema_find(s->format, path);
    double value = 0;
    bg_status st = BG_OK;
    if (row->domain != BG_ANY) {
        range r = ranges[row->domain];
        char expected[96];
        st = narrow(s, row, &r, expected, err);
        uint64_t i = st == BG_OK ? find_outside(dtype, data, n, &r, &value) : n;
        if (st == BG_OK && i < n)
            return BG_FAIL(err, isfinite(value) ? BG_EFORMAT : BG_ENUMERIC,
                           "\"%s\" of \"%s\" holds %.17g at %" PRIu64 "; expected %s", path, s->path, value, first + i,
                           expected);
    }
    if (st == BG_OK && row->sample_dimension != NULL && first == 0 && n == elements(s, path, row))
        st = check_sum(s, path, row, dtype, data, n, err);
    return st;
}

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

bg_status bg_texts_check(const bg_store *s, const char *path, char *const *text, size_t n, bg_err *err)
{
    const bg_schema_row *row = bg_schema_find(s->format, path);
    bg_status st = BG_OK;
    if (row->domain != BG_NAMES || n == 0)
        return BG_OK;
    char **sorted = calloc(n, sizeof *sorted);
    if (sorted == NULL)
        return BG_FAIL(err, BG_ENOMEM, "out of memory for \"%s\" of \"%s\"", path, s->path);
    memcpy(sorted, text, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, by_text);
    if (sorted[0][0] == '\0')
        st = BG_FAIL(err, BG_EFORMAT, "\"%s\" of \"%s\" has a name that is empty", path, s->path);
    for (size_t i = 1; i < n && st == BG_OK; i++)
        if (strcmp(sorted[i - 1], sorted[i]) == 0)
            st = BG_FAIL(err, BG_EFORMAT, "\"%s\" of \"%s\" has the name \"%.100s\" twice", path, s->path, sorted[i]);
    free(sorted);
    return st;
}
