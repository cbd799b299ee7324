/* sweep.c - units dealt to columns, streams of micro-batches, checkpoints; and why nothing is lost or done twice.
 *
 * 1. When a stream begins all ranks know the same state and part of every unit (find_finished, share_state).  So each
 *    finds by itself which units are its column's, and no message deals them.
 * 2. A unit is in one column's hands: it is PENDING and dealt to one, or HELD by the one that began it in an earlier
 *    stream, or DONE.
 * 3. A micro-batch begins where the one before it ended, and takes sequences until the next does not fit: where streams
 *    end, and parts, it is between two of those that an undisturbed run has.
 * 4. Every column that has work does a micro-batch in each stream, so that a job which is stopped again and again ends.
 * 5. When a stream ends well, all that was begun is done, and the unit in hand is kept as a part.  Of a column in which
 * a rank failed nothing is kept; what was kept before stands.
 * 6. Collectives of the world are between streams only: see 5 of pipeline.c. */
#include "bregman/sweep.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "bregman/log.h"
#include "bregman/memory.h"
#include "bregman/stop.h"
#include "bregman/timing.h"

/* What is known of a unit on all ranks when a stream begins. */
enum { PENDING, HELD, DONE };

/* A batch on its way through this rank. */
typedef struct {
    bg_batch *batch;
    bg_unit unit;
    uint64_t first; /* its first sequence, counted from the unit's first */
    uint64_t part;  /* if it begins the unit here: sequences of the kept part to start from */
    bool begins, ends;
} item;

/* A rank's own state of a sweep. */
typedef struct {
    const bg_sweep *s;
    const bg_context *ctx;
    bg_pass *pass;
    const bg_model *model;
    bg_pipeline *line;
    uint64_t n_units;
    uint8_t *state; /* [n_units] */
    uint64_t *part; /* [n_units] sequences of the parts found at the start */
    item *ring;     /* [depth] */
    size_t next_item, depth;
    uint32_t *token; /* one sequence */
    uint8_t *mark;   /* and its tokens' marks; NULL: no file has any */
    /* where this column's next batch comes from */
    uint64_t unit, at;      /* unit in hand (n_units: none), and its next sequence */
    uint64_t search, dealt; /* next unit to look at in this stream, and pending ones seen before it */
    bool held;              /* the unit in hand was begun in an earlier stream */
    bg_unit last;           /* unit of the last batch that was done, */
    uint64_t last_part;     /* and its sequences done; all of them if it has ended */
    uint64_t n_rows;        /* done on this rank */
    /* the end of streams */
    bg_notice notice;             /* shall they end? */
    double interval_s;            /* between checkpoints; 0: none */
    double stream_start_s, end_s; /* when this stream began; when this rank heard of its end, 0: not yet */
    uint64_t pushed, done;        /* batches of this stream, begun and done */
    /* what is said of it */
    double said_stop_s; /* how long a stop takes; 0: nothing said yet */
    double file_s;      /* longest time that the files of a unit or part took on any rank, as far as is known here */
    bg_progress progress;
    uint64_t done_before, done_here; /* sequences, by all before this stream, and by this column in it */
} worker;

uint64_t bg_sweep_units(const bg_sweep *s) { return (s->n_sequences + s->unit_sequences - 1) / s->unit_sequences; }

static uint64_t unit_size(const bg_sweep *s, uint64_t u)
{
    uint64_t first = u * s->unit_sequences;
    return s->n_sequences - first < s->unit_sequences ? s->n_sequences - first : s->unit_sequences;
}

static uint64_t global_number(const bg_sweep *s, uint64_t i)
{
    return s->sequence == NULL ? s->begin + i : s->sequence[i];
}

/* ---- batches ---- */

