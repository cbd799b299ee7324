#include "bregman/sweep.h"

#include <math.h>
#include <string.h>

#include "bregman/log.h"
#include "bregman/memory.h"
#include "bregman/stage.h"
#include "bregman/timing.h"

/* A rank's own state of a sweep. */
typedef struct {
    const bg_sweep *s;
    bg_pass *pass;
    const bg_model *model;
    bg_batch *batch;
    uint32_t *token;               /* one sequence */
    float *loss;                   /* [max_rows] */
    uint64_t n_rows;               /* done so far */
    bg_progress progress;
    uint64_t round_first, round_sequences;      /* sequences before this round, and in it */
} worker;

uint64_t bg_sweep_units(const bg_sweep *s)
{
    return (s->n_sequences + s->unit_sequences - 1) / s->unit_sequences;
}

static uint64_t global_number(const bg_sweep *s, uint64_t i)
{
    return s->sequence == NULL ? s->begin + i : s->sequence[i];
}

/* Replace a sequence's targets by the given labels. */
static bg_status give_labels(const bg_sweep *s, uint64_t z, uint32_t *target, size_t rows, size_t vocab, bg_err *err)
{
    if (s->given_label == NULL)
        return BG_OK;
    if (z >= s->given_rows || rows > s->given_width)
        return BG_FAIL(err, BG_ESHAPE, "--labels: [%zu, %zu] labels, but sequence %llu needs %zu in row %llu",
                       s->given_rows, s->given_width, (unsigned long long)z, rows, (unsigned long long)z);
    for (size_t i = 0; i < rows; i++) {
        int64_t y;
        memcpy(&y, s->given_label + z * s->given_width + i, sizeof y);    /* a mapped file need not align it */
        if (y < 0 || (uint64_t)y >= vocab)
            return BG_FAIL(err, BG_EFORMAT, "--labels: label %lld of sequence %llu at position %zu is not below the vocabulary size %zu",
                           (long long)y, (unsigned long long)z, i, vocab);
        target[i] = (uint32_t)y;
    }
    return BG_OK;
}

static bg_status run_batch(worker *w, bg_unit *unit, uint64_t first, bg_err *err)
{
    const bg_sweep *s = w->s;
    if (s->begin_batch != NULL)
        s->begin_batch(s->self, w->batch, first);
    bg_status st = bg_pass_run(w->pass, w->batch, s->labels, &s->tap, w->loss, err);
    for (size_t i = 0; i < w->batch->n_rows && st == BG_OK; i++)
        unit->loss += (double)w->loss[i];
    unit->n_rows += w->batch->n_rows;
    w->n_rows += w->batch->n_rows;
    /* the other ranks are taken to be as far in their units as this one is */
    uint64_t part = w->round_sequences * (first + w->batch->n_sequences) / unit->n_sequences;
    if (st == BG_OK)
        bg_progress_update(&w->progress, w->round_first + part);
    return st;
}

/* Position c predicts token c + 1: a query's loss starts at the position before its completion. */
static uint32_t loss_start(const bg_sweep *s, uint64_t z)
{
    return bg_tokens_are_queries(s->tokens) ? bg_tokens_completion_start(s->tokens, z) - 1 : 0;
}

/* Micro-batches are filled with whole sequences in order until the next does not fit. */
static bg_status run_unit(worker *w, bg_unit *unit, bg_err *err)
{
    const bg_sweep *s = w->s;
    size_t vocab = w->model->config.vocab_size;
    uint64_t batch_first = 0;
    bg_status st = s->begin_unit(s->self, unit, err);
    bg_batch_clear(w->batch);
    for (uint64_t i = 0; i < unit->n_sequences && st == BG_OK; i++) {
        uint64_t z = global_number(s, unit->first + i);
        size_t n = bg_tokens_count(s->tokens, z);
        st = bg_tokens_read(s->tokens, z, z + 1, vocab, w->token, err);
        if (st == BG_OK && n - 1 > w->batch->max_rows - w->batch->n_rows) {
            st = run_batch(w, unit, batch_first, err);
            bg_batch_clear(w->batch);
            batch_first = i;
        }
        if (st == BG_OK && !bg_batch_add(w->batch, z, w->token, n, loss_start(s, z)))
            st = BG_FAIL(err, BG_EARG, "sequence %llu has %zu tokens: more than a micro-batch of %zu rows",
                         (unsigned long long)z, n, w->batch->max_rows);
        if (st == BG_OK)
            st = give_labels(s, z, w->batch->target + w->batch->n_rows - (n - 1), n - 1, vocab, err);
    }
    if (st == BG_OK)
        st = run_batch(w, unit, batch_first, err);
    return st == BG_OK ? s->end_unit(s->self, unit, err) : st;
}

