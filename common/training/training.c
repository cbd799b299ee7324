#include "bregman/training.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bregman/comm.h"
#include "bregman/gradient.h"
#include "bregman/gradient_sum.h"
#include "bregman/memory.h"
#include "bregman/pass.h"

struct bg_training {
    bg_parameters *parameters;
    bg_training_data *data;
    bg_training_plan plan;
    MPI_Comm comm;
    int rank, ranks;
    uint64_t steps;
    bg_pass *pass;
    bg_batch *batch;
    float *row_loss; /* [max_rows] */
    bg_gradient *gradient;
    bg_gradient_sum *sum;
    float *first_moment, *second_moment; /* of this rank's range */
    double *slice_loss;                  /* [slices] */
};

static bg_status make(bg_training *t, bg_err *err)
{
    const bg_training_plan *plan = &t->plan;
    bg_status st = bg_pass_new(&t->pass, t->parameters->model, NULL, 1, plan->max_rows, BG_LOGITS_BYTES, err);
    if (st == BG_OK)
        st = bg_batch_new(&t->batch, plan->max_rows, plan->max_rows, err);
    if (st == BG_OK)
        st = BG_NEW(t->row_loss, plan->max_rows, "losses", err);
    if (st == BG_OK)
        st = BG_NEW(t->slice_loss, plan->slices, "losses", err);
    return st == BG_OK ? bg_gradient_new(&t->gradient, t->parameters, plan->max_rows, err) : st;
}

static bg_status make_moments(bg_training *t, bg_err *err)
{
    bg_gradient_range own = bg_gradient_sum_own(t->sum);
    bg_status st = BG_NEW(t->first_moment, own.end - own.first, "optimiser", err);
    if (st == BG_OK && t->plan.recipe.optimizer == BG_ADAMW)
        st = BG_NEW(t->second_moment, own.end - own.first, "optimiser", err);
    return st;
}

bg_status bg_training_new(bg_training **out, bg_parameters *p, bg_training_data *data, const bg_training_plan *plan,
                          MPI_Comm comm, bg_err *err)
{
    bg_training *t = NULL;
    *out = NULL;
    bg_status st = BG_NEW(t, 1, "training", err);
    if (st == BG_OK) {
        *t = (bg_training){ .parameters = p, .data = data, .plan = *plan, .comm = comm };
        MPI_Comm_rank(comm, &t->rank);
        MPI_Comm_size(comm, &t->ranks);
        st = make(t, err);
    }
    if (st == BG_OK)
        st = bg_gradient_sum_new(&t->sum, p->n_trained, plan->slices, comm, err);
    if (st == BG_OK)
        st = make_moments(t, err);
    st = bg_agree(comm, st, err);
    if (st != BG_OK) {
        bg_training_free(t);
        return st;
    }
    *out = t;
    return BG_OK;
}

void bg_training_free(bg_training *t)
{
    if (t == NULL)
        return;
    bg_pass_free(t->pass);
    bg_batch_free(t->batch);
    bg_gradient_free(t->gradient);
    bg_gradient_sum_free(t->sum);
    bg_free(t->row_loss);
    bg_free(t->slice_loss);
    bg_free(t->first_moment);
    bg_free(t->second_moment);
    bg_free(t);
}

size_t bg_training_bytes(const bg_training_plan *plan, size_t n_trained, size_t ranks)
{
    size_t moments = (plan->recipe.optimizer == BG_ADAMW ? 2 : 1) * (n_trained / ranks + BG_GRADIENT_BLOCK);
    return moments * sizeof(float) + bg_gradient_sum_bytes(n_trained, plan->slices, ranks);
}

/* ---- a step ---- */

/* The sequences of a step; one belongs to the slice that the rows before it reach into. */
typedef struct {
    const uint64_t *sequence;
    size_t n;
    uint64_t rows, terms;
} step;

static size_t rows_of(const bg_training *t, uint64_t sequence)
{
    return bg_training_data_tokens(t->data, sequence) - 1;
}

static step next_step(bg_training *t)
{
    step s = { 0 };
    s.sequence = bg_training_data_next(t->data, &s.n);
    for (size_t i = 0; i < s.n; i++) {
        s.rows += rows_of(t, s.sequence[i]);
        s.terms += bg_training_data_terms(t->data, s.sequence[i]);
    }
    return s;
}

