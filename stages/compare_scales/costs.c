#include "costs.h"

#include <math.h>

#include "bregman/bm25.h"
#include "bregman/memory.h"
#include "bregman/store.h"

enum { MOST_BYTES = 1 << 29 }; /* of the scores of the queries in hand */
enum { READ_FLOATS = 1 << 20 };
enum { CHUNK_BYTES = 1 << 20 }; /* which is read as a whole */

/* In entries of a serial loop: the look-up of a token, which is wherever the vocabulary's table is; a comparison while
 * scores are sorted; and what is done with each score once it has its place, for its model and for each pair of models.
 */
static const double LOOK_UP = 6, COMPARED = 8, MEASURED = 12, CORRELATED = 8;

static double least(double a, double b) { return a < b ? a : b; }

uint64_t compare_rows(size_t queries)
{
    uint64_t rows = READ_FLOATS / queries + 1;
    return rows < COMPARE_PIECE ? rows : COMPARE_PIECE;
}

uint64_t compare_block(uint64_t own, size_t models, uint64_t sequences)
{
    uint64_t most = MOST_BYTES / (models * sequences * sizeof(float));
    most = most > 0 ? most : 1;
    return most < own ? most : own;
}

/* More of the tail than the best 1 %, where that is much, is for nobody to look at. */
uint64_t compare_tail(uint64_t corpus_sequences)
{
    enum { LEAST_TAIL = 50, MOST_TAIL = 10000 };
    uint64_t n = corpus_sequences / 100 < LEAST_TAIL ? LEAST_TAIL : corpus_sequences / 100;
    n = n > MOST_TAIL ? MOST_TAIL : n;
    return n > corpus_sequences ? corpus_sequences : n;
}

/* ---- sizes ---- */

static size_t models_of(const bg_workload *w) { return w->comparison.rankings + 1; }

/* Of the rank that has most. */
static uint64_t own_queries(const bg_workload *w)
{
    uint64_t ranks = (uint64_t)w->grid.world_size;
    return (w->queries + ranks - 1) / ranks;
}

static double block_of(const bg_workload *w)
{
    return (double)compare_block(own_queries(w), models_of(w), w->sequences);
}

static double query_tokens(const bg_workload *w) { return (double)w->queries * (double)(w->query_rows + 1); }

static double terms_bytes(const bg_workload *w)
{
    const double tokens = query_tokens(w), ngrams = (double)w->comparison.ngrams;
    return bg_bm25_bytes((double)w->queries, tokens, ngrams, (double)w->comparison.query_ids) + 4 * tokens +
           8 * tokens * ngrams + 4.0 * (double)(COMPARE_BLOCK_TOKENS + w->rows + 1);
}

/* The numbers of values.c. */
static double result_values(const bg_workload *w)
{
    const double m = (double)models_of(w), q = (double)w->queries;
    const double k = least((double)w->comparison.top, (double)w->corpus_sequences);
    return m * q * (5 + 6 * k + (double)compare_tail(w->corpus_sequences) + 2 * m) +
           7 * m * (double)w->comparison.pairs + (double)w->comparison.layers * q;
}

/* Token files keep the lengths of all sequences, once a node; all else goes with what is compared. */
static double held_bytes(const bg_workload *w)
{
    return sizeof(uint64_t) * (double)w->corpus_sequences / (double)(w->grid.place_size > 0 ? w->grid.place_size : 1) +
           sizeof(int64_t) * (double)w->sequences + terms_bytes(w) + 8 * result_values(w);
}

static size_t count_bytes(const bg_workload *w, const bg_plan *plan)
{
    (void)plan;
    return (size_t)held_bytes(w);
}

/* Of each model and sequence its place, and the order; of a sequence a score to be sorted, which sorting copies. */
static size_t compare_bytes(const bg_workload *w, const bg_plan *plan)
{
    const double n = (double)w->sequences, m = (double)models_of(w), queries = (double)w->queries;
    const double reading = (double)compare_rows(w->queries) * (sizeof(float) * queries + sizeof(int64_t));
    const double layers = (double)w->comparison.layers / (double)w->comparison.rankings;
    const double marks = 16 * (double)w->comparison.rankings * (n / COMPARE_PIECE + 1);
    (void)plan;
    return (size_t)(held_bytes(w) + n * (m * (block_of(w) * sizeof(float) + sizeof(uint32_t) + sizeof(double)) + 16) +
                    reading + sizeof(float) * queries * layers + sizeof(int64_t) * COMPARE_PIECE + marks);
}

