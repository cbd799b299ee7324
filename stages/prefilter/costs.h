/* costs.h - what prefilter holds, reads and writes: for itself and for plan. */
#ifndef BG_STAGES_PREFILTER_COSTS_H
#define BG_STAGES_PREFILTER_COSTS_H

#include "bregman/workload.h"

/* Unless options say otherwise. */
#define PREFILTER_TOP            10000
#define PREFILTER_UNIT_SEQUENCES 65536

enum { PREFILTER_BLOCK_TOKENS = 1 << 20 }; /* read at a time, or the longest sequence */

/* Its units are in the hands of grid.world_size ranks of one thread. */
extern const bg_stage_costs prefilter_costs;

#endif /* BG_STAGES_PREFILTER_COSTS_H */
