/* budget.h - how a stage that runs the model fits into --memory-limit.
 *
 * Mapped weights are not counted: the ranks of a node share them, and the system can let them go.
 */
#ifndef BG_BUDGET_H
#define BG_BUDGET_H

#include <stdbool.h>
#include <stddef.h>

#include "bregman/context.h"

/* How a stage works. */
typedef struct {
    size_t rows;       /* of a micro-batch */
    size_t passes;     /* over the work, each for a part of the rank's modules */
    bool on_scratch;   /* what spills (bg_demand) lies in --scratch */
    char identity[64]; /* what to append to the fingerprint: micro-batches other than the usual ones change
                        * rounding; "" if they are as usual */
} bg_plan;

typedef struct {
    bg_plan best;       /* what it does without a limit */
    size_t given_rows;  /* those that the work was begun with (attempt.h): no others will do; 0: none yet */
    size_t least_rows;  /* a sequence is not cut */
    size_t most_passes; /* of any rank; 1: the stage cannot do with more than one */
    bool no_pipeline;   /* it knows none, which else would be the remedy */
    const char *spills; /* what can lie on --scratch, "sums"; NULL: nothing */
    size_t most_rows;   /* that a limit may leave room for, and that are of use */
    const void *self;
    /* This rank's under a plan.  Local; more rows take no less, and scratch or more passes no more. */
    size_t (*bytes)(const void *self, const bg_plan *plan);
    /* What micro-batches of so many rows cost this rank under a limit, in a measure of the stage's own.  NULL: the best
     * plan's, or the largest below that fit. */
    double (*cost)(const void *self, size_t rows);
} bg_demand;

/* The first plan that fits every rank: micro-batches halved as far as they go, then what spills on --scratch where it
 * is given, then more passes over the work.  Under a limit micro-batches become larger than the best plan's, by
 * halves of the most that fit, where that costs less the rank to which it costs most.  Collective on ctx->grid.world;
 * the same plan on all ranks.  Logs what it is and what it takes. Errors: BG_ENOMEM with what the smallest plan takes,
 * or that with the given rows; BG_EFORMAT if a sequence does not fit into these. */
bg_status bg_budget_choose(const bg_demand *d, const bg_context *ctx, bg_plan *out, bg_err *err) BG_MUST_CHECK;

#endif /* BG_BUDGET_H */
