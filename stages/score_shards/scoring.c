/* scoring.c - what scoring and explaining share: shares of the model, memory, units of work. */
#include <stdio.h>

#include "bregman/log.h"
#include "bregman/memory.h"
#include "score_shards.h"

enum { ACTIVATION_BYTES = 512 << 20 };

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

static size_t plan_bytes(const void *scoring_, const bg_plan *plan)
{
    const scoring *w = scoring_;
    const bg_grid *g = &w->ctx->grid;
    return w->scorer_bytes + bg_pipeline_pass_bytes(w->model, &w->share[g->pipeline_rank], g, plan->rows);
}

bg_status score_divide_model(scoring *w, bg_err *err)
{
    size_t n = (size_t)w->ctx->grid.pipeline_size;
    w->longest_rows = longest(w) - 1;
    bg_status st = BG_NEW(w->share, n, "shares of the model", err);
    if (st == BG_OK)
        st = bg_model_divide(w->model, n, NULL, w->share, err);
    if (st == BG_OK)
        st = bg_scorer_bytes(w->c->queries, w->model, &w->share[w->ctx->grid.pipeline_rank], w->detail, w->unit_sequences,
                             w->unit_sequences * w->longest_rows, &w->scorer_bytes, err);
    return st;
}

bg_status score_choose_plan(scoring *w, bg_err *err)
{
    size_t least = w->longest_rows, rows = w->c->batch_tokens;
    bg_demand d = { .best = { .passes = 1 }, .least_rows = least, .most_passes = 1, .self = w, .bytes = plan_bytes };
    d.best.rows = rows == 0 ? bg_pass_rows_for(w->model, least + 1, ACTIVATION_BYTES) : rows < least ? least : rows;
    bg_log("%s: %llu sequences in units of %llu", w->model->dir, (unsigned long long)w->n_sequences,
           (unsigned long long)w->unit_sequences);
    return bg_budget_choose(&d, w->ctx, &w->plan, err);
}

bg_status score_open_memory(scoring *w, bg_err *err)
{
    const bg_grid *g = &w->ctx->grid;
    char units[64];
    bg_status st = bg_make_folder(w->work, err);
    if (st == BG_OK)
        st = bg_stop_folder(w->c->output, err);
    snprintf(units, sizeof units, "unit- %llu\n",
             (unsigned long long)((w->n_sequences + w->unit_sequences - 1) / w->unit_sequences));
    if (st == BG_OK && g->world_rank == 0)
        st = bg_write_units(w->work, units, err);
    if (st == BG_OK)
        st = bg_scorer_new(&w->scorer, w->c->queries, w->model, &w->model_hash, w->share, g->pipeline_size,
                           g->pipeline_rank, w->detail, w->unit_sequences, w->unit_sequences * w->longest_rows, err);
    return st == BG_OK ? bg_pipeline_pass_new(&w->pass, w->model, &w->share[g->pipeline_rank], g, w->plan.rows, err) : st;
}

/* ---- units ---- */

bg_status score_unit_path(const scoring *w, uint64_t u, char out[BG_PATH_BYTES], bg_err *err)
{
    return bg_path(out, err, "%s/unit-%06llu.h5", w->work, (unsigned long long)u);
}

bg_status score_unit_find(void *scoring_, bool *done, uint64_t *part, bg_err *err)
{
    const scoring *w = scoring_;
    char path[BG_PATH_BYTES];
    bg_status st = BG_OK;
    (void)part;
    for (uint64_t u = 0; u * w->unit_sequences < w->n_sequences && st == BG_OK; u++) {
        st = score_unit_path(w, u, path, err);
        if (st == BG_OK)
            st = bg_store_is_done(path, w->in.run.fingerprint, &done[u], err);
    }
    return st;
}

static bg_status unit_begin(void *self, const bg_unit *unit, uint64_t part, bg_err *err)
{
    (void)part;
    (void)err;
    bg_scorer_begin_unit(((scoring *)self)->scorer, unit->n_sequences, unit->n_rows);
    return BG_OK;
}

static void batch_begin(void *self, const bg_batch *batch, uint64_t first)
{
    bg_scorer_begin_batch(((scoring *)self)->scorer, batch, first);
}

bg_sweep score_sweep(scoring *w, const char *what)
{
    return (bg_sweep){
        .what = what, .tokens = w->tokens, .sequence = w->sequence, .begin = w->begin, .n_sequences = w->n_sequences,
        .unit_sequences = w->unit_sequences, .tap = { bg_scorer_pair, w->scorer }, .self = w,
        .gather_bytes = bg_scorer_gather_bytes(w->scorer),
        .find = score_unit_find, .begin_unit = unit_begin, .begin_batch = batch_begin,
    };
}