static bg_status run_batch(bg_training *t, double *loss, bg_err *err)
{
    const bg_tap tap = { bg_gradient_pair, t->gradient, BG_WANTS_ALL };
    bg_status st = bg_pass_run(t->pass, t->batch, (bg_labels){ 0 }, &tap, t->row_loss, err);
    for (size_t i = 0; i < t->batch->n_rows && st == BG_OK; i++)
        *loss += (double)t->row_loss[i];
    bg_batch_clear(t->batch);
    return st;
}

/* Sequences [first, end) of a step, of so many rows, in micro-batches of about the same size. */
static bg_status run_slice(bg_training *t, const step *s, size_t first, size_t end, double *loss, bg_err *err)
{
    size_t rows = 0, most = t->plan.max_rows;
    bg_status st = BG_OK;
    for (size_t i = first; i < end; i++)
        rows += rows_of(t, s->sequence[i]);
    size_t batches = (rows + most - 1) / most, enough = batches > 0 ? (rows + batches - 1) / batches : 0;
    *loss = 0;
    bg_gradient_into(t->gradient, bg_gradient_sum_next(t->sum));
    for (size_t i = first; i < end && st == BG_OK; i++) {
        if (t->batch->n_rows >= enough || rows_of(t, s->sequence[i]) > most - t->batch->n_rows)
            st = run_batch(t, loss, err);
        if (st == BG_OK)
            st = bg_training_data_add(t->data, s->sequence[i], t->batch, err);
    }
    if (st == BG_OK)
        st = run_batch(t, loss, err);
    bg_gradient_sum_add(t->sum);
    return st;
}

/* This rank's slices; the others' losses are left as zeros. */
static bg_status run_slices(bg_training *t, const step *s, bg_err *err)
{
    const bg_gradient_range own = bg_gradient_sum_slices(t->sum);
    bg_status st = BG_OK;
    uint64_t before = 0;
    size_t first = 0;
    memset(t->slice_loss, 0, t->plan.slices * sizeof *t->slice_loss);
    for (size_t k = 0; k < own.end && st == BG_OK; k++) {
        size_t end = first;
        for (; end < s->n && before * t->plan.slices / s->rows <= k; end++)
            before += rows_of(t, s->sequence[end]);
        if (k >= own.first)
            st = run_slice(t, s, first, end, &t->slice_loss[k], err);
        first = end;
    }
    return st;
}

/* Which tensor has a number that is not finite, of this rank's range of the gradient or of the values?  Collective. */
static bg_status refuse_numbers(bg_training *t, const float *own_numbers, const char *what, bg_err *err)
{
    const bg_gradient_range own = bg_gradient_sum_own(t->sum);
    unsigned long long bad = t->parameters->n_trained;
    for (size_t i = own.end; i-- > own.first;)
        bad = isfinite(own_numbers[i - own.first]) ? bad : i;
    MPI_Allreduce(MPI_IN_PLACE, &bad, 1, MPI_UNSIGNED_LONG_LONG, MPI_MIN, t->comm);
    if (bad == t->parameters->n_trained)
        return BG_OK;
    return BG_FAIL(err, BG_ENUMERIC, "step %" PRIu64 ": the %s of \"%s\" is not finite", t->steps + 1, what,
                   bg_parameters_with(t->parameters, (size_t)bad)->name);
}

static bg_status update(bg_training *t, const step *s, bg_training_step_report *out, bg_err *err)
{
    const bg_recipe *r = &t->plan.recipe;
    const bg_gradient_range own = bg_gradient_sum_own(t->sum);
    double square, scale = 1 / (double)s->terms;
    const float *sum = bg_gradient_sum_finish(t->sum, &square);
    out->gradient_norm = sqrt(square) * scale;
    out->rate = bg_recipe_rate(r, t->steps);
    if (!isfinite(square))
        return refuse_numbers(t, sum, "gradient", err);
    if (r->clip_norm > 0 && out->gradient_norm + 1e-6 > r->clip_norm)
        scale *= r->clip_norm / (out->gradient_norm + 1e-6);
    bg_recipe_update(r, t->steps, t->parameters,
                     &(bg_update){ own.first, own.end, sum, scale, t->first_moment, t->second_moment });
    bg_status st = refuse_numbers(t, t->parameters->value + own.first, "updated value", err);
    if (st != BG_OK)
        return st;
    bg_gradient_sum_spread(t->sum, t->parameters->value);
    t->steps++;
    return BG_OK;
}