static bg_status open_worker(worker *w, size_t max_rows, bg_err *err)
{
    bg_status st = bg_batch_new(&w->batch, max_rows, max_rows, err);
    if (st == BG_OK)
        st = BG_NEW(w->token, max_rows + 1, "tokens", err);
    if (st == BG_OK)
        st = BG_NEW(w->loss, max_rows, "losses", err);
    return st;
}

/* The units still to do, the same list on every rank: rank 0 looks. */
static bg_status pending_units(const bg_sweep *s, MPI_Comm comm, uint8_t *done, uint64_t *n_done, bg_err *err)
{
    int rank;
    uint64_t n = bg_sweep_units(s);
    bg_status st = BG_OK;
    MPI_Comm_rank(comm, &rank);
    for (uint64_t u = 0; u < n && st == BG_OK && rank == 0; u++) {
        bool is;
        st = s->is_done(s->self, u, &is, err);
        done[u] = st == BG_OK && is;
    }
    if ((st = bg_agree(comm, st, err)) != BG_OK)
        return st;
    bg_broadcast(comm, done, n, 0);
    *n_done = 0;
    for (uint64_t u = 0; u < n; u++)
        *n_done += done[u];
    return BG_OK;
}

static uint64_t unit_size(const bg_sweep *s, uint64_t u)
{
    uint64_t first = u * s->unit_sequences;
    return s->n_sequences - first < s->unit_sequences ? s->n_sequences - first : s->unit_sequences;
}

/* Deal the next pending units, one a rank; *mine is this rank's, or n if there is none for it. */
static void deal_round(worker *w, const uint8_t *done, int rank, int size, uint64_t *next, uint64_t *mine)
{
    uint64_t n = bg_sweep_units(w->s);
    *mine = n;
    w->round_first += w->round_sequences;
    w->round_sequences = 0;
    for (int dealt = 0; *next < n && dealt < size; (*next)++) {
        if (done[*next])
            continue;
        if (dealt++ == rank)
            *mine = *next;
        w->round_sequences += unit_size(w->s, *next);
    }
}

/* Rounds of one pending unit a rank; ranks agree after each. */
static bg_status run_rounds(worker *w, MPI_Comm comm, const uint8_t *done, bg_err *err)
{
    const bg_sweep *s = w->s;
    int rank, size;
    uint64_t n = bg_sweep_units(s), next = 0, mine;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &size);
    for (uint64_t u = 0; u < n; u++)
        w->round_first += done[u] ? unit_size(s, u) : 0;
    bg_progress_start(&w->progress, s->what, "sequences", w->round_first, s->n_sequences);
    bg_status st = BG_OK;
    while (next < n && st == BG_OK) {
        deal_round(w, done, rank, size, &next, &mine);
        if (mine < n) {
            bg_unit unit = { .unit = mine, .first = mine * s->unit_sequences, .n_sequences = unit_size(s, mine) };
            st = run_unit(w, &unit, err);
        }
        if (st == BG_OK && next < n && bg_stop_requested())
            st = BG_FAIL(err, BG_ESTOPPED, "%s: stopped on request; finished units are kept", s->what);
        st = bg_agree(comm, st, err);
    }
    if (st == BG_OK) {
        bg_progress_update(&w->progress, s->n_sequences);
        bg_progress_finish(&w->progress);
    }
    return st;
}

bg_status bg_sweep_run(const bg_sweep *s, bg_pass *pass, const bg_model *model, MPI_Comm comm, bg_err *err)
{
    worker w = { .s = s, .pass = pass, .model = model };
    uint8_t *done = NULL;
    uint64_t n_done = 0;
    bg_timing_begin(s->what);
    bg_status st = open_worker(&w, bg_pass_max_rows(pass), err);
    if (st == BG_OK)
        st = BG_NEW(done, bg_sweep_units(s), "list of units", err);
    if ((st = bg_agree(comm, st, err)) != BG_OK)
        goto out;
    if ((st = pending_units(s, comm, done, &n_done, err)) != BG_OK)
        goto out;
    if (n_done > 0)
        bg_log("%s: %llu of %llu units were finished before; going on", s->what, (unsigned long long)n_done,
               (unsigned long long)bg_sweep_units(s));
    st = run_rounds(&w, comm, done, err);
    bg_timing_end(w.n_rows);
out:
    bg_batch_free(w.batch);
    bg_free(w.token);
    bg_free(w.loss);
    bg_free(done);
    return st;
}
