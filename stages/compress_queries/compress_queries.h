/* compress_queries.h - the stage without its main(), so that tests can link it. */
#ifndef BG_STAGES_COMPRESS_QUERIES_H
#define BG_STAGES_COMPRESS_QUERIES_H

#include "bregman/attempt.h"
#include "bregman/budget.h"
#include "bregman/factors.h"
#include "bregman/inputs.h"
#include "bregman/precondition.h"
#include "bregman/refine.h"
#include "bregman/stage.h"
#include "bregman/sweep.h"
#include "bregman/units.h"
#include "costs.h"

typedef struct {
    const char *model, *factors, *queries, *output, *rank, *preconditioner, *modules, *refine;
    bg_list refine_tokens;
    bg_range refine_sequences;
    double damping_factor, damping, refine_damping_factor, tolerance;
    uint64_t seed, max_rank, unit_queries, refine_steps;
} compress_queries_config;

bg_status compress_queries_run(const void *config, const bg_context *ctx, bg_err *err) BG_MUST_CHECK;

/* How the solve is refined, and whose curvature it is that it solves with. */
typedef struct {
    bg_refinement kind;
    size_t steps;
    bg_range sequences; /* of --refine-tokens */
} compress_refinement;

/* ---- inputs.c: what is read ---- */

typedef struct {
    bg_model *model;
    bg_tokens *queries;
    bg_tokens *refine_tokens; /* NULL: not refined */
    bg_factors *factors;
    char *modules; /* --modules, or those of the factors */
    bg_hash model_hash;
    bg_inputs identities;
} compress_inputs;

/* r's sequences are cut to what the files have.  Collective; an agreed status.  Close also after an error. */
bg_status compress_open(compress_inputs *in, const compress_queries_config *c, compress_refinement *r,
                        const bg_context *ctx, bg_err *err) BG_MUST_CHECK;
void compress_close(compress_inputs *in);

/* ---- what is chosen ---- */

typedef struct {
    bg_damping damping;
    compress_refinement refine;
    double tolerance; /* 0: not by tolerance */
    uint64_t seed;
    bg_workload load;     /* with columns that are asked for at most, */
    bg_share *share;      /* and [pipeline_size] those of the ranks */
    bg_plan batches;      /* their rows */
    uint64_t factor_room; /* bytes for factors that stay in memory once they are read */
    bg_units units;       /* their folder is `work` */
    char work[BG_PATH_BYTES];
    size_t *group; /* [n_sections + 1] of units: the sections with tracked modules, then losses, of the whole model */
} compress_plan;

/* ---- units.c: the unit in hand as one file per section of the model, and one of the queries' losses ---- */

/* Of one query and module: factors of the preconditioned gradient, and the variances of its score and of that's errors
 * (precondition.h). */
typedef struct {
    float *left, *right, kept;
    double error, variance, sampling;
    uint32_t columns; /* that it needs: kept of units only */
} compressed_query;

/* The datasets of compressed queries that each module has; those of units have COMPRESS_COLUMNS too. */
enum { COMPRESS_COLUMNS = 6, COMPRESS_UNIT_DATASETS };
bg_status compress_make_datasets(bg_store *s, const bg_site *site, uint64_t n, uint64_t r, int datasets,
                                 bg_err *err) BG_MUST_CHECK;
/* One query's row in them, of r columns. */
bg_status compress_read_query(const bg_store *s, const bg_site *site, uint64_t row, uint64_t r, compressed_query *q,
                              bg_err *err) BG_MUST_CHECK;
bg_status compress_write_query(bg_store *s, const bg_site *site, uint64_t row, compressed_query *q, int datasets,
                               bg_err *err) BG_MUST_CHECK;

typedef struct compress_unit compress_unit;
/* model and plan are lent.  Free with compress_unit_free, also after an error. */
bg_status compress_unit_new(compress_unit **out, const bg_model *model, const compress_plan *plan, const bg_grid *g,
                            bg_err *err) BG_MUST_CHECK;
void compress_unit_free(compress_unit *u);
/* The sweep's callbacks; serve gives it all of them, self being the unit. */
bg_status compress_unit_find(void *unit, bool *done, uint64_t *part, bg_err *err) BG_MUST_CHECK;
bg_status compress_unit_begin(void *unit, const bg_unit *u, uint64_t part, bg_err *err) BG_MUST_CHECK;
bg_status compress_unit_keep(void *unit, const bg_unit *u, uint64_t part, bg_pipeline *l, bg_err *err) BG_MUST_CHECK;
bg_status compress_unit_losses(void *unit, const bg_batch *batch, const float *loss, bg_err *err) BG_MUST_CHECK;
void compress_unit_serve(compress_unit *u, bg_sweep *s);
/* What the tap says of the unit in hand: is the file of the site's section yet to be made, and what one of its queries
 * comes to? */
bool compress_unit_wants(const compress_unit *u, const bg_site *site);
bg_status compress_unit_write(compress_unit *u, const bg_site *site, uint64_t query, compressed_query *q,
                              bg_err *err) BG_MUST_CHECK;

/* residual [steps + 1] of a query that was refined, into the file of the first section. */
bg_status compress_unit_write_residual(compress_unit *u, uint64_t query, const double *residual,
                                       bg_err *err) BG_MUST_CHECK;

/* ---- tap.c: one gradient per query and module, preconditioned and truncated ---- */

typedef struct compress_tap compress_tap;
/* All are lent.  Free with compress_tap_free. */
bg_status compress_tap_new(compress_tap **out, const compress_inputs *in, const compress_plan *plan,
                           compress_unit *unit, bg_err *err) BG_MUST_CHECK;
void compress_tap_free(compress_tap *t);
/* The gradient tap; self is the compress_tap. */
bg_status compress_pair(void *self, const bg_pair *pair, bg_err *err);

/* What a query's preconditioned gradient [P, M], in the curvature's basis, is truncated to, into the unit.
 *   sampling [in]  bg_curvature_sampling_variance of it; NAN: not known */
bg_status compress_truncate(compress_tap *t, const bg_curvature *c, const bg_site *site, uint64_t query,
                            const float *gradient, double sampling, bg_err *err) BG_MUST_CHECK;
/* All modules' curvatures [n_tracked], which stay in memory. */
bg_status compress_tap_read_all(compress_tap *t, const bg_curvature **out, bg_err *err) BG_MUST_CHECK;

/* ---- refine.c: the refined solve of a unit's queries ---- */

typedef struct compress_refine compress_refine;
/* What there is to solve with; nothing without --refine. */
bg_refine_load compress_refine_load(const compress_inputs *in, const compress_refinement *r);
/* All are lent.  Free with compress_refine_free, also after an error. */
bg_status compress_refine_new(compress_refine **out, const compress_inputs *in, const compress_plan *plan,
                              compress_unit *unit, compress_tap *tap, bg_err *err) BG_MUST_CHECK;
void compress_refine_free(compress_refine *r);
/* Tap and callbacks of the sweep. */
void compress_refine_serve(compress_refine *r, bg_sweep *s);

/* ---- sweep.c ---- */

/* One pass over the queries, in units.  Collective; an agreed status. */
bg_status compress_sweep(const compress_inputs *in, const compress_plan *plan, const bg_context *ctx,
                         bg_err *err) BG_MUST_CHECK;

/* ---- assemble.c: all units into compressed.h5, on rank 0 ---- */

bg_status compress_assemble(const compress_inputs *in, const compress_plan *plan, const compress_queries_config *c,
                            bg_err *err) BG_MUST_CHECK;

#endif /* BG_STAGES_COMPRESS_QUERIES_H */
