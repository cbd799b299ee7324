/* axes.c - are axes as long as their dimension scales? */
#include <hdf5_hl.h>
#include <inttypes.h>

#include "verify.h"

/* The length of the scale PREFIX/NAME in this file; false if there is none. */
static bool length_of(hid_t file, const char *prefix, const char *name, hsize_t *length)
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
    if (H5Iget_type(id) == H5I_DATASET && H5DSis_scale(id) > 0) {
        hid_t space = H5Dget_space(id);
        found = H5Sget_simple_extent_ndims(space) == 1 && H5Sget_simple_extent_dims(space, dims, NULL) == 1;
        H5Sclose(space);
    }
    H5Oclose(id);
    if (found)
        *length = dims[0];
    return found;
}

/* Its scale is in the dataset's own group or in the root. */
static bool fits_scale(const verify_place *at, const char *axis, hsize_t length)
{
    hsize_t scale;
    if ((!length_of(at->file, at->prefix, axis, &scale) && !length_of(at->file, "", axis, &scale)) ||
        scale == length)
        return true;
    verify_say(at->path, "damaged: axis \"%s\" of \"%s%s\" has %" PRIu64 " steps, its scale %" PRIu64, axis, at->prefix, at->name,
               (uint64_t)length, (uint64_t)scale);
    return false;
}

bool verify_scales(const verify_place *at, const bg_schema_row *row, const hsize_t *dims)
{
    bool good = true;
    for (int i = 0; i < row->n_dims && good; i++)
        good = fits_scale(at, row->dim[i], dims[i]);
    return good;
}
