/* content.c - an HDF5 file against the schema: format, origin, every dataset, every link. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bregman/factor_kind.h"
#include "bregman/walk.h"
#include "verify.h"

typedef struct {
    verifying *v;
    const char *path, *format;
    const bg_store *store;
    bool good;
    bg_status st; /* of the machine, not of the file */
    bg_err *err, said;
} walk;

static void bad(walk *w, const char *object, const char *what)
{
    verify_say(w->path, "damaged: \"%s\" %s", object, what);
    w->good = false;
}

/* The values of a dataset of several names are read once. */
static void check_dataset(walk *w, hid_t id, const bg_walk_item *item)
{
    const verify_place at = { w->path, w->format, w->store, item->prefix, item->name, &w->said };
    w->good = verify_dataset(&at, id, item->again || item->kind == BG_WALK_LINK) && w->good;
}

/* A group or a type must not have the name of a dataset. */
static void check_other(walk *w, const char *path)
{
    if (bg_schema_find(w->format, path) != NULL)
        bad(w, path, "is no dataset, as its format has one of this name");
}

/* ---- links ---- */

/* A damaged file could crash HDF5: a link is not followed into one that is not as published.  target: beside this file.
 */
static bool leads_to_published_file(walk *w, const char *target)
{
    char folder[BG_PATH_BYTES], path[BG_PATH_BYTES];
    const char *slash = strrchr(w->path, '/');
    int n = slash != NULL ? (int)(slash + 1 - w->path) : 0;
    bg_manifest m = { 0 };
    bool good = false, listed = false;
    w->st = bg_path(folder, w->err, "%.*s", n, w->path);
    if (w->st == BG_OK)
        w->st = bg_path(path, w->err, "%s%s", folder, target);
    if (w->st == BG_OK)
        w->st = bg_manifest_read(&m, folder[0] != '\0' ? folder : "./", w->err);
    if (w->st == BG_OK)
        w->st = verify_published(w->v, &m, path, &good, &listed, w->err);
    bg_manifest_clear(&m);
    return w->st == BG_OK && good && listed;
}

/* A link from another file could crash HDF5: not followed on the way of a link within this one. */
static herr_t stay_here(const char *file, const char *group, const char *other, const char *object, unsigned *flags,
                        hid_t access, void *self)
{
    (void)file, (void)group, (void)other, (void)object, (void)flags, (void)access, (void)self;
    return -1;
}

/* The values of a dataset under another name are seen to there, but they are to fit this name too. */
static void check_soft(walk *w, const bg_walk_item *item, const char *path)
{
    hid_t access = H5Pcreate(H5P_LINK_ACCESS);
    H5Pset_elink_cb(access, stay_here, NULL);
    hid_t id = H5Oopen(item->group, item->name, access);
    if (id < 0)
        bad(w, path, "is a link that leads nowhere");
    else if (H5Iget_type(id) == H5I_DATASET)
        check_dataset(w, id, item);
    else
        check_other(w, path);
    if (id >= 0)
        H5Oclose(id);
    H5Pclose(access);
}

/* Only the index of factors has links into other files: those of the blocks beside it. */
static void check_external(walk *w, const bg_walk_item *item, const char *path, const char *target)
{
    if (strcmp(w->format, "bregman/factors") != 0 || strchr(target, '/') != NULL) {
        bad(w, path, "is a link into another file, which no hash of this one covers");
    } else if (!leads_to_published_file(w, target)) {
        if (w->st == BG_OK)
            bad(w, path, "is a link to a file that is damaged, missing or not listed");
    } else {
        hid_t id = H5Oopen(item->group, item->name, H5P_DEFAULT);
        if (id < 0)
            bad(w, path, "is a link that leads nowhere");
        else
            H5Oclose(id);
    }
}

static void check_link(walk *w, const bg_walk_item *item, const char *path)
{
    const char *target = NULL, *object = NULL;
    size_t n = item->link->u.val_size;
    char *value = calloc(n + 1, 1);
    if (value == NULL || H5Lget_val(item->group, item->name, value, n, H5P_DEFAULT) < 0 ||
        (item->link->type == H5L_TYPE_EXTERNAL && H5Lunpack_elink_val(value, n, NULL, &target, &object) < 0))
        bad(w, path, "is a link that cannot be read");
    else if (target != NULL)
        check_external(w, item, path, target);
    else
        check_soft(w, item, path);
    free(value);
}

