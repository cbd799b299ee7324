/* scoring.c - what scoring and explaining share: shares of the model, memory, units of work. */
#include <inttypes.h>
#include <stdio.h>

#include "bregman/log.h"
#include "bregman/memory.h"
#include "score_shards.h"

/* ---- shares and memory ---- */

/* Tokens of the longest of the sequences. */
static size_t longest(const scoring *w)
{
    size_t most = 2;
    for (uint64_t i = 0; i < w->n_sequences; i++) {
        uint32_t n = bg_tokens_count(w->tokens, w->sequence == NULL ? w->begin + i : w->sequence[i]);
        most = n > most ? n : most;
    }
    return most;
}

bg_status score_divide_model(scoring *w, bg_err *err)
{
    const bg_grid *g = &w->ctx->grid;
    w->load = (bg_workload){ .stage = &score_costs,
                             .model = w->model,
                             .grid = *g,
                             .sequences = w->n_sequences,
                             .unit_sequences = w->unit_sequences,
                             .rows = longest(w) - 1,
                             .detail = w->detail,
                             .extent = &w->extent };
    bg_status st = bg_workload_divide(&w->load, &w->share, err);
    if (st != BG_OK)
        return st;
    w->load.share = w->share;
    w->source = (bg_queries_source){ w->c->queries, w->model, NULL, &w->share[g->pipeline_rank], NULL };
    return bg_queries_measure(&w->source, &w->extent, err);
}

bg_status score_choose_plan(scoring *w, bg_err *err)
{
    bg_demand d = bg_workload_demand(&w->load, w->c->batch_tokens);
    bg_status st = bg_attempt_recall(w->ctx, &w->in, w->work, &d.given_rows, err);
    if (st != BG_OK)
        return st;
    bg_log("%s: %" PRIu64 " sequences in units of %" PRIu64, w->model->dir, w->n_sequences, w->unit_sequences);
    return bg_budget_choose(&d, w->ctx, &w->plan, err);
}

/* Local: what is left once the queries are there. */
static bg_status open_scorer(scoring *w, bg_err *err)
{
    const bg_grid *g = &w->ctx->grid;
    char line[BG_UNITS_LINE_BYTES];
    bg_units_describe(&w->units, line);
    bg_status st = g->world_rank == 0 ? bg_units_promise(w->work, line, err) : BG_OK;
    const bg_score_task task = score_task(&w->load, w->plan.rows);
    if (st == BG_OK)
        st = bg_scorer_new(&w->scorer, &task, w->queries, w->model, err);
    return st == BG_OK ? bg_pipeline_pass_new(&w->pass, w->model, &w->share[g->pipeline_rank], g, w->plan.rows, err)
                       : st;
}

bg_status score_open_memory(scoring *w, const char *kind, bg_err *err)
{
    const bg_grid *g = &w->ctx->grid;
    w->units = (bg_units){ .folder = w->work,
                           .kind = kind,
                           .run = &w->in.run,
                           .n_groups = 1,
                           .n_sequences = w->n_sequences,
                           .unit_sequences = w->unit_sequences };
    w->source.model_hash = &w->model_hash;
    w->source.scratch = w->plan.on_scratch ? w->ctx->scratch : NULL;
    bg_status st = bg_agree(g->world, bg_queries_load(&w->queries, &w->source, g->place, err), err);
    return st == BG_OK ? bg_agree(g->world, open_scorer(w, err), err) : st;
}

/* ---- units ---- */

static bg_status unit_find(void *self, bool *done, uint64_t *part, bg_err *err)
{
    return bg_units_find(&((scoring *)self)->units, done, part, err);
}

static bg_status unit_begin(void *self, const bg_unit *unit, uint64_t part, bg_err *err)
{
    scoring *w = self;
    size_t row0 = 0;
    (void)err;
    for (uint64_t i = unit->first; i < unit->first + part; i++)
        row0 += bg_tokens_count(w->tokens, w->sequence == NULL ? w->begin + i : w->sequence[i]) - 1;
    w->kept = part;
    bg_scorer_begin_unit(w->scorer, unit->n_sequences, unit->n_rows, row0);
    return BG_OK;
}

static void batch_begin(void *self, const bg_batch *batch, uint64_t first)
{
    bg_scorer_begin_batch(((scoring *)self)->scorer, batch, first);
}

static bg_status unit_keep(void *self, const bg_unit *unit, uint64_t end, bg_pipeline *l, bg_err *err)
{
    scoring *w = self;
    const bg_segment g = { unit->unit, BG_WHOLE_MODEL, w->kept, end };
    bg_store *s = NULL;
    bg_status st = bg_scorer_gather(w->scorer, l, err);
    w->kept = end;
    if (st != BG_OK || w->ctx->grid.pipeline_rank != 0)
        return st;
    st = bg_units_create(&s, &w->units, &g, err);
    if (st == BG_OK)
        st = w->write_segment(w, unit, &g, s, err);
    return bg_units_end(s, &w->units, &g, end, st, err);
}

static bg_status unit_end(void *self, const bg_unit *unit, bg_pipeline *l, bg_err *err)
{
    return unit_keep(self, unit, unit->n_sequences, l, err);
}

bg_status score_sweep(scoring *w, const char *what, bg_err *err)
{
    const bg_sweep s = {
        .what = what,
        .tokens = w->tokens,
        .sequence = w->sequence,
        .begin = w->begin,
        .n_sequences = w->n_sequences,
        .unit_sequences = w->unit_sequences,
        .tap = { bg_scorer_pair, w->scorer, BG_WANTS_ALL },
        .self = w,
        .gather_bytes = bg_scorer_gather_bytes(w->scorer),
        .find = unit_find,
        .begin_unit = unit_begin,
        .begin_batch = batch_begin,
        .end_unit = unit_end,
        .keep_part = unit_keep,
    };
    return bg_sweep_run(&s, w->pass, w->model, w->ctx, err);
}
