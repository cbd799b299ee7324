/* train_models.h - the stage without its main(), so that tests can link it. */
#ifndef BG_STAGES_TRAIN_MODELS_H
#define BG_STAGES_TRAIN_MODELS_H

#include "bregman/stage.h"

/* Where the defaults are said once: for main.c and costs.c. */
#define TRAIN_BATCH_TOKENS 16384
#define TRAIN_SLICES       8

typedef struct {
    const char *model, *config, *queries, *output, *bank, *modules, *optimizer, *schedule, *save_dtype;
    bg_list tokens, heldout, subset, mask;
    bg_range seeds;
    uint64_t seed, epochs, steps, batch_tokens, slices, micro_batch_tokens, warmup_steps, eval_steps, save_steps;
    double rate, beta1, beta2, epsilon, momentum, weight_decay, clip_norm, final_rate;
} train_models_config;

bg_status train_models_run(const void *config, const bg_context *ctx, bg_err *err) BG_MUST_CHECK;

#endif /* BG_STAGES_TRAIN_MODELS_H */
