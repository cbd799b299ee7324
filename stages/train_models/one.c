/* one.c - one training on all ranks: its steps, what is kept on the way, and what it leaves. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "bregman/folder.h"
#include "bregman/log.h"
#include "bregman/memory.h"
#include "bregman/stop.h"
#include "bregman/sweep.h"
#include "bregman/timing.h"
#include "job.h"

enum { WORTH_KEEPING_S = 30 };

typedef struct {
    train_job *j;
    train_model model;
    train_log log;
    bg_progress progress;
    double kept_s, took_s; /* when the last checkpoint ended, and what it took */
    uint64_t tokens;       /* trained on, on rank 0 */
} run;

static bool is_first(const run *r) { return r->j->ctx->grid.world_rank == 0; }

/* ---- on the way ---- */

static bg_status keep(run *r, bg_err *err)
{
    double start = bg_now_s();
    bg_status st = train_state_keep(r->j, &r->model, &r->log, err);
    r->kept_s = bg_now_s();
    r->took_s = r->kept_s - start;
    return st;
}

static bool is_due(uint64_t steps, uint64_t every) { return every > 0 && steps % every == 0; }

static bg_status measure(run *r, bg_err *err)
{
    uint64_t steps = bg_training_steps_done(r->model.training);
    double mean = 0;
    if (r->j->in.heldout == NULL || (steps < r->model.steps && !is_due(steps, r->j->c->eval_steps)))
        return BG_OK;
    bg_status st = train_heldout_loss(&r->model, r->j, &mean, err);
    if (st == BG_OK && is_first(r)) {
        r->log.heldout_loss[steps - 1] = mean;
        bg_log("step %" PRIu64 " of %" PRIu64 ": loss %.4f, held-out %.4f", steps, r->model.steps,
               r->log.loss[steps - 1], mean);
    }
    return st;
}

static bg_status save(run *r, bg_err *err)
{
    uint64_t steps = bg_training_steps_done(r->model.training);
    char folder[BG_PATH_BYTES];
    bg_status st = BG_OK;
    if (!is_due(steps, r->j->c->save_steps))
        return BG_OK;
    if (is_first(r)) {
        st = bg_path(folder, err, "%s/step-%08" PRIu64, r->j->c->output, steps);
        if (st == BG_OK)
            st = bg_model_save(r->model.parameters, folder, r->j->plan.save_dtype, err);
    }
    return bg_agree(r->j->ctx->grid.world, st, err);
}

/* Is a checkpoint due, or has anybody been asked to stop?  Collective. */
static void look(const run *r, bool *due, bool *stop)
{
    const bg_context *ctx = r->j->ctx;
    double interval = bg_sweep_interval_s(ctx->checkpoint_s, r->took_s);
    int told[2] = { ctx->checkpoint_s > 0 && bg_now_s() - r->kept_s >= interval && is_first(r), bg_stop_requested() };
    MPI_Allreduce(MPI_IN_PLACE, told, 2, MPI_INT, MPI_MAX, ctx->grid.world);
    *due = told[0];
    *stop = told[1];
}

static bg_status step(run *r, bg_err *err)
{
    bg_training_step_report of;
    double start = bg_now_s();
    uint64_t k = bg_training_steps_done(r->model.training);
    bg_status st = bg_training_step(r->model.training, &of, err);
    if (st != BG_OK)
        return st;
    if (is_first(r)) {
        r->log.loss[k] = of.loss;
        r->log.gradient_norm[k] = of.gradient_norm;
        r->log.rate[k] = of.rate;
        r->log.tokens[k] = (int64_t)of.tokens;
        r->tokens += of.tokens;
        r->log.seconds[k] = bg_now_s() - start;
        bg_progress_update(&r->progress, k + 1);
    }
    st = measure(r, err);
    return st == BG_OK ? save(r, err) : st;
}

/* What went wrong was a number: say where the training was last kept. */
static void name_checkpoint(const run *r, bg_err *err)
{
    uint64_t part = 0;
    bool done = false;
    char where[96] = "nothing is kept: lower --learning-rate";
    if (is_first(r) && bg_units_find(&r->j->plan.units, &done, &part, NULL) == BG_OK && part > 0)
        snprintf(where, sizeof where, "kept is step %" PRIu64 ": lower --learning-rate and begin anew", part);
    (void)BG_FAIL(err, BG_ENUMERIC, "%.360s; %s", err->msg, where);
}

