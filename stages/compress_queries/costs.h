/* costs.h - what compress_queries holds, computes and writes: for itself and for plan. */
#ifndef BG_STAGES_COMPRESS_QUERIES_COSTS_H
#define BG_STAGES_COMPRESS_QUERIES_COSTS_H

#include "bregman/workload.h"

#define COMPRESS_UNIT_QUERIES 8 /* unless --unit-queries says otherwise */

extern const bg_stage_costs compress_costs;

/* Floats of the arrays that one module of a share needs at a time. */
typedef struct {
    size_t p, m, pm, scratch, left, right, factors;
} compress_room;
/* What the rank allocates for. */
compress_room compress_needed(const bg_workload *w);
/* What a module's curvature takes in memory. */
size_t compress_factor_floats(const bg_workload *w, const bg_site *site);

#endif /* BG_STAGES_COMPRESS_QUERIES_COSTS_H */
