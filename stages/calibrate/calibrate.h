/* calibrate.h - the stage without its main(), and what its files share. */
#ifndef BG_STAGES_CALIBRATE_H
#define BG_STAGES_CALIBRATE_H

#include "bregman/cluster.h"
#include "bregman/stage.h"

typedef struct {
    const char *output;
} calibrate_config;

/* Measure this machine, with as many ranks and threads as the call has, and write it as a cluster file of one node. */
bg_status calibrate_run(const void *config, const bg_context *ctx, bg_err *err) BG_MUST_CHECK;

/* kernels.c, files.c: each measures on all ranks at once and fills its own fields of the profile.  Collective. */
bg_status calibrate_kernels(bg_profile *p, MPI_Comm world, bg_err *err) BG_MUST_CHECK;
bg_status calibrate_files(bg_profile *p, const char *folder, const bg_context *ctx, bg_err *err) BG_MUST_CHECK;
/* Mean seconds of a call over MEASURE_S or three calls, whichever is longer, and over ranks: what other users of the
 * machine take counts, as it will in a stage. */
double calibrate_mean_s(void (*call)(void *self), void *self, MPI_Comm world);

#endif /* BG_STAGES_CALIBRATE_H */
