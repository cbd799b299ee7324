/* inspect_file.c - an HDF5 file's format, origin and datasets. */
#include <errno.h>
#include <hdf5.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bregman/store.h"
#include "inspect.h"

/* Groups within groups that are still listed; bounds the walk where links run in circles. */
enum { MAX_DEPTH = 16 };

/* One attribute a line: text and numbers of one element; others are left out. */
static herr_t print_attribute(hid_t object, const char *name, const H5A_info_t *info, void *to)
{
    (void)info;
    char *text = bg_hdf5_text(object, name);
    if (text != NULL) {
        fprintf(to, "  %-16s %s\n", name, text);
        free(text);
        return 0;
    }
    hid_t attribute = H5Aopen(object, name, H5P_DEFAULT);
    hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    H5T_class_t class = H5Tget_class(type);
    int64_t whole = 0;
    double number = 0;
    if (H5Sget_simple_extent_npoints(space) == 1) {
        if (class == H5T_INTEGER && H5Aread(attribute, H5T_NATIVE_INT64, &whole) >= 0)
            fprintf(to, "  %-16s %" PRId64 "\n", name, whole);
        else if (class == H5T_FLOAT && H5Aread(attribute, H5T_NATIVE_DOUBLE, &number) >= 0)
            fprintf(to, "  %-16s %.9g\n", name, number);
    }
    H5Sclose(space);
    H5Tclose(type);
    H5Aclose(attribute);
    return 0;
}

static void print_attributes(FILE *to, hid_t object)
{
    hsize_t from = 0;
    H5Aiterate2(object, H5_INDEX_NAME, H5_ITER_INC, &from, print_attribute, to);
}

/* "uint32", "float64", "text" ... */
static void print_type(FILE *to, hid_t dataset)
{
    hid_t type = H5Dget_type(dataset);
    size_t bits = 8 * H5Tget_size(type);
    switch (H5Tget_class(type)) {
    case H5T_INTEGER: fprintf(to, "%sint%zu", H5Tget_sign(type) == H5T_SGN_NONE ? "u" : "", bits); break;
    case H5T_FLOAT: fprintf(to, "float%zu", bits); break;
    case H5T_STRING: fprintf(to, "text"); break;
    default: fprintf(to, "other"); break;
    }
    H5Tclose(type);
}

static void print_dataset(FILE *to, hid_t dataset, const char *path)
{
    hsize_t dims[H5S_MAX_RANK];
    hid_t space = H5Dget_space(dataset);
    int n_dims = H5Sget_simple_extent_dims(space, dims, NULL);
    H5Sclose(space);
    fprintf(to, "  %s  ", path);
    print_type(to, dataset);
    fputs(" [", to);
    for (int d = 0; d < n_dims; d++)
        fprintf(to, "%s%" PRIu64, d > 0 ? ", " : "", (uint64_t)dims[d]);
    fputc(']', to);
    char *units = bg_hdf5_text(dataset, "units"), *description = bg_hdf5_text(dataset, "description");
    if (units != NULL && strcmp(units, "1") != 0)
        fprintf(to, " %s", units);
    fprintf(to, "%s%s\n", description != NULL ? ": " : "", description != NULL ? description : "");
    free(units);
    free(description);
}

/* Where a link to another file, or to another place in this one, leads. */
static void print_link(FILE *to, hid_t group, const char *name, const char *path, const H5L_info_t *link)
{
    char *value = malloc(link->u.val_size + 1);
    const char *file = NULL, *object = NULL;
    if (value == NULL || H5Lget_val(group, name, value, link->u.val_size, H5P_DEFAULT) < 0)
        fprintf(to, "  %s  a link that cannot be read\n", path);
    else if (link->type == H5L_TYPE_EXTERNAL && H5Lunpack_elink_val(value, link->u.val_size, NULL, &file, &object) >= 0)
        fprintf(to, "  %s  -> %s of %s\n", path, object, file);
    else
        fprintf(to, "  %s  -> %.*s\n", path, (int)link->u.val_size, value);
    free(value);
}

static void print_group(FILE *to, hid_t group, const char *prefix, int depth)
{
    H5G_info_t info;
    char name[512], path[BG_PATH_BYTES];
    if (depth > MAX_DEPTH || H5Gget_info(group, &info) < 0)
        return;
    for (hsize_t i = 0; i < info.nlinks; i++) {
        H5L_info_t link;
        if (H5Lget_name_by_idx(group, ".", H5_INDEX_NAME, H5_ITER_INC, i, name, sizeof name, H5P_DEFAULT) < 0 ||
            H5Lget_info(group, name, &link, H5P_DEFAULT) < 0 || bg_path(path, NULL, "%s%s", prefix, name) != BG_OK)
            continue;
        if (link.type != H5L_TYPE_HARD)
            print_link(to, group, name, path, &link);
        hid_t object = H5Oopen(group, name, H5P_DEFAULT);
        if (object < 0) {
            fprintf(to, "  %s  is missing or damaged\n", path);
            continue;
        }
        if (H5Iget_type(object) == H5I_DATASET)
            print_dataset(to, object, path);
        else if (H5Iget_type(object) == H5I_GROUP && bg_path(path, NULL, "%s%s/", prefix, name) == BG_OK)
            print_group(to, object, path, depth + 1);
        H5Oclose(object);
    }
}

/* What the file was made from: the texts of /run/input_name and /run/input_hash. */
static void print_inputs(FILE *to, const char *path, const char *format)
{
    bg_store *s = NULL;
    char **name = NULL, **hash = NULL;
    size_t n = 0, m = 0;
    if (bg_store_open(&s, path, format, NULL) == BG_OK && bg_store_has(s, "run/input_name") &&
        bg_store_read_strings(s, "run/input_name", &name, &n, NULL) == BG_OK &&
        bg_store_read_strings(s, "run/input_hash", &hash, &m, NULL) == BG_OK && n == m)
        for (size_t i = 0; i < n; i++)
            fprintf(to, "  input            %s  %s\n", hash[i], name[i]);
    bg_strings_free(name, n);
    bg_strings_free(hash, m);
    bg_store_close(s);
}

/* The root's attributes and those of /run; *format is the caller's to free. */
static bg_status print_origin(FILE *to, const char *path, char **format, bg_err *err)
{
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (file < 0)
        return BG_FAIL(err, BG_EFORMAT, "'%s' is neither a directory nor a readable HDF5 file", path);
    fprintf(to, "%s\n", path);
    *format = bg_hdf5_text(file, "format");
    print_attributes(to, file);
    if (H5Lexists(file, "run", H5P_DEFAULT) > 0) {
        hid_t run = H5Oopen(file, "run", H5P_DEFAULT);
        fputs("\n made by\n", to);
        print_attributes(to, run);
        H5Oclose(run);
    }
    H5Fclose(file);
    return BG_OK;
}

bg_status inspect_file(FILE *to, const char *path, bg_err *err)
{
    char *format = NULL;
    if (access(path, R_OK) != 0)
        return BG_FAIL(err, BG_EIO, "cannot read '%s': %s", path, strerror(errno));
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    bg_status st = print_origin(to, path, &format, err);
    if (st != BG_OK)
        return st;
    /* in turn: HDF5 refuses to open a file twice with the store's own settings and the default ones */
    if (format != NULL)
        print_inputs(to, path, format);
    free(format);
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (file < 0)
        return BG_FAIL(err, BG_EIO, "cannot read '%s' again", path);
    fputs("\n datasets\n", to);
    print_group(to, file, "", 0);
    H5Fclose(file);
    return BG_OK;
}
