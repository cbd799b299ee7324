#include "bregman/budget.h"

#include <stdio.h>

#include "bregman/log.h"

static uint64_t most_bytes(const bg_demand *d, const bg_context *ctx, const bg_plan *plan)
{
    uint64_t bytes = d->bytes(d->self, plan);
    MPI_Allreduce(MPI_IN_PLACE, &bytes, 1, MPI_UINT64_T, MPI_MAX, ctx->grid.world);
    return bytes;
}

/* The largest micro-batches with which the rest of the plan fits; *bytes: what the rank that needs most then takes. */
static bool fit_rows(const bg_demand *d, const bg_context *ctx, bg_plan *plan, uint64_t *bytes)
{
    size_t least = d->given_rows > 0 ? d->given_rows : d->least_rows;
    for (plan->rows = d->given_rows > 0 ? least : d->best.rows;; plan->rows /= 2) {
        if (plan->rows < least)
            plan->rows = least;
        *bytes = most_bytes(d, ctx, plan);
        if (*bytes <= ctx->memory_limit || plan->rows <= least)
            return *bytes <= ctx->memory_limit;
    }
}

/* From plan->rows, which fit, to d->most_rows, by bisection. */
static size_t most_rows_that_fit(const bg_demand *d, const bg_context *ctx, bg_plan plan)
{
    size_t fits = plan.rows, too_many = d->most_rows + 1;
    for (plan.rows = d->most_rows; too_many - fits > 1; plan.rows = fits + (too_many - fits) / 2)
        *(most_bytes(d, ctx, &plan) <= ctx->memory_limit ? &fits : &too_many) = plan.rows;
    return fits;
}

static double most_cost(const bg_demand *d, const bg_context *ctx, size_t rows)
{
    double cost = d->cost(d->self, rows);
    MPI_Allreduce(MPI_IN_PLACE, &cost, 1, MPI_DOUBLE, MPI_MAX, ctx->grid.world);
    return cost;
}

/* Larger micro-batches than those of a plan that fits, if they cost less. */
static void grow(const bg_demand *d, const bg_context *ctx, bg_plan *plan, uint64_t *bytes)
{
    const double rounding = 1e-9; /* equal costs are no reason */
    size_t usual = plan->rows;
    double least = most_cost(d, ctx, usual);
    for (size_t rows = most_rows_that_fit(d, ctx, *plan); rows > usual; rows -= rows / 2) {
        double cost = most_cost(d, ctx, rows);
        if (cost < least * (1 - rounding)) {
            least = cost;
            plan->rows = rows;
        }
    }
    *bytes = most_bytes(d, ctx, plan);
}

static bg_status refuse(const bg_demand *d, const bg_context *ctx, const bg_plan *plan, uint64_t bytes, bg_err *err)
{
    char passes[64] = "";
    if (plan->passes > 1)
        snprintf(passes, sizeof passes, ", %zu passes over the modules", plan->passes);
    if (d->given_rows > 0)
        return BG_FAIL(err, BG_ENOMEM,
                       "the work was begun with micro-batches of %zu rows, for which a rank needs %.0f MB%s, but --memory-limit "
                       "is %.0f MB: give a higher one%s%s, or remove the work folder to begin anew",
                       plan->rows, (double)bytes * 1e-6, passes, (double)ctx->memory_limit * 1e-6,
                       d->spills != NULL && !plan->on_scratch ? ", --scratch" : "",
                       d->no_pipeline ? "" : " or a deeper --pipeline");
    return BG_FAIL(err, BG_ENOMEM,
                   "a rank needs %.0f MB even with micro-batches of %zu rows%s%s%s%s, but --memory-limit is %.0f MB: "
                   "%s%s",
                   (double)bytes * 1e-6, plan->rows, passes, plan->on_scratch ? " and " : "",
                   plan->on_scratch ? d->spills : "", plan->on_scratch ? " on --scratch" : "",
                   (double)ctx->memory_limit * 1e-6, d->no_pipeline ? "give a higher one" : "use a deeper --pipeline",
                   d->spills != NULL && !plan->on_scratch ? ", or --scratch" : "");
}

bg_status bg_budget_choose(const bg_demand *d, const bg_context *ctx, bg_plan *out, bg_err *err)
{
    bg_plan plan = d->best;
    uint64_t bytes = 0;
    if (d->given_rows > 0 && d->given_rows < d->least_rows)
        return BG_FAIL(err, BG_EFORMAT,
                       "the work folder's IDENTITY is damaged: micro-batches of %zu rows, and a sequence has %zu; remove "
                       "the folder",
                       d->given_rows, d->least_rows);
    bool fits = fit_rows(d, ctx, &plan, &bytes);
    if (!fits && d->spills != NULL && ctx->scratch != NULL) {
        plan.on_scratch = true;
        fits = fit_rows(d, ctx, &plan, &bytes);
    }
    while (!fits && plan.passes < d->most_passes) {
        plan.passes++;
        fits = fit_rows(d, ctx, &plan, &bytes);
    }
    if (fits && d->cost != NULL && d->given_rows == 0 && d->most_rows > plan.rows && ctx->memory_limit != UINT64_MAX)
        grow(d, ctx, &plan, &bytes);
    if (plan.rows != d->best.rows)
        snprintf(plan.identity, sizeof plan.identity, "micro-batches of %zu rows", plan.rows);
    *out = plan;
    if (!fits)
        return refuse(d, ctx, &plan, bytes, err);
    bg_log("memory a rank: %.0f MB at most, with micro-batches of %zu rows%s%s%s%s; weights are mapped",
           (double)bytes * 1e-6, plan.rows, plan.passes > 1 ? " and several passes" : "", plan.on_scratch ? ", " : "",
           plan.on_scratch ? d->spills : "", plan.on_scratch ? " on scratch" : "");
    return BG_OK;
}
