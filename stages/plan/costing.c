/* costing.c - a stage on a grid: what it says that it does, in seconds and bytes. */
#include <omp.h>
#include <stdio.h>

#include "bregman/memory.h"
#include "bregman/pass.h"
#include "bregman/pipeline.h"
#include "plan.h"

static double larger(double a, double b) { return a > b ? a : b; }
static size_t most(size_t a, size_t b) { return a > b ? a : b; }

typedef struct {
    const plan_work *w;
    const bg_cluster *c;
    bg_profile profile;              /* of ranks with the grid's threads */
    bg_workload load;                /* as of the rank in hand */
    plan_rank_cost *rank;            /* [pipeline] */
    size_t rows, loss_rows, batches; /* of a micro-batch, and of a column: the most of all sweeps */
    double at_once;                  /* shards */
    plan_stage *out;
} costing;

/* Of a rank, while all do the same. */
static double seconds(const costing *f, const bg_cost *cost)
{
    return bg_cluster_seconds(f->c, &f->profile, f->at_once * f->load.grid.world_size, cost);
}

static double messages_s(const costing *f, bg_traffic sent)
{
    const plan_grid *g = &f->out->grid;
    const bg_cluster *c = f->c;
    double of_node = c->network_gb_s > 0 && g->nodes > 1 ? (double)g->ranks_per_node / (c->network_gb_s * 1e9) : 0;
    return sent.messages * f->profile.message_s + sent.bytes * larger(f->profile.message_byte_s, of_node);
}

/* ---- ranks ---- */

static bool runs_model(const costing *f) { return f->load.stage->activation_bytes > 0; }
static bool maps_model(const costing *f) { return runs_model(f) && !f->load.stage->owns_values; }

/* The first rank of the world at place r of the pipeline. */
static void take_rank(costing *f, size_t r)
{
    const plan_grid *g = &f->out->grid;
    f->load.grid = (bg_grid){ .world_rank = (int)(r * g->data),
                              .world_size = (int)(g->data * g->pipeline),
                              .data_size = (int)g->data,
                              .pipeline_rank = (int)r,
                              .pipeline_size = (int)g->pipeline,
                              .place_size = (int)(g->ranks_per_node < g->data ? g->ranks_per_node : g->data) };
}

static bg_rank_costs costs_of(const costing *f, const bg_phase_costs *of)
{
    bg_rank_costs costs = { 0 };
    if (of->rank != NULL)
        of->rank(&f->load, &f->out->plan, &costs);
    return costs;
}

/* ---- phases ---- */

/* Pass and taps of a micro-batch.  The pass runs once for each pass over the modules, the taps of each module once. */
static double batch_s(const costing *f, const bg_phase_costs *of, const bg_workload_sweep *s, size_t sequences,
                      double *flops)
{
    const bg_plan *plan = &f->out->plan;
    const bg_batch_shape shape = { sequences, s->rows, s->loss_rows, plan->rows, .sampled = s->sampled };
    bg_cost pass = { 0 }, all = { 0 };
    if (sequences == 0)
        return 0;
    bg_pass_cost(&pass, f->load.model, bg_workload_share(&f->load), &shape);
    bg_cost_add(&all, &pass, (double)plan->passes);
    of->batch(&f->load, plan, &shape, &all);
    *flops = all.flops;
    return seconds(f, &all);
}

