/* prefilter.c - open, count the terms, rank by them, assemble the candidates. */
#include "prefilter.h"

#include <inttypes.h>
#include <stdio.h>

#include "bregman/attempt.h"
#include "bregman/log.h"
#include "bregman/memory.h"

/* What a finished work folder will hold.  Local, on rank 0. */
static bg_status promise(const prefilter *p, bg_err *err)
{
    char text[2 * BG_UNITS_LINE_BYTES], frequency[BG_UNITS_LINE_BYTES], best[BG_UNITS_LINE_BYTES];
    bg_units_describe(&p->frequency, frequency);
    bg_units_describe(&p->best, best);
    snprintf(text, sizeof text, "%s%s", frequency, best);
    return bg_units_promise(p->work, text, err);
}

static bg_units units_of(const prefilter *p, const char *kind)
{
    return (bg_units){ .folder = p->work,
                       .kind = kind,
                       .run = &p->in.files.run,
                       .cumulative = true,
                       .n_groups = 1,
                       .n_sequences = p->n_sequences,
                       .unit_sequences = p->c->unit_sequences };
}

static bg_status choose(void *self, bg_err *err)
{
    prefilter *p = self;
    const bg_grid *g = &p->ctx->grid;
    p->frequency = units_of(p, "frequency");
    p->best = units_of(p, "best");
    bg_log("%" PRIu64 " sequences with %" PRIu64 " tokens in units of %" PRIu64, p->n_sequences, p->n_tokens,
           p->c->unit_sequences);
    if (p->c->top >= p->n_sequences)
        bg_log("--top %" PRIu64 ": the corpus has %" PRIu64 " sequences, and all of them are candidates", p->c->top,
               p->n_sequences);
    bg_status st = bg_agree(g->world, g->world_rank == 0 ? promise(p, err) : BG_OK, err);
    if (st == BG_OK)
        st = prefilter_count(p, err);
    if (st == BG_OK)
        st = prefilter_rank(p, err);
    return st == BG_OK ? bg_agree(g->world, g->world_rank == 0 ? prefilter_publish(p, err) : BG_OK, err) : st;
}

static void clear(prefilter *p)
{
    bg_free(p->hit);
    bg_free(p->block);
    bg_bm25_free(p->terms);
    bg_tokens_close(p->in.corpus);
    bg_tokens_close(p->in.queries);
    bg_inputs_clear(&p->in.files);
}

bg_status prefilter_run(const void *config, const bg_context *ctx, bg_err *err)
{
    prefilter p = { .c = config, .ctx = ctx };
    bg_status st = prefilter_open(&p, err);
    if (st == BG_OK)
        st = bg_inputs_share(&p.in.files, ctx, "", 0, prefilter_hash(&p, err), err);
    const bg_attempt a = { ctx, &p.in.files, p.c->output, p.work, 1, &p, NULL, choose };
    if (st == BG_OK)
        st = bg_attempt_run(&a, err);
    clear(&p);
    return st;
}
