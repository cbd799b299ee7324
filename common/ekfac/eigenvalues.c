#include "bregman/eigenvalues.h"

#include <string.h>

#include "bregman/kernels.h"
#include "bregman/memory.h"
#include "bregman/room.h"
#include "summed.h"

/* Rows of a sequence's P x M gradient that are formed at a time where no more are needed. */
enum { PANEL = 512 };

struct bg_eigenvalues {
    const bg_model *model;
    bg_site_range sites;
    const bg_eigenbasis *basis;
    bool diagonal;
    bg_room sum;            /* all sums back to back */
    float **lambda, **diag; /* [n_tracked] [P, M] each */
    bg_rotated rotated;     /* max_rows rows */
    float *g, *half;        /* a sequence's gradient or a panel of it, and half-way through its rotation */
    uint32_t *order;        /* [max_rows] rows of a sequence by their token */
    size_t rotated_input;   /* whose input rotated.a holds; SIZE_MAX: nobody's */
};

/* Floats of the largest arrays over a run's sites. */
typedef struct {
    size_t g, half;
} extent;

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* Rotating a sequence's gradient costs 2 P M (P + M) and serves the diagonal too; rotating its rows costs
 * 2 T (P² + M²), the M² once for sites that share an input; of k blocks a k-th.  A gradient of one-hot inputs is never
 * formed. */
static bool rotate_gradient(const bg_site *site, bool diagonal, double sequences, double rows)
{
    double p = (double)site->n_out, m = (double)site->n_in1, s = p / (double)site->s.k, a = m / (double)site->a.k;
    double by_rows = rows * (p * s + (bg_site_adds_input(site) ? m * a : 0.0)) + (diagonal ? rows * p * m : 0.0);
    return site->kind != BG_SITE_EMBEDDING && sequences * p * m * (s + a) < by_rows;
}

static extent largest(const bg_model *model, bg_site_range sites, bool diagonal, size_t max_rows)
{
    extent e = { 0, 0 };
    for (size_t i = sites.first; i < sites.end; i++) {
        const bg_site *site = model->tracked[i];
        bool whole = rotate_gradient(site, diagonal, 1, (double)max_rows); /* some batch may want it */
        bool one_hot = site->kind == BG_SITE_EMBEDDING;
        e.g = larger(e.g, one_hot ? site->n_out : (whole || site->n_out < PANEL ? site->n_out : PANEL) * site->n_in1);
        e.half = larger(e.half, whole ? site->n_out * site->n_in1 : 0);
    }
    return e;
}

size_t bg_eigenvalues_bytes(const bg_model *model, bg_site_range sites, bool diagonal)
{
    size_t n = 0;
    for (size_t i = sites.first; i < sites.end; i++)
        n += model->tracked[i]->n_out * model->tracked[i]->n_in1 * (1 + (size_t)diagonal);
    return n * sizeof(float);
}

size_t bg_eigenvalues_room_bytes(const bg_model *model, bg_site_range sites, bool diagonal, size_t max_rows)
{
    extent e = largest(model, sites, diagonal, max_rows);
    bg_rotated_widths wide = bg_eigenbasis_widths(model, sites);
    return (max_rows * (wide.a + wide.d) + e.g + e.half) * sizeof(float) + max_rows * sizeof(uint32_t);
}

static bg_status take_memory(bg_eigenvalues *e, const bg_eigenvalues_task *task, bg_err *err)
{
    extent most = largest(e->model, e->sites, e->diagonal, task->max_rows);
    bg_rotated_widths wide = bg_eigenbasis_widths(e->model, e->sites);
    size_t sums = bg_eigenvalues_bytes(e->model, e->sites, e->diagonal);
    const struct {
        float **to;
        size_t floats;
    } array[] = { { &e->rotated.a, task->max_rows * wide.a },
                  { &e->rotated.d, task->max_rows * wide.d },
                  { &e->g, most.g },
                  { &e->half, most.half } };
    bg_status st = BG_NEW(e->lambda, e->model->n_tracked, "eigenvalue sums", err);
    if (st == BG_OK)
        st = BG_NEW(e->diag, e->model->n_tracked, "eigenvalue sums", err);
    if (st == BG_OK)
        st = bg_room_new(&e->sum, sums, task->scratch, "eigenvalue sums", err);
    for (size_t i = 0; i < sizeof array / sizeof *array && st == BG_OK; i++)
        st = BG_NEW(*array[i].to, array[i].floats, "rotated pairs", err);
    return st == BG_OK ? BG_NEW(e->order, task->max_rows, "rotated pairs", err) : st;
}

