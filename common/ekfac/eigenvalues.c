#include <stdio.h>
#include <string.h>

#include "bregman/factors.h"
#include "bregman/gemm.h"
#include "bregman/kernels.h"
#include "bregman/memory.h"

struct bg_eigenvalues {
    const bg_model *model;
    const bg_eigenbasis *basis;
    bool diagonal;
    size_t n_floats;
    float *sum;                        /* all sums back to back */
    float **lambda, **diag;            /* [n_tracked] [P, M] each */
    float *rotated_a, *rotated_d;      /* [max_rows, largest M], [max_rows, largest P] */
    float *g, *half;                   /* [P, M] of one sequence, and half-way through its rotation */
    size_t rotated_input;              /* whose input rotated_a holds; SIZE_MAX: nobody's */
};

typedef struct { size_t p, m, pm; } extent;

/* Largest P, M and P M over the tracked modules. */
static extent largest(const bg_model *model)
{
    extent e = { 0, 0, 0 };
    for (size_t i = 0; i < model->n_tracked; i++) {
        const bg_module *mod = model->tracked[i];
        e.p = mod->n_out > e.p ? mod->n_out : e.p;
        e.m = mod->n_in1 > e.m ? mod->n_in1 : e.m;
        e.pm = mod->n_out * mod->n_in1 > e.pm ? mod->n_out * mod->n_in1 : e.pm;
    }
    return e;
}

static size_t sum_floats(const bg_model *model, bool diagonal)
{
    size_t n = 0;
    for (size_t i = 0; i < model->n_tracked; i++)
        n += model->tracked[i]->n_out * model->tracked[i]->n_in1 * (1 + (size_t)diagonal);
    return n;
}

size_t bg_eigenvalues_bytes(const bg_model *model, size_t k, bool diagonal, size_t max_rows)
{
    extent e = largest(model);
    size_t n = sum_floats(model, diagonal) + max_rows * (e.m + e.p) + 2 * e.pm;
    for (size_t i = 0; i < model->n_tracked; i++) {
        const bg_module *mod = model->tracked[i];
        n += mod->n_out * bg_block_width(mod->n_out, k);
        n += mod->input == mod->index ? mod->n_in1 * bg_block_width(mod->n_in1, k) : 0;
    }
    return n * sizeof(float);
}

