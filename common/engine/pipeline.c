/* pipeline.c - one forward, one backward, and why no rank of it waits for ever.
 *
 * 1. Between bg_pipeline_begin and bg_pipeline_end a rank waits for a message only in wait_for, which also waits for
 * the column's notice (notice.h).  It leaves with BG_ESTOPPED when a rank of the column has failed.
 * 2. A rank that fails says so in bg_pipeline_end, which all ranks come to, each by itself or by 1.
 * 3. There, where one has failed, a rank takes whatever still comes, and is through when all that it sent has been
 * taken (sends are synchronous: complete when received); from then on it only has its part in the notice's rounds.  It
 * goes on taking until all are through (Hoefler, Siebert & Lumsdaine 2010).  So every send is met, though its receive
 * was cancelled.
 * 4. Rounds go on: a rank that computes looks between its products, and one that waits is woken by them.
 * 5. Only after its end does a rank enter a collective of more ranks than the column's: those meet no rank that still
 * waits for it. */
#include "bregman/pipeline.h"

#include <assert.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bregman/log.h"
#include "bregman/memory.h"

enum { TAG_FORWARD = 1, TAG_BACKWARD, TAG_GATHER, TAG_TANGENT };
/* What a message is, in its last BG_PASS_TRAILER floats. */
enum { MESSAGE_DATA = 1, MESSAGE_END };

typedef struct {
    const bg_batch *batch;
    void *item;
} flight;

struct bg_pipeline {
    bg_pass *pass;
    MPI_Comm comm;
    int rank, size;
    bg_pipeline_work work;
    size_t d, depth, max_floats;            /* floats of a message at most */
    bool receives_gradient, sends_gradient; /* else the messages say only that a batch is done */
    uint64_t n_forward, n_backward;         /* batches begun, and done */
    flight *on_way;                         /* [depth], batch b at b % depth */
    float **input;                          /* [depth + 1], batch b at b % (depth + 1) */
    float *gradient[2];                     /* batch b at b % 2 */
    float *memory;                          /* what the buffers are cut from */
    MPI_Request *sent_output;               /* [depth] */
    MPI_Request sent_gradient[2], sent_tangent[2], sent_end, sent_gather;
    MPI_Request input_request, gradient_request; /* receives posted ahead, or null */
    MPI_Request gather_request, tangent_request;
    size_t arrived; /* floats of the batch that bg_pipeline_next announced */
    void *gather;
    float end[BG_PASS_TRAILER];
    bg_notice column;  /* has a rank of it failed? */
    bg_notice *others; /* the caller's, looked at along; may be NULL */
    double waited_s;
};

static bool is_first(const bg_pipeline *l) { return l->rank == 0; }
static bool is_last(const bg_pipeline *l) { return l->rank == l->size - 1; }

size_t bg_pipeline_depth(int rank, int size) { return (size_t)(size - rank); }

static size_t message_floats(const bg_model *model, size_t max_rows)
{
    return (max_rows * model->config.d_model + BG_PASS_TRAILER + 15) / 16 * 16;
}

size_t bg_pipeline_bytes(const bg_model *model, int rank, int size, size_t max_rows)
{
    return size == 1 ? 0 : (bg_pipeline_depth(rank, size) + 3) * message_floats(model, max_rows) * sizeof(float);
}

size_t bg_pipeline_most_rows(const bg_model *model, int size)
{
    return size == 1 ? SIZE_MAX : (INT_MAX / 16 * 16 - BG_PASS_TRAILER) / model->config.d_model;
}

bg_status bg_pipeline_pass_new(bg_pass **out, const bg_model *model, const bg_share *share, const bg_grid *grid,
                               size_t max_rows, bg_err *err)
{
    *out = NULL;
    if (max_rows > bg_pipeline_most_rows(model, grid->pipeline_size))
        return BG_FAIL(err, BG_EARG,
                       "a micro-batch of %zu positions of %zu numbers is more than MPI sends at once: "
                       "give a smaller --batch-tokens, shorter sequences, or --pipeline 1",
                       max_rows, model->config.d_model);
    return bg_pass_new(out, model, share, bg_pipeline_depth(grid->pipeline_rank, grid->pipeline_size), max_rows,
                       BG_LOGITS_BYTES, err);
}

size_t bg_pipeline_pass_bytes(const bg_model *model, const bg_share *share, const bg_grid *grid, size_t max_rows)
{
    int rank = grid->pipeline_rank, size = grid->pipeline_size;
    return bg_pass_bytes(model, share, bg_pipeline_depth(rank, size), max_rows, BG_LOGITS_BYTES) +
           bg_pipeline_bytes(model, rank, size, max_rows);
}

