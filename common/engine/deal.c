#include "bregman/deal.h"

#include <inttypes.h>

#include "bregman/log.h"
#include "bregman/memory.h"
#include "bregman/stop.h"

/* done [out, on all ranks]: to be freed with bg_free.  n_done: how many. */
static bg_status find(const bg_deal *d, const bg_grid *g, bool **done, uint64_t *n_done, bg_err *err)
{
    uint64_t n = bg_units_count(d->units), *part = NULL;
    bg_status st = BG_NEW(*done, n, "work units", err);
    if (st == BG_OK && g->world_rank == 0)
        st = BG_NEW(part, n, "work units", err);
    if (st == BG_OK && g->world_rank == 0)
        st = bg_units_find(d->units, *done, part, err);
    bg_free(part);
    *n_done = 0;
    if ((st = bg_agree(g->world, st, err)) != BG_OK)
        return st;
    bg_broadcast(g->world, *done, n * sizeof **done, 0);
    for (uint64_t i = 0; i < n; i++)
        *n_done += (*done)[i];
    if (*n_done > 0)
        bg_log("%s: going on, %" PRIu64 " of %" PRIu64 " %s are done", d->what, *n_done, n, d->unit);
    return BG_OK;
}

static bool has(const bg_units *u, uint64_t unit)
{
    return bg_units_has(u, &(bg_segment){ unit, BG_WHOLE_MODEL, 0, bg_units_size(u, unit) });
}

/* This rank's. */
static bg_status do_own(const bg_deal *d, const bg_grid *g, const bool *done, bg_notice *notice, bg_progress *p,
                        bg_err *err)
{
    uint64_t n = bg_units_count(d->units), dealt = 0, mine = 0;
    bg_status st = BG_OK;
    for (uint64_t i = 0; i < n && st == BG_OK; i++) {
        uint64_t unit = (d->begin + i) % n;
        if (done[unit])
            continue;
        if (dealt++ % (uint64_t)g->world_size == (uint64_t)g->world_rank) {
            if (bg_stop_heard(notice) && mine > 0)
                st = BG_FAIL(err, BG_ESTOPPED, "%s: stopped on request; finished %s are kept", d->what, d->unit);
            else if (!has(d->units, unit))
                st = d->run(d->self, unit, notice, err);
            mine++;
        }
        bg_progress_update(p, p->first + dealt);
    }
    return st;
}

bg_status bg_deal_run(const bg_deal *d, const bg_context *ctx, bg_err *err)
{
    const bg_grid *g = &ctx->grid;
    bg_progress progress;
    bg_notice notice;
    bool *done = NULL;
    uint64_t n_done;
    bg_status st = find(d, g, &done, &n_done, err);
    if (st == BG_OK) {
        bg_progress_start(&progress, d->what, d->unit, n_done, bg_units_count(d->units));
        bg_notice_begin(&notice, g->world);
        st = do_own(d, g, done, &notice, &progress, err);
        if (st != BG_OK)
            bg_notice_say(&notice, BG_NOTICE_END);
        bg_stop_wait(&notice);
        st = bg_agree(g->world, st, err);
    }
    if (st == BG_OK) {
        bg_progress_update(&progress, bg_units_count(d->units));
        bg_progress_finish(&progress);
    }
    bg_free(done);
    return st;
}