bg_status bg_eigenvalues_new(bg_eigenvalues **out, const bg_model *model, const bg_eigenbasis *basis,
                             bool diagonal, size_t max_rows, bg_err *err)
{
    bg_eigenvalues *e = NULL;
    extent most = largest(model);
    *out = NULL;
    bg_status st = BG_NEW(e, 1, "eigenvalue sums", err);
    if (st != BG_OK)
        return st;
    e->model = model;
    e->basis = basis;
    e->diagonal = diagonal;
    e->n_floats = sum_floats(model, diagonal);
    st = BG_NEW(e->lambda, model->n_tracked, "eigenvalue sums", err);
    if (st == BG_OK)
        st = BG_NEW(e->diag, model->n_tracked, "eigenvalue sums", err);
    if (st == BG_OK)
        st = BG_NEW(e->sum, e->n_floats, "eigenvalue sums", err);
    if (st == BG_OK)
        st = BG_NEW(e->rotated_a, max_rows * most.m, "rotated activations", err);
    if (st == BG_OK)
        st = BG_NEW(e->rotated_d, max_rows * most.p, "rotated gradients", err);
    if (st == BG_OK)
        st = BG_NEW(e->g, most.pm, "sequence gradient", err);
    if (st == BG_OK)
        st = BG_NEW(e->half, most.pm, "sequence gradient", err);
    if (st != BG_OK) {
        bg_eigenvalues_free(e);
        return st;
    }
    float *at = e->sum;
    for (size_t i = 0; i < model->n_tracked; i++) {
        size_t pm = model->tracked[i]->n_out * model->tracked[i]->n_in1;
        e->lambda[i] = at;
        e->diag[i] = diagonal ? at + pm : NULL;
        at += diagonal ? 2 * pm : pm;
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
    bg_free(e->sum);
    bg_free(e->rotated_a);
    bg_free(e->rotated_d);
    bg_free(e->g);
    bg_free(e->half);
    bg_free(e);
}

void bg_eigenvalues_clear(bg_eigenvalues *e)
{
    memset(e->sum, 0, e->n_floats * sizeof *e->sum);
}

void bg_eigenvalues_begin_batch(bg_eigenvalues *e)
{
    e->rotated_input = SIZE_MAX;
}

/* Rotating a sequence's gradient costs 2 P M (P + M) and serves the diagonal too; rotating its rows costs
 * 2 T (P² + M²), the M² once for modules that share an input. */
static bool rotate_gradient(const bg_eigenvalues *e, const bg_pair *pair)
{
    double p = (double)pair->module->n_out, m = (double)pair->module->n_in1;
    double rows = (double)pair->batch->n_rows, z = (double)pair->batch->n_sequences;
    double by_rows = rows * (p * p + (pair->module->input == pair->module->index ? m * m : 0.0))
        + (e->diagonal ? rows * p * m : 0.0);
    return z * p * m * (p + m) < by_rows;
}

static void rotate_rows(bg_eigenvalues *e, const bg_pair *pair)
{
    const bg_module *mod = pair->module;
    const bg_eigenbasis *q = &e->basis[mod->index];
    if (e->rotated_input != mod->input) {
        bg_blockdiag_apply(&q->q_a, BG_N, pair->batch->n_rows, pair->activation, pair->ld_activation,
                           e->rotated_a, mod->n_in1);
        e->rotated_input = mod->input;
    }
    bg_blockdiag_apply(&q->q_s, BG_N, pair->batch->n_rows, pair->gradient, pair->ld_gradient,
                       e->rotated_d, mod->n_out);
}

/* g [P, M] = δᵀ a over rows [r0, r0 + rows) */
static void sequence_gradient(size_t p, size_t m, size_t rows, const float *d, size_t ldd, const float *a, size_t lda,
                              float *g)
{
    bg_gemm(BG_T, BG_N, p, m, rows, 1.0f, d, ldd, a, lda, 0.0f, g, m);
}

bg_status bg_eigenvalues_pair(void *eigenvalues, const bg_pair *pair, bg_err *err)
{
    bg_eigenvalues *e = eigenvalues;
    const bg_module *mod = pair->module;
    const bg_batch *b = pair->batch;
    const bg_eigenbasis *q = &e->basis[mod->index];
    size_t p = mod->n_out, m = mod->n_in1;
    bool after = rotate_gradient(e, pair);
    (void)err;
    if (!after)
        rotate_rows(e, pair);
    for (size_t z = 0; z < b->n_sequences; z++) {
        size_t r0 = b->row_start[z], rows = b->row_start[z + 1] - r0;
        if (after || e->diagonal)
            sequence_gradient(p, m, rows, pair->gradient + r0 * pair->ld_gradient, pair->ld_gradient,
                              pair->activation + r0 * pair->ld_activation, pair->ld_activation, e->g);
        if (e->diagonal)
            bg_add_square(p * m, e->g, e->diag[mod->index]);
        if (after) {
            bg_blockdiag_apply_left(&q->q_s, BG_T, m, e->g, m, e->half, m);
            bg_blockdiag_apply(&q->q_a, BG_N, p, e->half, m, e->g, m);
        } else {
            sequence_gradient(p, m, rows, e->rotated_d + r0 * p, p, e->rotated_a + r0 * m, m, e->g);
        }
        bg_add_square(p * m, e->g, e->lambda[mod->index]);
    }
    return BG_OK;
}

bg_status bg_eigenvalues_write(const bg_eigenvalues *e, bg_store *s, bg_err *err)
{
    char path[BG_PATH_BYTES];
    bg_status st = BG_OK;
    for (size_t i = 0; i < e->model->n_tracked && st == BG_OK; i++) {
        const bg_module *mod = e->model->tracked[i];
        uint64_t dims[2] = { mod->n_out, mod->n_in1 };
        st = bg_path(path, err, "%s/lambda_sum", mod->name);
        if (st == BG_OK)
            st = bg_store_write(s, path, dims, e->lambda[i], err);
        if (st != BG_OK || !e->diagonal)
            continue;
        st = bg_path(path, err, "%s/diagonal_sum", mod->name);
        if (st == BG_OK)
            st = bg_store_write(s, path, dims, e->diag[i], err);
    }
    return st;
}