bg_status bg_eigenvalues_new(bg_eigenvalues **out, const bg_model *model, const bg_eigenvalues_task *task, bg_err *err)
{
    bg_eigenvalues *e = NULL;
    *out = NULL;
    bg_status st = BG_NEW(e, 1, "eigenvalue sums", err);
    if (st != BG_OK)
        return st;
    e->model = model;
    e->sites = task->sites;
    e->basis = task->basis;
    e->diagonal = task->diagonal;
    st = take_memory(e, task, err);
    if (st != BG_OK) {
        bg_eigenvalues_free(e);
        return st;
    }
    float *at = e->sum.x;
    for (size_t i = e->sites.first; i < e->sites.end; i++) {
        size_t pm = model->tracked[i]->n_out * model->tracked[i]->n_in1;
        e->lambda[i] = at;
        e->diag[i] = e->diagonal ? at + pm : NULL;
        at += e->diagonal ? 2 * pm : pm;
    }
    bg_eigenvalues_begin_batch(e);
    *out = e;
    return BG_OK;
}

void bg_eigenvalues_free(bg_eigenvalues *e)
{
    if (e == NULL)
        return;
    bg_free(e->lambda);
    bg_free(e->diag);
    bg_room_free(&e->sum);
    bg_free(e->rotated.a);
    bg_free(e->rotated.d);
    bg_free(e->g);
    bg_free(e->half);
    bg_free(e->order);
    bg_free(e);
}

void bg_eigenvalues_clear(bg_eigenvalues *e) { bg_room_clear(&e->sum); }

void bg_eigenvalues_begin_batch(bg_eigenvalues *e) { e->rotated_input = SIZE_MAX; }

/* A sequence's rows of a site's pair: d [rows, P], a [rows, M] or, of one-hot inputs, the tokens. */
typedef struct {
    size_t p, m, rows;
    const float *d;
    size_t ldd;
    const float *a;
    size_t lda;
    const uint32_t *token;
} sequence_pair;

static bg_pair rotate_rows(bg_eigenvalues *e, const bg_pair *pair)
{
    bool has_a = e->rotated_input == pair->site->input;
    e->rotated_input = pair->site->input;
    return bg_eigenbasis_rotate(&e->basis[pair->site->index], pair, &e->rotated, has_a);
}

static sequence_pair rows_of(const bg_pair *pair, size_t z)
{
    size_t r0 = pair->row_start[z];
    return (sequence_pair){ .p = pair->site->n_out,
                            .m = pair->site->n_in1,
                            .rows = pair->row_start[z + 1] - r0,
                            .d = pair->gradient + r0 * pair->ld_gradient,
                            .ldd = pair->ld_gradient,
                            .a = pair->activation != NULL ? pair->activation + r0 * pair->ld_activation : NULL,
                            .lda = pair->ld_activation,
                            .token = pair->token != NULL ? pair->token + r0 : NULL };
}

/* Of one-hot inputs column j of δᵀ a is the sum of the rows with token j: sum[:, j] += that squared. */
static void add_square_by_tokens(bg_eigenvalues *e, const sequence_pair *s, float *sum)
{
    for (size_t i = 0; i < s->rows; i++) { /* insertion: a sequence's tokens */
        size_t at = i;
        for (; at > 0 && s->token[e->order[at - 1]] > s->token[i]; at--)
            e->order[at] = e->order[at - 1];
        e->order[at] = (uint32_t)i;
    }
    for (size_t i = 0, next; i < s->rows; i = next) {
        uint32_t token = s->token[e->order[i]];
        memset(e->g, 0, s->p * sizeof *e->g);
        for (next = i; next < s->rows && s->token[e->order[next]] == token; next++)
            bg_add(1, s->p, (bg_in){ s->d + e->order[next] * s->ldd, s->p }, (bg_out){ e->g, s->p });
        for (size_t p = 0; p < s->p; p++)
            sum[p * s->m + token] += e->g[p] * e->g[p];
    }
}

/* sum [P, M] += (δᵀ a)∘² over a sequence's rows, PANEL rows of the product at a time. */
static void add_square_by_rows(bg_eigenvalues *e, const sequence_pair *s, float *sum)
{
    if (s->token != NULL) {
        add_square_by_tokens(e, s, sum);
        return;
    }
    for (size_t p0 = 0; p0 < s->p; p0 += PANEL) {
        size_t n = s->p - p0 < PANEL ? s->p - p0 : PANEL;
        bg_gemm((bg_extent){ n, s->m, s->rows }, 1.0f, bg_f32(BG_T, s->d + p0, s->ldd), bg_f32(BG_N, s->a, s->lda),
                0.0f, e->g, s->m);
        bg_add_square(n * s->m, e->g, sum + p0 * s->m);
    }
}

