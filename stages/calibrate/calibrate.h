/* calibrate.h - the stage without its main(), so that tests can link it. */
#ifndef BG_STAGES_CALIBRATE_H
#define BG_STAGES_CALIBRATE_H

#include "bregman/stage.h"

typedef struct {
    const char *output;
} calibrate_config;

/* Measure this machine, with as many ranks and threads as the call has, and write it as a cluster file of one node. */
bg_status calibrate_run(const void *config, const bg_context *ctx, bg_err *err) BG_MUST_CHECK;

#endif /* BG_STAGES_CALIBRATE_H */
