/* decompose.c - from the units' covariance sums to eigenbases (math.md M6, M7), a matrix a task. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/eigen.h"
#include "bregman/log.h"
#include "bregman/memory.h"
#include "bregman/timing.h"
#include "fit_factors.h"

typedef struct {
    const bg_module *mod;
    const char *side;              /* "activation" or "gradient" */
    size_t n;
} matrix_task;

/* Larger first; then in order of the modules, activation first: the same on all ranks. */
static int by_size(const void *a, const void *b)
{
    const matrix_task *x = a, *y = b;
    if (x->n != y->n)
        return x->n > y->n ? -1 : 1;
    if (x->mod->index != y->mod->index)
        return x->mod->index < y->mod->index ? -1 : 1;
    return strcmp(x->side, y->side);
}

static size_t list_tasks(const fit *f, matrix_task *task)
{
    size_t n = 0;
    for (size_t i = 0; i < f->model->n_tracked; i++) {
        const bg_module *mod = f->model->tracked[i];
        if (mod->input == i)
            task[n++] = (matrix_task){ mod, "activation", mod->n_in1 };
        task[n++] = (matrix_task){ mod, "gradient", mod->n_out };
    }
    qsort(task, n, sizeof *task, by_size);
    return n;
}

/* sum (float64) = the units' partial sums, added in their order. */
static bg_status add_units(const fit *f, const matrix_task *t, size_t n_floats, float *part, double *sum, bg_err *err)
{
    char path[BG_PATH_BYTES], name[BG_PATH_BYTES];
    bg_status st = bg_path(name, err, "%s/%s_sum", t->mod->name, t->side);
    memset(sum, 0, n_floats * sizeof *sum);
    for (uint64_t u = 0; u < f->covariance_units && st == BG_OK; u++) {
        bg_store *s = NULL;
        st = fit_unit_path(f, "covariance", u, path, err);
        if (st == BG_OK)
            st = bg_store_open(&s, path, "bregman/work", err);
        if (st == BG_OK)
            st = bg_store_read_rows(s, name, BG_F32, 0, n_floats, part, err);
        for (size_t i = 0; i < n_floats && st == BG_OK; i++)
            sum[i] += (double)part[i];
        bg_store_close(s);
    }
    return st;
}

/* One matrix while it is worked on. */
typedef struct {
    float *covariance, *vectors;   /* [n, width] */
    double *values;                /* [n] */
    double *block;                 /* [width, width] */
} matrix_memory;

static void store_block(const double *from, size_t side, size_t width, float *to)
{
    for (size_t i = 0; i < side; i++)
        for (size_t j = 0; j < side; j++)
            to[i * width + j] = (float)from[i * side + j];
}

static bg_status decompose_blocks(const fit *f, const matrix_task *t, const double *sum, matrix_memory *m, bg_err *err)
{
    bg_symmetric sym = { t->n, f->c->blocks };
    size_t width = bg_block_width(t->n, sym.k);
    char what[256];
    bg_status st = BG_OK;
    for (size_t j = 0; j < sym.k && st == BG_OK; j++) {
        size_t at = bg_block_start(t->n, sym.k, j), side = bg_symmetric_side(sym, j);
        bg_symmetric_expand(sym, sum, j, 1.0 / (double)f->covariance_rows, m->block);
        store_block(m->block, side, width, m->covariance + at * width);
        snprintf(what, sizeof what, "%s: %s covariance", t->mod->name, t->side);
        st = bg_eigen(side, m->block, m->values + at, what, err);
        if (st == BG_OK)
            store_block(m->block, side, width, m->vectors + at * width);
    }
    return st;
}

static bg_status write_matrix(const fit *f, const matrix_task *t, const char *path, const matrix_memory *m, bg_err *err)
{
    char name[BG_PATH_BYTES];
    uint64_t dims[2] = { t->n, bg_block_width(t->n, f->c->blocks) };
    bg_store *s = NULL;
    bg_status st = bg_store_create(&s, path, "bregman/work", &f->in.run, err);
    if (st == BG_OK)
        st = bg_path(name, err, "%s/%s_covariance", t->mod->name, t->side);
    if (st == BG_OK)
        st = bg_store_write(s, name, dims, m->covariance, err);
    if (st == BG_OK)
        st = bg_path(name, err, "%s/%s_eigenvectors", t->mod->name, t->side);
    if (st == BG_OK)
        st = bg_store_write(s, name, dims, m->vectors, err);
    if (st == BG_OK)
        st = bg_path(name, err, "%s/%s_eigenvalues", t->mod->name, t->side);
    if (st == BG_OK)
        st = bg_store_write(s, name, dims, m->values, err);
    return bg_store_end(s, st, err);
}

