/* costs.h - what merge_scores holds, reads and writes: for itself and for plan. */
#ifndef BG_STAGES_MERGE_SCORES_COSTS_H
#define BG_STAGES_MERGE_SCORES_COSTS_H

#include "bregman/workload.h"

/* Unless options say otherwise. */
#define MERGE_TOP  100
#define MERGE_TAIL 0.0001

/* Histogram bins: 8 a decade from 1e-8 to 1e12 on either side of 0, and one around it. */
enum {
    MERGE_BINS_PER_DECADE = 8,
    MERGE_LOW_DECADE = -8,
    MERGE_HIGH_DECADE = 12,
    MERGE_BINS_PER_SIDE = MERGE_BINS_PER_DECADE * (MERGE_HIGH_DECADE - MERGE_LOW_DECADE),
    MERGE_BINS = 2 * MERGE_BINS_PER_SIDE + 1
};
enum { MERGE_ROWS = 4096 }; /* read at a time */

extern const bg_stage_costs merge_costs;

/* Of n scores of a query, those in its tail. */
size_t merge_tail(uint64_t n, double part);

#endif /* BG_STAGES_MERGE_SCORES_COSTS_H */
