/* calibrate.c - this machine as a cluster file of one node: products, eigendecompositions, and the rest in order. */
#include <malloc.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bregman/eigen.h"
#include "bregman/gemm.h"
#include "bregman/log.h"
#include "bregman/memory.h"
#include "plan.h"

/* ---- how long something takes ---- */

static const double MEASURE_S = 0.25;

double plan_mean_s(void (*call)(void *self), void *self, MPI_Comm world)
{
    int size, calls = 0;
    double mean, start;
    call(self); /* memory is there, threads are */
    MPI_Barrier(world);
    start = bg_now_s();
    while (calls < 3 || bg_now_s() - start < MEASURE_S) {
        call(self);
        calls++;
    }
    mean = (bg_now_s() - start) / calls;
    MPI_Comm_size(world, &size);
    MPI_Allreduce(MPI_IN_PLACE, &mean, 1, MPI_DOUBLE, MPI_SUM, world);
    return mean / size;
}

/* ---- products ---- */

/* Shapes of passes and taps: square, thin in each dimension, small. */
typedef struct {
    bg_op op_a, op_b;
    size_t m, n, k;
} shape;
static const shape shapes[] = {
    { BG_N, BG_T, 1024, 2048, 1024 }, { BG_N, BG_N, 1024, 1024, 2048 }, { BG_N, BG_T, 1024, 384, 384 },
    { BG_N, BG_N, 1024, 384, 1536 },  { BG_N, BG_T, 256, 1024, 1024 },  { BG_N, BG_T, 1024, 256, 256 },
    { BG_T, BG_N, 1536, 256, 1024 },  { BG_T, BG_N, 256, 256, 1024 },   { BG_T, BG_N, 512, 2048, 256 },
    { BG_T, BG_N, 512, 384, 256 },    { BG_N, BG_N, 1024, 128, 1024 },  { BG_N, BG_N, 1024, 128, 384 },
    { BG_N, BG_T, 512, 8192, 512 },   { BG_N, BG_N, 128, 128, 128 },
};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0], N_TERMS = 4, MOST_FLOATS = 8192 * 512 };

typedef struct {
    const shape *s;
    float *a, *b, *c;
} product;

static void run_product(void *self)
{
    const product *p = self;
    const shape *s = p->s;
    bg_gemm((bg_extent){ s->m, s->n, s->k }, 1.0f, bg_f32(s->op_a, p->a, s->op_a == BG_N ? s->k : s->m),
            bg_f32(s->op_b, p->b, s->op_b == BG_N ? s->n : s->k), 1.0f, p->c, s->n);
}

/* Least squares of relative errors with coefficients from 0, a coordinate at a time: time [N_SHAPES] = term x. */
static void fit_terms(double term[][N_TERMS], const double *time, size_t n, double x[N_TERMS])
{
    for (int i = 0; i < N_TERMS; i++)
        x[i] = 0;
    for (int step = 0; step < 20000; step++) {
        int j = step % N_TERMS;
        double slope = 0, curvature = 0;
        for (size_t i = 0; i < n; i++) {
            double rest = time[i];
            for (int l = 0; l < N_TERMS; l++)
                rest -= l == j ? 0 : term[i][l] * x[l];
            slope += term[i][j] * rest / (time[i] * time[i]);
            curvature += term[i][j] * term[i][j] / (time[i] * time[i]);
        }
        x[j] = curvature > 0 && slope > 0 ? slope / curvature : 0;
    }
}

bg_status plan_measure_products(plan_profile *p, MPI_Comm world, bg_err *err)
{
    product work = { 0 };
    double term[N_SHAPES][N_TERMS], time[N_SHAPES], x[N_TERMS];
    bg_status st = BG_NEW(work.a, MOST_FLOATS, "matrix", err);
    if (st == BG_OK)
        st = BG_NEW(work.b, MOST_FLOATS, "matrix", err);
    if (st == BG_OK)
        st = BG_NEW(work.c, MOST_FLOATS, "matrix", err);
    if ((st = bg_agree(world, st, err)) != BG_OK)
        goto out;
    for (size_t i = 0; i < MOST_FLOATS; i++)
        work.a[i] = work.b[i] = (float)(i % 31) / 31.0f - 0.5f;
    for (size_t i = 0; i < N_SHAPES; i++) {
        double m = (double)shapes[i].m, n = (double)shapes[i].n, k = (double)shapes[i].k;
        work.s = &shapes[i];
        memset(work.c, 0, MOST_FLOATS * sizeof *work.c);
        time[i] = plan_mean_s(run_product, &work, world);
        memcpy(term[i], (double[]){ 2 * m * n * k, m * k + k * n, m * n, 1 }, sizeof term[i]);
        bg_log("product %zu x %zu x %zu: %.1f GFLOP/s a rank", shapes[i].m, shapes[i].n, shapes[i].k,
               2e-9 * m * n * k / time[i]);
    }
    fit_terms(term, time, N_SHAPES, x);
    p->s[BG_COST_FLOP] = x[0];
    p->s[BG_COST_OPERAND] = x[1];
    p->s[BG_COST_RESULT] = x[2];
    p->s[BG_COST_CALL] = x[3];
out:
    bg_free(work.a);
    bg_free(work.b);
    bg_free(work.c);
    return st;
}

