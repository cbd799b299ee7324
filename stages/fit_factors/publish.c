/* publish.c - factors/block-NNN.h5 from the work files, and the index over them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/log.h"
#include "bregman/memory.h"
#include "fit_factors.h"

/* Room for one matrix on its way from file to file. */
typedef struct {
    float *x;
    double *sum;
    size_t n;                          /* elements of each */
} copy_memory;

static bg_status copy_memory_new(const fit *f, copy_memory *m, bg_err *err)
{
    memset(m, 0, sizeof *m);
    for (size_t i = 0; i < f->model->n_tracked; i++) {
        const bg_module *mod = f->model->tracked[i];
        size_t a = mod->n_in1 * mod->n_in1, s = mod->n_out * mod->n_out, pm = mod->n_out * mod->n_in1;
        m->n = a > m->n ? a : m->n;
        m->n = s > m->n ? s : m->n;
        m->n = pm > m->n ? pm : m->n;
    }
    bg_status st = BG_NEW(m->x, m->n, "factors", err);
    return st == BG_OK ? BG_NEW(m->sum, m->n, "factors", err) : st;
}

static void copy_memory_clear(copy_memory *m)
{
    bg_free(m->x);
    bg_free(m->sum);
}

/* Covariance, eigenvectors and eigenvalues of one side, from its work file. */
static bg_status copy_matrix(const fit *f, bg_store *to, const bg_module *mod, const char *side, size_t n,
                             copy_memory *m, bg_err *err)
{
    char path[BG_PATH_BYTES];
    uint64_t dims[2] = { n, bg_block_width(n, f->c->blocks) };
    bg_store *from = NULL;
    bg_status st = fit_matrix_path(f, mod, side, path, err);
    if (st == BG_OK)
        st = bg_store_open(&from, path, "bregman/work", err);
    for (int i = 0; i < 3 && st == BG_OK; i++) {
        static const char *const what[] = { "covariance", "eigenvectors", "eigenvalues" };
        bg_dtype type = i == 2 ? BG_F64 : BG_F32;
        void *data = i == 2 ? (void *)m->sum : (void *)m->x;
        st = bg_path(path, err, "%s/%s_%s", mod->name, side, what[i]);
        if (st == BG_OK)
            st = bg_store_read_rows(from, path, type, 0, n, data, err);
        if (st == BG_OK)
            st = bg_store_write(to, path, dims, data, err);
        if (st == BG_OK)
            st = bg_store_attr_u64(to, path, "blocks", f->c->blocks, err);
    }
    bg_store_close(from);
    return st;
}

/* A module that shares its input links to the one copy. */
static bg_status link_activation(bg_store *to, const bg_module *owner, const bg_module *mod, bg_err *err)
{
    static const char *const what[] = { "covariance", "eigenvectors", "eigenvalues" };
    char target[BG_PATH_BYTES], path[BG_PATH_BYTES];
    bg_status st = BG_OK;
    for (int i = 0; i < 3 && st == BG_OK; i++) {
        st = bg_path(target, err, "%s/activation_%s", owner->name, what[i]);
        if (st == BG_OK)
            st = bg_path(path, err, "%s/activation_%s", mod->name, what[i]);
        if (st == BG_OK)
            st = bg_store_link(to, target, path, err);
    }
    return st;
}

/* Λ, or the diagonal Fisher: the units' sums in order in float64, over the number of sequences (M8). */
static bg_status write_mean(const fit *f, bg_store *to, const bg_module *mod, const char *sum_name, const char *name,
                            copy_memory *m, bg_err *err)
{
    char path[BG_PATH_BYTES], dataset[BG_PATH_BYTES];
    uint64_t dims[2] = { mod->n_out, mod->n_in1 }, n = dims[0] * dims[1];
    double n_sequences = (double)(f->lambda.end - f->lambda.begin);
    bg_status st = bg_path(dataset, err, "%s/%s", mod->name, sum_name);
    memset(m->sum, 0, n * sizeof *m->sum);
    for (uint64_t u = 0; u < f->lambda_units && st == BG_OK; u++) {
        bg_store *s = NULL;
        st = fit_unit_path(f, "lambda", u, path, err);
        if (st == BG_OK)
            st = bg_store_open(&s, path, "bregman/work", err);
        if (st == BG_OK)
            st = bg_store_read_rows(s, dataset, BG_F32, 0, dims[0], m->x, err);
        for (size_t i = 0; i < n && st == BG_OK; i++)
            m->sum[i] += (double)m->x[i];
        bg_store_close(s);
    }
    for (size_t i = 0; i < n; i++)
        m->x[i] = (float)(m->sum[i] / n_sequences);
    if (st == BG_OK)
        st = bg_path(dataset, err, "%s/%s", mod->name, name);
    if (st == BG_OK)
        st = bg_store_write(to, dataset, dims, m->x, err);
    if (st == BG_OK)
        st = bg_store_attr_u64(to, dataset, "n_sequences", f->lambda.end - f->lambda.begin, err);
    return st == BG_OK ? bg_store_attr_u64(to, dataset, "n_tokens", f->lambda_rows, err) : st;
}

