/* costs.h - what compress_queries holds, computes and writes: for itself and for plan. */
#ifndef BG_STAGES_COMPRESS_QUERIES_COSTS_H
#define BG_STAGES_COMPRESS_QUERIES_COSTS_H

#include "bregman/workload.h"

#define COMPRESS_DAMPING_FACTOR 0.1
#define COMPRESS_UNIT_QUERIES   8 /* unless --unit-queries says otherwise */

extern const bg_stage_costs compress_costs;

/* Floats of what the tap works in with micro-batches of so many rows, as the largest of a run of modules makes each:
 * rows in the eigenbases, one query, and a module's factors. */
enum { ROTATED_A, ROTATED_D, GRADIENT, SCRATCH, LEFT, RIGHT, FACTORS, ARRAYS };
void compress_floats(const bg_workload *w, bg_site_range sites, size_t rows, size_t out[ARRAYS]);
/* This rank's, and those of the whole model. */

/* Which modules' factors stay in `room` bytes: those of the first, as far as they fit.
 *   holds [out, n_tracked, may be NULL]  false before */
typedef struct {
    uint64_t modules, bytes, bytes_of_all;
} compress_held;
compress_held compress_hold(const bg_workload *w, uint64_t room, bool *holds);

/* What so many micro-batches of so many rows cost (bg_demand.cost). */
double compress_rows_cost(const bg_workload *w, size_t rows, uint64_t batches);

#endif /* BG_STAGES_COMPRESS_QUERIES_COSTS_H */