static void cost_sweep(costing *f, const bg_phase_costs *of, plan_phase *phase)
{
    plan_stage *o = f->out;
    const plan_grid *g = &o->grid;
    const bg_workload_sweep s = of->sweep(&f->load);
    const plan_batches b = plan_batches_of(s.unit_sequences, s.rows, o->plan.rows);
    size_t units = (s.n_sequences + s.unit_sequences - 1) / s.unit_sequences;
    double passes = (double)o->plan.passes, batches = (double)s.n_sequences / (double)b.sequences;
    double begin_s = 0, resume_s = 0, unit_bytes = 0, part_bytes = 0;
    for (size_t r = 0; r < g->pipeline; r++) {
        double flops = 0, ignored;
        take_rank(f, r);
        bg_rank_costs costs = costs_of(f, of);
        f->rank[r] = (plan_rank_cost){ .whole_s = batch_s(f, of, &s, b.sequences, &flops),
                                       .rest_s = batch_s(f, of, &s, b.rest, &ignored),
                                       .unit_end_s = seconds(f, &costs.unit),
                                       .part_s = seconds(f, &costs.part),
                                       .solve_s = seconds(f, &costs.solve) };
        phase->flops += flops * batches + costs.solve.flops * (double)s.n_sequences / (double)s.unit_sequences;
        begin_s = larger(begin_s, seconds(f, &costs.begin));
        resume_s = larger(resume_s, seconds(f, &costs.resume) / passes);
        unit_bytes += costs.unit.of[BG_COST_WRITE];
        part_bytes += costs.part.of[BG_COST_WRITE] / passes;
    }
    double message = 4.0 * (double)b.rows * (double)f->load.model->config.d_model;
    plan_sweep(phase, g, units, &b, f->rank, messages_s(f, (bg_traffic){ 1, message }) * passes);
    plan_count_parts(phase, o->plan.passes, f->w->c->checkpoint_minutes);
    phase->seconds += begin_s;
    f->rows = most(f->rows, b.rows);
    f->loss_rows = most(f->loss_rows, b.sequences * s.loss_rows);
    f->batches = most(f->batches, (units + g->data - 1) / g->data * (b.whole + (b.rest > 0)));
    o->units = o->units > 0 ? o->units : units;
    o->resume_s = larger(o->resume_s, resume_s);
    o->work_bytes += unit_bytes * (double)units;
    o->part_bytes = larger(o->part_bytes,
                           plan_parts_alive(phase) * part_bytes * (double)(units < g->data ? units : g->data));
    o->message_bytes = larger(o->message_bytes, g->pipeline > 1 ? message : 0);
    o->network_bytes += 2 * message * batches * (double)(g->pipeline - 1) * passes;
}

/* Of one rank, while no other works or writes. */
static double alone_s(const costing *f, const bg_cost *cost) { return bg_cluster_seconds(f->c, &f->profile, 1, cost); }

/* A stop is answered between two steps, when what was kept before is kept anew; two of these are there at a time. */
static void cost_steps(costing *f, const bg_phase_costs *of, plan_phase *phase)
{
    plan_stage *o = f->out;
    bg_steps_costs steps = { 0 };
    take_rank(f, 0);
    of->steps(&f->load, &o->plan, &steps);
    const bg_rank_costs costs = costs_of(f, of);
    double n = (double)steps.n, world = (double)f->load.grid.world_size, state = costs.part.of[BG_COST_WRITE];
    phase->unit_s = alone_s(f, &steps.step) + messages_s(f, steps.sends);
    phase->checkpoint_s = alone_s(f, &costs.part);
    phase->flops = steps.flops;
    phase->seconds = n * phase->unit_s + alone_s(f, &steps.between);
    phase->stop_s = phase->unit_s + alone_s(f, &steps.longest) + phase->checkpoint_s;
    phase->idle = 1 - steps.flops / (world * (n * steps.step.flops + steps.between.flops));
    plan_count_parts(phase, 1, state > 0 ? f->w->c->checkpoint_minutes : 0);
    f->rows = f->loss_rows = steps.rows;
    f->batches = 1;
    o->units = (size_t)steps.n;
    o->resume_s = alone_s(f, &costs.resume);
    o->part_bytes = (phase->checkpoints < 2 ? phase->checkpoints : 2) * state;
    o->work_bytes = steps.work_bytes;
    o->message_bytes = steps.sends.messages > 0 ? steps.sends.bytes / steps.sends.messages : 0;
    o->network_bytes = n * steps.sends.bytes * world;
}

/* Ranks do theirs one after another. */
static bg_status cost_tasks(costing *f, const bg_phase_costs *of, plan_phase *phase, bg_err *err)
{
    size_t n = 0, world = (size_t)f->load.grid.world_size;
    bg_task_costs *task = NULL;
    double *busy = NULL, sum = 0;
    take_rank(f, 0);
    bg_status st = of->tasks(&f->load, &task, &n, err);
    if (st == BG_OK)
        st = BG_NEW(busy, world, "list of tasks", err);
    for (size_t i = 0; i < n && st == BG_OK; i++) {
        bg_cost cost = task[i].cost;
        double ranks = (double)task[i].ranks, shared = ranks > 1 ? ranks * f->profile.subgrid_efficiency : 1;
        double at_once = (double)world / ranks < (double)n ? (double)world / ranks : (double)n;
        cost.of[BG_COST_EIGEN_CUBE] /= shared;
        cost.of[BG_COST_EIGEN_SQUARE] /= shared;
        double task_s = bg_cluster_seconds(f->c, &f->profile, at_once, &cost);
        for (size_t r = task[i].first; r < task[i].first + task[i].ranks; r++) {
            busy[r] += task_s;
            phase->seconds = larger(phase->seconds, busy[r]);
        }
        sum += task_s * ranks;
        phase->stop_s = larger(phase->stop_s, task_s / (double)task[i].steps);
        f->out->work_bytes += cost.of[BG_COST_WRITE];
    }
    phase->idle = phase->seconds > 0 ? 1 - sum / (phase->seconds * (double)world) : 0;
    bg_free(task);
    bg_free(busy);
    return st;
}

