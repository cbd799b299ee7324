/* Files in the making: creation, datasets, links. */
#include "check.h"
#include "hdf5_lib.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bregman/version.h"
#include "bregman/writer.h"

enum { CHUNK_BYTES = 1 << 20 };

/* ---- creation ---- */

/* PATH.tmp-WRITER; NULL if out of memory. */
static char *attempt_name(const char *path)
{
    char writer[BG_WRITER_BYTES], *name = NULL;
    bg_writer_name(writer);
    return asprintf(&name, "%s.tmp-%s", path, writer) < 0 ? NULL : name;
}

static bg_status write_texts(bg_store *s, const char *path, const char *const *text, size_t n, bg_err *err)
{
    const uint64_t dims[1] = { n };
    return bg_store_write(s, path, dims, text, err);
}

static bg_status write_inputs(bg_store *s, const char *group, const bg_provenance *run, bg_err *err)
{
    char path[BG_PATH_BYTES];
    const char **hex = calloc(run->n_inputs + 1, sizeof *hex);
    if (hex == NULL)
        return BG_FAIL(err, BG_ENOMEM, "out of memory for the inputs of \"%s\"", s->path);
    for (size_t i = 0; i < run->n_inputs; i++)
        hex[i] = run->input_hash[i].hex;
    bg_status st = bg_path(path, err, "%s/input_name", group);
    if (st == BG_OK)
        st = write_texts(s, path, run->input_name, run->n_inputs, err);
    if (st == BG_OK)
        st = bg_path(path, err, "%s/input_hash", group);
    if (st == BG_OK)
        st = write_texts(s, path, hex, run->n_inputs, err);
    free(hex);
    return st;
}

static bg_status write_run(bg_store *s, const char *group, const bg_provenance *run, bg_err *err)
{
    char started[32];
    bg_utc_text(run->started, started);
    const struct {
        const char *name, *value;
    } text[] = {
        { "stage", run->stage },
        { "options", run->options },
        { "fingerprint", run->fingerprint },
        { "git_revision", bg_git_revision() },
        { "version", bg_version() },
        { "library_versions", run->libraries },
        { "started", started },
    };
    const struct {
        const char *name;
        uint64_t value;
    } number[] = {
        { "ranks", (uint64_t)run->ranks },
        { "threads", (uint64_t)run->threads },
        { "seed", run->seed },
    };
    bg_status st = write_inputs(s, group, run, err); /* makes the group */
    for (size_t i = 0; i < sizeof text / sizeof text[0] && st == BG_OK; i++)
        st = bg_store_attr_text(s, group, text[i].name, text[i].value != NULL ? text[i].value : "", err);
    for (size_t i = 0; i < sizeof number / sizeof number[0] && st == BG_OK; i++)
        st = bg_store_attr_u64(s, group, number[i].name, number[i].value, err);
    return st;
}

bg_status bg_store_add_run(bg_store *s, const char *group, const bg_provenance *run, bg_err *err)
{
    char finished[32];
    bg_utc_text((double)time(NULL), finished);
    bg_status st = write_run(s, group, run, err);
    return st == BG_OK ? bg_store_attr_text(s, group, "finished", finished, err) : st;
}

static bg_status create_file(bg_store *s, bg_err *err)
{
    hid_t access = bg_hdf5_access();
    s->file = H5Fcreate(s->temporary, H5F_ACC_EXCL, H5P_DEFAULT, access);
    bg_status st = s->file < 0 ? bg_hdf5_fail(err, BG_EIO, "create \"%s\"", s->path) : BG_OK;
    H5Pclose(access);
    return st;
}

bg_status bg_store_create(bg_store **out, const char *path, const char *format, const bg_provenance *run, bg_err *err)
{
    *out = NULL;
    bg_hdf5_prepare();
    if (strchr(path, '\n') != NULL)
        return BG_FAIL(err, BG_EARG, "a file name with a line break cannot be listed in a manifest");
    bg_store *s = calloc(1, sizeof *s);
    if (s == NULL)
        return BG_FAIL(err, BG_ENOMEM, "out of memory to create \"%s\"", path);
    s->file = H5I_INVALID_HID;
    s->access = H5P_DEFAULT;
    s->path = strdup(path);
    s->temporary = attempt_name(path);
    s->cache = calloc(1, sizeof *s->cache);
    snprintf(s->format, sizeof s->format, "%s", format);
    bg_status st = s->path != NULL && s->temporary != NULL && s->cache != NULL
                       ? create_file(s, err)
                       : BG_FAIL(err, BG_ENOMEM, "out of memory to create \"%s\"", path);
    if (st == BG_OK)
        st = bg_store_attr_text(s, "/", "format", format, err);
    if (st == BG_OK)
        st = bg_store_attr_u64(s, "/", "format_version", BG_FORMAT_VERSION, err);
    if (st == BG_OK)
        st = write_run(s, "run", run, err);
    if (st != BG_OK) {
        bg_store_discard(s);
        return st;
    }
    *out = s;
    return BG_OK;
}

