/* files.c - publishing, reading and hashing files as the stages do, and messages between two ranks. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bregman/folder.h"
#include "bregman/hash.h"
#include "bregman/log.h"
#include "bregman/memory.h"
#include "bregman/store.h"
#include "measures.h"

/* A large file: what is written of one is longer than what a small one takes. */
enum { SMALL = 5, LARGE_ROWS = 64, ROW_FLOATS = 1 << 18, SINGLE_ROWS = 2000 };

typedef struct {
    const bg_context *ctx;
    char folder[BG_PATH_BYTES];
    float *x; /* [LARGE_ROWS, ROW_FLOATS] */
} files;

static bg_status write_file(const files *f, const char *path, uint64_t rows, uint64_t width, bool one_by_one,
                            bg_err *err)
{
    const bg_provenance run = { .stage = f->ctx->name, .options = "{}", .fingerprint = "", .ranks = 1, .threads = 1 };
    const uint64_t dims[2] = { rows, width };
    bg_store *s = NULL;
    bg_status st = bg_store_create(&s, path, "bregman/work", &run, err);
    if (st == BG_OK)
        st = bg_store_dataset(s, "score", dims, err);
    for (uint64_t i = 0, n = one_by_one ? 1 : rows; i < rows && st == BG_OK; i += n)
        st = bg_store_write_rows(s, "score", i, n, f->x, err);
    return bg_store_end(s, st, err);
}

static bg_status read_file(const files *f, const char *path, bg_err *err)
{
    bg_store *s = NULL;
    bg_status st = bg_store_open(&s, path, "bregman/work", err);
    if (st == BG_OK)
        st = bg_store_read(s, "score", BG_F32, (const uint64_t[]){ LARGE_ROWS, ROW_FLOATS }, f->x, err);
    bg_store_close(s);
    return st;
}

/* One after another; how long each takes. */
enum { PUBLISH, SINGLE, WRITE, READ, HASH, STEPS };
static bg_status measure_folder(const files *f, double took_s[STEPS], bg_err *err)
{
    char path[BG_PATH_BYTES];
    bg_status st = BG_OK;
    for (int step = 0; step < STEPS && st == BG_OK; step++) {
        double start = bg_now_s();
        int n = step == PUBLISH ? SMALL : 1;
        for (int i = 0; i < n && st == BG_OK; i++) {
            st = bg_path(path, err, "%s/%d-%d.h5", f->folder, step == READ ? WRITE : step, i);
            if (st != BG_OK)
                return st;
            switch (step) {
            case PUBLISH: st = write_file(f, path, 8, 8, false, err); break;
            case SINGLE: st = write_file(f, path, SINGLE_ROWS, 1, true, err); break;
            case WRITE: st = write_file(f, path, LARGE_ROWS, ROW_FLOATS, false, err); break;
            case READ: st = read_file(f, path, err); break;
            default: (void)bg_hash_bytes(f->x, sizeof *f->x * LARGE_ROWS * ROW_FLOATS);
            }
        }
        took_s[step] = (bg_now_s() - start) / n;
    }
    return st;
}

/* Ranks 0 and 1 play ping-pong; seconds of one way. */
static double message_s(float *x, int n, int times, MPI_Comm world)
{
    int rank;
    MPI_Comm_rank(world, &rank);
    MPI_Barrier(world);
    double start = bg_now_s();
    for (int i = 0; i < times && rank < 2; i++) {
        if (rank == 0)
            MPI_Send(x, n, MPI_FLOAT, 1, 0, world);
        MPI_Recv(x, n, MPI_FLOAT, 1 - rank, 0, world, MPI_STATUS_IGNORE);
        if (rank == 1)
            MPI_Send(x, n, MPI_FLOAT, 0, 0, world);
    }
    double seconds = (bg_now_s() - start) / (2 * times);
    MPI_Bcast(&seconds, 1, MPI_DOUBLE, 0, world);
    return seconds;
}

static void measure_messages(bg_profile *p, float *x, MPI_Comm world)
{
    const int large = LARGE_ROWS * ROW_FLOATS / 16;
    p->message_s = message_s(x, 1, 200, world);
    p->message_byte_s = fmax(0, message_s(x, large, 10, world) - p->message_s) / (4.0 * large);
}

bg_status calibrate_files(bg_profile *p, const char *folder, const bg_context *ctx, bg_err *err)
{
    const double bytes = 4.0 * LARGE_ROWS * ROW_FLOATS;
    files f = { .ctx = ctx };
    double took_s[STEPS] = { 0 };
    MPI_Comm world = ctx->grid.world;
    bg_status st = bg_path(f.folder, err, "%s/.bregman-calibrate-%ld-%d", folder, (long)getpid(), ctx->grid.world_rank);
    if (st == BG_OK)
        st = bg_make_folder(f.folder, err);
    if (st == BG_OK)
        st = BG_NEW(f.x, LARGE_ROWS * (size_t)ROW_FLOATS, "file", err);
    for (size_t i = 0; st == BG_OK && i < LARGE_ROWS * (size_t)ROW_FLOATS; i++)
        f.x[i] = (float)(i % 251);
    st = bg_agree(world, st, err);
    if (st == BG_OK)
        st = bg_agree(world, measure_folder(&f, took_s, err), err);
    if (st == BG_OK && ctx->grid.world_size > 1) /* else as assumed */
        measure_messages(p, f.x, world);
    bg_err ignored;
    if (f.folder[0] != '\0' && bg_remove_folder(f.folder, &ignored) != BG_OK)
        bg_log("warning: %s", ignored.msg);
    bg_free(f.x);
    if (st != BG_OK)
        return st;
    MPI_Allreduce(MPI_IN_PLACE, took_s, STEPS, MPI_DOUBLE, MPI_SUM, world);
    for (int i = 0; i < STEPS; i++)
        took_s[i] /= ctx->grid.world_size;
    p->s[BG_COST_FILE] = took_s[PUBLISH];
    p->s[BG_COST_ROW_WRITE] = fmax(0, took_s[SINGLE] - took_s[PUBLISH]) / SINGLE_ROWS;
    p->s[BG_COST_WRITE] = fmax(0, took_s[WRITE] - took_s[PUBLISH]) / bytes;
    p->s[BG_COST_READ] = took_s[READ] / bytes;
    p->s[BG_COST_HASH] = took_s[HASH] / bytes;
    bg_log("files: %.3f s a small one, %.2f GB/s written, %.2f GB/s read", took_s[PUBLISH], 1e-9 / p->s[BG_COST_WRITE],
           1e-9 / p->s[BG_COST_READ]);
    return BG_OK;
}
