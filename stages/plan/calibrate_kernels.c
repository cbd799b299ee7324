/* calibrate_kernels.c - row-wise kernels on their own, and a real pass of a small model for what is left. */
#include <omp.h>

#include "bregman/extremes.h"
#include "bregman/model_open.h"
#include "bregman/gemm.h"
#include "bregman/kernels.h"
#include "bregman/log.h"
#include "bregman/memory.h"
#include "bregman/pass.h"
#include "plan.h"

/* Arrays that all kernels share: larger than a core's caches, as a pass's are. */
enum { ROWS = 1024, WIDTH = 2048, FLOATS = ROWS * WIDTH, VOCABULARY = 32768, HEAD = 64, KEYS = 256, QUERY_ROWS = 128 };

typedef struct {
    float *x, *y, *z;
    double *sum;
    uint16_t *half;
    bg_tensor tensor;
    bg_extremes extremes;
    uint64_t next;
} arrays;

/* ---- kernels: each does what its count says ---- */

static void activation(void *self)
{
    arrays *a = self;
    bg_act_forward(BG_ACT_GELU_TANH, ROWS, WIDTH, (bg_in){ a->x, WIDTH }, (bg_out){ a->y, WIDTH });
    bg_act_backward(BG_ACT_GELU_TANH, ROWS, WIDTH, (bg_in){ a->x, WIDTH }, (bg_in){ a->z, WIDTH },
                    (bg_out){ a->y, WIDTH });
}

static void add(void *self)
{
    arrays *a = self;
    bg_add(ROWS, WIDTH, (bg_in){ a->x, WIDTH }, (bg_out){ a->y, WIDTH });
}

static void square(void *self)
{
    arrays *a = self;
    bg_add_square(FLOATS, a->x, a->y);
}

static void dot(void *self)
{
    arrays *a = self;
    bg_group_dot(ROWS, WIDTH / 32, 32, (bg_in){ a->x, WIDTH }, (bg_in){ a->y, WIDTH }, (bg_out){ a->z, WIDTH / 32 });
}

static void widen(void *self)
{
    arrays *a = self;
    bg_tensor_widen(&a->tensor, 0, FLOATS, a->y);
}

static void serial(void *self)
{
    arrays *a = self;
    for (size_t i = 0; i < FLOATS; i++)
        a->sum[i] += (double)a->x[i];
}

static void softmax(void *self)
{
    arrays *a = self;
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < FLOATS / VOCABULARY; i++)
        (void)bg_softmax_row(VOCABULARY, a->y + i * VOCABULARY);
}

static void sample(void *self)
{
    arrays *a = self;
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < FLOATS / VOCABULARY; i++)
        a->z[i] = (float)bg_sample_row(VOCABULARY, a->x + i * VOCABULARY, 0.5);
}