static bg_status write_module(const fit *f, bg_store *to, const bg_module *mod, copy_memory *m, bg_err *err)
{
    bg_status st = copy_matrix(f, to, mod, "gradient", mod->n_out, m, err);
    if (st == BG_OK)
        st = mod->input == mod->index ? copy_matrix(f, to, mod, "activation", mod->n_in1, m, err)
                                      : link_activation(to, f->model->tracked[mod->input], mod, err);
    if (st == BG_OK)
        st = write_mean(f, to, mod, "lambda_sum", "lambda", m, err);
    if (st == BG_OK && !f->c->no_diagonal)
        st = write_mean(f, to, mod, "diagonal_sum", "diagonal", m, err);
    return st;
}

static bg_status block_path(const fit *f, size_t block, char out[BG_PATH_BYTES], bg_err *err)
{
    return bg_path(out, err, "%s/block-%03zu.h5", f->c->output, block);
}

static bool block_is_tracked(const bg_model *m, size_t block)
{
    for (size_t i = 0; i < m->n_tracked; i++)
        if (m->tracked[i]->block == block)
            return true;
    return false;
}

static bg_status write_block(const fit *f, size_t block, copy_memory *m, bg_err *err)
{
    char path[BG_PATH_BYTES];
    bool done = false;
    bg_store *s = NULL;
    bg_status st = block_path(f, block, path, err);
    if (st == BG_OK)
        st = bg_store_is_done(path, f->in.run.fingerprint, &done, err);
    if (st != BG_OK || done)
        return st;
    st = bg_store_create(&s, path, "bregman/factors", &f->in.run, err);
    for (size_t i = 0; i < f->model->n_tracked && st == BG_OK; i++)
        if (f->model->tracked[i]->block == block)
            st = write_module(f, s, f->model->tracked[i], m, err);
    return bg_store_end(s, st, err);
}

/* One file to open: links to every module's group, and what holds for all. */
static bg_status write_index(const fit *f, bg_err *err)
{
    bg_store *s = NULL;
    bg_status st = bg_store_create(&s, f->index, "bregman/factors", &f->in.run, err);
    for (size_t i = 0; i < f->model->n_tracked && st == BG_OK; i++) {
        const bg_module *mod = f->model->tracked[i];
        char file[64], target[BG_PATH_BYTES];
        snprintf(file, sizeof file, "block-%03zu.h5", mod->block);
        st = bg_path(target, err, "/%s", mod->name);
        if (st == BG_OK)
            st = bg_store_link_external(s, file, target, target, err);
    }
    const struct { const char *name; uint64_t value; } number[] = {
        { "blocks", f->c->blocks },
        { "covariance_n_tokens", f->covariance_rows },
        { "covariance_n_sequences", f->covariance.end - f->covariance.begin },
        { "lambda_n_tokens", f->lambda_rows },
        { "lambda_n_sequences", f->lambda.end - f->lambda.begin },
    };
    for (size_t i = 0; i < sizeof number / sizeof number[0] && st == BG_OK; i++)
        st = bg_store_attr_u64(s, "/", number[i].name, number[i].value, err);
    if (st == BG_OK)
        st = bg_store_attr_text(s, "/", "modules", f->c->modules, err);
    if (st == BG_OK)
        st = bg_store_attr_text(s, "/", "model_hash", f->model_hash.hex, err);
    return bg_store_end(s, st, err);
}

static uint64_t rows_of(const fit *f, bg_range r)
{
    uint64_t n = 0;
    for (uint64_t z = r.begin; z < r.end; z++)
        n += bg_tokens_count(f->tokens, z) - 1;
    return n;
}

bg_status fit_publish(fit *f, bg_err *err)
{
    const bg_grid *g = &f->ctx->grid;
    copy_memory m;
    f->lambda_rows = rows_of(f, f->lambda);
    bg_status st = copy_memory_new(f, &m, err);
    for (size_t b = 0; b < f->model->config.n_blocks && st == BG_OK; b++)
        if ((int)(b % (size_t)g->world_size) == g->world_rank && block_is_tracked(f->model, b))
            st = write_block(f, b, &m, err);
    copy_memory_clear(&m);
    if ((st = bg_agree(g->world, st, err)) != BG_OK)
        return st;
    if (g->world_rank == 0) {
        st = write_index(f, err);
        if (st == BG_OK)
            st = bg_remove_folder(f->work, err);
        if (st == BG_OK)
            bg_log("wrote %s", f->index);
    }
    return bg_agree(g->world, st, err);
}