/* ---- eigendecompositions ---- */

/* Seconds of one of side n: c n³ + d n² through two sides. */
static bg_status measure_eigen(plan_profile *p, MPI_Comm world, bg_err *err)
{
    const size_t side[2] = { 320, 960 };
    double time[2] = { 0, 0 }, *a = NULL, *w = NULL;
    int size;
    MPI_Comm_size(world, &size);
    bg_status st = BG_NEW(a, side[1] * side[1], "matrix", err);
    if (st == BG_OK)
        st = BG_NEW(w, side[1], "eigenvalues", err);
    for (int i = 0, repeat = 0; i < 4 && st == BG_OK; i++, repeat = i % 2) {
        size_t n = side[i / 2];
        for (size_t r = 0; r < n; r++)
            for (size_t c = 0; c <= r; c++)
                a[r * n + c] = a[c * n + r] = r == c ? (double)r : sin((double)(r * 7919 + c));
        double start = bg_now_s();
        st = bg_eigen(n, a, w, "calibration", err);
        time[i / 2] += repeat == 1 ? bg_now_s() - start : 0; /* the first warms up */
    }
    bg_free(a);
    bg_free(w);
    if ((st = bg_agree(world, st, err)) != BG_OK)
        return st;
    MPI_Allreduce(MPI_IN_PLACE, time, 2, MPI_DOUBLE, MPI_SUM, world);
    double n0 = (double)side[0], n1 = (double)side[1], t0 = time[0] / size, t1 = time[1] / size;
    p->s[BG_COST_EIGEN_CUBE] = fmax(0, (t1 / (n1 * n1) - t0 / (n0 * n0)) / (n1 - n0));
    p->s[BG_COST_EIGEN_SQUARE] = fmax(0, t0 / (n0 * n0) - p->s[BG_COST_EIGEN_CUBE] * n0);
    bg_log("eigendecomposition of side %zu: %.2f s", side[1], t1);
    return BG_OK;
}

/* ---- the machine ---- */

/* Resident bytes now: what a process takes that has run a stage's libraries but holds no model. */
static double resident_bytes(void)
{
    double pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f == NULL)
        return 0;
    if (fscanf(f, "%*f %lf", &pages) != 1)
        pages = 0;
    fclose(f);
    return pages * (double)sysconf(_SC_PAGESIZE);
}

static void describe_node(plan_cluster *c, const bg_context *ctx)
{
    gethostname(c->name, sizeof c->name - 1);
    c->nodes = 1;
    c->ranks_per_node = (size_t)ctx->grid.world_size;
    c->cores_per_node = c->ranks_per_node * (size_t)ctx->threads;
    c->memory_gb_per_node = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE) * 1e-9;
}

bg_status plan_calibrate(const plan_config *c, const bg_context *ctx, bg_err *err)
{
    char folder[BG_PATH_BYTES];
    const char *slash = strrchr(c->output, '/');
    plan_cluster cluster = { 0 };
    plan_profile *p = &cluster.profile;
    MPI_Comm world = ctx->grid.world;
    describe_node(&cluster, ctx);
    p->threads = (double)ctx->threads;
    p->subgrid_efficiency = 0.4; /* of ScaLAPACK; small matrices would say nothing of large ones */
    bg_status st = bg_path(folder, err, "%.*s", slash == NULL ? 1 : (int)(slash - c->output) + 1,
                           slash == NULL ? "." : c->output);
    if ((st = bg_agree(world, st, err)) == BG_OK)
        st = plan_measure_files(p, folder, ctx, err); /* first, as the folder may not be writable */
    if (st == BG_OK)
        st = plan_measure_products(p, world, err);
    if (st == BG_OK)
        st = plan_measure_kernels(p, world, err);
    if (st == BG_OK)
        st = measure_eigen(p, world, err);
    if (st == BG_OK)
        st = plan_measure_messages(p, world, err);
    malloc_trim(0); /* what the measurements have freed is no part of it */
    p->process_bytes = resident_bytes();
    MPI_Allreduce(MPI_IN_PLACE, &p->process_bytes, 1, MPI_DOUBLE, MPI_MAX, world);
    if (st == BG_OK)
        st = plan_measure_pass(p, world, err);
    if (st == BG_OK && ctx->grid.world_rank == 0)
        st = plan_cluster_write(&cluster, c->output, err);
    st = bg_agree(world, st, err);
    if (st == BG_OK)
        bg_log("wrote %s: one node as measured; edit nodes, memory, network and disk for a cluster of such", c->output);
    return st;
}
