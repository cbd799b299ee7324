/* compress_queries.c - open, divide, choose, sweep over the queries in units, assemble compressed.h5. */
#include "compress_queries.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/allotment.h"
#include "bregman/log.h"
#include "bregman/memory.h"

typedef struct {
    const compress_queries_config *c;
    const bg_context *ctx;
    compress_inputs in;
    compress_plan plan;
} compress;

/* ---- what the options say ---- */

static bg_status parse_rank(compress_plan *p, const compress_queries_config *c, bg_err *err)
{
    bool full = strcmp(c->rank, "full") == 0, automatic = strcmp(c->rank, "auto") == 0;
    char *end;
    errno = 0;
    uint64_t r = strtoull(c->rank, &end, 10);
    if (!full && !automatic && (*c->rank < '0' || *c->rank > '9' || *end != '\0' || errno != 0 || r == 0 || r > 100000))
        return BG_FAIL(err, BG_EARG, "--rank takes a number from 1, full or auto, not \"%s\"", c->rank);
    p->load.columns = full ? SIZE_MAX : automatic ? c->max_rank : r;
    p->tolerance = automatic ? c->tolerance : 0;
    return BG_OK;
}

static bg_status read_refinement(compress_plan *p, const compress_queries_config *c, const bg_grid *g, bg_err *err)
{
    int which;
    bg_status st = bg_option_word("--refine", c->refine, bg_refinement_word, &which, err);
    if (st != BG_OK)
        return st;
    p->refine = (compress_refinement){ (bg_refinement)which, c->refine_steps, c->refine_sequences };
    if (which == BG_REFINE_NONE)
        return BG_OK;
    if (c->refine_tokens.n == 0)
        return BG_FAIL(err, BG_EARG, "--refine %s: give --refine-tokens, sequences of the training data", c->refine);
    if (g->pipeline_size > 1)
        return BG_FAIL(err, BG_EARG, "--refine %s: each query is solved for by one rank: give --pipeline 1", c->refine);
    if (p->damping.kind == BG_IDENTITY)
        return BG_FAIL(err, BG_EARG,
                       "--refine %s: the damping is that of the factors: --preconditioner identity has none",
                       c->refine);
    return BG_OK;
}

static void warn_of_unused(const compress_queries_config *c, bool refined)
{
    if (refined && c->damping_factor != COMPRESS_DAMPING_FACTOR)
        bg_log("warning: --damping-factor %g is not used: with --refine the damping is --refine-damping-factor or "
               "--damping",
               c->damping_factor);
    if (!refined && c->refine_tokens.n > 0)
        bg_log("warning: --refine-tokens are not used without --refine");
}

static void set_damping(compress_plan *p, const compress_queries_config *c)
{
    bool refined = p->refine.kind != BG_REFINE_NONE;
    warn_of_unused(c, refined);
    p->damping.absolute = c->damping >= 0;
    p->damping.damping = p->damping.absolute ? c->damping : refined ? c->refine_damping_factor : c->damping_factor;
}

static bg_status read_options(compress_plan *p, const compress_queries_config *c, const bg_grid *g, bg_err *err)
{
    int kind = BG_EKFAC; /* unless it is given, the factors say which */
    p->seed = c->seed;
    bg_status st = parse_rank(p, c, err);
    if (st == BG_OK && c->preconditioner != NULL)
        st = bg_option_word("--preconditioner", c->preconditioner, bg_preconditioner_word, &kind, err);
    p->damping.kind = (bg_preconditioner)kind;
    if (st == BG_OK)
        st = read_refinement(p, c, g, err);
    if (st == BG_OK)
        set_damping(p, c);
    return st == BG_OK ? bg_path(p->work, err, "%s.work", c->output) : st;
}

/* The preconditioner that is asked for, or that of the factors. */
static bg_status choose_preconditioner(compress *w, bg_err *err)
{
    bg_damping *d = &w->plan.damping;
    if (w->c->preconditioner == NULL)
        d->kind = bg_preconditioner_fitted(w->in.factors);
    return bg_preconditioner_check(d->kind, w->in.factors, err);
}

/* ---- who does what ---- */

/* The shares of the model. */
static bg_status divide_model(compress *w, bg_err *err)
{
    bg_workload *load = &w->plan.load;
    uint64_t n = bg_tokens_sequences(w->in.queries);
    *load = (bg_workload){ .stage = &compress_costs,
                           .model = w->in.model,
                           .grid = w->ctx->grid,
                           .memory_limit = w->ctx->memory_limit,
                           .queries = n,
                           .unit_sequences = w->c->unit_queries,
                           .query_rows = bg_tokens_longest(w->in.queries, 0, n) - 1,
                           .columns = load->columns,
                           .refine = compress_refine_load(&w->in, &w->plan.refine) };
    bg_status st = bg_workload_divide(load, &w->plan.share, err);
    load->share = w->plan.share;
    return st;
}

static bg_status list_groups(compress *w, bg_err *err)
{
    const bg_model *m = w->in.model;
    bg_status st = BG_NEW(w->plan.group, m->n_sections + 1, "list of sections", err);
    for (size_t i = 0; i < m->n_sections && st == BG_OK; i++)
        w->plan.group[i] = m->section[i].number;
    if (st == BG_OK)
        w->plan.group[m->n_sections] = BG_WHOLE_MODEL;
    return st;
}