/* Of one shard, and of a token file. */
static void cached(const bg_workload *w, const bg_plan *plan, bg_rank_costs *out)
{
    const double n = (double)w->sequences, scores = sizeof(float) * n * (double)w->queries;
    const double dataset[] = { sizeof(int64_t) * n, scores, scores * (double)w->comparison.layers,
                               4.0 * (double)w->corpus_sequences * (double)(w->rows + 1) };
    (void)plan;
    out->cached_bytes = bg_store_cached_bytes(dataset, sizeof dataset / sizeof *dataset);
}

/* ---- work ---- */

/* All ranks have as much to do, one after another in turn. */
static bg_status same_tasks(const bg_workload *w, const bg_cost *each, size_t steps, bg_task_costs **out, size_t *n,
                            bg_err *err)
{
    *n = (size_t)w->grid.world_size;
    bg_status st = BG_NEW(*out, *n, "tasks", err);
    for (size_t i = 0; i < *n && st == BG_OK; i++)
        (*out)[i] = (bg_task_costs){ .cost = *each, .first = i, .ranks = 1, .steps = steps };
    return st;
}

static double look_ups(const bg_workload *w) { return LOOK_UP * (double)w->comparison.ngrams * (double)(w->rows + 1); }

static bg_status count_tasks(const bg_workload *w, bg_task_costs **out, size_t *n, bg_err *err)
{
    const double own = (double)w->corpus_sequences / (double)w->grid.world_size;
    bg_cost each = { 0 };
    each.of[BG_COST_READ] = 4.0 * own * (double)(w->rows + 1);
    each.of[BG_COST_SERIAL] = own * look_ups(w);
    return same_tasks(w, &each, 1, out, n, err);
}

/* Of a run of queries: all shards, and the tokens of what is compared, by the chunk. */
static void add_run(const bg_workload *w, bg_cost *c, double times)
{
    const double n = (double)w->sequences, tokens = (double)(w->rows + 1), queries = (double)w->queries;
    c->of[BG_COST_READ] += times * ((double)w->comparison.rankings * n * (4 * queries + 8) +
                                    least(4.0 * (double)w->corpus_sequences * tokens, n * CHUNK_BYTES));
    c->of[BG_COST_SERIAL] += times * n * look_ups(w);
}

/* Of a query: its scores are put in order; of the best of each model a row of layer scores is looked for and read. */
static void add_query(const bg_workload *w, bg_cost *c, double times)
{
    const double n = (double)w->sequences, m = (double)models_of(w), layers = (double)w->comparison.layers;
    const double rows = layers > 0 ? (double)w->comparison.rankings * (double)w->comparison.top : 0;
    c->of[BG_COST_SERIAL] += times * n * m * (COMPARED * log2(n + 1) + MEASURED + CORRELATED * (m + 1) / 2);
    c->of[BG_COST_READ] += times * rows *
                           (least(CHUNK_BYTES, 4 * n * (double)w->queries * layers) + least(CHUNK_BYTES, 8 * n));
    c->of[BG_COST_ROW_WRITE] += times * rows;
}

static bg_status compare_tasks(const bg_workload *w, bg_task_costs **out, size_t *n, bg_err *err)
{
    const double own = (double)own_queries(w);
    bg_cost each = { 0 };
    add_run(w, &each, ceil(own / block_of(w)));
    add_query(w, &each, own);
    return same_tasks(w, &each, (size_t)own_queries(w), out, n, err);
}

/* Rank 0 hashes the token files; all read which sequences the shards have. */
static void ends(const bg_workload *w, const bg_plan *plan, bg_ends_costs *out)
{
    const double corpus = (double)w->corpus_sequences;
    (void)plan;
    out->begin.of[BG_COST_HASH] = 4.0 * corpus * (double)(w->rows + 1);
    out->begin.of[BG_COST_READ] = 4.0 * corpus + 8.0 * (double)w->sequences * (double)w->comparison.rankings;
    out->final_bytes = bg_store_file_bytes() + bg_store_dataset_bytes(result_values(w), 8);
    out->end.of[BG_COST_WRITE] = out->final_bytes;
    out->end.of[BG_COST_FILE] = 1;
    out->end_ranks = 1;
}

static const bg_phase_costs phases[] = {
    { .name = "frequencies", .bytes = count_bytes, .rank = cached, .tasks = count_tasks },
    { .name = "comparing", .bytes = compare_bytes, .rank = cached, .tasks = compare_tasks },
};

const bg_stage_costs compare_costs = {
    .name = "compare_scales", .ends = ends, .n_phases = sizeof phases / sizeof *phases, .phase = phases
};
