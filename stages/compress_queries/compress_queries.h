/* compress_queries.h - the stage without its main(), so that tests can link it. */
#ifndef BG_STAGES_COMPRESS_QUERIES_H
#define BG_STAGES_COMPRESS_QUERIES_H

#include "bregman/attempt.h"
#include "bregman/budget.h"
#include "bregman/factors.h"
#include "bregman/inputs.h"
#include "bregman/precondition.h"
#include "bregman/stage.h"
#include "bregman/sweep.h"
#include "bregman/units.h"
#include "costs.h"

typedef struct {
    const char *model, *factors, *queries, *output, *rank, *preconditioner, *modules;
    double damping_factor, damping, tolerance;
    uint64_t seed, max_rank, unit_queries;
} compress_queries_config;

bg_status compress_queries_run(const void *config, const bg_context *ctx, bg_err *err) BG_MUST_CHECK;

/* Of one query and module: factors of the preconditioned gradient, and the variances that bg_compress gives. */
typedef struct {
    const float *left, *right;
    double variance, error;
    uint32_t columns; /* that it needs; 0: not kept */
} compressed_query;

typedef struct {
    double variance, error;
} query_sum;

/* One call of the stage. */
typedef struct {
    const compress_queries_config *c;
    const bg_context *ctx;
    char *modules; /* --modules, or those of the factors */
    bg_model *model;
    bg_tokens *queries;
    bg_factors *factors;
    bg_pass *pass;
    bg_share *share, own; /* [pipeline_size], and this rank's */
    bg_workload load;
    bg_plan plan;
    bg_inputs in;
    bg_hash model_hash;
    bg_damping damping;
    size_t most_columns;      /* asked for; SIZE_MAX: all */
    double tolerance;         /* 0: not by tolerance */
    char work[BG_PATH_BYTES]; /* folder of the units */
    size_t *block;            /* [units.n_groups] those with tracked modules */
    bg_units units;
    /* the unit and batch in hand */
    bg_unit unit;
    uint64_t kept;                /* its first sequence that no published file has */
    bg_store **file;              /* [n_blocks] being written, of this rank's tracked blocks: queries from `kept` on */
    bool *finished;               /* [n_blocks] all of that was published by an earlier attempt */
    float *rotated_a, *rotated_d; /* [rows, largest M], [rows, largest P] */
    float *gradient, *scratch, *left, *right;
    bg_curvature *held;       /* [n_tracked] of modules whose factors stay in memory; p is 0 of the others */
    uint64_t room;            /* for further ones: what --memory-limit leaves */
    uint32_t *columns_needed; /* [unit_queries] while rank 0 assembles: columns that a module's queries need */
    query_sum *sum;           /* [n_sequences] while rank 0 assembles: of each query, over all modules */
    double module_variance;   /* while rank 0 assembles: of the module in hand, over all queries */
    size_t n_silent;          /* modules whose scores are all expected to be 0, and the first of them */
    const char *silent;
} compress;

/* units.c: columns kept of a module's gradients at most. */
size_t compress_columns(const compress *w, const bg_site *site);
/* Callbacks of the sweep, and its tap; self is the compress. */
bg_status compress_unit_find(void *self, bool *done, uint64_t *part, bg_err *err);
bg_status compress_unit_begin(void *self, const bg_unit *unit, uint64_t part, bg_err *err);
bg_status compress_unit_keep(void *self, const bg_unit *unit, uint64_t part, bg_pipeline *l, bg_err *err);
bg_status compress_unit_end(void *self, const bg_unit *unit, bg_pipeline *l, bg_err *err);
bg_status compress_pair(void *self, const bg_pair *pair, bg_err *err);
/* The datasets of a module with n queries and r columns, and one query's rows in them; `rank` is kept of units only. */
bg_status compress_make_datasets(bg_store *s, const bg_site *site, uint64_t n, uint64_t r, bool ranks,
                                 bg_err *err) BG_MUST_CHECK;
bg_status compress_write_query(bg_store *s, const bg_site *site, uint64_t at, const compressed_query *q,
                               bg_err *err) BG_MUST_CHECK;

/* assemble.c: all units into compressed.h5.  Rank 0. */
bg_status compress_assemble(compress *w, bg_err *err) BG_MUST_CHECK;

#endif /* BG_STAGES_COMPRESS_QUERIES_H */
