/* Dimension scales: a 1-D dataset named like its axis is the scale of that axis; an axis without
 * one gets a scale without values, as netCDF writes it. */
#include <hdf5_hl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hdf5_lib.h"
#include "scales.h"

/* Length of the group part of a path, its last slash included: 0 at the root. */
static size_t group_length(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? (size_t)(slash + 1 - path) : 0;
}

/* An axis as all datasets of the file have it. */
typedef struct {
    const char *name;
    uint64_t length; /* in the first dataset that has it */
    const bg_made_dataset *first;
    bool one_length, in_groups; /* the same in all; in more than one group */
    bool root_is_taken;         /* by a dataset of this name that is no scale of it: "document" of the token files */
} axis;

/* Names of axes are few. */
typedef struct {
    axis *axis;
    size_t n, capacity;
} axes;

static bool same_group(const bg_made_dataset *a, const bg_made_dataset *b)
{
    size_t n = group_length(a->path);
    return n == group_length(b->path) && strncmp(a->path, b->path, n) == 0;
}

static axis *find_axis(const axes *all, const char *name)
{
    for (size_t i = 0; i < all->n; i++)
        if (strcmp(all->axis[i].name, name) == 0)
            return &all->axis[i];
    return NULL;
}

static bg_status see_axis(axes *all, const bg_made_dataset *m, int d, bg_err *err)
{
    axis *a = find_axis(all, m->row->dim[d]);
    if (a != NULL) {
        a->one_length = a->one_length && a->length == m->dims[d];
        a->in_groups = a->in_groups || !same_group(a->first, m);
        return BG_OK;
    }
    if (all->n == all->capacity) {
        size_t capacity = 2 * all->capacity + 16;
        axis *more = realloc(all->axis, capacity * sizeof *more);
        if (more == NULL)
            return BG_FAIL(err, BG_ENOMEM, "out of memory for %zu axes", capacity);
        all->axis = more;
        all->capacity = capacity;
    }
    all->axis[all->n++] = (axis){ .name = m->row->dim[d], .length = m->dims[d], .first = m, .one_length = true };
    return BG_OK;
}

static bg_status list_axes(const bg_store *s, axes *all, bg_err *err)
{
    bg_status st = BG_OK;
    for (size_t i = 0; i < s->n_made && st == BG_OK; i++)
        for (int d = 0; d < s->made[i].row->n_dims && st == BG_OK; d++)
            st = see_axis(all, &s->made[i], d, err);
    for (size_t i = 0; i < s->n_made && st == BG_OK; i++) {
        const bg_made_dataset *m = &s->made[i];
        axis *a = group_length(m->path) == 0 ? find_axis(all, m->path) : NULL;
        if (a != NULL && !(m->row->n_dims == 1 && strcmp(m->row->dim[0], a->name) == 0))
            a->root_is_taken = true;
    }
    return st;
}

/* Does the root have its scale?  Only if several groups use the axis, all with one length (that of modules of different
 * width has many).  Else each group has its own. */
static bool is_shared(const axis *a) { return a->one_length && a->in_groups && !a->root_is_taken; }

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

static bg_status attach_axis(bg_store *s, const axes *all, const bg_made_dataset *m, unsigned d, bg_err *err)
{
    const char *name = m->row->dim[d];
    size_t n_group = is_shared(find_axis(all, name)) ? 0 : group_length(m->path);
    char *path = NULL;
    hid_t scale;
    if (asprintf(&path, "%.*s%s", (int)n_group, m->path, name) < 0)
        return BG_FAIL(err, BG_ENOMEM, "out of memory for the axes of \"%s\"", s->path);
    bg_status st = open_scale(s, path, m->dims[d], &scale, err);
    if (st == BG_OK) {
        hid_t id = H5Dopen2(s->file, m->path, H5P_DEFAULT);
        /* a scale cannot be attached to itself */
        if (id < 0 || H5DSset_label(id, d, name) < 0 ||
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
    axes all = { 0 };
    bg_status st = list_axes(s, &all, err);
    for (size_t i = 0; i < s->n_made && st == BG_OK; i++)
        for (int d = 0; d < s->made[i].row->n_dims && st == BG_OK; d++)
            st = attach_axis(s, &all, &s->made[i], (unsigned)d, err);
    free(all.axis);
    return st;
}