size_t bg_pipeline_touched_bytes(const bg_model *model, const bg_share *share, const bg_grid *grid, size_t rows,
                                 size_t loss_rows, size_t batches)
{
    size_t logits = loss_rows * model->config.vocab_size * sizeof(float);
    int rank = grid->pipeline_rank, size = grid->pipeline_size;
    size_t depth = bg_pipeline_depth(rank, size), messages = bg_pipeline_bytes(model, rank, size, rows);
    if (rank == 0)
        messages = messages / (depth + 3) * 2; /* nobody sends it activations */
    return bg_pass_bytes(model, share, depth < batches ? depth : batches, rows,
                         logits < BG_LOGITS_BYTES ? logits : BG_LOGITS_BYTES) +
           messages;
}

/* ---- requests ---- */

/* One at a time, not MPI_Testall: in MPICH's headers MPI_STATUSES_IGNORE looks to the compiler like an array that is
 * too small, and it warns. */
static bool test_all(MPI_Request *requests, size_t n)
{
    bool all = true;
    for (size_t i = 0; i < n; i++) {
        int done;
        MPI_Test(&requests[i], &done, MPI_STATUS_IGNORE);
        all = all && done;
    }
    return all;
}

/* ---- memory ---- */

/* Has a rank of the column failed, as far as this one has heard? */
static bool has_failed(bg_pipeline *l)
{
    if (l->others != NULL)
        (void)bg_notice_heard(l->others);
    return l->size > 1 && bg_notice_heard(&l->column) == BG_NOTICE_FAILED;
}

/* Where neither network nor kernel do the copying, a long message moves only while both its ranks call the MPI library,
 * a piece a call: so a rank that computes looks in between products, for up to a millisecond while something is on its
 * way. */
static void poke(void *pipeline)
{
    const double most_s = 1e-3;
    bg_pipeline *l = pipeline;
    double start = bg_now_s();
    bool outputs, gradients;
    (void)has_failed(l);
    do {
        outputs = test_all(l->sent_output, l->depth);
        gradients = test_all(l->sent_gradient, 2) && test_all(l->sent_tangent, 2);
    } while (!(outputs && gradients) && bg_now_s() < start + most_s);
    l->waited_s += bg_now_s() - start;
}

static bg_status take_buffers(bg_pipeline *l, bg_err *err)
{
    bg_status st = BG_NEW(l->on_way, l->depth, "pipeline", err);
    if (st == BG_OK)
        st = BG_NEW(l->input, l->depth + 1, "pipeline", err);
    if (st == BG_OK)
        st = BG_NEW(l->sent_output, l->depth, "pipeline", err);
    if (st == BG_OK)
        st = BG_NEW(l->memory, l->size == 1 ? l->max_floats : (l->depth + 3) * l->max_floats,
                    "messages of the pipeline", err);
    if (st != BG_OK)
        return st;
    float *at = l->memory;
    l->gradient[0] = l->gradient[1] = at;
    for (size_t i = 0; i < l->depth; i++)
        l->sent_output[i] = MPI_REQUEST_NULL;
    if (l->size == 1)
        return BG_OK;
    l->gradient[1] = at += l->max_floats;
    for (size_t i = 0; i <= l->depth; i++)
        l->input[i] = at += l->max_floats;
    return BG_OK;
}

bg_status bg_pipeline_new(bg_pipeline **out, bg_pass *pass, const bg_model *model, const bg_grid *grid,
                          const bg_pipeline_work *work, bg_notice *others, bg_err *err)
{
    bg_pipeline *l = NULL;
    const bg_share *share = bg_pass_share(pass);
    *out = NULL;
    bg_status st = BG_NEW(l, 1, "pipeline", err);
    if (st != BG_OK)
        return st;
    *l = (bg_pipeline){
        .pass = pass,
        .comm = grid->pipeline,
        .rank = grid->pipeline_rank,
        .size = grid->pipeline_size,
        .work = *work,
        .d = model->config.d_model,
        .depth = bg_pass_depth(pass),
        .max_floats = message_floats(model, bg_pass_max_rows(pass)),
        .receives_gradient = !share->has_head && bg_share_has_backward(model, share),
        .sends_gradient = bg_share_passes_gradient(model, share),
        .sent_gradient = { MPI_REQUEST_NULL, MPI_REQUEST_NULL },
        .sent_tangent = { MPI_REQUEST_NULL, MPI_REQUEST_NULL },
        .sent_end = MPI_REQUEST_NULL,
        .sent_gather = MPI_REQUEST_NULL,
        .input_request = MPI_REQUEST_NULL,
        .gradient_request = MPI_REQUEST_NULL,
        .gather_request = MPI_REQUEST_NULL,
        .tangent_request = MPI_REQUEST_NULL,
        .column.round = MPI_REQUEST_NULL,
        .others = others,
    };
    assert(l->size == 1 || l->max_floats <= INT_MAX);
    st = take_buffers(l, err);
    if (st == BG_OK && work->gather_bytes > 0 && !is_first(l))
        st = bg_allocated(l->gather = bg_alloc(work->gather_bytes, 1, "results of a unit", err));
    if (st != BG_OK) {
        bg_pipeline_free(l);
        return st;
    }
    if (l->size > 1)
        bg_pass_set_poke(pass, poke, l);
    *out = l;
    return BG_OK;
}