/* And with them the preconditioner, and the units with their work files. */
static bg_status divide(compress *w, bg_err *err)
{
    bg_status st = choose_preconditioner(w, err);
    if (st == BG_OK)
        st = divide_model(w, err);
    if (st == BG_OK)
        st = list_groups(w, err);
    w->plan.units = (bg_units){ .folder = w->plan.work,
                                .kind = "queries",
                                .run = &w->in.identities.run,
                                .group = w->plan.group,
                                .n_groups = w->in.model->n_sections + 1,
                                .n_sequences = bg_tokens_sequences(w->in.queries),
                                .unit_sequences = w->c->unit_queries };
    return st;
}

/* ---- micro-batches and memory ---- */

static size_t plan_bytes(const void *compress_, const bg_plan *plan)
{
    const compress *w = compress_;
    return bg_workload_bytes(&w->plan.load, plan);
}

/* Beside what the stage takes; without a limit in the ranks' parts of half of what this node has. */
static uint64_t factor_room(const compress *w)
{
    uint64_t bytes = plan_bytes(w, &w->plan.batches), limit = w->ctx->memory_limit;
    if (limit == UINT64_MAX)
        limit = bg_allotment_bytes("") / 2 / (uint64_t)w->ctx->grid.node_size;
    return limit > bytes ? limit - bytes : 0;
}

/* Micro-batches of all units, as the sweep fills them, and rows of the largest unit. */
static uint64_t count_batches(const compress *w, size_t rows, size_t *unit_rows)
{
    uint64_t n = 0;
    size_t batch = 0, unit = 0;
    *unit_rows = 0;
    for (uint64_t i = 0; i < w->plan.units.n_sequences; i++) {
        size_t own = bg_tokens_count(w->in.queries, i) - 1;
        bool begins = i % w->plan.units.unit_sequences == 0, fits = !begins && own <= rows - batch;
        n += !fits;
        batch = fits ? batch + own : own;
        unit = begins ? own : unit + own;
        *unit_rows = unit > *unit_rows ? unit : *unit_rows;
    }
    return n;
}

/* Of the queries as they are, of many lengths. */
static double rows_cost(const void *compress_, size_t rows)
{
    const compress *w = compress_;
    size_t unit_rows;
    uint64_t batches = count_batches(w, rows, &unit_rows);
    return compress_rows_cost(&w->plan.load, rows, batches);
}

static void say_held(const compress *w)
{
    compress_held held = compress_hold(&w->plan.load, w->plan.factor_room, NULL);
    size_t unit_rows, n = w->in.model->n_tracked;
    bool at_once = count_batches(w, w->plan.batches.rows, &unit_rows) == bg_units_count(&w->plan.units);
    MPI_Allreduce(MPI_IN_PLACE, &held.modules, 1, MPI_UINT64_T, MPI_SUM, w->ctx->grid.pipeline);
    MPI_Allreduce(MPI_IN_PLACE, &held.bytes, 1, MPI_UINT64_T, MPI_MAX, w->ctx->grid.world);
    bg_log("factors of %" PRIu64 " of %zu modules stay in memory, %.0f MB a rank at most%s", held.modules, n,
           (double)held.bytes * 1e-6,
           held.modules == n ? ""
           : at_once         ? "; the others' are read once a unit"
                             : "; the others' are read for each micro-batch");
}

/* Micro-batches that fit, and what they leave room for.  Collective; an agreed status. */
static bg_status choose(compress *w, bg_err *err)
{
    compress_plan *p = &w->plan;
    size_t unit_rows;
    bg_demand d = bg_workload_demand(&p->load, 0);
    (void)count_batches(w, SIZE_MAX, &unit_rows);
    d.most_rows = unit_rows < d.most_rows ? unit_rows : d.most_rows;
    d.self = w;
    d.bytes = plan_bytes;
    d.cost = rows_cost;
    bg_status st = bg_attempt_recall(w->ctx, &w->in.identities, p->work, &d.given_rows, err);
    if (st != BG_OK)
        return st;
    bg_log("%s: %" PRIu64 " queries, %zu modules", w->c->queries, p->units.n_sequences, w->in.model->n_tracked);
    if ((st = bg_budget_choose(&d, w->ctx, &p->batches, err)) != BG_OK)
        return st;
    p->factor_room = factor_room(w);
    say_held(w);
    st = bg_inputs_choose(&w->in.identities, w->ctx, p->batches.identity, err);
    return bg_agree(w->ctx->grid.world, st, err);
}

/* ---- the work ---- */

static bg_status sweep_and_assemble(void *self, bg_err *err)
{
    compress *w = self;
    bg_status st = compress_sweep(&w->in, &w->plan, w->ctx, err);
    if (st == BG_OK && w->ctx->grid.world_rank == 0)
        st = compress_assemble(&w->in, &w->plan, w->c, err);
    return bg_agree(w->ctx->grid.world, st, err);
}

bg_status compress_queries_run(const void *config, const bg_context *ctx, bg_err *err)
{
    compress w = { .c = config, .ctx = ctx };
    MPI_Comm world = ctx->grid.world;
    bg_status st = bg_agree(world, read_options(&w.plan, w.c, &ctx->grid, err), err);
    if (st == BG_OK)
        st = compress_open(&w.in, w.c, &w.plan.refine, ctx, err);
    if (st == BG_OK)
        st = bg_agree(world, divide(&w, err), err);
    if (st == BG_OK)
        st = choose(&w, err);
    if (st == BG_OK) {
        const bg_attempt a = { ctx,  &w.in.identities,  w.c->output, w.plan.work, w.plan.batches.rows, &w,
                               NULL, sweep_and_assemble };
        st = bg_attempt_run(&a, err);
    }
    compress_close(&w.in);
    bg_free(w.plan.group);
    bg_free(w.plan.share);
    return st;
}
