/* inspect_file.c - an HDF5 file's format, origin and datasets. */
#include <hdf5.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "bregman/store.h"
#include "bregman/walk.h"
#include "inspect.h"

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

/* ---- the groups ---- */

/* A file's groups on their way to the page, or those that a link of a folder's index leads to in one of its files. */
typedef struct {
    FILE *to;
    const char *path;
    bool is_index; /* links into the files of blocks are followed, those of any other file are shown */
    bg_walk_met *met;
} listing;

static bg_status print_item(void *self, const bg_walk_item *item, bg_err *err);

static uint64_t file_number(const char *path)
{
    struct stat about;
    return stat(path, &about) == 0 ? (uint64_t)about.st_ino : 0;
}

/* Factors: index.h5 has links into the block-NNN.h5 beside it. */
static bool leads_to_block(const listing *l, const char *file)
{
    return l->is_index && strncmp(file, "block-", strlen("block-")) == 0 && strchr(file, '/') == NULL;
}

/* What a link of the index leads to, opened as any other file: with its heaps checked and without a lock. */
static bg_status print_linked(const listing *l, const char *name, const char *file, const char *object, bg_err *err)
{
    char path[BG_PATH_BYTES], prefix[BG_PATH_BYTES];
    const char *slash = strrchr(l->path, '/');
    listing inner = { .to = l->to, .path = path, .met = l->met };
    bg_store *s = NULL;
    hid_t id = H5I_INVALID_HID;
    bg_status st = bg_path(path, err, "%.*s%s", slash == NULL ? 0 : (int)(slash + 1 - l->path), l->path, file);
    if (st == BG_OK)
        st = bg_path(prefix, err, "%s/", name);
    if (st != BG_OK)
        return st;
    if (bg_store_open_any(&s, path, NULL) == BG_OK)
        id = H5Oopen(bg_store_file(s), object, H5P_DEFAULT);
    if (id < 0)
        fprintf(l->to, "  %s  is missing or damaged\n", name);
    else if (H5Iget_type(id) == H5I_DATASET)
        print_dataset(l->to, id, name);
    else if (H5Iget_type(id) == H5I_GROUP)
        st = bg_walk_group(l->met, file_number(path), id, prefix, print_item, &inner, err);
    if (id >= 0)
        H5Oclose(id);
    bg_store_close(s);
    return st;
}

/* Where a link to another file, or to another place in this one, leads. */
static bg_status print_link(const listing *l, const bg_walk_item *item, bg_err *err)
{
    size_t n = item->link->u.val_size;
    char *value = calloc(n + 1, 1);
    const char *file = NULL, *object = NULL;
    bg_status st = BG_OK;
    fprintf(l->to, "  %s%s  ", item->prefix, item->name);
    if (value == NULL || H5Lget_val(item->group, item->name, value, n, H5P_DEFAULT) < 0 ||
        (item->link->type == H5L_TYPE_EXTERNAL && H5Lunpack_elink_val(value, n, NULL, &file, &object) < 0))
        fputs("a link that cannot be read\n", l->to);
    else if (file == NULL)
        fprintf(l->to, "-> %s\n", value);
    else
        fprintf(l->to, "-> %s of %s\n", object, file);
    if (file != NULL && item->prefix[0] == '\0' && leads_to_block(l, file))
        st = print_linked(l, item->name, file, object, err);
    free(value);
    return st;
}

static bg_status print_item(void *self, const bg_walk_item *item, bg_err *err)
{
    const listing *l = self;
    char path[BG_PATH_BYTES];
    bool has_path = bg_path(path, NULL, "%s%s", item->prefix, item->name) == BG_OK;
    if (item->kind == BG_WALK_LINK)
        return print_link(l, item, err);
    if (item->kind == BG_WALK_DATASET && has_path)
        print_dataset(l->to, item->object, path);
    else if (item->kind == BG_WALK_GROUP && item->again)
        fprintf(l->to, "  %s%s  is another name of a group above\n", item->prefix, item->name);
    else if (item->kind == BG_WALK_UNREADABLE)
        fprintf(l->to, "  %s%s  is missing, damaged or nested too deep\n", item->prefix, item->name);
    return BG_OK;
}

/* ---- the file ---- */

/* Is it there, and in this file? */
static bool has_own(const bg_store *s, const char *path)
{
    H5L_info_t link;
    return bg_store_has(s, path) && H5Lget_info(bg_store_file(s), path, &link, H5P_DEFAULT) >= 0 &&
           link.type == H5L_TYPE_HARD;
}

/* What the file was made from: the texts of /run/input_name and /run/input_hash. */
static void print_inputs(FILE *to, const bg_store *s)
{
    char **name = NULL, **hash = NULL;
    size_t n = 0, m = 0;
    if (has_own(s, "run/input_name") && has_own(s, "run/input_hash") &&
        bg_store_read_strings(s, "run/input_name", &name, &n, NULL) == BG_OK &&
        bg_store_read_strings(s, "run/input_hash", &hash, &m, NULL) == BG_OK && n == m)
        for (size_t i = 0; i < n; i++)
            fprintf(to, "  input            %s  %s\n", hash[i], name[i]);
    bg_strings_free(name, n);
    bg_strings_free(hash, m);
}

/* The root's attributes and those of /run. */
static void print_origin(FILE *to, const bg_store *s)
{
    fprintf(to, "%s\n", bg_store_path(s));
    print_attributes(to, bg_store_file(s));
    hid_t run = has_own(s, "run") ? H5Oopen(bg_store_file(s), "run", H5P_DEFAULT) : H5I_INVALID_HID;
    if (run < 0)
        return;
    fputs("\n made by\n", to);
    print_attributes(to, run);
    H5Oclose(run);
    print_inputs(to, s);
}

bg_status inspect_file(FILE *to, const char *path, bg_err *err)
{
    bg_store *s;
    bg_walk_met met = { NULL };
    listing l = { .to = to, .path = path, .met = &met };
    bg_status st = bg_store_open_any(&s, path, err);
    if (st != BG_OK)
        return st;
    print_origin(to, s);
    char *format = bg_hdf5_text(bg_store_file(s), "format");
    l.is_index = format != NULL && strcmp(format, "bregman/factors") == 0;
    free(format);
    fputs("\n datasets\n", to);
    st = bg_walk_group(&met, file_number(path), bg_store_file(s), "", print_item, &l, err);
    bg_walk_forget(&met);
    bg_store_close(s);
    return st;
}