/* ---- datasets ---- */

/* A chunk has its Fletcher-32 and its place in a B-tree; a dataset its header, attributes and the tree. */
double bg_store_dataset_bytes(double elements, double element_bytes)
{
    double bytes = elements * element_bytes;
    return bytes + (double)(size_t)(bytes / CHUNK_BYTES + 1) * 60 + 3000;
}

double bg_store_file_bytes(void) { return 12000; }

/* Whole trailing axes up to CHUNK_BYTES, then a part of one axis (cut evenly, so that the last
 * chunk isn't mostly padding), then single steps: a range of rows is a range of whole chunks or
 * lies within a few, and no row is written in pieces. */
static void choose_chunk(const bg_schema_row *row, const uint64_t *dims, hsize_t *chunk)
{
    uint64_t room = CHUNK_BYTES / bg_dtype_bytes(row->dtype);
    for (int d = row->n_dims - 1; d >= 0; d--) {
        uint64_t most = dims[d] < room ? dims[d] : room;
        uint64_t pieces = (dims[d] + most - 1) / most;
        chunk[d] = (dims[d] + pieces - 1) / pieces;
        room /= chunk[d];
        if (pieces > 1 || room == 0)
            room = 1;
    }
}

static bool is_empty(const bg_schema_row *row, const uint64_t *dims)
{
    for (int d = 0; d < row->n_dims; d++)
        if (dims[d] == 0)
            return true;
    return false;
}

/* Creation properties: chunks with checksums; an empty dataset has no chunks, and HDF5 has no
 * checksums for variable-length strings. */
static hid_t creation_properties(const bg_schema_row *row, const uint64_t *dims)
{
    hsize_t chunk[3];
    hid_t create = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_obj_track_times(create, false); /* the same data give the same bytes */
    if (!is_empty(row, dims)) {
        choose_chunk(row, dims, chunk);
        H5Pset_chunk(create, row->n_dims, chunk);
        if (row->dtype != BG_STRING)
            H5Pset_fletcher32(create);
    }
    return create;
}

static bg_status remember_dataset(bg_store *s, const char *path, const bg_schema_row *row, const uint64_t *dims,
                                  bg_err *err)
{
    if (s->n_made == s->made_capacity) {
        size_t capacity = 2 * s->made_capacity + 16;
        bg_made_dataset *made = realloc(s->made, capacity * sizeof *made);
        if (made == NULL)
            return BG_FAIL(err, BG_ENOMEM, "out of memory for the datasets of \"%s\"", s->path);
        s->made = made;
        s->made_capacity = capacity;
    }
    bg_made_dataset *m = &s->made[s->n_made];
    *m = (bg_made_dataset){ .path = strdup(path), .row = row };
    if (m->path == NULL)
        return BG_FAIL(err, BG_ENOMEM, "out of memory for the datasets of \"%s\"", s->path);
    for (int d = 0; d < row->n_dims; d++)
        m->dims[d] = dims[d];
    s->n_made++;
    return BG_OK;
}

static bg_status create_dataset(bg_store *s, const char *path, const bg_schema_row *row, const uint64_t *dims,
                                bg_err *err)
{
    hsize_t shape[3];
    for (int d = 0; d < row->n_dims; d++)
        shape[d] = dims[d];
    hid_t text = bg_string_type();
    hid_t type = row->dtype == BG_STRING ? text : bg_memory_type(row->dtype);
    hid_t space = H5Screate_simple(row->n_dims, shape, NULL);
    hid_t create = creation_properties(row, dims);
    hid_t link = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_create_intermediate_group(link, 1);
    hid_t id = H5Dcreate2(s->file, path, type, space, link, create, H5P_DEFAULT);
    bg_status st = BG_OK;
    if (id < 0) {
        s->failed = true;
        st = bg_hdf5_fail(err, BG_EIO, "make \"%s\" in \"%s\"", path, s->path);
    } else {
        H5Dclose(id);
    }
    H5Pclose(link);
    H5Pclose(create);
    H5Sclose(space);
    H5Tclose(text);
    return st;
}

bg_status bg_store_dataset(bg_store *s, const char *path, const uint64_t *dims, bg_err *err)
{
    const bg_schema_row *row = bg_schema_find(s->format, path);
    if (row == NULL)
        return BG_FAIL(err, BG_EARG, "\"%s\" is no dataset of format \"%s\"", path, s->format);
    bg_status st = create_dataset(s, path, row, dims, err);
    if (st == BG_OK)
        st = remember_dataset(s, path, row, dims, err);
    if (st == BG_OK)
        st = bg_store_attr_text(s, path, "description", row->description, err);
    if (st == BG_OK)
        st = bg_store_attr_text(s, path, "units", row->units, err);
    if (st == BG_OK && row->sample_dimension != NULL)
        st = bg_store_attr_text(s, path, "sample_dimension", row->sample_dimension, err);
    return st;
}