/* No message is on its way: each stream's end has seen to that. */
void bg_pipeline_free(bg_pipeline *l)
{
    if (l == NULL)
        return;
    bg_pass_set_poke(l->pass, NULL, NULL);
    bg_free(l->on_way);
    bg_free(l->input);
    bg_free(l->sent_output);
    bg_free(l->memory);
    bg_free(l->gather);
    bg_free(l);
}

double bg_pipeline_waited_s(const bg_pipeline *l) { return l->waited_s; }

/* ---- messages ---- */

static bg_status neighbour_failed(bg_err *err)
{
    return BG_FAIL(err, BG_ESTOPPED, "another rank of the pipeline failed");
}

/* A request of the stream; or word that the stream has failed. */
static bg_status wait_for(bg_pipeline *l, MPI_Request *request, MPI_Status *status, bg_err *err)
{
    double start = bg_now_s();
    bool failed = false;
    while (*request != MPI_REQUEST_NULL && !failed) {
        bg_notice *notice[] = { &l->column, l->others };
        MPI_Request any[] = { *request, l->column.round, l->others != NULL ? l->others->round : MPI_REQUEST_NULL };
        MPI_Status found;
        int which;
        MPI_Waitany(3, any, &which, &found);
        if (which == 0) {
            *request = MPI_REQUEST_NULL;
            *status = found;
        } else {
            bg_notice_turn(notice[which - 1]);
            failed = l->column.heard == BG_NOTICE_FAILED;
        }
    }
    l->waited_s += bg_now_s() - start;
    return failed ? neighbour_failed(err) : BG_OK;
}

static bg_status wait_sent(bg_pipeline *l, MPI_Request *request, bg_err *err)
{
    MPI_Status ignored;
    return wait_for(l, request, &ignored, err);
}

static void post_input(bg_pipeline *l)
{
    MPI_Irecv(l->input[l->n_forward % (l->depth + 1)], (int)l->max_floats, MPI_FLOAT, l->rank - 1, TAG_FORWARD, l->comm,
              &l->input_request);
}

/* The buffer's last gradient must have left it. */
static bg_status post_gradient(bg_pipeline *l, uint64_t batch, bg_err *err)
{
    bg_status st = wait_sent(l, &l->sent_gradient[batch % 2], err);
    if (st == BG_OK)
        MPI_Irecv(l->gradient[batch % 2], (int)l->max_floats, MPI_FLOAT, l->rank + 1, TAG_BACKWARD, l->comm,
                  &l->gradient_request);
    return st;
}

static void set_kind(float *trailer, int kind) { memcpy(trailer, &kind, sizeof kind); }

/* Kind of a message that has come, and its floats without the trailer. */
static int kind_of(const float *message, const MPI_Status *status, size_t *floats)
{
    int count, kind;
    MPI_Get_count(status, MPI_FLOAT, &count);
    assert(count >= BG_PASS_TRAILER);
    *floats = (size_t)count - BG_PASS_TRAILER;
    memcpy(&kind, message + *floats, sizeof kind);
    return kind;
}

/* The other rank is often waiting for the message already, so it is given the time that copying takes before this rank
 * computes on. */
static void send_data(bg_pipeline *l, float *data, size_t floats, int to, int tag, MPI_Request *request)
{
    const double slow_floats_per_s = 1e8;
    double start = bg_now_s(), limit_s = start + 1e-3 + (double)floats / slow_floats_per_s;
    int sent = 0;
    set_kind(data + floats, MESSAGE_DATA);
    MPI_Issend(data, (int)(floats + BG_PASS_TRAILER), MPI_FLOAT, to, tag, l->comm, request);
    while (!sent && bg_now_s() < limit_s)
        MPI_Test(request, &sent, MPI_STATUS_IGNORE);
    l->waited_s += bg_now_s() - start;
}

