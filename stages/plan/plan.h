/* plan.h - the stage without its main(), so that tests can link it, and what its files share.
 *
 * What is done, held and written the stages say (workload.h), asked about a sketch of the model; here it becomes
 * seconds on a cluster, and grids are compared. */
#ifndef BG_STAGES_PLAN_H
#define BG_STAGES_PLAN_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#include "bregman/cluster.h"
#include "bregman/stage.h"
#include "bregman/workload.h"

typedef struct {
    const char *config, *preset, *cluster, *modules, *blocks, *weights, *preconditioner, *refine;
    uint64_t sequences, sequence_tokens, fit_sequences, lambda_sequences, queries, query_tokens, completion_tokens,
        rank;
    uint64_t prefilter, compare, refine_sequences, refine_steps;
    uint64_t unit_sequences, pipeline, memory_limit, subgrid_side;
    uint64_t nodes, ranks_per_node, cores_per_node;
    bg_list stages;
    const char *train_modules, *optimizer, *save_dtype;
    uint64_t train_sequences, bank, epochs, steps, batch_tokens, slices, heldout_sequences, eval_steps, save_steps;
    double checkpoint_minutes, time_limit;
    bool no_diagonal, head_blocks, json;
} plan_config;

bg_status plan_run(const void *config, const bg_context *ctx, bg_err *err) BG_MUST_CHECK;

/* ---- the work ---- */

/* What there is to do, of which `load` is asked of the stages. */
typedef struct {
    const plan_config *c;
    bg_model *model, *trained; /* the second as train_models has it; NULL: it is not planned */
    char name[128];
    size_t blocks; /* k of the covariances: in the model's shapes, too */
    double model_bytes;
    bg_workload load;
} plan_work;

/* Sequences that are scored: all, or as many as the queries' candidates can be. */
static inline uint64_t plan_scored(const bg_workload *load)
{
    uint64_t all = load->corpus_sequences, top = load->prefilter_top;
    return top == 0 || top > all / load->queries ? all : top * load->queries;
}

/* As many elements of an array as Slurm takes by default. */
enum { PLAN_ARRAY_SHARDS = 1000 };

/* What is decided about a run. */
typedef struct {
    size_t nodes, ranks_per_node, threads, data, pipeline;
    uint64_t memory_limit; /* beside mapped weights and the process itself */
    size_t shards;         /* elements of arrays, each on `nodes` nodes; 0: the stage has none */
} plan_grid;

/* ---- sweep.c: what a sweep takes ---- */

/* Micro-batches of one unit: whole batches and, if `rest` is not 0, one of fewer sequences. */
typedef struct {
    size_t sequences, rows; /* of a whole batch */
    size_t whole, rest;     /* number of whole batches; sequences of the last one */
} plan_batches;
plan_batches plan_batches_of(size_t unit, size_t sequence_rows, size_t max_rows);

/* A rank's seconds of a whole batch, of the rest, of a unit's end, what a part adds to that, and what is done before it
 * that a stop does not wait for. */
typedef struct {
    double whole_s, rest_s, unit_end_s, part_s, solve_s;
} plan_rank_cost;

/* ---- a phase, a stage ---- */

typedef struct {
    const char *name;
    double flops, seconds;
    double bytes;        /* of the rank that holds most, without mapped weights and the process itself */
    double peak_bytes;   /* peak resident set that --timings would show: mapped weights and process too */
    double idle;         /* part of the ranks' time spent waiting: bubble, imbalance, last units, checkpoints */
    double unit_s;       /* a work unit */
    double checkpoints;  /* of one job, in all */
    double checkpoint_s; /* each: parts written, and the pipeline filled again */
    double interval_s;   /* from one to the next; 0: none are taken */
    double stop_s;       /* from being asked to stop to the end */
} plan_phase;

enum { PLAN_PHASES = 4, PLAN_MARGIN_S = 60 }; /* Slurm may be late with a warning, and files with being written */

typedef struct {
    const char *name; /* NULL: it is not planned */
    bool possible;
    char why_not[200];
    double needs_bytes; /* a rank's, where memory is why not */
    plan_grid grid;
    bg_plan plan;
    size_t units; /* of training steps */
    size_t n_phases;
    plan_phase phase[PLAN_PHASES];
    double start_s;             /* hashing and reading before the first phase */
    double resume_s;            /* the same of a job that goes on: parts are read back as well */
    double final_s;             /* from the last phase to the end, when no stop is answered */
    double job_s;               /* one job: a shard; else all */
    double stop_s, warning_s;   /* the longest of all phases; how long before a time limit to ask for it */
    double restarts, restart_s; /* of one job under --time-limit; each costs so much at most */
    double flops, seconds;      /* of the whole stage, shards one after another where they do not fit side by side */
    double weights_bytes;       /* mapped by the rank that maps most */
    double bytes, peak_bytes;   /* the most of all phases */
    double work_bytes, final_bytes; /* disk: at the end of the last phase, and what stays */
    double part_bytes;              /* of units in progress, beside the work files */
    double message_bytes;           /* a batch's activations or gradients, to one neighbour */
    double network_bytes;           /* of all messages */
} plan_stage;

/* costing.c: the stage on a grid; `possible` says whether it can run there. */
void plan_cost_stage(const bg_stage_costs *of, const plan_work *w, const bg_cluster *c, const plan_grid *g,
                     plan_stage *out);

/* sweep.c: time of all units over the grid's columns without checkpoints, of one unit, of a stop (a batch's way through
 * the pipeline and the files), and of a checkpoint (parts written, the pipeline filled again). */
void plan_sweep(plan_phase *out, const plan_grid *g, size_t units, const plan_batches *b, const plan_rank_cost *rank,
                double message_s);
/* The same of each of so many passes, and what checkpoints add. */
void plan_count_parts(plan_phase *p, size_t passes, double minutes);
/* Parts of a unit that are there at a time. */
double plan_parts_alive(const plan_phase *p);
/* The warning that the stage needs, and with a time limit (0: none) its restarts; not possible if it would get nowhere.
 */
void plan_count_restarts(plan_stage *s, double limit_hours);

/* ---- choosing and printing ---- */

/* One that is not planned has no name. */
enum { PLAN_TRAIN, PLAN_FIT, PLAN_COMPRESS, PLAN_PREFILTER, PLAN_SCORE, PLAN_MERGE, PLAN_COMPARE, PLAN_STAGES };

void plan_print(FILE *to, const plan_work *w, const bg_cluster *c, const plan_stage stage[PLAN_STAGES]);
bg_status plan_print_json(FILE *to, const plan_work *w, const bg_cluster *c, const plan_stage stage[PLAN_STAGES],
                          bg_err *err) BG_MUST_CHECK;

#endif /* BG_STAGES_PLAN_H */
