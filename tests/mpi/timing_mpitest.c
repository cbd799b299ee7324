/* Phases of all ranks in one JSON file: sums of work, the slowest rank's seconds, each rank's peak. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bregman/gemm.h"
#include "bregman/timing.h"

enum { PASSES = 100 };

static int fails;
#define CHECK(c)                                                           \
    do {                                                                   \
        if (!(c)) {                                                        \
            fails++;                                                       \
            fprintf(stderr, "%s:%d: CHECK(%s)\n", __FILE__, __LINE__, #c); \
        }                                                                  \
    } while (0)

static long long number(const json_t *o, const char *key) { return json_integer_value(json_object_get(o, key)); }

static void check_peaks(const json_t *o, int size)
{
    const json_t *peak = json_object_get(o, "peak_rss_bytes");
    CHECK(json_array_size(peak) == (size_t)size);
    for (size_t r = 0; r < json_array_size(peak); r++)
        CHECK(json_integer_value(json_array_get(peak, r)) > 100000);
}

static void check_file(const char *path, int size)
{
    json_t *root = json_load_file(path, 0, NULL);
    const json_t *phases = json_object_get(root, "phases"), *first = json_array_get(phases, 0);
    CHECK(root != NULL && json_array_size(phases) == 2 + PASSES);
    CHECK(number(root, "ranks") == size && number(root, "threads") == 1);
    CHECK(number(root, "flops") == 2LL * 4 * 4 * 4 * (size + 1) && number(root, "rows") == 10LL * size);
    CHECK(strcmp(json_string_value(json_object_get(first, "name")), "products") == 0);
    CHECK(number(first, "flops") == 2LL * 4 * 4 * 4 * size && number(first, "rows") == 10LL * size);
    CHECK(json_real_value(json_object_get(first, "waited_s")) == 0.5 * size);
    CHECK(json_real_value(json_object_get(json_array_get(phases, 1), "waited_s")) == 0);
    /* the last rank sleeps longest */
    CHECK(json_real_value(json_object_get(first, "seconds")) >= 0.02 * size);
    CHECK(number(json_array_get(phases, 1), "flops") == 0);
    check_peaks(root, size);
    check_peaks(first, size);
    json_decref(root);
}

static void multiply(void)
{
    float a[16] = { 1 }, c[16];
    bg_gemm((bg_extent){ 4, 4, 4 }, 1.0f, bg_f32(BG_N, a, 4), bg_f32(BG_N, a, 4), 0.0f, c, 4);
}

/* A product before recording starts, size in the first phase, one outside phases. */
static void record(int rank)
{
    bg_timing_begin("not yet recorded");
    bg_timing_end(1);
    multiply();
    bg_timing_enable();
    bg_timing_begin("products");
    multiply();
    bg_timing_wait(0.5);
    usleep(20000 * (unsigned)(rank + 1));
    bg_timing_end(10);
    bg_timing_begin("given up");
    bg_timing_begin("nothing");
    bg_timing_end(0);
    for (int i = 0; i < PASSES; i++) {
        bg_timing_begin("pass");
        bg_timing_end(0);
    }
    if (rank == 0)
        multiply();
}

int main(int argc, char **argv)
{
    char path[64] = "";
    bg_err err = { .file = "" };
    bg_context ctx = { .name = "toy", .threads = 1 };
    int all;
    MPI_Init(&argc, &argv);
    ctx.grid.world = MPI_COMM_WORLD;
    MPI_Comm_rank(MPI_COMM_WORLD, &ctx.grid.world_rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ctx.grid.world_size);
    snprintf(path, sizeof path, "/tmp/bregman-timing-%d.json", (int)getpid());

    record(ctx.grid.world_rank);
    CHECK(bg_timing_write(path, &ctx, &err) == BG_OK);
    if (ctx.grid.world_rank == 0) {
        check_file(path, ctx.grid.world_size);
        unlink(path);
    }
    CHECK(bg_timing_write("/nowhere/timings.json", &ctx, &err) == BG_EIO);
    CHECK(strstr(err.msg, "/nowhere/timings.json") != NULL && strstr(err.msg, "No such file") != NULL);

    MPI_Allreduce(&fails, &all, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
    MPI_Finalize();
    return all != 0;
}
