/* compare_scales.c - query after query: the ranks share them, none needs another's. */
#include "compare_scales.h"

#include <math.h>

#include "bregman/allotment.h"
#include "bregman/attempt.h"
#include "bregman/log.h"
#include "bregman/memory.h"
#include "costs.h"

/* Queries [first, first + n), whose scores by all models are in memory, score [M, n, n_compared]. */
static bg_status compare_queries(comparison *w, size_t first, size_t n, float *score, ordered_scores *o, bg_err *err)
{
    uint64_t nz = w->n_compared;
    bg_status st = BG_OK;
    for (size_t m = 0; m < w->n_rankings && st == BG_OK; m++)
        st = compare_read_scores(w, &w->model[m], first, n, score + m * n * nz, err);
    if (st == BG_OK)
        st = compare_bm25(w, first, n, score + w->n_rankings * n * nz, err);
    for (size_t q = 0; q < n && st == BG_OK; q++) {
        for (size_t m = 0; m < w->n_models; m++)
            compare_order(o, m, score + (m * n + q) * nz);
        compare_measure(w, first + q, o);
    }
    return st;
}

/* Of the sequences that are best. */
static bg_status look_closer(comparison *w, size_t query, bg_err *err)
{
    bg_status st = BG_OK;
    for (size_t i = 0; i < w->n_models * w->k && st == BG_OK; i++) {
        size_t cell = (i / w->k * w->n_queries + query) * w->k + i % w->k;
        w->v.top_overlap[cell] = nan("");
        if (w->v.top_sequence[cell] >= 0)
            st = compare_text(w, query, (uint64_t)w->v.top_sequence[cell], &w->v.top_overlap[cell], &w->v.top_run[cell],
                              err);
    }
    for (size_t m = 0; m < w->n_models && st == BG_OK; m++) {
        st = compare_layers(w, m, query, err);
        if (st == BG_OK)
            st = compare_sparsity(w, m, query, err);
    }
    return st;
}

/* This rank's share of the queries, a run of them.  Local. */
static bg_status compare_own(comparison *w, bg_err *err)
{
    const bg_grid *g = &w->ctx->grid;
    size_t ranks = (size_t)g->world_size, rank = (size_t)g->world_rank;
    size_t begin = rank * w->n_queries / ranks, end = (rank + 1) * w->n_queries / ranks;
    size_t block = compare_block(end - begin, w->n_models, w->n_compared);
    ordered_scores o = { 0 };
    float *score = NULL;
    bg_progress p;
    bg_status st = BG_NEW(score, w->n_models * block * w->n_compared, "scores of some queries", err);
    if (st == BG_OK)
        st = compare_new_order(&o, w->n_models, w->n_compared, err);
    bg_progress_start(&p, "comparing", "queries", 0, end - begin);
    for (size_t first = begin; first < end && st == BG_OK; first += block) {
        size_t n = end - first < block ? end - first : block;
        st = compare_queries(w, first, n, score, &o, err);
        for (size_t q = first; q < first + n && st == BG_OK; q++) {
            st = look_closer(w, q, err);
            bg_progress_update(&p, q + 1 - begin);
        }
    }
    if (st == BG_OK)
        bg_progress_finish(&p);
    compare_free_order(&o);
    bg_free(score);
    return st;
}

/* Of the rank that holds most. */
static double most_bytes(const comparison *w)
{
    const bg_workload load = { .stage = &compare_costs,
                               .grid = w->ctx->grid,
                               .sequences = w->n_compared,
                               .corpus_sequences = w->n_sequences,
                               .queries = w->n_queries,
                               .rows = bg_tokens_longest(w->tokens, 0, w->n_sequences) - 1,
                               .query_rows = bg_tokens_longest(w->queries, 0, w->n_queries) - 1,
                               .comparison = { w->n_rankings, w->n_layers, w->k, w->c->ngrams, w->n_query_ids,
                                               w->related.n_pairs } };
    size_t most = 0;
    for (size_t i = 0; i < compare_costs.n_phases; i++) {
        size_t bytes = compare_costs.phase[i].bytes(&load, NULL);
        most = bytes > most ? bytes : most;
    }
    return (double)most;
}

/* Nothing can be done without: the system would end it by a signal. */
static void say_memory(const comparison *w)
{
    double bytes = most_bytes(w), ranks = w->ctx->grid.node_size, there = (double)bg_allotment_bytes("");
    bg_log("memory a rank: %.0f MB at most", bytes * 1e-6);
    if (bytes * ranks > there)
        bg_log("warning: %.0f ranks on this machine take %.1f GB, and it has %.1f GB for them: fewer ranks, or scores of "
               "fewer candidates, take less",
               ranks, bytes * ranks * 1e-9, there * 1e-9);
}

static bg_status compare_all(void *self, bg_err *err)
{
    comparison *w = self;
    MPI_Comm world = w->ctx->grid.world;
    say_memory(w);
    bg_status st = compare_weigh_terms(w, err);
    if (st == BG_OK)
        st = bg_agree(world, compare_new_values(w, err), err);
    if (st == BG_OK)
        st = bg_agree(world, compare_own(w, err), err);
    if (st != BG_OK)
        return st;
    compare_add_up(w);
    return bg_agree(world, w->ctx->grid.world_rank == 0 ? compare_publish(w, err) : BG_OK, err);
}

bg_status compare_scales_run(const void *config, const bg_context *ctx, bg_err *err)
{
    comparison w = { .c = config, .ctx = ctx };
    bg_status st = compare_open(&w, err);
    const bg_attempt a = { .ctx = ctx, .in = &w.in, .output = w.c->output, .self = &w, .run = compare_all };
    if (st == BG_OK)
        st = bg_attempt_run(&a, err);
    compare_free_values(&w);
    compare_close(&w);
    return st;
}