static bg_status decompose_matrix(const fit *f, const matrix_task *t, bg_err *err)
{
    char path[BG_PATH_BYTES];
    bool done = false;
    size_t n_floats = bg_symmetric_floats((bg_symmetric){ t->n, f->c->blocks });
    size_t width = bg_block_width(t->n, f->c->blocks);
    float *part = NULL;
    double *sum = NULL;
    matrix_memory m = { 0 };
    bg_status st = fit_matrix_path(f, t->mod, t->side, path, err);
    if (st == BG_OK)
        st = bg_store_is_done(path, f->in.run.fingerprint, &done, err);
    if (st != BG_OK || done)
        return st;
    st = BG_NEW(part, n_floats, "covariance", err);
    if (st == BG_OK)
        st = BG_NEW(sum, n_floats, "covariance", err);
    if (st == BG_OK)
        st = BG_NEW(m.covariance, t->n * width, "covariance", err);
    if (st == BG_OK)
        st = BG_NEW(m.vectors, t->n * width, "eigenvectors", err);
    if (st == BG_OK)
        st = BG_NEW(m.values, t->n, "eigenvalues", err);
    if (st == BG_OK)
        st = BG_NEW(m.block, width * width, "covariance", err);
    if (st == BG_OK)
        st = add_units(f, t, n_floats, part, sum, err);
    if (st == BG_OK)
        st = decompose_blocks(f, t, sum, &m, err);
    if (st == BG_OK)
        st = write_matrix(f, t, path, &m, err);
    bg_free(part);
    bg_free(sum);
    bg_free(m.covariance);
    bg_free(m.vectors);
    bg_free(m.values);
    bg_free(m.block);
    return st;
}

/* Predicted positions of all units of the covariance phase. */
static bg_status count_rows(fit *f, bg_err *err)
{
    char path[BG_PATH_BYTES];
    bg_status st = BG_OK;
    f->covariance_rows = 0;
    for (uint64_t u = 0; u < f->covariance_units && st == BG_OK; u++) {
        uint64_t rows = 0;
        bg_store *s = NULL;
        st = fit_unit_path(f, "covariance", u, path, err);
        if (st == BG_OK)
            st = bg_store_open(&s, path, "bregman/work", err);
        if (st == BG_OK)
            st = bg_store_get_u64(s, "/", "n_rows", &rows, NULL, err);
        f->covariance_rows += rows;
        bg_store_close(s);
    }
    return st;
}

/* The rank that has least to do so far gets the next task, the lowest of equals. */
static int deal(double *load, int size, double cost)
{
    int least = 0;
    for (int r = 1; r < size; r++)
        if (load[r] < load[least])
            least = r;
    load[least] += cost;
    return least;
}

bg_status fit_decompose(fit *f, bg_err *err)
{
    const bg_grid *g = &f->ctx->grid;
    matrix_task *task = NULL;
    double *load = NULL;
    size_t n = 0;
    bg_progress progress;
    bg_timing_begin("eigendecomposition");
    bg_status st = BG_NEW(task, 2 * f->model->n_tracked, "list of matrices", err);
    if (st == BG_OK)
        st = BG_NEW(load, (size_t)g->world_size, "list of matrices", err);
    if (st == BG_OK)
        st = count_rows(f, err);
    if (st == BG_OK)
        n = list_tasks(f, task);
    bg_progress_start(&progress, "eigendecomposition", "matrices", 0, n);
    for (size_t i = 0; i < n && st == BG_OK; i++) {
        double side = (double)bg_block_width(task[i].n, f->c->blocks);
        if (deal(load, g->world_size, side * side * side) == g->world_rank) {
            if (bg_stop_requested())
                st = BG_FAIL(err, BG_ESTOPPED, "eigendecomposition: stopped on request; finished matrices are kept");
            else
                st = decompose_matrix(f, &task[i], err);
        }
        bg_progress_update(&progress, i + 1);
    }
    st = bg_agree(g->world, st, err);
    bg_timing_end(0);
    if (st == BG_OK)
        bg_progress_finish(&progress);
    bg_free(task);
    bg_free(load);
    return st;
}

/* ---- reading them back ---- */

static bg_status read_vectors(const fit *f, const bg_module *mod, const char *side, size_t n, bg_blockdiag *out, bg_err *err)
{
    char path[BG_PATH_BYTES], name[BG_PATH_BYTES];
    bg_store *s = NULL;
    *out = (bg_blockdiag){ n, f->c->blocks, bg_block_width(n, f->c->blocks), NULL };
    bg_status st = fit_matrix_path(f, mod, side, path, err);
    if (st == BG_OK)
        st = bg_path(name, err, "%s/%s_eigenvectors", mod->name, side);
    if (st == BG_OK)
        st = bg_store_open(&s, path, "bregman/work", err);
    if (st == BG_OK)
        st = BG_NEW(out->a, n * out->width, "eigenvectors", err);
    if (st == BG_OK)
        st = bg_store_read_rows(s, name, BG_F32, 0, n, out->a, err);
    bg_store_close(s);
    return st;
}

bg_status fit_read_bases(const fit *f, bg_eigenbasis **out, bg_err *err)
{
    bg_status st = BG_NEW(*out, f->model->n_tracked, "eigenbases", err);
    for (size_t i = 0; i < f->model->n_tracked && st == BG_OK; i++) {
        const bg_module *mod = f->model->tracked[i];
        bg_eigenbasis *b = &(*out)[i];
        st = read_vectors(f, mod, "gradient", mod->n_out, &b->q_s, err);
        if (st == BG_OK && mod->input == i)
            st = read_vectors(f, mod, "activation", mod->n_in1, &b->q_a, err);
        else if (st == BG_OK)
            b->q_a = (*out)[mod->input].q_a;
    }
    return st;
}

void fit_free_bases(const fit *f, bg_eigenbasis *basis)
{
    for (size_t i = 0; basis != NULL && i < f->model->n_tracked; i++) {
        bg_free(basis[i].q_s.a);
        if (f->model->tracked[i]->input == i)
            bg_free(basis[i].q_a.a);
    }
    bg_free(basis);
}