/* A head's products, one thread each: scores, output, and a gradient. */
static void head_products(void *self)
{
    arrays *a = self;
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

static void head_softmax(void *self)
{
    arrays *a = self;
#pragma omp parallel
    for (int i = 0; i < 16; i++)
        bg_softmax_causal(QUERY_ROWS, KEYS, KEYS - QUERY_ROWS, 0.125f,
                          (bg_out){ a->z + (size_t)omp_get_thread_num() * 4 * QUERY_ROWS * KEYS, KEYS });
}

static void rank_scores(void *self)
{
    arrays *a = self;
    bg_err ignored;
    for (size_t i = 0; i < 256; i++, a->next++)
        if (bg_extremes_push(&a->extremes, a->next, a->x + a->next % 1024, &ignored) != BG_OK)
            return;
}

/* ---- all of them ---- */

static void fill(arrays *a)
{
    for (size_t i = 0; i < FLOATS; i++) {
        a->x[i] = a->y[i] = a->z[i] = (float)((i * 2654435761u) % 1000) / 1000.0f + 0.001f;
        a->half[i] = (uint16_t)(0x3f80 + i % 64);
    }
    a->tensor = (bg_tensor){ .name = "",
                             .file = "",
                             .dtype = BG_ST_BF16,
                             .n_dims = 1,
                             .shape = { FLOATS },
                             .n_bytes = FLOATS * sizeof *a->half,
                             .data = a->half };
}

static void measure(plan_profile *p, arrays *a, MPI_Comm world)
{
    double threads = (double)omp_get_max_threads(), pairs = 16.0 * QUERY_ROWS * KEYS * threads;
    const struct {
        void (*call)(void *);
        double count;
        double *out;
    } kernels[] = {
        { activation, 2.0 * FLOATS, &p->s[BG_COST_ACTIVATION] },
        { add, 3.0 * FLOATS, &p->s[BG_COST_ELEMENT] },
        { square, FLOATS, &p->s[BG_COST_SQUARED] },
        { dot, FLOATS, &p->s[BG_COST_DOT] },
        { widen, FLOATS, &p->s[BG_COST_WIDENED] },
        { serial, FLOATS, &p->s[BG_COST_SERIAL] },
        { sample, FLOATS, &p->s[BG_COST_SAMPLED] },
        { head_products, 3 * 2.0 * HEAD * pairs, &p->s[BG_COST_ATTENTION_FLOP] },
        { head_softmax, pairs, &p->s[BG_COST_ATTENTION_PAIR] },
        { softmax, FLOATS, &p->s[BG_COST_LOGIT] },
        { rank_scores, 256.0 * 100, &p->s[BG_COST_RANKED] },
    };
    for (size_t i = 0; i < sizeof kernels / sizeof kernels[0]; i++) {
        fill(a);
        *kernels[i].out = plan_mean_s(kernels[i].call, a, world) / kernels[i].count;
    }
}

bg_status plan_measure_kernels(plan_profile *p, MPI_Comm world, bg_err *err)
{
    arrays a = { 0 };
    const size_t room = (size_t)omp_get_max_threads() * 4 * QUERY_ROWS * KEYS + FLOATS;
    float **const array[] = { &a.x, &a.y, &a.z };
    bg_status st = BG_OK;
    for (size_t i = 0; i < sizeof array / sizeof *array && st == BG_OK; i++)
        st = BG_NEW(*array[i], room, "kernels", err);
    if (st == BG_OK)
        st = BG_NEW(a.sum, FLOATS, "kernels", err);
    if (st == BG_OK)
        st = BG_NEW(a.half, FLOATS, "kernels", err);
    if (st == BG_OK)
        st = bg_extremes_init(&a.extremes, 100, 100, err);
    if ((st = bg_agree(world, st, err)) == BG_OK)
        measure(p, &a, world);
    bg_extremes_clear(&a.extremes);
    bg_free(a.x);
    bg_free(a.y);
    bg_free(a.z);
    bg_free(a.sum);
    bg_free(a.half);
    return st;
}

/* ---- a real pass ---- */

enum { TOKENS = 257, SEQUENCES = 4 };

typedef struct {
    bg_pass *pass;
    bg_batch *batch;
    bg_status st;
    bg_err err;
} real;

static bg_status no_tap(void *self, const bg_pair *pair, bg_err *err)
{
    (void)self;
    (void)pair;
    (void)err;
    return BG_OK;
}

static void run_pass(void *self)
{
    real *r = self;
    const bg_tap tap = { no_tap, NULL, BG_WANTS_ALL };
    if (r->st == BG_OK)
        r->st = bg_pass_run(r->pass, r->batch, (bg_labels){ .sampled = true, .seed = 1 }, &tap, NULL, &r->err);
}

/* A small model whose matrices all read the same random numbers. */
static bg_status sketch(bg_model **m, float **weights, bg_err *err)
{
    bg_model_config c;
    size_t most = 0;
    bg_status st = plan_preset("pythia-70m", &c, err);
    c.n_blocks = 2;
    c.vocab_size = 8192;
    if (st == BG_OK)
        st = bg_model_sketch(m, &c, "mlp", BG_ST_F32, err);
    for (size_t i = 0; st == BG_OK && i < (*m)->n_sketched; i++)
        most = (*m)->sketched[i].n_bytes > most ? (*m)->sketched[i].n_bytes : most;
    if (st == BG_OK)
        st = BG_NEW(*weights, most / sizeof **weights, "weights", err);
    for (size_t i = 0; st == BG_OK && i < most / sizeof **weights; i++)
        (*weights)[i] = 0.04f * ((float)((i * 2654435761u) % 1000) / 1000.0f - 0.5f);
    for (size_t i = 0; st == BG_OK && i < (*m)->n_sketched; i++)
        (*m)->sketched[i].data = *weights;
    return st;
}

static bg_status make_batch(bg_batch **b, size_t vocabulary, bg_err *err)
{
    uint32_t token[TOKENS];
    bg_status st = bg_batch_new(b, SEQUENCES, SEQUENCES * (TOKENS - 1), err);
    for (size_t z = 0; z < SEQUENCES && st == BG_OK; z++) {
        for (size_t i = 0; i < TOKENS; i++)
            token[i] = (uint32_t)((z * 7919 + i * 104729) % vocabulary);
        (void)bg_batch_add(*b, z, token, TOKENS, 0);
    }
    return st;
}

/* What a pass takes beyond its products and the kernels measured by themselves is laid to the floats that pass through
 * row-wise kernels; at least what adding arrays takes. */
static void split(plan_profile *p, const bg_model *m, double measured_s)
{
    const bg_share whole = bg_model_whole(m);
    const bg_batch_shape b = { SEQUENCES, TOKENS - 1, TOKENS - 1, SEQUENCES * (TOKENS - 1), true };
    const plan_cluster here = { 0 };
    bg_cost cost = { 0 };
    bg_pass_cost(&cost, m, &whole, &b);
    double floats = cost.of[BG_COST_ELEMENT];
    cost.of[BG_COST_ELEMENT] = 0;
    double known_s = plan_seconds(&here, p, 1, &cost), each = (measured_s - known_s) / floats;
    bg_log("pass of a small model: %.3f s, of which %.3f s are row-wise", measured_s, measured_s - known_s);
    p->s[BG_COST_ELEMENT] = each > p->s[BG_COST_ELEMENT] ? each : p->s[BG_COST_ELEMENT];
}

bg_status plan_measure_pass(plan_profile *p, MPI_Comm world, bg_err *err)
{
    bg_model *m = NULL;
    float *weights = NULL;
    real r = { .err = { .msg = "" } };
    bg_status st = sketch(&m, &weights, err);
    if (st == BG_OK)
        st = make_batch(&r.batch, m->config.vocab_size, err);
    if (st == BG_OK)
        st = bg_pass_new(&r.pass, m, NULL, 1, SEQUENCES * (TOKENS - 1), BG_LOGITS_BYTES, err);
    if ((st = bg_agree(world, st, err)) == BG_OK) {
        double measured_s = plan_mean_s(run_pass, &r, world);
        *err = r.err;
        if ((st = bg_agree(world, r.st, err)) == BG_OK)
            split(p, m, measured_s);
    }
    bg_pass_free(r.pass);
    bg_batch_free(r.batch);
    bg_model_close(m);
    bg_free(weights);
    return st;
}