bg_status bg_training_step(bg_training *t, bg_training_step_report *out, bg_err *err)
{
    const step s = next_step(t);
    if (s.terms == 0)
        return BG_FAIL(err, BG_EFORMAT, "step %" PRIu64 ": masks leave none of its predicted tokens in the loss",
                       t->steps + 1);
    bg_status st = run_slices(t, &s, err);
    if (st != BG_OK && err != NULL)
        (void)BG_FAIL(err, st, "step %" PRIu64 ": %s", t->steps + 1, err->msg);
    if ((st = bg_agree(t->comm, st, err)) != BG_OK)
        return st;
    MPI_Allreduce(MPI_IN_PLACE, t->slice_loss, (int)t->plan.slices, MPI_DOUBLE, MPI_SUM, t->comm);
    out->loss = 0;
    for (size_t k = 0; k < t->plan.slices; k++)
        out->loss += t->slice_loss[k];
    out->loss /= (double)s.terms;
    out->tokens = s.terms;
    return update(t, &s, out, err);
}

uint64_t bg_training_steps_done(const bg_training *t) { return t->steps; }

void bg_training_keep(const bg_training *t, float *first_moment, float *second_moment)
{
    bg_gradient_sum_gather(t->sum, t->first_moment, first_moment);
    if (t->second_moment != NULL)
        bg_gradient_sum_gather(t->sum, t->second_moment, second_moment);
}

void bg_training_resume(bg_training *t, uint64_t steps, const float *first_moment, const float *second_moment)
{
    bg_broadcast(t->comm, t->parameters->value, t->parameters->n_values * sizeof *t->parameters->value, 0);
    bg_gradient_sum_scatter(t->sum, first_moment, t->first_moment);
    if (t->second_moment != NULL)
        bg_gradient_sum_scatter(t->sum, second_moment, t->second_moment);
    t->steps = steps;
    bg_training_data_seek(t->data, steps);
}

/* ---- losses of what is not trained on ---- */

/* Micro-batches of other sequences, in order; a rank runs every ranks-th of them. */
typedef struct {
    bg_training *t;
    const bg_tokens *tokens;
    double *loss;
    uint32_t *token;
    uint8_t *mark;           /* NULL: no file has any */
    uint64_t batches, terms; /* so far; terms in the loss */
} evaluation;

static bg_status run_losses(evaluation *e, bg_err *err)
{
    bg_training *t = e->t;
    const bg_batch *b = t->batch;
    bg_status st = BG_OK;
    if (e->batches++ % (uint64_t)t->ranks == (uint64_t)t->rank) {
        st = bg_pass_run(t->pass, b, (bg_labels){ 0 }, NULL, t->row_loss, err);
        for (size_t z = 0; z < b->n_sequences && st == BG_OK; z++)
            for (size_t i = b->row_start[z]; i < b->row_start[z + 1]; i++)
                e->loss[b->sequence[z]] += (double)t->row_loss[i];
    }
    bg_batch_clear(t->batch);
    return st;
}

static bg_status add_sequence(evaluation *e, uint64_t z, bg_err *err)
{
    bg_training *t = e->t;
    size_t n = bg_tokens_count(e->tokens, z);
    uint32_t start = bg_tokens_are_queries(e->tokens) ? bg_tokens_completion_start(e->tokens, z) - 1 : 0;
    bg_status st = BG_OK;
    if (n - 1 > t->plan.max_rows - t->batch->n_rows)
        st = run_losses(e, err);
    if (st == BG_OK)
        st = bg_tokens_read(e->tokens, z, z + 1, t->parameters->model->config.vocab_size, e->token, err);
    if (st == BG_OK && e->mark != NULL)
        st = bg_tokens_read_marks(e->tokens, z, z + 1, e->mark, err);
    if (st != BG_OK)
        return st;
    (void)bg_batch_add(t->batch, z, e->token, n, start);
    if (e->mark != NULL)
        (void)bg_batch_mark(t->batch, e->mark);
    for (size_t i = t->batch->n_rows - (n - 1) + start; i < t->batch->n_rows; i++)
        e->terms += t->batch->target[i] != BG_NO_TARGET;
    return BG_OK;
}