/* Of the largest micro-batch of sequences that a refined solve multiplies with. */
static size_t refined_rows(const bg_refine_load *l, size_t max_rows)
{
    if (l->kind == BG_REFINE_NONE)
        return 0;
    size_t each = (size_t)(l->rows / l->sequences), filled = max_rows > each ? max_rows / each * each : each;
    return l->rows < filled ? (size_t)l->rows : filled;
}

/* The rank of the pipeline that holds most in each phase. */
static void set_memory(costing *f)
{
    plan_stage *o = f->out;
    bg_plan touched = o->plan;
    touched.rows = most(f->rows, refined_rows(&f->load.refine, o->plan.rows));
    for (size_t r = 0; r < o->grid.pipeline; r++) {
        take_rank(f, r);
        const bg_share *share = bg_workload_share(&f->load);
        double weights = maps_model(f) ? (double)bg_share_weight_bytes(f->load.model, share) : 0, pass = 0;
        if (runs_model(f))
            pass = (double)bg_pipeline_touched_bytes(f->load.model, share, &f->load.grid, f->rows, f->loss_rows,
                                                     f->batches);
        o->weights_bytes = larger(o->weights_bytes, weights);
        for (size_t i = 0; i < o->n_phases; i++) {
            const bg_phase_costs *of = &f->load.stage->phase[i];
            bg_workload alone = f->load; /* a process counts all that it shares */
            alone.grid.place_size = 1;
            bg_rank_costs costs = costs_of(f, of);
            double beside = pass + costs.held_bytes, unseen = costs.cached_bytes + weights + f->profile.process_bytes;
            plan_phase *p = &o->phase[i];
            p->bytes = larger(p->bytes, (double)of->bytes(&f->load, &touched) + beside);
            p->peak_bytes = larger(p->peak_bytes, (double)of->bytes(&alone, &touched) + beside + unseen);
        }
    }
}

static bg_status cost_phases(costing *f, bg_err *err)
{
    plan_stage *o = f->out;
    bg_status st = BG_OK;
    o->n_phases = f->load.stage->n_phases;
    for (size_t i = 0; i < o->n_phases && st == BG_OK; i++) {
        const bg_phase_costs *of = &f->load.stage->phase[i];
        o->phase[i].name = of->name;
        if (of->sweep != NULL)
            cost_sweep(f, of, &o->phase[i]);
        else if (of->steps != NULL)
            cost_steps(f, of, &o->phase[i]);
        else
            st = cost_tasks(f, of, &o->phase[i], err);
    }
    set_memory(f);
    return st;
}

/* ---- the whole ---- */

static void add_up(costing *f)
{
    plan_stage *o = f->out;
    bg_ends_costs ends = { .end_ranks = 1 };
    double shards = o->grid.shards > 0 ? (double)o->grid.shards : 1,
           waves = (double)(size_t)((shards - 1) / f->at_once) + 1;
    take_rank(f, 0);
    f->load.stage->ends(&f->load, &o->plan, &ends);
    ends.begin.of[BG_COST_HASH] += maps_model(f) ? f->w->model_bytes : 0;
    double end_s = bg_cluster_seconds(f->c, &f->profile, ends.end_ranks * f->at_once, &ends.end);
    o->start_s = seconds(f, &ends.begin);
    o->resume_s += o->start_s;
    o->final_s = ends.end_stops ? 0 : end_s;
    o->job_s = o->start_s + end_s;
    for (size_t i = 0; i < o->n_phases; i++) {
        plan_phase *p = &o->phase[i];
        o->job_s += p->seconds;
        p->seconds *= waves;
        p->flops *= shards;
        o->flops += p->flops;
        o->bytes = larger(o->bytes, p->bytes);
        o->peak_bytes = larger(o->peak_bytes, p->peak_bytes);
    }
    o->seconds = waves * o->job_s;
    o->network_bytes *= shards;
    o->work_bytes *= f->at_once;
    o->final_bytes = ends.final_bytes * shards;
}

/* Ranks of a node share the weights they map; consecutive ranks are of one place in the pipeline (comm.h), so a node
 * maps ranks_per_node / data shares, and one more where they don't begin with the node. */
