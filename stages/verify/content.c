/* content.c - an HDF5 file against the schema: format, origin, every dataset, every link. */
#include <stdlib.h>
#include <string.h>

#include "verify.h"

/* Groups within groups that are looked into; bounds the walk where links run in circles. */
enum { MAX_DEPTH = 16 };

typedef struct {
    verifying *v;
    const char *path, *format;
    hid_t file;
    bool good;
    bg_status st;                /* of the machine, not of the file */
    bg_err *err;
} walk;

static void bad(walk *w, const char *object, const char *what)
{
    verify_say(w->path, "damaged: \"%s\" %s", object, what);
    w->good = false;
}

/* ---- links ---- */

/* A damaged file could crash HDF5: a link is not followed into one that is not as published. */
static bool leads_to_published_file(walk *w, const char *target)
{
    char folder[BG_PATH_BYTES], path[BG_PATH_BYTES];
    const char *slash = strrchr(w->path, '/');
    int n = slash != NULL ? (int)(slash + 1 - w->path) : 0;
    bg_manifest m = { 0 };
    bool good = false, listed = false;
    w->st = bg_path(folder, w->err, "%.*s", n, w->path);
    if (w->st == BG_OK)
        w->st = bg_path(path, w->err, "%s%s", target[0] == '/' ? "" : folder, target);
    if (w->st == BG_OK && (slash = strrchr(path, '/')) != NULL)
        w->st = bg_path(folder, w->err, "%.*s", (int)(slash + 1 - path), path);
    if (w->st == BG_OK)
        w->st = bg_manifest_read(&m, folder[0] != '\0' ? folder : "./", w->err);
    if (w->st == BG_OK)
        w->st = verify_published(w->v, &m, path, &good, &listed, w->err);
    bg_manifest_clear(&m);
    return w->st == BG_OK && good && listed;
}

static void check_link(walk *w, hid_t group, const char *name, const char *path, const H5L_info_t *link)
{
    const char *target = NULL, *object = NULL;
    char *value = malloc(link->u.val_size + 1);
    if (value == NULL || H5Lget_val(group, name, value, link->u.val_size, H5P_DEFAULT) < 0) {
        bad(w, path, "is a link that cannot be read");
    } else if (link->type == H5L_TYPE_EXTERNAL &&
               (H5Lunpack_elink_val(value, link->u.val_size, NULL, &target, &object) < 0 || !leads_to_published_file(w, target))) {
        if (w->st == BG_OK)
            bad(w, path, "is a link to a file that is damaged, missing or not listed");
    } else {
        hid_t id = H5Oopen(group, name, H5P_DEFAULT);
        if (id < 0)
            bad(w, path, "is a link that leads nowhere");
        else
            H5Oclose(id);
    }
    free(value);
}

/* ---- the walk ---- */

static void walk_group(walk *w, hid_t group, const char *prefix, int depth)
{
    H5G_info_t info;
    char name[512], path[BG_PATH_BYTES];
    if (depth > MAX_DEPTH || H5Gget_info(group, &info) < 0) {
        bad(w, prefix, "is a group that cannot be read");
        return;
    }
    for (hsize_t i = 0; i < info.nlinks && w->st == BG_OK; i++) {
        H5L_info_t link;
        if (H5Lget_name_by_idx(group, ".", H5_INDEX_NAME, H5_ITER_INC, i, name, sizeof name, H5P_DEFAULT) < 0 ||
            H5Lget_info(group, name, &link, H5P_DEFAULT) < 0 || bg_path(path, NULL, "%s%s", prefix, name) != BG_OK) {
            bad(w, prefix, "has a link that cannot be read");
            continue;
        }
        if (link.type != H5L_TYPE_HARD) {
            check_link(w, group, name, path, &link);
            continue;
        }
        hid_t object = H5Oopen(group, name, H5P_DEFAULT);
        if (object < 0)
            bad(w, path, "cannot be opened");
        else if (H5Iget_type(object) == H5I_DATASET)
            w->good = verify_dataset(w->path, w->format, w->file, object, prefix, name) && w->good;
        else if (H5Iget_type(object) == H5I_GROUP && bg_path(path, NULL, "%s%s/", prefix, name) == BG_OK)
            walk_group(w, object, path, depth + 1);
        if (object >= 0)
            H5Oclose(object);
    }
}

/* ---- the file as a whole ---- */

/* A file that others made may lack "format": queries have completions, tokens do not. */
static bg_status format_of(const bg_store *s, char **format, bool *others, bg_err *err)
{
    bool found;
    bg_status st = bg_store_get_text(s, "/", "format", format, &found, err);
    *others = st == BG_OK && !found;
    if (!*others)
        return st;
    if (!bg_store_has(s, "token"))
        return BG_FAIL(err, BG_EFORMAT, "it has neither a format nor tokens");
    *format = strdup(bg_store_has(s, "completion_start") ? "bregman/queries" : "bregman/tokens");
    return *format != NULL ? BG_OK : BG_FAIL(err, BG_ENOMEM, "out of memory");
}

static bool is_known(const char *format)
{
    size_t n;
    const bg_schema_row *row = bg_schema_rows(&n);
    for (size_t i = 0; i < n; i++)
        if (strcmp(row[i].format, format) == 0)
            return true;
    return false;
}

static bg_status check_origin(const bg_store *s, bg_err *err)
{
    char *text = NULL;
    bg_status st = bg_store_get_text(s, "run", "fingerprint", &text, NULL, err);
    if (st == BG_OK && text[0] == '\0')
        st = BG_FAIL(err, BG_EFORMAT, "/run has an empty fingerprint");
    free(text);
    return st;
}

/* Open, with format and version known and the fingerprint there; *format is the caller's to free. */
static bg_status open_known(const char *path, bg_store **s, char **format, bg_err *err)
{
    bool others = false;
    bg_status st = bg_store_open_any(s, path, err);
    if (st == BG_OK)
        st = format_of(*s, format, &others, err);
    if (st == BG_OK && !is_known(*format))
        st = BG_FAIL(err, BG_EFORMAT, "its format \"%s\" is none of this program's", *format);
    bg_store_close(*s);
    *s = NULL;
    if (st == BG_OK)
        st = bg_store_open(s, path, *format, err);
    if (st == BG_OK && !others)
        st = check_origin(*s, err);
    return st;
}

bg_status verify_content(verifying *v, const char *path, bool *good, bg_err *err)
{
    bg_store *s = NULL;
    char *format = NULL;
    bg_err found = { 0 };
    bool same = true;
    *good = false;
    if (open_known(path, &s, &format, &found) == BG_OK) {
        walk w = { .v = v, .path = path, .format = format, .file = bg_store_file(s), .good = true, .st = BG_OK, .err = err };
        walk_group(&w, w.file, "", 0);
        if (w.st == BG_OK && v->c->inputs)
            w.st = verify_inputs(v, s, &same, err);
        found.code = w.st;
        *good = w.good && same;
    } else {
        verify_say(path, "damaged: %s", found.msg);
        found.code = BG_OK;
    }
    bg_store_close(s);
    free(format);
    return found.code;
}
