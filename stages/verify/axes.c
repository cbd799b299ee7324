/* axes.c - do the axes of datasets that belong together have one length? */
#include <hdf5_hl.h>
#include <inttypes.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "verify.h"

/* ---- datasets of one axis ---- */

bool verify_length_of(hid_t file, const char *prefix, const char *name, bool scale_only, hsize_t *length)
{
    char path[BG_PATH_BYTES];
    hsize_t dims[H5S_MAX_RANK];
    H5L_info_t link;
    bool found = false;
    if (bg_path(path, NULL, "%s%s", prefix, name) != BG_OK || H5Lexists(file, path, H5P_DEFAULT) <= 0 ||
        H5Lget_info(file, path, &link, H5P_DEFAULT) < 0 || link.type != H5L_TYPE_HARD)
        return false;
    hid_t id = H5Oopen(file, path, H5P_DEFAULT);
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

/* ---- axes met so far ---- */

typedef struct { char *axis, *dataset; hsize_t length; } met_axis;

static int by_axis(const void *a, const void *b)
{
    return strcmp(((const met_axis *)a)->axis, ((const met_axis *)b)->axis);
}

static void free_axis(void *node)
{
    met_axis *m = node;
    if (m != NULL) {
        free(m->axis);
        free(m->dataset);
    }
    free(m);
}

void verify_forget_axes(void **lengths)
{
    tdestroy(*lengths, free_axis);
    *lengths = NULL;
}

/* An axis that all groups of a file share; the others are of one group: modules differ in width, ragged arrays in length. */
static bool is_of_file(const char *axis)
{
    static const char *const shared[] = { "query", "sequence", "layer", "k" };
    for (size_t i = 0; i < sizeof shared / sizeof shared[0]; i++)
        if (strcmp(axis, shared[i]) == 0)
            return true;
    return false;
}

/* The first dataset that has the axis, put in if it is this one. */
static bg_status meet(const verify_place *at, const char *axis, hsize_t length, const met_axis **first, bg_err *err)
{
    met_axis *m = calloc(1, sizeof *m), **found = NULL;
    if (m != NULL && asprintf(&m->axis, "%s%s", is_of_file(axis) ? "" : at->prefix, axis) < 0)
        m->axis = NULL;
    if (m != NULL && asprintf(&m->dataset, "%s%s", at->prefix, at->name) < 0)
        m->dataset = NULL;
    if (m != NULL && m->axis != NULL && m->dataset != NULL) {
        m->length = length;
        found = tsearch(m, at->lengths, by_axis);
    }
    if (found == NULL || *found != m)
        free_axis(m);
    *first = found != NULL ? *found : NULL;
    return found != NULL ? BG_OK : BG_FAIL(err, BG_ENOMEM, "out of memory for the axes of \"%s\"", at->path);
}

/* Its scale is in the dataset's own group or in the root. */
static bool fits_scale(const verify_place *at, const char *axis, hsize_t length)
{
    hsize_t scale;
    if ((!verify_length_of(at->file, at->prefix, axis, true, &scale) && !verify_length_of(at->file, "", axis, true, &scale)) ||
        scale == length)
        return true;
    verify_say(at->path, "damaged: axis \"%s\" of \"%s%s\" has %" PRIu64 " steps, its scale %" PRIu64, axis, at->prefix, at->name,
               (uint64_t)length, (uint64_t)scale);
    return false;
}

bg_status verify_axes(const verify_place *at, const bg_schema_row *row, const hsize_t *dims, bool *good, bg_err *err)
{
    *good = true;
    /* the packed sums of work files are no arrays: the sides of a module share the name of the axis, not its length */
    if (strcmp(row->format, "bregman/work") == 0 && row->n_dims == 1 && strcmp(row->dim[0], "value") == 0)
        return BG_OK;
    for (int i = 0; i < row->n_dims && *good; i++) {
        const met_axis *first;
        bg_status st = meet(at, row->dim[i], dims[i], &first, err);
        if (st != BG_OK)
            return st;
        *good = fits_scale(at, row->dim[i], dims[i]);
        if (*good && first->length != dims[i]) {
            verify_say(at->path, "damaged: axis \"%s\" of \"%s%s\" has %" PRIu64 " steps, that of \"%s\" %" PRIu64, row->dim[i],
                       at->prefix, at->name, (uint64_t)dims[i], first->dataset, (uint64_t)first->length);
            *good = false;
        }
    }
    return BG_OK;
}