/* ---- the walk ---- */

static bg_status check_item(void *self, const bg_walk_item *item, bg_err *err)
{
    walk *w = self;
    char path[BG_PATH_BYTES];
    (void)err;
    if (bg_path(path, NULL, "%s%s", item->prefix, item->name) != BG_OK)
        bad(w, item->prefix, "has a link that cannot be read");
    else if (item->kind == BG_WALK_LINK)
        check_link(w, item, path);
    else if (item->kind == BG_WALK_DATASET)
        check_dataset(w, item->object, item);
    else if (item->kind == BG_WALK_GROUP && item->again)
        bad(w, path, "is a group that has another name too");
    else if (item->kind == BG_WALK_GROUP || item->kind == BG_WALK_OTHER)
        check_other(w, path);
    else if (item->kind == BG_WALK_UNREADABLE)
        bad(w, path, "cannot be opened, or is nested too deep");
    return w->st;
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

/* Attributes of the root that are words. */
static bg_status check_words(const bg_store *s, const char *format, bg_err *err)
{
    bg_factor_kind kind;
    return strcmp(format, "bregman/factors") == 0 ? bg_factor_kind_read(s, &kind, err) : BG_OK;
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
    return st == BG_OK ? check_words(*s, *format, err) : st;
}

static bg_status read_all(verifying *v, const char *path, bool *good, bg_err *err)
{
    bg_store *s = NULL;
    char *format = NULL;
    bg_err found = { 0 };
    bool same = true;
    *good = false;
    if (open_known(path, &s, &format, &found) == BG_OK) {
        walk w = { .v = v, .path = path, .format = format, .store = s, .good = true, .st = BG_OK, .err = err };
        bg_walk_met met = { NULL };
        w.st = bg_walk_group(&met, 0, bg_store_file(s), "", check_item, &w, err);
        bg_walk_forget(&met);
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

/* ---- a file that nobody vouches for ---- */

/* What a process that reads such a file has found, beside what it has printed. */
typedef struct {
    bg_status st;
    bool good;
    bg_err err;
} answer;

/* In a process of its own, which the HDF5 library may bring down or leave with a broken heap: it ends without cleaning
 * up. */
static void answer_to(int fd, verifying *v, const char *path)
{
    static const int fatal[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT };
    answer a = { BG_OK, false, { 0 } };
    for (size_t i = 0; i < sizeof fatal / sizeof *fatal; i++)
        signal(fatal[i], SIG_DFL);
    a.st = read_all(v, path, &a.good, &a.err);
    fflush(stdout);
    _exit(write(fd, &a, sizeof a) == (ssize_t)sizeof a ? 0 : 1);
}

static bg_status read_apart(verifying *v, const char *path, bool *good, bg_err *err)
{
    int way[2], status = 0;
    answer a = { BG_OK, false, { 0 } };
    *good = false;
    if (pipe(way) != 0)
        return BG_FAIL(err, BG_EIO, "cannot read %s in a process of its own: %s", path, strerror(errno));
    fflush(NULL);
    pid_t child = fork();
    if (child == 0)
        answer_to(way[1], v, path);
    if (child < 0)
        a.st = BG_FAIL(&a.err, BG_EIO, "cannot read %s in a process of its own: %s", path, strerror(errno));
    close(way[1]);
    bool answered = child < 0 || read(way[0], &a, sizeof a) == (ssize_t)sizeof a;
    close(way[0]);
    if (child > 0)
        waitpid(child, &status, 0);
    if (!answered)
        verify_say(path, "damaged: the HDF5 library fails when it reads this (%s)",
                   WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "no signal");
    *good = a.good;
    *err = a.err;
    return a.st;
}

bg_status verify_content(verifying *v, const char *path, bool listed, bool *good, bg_err *err)
{
    return listed ? read_all(v, path, good, err) : read_apart(v, path, good, err);
}
