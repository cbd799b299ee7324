/* state.c - what a training goes on from: a work file of the steps so far. */
#include <inttypes.h>

#include "bregman/log.h"
#include "bregman/memory.h"
#include "job.h"

static bg_segment steps_so_far(uint64_t steps) { return (bg_segment){ 0, BG_WHOLE_MODEL, 0, steps }; }

static bg_status write_names(const bg_parameters *p, bg_store *s, bg_err *err)
{
    const char **name = NULL;
    uint32_t *count = NULL;
    uint64_t n = 0;
    bg_status st = BG_NEW(name, p->n, "names of parameters", err);
    if (st == BG_OK)
        st = BG_NEW(count, p->n, "names of parameters", err);
    for (size_t i = 0; i < p->n && st == BG_OK; i++) {
        if (!p->at[i].trained)
            continue;
        name[n] = p->at[i].name;
        count[n++] = (uint32_t)p->at[i].n;
    }
    if (st == BG_OK)
        st = bg_store_write(s, "name", &n, name, err);
    if (st == BG_OK)
        st = bg_store_write(s, "count", &n, count, err);
    bg_free(name);
    bg_free(count);
    return st;
}

/* Room for both moments, one after the other, where they come together. */
static bg_status make_room(const train_job *j, const train_model *t, float **moments, bg_err *err)
{
    bool first = j->ctx->grid.world_rank == 0;
    *moments = NULL;
    bg_status st = first ? BG_NEW(*moments, 2 * t->parameters->n_trained, "optimiser", err) : BG_OK;
    return bg_agree(j->ctx->grid.world, st, err);
}

static bool has_second(const train_job *j) { return j->plan.recipe.optimizer == BG_ADAMW; }

bg_status train_moments_write(const train_job *j, const train_model *t, bg_store *s, bg_err *err)
{
    const bg_parameters *p = t->parameters;
    uint64_t n = p->n_trained;
    float *moments;
    bg_status st = make_room(j, t, &moments, err);
    if (st != BG_OK)
        return st;
    bg_training_keep(t->training, moments, moments != NULL ? moments + n : NULL);
    if (moments != NULL) {
        st = write_names(p, s, err);
        if (st == BG_OK)
            st = bg_store_write(s, "first_moment", &n, moments, err);
        if (st == BG_OK && has_second(j))
            st = bg_store_write(s, "second_moment", &n, moments + n, err);
    }
    bg_free(moments);
    return bg_agree(j->ctx->grid.world, st, err);
}

bg_status train_state_keep(const train_job *j, const train_model *t, const train_log *l, bg_err *err)
{
    const bg_units *u = &j->plan.units;
    bool first = j->ctx->grid.world_rank == 0;
    uint64_t steps = bg_training_steps_done(t->training), before = 0, n = t->parameters->n_trained;
    const bg_segment g = steps_so_far(steps);
    bg_store *s = NULL;
    bool done = false;
    bg_status st = BG_OK;
    if (first) {
        st = bg_units_find(u, &done, &before, err);
        before = done ? bg_units_size(u, 0) : before;
        if (st == BG_OK && before < steps)
            st = bg_units_create(&s, u, &g, err);
    }
    bg_broadcast(j->ctx->grid.world, &before, sizeof before, 0);
    if ((st = bg_agree(j->ctx->grid.world, st, err)) != BG_OK || before >= steps)
        return st;
    st = train_moments_write(j, t, s, err);
    if (first) {
        if (st == BG_OK)
            st = bg_store_write(s, "parameter_value", &n, t->parameters->value, err);
        if (st == BG_OK)
            st = train_log_write(l, s, steps, err);
        st = bg_units_end(s, u, &g, steps, st, err);
        if (st == BG_OK && before > 0)
            bg_units_remove(u, &(bg_segment){ 0, BG_WHOLE_MODEL, 0, before });
    }
    return bg_agree(j->ctx->grid.world, st, err);
}

static bg_status read_state(const train_job *j, train_model *t, train_log *l, uint64_t steps, float *moments,
                            bg_err *err)
{
    uint64_t n = t->parameters->n_trained;
    const bg_segment g = steps_so_far(steps);
    bg_store *s = NULL;
    bg_status st = bg_units_open(&s, &j->plan.units, &g, err);
    if (st == BG_OK)
        st = bg_store_read(s, "parameter_value", BG_F32, &n, t->parameters->value, err);
    if (st == BG_OK)
        st = bg_store_read(s, "first_moment", BG_F32, &n, moments, err);
    if (st == BG_OK && has_second(j))
        st = bg_store_read(s, "second_moment", BG_F32, &n, moments + n, err);
    if (st == BG_OK)
        st = train_log_read(l, s, steps, err);
    if (st != BG_OK && s != NULL)
        st = BG_FAIL(err, st, "%.300s: remove \"%.100s\", and the training begins anew", err->msg,
                     bg_base_name(bg_store_path(s)));
    bg_store_close(s);
    return st;
}

bg_status train_state_recall(const train_job *j, train_model *t, train_log *l, bg_err *err)
{
    MPI_Comm world = j->ctx->grid.world;
    bool first = j->ctx->grid.world_rank == 0, done = false;
    uint64_t steps = 0;
    float *moments;
    bg_status st = first ? bg_units_find(&j->plan.units, &done, &steps, err) : BG_OK;
    if ((st = bg_agree(world, st, err)) != BG_OK)
        return st;
    steps = done ? bg_units_size(&j->plan.units, 0) : steps;
    bg_broadcast(world, &steps, sizeof steps, 0);
    if (steps == 0 || (st = make_room(j, t, &moments, err)) != BG_OK)
        return st;
    st = bg_agree(world, first ? read_state(j, t, l, steps, moments, err) : BG_OK, err);
    if (st == BG_OK) {
        bg_training_resume(t->training, steps, moments, moments != NULL ? moments + t->parameters->n_trained : NULL);
        bg_log("goes on after step %" PRIu64 " of %" PRIu64, steps, t->steps);
    }
    bg_free(moments);
    return st;
}