/* Replace a sequence's targets by the given labels. */
static bg_status give_labels(const bg_sweep *s, uint64_t z, uint32_t *target, size_t rows, size_t vocab, bg_err *err)
{
    if (s->given_label == NULL)
        return BG_OK;
    if (z >= s->given_rows || rows > s->given_width)
        return BG_FAIL(err, BG_ESHAPE, "%s: [%zu, %zu] labels, but sequence %" PRIu64 " needs %zu in row %" PRIu64,
                       s->given_file, s->given_rows, s->given_width, z, rows, z);
    for (size_t i = 0; i < rows; i++) {
        int64_t y;
        memcpy(&y, s->given_label + z * s->given_width + i, sizeof y); /* a mapped file need not align it */
        if (y < 0 || (uint64_t)y >= vocab)
            return BG_FAIL(err, BG_EFORMAT,
                           "%s: label %" PRId64 " of sequence %" PRIu64
                           " at position %zu is not below the vocabulary size %zu",
                           s->given_file, y, z, i, vocab);
        target[i] = (uint32_t)y;
    }
    return BG_OK;
}

/* Position c predicts token c + 1: a query's loss starts at the position before its completion. */
static uint32_t loss_start(const bg_sweep *s, uint64_t z)
{
    return bg_tokens_are_queries(s->tokens) ? bg_tokens_completion_start(s->tokens, z) - 1 : 0;
}

/* After the labels: those of masked tokens count for nothing. */
static bg_status mask(const worker *w, uint64_t z, bg_batch *b, bg_err *err)
{
    if (w->mark == NULL)
        return BG_OK;
    bg_status st = bg_tokens_read_marks(w->s->tokens, z, z + 1, w->mark, err);
    if (st == BG_OK && !bg_batch_mark(b, w->mark))
        st = bg_tokens_fail_masked(w->s->tokens, z, err);
    return st;
}

static void erase(const bg_sweep *s, uint64_t i, bg_batch *b)
{
    if (s->erased != NULL && s->erased[i] != BG_NOT_ERASED)
        bg_batch_erase(b, s->erased[i]);
}

/* Is there a batch to come for this column?  Finds its next unit: of those pending when the stream began, every
 * data_size-th. */
static bool find_work(worker *w)
{
    const bg_grid *g = &w->ctx->grid;
    while (w->unit == w->n_units && w->search < w->n_units) {
        uint64_t u = w->search++;
        if (w->state[u] != PENDING || (int)(w->dealt++ % (uint64_t)g->data_size) != g->data_rank)
            continue;
        w->unit = u;
        w->at = w->part[u];
        w->held = false;
        assert(w->at < unit_size(w->s, u)); /* 2 */
    }
    return w->unit < w->n_units;
}

static uint64_t rows_of(const bg_sweep *s, const bg_unit *unit, uint64_t sequences)
{
    uint64_t rows = 0;
    for (uint64_t i = 0; i < sequences; i++)
        rows += bg_tokens_count(s->tokens, global_number(s, unit->first + i)) - 1;
    return rows;
}

/* The next batch: whole sequences in order until the next does not fit, and never across units. */
static bg_status fill(worker *w, item *it, bg_err *err)
{
    const bg_sweep *s = w->s;
    bg_batch *b = it->batch;
    size_t vocab = w->model->config.vocab_size;
    uint64_t n = unit_size(s, w->unit);
    it->unit = (bg_unit){ .unit = w->unit, .first = w->unit * s->unit_sequences, .n_sequences = n };
    it->unit.n_rows = rows_of(s, &it->unit, n);
    it->begins = !w->held && w->at == w->part[w->unit];
    it->part = w->part[w->unit];
    it->first = w->at;
    bg_batch_clear(b);
    for (; w->at < n; w->at++) {
        uint64_t z = global_number(s, it->unit.first + w->at);
        size_t count = bg_tokens_count(s->tokens, z);
        if (b->n_rows > 0 && count - 1 > b->max_rows - b->n_rows)
            break;
        if (count - 1 > b->max_rows)
            return BG_FAIL(err, BG_EARG, "sequence %" PRIu64 " has %zu tokens: more than a micro-batch of %zu rows", z,
                           count, b->max_rows);
        bg_status st = bg_tokens_read(s->tokens, z, z + 1, vocab, w->token, err);
        if (st == BG_OK && !bg_batch_add(b, z, w->token, count, loss_start(s, z)))
            st = BG_FAIL(err, BG_EARG, "sequence %" PRIu64 " does not fit into a micro-batch", z);
        if (st == BG_OK)
            st = give_labels(s, z, b->target + b->n_rows - (count - 1), count - 1, vocab, err);
        if (st == BG_OK)
            st = mask(w, z, b, err);
        if (st != BG_OK)
            return st;
        erase(s, it->unit.first + w->at, b);
    }
    it->ends = w->at == n;
    if (it->ends)
        w->unit = w->n_units;
    return BG_OK;
}

