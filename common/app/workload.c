#include "bregman/workload.h"

#include "bregman/memory.h"
#include "bregman/pipeline.h"

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

bg_status bg_workload_divide(const bg_workload *w, bg_share **out, bg_err *err)
{
    size_t n = (size_t)w->grid.pipeline_size;
    double *flops = NULL;
    bg_status st = BG_NEW(*out, n, "shares of the model", err);
    if (st == BG_OK && w->stage->tap_flops != NULL)
        st = BG_NEW(flops, w->model->n_tracked, "shares of the model", err);
    for (size_t i = 0; flops != NULL && i < w->model->n_tracked; i++)
        flops[i] = w->stage->tap_flops(w, w->model->tracked[i]);
    if (st == BG_OK)
        st = bg_model_divide(w->model, n, flops, *out, err);
    bg_free(flops);
    return st;
}

size_t bg_workload_bytes(const void *workload, const bg_plan *plan)
{
    const bg_workload *w = workload;
    size_t most = 0;
    for (size_t i = 0; i < w->stage->n_phases; i++)
        most = larger(most, w->stage->phase[i].bytes(w, plan));
    return most + bg_pipeline_pass_bytes(w->model, bg_workload_share(w), &w->grid, plan->rows);
}

static double rows_cost(const void *workload, size_t rows)
{
    const bg_workload *w = workload;
    return w->stage->rows_cost(w, rows);
}

bg_demand bg_workload_demand(const bg_workload *w, size_t batch_tokens)
{
    size_t rows = 0, most_passes = 1;
    for (size_t i = 0; i < w->stage->n_phases; i++)
        if (w->stage->phase[i].sweep != NULL)
            rows = larger(rows, w->stage->phase[i].sweep(w).rows);
        else if (w->stage->phase[i].steps != NULL)
            rows = larger(w->rows, w->training.bank > 0 ? w->query_rows : 0);
    for (int r = 0; r < w->grid.pipeline_size && w->stage->in_passes; r++) {
        bg_section_range own = bg_share_sections(w->model, &w->share[r]);
        most_passes = larger(most_passes, own.end - own.first);
    }
    bg_demand d = { .best = { .passes = 1 },
                    .least_rows = rows,
                    .most_passes = most_passes,
                    .spills = w->stage->spills,
                    .self = w,
                    .bytes = bg_workload_bytes };
    d.best.rows = batch_tokens > 0 ? larger(batch_tokens, rows)
                                   : bg_pass_rows_for(w->model, rows + 1, w->stage->activation_bytes);
    if (w->stage->rows_cost != NULL) {
        size_t sendable = bg_pipeline_most_rows(w->model, w->grid.pipeline_size),
               unit = rows * w->stage->phase->sweep(w).unit_sequences;
        d.cost = rows_cost;
        d.most_rows = unit < sendable ? unit : sendable;
    }
    return d;
}
