/* compress_queries.h - the stage without its main(), so that tests can link it. */
#ifndef BG_STAGES_COMPRESS_QUERIES_H
#define BG_STAGES_COMPRESS_QUERIES_H

#include "bregman/stage.h"

typedef struct {
    const char *model, *factors, *queries, *output, *rank, *preconditioner, *modules;
    double damping_factor, damping, tolerance;
    uint64_t seed, max_rank, unit_queries;
} compress_queries_config;

bg_status compress_queries_run(const void *config, const bg_context *ctx, bg_err *err) BG_MUST_CHECK;

#endif /* BG_STAGES_COMPRESS_QUERIES_H */