static bg_status batch_begins(void *worker_, void *item_, bg_err *err)
{
    worker *w = worker_;
    const item *it = item_;
    bg_status st = it->begins ? w->s->begin_unit(w->s->self, &it->unit, it->part, err) : BG_OK;
    if (st == BG_OK && w->s->begin_batch != NULL)
        w->s->begin_batch(w->s->self, it->batch, it->first);
    return st;
}

static size_t directions(void *worker_, void *item_)
{
    const worker *w = worker_;
    const item *it = item_;
    return w->s->directions(w->s->self, it->batch, it->unit.first + it->first);
}

static bg_status along(void *worker_, void *item_, size_t slot, size_t k, float *x, bg_err *err)
{
    const worker *w = worker_;
    return w->s->along(w->s->self, ((const item *)item_)->batch, slot, k, x, err);
}

/* When the first files are written, or after half a minute where that takes longer; and again when files show that a
 * stop takes longer than was said. */
static void say_pace(worker *w, bool files_written)
{
    const double soon_s = 30, margin_s = 60, more = 1.25;
    double s = bg_now_s() - w->stream_start_s, said_s = w->said_stop_s;
    uint64_t size = unit_size(w->s, w->last.unit);
    char kept[64] = "at a stop";
    if (!files_written && (said_s > 0 || s < soon_s))
        return;
    double unit_s = s / (double)w->done_here * (double)size,
           stop_s = (double)w->depth * s / (double)w->done + w->file_s;
    if (said_s > 0 && stop_s < more * said_s + 1)
        return;
    w->said_stop_s = stop_s;
    if (w->interval_s > 0)
        snprintf(kept, sizeof kept, "every %.3g s", w->interval_s);
    if (said_s > 0)
        bg_log("%s: a stop takes longer, about %.3g s: ask for it %.0f s before a time limit", w->s->what, stop_s,
               stop_s + margin_s);
    else
        bg_log("%s: a unit of %" PRIu64
               " sequences takes about %.3g s; unfinished ones are kept %s; a stop takes %s %.3g s: ask for "
               "it %.0f s before a time limit",
               w->s->what, size, unit_s, kept, w->file_s > 0 ? "about" : "at least", stop_s, stop_s + margin_s);
}

/* The files of the unit in hand, or of its part. */
static bg_status write_unit(worker *w, bool ended, bg_err *err)
{
    const bg_sweep *s = w->s;
    double start = bg_now_s();
    bg_status st = ended ? s->end_unit(s->self, &w->last, w->line, err)
                         : s->keep_part(s->self, &w->last, w->last_part, w->line, err);
    double took_s = bg_now_s() - start;
    w->file_s = took_s > w->file_s ? took_s : w->file_s;
    say_pace(w, true);
    return st;
}

