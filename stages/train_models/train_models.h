/* train_models.h - the stage without its main(), so that tests can link it. */
#ifndef BG_STAGES_TRAIN_MODELS_H
#define BG_STAGES_TRAIN_MODELS_H

#include "bregman/stage.h"

bg_status train_models_run(const void *config, const bg_context *ctx, bg_err *err) BG_MUST_CHECK;

#endif /* BG_STAGES_TRAIN_MODELS_H */
