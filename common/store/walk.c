#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/walk.h"
#include "bregman/path.h"

/* Groups within groups that are gone into: each takes some of the stack, and the longest path has a bound too. */
enum { MAX_DEPTH = 64 };

/* ---- what was met ---- */

/* An object's place in its file. */
typedef struct {
    uint64_t file_number;
#if H5_VERSION_GE(1, 12, 0)
    H5O_token_t at;
#else
    haddr_t at;
#endif
} place;

static int by_place(const void *a, const void *b) { return memcmp(a, b, sizeof(place)); }

/* *again [out]: it was in the set.  An object whose place cannot be told is BG_EFORMAT. */
static bg_status meet(bg_walk_met *met, uint64_t file_number, hid_t object, bool *again, bg_err *err)
{
    place *p = calloc(1, sizeof *p); /* its padding too is compared */
    if (p == NULL)
        return BG_FAIL(err, BG_ENOMEM, "out of memory for the list of objects");
    p->file_number = file_number;
#if H5_VERSION_GE(1, 12, 0)
    H5O_info2_t about;
    herr_t told = H5Oget_info3(object, &about, H5O_INFO_BASIC);
    p->at = about.token;
#else
    H5O_info_t about;
    herr_t told = H5Oget_info(object, &about);
    p->at = about.addr;
#endif
    place **found = told >= 0 ? tsearch(p, &met->tree, by_place) : NULL;
    bg_status st = told < 0        ? BG_FAIL(err, BG_EFORMAT, "an object cannot be read")
                   : found == NULL ? BG_FAIL(err, BG_ENOMEM, "out of memory for the list of objects")
                                   : BG_OK;
    *again = st == BG_OK && *found != p;
    if (st != BG_OK || *again)
        free(p);
    return st;
}

void bg_walk_forget(bg_walk_met *met)
{
    tdestroy(met->tree, free);
    met->tree = NULL;
}

/* ---- the walk ---- */

/* One group of the walk. */
typedef struct {
    bg_walk_met *met;
    uint64_t file_number;
    bg_walk_visit *visit;
    void *self;
    const char *prefix;
    int depth;
    bg_status st;
    bg_err *err;
} walk;

static bg_status walk_links(walk *w, hid_t group);

static bg_status say_unreadable(const walk *w, hid_t group, const char *name)
{
    const bg_walk_item item = {
        .kind = BG_WALK_UNREADABLE, .prefix = w->prefix, .name = name, .group = group, .object = H5I_INVALID_HID
    };
    H5Eclear2(H5E_DEFAULT);
    return w->visit(w->self, &item, w->err);
}

static bg_status go_in(const walk *w, const bg_walk_item *item)
{
    char prefix[BG_PATH_BYTES];
    if (w->depth == MAX_DEPTH || bg_path(prefix, NULL, "%s%s/", w->prefix, item->name) != BG_OK)
        return say_unreadable(w, item->group, item->name);
    walk inner = *w;
    inner.prefix = prefix;
    inner.depth++;
    return walk_links(&inner, item->object);
}

static bg_status take_object(const walk *w, bg_walk_item *item)
{
    H5I_type_t type = H5Iget_type(item->object);
    item->kind = type == H5I_DATASET ? BG_WALK_DATASET : type == H5I_GROUP ? BG_WALK_GROUP : BG_WALK_OTHER;
    bg_status st = meet(w->met, w->file_number, item->object, &item->again, w->err);
    if (st == BG_EFORMAT)
        return say_unreadable(w, item->group, item->name);
    if (st == BG_OK)
        st = w->visit(w->self, item, w->err);
    if (st == BG_OK && item->kind == BG_WALK_GROUP && !item->again)
        st = go_in(w, item);
    return st;
}

static herr_t take_link(hid_t group, const char *name, const H5L_info_t *link, void *self)
{
    walk *w = self;
    bg_walk_item item = {
        .kind = BG_WALK_LINK, .prefix = w->prefix, .name = name, .group = group, .object = H5I_INVALID_HID, .link = link
    };
    if (link->type == H5L_TYPE_SOFT || link->type == H5L_TYPE_EXTERNAL) {
        w->st = w->visit(w->self, &item, w->err);
    } else if (link->type != H5L_TYPE_HARD || (item.object = H5Oopen(group, name, H5P_DEFAULT)) < 0) {
        w->st = say_unreadable(w, group, name);
    } else {
        w->st = take_object(w, &item);
        H5Oclose(item.object);
    }
    return w->st != BG_OK; /* ends the iteration */
}

static bg_status walk_links(walk *w, hid_t group)
{
    hsize_t at = 0;
    w->st = BG_OK;
    if (H5Literate(group, H5_INDEX_NAME, H5_ITER_INC, &at, take_link, w) < 0 && w->st == BG_OK)
        w->st = say_unreadable(w, group, "");
    return w->st;
}

bg_status bg_walk_group(bg_walk_met *met, uint64_t file_number, hid_t group, const char *prefix, bg_walk_visit *visit,
                        void *self, bg_err *err)
{
    bool again;
    walk w = { .met = met, .file_number = file_number, .visit = visit, .self = self, .prefix = prefix, .err = err };
    bg_status st = meet(met, file_number, group, &again, err);
    if (st == BG_EFORMAT)
        return say_unreadable(&w, group, "");
    return st == BG_OK && !again ? walk_links(&w, group) : st;
}