static bg_status batch_ends(void *worker_, void *item_, bg_err *err)
{
    worker *w = worker_;
    const item *it = item_;
    w->n_rows += it->batch->n_rows;
    w->done_here += it->batch->n_sequences;
    /* 3 */
    assert(it->begins ? it->first == it->part : it->unit.unit == w->last.unit && it->first == w->last_part);
    w->last = it->unit;
    w->last_part = it->first + it->batch->n_sequences;
    w->done++;
    if (w->s->losses != NULL && bg_pass_losses(w->pass) != NULL) {
        bg_status st = w->s->losses(w->s->self, it->batch, bg_pass_losses(w->pass), err);
        if (st != BG_OK)
            return st;
    }
    /* the other columns are taken to be as far as this one */
    uint64_t sum = w->done_before + w->done_here * (uint64_t)w->ctx->grid.data_size;
    bg_progress_update(&w->progress, sum < w->s->n_sequences ? sum : w->s->n_sequences);
    if (it->ends) {
        w->state[it->unit.unit] = DONE;
        return write_unit(w, true, err);
    }
    say_pace(w, false);
    return BG_OK;
}

/* ---- the end of streams ---- */

/* Before each batch, on every rank: say what there is to say, and hear. */
static bool end_is_asked(worker *w)
{
    double now = bg_now_s();
    if (w->interval_s > 0 && now - w->stream_start_s > w->interval_s)
        bg_notice_say(&w->notice, BG_NOTICE_END);
    bool asked = bg_stop_heard(&w->notice);
    if (asked && w->end_s == 0)
        w->end_s = now;
    return asked;
}

static bg_status push_batch(worker *w, bg_err *err)
{
    item *it = &w->ring[w->next_item++ % w->depth];
    bool found = find_work(w); /* on the first rank it has brought the same unit before */
    bg_status st = found ? fill(w, it, err)
                         : BG_FAIL(err, BG_EARG, "%s: ranks differ in what is left to do", w->s->what);
    w->pushed++;
    return st == BG_OK ? bg_pipeline_push(w->line, it->batch, it, err) : st;
}

/* Batches until there are no more or the end is asked for, but at least one, so that every stream gets something done. */
static bg_status run_batches(worker *w, bg_err *err)
{
    bool more = true;
    bg_status st = BG_OK;
    while (st == BG_OK) {
        bool asked = end_is_asked(w);
        if (w->ctx->grid.pipeline_rank == 0)
            more = !(asked && w->pushed > 0) && find_work(w);
        st = bg_pipeline_next(w->line, &more, err);
        if (st != BG_OK || !more)
            break;
        st = push_batch(w, err);
    }
    return st == BG_OK ? bg_pipeline_flush(w->line, err) : st;
}

/* One stream of batches, and the part of the unit it leaves unfinished.  Collective over the world; a local status. */
static bg_status run_stream(worker *w, bg_err *err)
{
    w->search = w->dealt = w->pushed = w->done = 0;
    w->stream_start_s = bg_now_s();
    w->end_s = 0;
    bg_notice_begin(&w->notice, w->ctx->grid.world);
    bg_pipeline_begin(w->line);
    bg_status st = run_batches(w, err);
    if (st == BG_OK && w->unit < w->n_units && w->at > w->part[w->unit]) {
        w->last.n_rows = rows_of(w->s, &w->last, w->last_part);
        st = write_unit(w, false, err);
    }
    if (st != BG_OK)
        bg_notice_say(&w->notice, BG_NOTICE_END);
    st = bg_pipeline_end(w->line, st, err);
    bg_stop_wait(&w->notice);
    assert(st != BG_OK || w->done == w->pushed); /* 5 */
    return st;
}

/* ---- the whole ---- */

