/* One rank of a sweep fails, in every callback, on the first, a middle and the last rank of a pipeline, while it fills,
 * in its steady state and in its flush: all ranks return that rank's error at once, and the next sweep finds no message
 * of the last. The number of ranks, the lengths of messages and gathers and the size of units are the caller's
 * (drills_long.py): what an MPI sends eagerly hides what would wait for ever beyond it.  A line a case on stdout, "CASE
 * NUMBER WORDS: OUTCOME"; a case that has not ended after --limit seconds is a HANG, and ends the job. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bregman/memory.h"
#include "bregman/model_open.h"
#include "bregman/stage.h"
#include "bregman/sweep.h"
#include "bregman/tokens.h"

typedef struct {
    const char *model, *tokens;
    uint64_t unit_sequences, gather_bytes, from, cases, limit;
    bool stop;
} drill_config;

/* Where a rank fails: reading its batch, in a callback of its backward pass, in a unit's end before or after its
 * results are gathered, or in keeping a part of a unit, before or after the same. */
typedef enum { IN_FILL, IN_BEGIN, IN_TAP, IN_END, IN_GATHERED, IN_KEEP, IN_KEPT, PLACES } place;
typedef enum { FIRST, MIDDLE, FLUSH, LAST, MOMENTS } moment;
static const char *const place_name[] = { "fill", "begin", "tap", "end", "gathered", "keep", "kept" };
static const char *const moment_name[] = { "first batch", "middle batch", "first batch of its flush", "last batch" };

typedef struct {
    place place;
    moment moment;
    int bad;        /* world rank */
    uint64_t batch; /* number in the bad rank's column from which on it fails */
} drill_case;

/* One rank's sweep. */
typedef struct {
    const drill_config *c;
    const drill_case *now; /* NULL on a rank that does not fail */
    uint64_t begun;        /* batches whose backward pass has begun */
    float *mine, *gathered;
    size_t *n_of;
    int struck;
} drill;

typedef struct {
    const drill_config *c;
    const bg_context *ctx;
    bg_model *model;
    bg_tokens *tokens;
    bg_pass *pass;
    bg_share *share;
    int64_t *label; /* [n, width] */
    size_t n, width;
} inputs;

/* ---- faults ---- */

static bg_status maybe(drill *d, place here, uint64_t batch, bg_err *err)
{
    int rank;
    if (d->now == NULL || d->now->place != here || batch < d->now->batch || d->struck)
        return BG_OK;
    d->struck = 1;
    if (d->c->stop) {
        raise(SIGUSR1);
        return BG_OK;
    }
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    return BG_FAIL(err, BG_EIO, "disk of rank %d", rank);
}

static bg_status find_none(void *self, bool *done, uint64_t *part, bg_err *err)
{
    (void)self;
    (void)done;
    (void)part;
    (void)err;
    return BG_OK;
}

static bg_status begin_unit(void *self, const bg_unit *unit, uint64_t part, bg_err *err)
{
    drill *d = self;
    (void)unit;
    (void)part;
    return maybe(d, IN_BEGIN, d->begun, err);
}

static void begin_batch(void *self, const bg_batch *batch, uint64_t first)
{
    (void)batch;
    (void)first;
    ((drill *)self)->begun++;
}

static bg_status pair(void *self, const bg_pair *p, bg_err *err)
{
    drill *d = self;
    (void)p;
    return maybe(d, IN_TAP, d->begun - 1, err);
}

/* The end of a unit or of a part of it: fails before or after the others' results have come. */
static bg_status gather(drill *d, place before, place after, bg_pipeline *l, bg_err *err)
{
    bg_status st = maybe(d, before, d->begun - 1, err);
    if (st == BG_OK)
        st = bg_pipeline_gather(l, d->mine, d->c->gather_bytes, d->gathered, d->n_of, err);
    return st == BG_OK ? maybe(d, after, d->begun - 1, err) : st;
}

static bg_status end_unit(void *self, const bg_unit *unit, bg_pipeline *l, bg_err *err)
{
    (void)unit;
    return gather(self, IN_END, IN_GATHERED, l, err);
}

