/* score_shards.h - the stage without its main(), so that tests can link it. */
#ifndef BG_STAGES_SCORE_SHARDS_H
#define BG_STAGES_SCORE_SHARDS_H

#include "bregman/stage.h"

bg_status score_shards_run(const void *config, const bg_context *ctx, bg_err *err) BG_MUST_CHECK;

#endif /* BG_STAGES_SCORE_SHARDS_H */