static bg_status open_worker(worker *w, bg_err *err)
{
    size_t rows = bg_pass_max_rows(w->pass);
    const bg_pipeline_work work = { .labels = w->s->labels,
                                    .tap = w->s->tap,
                                    .self = w,
                                    .begin = batch_begins,
                                    .end = batch_ends,
                                    .gather_bytes = w->s->gather_bytes,
                                    .directions = w->s->directions != NULL ? directions : NULL,
                                    .along = along,
                                    .tangent = { w->s->tangent[0], w->s->tangent[1] } };
    bg_status st = bg_pipeline_new(&w->line, w->pass, w->model, &w->ctx->grid, &work, &w->notice, err);
    if (st == BG_OK)
        st = BG_NEW(w->token, rows + 1, "tokens", err);
    if (st == BG_OK && bg_tokens_are_marked(w->s->tokens))
        st = BG_NEW(w->mark, rows + 1, "marks of tokens", err);
    if (st == BG_OK)
        st = BG_NEW(w->state, w->n_units, "list of units", err);
    if (st == BG_OK)
        st = BG_NEW(w->part, w->n_units, "list of units", err);
    if (st == BG_OK)
        st = BG_NEW(w->ring, w->depth, "micro-batches", err);
    for (size_t i = 0; i < w->depth && st == BG_OK; i++)
        st = bg_batch_new(&w->ring[i].batch, rows, rows, err);
    return st;
}

static void close_worker(worker *w)
{
    bg_pipeline_free(w->line);
    for (size_t i = 0; w->ring != NULL && i < w->depth; i++)
        bg_batch_free(w->ring[i].batch);
    bg_free(w->ring);
    bg_free(w->token);
    bg_free(w->mark);
    bg_free(w->state);
    bg_free(w->part);
}

/* What is there already: world rank 0 looks, all know. */
static bg_status find_finished(worker *w, bg_err *err)
{
    const bg_grid *g = &w->ctx->grid;
    uint64_t n_done = 0, n_kept = 0;
    char kept[64] = "";
    bool *done = NULL;
    bg_status st = g->world_rank == 0 ? BG_NEW(done, w->n_units, "list of units", err) : BG_OK;
    if (st == BG_OK && g->world_rank == 0)
        st = w->s->find(w->s->self, done, w->part, err);
    for (uint64_t u = 0; u < w->n_units && st == BG_OK && g->world_rank == 0; u++) {
        w->state[u] = done[u] ? DONE : PENDING;
        w->part[u] = done[u] ? 0 : w->part[u];
    }
    bg_free(done);
    if ((st = bg_agree(g->world, st, err)) != BG_OK)
        return st;
    bg_broadcast(g->world, w->state, w->n_units * sizeof *w->state, 0);
    bg_broadcast(g->world, w->part, w->n_units * sizeof *w->part, 0);
    for (uint64_t u = 0; u < w->n_units; u++) {
        n_done += w->state[u] == DONE;
        n_kept += w->part[u];
    }
    if (n_kept > 0)
        snprintf(kept, sizeof kept, ", and %" PRIu64 " sequences of others,", n_kept);
    if (n_done + n_kept > 0)
        bg_log("%s: %" PRIu64 " of %" PRIu64 " units%s were finished before; going on", w->s->what, n_done, w->n_units,
               kept);
    return BG_OK;
}

/* Sequences that need no further work, those of parts too. */
static uint64_t sequences_done(const worker *w)
{
    uint64_t n = 0;
    for (uint64_t u = 0; u < w->n_units; u++)
        n += w->state[u] == DONE ? unit_size(w->s, u) : w->part[u];
    return n;
}

double bg_sweep_interval_s(double asked_s, double took_s)
{
    const double share = 0.05;
    double least_s = took_s * (1 - share) / share;
    return asked_s <= 0 || least_s < asked_s ? asked_s : least_s;
}

/* What all ranks must know after a stream: was a stop asked for, and what the checkpoint and the files took the slowest
 * of them. */
static bool settle(worker *w)
{
    double seen[3] = { bg_stop_requested(), w->end_s > 0 ? bg_now_s() - w->end_s : 0, w->file_s };
    MPI_Allreduce(MPI_IN_PLACE, seen, 3, MPI_DOUBLE, MPI_MAX, w->ctx->grid.world);
    w->file_s = seen[2];
    w->interval_s = bg_sweep_interval_s(w->ctx->checkpoint_s, seen[1]);
    return seen[0] > 0;
}