static bg_status go_through(run *r, bg_err *err)
{
    bg_status st = BG_OK;
    bool due, stop = false;
    r->kept_s = bg_now_s();
    bg_timing_begin("training");
    bg_progress_start(&r->progress, "training", "steps", bg_training_steps_done(r->model.training), r->model.steps);
    while (st == BG_OK && bg_training_steps_done(r->model.training) < r->model.steps) {
        look(r, &due, &stop);
        if (due || stop)
            st = keep(r, err);
        if (st == BG_OK && stop)
            st = BG_FAIL(err, BG_ESTOPPED, "stopped after step %" PRIu64 " of %" PRIu64 ": the same command goes on",
                         bg_training_steps_done(r->model.training), r->model.steps);
        if (st == BG_OK)
            st = step(r, err);
        if (st == BG_ENUMERIC)
            name_checkpoint(r, err);
    }
    if (st == BG_OK)
        bg_timing_end(r->tokens);
    if (st == BG_OK && is_first(r))
        bg_progress_finish(&r->progress);
    int worth = bg_now_s() - r->kept_s > WORTH_KEEPING_S; /* a disk may be full when the model is to be saved */
    bg_broadcast(r->j->ctx->grid.world, &worth, sizeof worth, 0);
    return st == BG_OK && worth ? keep(r, err) : st;
}

/* ---- at the end ---- */

static bg_status create(const run *r, const char *name, bg_store **out, bg_err *err)
{
    char path[BG_PATH_BYTES];
    bg_status st = bg_path(path, err, "%s/%s", r->j->c->output, name);
    return st == BG_OK ? bg_store_create(out, path, "bregman/training", &r->j->in.files.run, err) : st;
}

static bg_status leave_model(const run *r, bg_err *err)
{
    char path[BG_PATH_BYTES];
    bg_status st = bg_model_save(r->model.parameters, r->j->c->output, r->j->plan.save_dtype, err);
    if (st == BG_OK)
        st = bg_path(path, err, "%s/log.csv", r->j->c->output);
    return st == BG_OK ? train_log_csv(&r->log, path, r->model.steps, err) : st;
}

/* log.h5, the last, says that all is there. */
static bg_status leave_log(const run *r, bg_err *err)
{
    bg_store *s = NULL;
    bg_status st = create(r, "log.h5", &s, err);
    if (st == BG_OK)
        st = train_log_write(&r->log, s, r->model.steps, err);
    return s == NULL ? st : bg_store_end_once(s, st, err);
}

static bg_status leave(const run *r, bg_err *err)
{
    MPI_Comm world = r->j->ctx->grid.world;
    bg_store *s = NULL;
    bg_status st = is_first(r) ? leave_model(r, err) : BG_OK;
    if (st == BG_OK && is_first(r))
        st = create(r, "optimizer.h5", &s, err);
    if ((st = bg_agree(world, st, err)) == BG_OK)
        st = train_moments_write(r->j, &r->model, s, err);
    if (is_first(r) && s != NULL)
        st = bg_store_end(s, st, err);
    if (st == BG_OK && is_first(r))
        st = leave_log(r, err);
    return bg_agree(world, st, err);
}

/* The model as it was kept last, or as it begins. */
static bg_status begin(run *r, bg_err *err)
{
    MPI_Comm world = r->j->ctx->grid.world;
    const bg_units *u = &r->j->plan.units;
    char line[BG_UNITS_LINE_BYTES];
    bg_units_describe(u, line);
    bg_status st = is_first(r) ? bg_units_promise(u->folder, line, err) : BG_OK;
    if (st == BG_OK)
        st = train_model_own(&r->model, r->j, false, err);
    if ((st = bg_agree(world, st, err)) != BG_OK)
        return st;
    st = train_model_begin(&r->model, r->j, &r->j->in.subset[0], r->j->c->seed, world, err);
    if (st == BG_OK)
        st = bg_agree(world, train_log_new(&r->log, r->model.steps, err), err);
    return st == BG_OK ? train_state_recall(r->j, &r->model, &r->log, err) : st;
}

bg_status train_one(void *job, bg_err *err)
{
    run r = { .j = job };
    bg_status st = begin(&r, err);
    if (st == BG_OK)
        st = go_through(&r, err);
    if (st == BG_OK)
        st = leave(&r, err);
    train_log_free(&r.log);
    train_model_free(&r.model);
    return st;
}