bg_status bg_training_losses(bg_training *t, const bg_tokens *tokens, double *loss, uint64_t *terms, bg_err *err)
{
    evaluation e = { .t = t, .tokens = tokens, .loss = loss };
    uint64_t n = bg_tokens_sequences(tokens);
    memset(loss, 0, n * sizeof *loss);
    bg_status st = BG_NEW(e.token, t->plan.max_rows + 1, "tokens", err);
    if (st == BG_OK && bg_tokens_are_marked(tokens))
        st = BG_NEW(e.mark, t->plan.max_rows + 1, "marks of tokens", err);
    for (uint64_t z = 0; z < n && st == BG_OK; z++)
        st = add_sequence(&e, z, err);
    if (st == BG_OK)
        st = run_losses(&e, err);
    *terms = e.terms;
    bg_free(e.token);
    bg_free(e.mark);
    st = bg_agree(t->comm, st, err);
    for (uint64_t z = 0; z < n && st == BG_OK; z += INT32_MAX) /* a sequence has one rank's loss, and zeros */
        MPI_Allreduce(MPI_IN_PLACE, loss + z, (int)(n - z < INT32_MAX ? n - z : INT32_MAX), MPI_DOUBLE, MPI_SUM,
                      t->comm);
    return st;
}

/* ---- what that costs ---- */

static void add_batches(bg_cost *cost, const bg_model *m, const bg_batch_shape *b, double times)
{
    const bg_share whole = bg_model_whole(m);
    bg_cost one = { 0 };
    bg_pass_cost(&one, m, &whole, b);
    if (!b->forward)
        bg_gradient_cost(&one, m, (double)(b->sequences * b->rows), (double)(b->sequences * b->loss_rows));
    bg_cost_add(cost, &one, times);
}

/* Sequences of a micro-batch of a slice of so many, as run_slice cuts it. */
static size_t batch_of(const bg_training_plan *plan, size_t sequences, size_t rows)
{
    size_t most = plan->max_rows, all = sequences * rows, batches = (all + most - 1) / most;
    size_t enough = ((all + batches - 1) / batches + rows - 1) / rows, fit = most / rows;
    return enough < fit ? enough : fit;
}

static void add_slices(bg_cost *cost, const bg_model *m, const bg_training_plan *plan, size_t sequences, size_t rows,
                       double times)
{
    if (sequences == 0)
        return;
    bg_batch_shape b = { batch_of(plan, sequences, rows), rows, rows, .max_rows = plan->max_rows };
    add_batches(cost, m, &b, times * (double)(sequences / b.sequences));
    b.sequences = sequences % b.sequences;
    add_batches(cost, m, &b, times);
}

/* The first of n sequences of a step, all of one length, that is in a slice. */
static size_t first_in(size_t n, size_t slices, size_t slice)
{
    return n / slices * slice + (n % slices * slice + slices - 1) / slices;
}

bg_traffic bg_training_step_cost(bg_cost *cost, const bg_model *m, const bg_training_plan *plan,
                                 const bg_training_shape *s)
{
    size_t most = 0, slices = 1, few = s->sequences / plan->slices;
    for (size_t r = 0; r < s->ranks; r++) {
        size_t first = bg_gradient_cut(plan->slices, s->ranks, r), end = bg_gradient_cut(plan->slices, s->ranks, r + 1);
        size_t own = first_in(s->sequences, plan->slices, end) - first_in(s->sequences, plan->slices, first);
        if (own > most) {
            most = own;
            slices = end - first;
        }
    }
    size_t larger = most - few * slices; /* slices with a sequence more */
    add_slices(cost, m, plan, few + 1, s->rows, (double)larger);
    add_slices(cost, m, plan, few, s->rows, (double)(slices - larger));
    bg_recipe_cost(cost, &plan->recipe, (double)s->n_trained / (double)s->ranks);
    return bg_gradient_sum_cost(cost, s->n_trained, plan->slices, s->ranks);
}

size_t bg_training_step_batch(const bg_training_plan *plan, const bg_training_shape *s)
{
    return batch_of(plan, (s->sequences + plan->slices - 1) / plan->slices, s->rows);
}

size_t bg_training_losses_batch(const bg_training_plan *plan, const bg_training_shape *s)
{
    size_t fit = plan->max_rows / s->rows;
    return fit < s->sequences ? fit : s->sequences;
}

void bg_training_losses_cost(bg_cost *cost, const bg_model *m, const bg_training_plan *plan, const bg_training_shape *s)
{
    bg_batch_shape b = { bg_training_losses_batch(plan, s), s->rows, s->loss_rows, .max_rows = plan->max_rows,
                         .forward = true };
    if (s->sequences == 0)
        return;
    size_t whole = s->sequences / b.sequences, rest = s->sequences % b.sequences;
    bool has_rest = whole % s->ranks == 0; /* as one rank more has a whole one otherwise */
    add_batches(cost, m, &b, (double)(has_rest ? whole / s->ranks : whole / s->ranks + 1));
    b.sequences = has_rest ? rest : 0;
    add_batches(cost, m, &b, 1);
}
