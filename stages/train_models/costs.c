#include "costs.h"

#include "bregman/gradient.h"
#include "bregman/pass.h"
#include "bregman/store.h"

/* Of a training. */
static size_t ranks_of(const bg_workload *w) { return w->training.bank > 0 ? 1 : (size_t)w->grid.world_size; }

/* ---- memory ---- */

/* Rank 0 puts the moments of all together when they are kept or left; in a bank none are. */
static size_t bytes(const bg_workload *w, const bg_plan *plan)
{
    const bg_workload_training *t = &w->training;
    size_t together = w->grid.world_rank == 0 && t->bank == 0 ? 2 * t->n_trained : 0;
    (void)plan;
    return bg_training_bytes(&t->plan, t->n_trained, ranks_of(w)) + t->data_bytes +
           (t->n_values + together) * sizeof(float);
}

/* ---- disk ---- */

static double log_bytes(uint64_t steps) { return 6 * bg_store_dataset_bytes((double)steps, sizeof(double)); }

static double moments_bytes(const bg_workload_training *t)
{
    return (t->plan.recipe.optimizer == BG_ADAMW ? 2 : 1) * bg_store_dataset_bytes((double)t->n_trained, sizeof(float));
}

/* Of one that is gone on with: values, moments and the log. */
static double state_bytes(const bg_workload_training *t, uint64_t steps)
{
    return bg_store_file_bytes() + moments_bytes(t) + bg_store_dataset_bytes((double)t->n_trained, sizeof(float)) +
           log_bytes(steps);
}

static double model_bytes(const bg_workload_training *t) { return (t->half ? 2.0 : 4.0) * (double)t->n_values; }

/* Weights, config.json, and the largest file that a tokenizer has. */
enum { MODEL_FILES = 3 };

static void add_model(bg_cost *c, const bg_workload_training *t, double times)
{
    c->of[BG_COST_WRITE] += times * model_bytes(t);
    c->of[BG_COST_FILE] += times * MODEL_FILES;
}

/* ---- steps ---- */

static uint64_t steps_of_epoch(const bg_workload_training *t)
{
    return (t->sequences + t->step_sequences - 1) / t->step_sequences;
}

static uint64_t steps_of(const bg_workload_training *t)
{
    return t->steps > 0 ? t->steps : t->epochs * steps_of_epoch(t);
}

/* How often something is done every so many steps. */
static double times_of(uint64_t steps, uint64_t every) { return every > 0 ? (double)(steps / every) : 0; }

/* Of a training: at its last step too. */
static double measurements(const bg_workload_training *t)
{
    uint64_t steps = steps_of(t), every = t->bank > 0 ? 0 : t->eval_steps;
    bool is_due = every > 0 && steps % every == 0;
    return t->heldout_sequences > 0 ? times_of(steps, every) + (is_due ? 0 : 1) : 0;
}

/* Of all steps: the last of an epoch takes what is left. */
static double trained_sequences(const bg_workload_training *t)
{
    uint64_t of_epoch = steps_of_epoch(t), steps = steps_of(t);
    return (double)(steps / of_epoch) * (double)t->sequences + (double)(steps % of_epoch * t->step_sequences);
}

static double flops_of(const bg_workload *w, bg_batch_shape b)
{
    const bg_share whole = bg_model_whole(w->model);
    bg_cost cost = { 0 };
    b.sequences = 1;
    b.max_rows = b.rows;
    bg_pass_cost(&cost, w->model, &whole, &b);
    if (!b.forward)
        bg_gradient_cost(&cost, w->model, (double)b.rows, (double)b.loss_rows);
    return cost.flops;
}

static double training_flops(const bg_workload *w)
{
    const bg_workload_training *t = &w->training;
    const bg_batch_shape step = { .rows = w->rows, .loss_rows = w->rows };
    const bg_batch_shape heldout = { .rows = w->rows, .loss_rows = w->rows, .forward = true };
    const bg_batch_shape query = { .rows = w->query_rows, .loss_rows = w->query_loss_rows, .forward = true };
    double flops = trained_sequences(t) * flops_of(w, step);
    if (t->heldout_sequences > 0)
        flops += measurements(t) * (double)t->heldout_sequences * flops_of(w, heldout);
    return t->bank > 0 ? (double)t->bank * (flops + (double)w->queries * flops_of(w, query)) : flops;
}

/* Losses of what is held out, or of the queries; returns rows of the largest micro-batch. */
static size_t add_losses(bg_cost *cost, const bg_workload *w, const bg_training_plan *plan, bool queries)
{
    const bg_workload_training *t = &w->training;
    bg_training_shape s = { t->n_trained, ranks_of(w), (size_t)t->heldout_sequences, w->rows, w->rows };
    if (queries) {
        s.sequences = (size_t)w->queries;
        s.rows = w->query_rows;
        s.loss_rows = w->query_loss_rows;
    }
    if (s.sequences == 0)
        return 0;
    bg_training_losses_cost(cost, w->model, plan, &s);
    return bg_training_losses_batch(plan, &s) * s.rows;
}

