#include "costs.h"

#include "bregman/bm25.h"
#include "bregman/memory.h"
#include "bregman/store.h"
#include "bregman/topk.h"

/* In entries of a serial loop: the look-up of a token, which is wherever the vocabulary's table is, and adding a
 * posting. */
static const double LOOK_UP = 6, POSTING = 2;
/* Of a query's terms that a sequence has: half of any text are common words. */
static const double SHARED = 0.5;

static double least(double a, double b) { return a < b ? a : b; }

static double unit_of(const bg_workload *w)
{
    return least(w->unit_sequences > 0 ? (double)w->unit_sequences : PREFILTER_UNIT_SEQUENCES,
                 (double)w->corpus_sequences);
}

static double terms_of(const bg_workload *w) { return (double)w->queries * (double)(w->query_rows + 1); }

/* Bytes of each query's best n in files. */
static double lists_bytes(const bg_workload *w, double n)
{
    return 2 * bg_store_dataset_bytes((double)w->queries * n, sizeof(int64_t));
}

static double terms_bytes(const bg_workload *w)
{
    return bg_bm25_bytes((double)w->queries, terms_of(w), 1, (double)w->model->config.vocab_size) +
           4.0 * PREFILTER_BLOCK_TOKENS;
}

static size_t count_bytes(const bg_workload *w, const bg_plan *plan)
{
    (void)plan;
    return (size_t)(terms_bytes(w) + sizeof(int64_t) * terms_of(w));
}

/* Rank 0 holds the best of all, and a bit a sequence, while it puts them together.  Token files keep the lengths of all
 * sequences, once a node. */
static size_t rank_bytes(const bg_workload *w, const bg_plan *plan)
{
    double best = least((double)w->prefilter_top, (double)w->corpus_sequences);
    (void)plan;
    return (size_t)(terms_bytes(w) + bg_topk_bytes(best) * (double)w->queries +
                    (8.0 / (double)(w->grid.place_size > 0 ? w->grid.place_size : 1) + 0.125) *
                        (double)w->corpus_sequences);
}

/* A task a unit, dealt in turn. */
static bg_status make_tasks(const bg_workload *w, const bg_cost *each, bg_task_costs **out, size_t *n, bg_err *err)
{
    const uint64_t unit = (uint64_t)unit_of(w);
    *n = (size_t)((w->corpus_sequences + unit - 1) / unit);
    bg_status st = BG_NEW(*out, *n, "tasks", err);
    for (size_t i = 0; i < *n && st == BG_OK; i++) {
        bg_task_costs *t = &(*out)[i];
        uint64_t left = w->corpus_sequences - (uint64_t)i * unit;
        *t = (bg_task_costs){ .first = i % (size_t)w->grid.world_size, .ranks = 1, .steps = 1 };
        bg_cost_add(&t->cost, each, (double)(left < unit ? left : unit));
        t->cost.of[BG_COST_FILE] = 1;
        t->cost.of[BG_COST_WRITE] = bg_store_file_bytes();
    }
    return st;
}

/* Of a sequence. */
static bg_cost look_up(const bg_workload *w)
{
    bg_cost c = { 0 };
    c.of[BG_COST_READ] = 4.0 * (double)(w->rows + 1);
    c.of[BG_COST_SERIAL] = LOOK_UP * (double)(w->rows + 1);
    return c;
}

static bg_status count_tasks(const bg_workload *w, bg_task_costs **out, size_t *n, bg_err *err)
{
    const bg_cost each = look_up(w);
    bg_status st = make_tasks(w, &each, out, n, err);
    for (size_t i = 0; i < *n && st == BG_OK; i++)
        (*out)[i].cost.of[BG_COST_WRITE] += bg_store_dataset_bytes(terms_of(w), sizeof(int64_t));
    return st;
}

static bg_status rank_tasks(const bg_workload *w, bg_task_costs **out, size_t *n, bg_err *err)
{
    bg_cost each = look_up(w);
    each.of[BG_COST_SERIAL] += POSTING * SHARED * terms_of(w);
    each.of[BG_COST_RANKED] = (double)w->queries;
    bg_status st = make_tasks(w, &each, out, n, err);
    for (size_t i = 0; i < *n && st == BG_OK; i++)
        (*out)[i].cost.of[BG_COST_WRITE] += lists_bytes(w, least((double)w->prefilter_top, unit_of(w)));
    return st;
}

/* Rank 0 hashes the token files, and puts the units together. */
static void ends(const bg_workload *w, const bg_plan *plan, bg_ends_costs *out)
{
    const double corpus = (double)w->corpus_sequences, top = least((double)w->prefilter_top, corpus);
    const double units = corpus / unit_of(w) + 1, listed = least((double)w->prefilter_top, unit_of(w));
    (void)plan;
    out->begin.of[BG_COST_HASH] = 4.0 * corpus * (double)(w->rows + 1);
    out->begin.of[BG_COST_READ] = 4.0 * corpus;
    out->final_bytes = bg_store_file_bytes() + lists_bytes(w, top) +
                       bg_store_dataset_bytes(least(top * (double)w->queries, corpus), sizeof(int64_t));
    out->end.of[BG_COST_READ] = units * lists_bytes(w, listed);
    out->end.of[BG_COST_RANKED] = units * listed * (double)w->queries;
    out->end.of[BG_COST_WRITE] = out->final_bytes;
    out->end.of[BG_COST_FILE] = 1;
    out->end_ranks = 1;
    out->end_stops = true;
}

static const bg_phase_costs phases[] = {
    { .name = "frequencies", .bytes = count_bytes, .tasks = count_tasks },
    { .name = "best", .bytes = rank_bytes, .tasks = rank_tasks },
};

const bg_stage_costs prefilter_costs = {
    .name = "prefilter", .ends = ends, .n_phases = sizeof phases / sizeof *phases, .phase = phases
};
