/* measures.h - what is measured, and how. */
#ifndef BG_STAGES_CALIBRATE_MEASURES_H
#define BG_STAGES_CALIBRATE_MEASURES_H

#include "bregman/cluster.h"
#include "bregman/context.h"

/* kernels.c, files.c: each measures on all ranks at once and fills its own fields of the profile.  Collective. */
bg_status calibrate_kernels(bg_profile *p, MPI_Comm world, bg_err *err) BG_MUST_CHECK;
bg_status calibrate_files(bg_profile *p, const char *folder, const bg_context *ctx, bg_err *err) BG_MUST_CHECK;
/* Mean seconds of a call over MEASURE_S or three calls, whichever is longer, and over ranks: what other users of the
 * machine take counts, as it will in a stage. */
double calibrate_mean_s(void (*call)(void *self), void *self, MPI_Comm world);

#endif /* BG_STAGES_CALIBRATE_MEASURES_H */
