/* merge_scores.h - the stage without its main(), so that tests can link it. */
#ifndef BG_STAGES_MERGE_SCORES_H
#define BG_STAGES_MERGE_SCORES_H

#include "bregman/stage.h"

typedef struct {
    const char *scores, *output;
    uint64_t top;
    double tail;
} merge_scores_config;

bg_status merge_scores_run(const void *config, const bg_context *ctx, bg_err *err) BG_MUST_CHECK;

#endif /* BG_STAGES_MERGE_SCORES_H */