/* There are no more batches: to the rank after this one. */
static void send_end(bg_pipeline *l)
{
    if (is_last(l))
        return;
    set_kind(l->end, MESSAGE_END);
    MPI_Issend(l->end, BG_PASS_TRAILER, MPI_FLOAT, l->rank + 1, TAG_FORWARD, l->comm, &l->sent_end);
}

/* ---- the stream ---- */

void bg_pipeline_begin(bg_pipeline *l)
{
    if (l->size > 1)
        bg_notice_begin(&l->column, l->comm);
}

bg_status bg_pipeline_next(bg_pipeline *l, bool *more, bg_err *err)
{
    MPI_Status status;
    if (has_failed(l))
        return neighbour_failed(err);
    if (is_first(l)) {
        if (!*more)
            send_end(l);
        return BG_OK;
    }
    const float *input = l->input[l->n_forward % (l->depth + 1)];
    if (l->input_request == MPI_REQUEST_NULL)
        post_input(l);
    bg_status st = wait_for(l, &l->input_request, &status, err);
    if (st != BG_OK)
        return st;
    *more = kind_of(input, &status, &l->arrived) == MESSAGE_DATA;
    if (!*more)
        send_end(l);
    return BG_OK;
}

static bg_status receive_gradient(bg_pipeline *l, size_t rows, bg_err *err)
{
    uint64_t b = l->n_backward;
    MPI_Status status;
    size_t floats;
    bg_status st = l->gradient_request == MPI_REQUEST_NULL ? post_gradient(l, b, err) : BG_OK;
    if (st == BG_OK)
        st = wait_for(l, &l->gradient_request, &status, err);
    if (st != BG_OK)
        return st;
    (void)kind_of(l->gradient[b % 2], &status, &floats);
    assert(floats == (l->receives_gradient ? rows * l->d : 0));
    (void)rows;
    return l->n_forward > b + 1 ? post_gradient(l, b + 1, err) : BG_OK;
}

static bg_status backward(bg_pipeline *l, bg_err *err)
{
    uint64_t b = l->n_backward;
    const flight *f = &l->on_way[b % l->depth];
    float *dx = l->gradient[b % 2];
    bg_status st = is_last(l) ? wait_sent(l, &l->sent_gradient[b % 2], err)
                              : receive_gradient(l, f->batch->n_rows, err);
    if (st == BG_OK)
        st = l->work.begin(l->work.self, f->item, err);
    if (st == BG_OK)
        st = bg_pass_backward(l->pass, b % l->depth, f->batch, l->work.labels, &l->work.tap, dx, err);
    if (st != BG_OK)
        return st;
    if (!is_first(l))
        send_data(l, dx, l->sends_gradient ? f->batch->n_rows * l->d : 0, l->rank - 1, TAG_BACKWARD,
                  &l->sent_gradient[b % 2]);
    l->n_backward++;
    return l->work.end(l->work.self, f->item, err);
}

/* The batch's directions, in turns through two buffers: the rank after this one works on one while this one makes the
 * next. */
static bg_status run_directions(bg_pipeline *l, size_t slot, const flight *f, bg_err *err)
{
    size_t n = l->work.directions == NULL ? 0 : l->work.directions(l->work.self, f->item);
    bg_status st = BG_OK;
    for (size_t k = 0; k < n && st == BG_OK; k++) {
        float *x = l->work.tangent[k % 2];
        MPI_Status ignored;
        st = wait_sent(l, &l->sent_tangent[k % 2], err);
        if (st == BG_OK && !is_first(l)) {
            MPI_Irecv(x, (int)(f->batch->n_rows * l->d + BG_PASS_TRAILER), MPI_FLOAT, l->rank - 1, TAG_TANGENT, l->comm,
                      &l->tangent_request);
            st = wait_for(l, &l->tangent_request, &ignored, err);
        }
        if (st == BG_OK)
            st = l->work.along(l->work.self, f->item, slot, k, x, err);
        if (st == BG_OK && !is_last(l))
            send_data(l, x, f->batch->n_rows * l->d, l->rank + 1, TAG_TANGENT, &l->sent_tangent[k % 2]);
    }
    return st;
}

