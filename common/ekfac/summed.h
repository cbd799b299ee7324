/* summed.h - a dataset of a site's sums, to a unit's file or from one. */
#ifndef BG_SUMMED_H
#define BG_SUMMED_H

#include "bregman/path.h"
#include "bregman/site.h"
#include "bregman/store.h"

typedef struct {
    const char *name;
    bg_dtype type;
    uint64_t dims[2];
    void *data;
} bg_summed;

/* Write it to `to`; where that is NULL, read it from `from`. */
static inline bg_status bg_summed_move(const bg_site *site, const bg_summed *x, bg_store *to, const bg_store *from,
                                       bg_err *err)
{
    char path[BG_PATH_BYTES];
    bg_status st = bg_path(path, err, "%s/%s", site->name, x->name);
    if (st != BG_OK)
        return st;
    return to != NULL ? bg_store_write(to, path, x->dims, x->data, err)
                      : bg_store_read(from, path, x->type, x->dims, x->data, err);
}

#endif /* BG_SUMMED_H */
