/* deal.h - units of work that a rank does alone, dealt out to all ranks in turn, resumably.
 *
 * A unit's file (units.h) says that it is done, whoever has done it.  Two attempts of one call may run at once: what
 * the other has finished meanwhile is passed over.
 */
#ifndef BG_DEAL_H
#define BG_DEAL_H

#include "bregman/context.h"
#include "bregman/notice.h"
#include "bregman/units.h"

/* All pointers are lent. */
typedef struct {
    const char *what, *unit; /* for progress lines: "trainings", "models" */
    const bg_units *units;   /* of one group, the whole model */
    uint64_t begin;          /* the first in turn, below their number; attempts side by side begin elsewhere */
    void *self;
    /* Do a unit and publish its file.  Local.  A long one asks bg_stop_heard(notice), and returns BG_ESTOPPED. */
    bg_status (*run)(void *self, uint64_t unit, bg_notice *notice, bg_err *err);
} bg_deal;

/* All units that are not there.  A rank does at least one before it hears of a stop, so that a job which is stopped
 * again and again ends; when one fails, the others end after the unit in hand.  Collective on ctx->grid.world; an
 * agreed status. */
bg_status bg_deal_run(const bg_deal *d, const bg_context *ctx, bg_err *err) BG_MUST_CHECK;

#endif /* BG_DEAL_H */
