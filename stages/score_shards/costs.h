/* costs.h - what score_shards holds, computes and writes: for itself and for plan. */
#ifndef BG_STAGES_SCORE_SHARDS_COSTS_H
#define BG_STAGES_SCORE_SHARDS_COSTS_H

#include "bregman/workload.h"

/* Unless options say otherwise. */
#define SCORE_UNIT_SEQUENCES 64
#define SCORE_TOP            100

extern const bg_stage_costs score_costs;

/* What explaining by output tokens takes besides, with micro-batches of so many rows. */
size_t score_outputs_bytes(const bg_workload *w, size_t rows);

/* The work of the sweep over w->erased_sequences. */
bg_workload score_erased_load(const bg_workload *w);

/* The scorer of a rank, for micro-batches of so many rows. */
bg_score_task score_task(const bg_workload *w, size_t batch_rows);

#endif /* BG_STAGES_SCORE_SHARDS_COSTS_H */
