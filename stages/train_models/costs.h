/* costs.h - what train_models holds, computes and writes: for itself and for plan. */
#ifndef BG_STAGES_TRAIN_MODELS_COSTS_H
#define BG_STAGES_TRAIN_MODELS_COSTS_H

#include "bregman/workload.h"

/* Unless options say otherwise. */
#define TRAIN_BATCH_TOKENS 16384
#define TRAIN_SLICES       8

extern const bg_stage_costs train_costs;

#endif /* BG_STAGES_TRAIN_MODELS_COSTS_H */