static size_t add_step(bg_steps_costs *out, const bg_workload *w, const bg_training_plan *plan)
{
    const bg_workload_training *t = &w->training;
    bg_training_shape s = { t->n_trained, ranks_of(w), (size_t)t->step_sequences, w->rows, w->rows };
    s.sequences = s.sequences < t->sequences ? s.sequences : (size_t)t->sequences;
    out->sends = bg_training_step_cost(&out->step, w->model, plan, &s);
    return bg_training_step_batch(plan, &s) * s.rows;
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

static const double INITIAL = 40; /* entries of a serial loop that a random value takes as long as */

/* Models in turn, as many at a time as there are ranks; of each a file of its losses. */
static void add_bank(bg_steps_costs *out, const bg_workload *w, const bg_training_plan *plan)
{
    const bg_workload_training *t = &w->training;
    double turns = (double)((t->bank + (uint64_t)w->grid.world_size - 1) / (uint64_t)w->grid.world_size);
    bg_cost *one = &out->longest;
    out->rows = larger(out->rows, add_losses(one, w, plan, true));
    one->of[BG_COST_FILE] += 1;
    one->of[BG_COST_SERIAL] += INITIAL * (double)t->n_values;
    bg_cost_add(&out->between, one, turns);
    out->n *= (uint64_t)turns;
    out->work_bytes = (double)t->bank * (bg_store_file_bytes() + 8.0 * (double)(w->queries + 2));
}

static void steps(const bg_workload *w, const bg_plan *plan, bg_steps_costs *out)
{
    const bg_workload_training *t = &w->training;
    bg_training_plan of = t->plan;
    of.max_rows = plan->rows;
    out->n = steps_of(t);
    out->flops = training_flops(w);
    out->rows = larger(add_step(out, w, &of), add_losses(&out->longest, w, &of, false));
    if (t->bank > 0) {
        add_bank(out, w, &of);
        return;
    }
    bg_cost_add(&out->between, &out->longest, measurements(t));
    add_model(&out->between, t, times_of(out->n, t->save_steps));
    add_model(&out->longest, t, t->save_steps > 0 ? 1 : 0);
}

/* A checkpoint takes the place of the one before.  Of a bank none are made: what was begun is begun anew. */
static void rank(const bg_workload *w, const bg_plan *plan, bg_rank_costs *out)
{
    const bg_workload_training *t = &w->training;
    double state = state_bytes(t, steps_of(t));
    if (t->bank > 0) {
        bg_steps_costs of = { 0 };
        steps(w, plan, &of);
        bg_cost_add(&out->resume, &of.step, (double)steps_of(t));
        return;
    }
    out->part.of[BG_COST_WRITE] = out->resume.of[BG_COST_READ] = state;
    out->part.of[BG_COST_FILE] = 1;
}

/* ---- the whole ---- */

/* Losses of all models, and what each was trained on: a subset of its own. */
static void bank_ends(const bg_workload *w, bg_ends_costs *out)
{
    double models = (double)w->training.bank, losses = models * (double)(w->queries + 2);
    out->final_bytes = bg_store_file_bytes() + bg_store_dataset_bytes(losses, sizeof(double)) +
                       bg_store_dataset_bytes(models * (double)w->training.sequences, sizeof(int64_t));
    out->end.of[BG_COST_ROW_WRITE] = models;
    out->end.of[BG_COST_WRITE] = out->final_bytes;
    out->end.of[BG_COST_FILE] = 1;
}

/* The model, its optimiser, and the log twice, of which one is text: about 80 characters a step. */
static void ends(const bg_workload *w, const bg_plan *plan, bg_ends_costs *out)
{
    const bg_workload_training *t = &w->training;
    double tokens = 4.0 * (double)(t->sequences + t->heldout_sequences) * (double)(w->rows + 1);
    double log = (double)steps_of(t);
    (void)plan;
    out->begin.of[BG_COST_HASH] = out->begin.of[BG_COST_READ] = tokens;
    out->end_ranks = 1;
    if (t->bank > 0) {
        bank_ends(w, out);
        return;
    }
    out->begin.of[BG_COST_SERIAL] = INITIAL * (double)t->n_values;
    add_model(&out->end, t, 1);
    out->end.of[BG_COST_WRITE] += moments_bytes(t) + log_bytes((uint64_t)log) + 80 * log + 2 * bg_store_file_bytes();
    out->end.of[BG_COST_FILE] += 3;
    out->final_bytes = out->end.of[BG_COST_WRITE] + times_of(steps_of(t), t->save_steps) * model_bytes(t);
}

static const bg_phase_costs phase = { .name = "training", .bytes = bytes, .rank = rank, .steps = steps };

const bg_stage_costs train_costs = { .name = "train_models",
                                     .activation_bytes = 256 << 20,
                                     .owns_values = true,
                                     .ends = ends,
                                     .n_phases = 1,
                                     .phase = &phase };
