#include "bregman/timing.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/gemm.h"
#include "bregman/log.h"
#include "bregman/memory.h"

typedef struct {
    const char *name;
    double start_s, seconds, waited_s;
    uint64_t flops, rows, peak_bytes;
} phase;

/* The process's record, as the log is its voice: set up once by bg_stage_main. */
static bool enabled;
static phase *phases;
static size_t n_phases, capacity;
static bool lost; /* there was no memory for a phase */
static bool phase_is_open;
static uint64_t peak_before_reset;
static double start_s;
static uint64_t start_flops;

static void reset_peak(void)
{
    uint64_t now = bg_peak_rss_bytes();
    peak_before_reset = now > peak_before_reset ? now : peak_before_reset;
    FILE *f = fopen("/proc/self/clear_refs", "w");
    if (f == NULL)
        return; /* a phase's peak is then that of all phases so far */
    fputs("5", f);
    fclose(f);
}

void bg_timing_enable(void)
{
    enabled = true;
    n_phases = 0;
    lost = false;
    phase_is_open = false;
    start_s = bg_now_s();
    start_flops = bg_gemm_flops();
}

uint64_t bg_timing_peak_bytes(void)
{
    uint64_t now = bg_peak_rss_bytes();
    return now > peak_before_reset ? now : peak_before_reset;
}

static bool make_room(void)
{
    if (n_phases < capacity)
        return true;
    size_t more = 2 * capacity + 16;
    phase *grown = realloc(phases, more * sizeof *phases);
    lost |= grown == NULL;
    if (grown == NULL)
        return false;
    phases = grown;
    capacity = more;
    return true;
}

void bg_timing_begin(const char *name)
{
    phase_is_open = enabled && make_room();
    if (!phase_is_open)
        return;
    reset_peak();
    phases[n_phases] = (phase){ .name = name, .start_s = bg_now_s(), .flops = bg_gemm_flops() };
}

void bg_timing_end(uint64_t rows)
{
    if (!phase_is_open)
        return;
    phase *p = &phases[n_phases++];
    p->seconds = bg_now_s() - p->start_s;
    p->flops = bg_gemm_flops() - p->flops;
    p->rows = rows;
    p->peak_bytes = bg_peak_rss_bytes();
    phase_is_open = false;
}

void bg_timing_wait(double seconds)
{
    if (phase_is_open)
        phases[n_phases].waited_s += seconds;
}

/* Seconds of the slowest rank, sums of the rest, and every rank's peak.  Collective; the object is rank 0's, NULL
 * elsewhere or out of memory.  peak [size] is scratch. */
static json_t *gather(const bg_grid *g, phase p, uint64_t *peak)
{
    MPI_Allreduce(MPI_IN_PLACE, &p.seconds, 1, MPI_DOUBLE, MPI_MAX, g->world);
    MPI_Allreduce(MPI_IN_PLACE, &p.waited_s, 1, MPI_DOUBLE, MPI_SUM, g->world);
    MPI_Allreduce(MPI_IN_PLACE, &p.flops, 1, MPI_UINT64_T, MPI_SUM, g->world);
    MPI_Allreduce(MPI_IN_PLACE, &p.rows, 1, MPI_UINT64_T, MPI_SUM, g->world);
    MPI_Gather(&p.peak_bytes, 1, MPI_UINT64_T, peak, 1, MPI_UINT64_T, 0, g->world);
    if (g->world_rank != 0)
        return NULL;
    json_t *ranks = json_array();
    for (int r = 0; r < g->world_size; r++)
        json_array_append_new(ranks, json_integer((json_int_t)peak[r]));
    return json_pack("{s:s, s:f, s:I, s:I, s:f, s:o}", "name", p.name, "seconds", p.seconds, "flops",
                     (json_int_t)p.flops, "rows", (json_int_t)p.rows, "waited_s", p.waited_s, "peak_rss_bytes", ranks);
}

static bg_status write_json(const char *path, const json_t *root, bg_err *err)
{
    if (root == NULL)
        return BG_FAIL(err, BG_ENOMEM, "out of memory for the timings");
    errno = 0;
    if (json_dump_file(root, path, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) != 0)
        return BG_FAIL(err, BG_EIO, "cannot write the timings \"%s\": %s", path, strerror(errno));
    return BG_OK;
}

bg_status bg_timing_write(const char *path, const bg_context *ctx, bg_err *err)
{
    const bg_grid *g = &ctx->grid;
    uint64_t *peak = NULL;
    phase whole = { .name = ctx->name,
                    .seconds = bg_now_s() - start_s,
                    .flops = bg_gemm_flops() - start_flops,
                    .peak_bytes = bg_timing_peak_bytes() };
    bg_status st = BG_NEW(peak, (size_t)g->world_size, "timings", err);
    if (st == BG_OK && lost)
        st = BG_FAIL(err, BG_ENOMEM, "out of memory for the timings");
    st = bg_agree(g->world, st, err);
    if (st != BG_OK) {
        bg_free(peak);
        return st;
    }
    json_t *list = json_array();
    for (size_t i = 0; i < n_phases; i++) {
        whole.rows += phases[i].rows;
        whole.waited_s += phases[i].waited_s;
        json_array_append_new(list, gather(g, phases[i], peak));
    }
    json_t *root = gather(g, whole, peak);
    if (g->world_rank == 0) {
        json_object_set_new(root, "ranks", json_integer(g->world_size));
        json_object_set_new(root, "threads", json_integer(ctx->threads));
        json_object_set_new(root, "blas", json_string(bg_gemm_library()));
        json_object_set(root, "phases", list);
        st = write_json(path, root, err);
    }
    json_decref(list);
    json_decref(root);
    bg_free(peak);
    return bg_agree(g->world, st, err);
}