static bg_status keep_part(void *self, const bg_unit *unit, uint64_t part, bg_pipeline *l, bg_err *err)
{
    (void)unit;
    (void)part;
    return gather(self, IN_KEEP, IN_KEPT, l, err);
}

/* ---- a case ---- */

/* The sequence of batch i of a column, as units are dealt; each batch holds one sequence. */
static size_t sequence_of(const inputs *in, uint64_t i, int column)
{
    uint64_t per_unit = in->c->unit_sequences, columns = (uint64_t)in->ctx->grid.data_size;
    return (size_t)((i / per_unit * columns + (uint64_t)column) * per_unit + i % per_unit);
}

static void end_hung_job(int signal_number)
{
    static const char text[] = "HANG\n";
    (void)signal_number;
    _exit(write(STDOUT_FILENO, text, sizeof text - 1) > 0 ? 3 : 4);
}

/* Run the sweep with the fault of a case (NULL: with none) on its rank; *struck: has any rank met it? */
static bg_status sweep(const inputs *in, const drill_case *now, int *struck, bg_err *err)
{
    const bg_grid *g = &in->ctx->grid;
    bool bad = now != NULL && g->world_rank == now->bad;
    drill d = { .c = in->c, .now = bad ? now : NULL };
    bg_context ctx = *in->ctx;
    if (now != NULL && now->place >= IN_KEEP)
        ctx.checkpoint_s = 1e-9;
    const bg_sweep s = {
        .what = "drill",
        .tokens = in->tokens,
        .n_sequences = in->n,
        .unit_sequences = in->c->unit_sequences,
        .given_label = in->label,
        .given_width = in->width,
        .given_rows = in->n,
        .given_file = "labels",
        .tap = { pair, &d, BG_WANTS_ALL },
        .gather_bytes = in->c->gather_bytes,
        .self = &d,
        .find = find_none,
        .begin_unit = begin_unit,
        .begin_batch = begin_batch,
        .end_unit = end_unit,
        .keep_part = keep_part,
    };
    size_t place_bytes = in->c->gather_bytes * (size_t)g->pipeline_size, wrong = 0;
    bg_status st = bg_allocated(d.mine = bg_alloc(in->c->gather_bytes, 1, "drill", err));
    if (st == BG_OK)
        st = bg_allocated(d.gathered = bg_alloc(place_bytes, 1, "drill", err));
    if (st == BG_OK)
        st = BG_NEW(d.n_of, (size_t)g->pipeline_size, "drill", err);
    for (int r = 0; st == BG_OK && r < g->pipeline_size; r++)
        d.n_of[r] = in->c->gather_bytes;
    if (bad && now->place == IN_FILL) {
        wrong = sequence_of(in, now->batch, g->data_rank) * in->width;
        in->label[wrong] = INT64_MAX;
        d.struck = 1;
    }
    if ((st = bg_agree(g->world, st, err)) == BG_OK)
        st = bg_sweep_run(&s, in->pass, in->model, &ctx, err);
    if (bad)
        in->label[wrong] = 0;
    *struck = d.struck;
    MPI_Allreduce(MPI_IN_PLACE, struck, 1, MPI_INT, MPI_MAX, g->world);
    bg_free(d.mine);
    bg_free(d.gathered);
    bg_free(d.n_of);
    return st;
}

/* Is what this rank got what it should get? */
static bool as_wanted(const inputs *in, const drill_case *now, int struck, bg_status st, const bg_err *err)
{
    char disk[32];
    snprintf(disk, sizeof disk, "disk of rank %d", now->bad);
    if (!struck)
        return st == BG_OK;
    if (in->c->stop) /* a stop asked for late may find all done */
        return st == BG_ESTOPPED || (st == BG_OK && now->moment > FIRST);
    if (now->place == IN_FILL)
        return st == BG_EFORMAT && err->rank == now->bad && strstr(err->msg, "label") != NULL;
    return st == BG_EIO && err->rank == now->bad && strcmp(err->msg, disk) == 0;
}

/* Is there a message that nobody has taken? */
static bool finds_message(MPI_Comm comm)
{
    int there = 0;
    for (int i = 0; i < 10 && !there; i++) /* the first calls may only move it on */
        MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, comm, &there, MPI_STATUS_IGNORE);
    return there;
}

