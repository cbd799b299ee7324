/* stage.h - what every stage executable shares, so that main() is one line. */
#ifndef BG_STAGE_H
#define BG_STAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bregman/comm.h"
#include "bregman/notice.h"
#include "bregman/status.h"

/* Field types in a stage's config struct:
 *   STR const char * · U64 uint64_t · F64 double · FLAG bool
 *   RANGE bg_range ("A:B") · LIST bg_list (one or more values until the next
 *   option; repeating the option appends) · BYTES uint64_t ("500M", "2G", "2.5G"; powers of 1024) */
typedef enum { BG_OPT_STR, BG_OPT_U64, BG_OPT_F64, BG_OPT_FLAG, BG_OPT_RANGE, BG_OPT_LIST, BG_OPT_BYTES } bg_opt_type;

/* Sequences A..B-1.  The whole input is {0, UINT64_MAX}; either side of the
 * text "A:B" may be left out. */
typedef struct { uint64_t begin, end; } bg_range;
typedef struct { size_t n; const char **item; } bg_list;

typedef struct {
    const char *name;     /* "--top" */
    bg_opt_type type;
    size_t offset;        /* offsetof the field in the stage's config struct */
    const char *deflt;    /* text of the default; "" leaves STR NULL; NULL: required */
    double lo, hi;        /* inclusive range for numbers */
    const char *help;     /* one line, with the unit */
    bool positional;      /* also takes arguments without an option name */
    bool no_effect;       /* changes speed or talk, never a result: not in the fingerprint */
} bg_opt;

/* What a stage gets beside its own options. */
typedef struct {
    const char *name;       /* of the stage, "fit_factors" */
    const char *options;    /* all options as one JSON object, defaults included */
    const char *identity;   /* the same without no_effect options and paths of outputs */
    bg_grid grid;
    int threads;            /* per rank */
    uint64_t memory_limit;  /* bytes a rank may take; UINT64_MAX: no limit */
    const char *scratch;    /* node-local folder for sums that memory does not hold; NULL: none */
    double checkpoint_s;    /* seconds between checkpoints of unfinished units; 0: none */
    double started;         /* seconds since the epoch */
} bg_context;

typedef struct {
    const char *name, *purpose;
    const bg_opt *opts;   /* ends with .name == NULL */
    size_t config_size;
    bool runs_model;      /* it takes the options of stages that do: see bg_stage_main */
    const char *example;  /* one command line for --help */
    /* The stage proper.  Collective on ctx->grid.world; returns an agreed status. */
    bg_status (*run)(const void *config, const bg_context *ctx, bg_err *err);
} bg_stage;

/* Start MPI, read the options, run the stage, report once, stop MPI.  Adds
 * --threads, --timings, --quiet, --help and --version to the stage's own options, and to those that run the model --pipeline,
 * --memory-limit, --scratch and --checkpoint-minutes.
 * Returns the process exit status: 0 done, 1 failed, 2 usage, 75 stopped by a
 * signal with its finished work kept (run the same command to go on). */
int bg_stage_main(const bg_stage *stage, int argc, char **argv);

/* True once SIGTERM, SIGINT or SIGUSR1 has come to this rank, or, on world rank 0, a file named `stop` lies in the folder given to
 * bg_stop_beside (looked for once a second at most).  Other ranks hear of it by a notice (notice.h): finish the micro-batch or
 * matrix in hand, keep what is done, then return BG_ESTOPPED. */
bool bg_stop_requested(void);
/* Say on a notice that this rank has been asked to stop, if it has; true if any rank has said that streams are to end.  Local. */
bool bg_stop_heard(bg_notice *n);
/* This rank is through: go on listening, and saying so if it is asked to stop, until all are.  Collective. */
void bg_stop_wait(bg_notice *n);
/* The folder that `file` is in, where the stop file is looked for.  BG_ESTOPPED on world rank 0 if it is there already. */
bg_status bg_stop_beside(const char *file, bg_err *err) BG_MUST_CHECK;

/* Levenshtein distance, of names cut to 63 characters: for "did you mean". */
size_t bg_edit_distance(const char *a, const char *b);

/* What this program was built from and runs on; static storage.  bg_library_versions is a JSON
 * object: hdf5, mpi, blas, eigen (bg_eigen_library), jansson, xxhash.  Not for use inside parallel regions. */
const char *bg_version(void);         /* "0.1.0" */
const char *bg_git_revision(void);    /* "" outside a git checkout */
const char *bg_library_versions(void);

#endif /* BG_STAGE_H */
