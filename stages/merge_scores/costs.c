#include "costs.h"

#include <math.h>

#include "bregman/memory.h"
#include "bregman/ranking.h"
#include "bregman/store.h"
#include "bregman/topk.h"

enum { LEAST_TAIL = 100 };

size_t merge_tail(uint64_t n, double part)
{
    size_t tail = (size_t)ceil((double)n * part);
    tail = tail < LEAST_TAIL ? LEAST_TAIL : tail;
    return tail < n ? tail : n;
}

static size_t bytes(const bg_workload *w, const bg_plan *plan)
{
    (void)plan;
    double ranked = bg_topk_bytes((double)merge_tail(w->sequences, MERGE_TAIL)) + 2 * bg_topk_bytes(MERGE_TOP);
    return w->queries * ((size_t)ranked + 8 * MERGE_BINS + sizeof(float) * MERGE_ROWS);
}

/* One task: rank 0 hashes the shards and reads every score once. */
static bg_status tasks(const bg_workload *w, bg_task_costs **out, size_t *n, bg_err *err)
{
    double sequences = (double)w->sequences, scores = sequences * (double)w->queries;
    bg_status st = BG_NEW(*out, 1, "task", err);
    if (st != BG_OK)
        return st;
    bg_cost *c = &(*out)->cost;
    *n = (*out)->ranks = (*out)->steps = 1;
    c->of[BG_COST_HASH] = c->of[BG_COST_READ] = sizeof(float) * scores + sizeof(int64_t) * sequences;
    c->of[BG_COST_RANKED] = 4 * scores;
    c->of[BG_COST_FILE] = 1;
    return BG_OK;
}

static void ends(const bg_workload *w, const bg_plan *plan, bg_ends_costs *out)
{
    double queries = (double)w->queries, n = (double)w->sequences, top = n < MERGE_TOP ? n : MERGE_TOP;
    (void)plan;
    out->final_bytes = bg_store_file_bytes() + 13 * bg_store_dataset_bytes(queries, sizeof(double)) +
                       bg_store_dataset_bytes(queries * MERGE_BINS, sizeof(int64_t)) +
                       bg_store_dataset_bytes(queries * (double)merge_tail(w->sequences, MERGE_TAIL), 4) +
                       bg_ranked_disk_bytes(queries, top, n);
}

static const bg_phase_costs phase = { .name = "merging", .bytes = bytes, .tasks = tasks };

const bg_stage_costs merge_costs = { .name = "merge_scores", .ends = ends, .n_phases = 1, .phase = &phase };
