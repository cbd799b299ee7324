/* stage.h - what every stage executable shares, so that main() is one line. */
#ifndef BG_STAGE_H
#define BG_STAGE_H

#include "bregman/context.h"
#include "bregman/options.h"

typedef struct {
    const char *name, *purpose;
    const bg_opt *opts; /* ends with .name == NULL */
    size_t config_size;
    bool runs_model;     /* it takes the options of stages that do: see bg_stage_main */
    bool keeps_units;    /* nor does it lose what it has done when asked to stop, though it does not run the model */
    bool only_reads;     /* asked to stop, it ends at once */
    const char *example; /* one command line for --help */
    /* The stage proper.  Collective on ctx->grid.world; returns an agreed status. */
    bg_status (*run)(const void *config, const bg_context *ctx, bg_err *err);
} bg_stage;

/* Start MPI, read the options, run the stage, report once, stop MPI.  Adds
 * --threads, --timings, --quiet, --help and --version to the stage's own options, and to those that run the model
 * --pipeline,
 * --memory-limit, --scratch and --checkpoint-minutes.
 * Returns the process exit status: 0 done, 1 failed, 2 usage, 75 stopped by a
 * signal with its finished work kept (run the same command to go on). */
int bg_stage_main(const bg_stage *stage, int argc, char **argv);

/* Versions of hdf5, mpi, blas, eigen (bg_eigen_library), jansson and xxhash, a JSON object; static storage.  Not for
 * use inside parallel regions. */
const char *bg_library_versions(void);

#endif /* BG_STAGE_H */
