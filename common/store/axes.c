/* Dimension scales: a 1-D dataset named like its axis is the scale of that axis; an axis without
 * one gets a scale without values, as netCDF writes it. */
#include <hdf5_hl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"

/* Length of the group part of a path, its last slash included: 0 at the root. */
static size_t group_length(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? (size_t)(slash + 1 - path) : 0;
}

static bool is_axis_name(const bg_made_dataset *m, const char *axis)
{
    return strcmp(m->path + group_length(m->path), axis) == 0;
}

static bool same_group(const bg_made_dataset *a, const bg_made_dataset *b)
{
    size_t n = group_length(a->path);
    return n == group_length(b->path) && strncmp(a->path, b->path, n) == 0;
}

/* Does the root have the scale of this axis of m?  Only if other groups use the axis too, all with
 * one length (that of modules of different width has many), and no other dataset of the root has its
 * name ("document" of the token files).  Else it is m's group. */
static bool is_shared(const bg_store *s, const bg_made_dataset *m, const char *axis, uint64_t length)
{
    bool elsewhere = false;
    for (size_t i = 0; i < s->n_made; i++) {
        const bg_made_dataset *other = &s->made[i];
        bool along = other->row->n_dims == 1 && strcmp(other->row->dim[0], axis) == 0;
        if (group_length(other->path) == 0 && is_axis_name(other, axis) && !along)
            return false;
        for (int d = 0; d < other->row->n_dims; d++)
            if (strcmp(other->row->dim[d], axis) == 0) {
                if (other->dims[d] != length)
                    return false;
                elsewhere = elsewhere || !same_group(other, m);
            }
    }
    return elsewhere;
}

static bg_status axis_fail(bg_store *s, const char *path, bg_err *err)
{
    s->failed = true;
    return bg_hdf5_fail(err, BG_EIO, "write axis \"%s\" of \"%s\"", path, s->path);
}

/* A scale of this length without values: its single chunk is never written. */
static bg_status make_bare_scale(bg_store *s, const char *path, uint64_t length, bg_err *err)
{
    hsize_t shape[1] = { length };
    char name[80];
    snprintf(name, sizeof name, "This is a netCDF dimension but not a netCDF variable. %10" PRIu64, length);
    hid_t space = H5Screate_simple(1, shape, NULL);
    hid_t create = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_obj_track_times(create, false);
    hsize_t chunk[1] = { length < UINT32_C(1) << 20 ? length : UINT32_C(1) << 20 };
    if (length > 0)
        H5Pset_chunk(create, 1, chunk);
    hid_t id = H5Dcreate2(s->file, path, H5T_IEEE_F32BE, space, H5P_DEFAULT, create, H5P_DEFAULT);
    bg_status st = id < 0 || H5DSset_scale(id, name) < 0 ? axis_fail(s, path, err) : BG_OK;
    if (id >= 0)
        H5Dclose(id);
    H5Pclose(create);
    H5Sclose(space);
    if (st == BG_OK)
        st = bg_store_attr_text(s, path, "description", "axis without coordinates (no values are stored)", err);
    if (st == BG_OK)
        st = bg_store_attr_text(s, path, "units", "1", err);
    return st;
}

/* Open the scale of an axis, making what is missing. */
static bg_status open_scale(bg_store *s, const char *path, uint64_t length, hid_t *scale, bg_err *err)
{
    bg_status st = BG_OK;
    if (!bg_store_has(s, path))
        st = make_bare_scale(s, path, length, err);
    if (st != BG_OK)
        return st;
    *scale = H5Dopen2(s->file, path, H5P_DEFAULT);
    if (*scale >= 0 && (H5DSis_scale(*scale) > 0 || H5DSset_scale(*scale, path) >= 0))
        return BG_OK;
    st = axis_fail(s, path, err);
    if (*scale >= 0)
        H5Dclose(*scale);
    return st;
}

static bg_status attach_axis(bg_store *s, const bg_made_dataset *m, unsigned d, bg_err *err)
{
    const char *axis = m->row->dim[d];
    size_t n_group = is_shared(s, m, axis, m->dims[d]) ? 0 : group_length(m->path);
    char *path = NULL;
    hid_t scale;
    if (asprintf(&path, "%.*s%s", (int)n_group, m->path, axis) < 0)
        return BG_FAIL(err, BG_ENOMEM, "out of memory for the axes of \"%s\"", s->path);
    bg_status st = open_scale(s, path, m->dims[d], &scale, err);
    if (st == BG_OK) {
        hid_t id = H5Dopen2(s->file, m->path, H5P_DEFAULT);
        /* a scale cannot be attached to itself */
        if (id < 0 || H5DSset_label(id, d, axis) < 0 ||
            (strcmp(path, m->path) != 0 && H5DSattach_scale(id, scale, d) < 0))
            st = axis_fail(s, path, err);
        if (id >= 0)
            H5Dclose(id);
        H5Dclose(scale);
    }
    free(path);
    return st;
}

bg_status bg_axes_attach(bg_store *s, bg_err *err)
{
    bg_status st = BG_OK;
    for (size_t i = 0; i < s->n_made && st == BG_OK; i++)
        for (int d = 0; d < s->made[i].row->n_dims && st == BG_OK; d++)
            st = attach_axis(s, &s->made[i], (unsigned)d, err);
    return st;
}
