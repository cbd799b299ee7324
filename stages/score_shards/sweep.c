/* sweep.c - the shard's sequences through the model, unit by unit, with the score tap. */
#include "scoring.h"

/* Local: what is left once the queries are there. */
static bg_status open_sums(scoring *w, bg_err *err)
{
    const bg_grid *g = &w->ctx->grid;
    const score_plan *p = &w->plan;
    score_work *m = &w->made;
    const bg_score_task task = score_task(&p->load, p->memory.rows);
    char line[BG_UNITS_LINE_BYTES];
    bg_units_describe(&m->units, line);
    bg_status st = g->world_rank == 0 ? bg_units_promise(p->work, line, err) : BG_OK;
    if (st == BG_OK && w->in.explaining != NULL)
        st = score_explain_check_queries(w, err);
    if (st == BG_OK)
        st = bg_products_init(&m->products, &p->extent, p->memory.rows, err);
    if (st == BG_OK)
        st = bg_score_sums_new(&m->sums, &task, p->extent.n_queries, p->queries.scratch, err);
    if (st == BG_OK && task.gradient_norms)
        st = bg_gradient_norm_init(&m->norm, task.batch_rows, err);
    if (st == BG_OK)
        st = bg_pipeline_pass_new(&m->pass, w->in.model, &p->share[g->pipeline_rank], g, p->memory.rows, err);
    return st == BG_OK && p->by_output ? score_outputs_open(w, err) : st;
}

static bg_status open_work(scoring *w, bg_err *err)
{
    const bg_grid *g = &w->ctx->grid;
    score_plan *p = &w->plan;
    w->made.units = (bg_units){ .folder = p->work,
                                .kind = w->result->kind,
                                .run = &w->in.files.run,
                                .n_groups = 1,
                                .n_sequences = p->n_sequences,
                                .unit_sequences = p->unit_sequences };
    p->queries.model_hash = &w->in.model_hash;
    p->queries.scratch = p->memory.on_scratch ? w->ctx->scratch : NULL;
    bg_status st = bg_agree(g->world, bg_queries_load(&w->made.queries, &p->queries, g->place, err), err);
    return st == BG_OK ? bg_agree(g->world, open_sums(w, err), err) : st;
}

/* The queries' names are still needed. */
static void close_work(score_work *m)
{
    score_outputs_close(m->outputs);
    bg_pass_free(m->pass);
    bg_score_sums_free(m->sums);
    bg_products_clear(&m->products);
    bg_gradient_norm_clear(&m->norm);
}

static bg_status unit_find(void *self, bool *done, uint64_t *part, bg_err *err)
{
    return bg_units_find(&((scoring *)self)->made.units, done, part, err);
}

static bg_status unit_begin(void *self, const bg_unit *unit, uint64_t part, bg_err *err)
{
    scoring *w = self;
    size_t row0 = 0;
    (void)err;
    for (uint64_t i = unit->first; i < unit->first + part; i++)
        row0 += bg_tokens_count(w->in.tokens, score_sequence(&w->plan, i)) - 1;
    w->made.kept = part;
    bg_score_sums_begin_unit(w->made.sums, unit->n_sequences, unit->n_rows, row0);
    return BG_OK;
}

static void batch_begin(void *self, const bg_batch *batch, uint64_t first)
{
    const score_work *m = &((scoring *)self)->made;
    bg_score_sums_begin_batch(m->sums, batch, first);
    if (m->outputs != NULL)
        score_outputs_keep(m->outputs);
}

static bg_status unit_keep(void *self, const bg_unit *unit, uint64_t end, bg_pipeline *l, bg_err *err)
{
    scoring *w = self;
    const bg_segment g = { unit->unit, BG_WHOLE_MODEL, w->made.kept, end };
    bg_store *s = NULL;
    bg_status st = bg_score_sums_gather(w->made.sums, l, err);
    w->made.kept = end;
    if (st != BG_OK || w->ctx->grid.pipeline_rank != 0)
        return st;
    st = bg_units_create(&s, &w->made.units, &g, err);
    if (st == BG_OK)
        st = w->result->write_segment(w, unit, &g, s, err);
    return bg_units_end(s, &w->made.units, &g, end, st, err);
}

static bg_status unit_end(void *self, const bg_unit *unit, bg_pipeline *l, bg_err *err)
{
    return unit_keep(self, unit, unit->n_sequences, l, err);
}

static bg_status sweep(scoring *w, bg_err *err)
{
    const score_plan *p = &w->plan;
    const bg_score_task task = score_task(&p->load, p->memory.rows);
    bg_scorer scorer = { w->made.queries, &w->made.products, w->made.sums,
                         w->plan.load.gradient_norms ? &w->made.norm : NULL };
    bg_sweep s = {
        .what = w->result->what,
        .tokens = w->in.tokens,
        .sequence = p->sequence,
        .begin = p->begin,
        .n_sequences = p->n_sequences,
        .unit_sequences = p->unit_sequences,
        .tap = { bg_scorer_pair, &scorer, BG_WANTS_MAPS },
        .self = w,
        .gather_bytes = bg_score_sums_gather_bytes(&task, p->extent.n_queries),
        .find = unit_find,
        .begin_unit = unit_begin,
        .begin_batch = batch_begin,
        .end_unit = unit_end,
        .keep_part = unit_keep,
    };
    if (w->made.outputs != NULL) {
        s.directions = score_outputs_choose;
        s.along = score_outputs_along;
        for (int i = 0; i < 2; i++)
            s.tangent[i] = score_outputs_stream(w->made.outputs, i);
    }
    return bg_sweep_run(&s, w->made.pass, w->in.model, w->ctx, err);
}

bg_status score_sweep(scoring *w, bg_err *err)
{
    bg_status st = open_work(w, err);
    if (st == BG_OK)
        st = sweep(w, err);
    close_work(&w->made);
    return st;
}