static uint64_t memory_limit(const costing *f, const plan_grid *g)
{
    const plan_work *w = f->w;
    const bg_cluster *c = f->c;
    if (w->c->memory_limit > 0)
        return w->c->memory_limit;
    if (c->memory_gb_per_node <= 0)
        return UINT64_MAX;
    double places = (double)((g->ranks_per_node + g->data - 1) / g->data) + (g->data % g->ranks_per_node != 0 ? 1 : 0);
    places = places > (double)g->pipeline ? (double)g->pipeline : places;
    double weights = maps_model(f) ? w->model_bytes * places / (double)g->pipeline : 0;
    double room = 0.92 * c->memory_gb_per_node * 1e9 - weights - (double)g->ranks_per_node * c->profile.process_bytes;
    return room > 0 ? (uint64_t)(room / (double)g->ranks_per_node) : 1;
}

/* The most of all ranks. */
static size_t bytes(const void *self, const bg_plan *plan)
{
    costing f = *(const costing *)self;
    size_t bytes = 0;
    for (size_t r = 0; r < f.out->grid.pipeline; r++) {
        take_rank(&f, r);
        bytes = most(bytes, bg_workload_bytes(&f.load, plan));
    }
    return bytes;
}

static double rows_cost(const void *self, size_t rows)
{
    costing f = *(const costing *)self;
    double cost = 0;
    for (size_t r = 0; r < f.out->grid.pipeline; r++) {
        take_rank(&f, r);
        cost = larger(cost, f.load.stage->rows_cost(&f.load, rows));
    }
    return cost;
}

/* Micro-batches and passes, as the stage chooses them. */
static void choose_budget(costing *f)
{
    plan_stage *o = f->out;
    o->grid.memory_limit = f->load.memory_limit = memory_limit(f, &o->grid);
    const bg_context ctx = { .grid = { .world = MPI_COMM_SELF, .world_size = 1, .data_size = 1, .pipeline_size = 1 },
                             .memory_limit = f->load.memory_limit,
                             .scratch = f->c->scratch ? "" : NULL };
    bg_demand d = bg_workload_demand(&f->load, 0);
    d.self = f;
    d.bytes = bytes;
    d.cost = d.cost != NULL ? rows_cost : NULL;
    o->possible = bg_budget_choose(&d, &ctx, &o->plan, NULL) == BG_OK;
    if (o->possible && f->load.stage->is_possible != NULL)
        o->possible = f->load.stage->is_possible(&f->load);
    o->needs_bytes = o->possible ? 0 : (double)bytes(f, &o->plan);
}

/* Of a stage that does not run the model: it cannot do with less. */
static void check_memory(costing *f)
{
    plan_stage *o = f->out;
    o->grid.memory_limit = memory_limit(f, &o->grid);
    o->possible = o->bytes <= (double)o->grid.memory_limit;
    o->needs_bytes = o->possible ? 0 : o->bytes;
}

void plan_cost_stage(const bg_stage_costs *of, const plan_work *w, const bg_cluster *c, const plan_grid *g,
                     plan_stage *out)
{
    *out = (plan_stage){ .name = of->name, .grid = *g, .possible = true };
    costing f = { .w = w, .c = c, .load = w->load, .out = out };
    bg_share *share = NULL;
    bg_err err = { .msg = "" };
    uint64_t shards = g->shards > 0 ? g->shards : 1;
    f.profile = bg_profile_scaled(&c->profile, (double)g->threads);
    f.at_once = g->shards > 0 ? (double)(c->nodes / g->nodes) : 1;
    f.load.stage = of;
    f.load.sequences = (plan_scored(&w->load) + shards - 1) / shards;
    take_rank(&f, 0);
    omp_set_num_threads((int)g->threads); /* the pass counts what its threads take and do */
    bg_status st = bg_workload_divide(&f.load, &share, &err);
    f.load.share = share;
    if (st == BG_OK)
        st = BG_NEW(f.rank, g->pipeline, "pipeline", &err);
    if (st == BG_OK && runs_model(&f))
        choose_budget(&f);
    if (st == BG_OK && out->possible && (st = cost_phases(&f, &err)) == BG_OK)
        add_up(&f);
    if (st == BG_OK && !runs_model(&f))
        check_memory(&f);
    if (st != BG_OK) {
        out->possible = false;
        snprintf(out->why_not, sizeof out->why_not, "%.190s", err.msg);
    }
    bg_free(share);
    bg_free(f.rank);
}