static const bg_made_dataset *find_made(const bg_store *s, const char *path)
{
    for (size_t i = s->n_made; i-- > 0;)
        if (strcmp(s->made[i].path, path) == 0)
            return &s->made[i];
    return NULL;
}

static bg_status write_selection(bg_store *s, const bg_made_dataset *m, uint64_t first, uint64_t n, const void *data,
                                 bg_err *err)
{
    const bg_schema_row *row = m->row;
    hsize_t start[3] = { first, 0, 0 }, count[3] = { n, 0, 0 };
    for (int d = 1; d < row->n_dims; d++)
        count[d] = m->dims[d];
    hid_t id;
    bg_status st = bg_dataset_open(s, m->path, &id, err);
    if (st != BG_OK)
        return st;
    hid_t text = bg_string_type();
    hid_t file_space = H5Dget_space(id), memory = H5Screate_simple(row->n_dims, count, NULL);
    H5Sselect_hyperslab(file_space, H5S_SELECT_SET, start, NULL, count, NULL);
    st = bg_dataset_close_status(s, err);
    if (st == BG_OK && H5Dwrite(id, row->dtype == BG_STRING ? text : bg_memory_type(row->dtype), memory, file_space,
                                H5P_DEFAULT, data) < 0)
        st = bg_hdf5_fail(err, BG_EIO, "write \"%s\" of \"%s\"", m->path, s->path);
    if (st != BG_OK)
        s->failed = true;
    H5Sclose(memory);
    H5Sclose(file_space);
    H5Tclose(text);
    return st;
}

bg_status bg_store_write_rows(bg_store *s, const char *path, uint64_t first, uint64_t n, const void *data, bg_err *err)
{
    const bg_made_dataset *m = find_made(s, path);
    if (m == NULL)
        return BG_FAIL(err, BG_EARG, "\"%s\" was not made in \"%s\"", path, s->path);
    if (first > m->dims[0] || n > m->dims[0] - first)
        return BG_FAIL(err, BG_ESHAPE,
                       "rows %" PRIu64 " to %" PRIu64 " are beyond the %" PRIu64 " rows of \"%s\" of \"%s\"", first,
                       first + n, m->dims[0], path, s->path);
    if (n == 0 || is_empty(m->row, m->dims))
        return BG_OK;
    return write_selection(s, m, first, n, data, err);
}

bg_status bg_store_write(bg_store *s, const char *path, const uint64_t *dims, const void *data, bg_err *err)
{
    bg_status st = bg_store_dataset(s, path, dims, err);
    if (st == BG_OK)
        st = bg_store_write_rows(s, path, 0, dims[0], data, err);
    return st;
}

/* ---- fewer rows ---- */

static bg_status cut_dataset(bg_store *s, bg_made_dataset *m, uint64_t rows, bg_err *err)
{
    hid_t id;
    bg_status st = bg_dataset_open(s, m->path, &id, err);
    m->dims[0] = rows;
    const hsize_t shape[3] = { m->dims[0], m->dims[1], m->dims[2] };
    if (st == BG_OK && H5Dset_extent(id, shape) < 0)
        st = bg_hdf5_fail(err, BG_EIO, "cut \"%s\" of \"%s\"", m->path, s->path);
    if (st != BG_OK)
        s->failed = true;
    return st;
}

bg_status bg_store_cut(bg_store *s, const char *path, uint64_t rows, bg_err *err)
{
    bg_status st = BG_OK;
    for (size_t i = 0; i < s->n_made && st == BG_OK; i++)
        if (strcmp(s->made[i].row->format, s->format) == 0 && s->made[i].dims[0] > rows)
            st = cut_dataset(s, &s->made[i], rows, err);
    char *copy = st == BG_OK ? strdup(path) : NULL;
    if (st == BG_OK && copy == NULL)
        st = BG_FAIL(err, BG_ENOMEM, "out of memory to write \"%s\"", path);
    if (st != BG_OK)
        return st;
    free(s->path);
    s->path = copy;
    return BG_OK;
}

/* ---- links ---- */

bg_status bg_store_link(bg_store *s, const char *target, const char *path, bg_err *err)
{
    hid_t link = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_create_intermediate_group(link, 1);
    bg_status st = BG_OK;
    if (H5Lcreate_hard(s->file, target, s->file, path, link, H5P_DEFAULT) < 0)
        st = bg_hdf5_fail(err, BG_EIO, "link \"%s\" to \"%s\" in \"%s\"", path, target, s->path);
    H5Pclose(link);
    return st;
}

bg_status bg_store_link_external(bg_store *s, const char *file, const char *target, const char *path, bg_err *err)
{
    hid_t link = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_create_intermediate_group(link, 1);
    bg_status st = BG_OK;
    if (H5Lcreate_external(file, target, s->file, path, link, H5P_DEFAULT) < 0)
        st = bg_hdf5_fail(err, BG_EIO, "link \"%s\" to \"%s\" of \"%s\" in \"%s\"", path, target, file, s->path);
    H5Pclose(link);
    return st;
}