/* The case on communicators of its own: what it leaves behind is counted, and does not disturb the next.
 * *left [out]  ranks with messages that nobody has taken */
static bg_status run_alone(const inputs *in, const drill_case *now, int *struck, int *left, bg_err *err)
{
    bg_context ctx = *in->ctx;
    inputs alone = *in;
    alone.ctx = &ctx;
    MPI_Comm_dup(in->ctx->grid.world, &ctx.grid.world);
    MPI_Comm_dup(in->ctx->grid.pipeline, &ctx.grid.pipeline);
    bg_status st = sweep(&alone, now, struck, err);
    MPI_Barrier(ctx.grid.world);
    *left = finds_message(ctx.grid.world) || finds_message(ctx.grid.pipeline);
    MPI_Allreduce(MPI_IN_PLACE, left, 1, MPI_INT, MPI_SUM, in->ctx->grid.world);
    MPI_Comm_free(&ctx.grid.pipeline);
    MPI_Comm_free(&ctx.grid.world);
    return st;
}

/* Run a case and say how it ended.  Returns whether well; the same on all ranks. */
static bool run_case(const inputs *in, uint64_t number, const drill_case *now)
{
    const bg_grid *g = &in->ctx->grid;
    bg_err err = { .file = "" };
    int struck, left, well;
    if (g->world_rank == 0) {
        printf("CASE %" PRIu64 " rank %d, %s, %s: ", number, now->bad, place_name[now->place],
               moment_name[now->moment]);
        fflush(stdout);
        alarm((unsigned)in->c->limit);
    }
    bg_status st = run_alone(in, now, &struck, &left, &err);
    well = as_wanted(in, now, struck, st, &err);
    MPI_Allreduce(MPI_IN_PLACE, &well, 1, MPI_INT, MPI_MIN, g->world);
    if (g->world_rank == 0) {
        alarm(0);
        if (!well)
            printf("WRONG: status %d of rank %d: %s\n", (int)st, err.rank, err.msg);
        else if (left > 0)
            printf("LEFT: messages on %d ranks\n", left);
        else
            puts(struck ? "ok" : "not reached");
        fflush(stdout);
    }
    return well && left == 0;
}

/* ---- all cases ---- */

/* The number of batch at which a rank is to fail; false: this moment is another's. */
static bool choose_batch(const inputs *in, drill_case *now)
{
    const bg_grid *g = &in->ctx->grid;
    uint64_t column = in->n / (uint64_t)g->data_size,
             after = (uint64_t)(g->pipeline_size - 1 - now->bad / g->data_size);
    const uint64_t at[MOMENTS] = { 0, column / 2, column - after, column - 1 };
    now->batch = at[now->moment];
    if (now->place >= IN_KEEP) /* streams of a batch have no flush, and the last ends its unit */
        return now->moment == FIRST || now->moment == MIDDLE;
    return now->moment != FLUSH || (now->place != IN_FILL && after > 1);
}

/* Case `number`, where a fault at all can be there; false: there are no more. */
static bool find_case(const inputs *in, uint64_t number, drill_case *now)
{
    const bg_grid *g = &in->ctx->grid;
    const int size = g->pipeline_size, row[3] = { 0, size / 2, size - 1 };
    uint64_t seen = 0;
    for (int i = 0; i < 3; i++)
        for (now->place = in->c->stop ? IN_FILL + 1 : IN_FILL; now->place < PLACES;
             now->place++) /* a label asks for no stop */
            for (now->moment = FIRST; now->moment < MOMENTS; now->moment++) {
                if ((i > 0 && row[i] == row[i - 1]) || (now->place >= IN_KEEP && in->c->unit_sequences == 1))
                    continue;
                now->bad = row[i] * g->data_size + (g->data_size - 1);
                if (choose_batch(in, now) && seen++ == number)
                    return true;
            }
    return false;
}

