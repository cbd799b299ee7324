/* workload.h - what a stage has to do, on which grid, and what that costs.
 *
 * A stage says it in its costs.c, in a bg_stage_costs: it makes its own budget from that, and plan asks it about work
 * that is to come.  Nothing here opens a file or sends a message. */
#ifndef BG_WORKLOAD_H
#define BG_WORKLOAD_H

#include "bregman/budget.h"
#include "bregman/comm.h"
#include "bregman/cost.h"
#include "bregman/factor_kind.h"
#include "bregman/refine.h"
#include "bregman/score.h"
#include "bregman/share.h"
#include "bregman/training.h"

typedef struct bg_stage_costs bg_stage_costs;

/* A training, its sequences all of one length. */
typedef struct {
    bg_training_plan plan;
    size_t n_trained, n_values;             /* numbers (parameters.h) */
    size_t data_bytes;                      /* of training_data.h */
    uint64_t sequences, epochs, steps;      /* of an epoch; steps 0: whole epochs */
    uint64_t step_sequences;                /* at most */
    uint64_t heldout_sequences, eval_steps; /* eval_steps 0: at the end only */
    uint64_t save_steps;                    /* 0: not before the end */
    bool half;                              /* saved in 2 bytes a number */
    uint64_t bank;                          /* so many models, a rank each, of which losses stay; 0: one of all ranks */
} bg_workload_training;

/* Rankings that are compared. */
typedef struct {
    size_t rankings, layers; /* layers of all of them together */
    size_t top, ngrams;
    size_t query_ids; /* token ids of the queries are below */
    size_t pairs;     /* of a query and a relation */
} bg_workload_comparison;

/* A stage fills in what its own costs ask for, plan everything.  The model has its sites' shapes (tracking.h). */
typedef struct {
    const bg_stage_costs *stage;
    const bg_model *model;
    const bg_share *share; /* [grid.pipeline_size] */
    bg_grid grid;          /* of the rank in question; its communicators are not looked at */
    uint64_t memory_limit;
    uint64_t sequences, corpus_sequences; /* to score, of so many in the token files */
    uint64_t covariance_sequences, lambda_sequences, queries;
    uint64_t prefilter_top;                   /* candidates of each query; 0: all sequences are scored */
    uint64_t unit_sequences;                  /* of a work unit; 0: as the stage chooses */
    uint64_t erased_sequences;                /* to score besides, each with a token erased or none */
    size_t rows, query_rows, query_loss_rows; /* of the longest sequence, and query */
    size_t subgrid_side;                      /* of the fit */
    bg_factor_kind factor_kind;               /* as the model is shaped (bg_factor_kind_shape) */
    bool diagonal;
    size_t columns; /* of compressed queries at most, SIZE_MAX: all */
    bg_score_detail detail;
    bool gradient_norms;             /* beside the scores */
    const bg_queries_extent *extent; /* of compressed queries that are there; NULL: as `columns` says */
    bg_workload_training training;
    bg_refine_load refine;             /* of compress_queries */
    bg_workload_comparison comparison; /* `sequences`, which all rankings have scores of, are compared */
} bg_workload;

static inline const bg_share *bg_workload_share(const bg_workload *w) { return &w->share[w->grid.pipeline_rank]; }

/* Sequences of one length, in units (sweep.h). */
typedef struct {
    uint64_t n_sequences, unit_sequences;
    size_t rows, loss_rows; /* of each sequence */
    bool sampled;
} bg_workload_sweep;

/* What a rank does beside its micro-batches, and memory that no budget counts. */
typedef struct {
    bg_cost begin, resume; /* before the phase's first unit, and in a job that goes on */
    bg_cost unit, part;    /* at a unit's end; what a checkpoint before it costs on top of that */
    bg_cost solve;         /* at a unit's end, too: given up when a stop is asked for */
    double held_bytes;     /* where --memory-limit leaves room */
    double cached_bytes;   /* by HDF5 */
} bg_rank_costs;

/* Work of one or several ranks of the world. */
typedef struct {
    bg_cost cost;        /* decompositions are divided by its ranks */
    size_t first, ranks; /* whose it is */
    size_t steps;        /* between which a stop is answered */
} bg_task_costs;

/* Steps that all ranks take at a time, and what is done between them. */
typedef struct {
    uint64_t n;
    size_t rows;  /* of the largest micro-batch */
    double flops; /* of all ranks, from the first step to the last */
    bg_cost step; /* of the rank with most to do, which sends that meanwhile */
    bg_traffic sends;
    bg_cost between; /* all of it, and the most at a time: a stop waits for it */
    bg_cost longest;
    double work_bytes; /* of files before the last step is done */
} bg_steps_costs;

/* All of a rank are those of w->grid.pipeline_rank. */
typedef struct {
    const char *name;
    /* A rank's, beside the pass. */
    size_t (*bytes)(const bg_workload *w, const bg_plan *plan);
    /* NULL: none of that */
    void (*rank)(const bg_workload *w, const bg_plan *plan, bg_rank_costs *out);
    /* A phase is a sweep, with what a rank's taps compute and read for a micro-batch, ... */
    bg_workload_sweep (*sweep)(const bg_workload *w);
    void (*batch)(const bg_workload *w, const bg_plan *plan, const bg_batch_shape *b, bg_cost *cost);
    /* ... or steps, ... */
    void (*steps)(const bg_workload *w, const bg_plan *plan, bg_steps_costs *out);
    /* ... or a list of tasks, *out to be freed with bg_free. */
    bg_status (*tasks)(const bg_workload *w, bg_task_costs **out, size_t *n, bg_err *err);
} bg_phase_costs;

/* Before the first phase and after the last. */
typedef struct {
    bg_cost begin; /* what is hashed beside the model, and read by every rank */
    bg_cost end;   /* of each of so many ranks */
    double end_ranks;
    bool end_stops;     /* a stop is answered during it */
    double final_bytes; /* that stay on disk; work files are what phases write */
} bg_ends_costs;

struct bg_stage_costs {
    const char *name;
    size_t activation_bytes;                   /* of a micro-batch; 0: it does not run the model */
    const char *spills;                        /* as of bg_demand */
    bool in_passes;                            /* over the blocks of a share, where memory does not hold all */
    bool owns_values;                          /* of all weights: none are mapped, and there are no pipelines */
    bool (*is_possible)(const bg_workload *w); /* NULL: always */
    double (*tap_flops)(const bg_workload *w, const bg_site *site); /* by which the model is divided too; NULL: none */
    /* bg_demand.cost of micro-batches up to a whole unit, of sequences of one length; NULL: none */
    double (*rows_cost)(const bg_workload *w, size_t rows);
    void (*ends)(const bg_workload *w, const bg_plan *plan, bg_ends_costs *out);
    size_t n_phases;
    const bg_phase_costs *phase;
};

/* Cut the model: w->share, to be freed with bg_free.  Errors: those of bg_model_divide. */
bg_status bg_workload_divide(const bg_workload *w, bg_share **out, bg_err *err) BG_MUST_CHECK;
/* What the rank holds in the phase that takes most, pass and pipeline included: bg_demand.bytes of a bg_workload. */
size_t bg_workload_bytes(const void *workload, const bg_plan *plan);
/* The stage's demand, w lent; batch_tokens as of the stages' option, 0: as activation_bytes says. */
bg_demand bg_workload_demand(const bg_workload *w, size_t batch_tokens);

#endif /* BG_WORKLOAD_H */
