/* Attributes, written and read. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "handle.h"
#include "hdf5_lib.h"
#include "heaps.h"

/* ---- writing ---- */

static bg_status write_scalar(bg_store *s, const char *object, const char *name, hid_t type, const void *value,
                              bg_err *err)
{
    /* an attribute is set, not added: the second value replaces the first */
    if (H5Aexists_by_name(s->file, object, name, H5P_DEFAULT) > 0)
        H5Adelete_by_name(s->file, object, name, H5P_DEFAULT);
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t id = H5Acreate_by_name(s->file, object, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    bg_status st = BG_OK;
    if (id < 0 || H5Awrite(id, type, value) < 0) {
        s->failed = true;
        st = bg_hdf5_fail(err, BG_EIO, "write attribute \"%s\" of \"%s\" in \"%s\"", name, object, s->path);
    }
    if (id >= 0)
        H5Aclose(id);
    H5Sclose(space);
    return st;
}

bg_status bg_store_attr_text(bg_store *s, const char *object, const char *name, const char *text, bg_err *err)
{
    hid_t type = bg_string_type();
    bg_status st = write_scalar(s, object, name, type, &text, err);
    H5Tclose(type);
    return st;
}

bg_status bg_store_attr_u64(bg_store *s, const char *object, const char *name, uint64_t value, bg_err *err)
{
    return write_scalar(s, object, name, H5T_NATIVE_UINT64, &value, err);
}

bg_status bg_store_attr_f64(bg_store *s, const char *object, const char *name, double value, bg_err *err)
{
    return write_scalar(s, object, name, H5T_NATIVE_DOUBLE, &value, err);
}

/* ---- reading ---- */

typedef struct {
    hid_t id, type, space;
} open_attribute;

static void attribute_close(open_attribute *a)
{
    if (a->type >= 0)
        H5Tclose(a->type);
    if (a->space >= 0)
        H5Sclose(a->space);
    if (a->id >= 0)
        H5Aclose(a->id);
}

/* Open an attribute of one value; a->id < 0 with BG_OK: it is not there and `found` says so. */
static bg_status attribute_open(const bg_store *s, const char *object, const char *name, bool *found, open_attribute *a,
                                bg_err *err)
{
    *a = (open_attribute){ H5I_INVALID_HID, H5I_INVALID_HID, H5I_INVALID_HID };
    bool there = (strcmp(object, "/") == 0 || bg_store_has(s, object)) &&
                 H5Aexists_by_name(s->file, object, name, s->access) > 0;
    H5Eclear2(H5E_DEFAULT);
    if (found != NULL)
        *found = there;
    if (!there && found != NULL)
        return BG_OK;
    if (!there)
        return BG_FAIL(err, BG_EFORMAT, "\"%s\" has no attribute \"%s\" on \"%s\"", s->path, name, object);
    a->id = H5Aopen_by_name(s->file, object, name, H5P_DEFAULT, s->access);
    if (a->id < 0)
        return bg_hdf5_fail(err, BG_EIO, "read attribute \"%s\" of \"%s\" in \"%s\"", name, object, s->path);
    a->type = H5Aget_type(a->id);
    a->space = H5Aget_space(a->id);
    if (H5Sget_simple_extent_npoints(a->space) == 1)
        return BG_OK;
    attribute_close(a);
    return BG_FAIL(err, BG_EFORMAT, "attribute \"%s\" of \"%s\" in \"%s\" is not one value", name, object, s->path);
}

static bg_status wrong_kind(const bg_store *s, const char *object, const char *name, const char *kind, bg_err *err)
{
    return BG_FAIL(err, BG_EFORMAT, "attribute \"%s\" of \"%s\" in \"%s\" is not %s", name, object, s->path, kind);
}

/* The attribute's text, on the heap; NULL on failure. */
static char *read_text(const open_attribute *a)
{
    char *text = NULL, *copy = NULL;
    if (H5Tis_variable_str(a->type) > 0) {
        if (H5Aread(a->id, a->type, &text) < 0)
            return NULL;
        copy = strdup(text != NULL ? text : "");
        H5free_memory(text);
        return copy;
    }
    /* fixed length, maybe without a closing zero */
    copy = calloc(1, H5Tget_size(a->type) + 1);
    if (copy != NULL && H5Aread(a->id, a->type, copy) < 0) {
        free(copy);
        return NULL;
    }
    return copy;
}

bg_status bg_store_get_text(const bg_store *s, const char *object, const char *name, char **text, bool *found,
                            bg_err *err)
{
    open_attribute a;
    *text = NULL;
    bg_status st = attribute_open(s, object, name, found, &a, err);
    if (st != BG_OK || a.id < 0)
        return st;
    if (H5Tget_class(a.type) != H5T_STRING)
        st = wrong_kind(s, object, name, "a text", err);
    else if (H5Tis_variable_str(a.type) > 0 && !bg_references_are_sound(a.id, H5S_ALL, H5S_ALL, 1))
        st = BG_FAIL(err, BG_EFORMAT,
                     "attribute \"%s\" of \"%s\" in \"%s\" is damaged: its text is not where it says, or not as long",
                     name, object, s->path);
    else if ((*text = read_text(&a)) == NULL)
        st = bg_hdf5_fail(err, BG_EIO, "read attribute \"%s\" of \"%s\" in \"%s\"", name, object, s->path);
    attribute_close(&a);
    return st;
}

bg_status bg_store_get_u64(const bg_store *s, const char *object, const char *name, uint64_t *value, bool *found,
                           bg_err *err)
{
    open_attribute a;
    int64_t negative = 0;
    bg_status st = attribute_open(s, object, name, found, &a, err);
    if (st != BG_OK || a.id < 0)
        return st;
    bool whole = H5Tget_class(a.type) == H5T_INTEGER;
    bool is_signed = whole && H5Tget_sign(a.type) == H5T_SGN_2;
    if (!whole)
        st = wrong_kind(s, object, name, "a whole number", err);
    else if ((is_signed && H5Aread(a.id, H5T_NATIVE_INT64, &negative) < 0) ||
             H5Aread(a.id, H5T_NATIVE_UINT64, value) < 0)
        st = bg_hdf5_fail(err, BG_EIO, "read attribute \"%s\" of \"%s\" in \"%s\"", name, object, s->path);
    else if (negative < 0)
        st = wrong_kind(s, object, name, "0 or more", err);
    else if (strcmp(object, "/") == 0 && *value < bg_schema_attribute_least(s->format, name))
        st = BG_FAIL(err, BG_EFORMAT, "attribute \"%s\" of \"%s\" is %" PRIu64 "; expected %" PRIu64 " or more", name,
                     s->path, *value, bg_schema_attribute_least(s->format, name));
    attribute_close(&a);
    return st;
}

bg_status bg_store_get_f64(const bg_store *s, const char *object, const char *name, double *value, bool *found,
                           bg_err *err)
{
    open_attribute a;
    bg_status st = attribute_open(s, object, name, found, &a, err);
    if (st != BG_OK || a.id < 0)
        return st;
    H5T_class_t kind = H5Tget_class(a.type);
    if (kind != H5T_FLOAT && kind != H5T_INTEGER)
        st = wrong_kind(s, object, name, "a number", err);
    else if (H5Aread(a.id, H5T_NATIVE_DOUBLE, value) < 0)
        st = bg_hdf5_fail(err, BG_EIO, "read attribute \"%s\" of \"%s\" in \"%s\"", name, object, s->path);
    attribute_close(&a);
    return st;
}

char *bg_hdf5_text(hid_t object, const char *name)
{
    char *text = NULL;
    if (H5Aexists(object, name) <= 0)
        return NULL;
    hid_t attribute = H5Aopen(object, name, H5P_DEFAULT);
    hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    if (H5Tget_class(type) == H5T_STRING && H5Sget_simple_extent_npoints(space) == 1) {
        if (H5Tis_variable_str(type) > 0) {
            char *lent = NULL;
            if (bg_references_are_sound(attribute, H5S_ALL, H5S_ALL, 1) && H5Aread(attribute, type, &lent) >= 0 &&
                lent != NULL)
                text = strdup(lent);
            H5free_memory(lent);
        } else if ((text = calloc(H5Tget_size(type) + 1, 1)) != NULL) {
            H5Aread(attribute, type, text);
        }
    }
    H5Sclose(space);
    H5Tclose(type);
    H5Aclose(attribute);
    return text;
}
