/* Sweeps on every grid of the ranks, data x pipeline, in which one rank alone fails, in every callback and on every
 * rank in turn, and ones in which a single rank is asked to stop: all ranks return the same status at once, with the
 * message of the rank that failed, and the next sweep finds no message of the last. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bregman/folder.h"
#include "bregman/model_open.h"
#include "bregman/manifest.h"
#include "bregman/memory.h"
#include "bregman/stage.h"
#include "bregman/store.h"
#include "bregman/sweep.h"

enum { SEQUENCES = 18, UNIT = 3, LENGTH = 6 }; /* more units than ranks, so that there is something to stop before */

typedef enum { FAIL_NOWHERE, FAIL_FIND, FAIL_BEGIN, FAIL_TAP, FAIL_KEEP, FAIL_END, STOP } fault;

/* What the callbacks of one rank do and did. */
typedef struct {
    fault fault;
    bool slow; /* so that a stop of one rank comes before the others are done */
    uint64_t units_ended;
    float gathered[8]; /* a number of each rank of the pipeline, on its first */
} drill;

static int fails;
#define CHECK(c)                                                           \
    do {                                                                   \
        if (!(c)) {                                                        \
            fails++;                                                       \
            fprintf(stderr, "%s:%d: CHECK(%s)\n", __FILE__, __LINE__, #c); \
        }                                                                  \
    } while (0)

static bg_status maybe(const drill *d, fault here, bg_err *err)
{
    int rank;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    return d->fault == here ? BG_FAIL(err, BG_EIO, "disk of rank %d", rank) : BG_OK;
}

static bg_status find(void *self, bool *done, uint64_t *part, bg_err *err)
{
    (void)done;
    (void)part;
    return maybe(self, FAIL_FIND, err);
}

static bg_status begin_unit(void *self, const bg_unit *unit, uint64_t part, bg_err *err)
{
    const drill *d = self;
    (void)unit;
    (void)part;
    if (d->fault == STOP)
        raise(SIGTERM);
    return maybe(d, FAIL_BEGIN, err);
}

static bg_status pair(void *self, const bg_pair *p, bg_err *err)
{
    const drill *d = self;
    (void)p;
    if (d->slow)
        usleep(2000);
    return maybe(d, FAIL_TAP, err);
}

static bg_status keep_part(void *self, const bg_unit *unit, uint64_t part, bg_pipeline *l, bg_err *err)
{
    (void)l;
    CHECK(part > 0 && part < unit->n_sequences && unit->n_rows == part * (LENGTH - 1));
    return maybe(self, FAIL_KEEP, err);
}

static bg_status end_unit(void *self, const bg_unit *unit, bg_pipeline *l, bg_err *err)
{
    static const size_t n_of[8] = { 4, 4, 4, 4, 4, 4, 4, 4 };
    drill *d = self;
    float mine = (float)unit->unit;
    CHECK(unit->n_rows == unit->n_sequences * (LENGTH - 1));
    bg_status st = bg_pipeline_gather(l, &mine, sizeof mine, d->gathered, n_of, err);
    if (st == BG_OK)
        st = maybe(d, FAIL_END, err);
    d->units_ended += st == BG_OK;
    return st;
}

/* The corpus of all drills, made by rank 0. */
static bg_status write_tokens(const char *path, bg_err *err)
{
    const bg_provenance run = { .stage = "test", .options = "{}", .fingerprint = "f" };
    uint32_t token[SEQUENCES * LENGTH], count[SEQUENCES];
    uint64_t n_tokens = SEQUENCES * LENGTH, n = SEQUENCES;
    bg_store *s = NULL;
    for (uint32_t i = 0; i < SEQUENCES * LENGTH; i++)
        token[i] = i % 7;
    for (size_t i = 0; i < SEQUENCES; i++)
        count[i] = LENGTH;
    bg_status st = bg_store_create(&s, path, "bregman/tokens", &run, err);
    if (st == BG_OK)
        st = bg_store_write(s, "token", &n_tokens, token, err);
    if (st == BG_OK)
        st = bg_store_write(s, "count", &n, count, err);
    if (st == BG_OK)
        return bg_store_publish(s, NULL, err);
    bg_store_discard(s);
    return st;
}

typedef struct {
    bg_model *model;
    bg_tokens *tokens;
    bg_pass *pass;
} inputs;

static bg_status open_inputs(inputs *in, const bg_context *ctx, bg_err *err)
{
    const bg_grid *g = &ctx->grid;
    bg_share share[3];
    char model[BG_PATH_BYTES];
    bg_status st = bg_path(model, err, "%s/tests/goldens/gpt2", getenv("SRC") != NULL ? getenv("SRC") : ".");
    if (st == BG_OK)
        st = bg_model_open(&in->model, model, "mlp", err);
    if (st == BG_OK)
        st = bg_model_divide(in->model, (size_t)g->pipeline_size, NULL, share, err);
    return st == BG_OK ? bg_pass_new(&in->pass, in->model, &share[g->pipeline_rank],
                                     bg_pipeline_depth(g->pipeline_rank, g->pipeline_size), LENGTH, 1 << 20, err)
                       : st;
}

/* Run the sweep with a fault on one rank (none: -1). */
static bg_status run_drill(const inputs *in, const bg_context *ctx, int bad, fault what, drill *d, bg_err *err)
{
    *d = (drill){ .fault = ctx->grid.world_rank == bad ? what : FAIL_NOWHERE, .slow = what == STOP };
    const bg_sweep s = {
        .what = "drill",
        .tokens = in->tokens,
        .n_sequences = SEQUENCES,
        .unit_sequences = UNIT,
        .tap = { pair, d, BG_WANTS_ALL },
        .gather_bytes = sizeof(float),
        .self = d,
        .find = find,
        .begin_unit = begin_unit,
        .end_unit = end_unit,
        .keep_part = keep_part,
    };
    return bg_sweep_run(&s, in->pass, in->model, ctx, err);
}

static void each_rank_fails(const inputs *in, const bg_context *ctx, fault what)
{
    for (int bad = 0; bad < ctx->grid.world_size; bad++) {
        bg_err err = { .file = "" };
        drill d;
        char want[32];
        bg_status st = run_drill(in, ctx, bad, what, &d, &err);
        if (what == FAIL_FIND && bad != 0) { /* only rank 0 looks for units done before */
            CHECK(st == BG_OK);
            continue;
        }
        if (what == FAIL_TAP && bad / ctx->grid.data_size == 2) { /* it has the head, and no module */
            CHECK(st == BG_OK);
            continue;
        }
        if (what == FAIL_KEEP && st == BG_OK) /* its column had nothing to keep when the stream ended */
            continue;
        snprintf(want, sizeof want, "disk of rank %d", bad);
        if (!(st == BG_EIO && err.code == BG_EIO && err.rank == bad && strcmp(err.msg, want) == 0)) {
            fails++;
            fprintf(stderr, "rank %d of %d, pipeline %d, fault %d on %d: status %d, rank %d: %s\n",
                    ctx->grid.world_rank, ctx->grid.world_size, ctx->grid.pipeline_size, (int)what, bad, (int)st,
                    err.rank, err.msg);
        }
    }
}

static void one_rank_stops(const inputs *in, const bg_context *ctx)
{
    bg_err err = { .file = "" };
    drill d;
    CHECK(run_drill(in, ctx, ctx->grid.world_size - 1, STOP, &d, &err) == BG_ESTOPPED);
}

/* All faults on one grid.  Every batch is a checkpoint, so that streams end in the middle of units. */
static bg_status drill_grid(const bg_context *ctx, bg_tokens *tokens, bool stop, bg_err *err)
{
    inputs in = { .tokens = tokens };
    drill d;
    bg_status st = bg_agree(ctx->grid.world, open_inputs(&in, ctx, err), err);
    if (st == BG_OK && stop)
        one_rank_stops(&in, ctx);
    if (st == BG_OK && !stop) {
        CHECK(run_drill(&in, ctx, -1, FAIL_NOWHERE, &d, err) == BG_OK);
        for (fault what = FAIL_FIND; what <= FAIL_END; what++)
            each_rank_fails(&in, ctx, what);
        CHECK(run_drill(&in, ctx, -1, FAIL_NOWHERE, &d, err) == BG_OK);
    }
    bg_pass_free(in.pass);
    bg_model_close(in.model);
    return st;
}

/* Grids with pipelines of 1, 2 and 3 ranks: the model has two blocks and a head.  The stop comes last: it stays asked
 * for. */
static bg_status drill_grids(const bg_context *world, const char *path, bg_err *err)
{
    bg_tokens *tokens = NULL;
    bg_status st = bg_agree(world->grid.world, bg_tokens_open(&tokens, &path, 1, err), err);
    for (int stop = 0; stop < 2; stop++)
        for (int p = 1; p <= 3 && st == BG_OK; p++) {
            bg_context ctx = *world;
            ctx.checkpoint_s = 1e-9;
            if (world->grid.world_size % p != 0)
                continue;
            st = bg_grid_init(&ctx.grid, MPI_COMM_WORLD, p, err);
            if (st == BG_OK)
                st = drill_grid(&ctx, tokens, stop, err);
            bg_grid_free(&ctx.grid);
        }
    bg_tokens_close(tokens);
    return st;
}

static bg_status run(const void *config, const bg_context *ctx, bg_err *err)
{
    char path[64] = "/tmp/bg-sweep-XXXXXX/tokens.h5";
    (void)config;
    bg_status st = BG_OK;
    if (ctx->grid.world_rank == 0) {
        path[20] = '\0';
        if (mkdtemp(path) == NULL)
            st = BG_FAIL(err, BG_EIO, "no temporary folder");
        path[20] = '/';
        if (st == BG_OK)
            st = write_tokens(path, err);
    }
    if ((st = bg_agree(ctx->grid.world, st, err)) != BG_OK)
        return st;
    bg_broadcast(ctx->grid.world, path, sizeof path, 0);
    st = drill_grids(ctx, path, err);
    MPI_Barrier(ctx->grid.world);
    if (ctx->grid.world_rank == 0) {
        bg_err ignored;
        path[20] = '\0';
        bg_manifest_close(true);
        if (bg_remove_folder(path, &ignored) != BG_OK)
            fails++;
    }
    if (st == BG_OK && fails != 0)
        st = BG_FAIL(err, BG_EIO, "%d checks failed", fails);
    return bg_agree(ctx->grid.world, st, err);
}

int main(int argc, char **argv)
{
    static const bg_opt none[] = { { 0 } };
    const bg_stage stage = { .name = "sweep_mpitest", .purpose = "Fault drills.", .opts = none, .run = run };
    return bg_stage_main(&stage, argc, argv);
}
