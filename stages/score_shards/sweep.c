/* sweep.c - the shard's sequences through the model, unit by unit, with the score tap. */
#include <string.h>

#include "scoring.h"

/* What the files of all sweeps will be. */
static bg_status promise(const scoring *w, bg_err *err)
{
    const score_work *m = &w->made;
    char text[SCORE_PHASES * BG_UNITS_LINE_BYTES] = "", line[BG_UNITS_LINE_BYTES];
    for (size_t i = 0; i < m->n_phases; i++) {
        bg_units_describe(&m->phase[i].units, line);
        strncat(text, line, sizeof text - strlen(text) - 1);
    }
    return bg_units_promise(w->plan.work, text, err);
}

/* Local: what is left once the queries are there. */
static bg_status open_pass(scoring *w, bg_err *err)
{
    const bg_grid *g = &w->ctx->grid;
    const score_plan *p = &w->plan;
    score_work *m = &w->made;
    bg_status st = g->world_rank == 0 ? promise(w, err) : BG_OK;
    if (st == BG_OK && w->in.explaining != NULL)
        st = score_explain_check_queries(w, err);
    if (st == BG_OK)
        st = bg_products_init(&m->products, &p->extent, p->memory.rows, err);
    if (st == BG_OK && p->load.gradient_norms)
        st = bg_gradient_norm_init(&m->norm, p->memory.rows, err);
    return st == BG_OK
               ? bg_pipeline_pass_new(&m->pass, w->in.model, &p->share[g->pipeline_rank], g, p->memory.rows, err)
               : st;
}

/* Local: what the sweep in hand sums up. */
static bg_status open_sums(scoring *w, bg_err *err)
{
    const score_plan *p = &w->plan;
    const bg_score_task task = score_task(&w->made.now->load, p->memory.rows);
    bg_status st = bg_score_sums_new(&w->made.sums, &task, p->extent.n_queries, p->queries.scratch, err);
    return st == BG_OK && task.detail == BG_SCORE_OUTPUTS ? score_outputs_open(w, err) : st;
}

static void close_sums(score_work *m)
{
    score_outputs_close(m->outputs);
    bg_score_sums_free(m->sums);
    m->outputs = NULL;
    m->sums = NULL;
}

static void list_phases(scoring *w)
{
    const score_plan *p = &w->plan;
    w->made.phase[w->made.n_phases++] =
        (score_phase){ .kept = &w->result->kept, .sequence = p->sequence, .begin = p->begin, .load = p->load };
    if (p->by_input)
        w->made.phase[w->made.n_phases++] = score_erased_phase(w);
    for (size_t i = 0; i < w->made.n_phases; i++) {
        score_phase *f = &w->made.phase[i];
        f->units = (bg_units){ .folder = p->work,
                               .kind = f->kept->kind,
                               .run = &w->in.files.run,
                               .n_groups = 1,
                               .n_sequences = f->load.sequences,
                               .unit_sequences = f->load.unit_sequences };
    }
}

static bg_status open_work(scoring *w, bg_err *err)
{
    const bg_grid *g = &w->ctx->grid;
    score_plan *p = &w->plan;
    list_phases(w);
    p->queries.model_hash = &w->in.model_hash;
    p->queries.scratch = p->memory.on_scratch ? w->ctx->scratch : NULL;
    bg_status st = bg_agree(g->world, bg_queries_load(&w->made.queries, &p->queries, g->place, err), err);
    return st == BG_OK ? bg_agree(g->world, open_pass(w, err), err) : st;
}

/* The queries' names are still needed. */
static void close_work(score_work *m)
{
    bg_pass_free(m->pass);
    bg_products_clear(&m->products);
    bg_gradient_norm_clear(&m->norm);
}

static bg_status unit_find(void *self, bool *done, uint64_t *part, bg_err *err)
{
    return bg_units_find(&((scoring *)self)->made.now->units, done, part, err);
}

static bg_status unit_begin(void *self, const bg_unit *unit, uint64_t part, bg_err *err)
{
    const scoring *w = self;
    score_phase *f = w->made.now;
    size_t row0 = 0;
    (void)err;
    for (uint64_t i = unit->first; i < unit->first + part; i++)
        row0 += bg_tokens_count(w->in.tokens, f->sequence != NULL ? f->sequence[i] : f->begin + i) - 1;
    f->done = part;
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
    score_phase *f = w->made.now;
    const bg_segment g = { unit->unit, BG_WHOLE_MODEL, f->done, end };
    bg_store *s = NULL;
    bg_status st = bg_score_sums_gather(w->made.sums, l, err);
    f->done = end;
    if (st != BG_OK || w->ctx->grid.pipeline_rank != 0)
        return st;
    st = bg_units_create(&s, &f->units, &g, err);
    if (st == BG_OK)
        st = f->kept->write_segment(w, unit, &g, s, err);
    return bg_units_end(s, &f->units, &g, end, st, err);
}

static bg_status unit_end(void *self, const bg_unit *unit, bg_pipeline *l, bg_err *err)
{
    return unit_keep(self, unit, unit->n_sequences, l, err);
}

static bg_status sweep(scoring *w, bg_err *err)
{
    const score_phase *f = w->made.now;
    const bg_score_task task = score_task(&f->load, w->plan.memory.rows);
    bg_scorer scorer = { w->made.queries, &w->made.products, w->made.sums,
                         f->load.gradient_norms ? &w->made.norm : NULL };
    bg_sweep s = {
        .what = f->kept->what,
        .tokens = w->in.tokens,
        .sequence = f->sequence,
        .erased = f->erased,
        .begin = f->begin,
        .n_sequences = f->load.sequences,
        .unit_sequences = f->load.unit_sequences,
        .tap = { bg_scorer_pair, &scorer, BG_WANTS_MAPS },
        .self = w,
        .gather_bytes = bg_score_sums_gather_bytes(&task, w->plan.extent.n_queries),
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
    for (size_t i = 0; i < w->made.n_phases && st == BG_OK; i++) {
        w->made.now = &w->made.phase[i];
        st = bg_agree(w->ctx->grid.world, open_sums(w, err), err);
        if (st == BG_OK)
            st = sweep(w, err);
        close_sums(&w->made);
    }
    close_work(&w->made);
    return st;
}
