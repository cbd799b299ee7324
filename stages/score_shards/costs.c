#include "costs.h"

#include "bregman/ranking.h"
#include "bregman/store.h"
#include "bregman/tangent.h"

/* Sequences of the largest unit. */
static uint64_t unit_of(const bg_workload *w)
{
    uint64_t n = w->unit_sequences > 0 ? w->unit_sequences : SCORE_UNIT_SEQUENCES;
    return n < w->sequences ? n : w->sequences;
}

static bg_queries_extent extent_of(const bg_workload *w)
{
    return w->extent != NULL ? *w->extent : bg_queries_expect(w->model, bg_workload_share(w), w->queries, w->columns);
}

bg_score_task score_task(const bg_workload *w, size_t batch_rows)
{
    return (bg_score_task){ .model = w->model,
                            .share = w->share,
                            .n_shares = w->grid.pipeline_size,
                            .rank = w->grid.pipeline_rank,
                            .detail = w->detail,
                            .unit_sequences = unit_of(w),
                            .unit_rows = unit_of(w) * w->rows,
                            .batch_rows = batch_rows,
                            .gradient_norms = w->gradient_norms };
}

size_t score_outputs_bytes(const bg_workload *w, size_t rows)
{
    const bg_share *share = bg_workload_share(w);
    return bg_tangent_bytes(w->model, share, rows, BG_LOGITS_BYTES, w->extent->columns / w->extent->n_queries) +
           w->model->n_tracked * sizeof(bg_direction) + w->extent->n_queries * (sizeof(size_t) + rows * sizeof(float));
}

bg_workload score_erased_load(const bg_workload *w)
{
    bg_workload erased = *w;
    erased.sequences = w->erased_sequences;
    erased.unit_sequences = SCORE_UNIT_SEQUENCES;
    erased.detail = BG_SCORE_SEQUENCES;
    erased.gradient_norms = false;
    return erased;
}

/* Queries are held once by the ranks of a node that have the same share; on --scratch neither they nor the scores of a
 * unit take memory. */
static size_t sweep_bytes(const bg_workload *w, const bg_plan *plan)
{
    const bg_score_task task = score_task(w, plan->rows);
    const bg_queries_extent q = extent_of(w);
    size_t all = q.bytes / (size_t)w->grid.place_size + bg_scorer_bytes(&task, &q);
    size_t spilt = q.bytes / (size_t)w->grid.place_size + bg_score_sums_bytes(&task, q.n_queries);
    all += w->detail == BG_SCORE_OUTPUTS ? score_outputs_bytes(w, plan->rows) : 0;
    return plan->on_scratch ? all - spilt : all;
}

/* Of the two sweeps that which takes more, and what is to be swept in the second. */
static size_t bytes(const bg_workload *w, const bg_plan *plan)
{
    const bg_workload erased = score_erased_load(w);
    size_t most = sweep_bytes(w, plan), second = w->erased_sequences > 0 ? sweep_bytes(&erased, plan) : 0;
    return (second > most ? second : most) + w->erased_sequences * (sizeof(uint64_t) + sizeof(uint32_t));
}

static bg_workload_sweep sweep(const bg_workload *w)
{
    return (bg_workload_sweep){ w->sequences, unit_of(w), w->rows, w->rows, false };
}

static void batch(const bg_workload *w, const bg_plan *plan, const bg_batch_shape *b, bg_cost *cost)
{
    const bg_queries_extent q = extent_of(w);
    (void)plan;
    bg_scorer_cost(cost, &q, w->columns, w->model, bg_workload_share(w), b->sequences * b->rows);
    if (w->gradient_norms)
        bg_gradient_norm_cost(cost, w->model, bg_workload_share(w), (double)b->sequences, (double)b->rows);
}

/* The pipeline's first rank writes rows of scores, once: a checkpoint costs a file. */
static void rank(const bg_workload *w, const bg_plan *plan, bg_rank_costs *out)
{
    (void)plan;
    if (w->grid.pipeline_rank != 0)
        return;
    out->unit.of[BG_COST_WRITE] =
        bg_store_dataset_bytes((double)(sweep(w).unit_sequences * w->queries), sizeof(float)) + bg_store_file_bytes();
    out->unit.of[BG_COST_FILE] = out->part.of[BG_COST_FILE] = 1;
}

/* The first rank hashes corpus and queries, and puts the units together, a sequence at a time. */
static void ends(const bg_workload *w, const bg_plan *plan, bg_ends_costs *out)
{
    const bg_share whole = bg_model_whole(w->model);
    double queries = (double)w->queries, n = (double)w->sequences;
    double compressed = (double)bg_queries_expect(w->model, &whole, w->queries, w->columns).bytes;
    (void)plan;
    out->begin.of[BG_COST_HASH] = 4.0 * (double)(w->corpus_sequences * (w->rows + 1)) + compressed;
    out->begin.of[BG_COST_READ] = compressed / w->grid.pipeline_size;
    out->final_bytes = bg_store_dataset_bytes(n * queries, sizeof(float)) + bg_store_dataset_bytes(n, sizeof(int64_t)) +
                       bg_store_dataset_bytes(queries, sizeof(double)) + bg_store_file_bytes() +
                       bg_ranked_disk_bytes(queries, SCORE_TOP, n);
    out->end.of[BG_COST_ROW_WRITE] = n;
    out->end.of[BG_COST_RANKED] = 2 * n * queries;
    out->end.of[BG_COST_WRITE] = out->final_bytes;
    out->end.of[BG_COST_FILE] = 1;
    out->end_ranks = 1;
}

static const bg_phase_costs phase = { .name = "scores", .bytes = bytes, .rank = rank, .sweep = sweep, .batch = batch };

const bg_stage_costs score_costs = { .name = "score_shards",
                                     .activation_bytes = 256 << 20,
                                     .spills = "queries and scores",
                                     .ends = ends,
                                     .n_phases = 1,
                                     .phase = &phase };
