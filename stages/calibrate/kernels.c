/* kernels.c - row-wise kernels, products and decompositions on their own, and a real pass of a small model
 * for what is left. */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "bregman/eigen.h"
#include "bregman/preset.h"
#include "bregman/extremes.h"
#include "bregman/model_open.h"
#include "bregman/gemm.h"
#include "bregman/kernels.h"
#include "bregman/log.h"
#include "bregman/memory.h"
#include "bregman/pass.h"
#include "measures.h"

/* Arrays that all kernels share: larger than a core's caches, as a pass's are. */
enum { ROWS = 1024, WIDTH = 2048, FLOATS = ROWS * WIDTH, VOCABULARY = 32768, HEAD = 64, KEYS = 256, QUERY_ROWS = 128 };

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
    float *x, *y, *z;
    double *sum;
    uint16_t *half;
    bg_tensor tensor;
    bg_extremes extremes;
    uint64_t next;
    bg_cost_kind kind;  /* what is measured */
    const shape *shape; /* of a product */
    size_t side;        /* of a decomposition */
    bg_pass *pass;      /* of a small model, which the arrays' x is all matrices of */
    bg_batch *batch;
    bg_status st;
    bg_err err;
} arrays;

/* ---- each does what its count says ---- */

/* A head's products, one thread each: scores, output, and a gradient. */
static void head_products(arrays *a)
{
    int threads = omp_get_max_threads();
    bg_gemm_serial_begin();
#pragma omp parallel num_threads(threads)
    {
        size_t at = (size_t)omp_get_thread_num() * 4 * QUERY_ROWS * KEYS;
        float *x = a->x + at, *y = a->y + at, *s = a->z + at;
        for (int i = 0; i < 16; i++) {
            bg_gemm((bg_extent){ QUERY_ROWS, KEYS, HEAD }, 1.0f, bg_f32(BG_N, x, HEAD), bg_f32(BG_T, y, HEAD), 0.0f, s,
                    KEYS);
            bg_gemm((bg_extent){ QUERY_ROWS, HEAD, KEYS }, 1.0f, bg_f32(BG_N, s, KEYS), bg_f32(BG_N, y, HEAD), 0.0f, x,
                    HEAD);
            bg_gemm((bg_extent){ KEYS, HEAD, QUERY_ROWS }, 0.001f, bg_f32(BG_T, s, KEYS), bg_f32(BG_N, x, HEAD), 0.0f,
                    y, HEAD);
        }
    }
    bg_gemm_serial_end();
}

static void head_softmax(arrays *a)
{
#pragma omp parallel
    for (int i = 0; i < 16; i++)
        bg_softmax_causal(QUERY_ROWS, KEYS, (bg_band){ KEYS - QUERY_ROWS, SIZE_MAX }, 0.125f,
                          (bg_out){ a->z + (size_t)omp_get_thread_num() * 4 * QUERY_ROWS * KEYS, KEYS });
}

static void rank_scores(arrays *a)
{
    bg_err ignored;
    for (size_t i = 0; i < 256; i++, a->next++)
        if (bg_extremes_push(&a->extremes, a->next, a->x + a->next % 1024, &ignored) != BG_OK)
            return;
}

static void product(arrays *a)
{
    const shape *s = a->shape;
    bg_gemm((bg_extent){ s->m, s->n, s->k }, 1.0f, bg_f32(s->op_a, a->x, s->op_a == BG_N ? s->k : s->m),
            bg_f32(s->op_b, a->y, s->op_b == BG_N ? s->n : s->k), 1.0f, a->z, s->n);
}

static void decompose(arrays *a)
{
    double *w = a->sum + a->side * a->side;
    for (size_t i = 0; i < a->side; i++)
        for (size_t j = 0; j <= i; j++)
            a->sum[i * a->side + j] = a->sum[j * a->side + i] = i == j ? (double)i
                                                                       : (double)a->x[i * 7919 % FLOATS + j];
    if (a->st == BG_OK)
        a->st = bg_eigen(a->side, a->sum, w, "calibration", &a->err);
}

enum { TOKENS = 257, SEQUENCES = 4 };

static bg_status no_tap(void *self, const bg_pair *pair, bg_err *err)
{
    (void)self;
    (void)pair;
    (void)err;
    return BG_OK;
}

static void run_pass(arrays *a)
{
    const bg_tap tap = { no_tap, NULL, BG_WANTS_ALL };
    if (a->st == BG_OK)
        a->st = bg_pass_run(a->pass, a->batch, (bg_labels){ .sampled = true, .seed = 1 }, &tap, NULL, &a->err);
}

static void logits(arrays *a)
{
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < FLOATS / VOCABULARY; i++)
        if (a->kind == BG_COST_LOGIT)
            (void)bg_softmax_row(VOCABULARY, a->y + i * VOCABULARY);
        else
            a->z[i] = (float)bg_sample_row(VOCABULARY, a->x + i * VOCABULARY, 0.5);
}

