/* walk.h - everything that the groups of an HDF5 file hold, and whether values are really there.
 *
 * A group is gone into once, whatever number of links leads to it and however they are nested; links to other places
 * and other files are named and not followed.  So a walk ends on any file, after as many steps as the file has links.
 * Local.
 */
#ifndef BG_WALK_H
#define BG_WALK_H

#include <hdf5.h>
#include <stdbool.h>
#include <stdint.h>

#include "bregman/status.h"

typedef enum {
    BG_WALK_DATASET,
    BG_WALK_GROUP,     /* what it holds comes next, unless `again` */
    BG_WALK_LINK,      /* soft or external */
    BG_WALK_OTHER,     /* a named type, or something that this library does not know */
    BG_WALK_UNREADABLE /* a damaged link, object or group, or groups nested too deep */
} bg_walk_kind;

typedef struct {
    bg_walk_kind kind;
    const char *prefix, *name; /* the path of the link's group, "" or "a/b/"; the link's name, "" if it is the group */
    hid_t group, object;       /* lent; object < 0 for links and what is unreadable */
    const H5L_info_t *link;    /* NULL if unreadable */
    bool again;                /* the object has been met under another name */
} bg_walk_item;

/* The objects met so far, in one file or several.  { NULL } is an empty set. */
typedef struct {
    void *tree;
} bg_walk_met;
void bg_walk_forget(bg_walk_met *met);

/* Call visit for every link below a group, in the order of names; not at all if the group has been met.
 *   met [in,out]     grows by the group and all below it
 *   file_number [in] tells the files of one set apart, an inode say
 *   prefix [in]      what the paths begin with: "" or with its last slash
 * Errors: those of visit, which end the walk; BG_ENOMEM. */
typedef bg_status bg_walk_visit(void *self, const bg_walk_item *item, bg_err *err);
bg_status bg_walk_group(bg_walk_met *met, uint64_t file_number, hid_t group, const char *prefix, bg_walk_visit *visit,
                        void *self, bg_err *err) BG_MUST_CHECK;

#endif /* BG_WALK_H */