static bg_status run_cases(const inputs *in, bg_err *err)
{
    const bg_grid *g = &in->ctx->grid;
    drill_case now;
    uint64_t wrong = 0, number = in->c->from;
    int struck;
    for (; number - in->c->from < in->c->cases && find_case(in, number, &now); number++)
        wrong += !run_case(in, number, &now);
    if (g->world_rank == 0)
        alarm((unsigned)in->c->limit);
    bg_status st = in->c->stop ? BG_OK : sweep(in, NULL, &struck, err); /* all is well without a fault */
    if (g->world_rank == 0 && !find_case(in, number, &now))
        puts("END");
    if (st == BG_OK && wrong > 0)
        st = BG_FAIL(err, BG_EIO, "%" PRIu64 " cases ended wrongly", wrong);
    return bg_agree(g->world, st, err);
}

/* ---- main ---- */

static bg_status open_inputs(inputs *in, bg_err *err)
{
    const bg_grid *g = &in->ctx->grid;
    size_t size = (size_t)g->pipeline_size;
    bg_status st = bg_model_open(&in->model, in->c->model, "mlp", err);
    if (st == BG_OK)
        st = bg_tokens_open(&in->tokens, &in->c->tokens, 1, err);
    if (st == BG_OK)
        st = BG_NEW(in->share, size, "shares", err);
    if (st == BG_OK)
        st = bg_model_divide(in->model, size, NULL, in->share, err);
    if (st != BG_OK)
        return st;
    in->n = (size_t)bg_tokens_sequences(in->tokens);
    in->width = bg_tokens_longest(in->tokens, 0, in->n) - 1; /* all are as long: a batch holds one */
    st = BG_NEW(in->label, in->n * in->width, "labels", err);
    return st == BG_OK ? bg_pass_new(&in->pass, in->model, &in->share[g->pipeline_rank],
                                     bg_pipeline_depth(g->pipeline_rank, g->pipeline_size), in->width, 1 << 20, err)
                       : st;
}

static bg_status run(const void *config, const bg_context *ctx, bg_err *err)
{
    inputs in = { .c = config, .ctx = ctx };
    signal(SIGALRM, end_hung_job);
    bg_status st = bg_agree(ctx->grid.world, open_inputs(&in, err), err);
    if (st == BG_OK)
        st = run_cases(&in, err);
    bg_pass_free(in.pass);
    bg_tokens_close(in.tokens);
    bg_model_close(in.model);
    bg_free(in.share);
    bg_free(in.label);
    return st;
}

#define FIELD(f) offsetof(drill_config, f)
/* clang-format off */
static const bg_opt opts[] = {
    { .name = "--model", .type = BG_OPT_STR, .offset = FIELD(model), .help = "model of at least as many blocks as ranks" },
    { .name = "--tokens", .type = BG_OPT_STR, .offset = FIELD(tokens), .help = "token file of sequences of one length" },
    { .name = "--unit-sequences", .type = BG_OPT_U64, .offset = FIELD(unit_sequences), .deflt = "1", .lo = 1, .hi = 1e6,
      .help = "micro-batches of a unit" },
    { .name = "--gather", .type = BG_OPT_U64, .offset = FIELD(gather_bytes), .deflt = "4", .lo = 4, .hi = 1e9,
      .help = "bytes that a unit's end takes from each rank" },
    { .name = "--from", .type = BG_OPT_U64, .offset = FIELD(from), .deflt = "0", .lo = 0, .hi = 1e6, .help = "first case" },
    { .name = "--cases", .type = BG_OPT_U64, .offset = FIELD(cases), .deflt = "1000000", .lo = 1, .hi = 1e6, .help = "number of cases" },
    { .name = "--limit", .type = BG_OPT_U64, .offset = FIELD(limit), .deflt = "60", .lo = 1, .hi = 1e6, .help = "seconds a case" },
    { .name = "--stop", .type = BG_OPT_FLAG, .offset = FIELD(stop), .help = "the rank is asked to stop instead" },
    { 0 },
};
/* clang-format on */

int main(int argc, char **argv)
{
    const bg_stage stage = { .name = "pipeline_drill",
                             .purpose = "Faults in pipelines.",
                             .opts = opts,
                             .config_size = sizeof(drill_config),
                             .runs_model = true,
                             .run = run };
    return bg_stage_main(&stage, argc, argv);
}