static void kernel(void *self)
{
    arrays *a = self;
    const bg_in x = { a->x, WIDTH };
    const bg_out y = { a->y, WIDTH };
    switch (a->kind) {
    case BG_COST_ACTIVATION:
        bg_act_forward(BG_ACT_GELU_TANH, ROWS, WIDTH, x, y);
        bg_act_backward(BG_ACT_GELU_TANH, ROWS, WIDTH, x, (bg_in){ a->z, WIDTH }, y);
        break;
    case BG_COST_SERIAL:
        for (size_t i = 0; i < FLOATS; i++)
            a->sum[i] += (double)a->x[i];
        break;
    case BG_COST_DOT:
        bg_group_dot(ROWS, WIDTH / 32, 32, x, (bg_in){ a->y, WIDTH }, (bg_out){ a->z, WIDTH / 32 });
        break;
    case BG_COST_ELEMENT: bg_add(ROWS, WIDTH, x, y); break;
    case BG_COST_SQUARED: bg_add_square(FLOATS, a->x, a->y); break;
    case BG_COST_WIDENED: bg_tensor_widen(&a->tensor, 0, FLOATS, a->y); break;
    case BG_COST_LOGIT:
    case BG_COST_SAMPLED: logits(a); break;
    case BG_COST_ATTENTION_FLOP: head_products(a); break;
    case BG_COST_ATTENTION_PAIR: head_softmax(a); break;
    case BG_COST_RANKED: rank_scores(a); break;
    case BG_COST_FLOP: product(a); break;
    case BG_COST_EIGEN_CUBE: decompose(a); break;
    default: run_pass(a);
    }
}

/* ---- by themselves ---- */

/* What went wrong in a kernel, of any rank. */
static bg_status told(const arrays *a, MPI_Comm world, bg_err *err)
{
    *err = a->st != BG_OK ? a->err : *err;
    return bg_agree(world, a->st, err);
}

static void fill(arrays *a)
{
    for (size_t i = 0; i < MOST_FLOATS; i++)
        a->x[i] = a->y[i] = a->z[i] = (float)((i * 2654435761u) % 1000) / 1000.0f + 0.001f;
    for (size_t i = 0; i < FLOATS; i++)
        a->half[i] = (uint16_t)(0x3f80 + i % 64);
    a->tensor = (bg_tensor){ .name = "",
                             .file = "",
                             .dtype = BG_ST_BF16,
                             .n_dims = 1,
                             .shape = { FLOATS },
                             .n_bytes = FLOATS * sizeof *a->half,
                             .data = a->half };
}