/* The same, G whole and then rotated: lambda += (Q_Sᵀ G Q_A)∘², diag += G∘². */
static void add_square_rotated(bg_eigenvalues *e, const bg_eigenbasis *q, const sequence_pair *s, float *lambda,
                               float *diag)
{
    size_t p = s->p, m = s->m;
    bg_gemm((bg_extent){ p, m, s->rows }, 1.0f, bg_f32(BG_T, s->d, s->ldd), bg_f32(BG_N, s->a, s->lda), 0.0f, e->g, m);
    if (diag != NULL)
        bg_add_square(p * m, e->g, diag);
    bg_blockdiag_apply_left(&q->q_s, BG_T, m, e->g, m, e->half, m);
    bg_blockdiag_apply(&q->q_a, BG_N, p, e->half, m, e->g, m);
    bg_add_square(p * m, e->g, lambda);
}

bg_status bg_eigenvalues_pair(void *eigenvalues, const bg_pair *pair, bg_err *err)
{
    bg_eigenvalues *e = eigenvalues;
    const bg_site *site = pair->site;
    (void)err;
    if (site->index < e->sites.first || site->index >= e->sites.end)
        return BG_OK;
    float *lambda = e->lambda[site->index], *diag = e->diag[site->index];
    bool by_gradient = rotate_gradient(site, e->diagonal, (double)pair->n_sequences, (double)pair->n_rows);
    const bg_pair in_basis = by_gradient ? *pair : rotate_rows(e, pair);
    for (size_t z = 0; z < pair->n_sequences; z++) {
        const sequence_pair given = rows_of(pair, z), rotated = rows_of(&in_basis, z);
        if (given.rows == 0) /* the site has read none of this sequence */
            continue;
        if (by_gradient) {
            add_square_rotated(e, &e->basis[site->index], &given, lambda, diag);
            continue;
        }
        if (diag != NULL)
            add_square_by_rows(e, &given, diag);
        add_square_by_rows(e, &rotated, lambda);
    }
    bg_room_let_go(&e->sum, lambda, site->n_out * site->n_in1 * (diag != NULL ? 2 : 1));
    return BG_OK;
}

/* A sequence's gradient, PANEL rows of it at a time, squared and added. */
static void count_squares(bg_cost *cost, const bg_site *site, double rows, double times)
{
    if (site->kind == BG_SITE_EMBEDDING) {
        cost->of[BG_COST_SQUARED] += 2 * times * rows * (double)site->n_out;
        return;
    }
    for (size_t p0 = 0; p0 < site->n_out; p0 += PANEL)
        bg_cost_product(cost, (double)(site->n_out - p0 < PANEL ? site->n_out - p0 : PANEL), (double)site->n_in1, rows,
                        times);
    cost->of[BG_COST_SQUARED] += times * (double)site->n_out * (double)site->n_in1;
}

void bg_eigenvalues_cost(bg_cost *cost, const bg_model *model, bg_site_range sites, bool diagonal,
                         const bg_batch_shape *b)
{
    double z = (double)b->sequences;
    size_t rotated_input = SIZE_MAX;
    for (size_t i = sites.first; i < sites.end && b->sequences > 0; i++) {
        const bg_site *site = model->tracked[i];
        double p = (double)site->n_out, m = (double)site->n_in1;
        double rows = bg_model_site_rows(model, site, (double)b->rows);
        if (rotate_gradient(site, diagonal, z, z * rows)) {
            bg_cost_product(cost, p, m, rows, z);
            bg_blockdiag_cost(cost, site->s, m, z);
            bg_blockdiag_cost(cost, site->a, p, z);
            cost->of[BG_COST_SQUARED] += z * p * m * (diagonal ? 2 : 1);
            continue;
        }
        bg_eigenbasis_rotate_cost(cost, site, rotated_input == site->input, z * rows);
        rotated_input = site->input;
        count_squares(cost, site, rows, z * (diagonal ? 2 : 1));
    }
}

static bg_status move_section(const bg_eigenvalues *e, size_t section, bg_store *to, const bg_store *from, bg_err *err)
{
    bg_status st = BG_OK;
    for (size_t i = e->sites.first; i < e->sites.end && st == BG_OK; i++) {
        const bg_site *site = e->model->tracked[i];
        const bg_summed set[] = { { "lambda_sum", BG_F32, { site->n_out, site->n_in1 }, e->lambda[i] },
                                  { "diagonal_sum", BG_F32, { site->n_out, site->n_in1 }, e->diag[i] } };
        if (site->section != section)
            continue;
        for (int k = 0; k < 1 + e->diagonal && st == BG_OK; k++)
            st = bg_summed_move(site, &set[k], to, from, err);
        bg_room_let_go(&e->sum, e->lambda[i], site->n_out * site->n_in1 * (1 + (size_t)e->diagonal));
    }
    return st;
}

bg_status bg_eigenvalues_write(const bg_eigenvalues *e, size_t section, bg_store *s, bg_err *err)
{
    return move_section(e, section, s, NULL, err);
}

bg_status bg_eigenvalues_read(bg_eigenvalues *e, size_t section, const bg_store *s, bg_err *err)
{
    return move_section(e, section, NULL, s, err);
}