/* Another attempt has got further than some file that this one was to go on from.  Collective. */
static bg_status look_again(worker *w, bg_err *err)
{
    w->unit = w->n_units;
    w->held = false;
    return find_finished(w, err);
}

/* What this rank has in hand, and what the others have. */
static void share_state(worker *w)
{
    MPI_Comm world = w->ctx->grid.world;
    w->held = w->unit < w->n_units && (w->held || w->at > w->part[w->unit]);
    if (w->held) {
        w->state[w->unit] = HELD;
        w->part[w->unit] = w->at;
    }
    /* each unit is known best to its own column: the furthest state and part */
    MPI_Allreduce(MPI_IN_PLACE, w->state, (int)w->n_units, MPI_UINT8_T, MPI_MAX, world);
    MPI_Allreduce(MPI_IN_PLACE, w->part, (int)w->n_units, MPI_UINT64_T, MPI_MAX, world);
}

/* Streams until all units are done; ranks agree after each. */
static bg_status run_streams(worker *w, bg_err *err)
{
    enum { LOOKS = 100 };
    const bg_grid *g = &w->ctx->grid;
    int looks = 0;
    w->interval_s = w->ctx->checkpoint_s;
    bg_progress_start(&w->progress, w->s->what, "sequences", sequences_done(w), w->s->n_sequences);
    while (sequences_done(w) < w->s->n_sequences) {
        w->done_before = sequences_done(w);
        w->done_here = 0;
        bg_status st = run_stream(w, err);
        bool stopped = settle(w);
        st = bg_agree(g->world, st, err);
        if (st == BG_OK)
            share_state(w);
        else if (st == BG_EGONE && looks++ < LOOKS)
            st = look_again(w, err);
        if (st != BG_OK)
            return st;
        if (stopped && sequences_done(w) < w->s->n_sequences)
            return BG_FAIL(err, BG_ESTOPPED, "%s: stopped on request; finished work is kept", w->s->what);
    }
    bg_progress_update(&w->progress, w->s->n_sequences);
    bg_progress_finish(&w->progress);
    return BG_OK;
}

/* The bubble: what share of the ranks' time went into waiting for each other's messages. */
static void report_waiting(const worker *w, double seconds)
{
    const bg_grid *g = &w->ctx->grid;
    double waited = bg_pipeline_waited_s(w->line);
    MPI_Allreduce(MPI_IN_PLACE, &waited, 1, MPI_DOUBLE, MPI_SUM, g->world);
    if (g->pipeline_size > 1 && seconds > 0)
        bg_log("%s: pipeline of %d ranks: %.1f %% of their time was spent waiting for messages", w->s->what,
               g->pipeline_size, 100.0 * waited / (seconds * g->world_size));
}

bg_status bg_sweep_run(const bg_sweep *s, bg_pass *pass, const bg_model *model, const bg_context *ctx, bg_err *err)
{
    uint64_t n = bg_sweep_units(s);
    worker w = { .s = s,
                 .ctx = ctx,
                 .pass = pass,
                 .model = model,
                 .n_units = n,
                 .unit = n,
                 .depth = bg_pass_depth(pass),
                 .notice.round = MPI_REQUEST_NULL };
    double start = bg_now_s();
    bg_timing_begin(s->what);
    bg_status st = bg_agree(ctx->grid.world, open_worker(&w, err), err);
    if (st == BG_OK)
        st = find_finished(&w, err);
    if (st == BG_OK)
        st = run_streams(&w, err);
    if (st == BG_OK) {
        report_waiting(&w, bg_now_s() - start);
        bg_timing_wait(bg_pipeline_waited_s(w.line));
        bg_timing_end(w.n_rows);
    }
    close_worker(&w);
    return st;
}