static void measure_kernels(bg_profile *p, arrays *a, MPI_Comm world)
{
    double threads = (double)omp_get_max_threads(), pairs = 16.0 * QUERY_ROWS * KEYS * threads;
    const struct {
        bg_cost_kind kind;
        double count;
    } kernels[] = { { BG_COST_ACTIVATION, 2.0 * FLOATS }, { BG_COST_ELEMENT, 3.0 * FLOATS },
                    { BG_COST_SQUARED, FLOATS },          { BG_COST_DOT, FLOATS },
                    { BG_COST_WIDENED, FLOATS },          { BG_COST_SERIAL, FLOATS },
                    { BG_COST_SAMPLED, FLOATS },          { BG_COST_ATTENTION_FLOP, 3 * 2.0 * HEAD * pairs },
                    { BG_COST_ATTENTION_PAIR, pairs },    { BG_COST_LOGIT, FLOATS },
                    { BG_COST_RANKED, 256.0 * 100 } };
    for (size_t i = 0; i < sizeof kernels / sizeof kernels[0]; i++) {
        fill(a);
        a->kind = kernels[i].kind;
        p->s[a->kind] = calibrate_mean_s(kernel, a, world) / kernels[i].count;
    }
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

static void measure_products(bg_profile *p, arrays *a, MPI_Comm world)
{
    double term[N_SHAPES][N_TERMS], time[N_SHAPES];
    a->kind = BG_COST_FLOP;
    fill(a);
    for (size_t i = 0; i < N_SHAPES; i++) {
        bg_cost cost = { 0 };
        a->shape = &shapes[i];
        bg_cost_product(&cost, (double)a->shape->m, (double)a->shape->n, (double)a->shape->k, 1);
        memset(a->z, 0, MOST_FLOATS * sizeof *a->z);
        time[i] = calibrate_mean_s(kernel, a, world);
        memcpy(term[i], &cost.of[BG_COST_FLOP], sizeof term[i]);
        bg_log("product %zu x %zu x %zu: %.1f GFLOP/s a rank", a->shape->m, a->shape->n, a->shape->k,
               1e-9 * cost.flops / time[i]);
    }
    fit_terms(term, time, N_SHAPES, &p->s[BG_COST_FLOP]);
}

/* Seconds of a decomposition of side n: c n³ + d n² through two sides. */
static bg_status measure_eigen(bg_profile *p, arrays *a, MPI_Comm world, bg_err *err)
{
    const size_t side[2] = { 320, 960 };
    double n[2], each[2]; /* side, and time over n² */
    a->kind = BG_COST_EIGEN_CUBE;
    fill(a);
    for (int i = 0; i < 2; i++) {
        a->side = side[i];
        n[i] = (double)side[i];
        each[i] = calibrate_mean_s(kernel, a, world) / (n[i] * n[i]);
    }
    p->s[BG_COST_EIGEN_CUBE] = fmax(0, (each[1] - each[0]) / (n[1] - n[0]));
    p->s[BG_COST_EIGEN_SQUARE] = fmax(0, each[0] - p->s[BG_COST_EIGEN_CUBE] * n[0]);
    bg_log("eigendecomposition of side %zu: %.2f s", side[1], each[1] * n[1] * n[1]);
    return told(a, world, err);
}

/* ---- a real pass ---- */

/* A small model whose matrices all read the same random numbers, and tokens for it. */
static bg_status open_pass(arrays *a, bg_model **m, bg_err *err)
{
    bg_model_config c;
    uint32_t token[TOKENS];
    bg_status st = bg_preset("pythia-70m", &c, err);
    c.n_blocks = 2;
    c.vocab_size = MOST_FLOATS / c.d_model;
    if (st == BG_OK)
        st = bg_model_sketch(m, &c, "mlp", BG_ST_F32, err);
    for (size_t i = 0; st == BG_OK && i < (*m)->n_sketched; i++)
        (*m)->sketched[i].data = a->x;
    for (size_t i = 0; i < MOST_FLOATS; i++)
        a->x[i] = 0.04f * (a->x[i] - 0.5f);
    if (st == BG_OK)
        st = bg_batch_new(&a->batch, SEQUENCES, SEQUENCES * (TOKENS - 1), err);
    for (size_t z = 0; z < SEQUENCES && st == BG_OK; z++) {
        for (size_t i = 0; i < TOKENS; i++)
            token[i] = (uint32_t)((z * 7919 + i * 104729) % c.vocab_size);
        (void)bg_batch_add(a->batch, z, token, TOKENS, 0);
    }
    return st == BG_OK ? bg_pass_new(&a->pass, *m, NULL, 1, SEQUENCES * (TOKENS - 1), BG_LOGITS_BYTES, err) : st;
}

/* What a pass takes beyond its products and the kernels measured by themselves is laid to the floats that pass through
 * row-wise kernels; at least what adding arrays takes. */
static void split(bg_profile *p, const bg_model *m, double measured_s)
{
    const bg_share whole = bg_model_whole(m);
    const bg_batch_shape b = { SEQUENCES, TOKENS - 1, TOKENS - 1, SEQUENCES * (TOKENS - 1), .sampled = true };
    const bg_cluster here = { 0 };
    bg_cost cost = { 0 };
    bg_pass_cost(&cost, m, &whole, &b);
    double floats = cost.of[BG_COST_ELEMENT];
    cost.of[BG_COST_ELEMENT] = 0;
    double known_s = bg_cluster_seconds(&here, p, 1, &cost), each = (measured_s - known_s) / floats;
    bg_log("pass of a small model: %.3f s, of which %.3f s are row-wise", measured_s, measured_s - known_s);
    p->s[BG_COST_ELEMENT] = each > p->s[BG_COST_ELEMENT] ? each : p->s[BG_COST_ELEMENT];
}

static bg_status measure_pass(bg_profile *p, arrays *a, MPI_Comm world, bg_err *err)
{
    bg_model *m = NULL;
    fill(a);
    a->kind = BG_COSTS;
    bg_status st = bg_agree(world, open_pass(a, &m, err), err);
    double measured_s = st == BG_OK ? calibrate_mean_s(kernel, a, world) : 0;
    if (st == BG_OK && (st = told(a, world, err)) == BG_OK)
        split(p, m, measured_s);
    bg_pass_free(a->pass);
    bg_batch_free(a->batch);
    bg_model_close(m);
    return st;
}

/* ---- all of them ---- */

bg_status calibrate_kernels(bg_profile *p, MPI_Comm world, bg_err *err)
{
    arrays a = { .err = { .msg = "" } };
    const size_t room = (size_t)omp_get_max_threads() * 4 * QUERY_ROWS * KEYS + MOST_FLOATS;
    bg_status st = BG_NEW(a.x, 3 * room, "kernels", err);
    if (st == BG_OK)
        st = BG_NEW(a.sum, FLOATS, "kernels", err);
    if (st == BG_OK)
        st = BG_NEW(a.half, FLOATS, "kernels", err);
    if (st == BG_OK)
        st = bg_extremes_init(&a.extremes, 100, 100, err);
    if ((st = bg_agree(world, st, err)) == BG_OK) {
        a.y = a.x + room;
        a.z = a.y + room;
        measure_products(p, &a, world);
        measure_kernels(p, &a, world);
        st = measure_eigen(p, &a, world, err);
    }
    if (st == BG_OK)
        st = measure_pass(p, &a, world, err);
    bg_extremes_clear(&a.extremes);
    bg_free(a.x);
    bg_free(a.sum);
    bg_free(a.half);
    return st;
}
