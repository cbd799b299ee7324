/* score_shards.c - open, divide, sweep the shard's sequences in units, assemble the shard's file (or explain a ranking).
 */
#include "score_shards.h"
#include "scoring.h"

#include <inttypes.h>
#include <stdio.h>

#include "bregman/memory.h"

enum { CALL_BYTES = 128 };

/* What decides the bytes of a shard beside the options that all shards share. */
static void describe_call(const scoring *w, char out[CALL_BYTES])
{
    const score_plan *p = &w->plan;
    snprintf(out, CALL_BYTES, "%s", p->memory.identity);
    if (w->c->explain == NULL)
        snprintf(out, CALL_BYTES, "%s shard %" PRIu64 " of %" PRIu64 "%s", p->memory.identity, p->shard, p->n_shards,
                 w->c->gradient_norms ? " with gradient norms" : "");
}

/* Collective; the same status on all ranks. */
static bg_status divide(scoring *w, bg_err *err)
{
    MPI_Comm world = w->ctx->grid.world;
    char call[CALL_BYTES];
    bg_status st = bg_agree(world, score_divide(w, err), err);
    if (st != BG_OK)
        return st;
    describe_call(w, call);
    st = bg_inputs_share(&w->in.files, w->ctx, call, 0, score_hash_inputs(w, err), err);
    if (st == BG_OK)
        st = score_choose_plan(w, err);
    if (st != BG_OK)
        return st;
    describe_call(w, call);
    bg_broadcast(world, &w->in.model_hash, sizeof w->in.model_hash, 0);
    return bg_agree(world, bg_inputs_choose(&w->in.files, w->ctx, call, err), err);
}

static bg_status sweep_and_publish(void *self, bg_err *err)
{
    scoring *w = self;
    bg_status st = score_sweep(w, err);
    if (st == BG_OK && w->ctx->grid.world_rank == 0)
        st = w->result->publish(w, err);
    return bg_agree(w->ctx->grid.world, st, err);
}

bg_status score_shards_run(const void *config, const bg_context *ctx, bg_err *err)
{
    const score_shards_config *c = config;
    scoring w = { .c = c, .ctx = ctx, .result = c->explain != NULL ? &score_explanation : &score_shard };
    bg_status st = score_open_inputs(&w, err);
    if (st == BG_OK)
        st = divide(&w, err);
    if (st == BG_OK) {
        const bg_attempt a = { ctx, &w.in.files,       w.plan.output,    w.plan.work, w.plan.memory.rows,
                               &w,  w.result->is_done, sweep_and_publish };
        st = bg_attempt_run(&a, err);
    }
    bg_queries_free(w.made.queries);
    bg_free(w.plan.share);
    score_close_inputs(&w);
    return st;
}