bg_status bg_pipeline_push(bg_pipeline *l, const bg_batch *batch, void *item, bg_err *err)
{
    size_t slot = l->n_forward % l->depth, floats = batch->n_rows * l->d;
    float *x = l->input[l->n_forward % (l->depth + 1)], *out;
    assert(is_first(l) || l->arrived == floats);
    l->on_way[slot] = (flight){ batch, item };
    l->n_forward++;
    if (!is_first(l))
        post_input(l);
    bg_status st = wait_sent(l, &l->sent_output[slot], err);
    if (st == BG_OK)
        st = bg_pass_forward(l->pass, slot, batch, x, &out, err);
    if (st == BG_OK && !is_last(l))
        send_data(l, out, floats, l->rank + 1, TAG_FORWARD, &l->sent_output[slot]);
    if (st == BG_OK)
        st = run_directions(l, slot, &l->on_way[slot], err);
    return st == BG_OK && l->n_forward - l->n_backward == l->depth ? backward(l, err) : st;
}

bg_status bg_pipeline_flush(bg_pipeline *l, bg_err *err)
{
    bg_status st = BG_OK;
    while (st == BG_OK && l->n_backward < l->n_forward)
        st = backward(l, err);
    return st;
}

/* Counts are in floats: up to 8 GB a message. */
bg_status bg_pipeline_gather(bg_pipeline *l, const void *from, size_t n_bytes, void *to, const size_t *n_of,
                             bg_err *err)
{
    char *at = to;
    bg_status st = BG_OK;
    assert(n_bytes % sizeof(float) == 0);
    if (!is_first(l)) {
        if ((st = wait_sent(l, &l->sent_gather, err)) != BG_OK)
            return st;
        if (n_bytes > 0) /* a share may be the head alone */
            memcpy(l->gather, from, n_bytes);
        MPI_Issend(l->gather, (int)(n_bytes / sizeof(float)), MPI_FLOAT, 0, TAG_GATHER, l->comm, &l->sent_gather);
        return BG_OK;
    }
    for (int r = 1; r < l->size && st == BG_OK; r++) {
        MPI_Irecv(at, (int)(n_of[r] / sizeof(float)), MPI_FLOAT, r, TAG_GATHER, l->comm, &l->gather_request);
        st = wait_sent(l, &l->gather_request, err);
        at += n_of[r];
    }
    return st;
}

/* ---- the end ---- */

static void cancel(MPI_Request *request)
{
    if (*request == MPI_REQUEST_NULL)
        return;
    MPI_Cancel(request);
    MPI_Wait(request, MPI_STATUS_IGNORE);
}

static bool all_sent(bg_pipeline *l)
{
    bool outputs = test_all(l->sent_output, l->depth), gradients = test_all(l->sent_gradient, 2);
    bool end = test_all(&l->sent_end, 1), gather = test_all(&l->sent_gather, 1),
         tangents = test_all(l->sent_tangent, 2);
    return outputs && gradients && tangents && end && gather;
}

/* Take and forget a message, if there is one. */
static void discard_message(bg_pipeline *l)
{
    MPI_Status status;
    int there, floats;
    MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, l->comm, &there, &status);
    if (!there)
        return;
    MPI_Get_count(&status, MPI_FLOAT, &floats);
    float *scrap = malloc((size_t)floats * sizeof *scrap);
    if (scrap == NULL)
        MPI_Abort(l->comm, 1);
    MPI_Recv(scrap, floats, MPI_FLOAT, status.MPI_SOURCE, status.MPI_TAG, l->comm, MPI_STATUS_IGNORE);
    free(scrap);
}

bg_status bg_pipeline_end(bg_pipeline *l, bg_status st, bg_err *err)
{
    const struct timespec pause = { .tv_nsec = 100000 }; /* the ranks still at work may share this one's core */
    if (l->size == 1)
        return st;
    if (st != BG_OK)
        bg_notice_say(&l->column, BG_NOTICE_FAILED);
    cancel(&l->input_request);
    cancel(&l->gradient_request);
    cancel(&l->gather_request);
    cancel(&l->tangent_request);
    do {
        if (st != BG_OK || l->column.heard == BG_NOTICE_FAILED) /* else each message is received where it is due */
            discard_message(l);
        if (l->others != NULL)
            (void)bg_notice_heard(l->others);
        if (!l->column.through && all_sent(l))
            bg_notice_through(&l->column);
        nanosleep(&pause, NULL);
    } while (!bg_notice_over(&l->column));
    return st == BG_OK && l->column.heard == BG_NOTICE_FAILED ? neighbour_failed(err) : st;
}
