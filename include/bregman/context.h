/* context.h - what a stage gets beside its own options. */
#ifndef BG_CONTEXT_H
#define BG_CONTEXT_H

#include <stdint.h>

#include "bregman/comm.h"

typedef struct {
    const char *name;     /* of the stage, "fit_factors" */
    const char *options;  /* all options as one JSON object, defaults included */
    const char *identity; /* the same without no_effect options and paths of outputs */
    bg_grid grid;
    int threads;           /* per rank */
    uint64_t memory_limit; /* bytes a rank may take; UINT64_MAX: no limit */
    const char *scratch;   /* node-local folder for what memory does not hold; NULL: none */
    double checkpoint_s;   /* seconds between checkpoints of unfinished units; 0: none */
    const char *precision; /* of products (gemm.h); other than float32 it is part of the identity; NULL: float32 */
    const char *libraries; /* versions of the libraries, as JSON; NULL: not told */
    double started;        /* seconds since the epoch */
} bg_context;

#endif /* BG_CONTEXT_H */
