/* decompose.c - from the units' covariance sums to eigenbases (math.md M6, M7), one task per matrix. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bregman/eigen.h"
#include "bregman/log.h"
#include "bregman/memory.h"
#include "bregman/stop.h"
#include "bregman/symmetric.h"
#include "bregman/timing.h"
#include "fit_factors.h"

typedef struct {
    fit_division division;
    double *load;         /* [n_ranks] */
    bg_notice notice;     /* is there a reason to end? */
    uint64_t n_fallbacks; /* drivers that did not converge, of this rank's matrices */
    char fallback[320];   /* the first of them, in words */
} work_plan;

static bg_status matrix_path(const fit *f, const bg_site *site, bg_factor_side side, char out[BG_PATH_BYTES],
                             bg_err *err)
{
    return bg_path(out, err, "%s/%s-%s.h5", f->plan.work, fit_side_name(f, side), site->name);
}

/* ---- one matrix, streamed: its sums come in and its rows go out a slab at a time ---- */

/* The diagonal block in hand of a matrix, on the rank that reads and writes it. */
typedef struct {
    const fit *f;
    const fit_matrix *t;
    bg_symmetric sym;
    const char *side_name;
    uint64_t positions;       /* that were summed up (M6) */
    size_t block, at, side;   /* its rows and columns are [at, at + side) */
    size_t begin, end, first; /* columns whose panels `sum` holds, and where these begin in the file */
    size_t capacity;          /* of part and sum */
    float *part;              /* a unit's panels */
    double *sum;              /* the units' panels, added in their order */
    float *rows;              /* [BG_EIGEN_SLAB, width]: rows on their way to the file */
    bg_units_reader *units;   /* of the matrix's section */
    bg_store *file;
    work_plan *plan; /* its fallbacks are counted */
    char covariance[BG_PATH_BYTES], vectors[BG_PATH_BYTES], values[BG_PATH_BYTES];
} matrix_stream;

/* sum = the units' entries [first, first + n), added in their order. */
static bg_status add_units(matrix_stream *m, const char *name, size_t first, size_t n, bg_err *err)
{
    bg_status st = BG_OK;
    memset(m->sum, 0, n * sizeof *m->sum);
    for (size_t u = 0; u < bg_units_runs(m->units) && st == BG_OK; u++) {
        bg_rows unit;
        st = bg_units_read(m->units, u, &unit, err);
        if (st == BG_OK)
            st = bg_store_read_rows(unit.file, name, BG_F32, (bg_slab){ first, n, 1 }, m->part, err);
        for (size_t i = 0; i < n && st == BG_OK; i++)
            m->sum[i] += (double)m->part[i];
    }
    return st;
}

/* Read the sums of the panel that begins at column `begin`, and of as many after it as there is room for. */
static bg_status read_panels(matrix_stream *m, size_t begin, bg_err *err)
{
    char name[BG_PATH_BYTES];
    size_t c0, w, n = 0;
    m->begin = m->end = begin;
    m->first = bg_symmetric_panel(m->sym, m->block, begin, &c0, &w);
    while (m->end < m->side) {
        size_t past = bg_symmetric_panel(m->sym, m->block, m->end, &c0, &w) + (m->side - c0) * w - m->first;
        if (past > m->capacity)
            break;
        n = past;
        m->end = c0 + w;
    }
    bg_status st = bg_path(name, err, "%s/%s_sum", m->t->site->name, m->side_name);
    return st == BG_OK ? add_units(m, name, m->first, n, err) : st;
}

/* One over the number of positions, or for Shampoo of sequences (M6); a site that has read none has sums of 0. */
static double scale_of(const matrix_stream *m)
{
    uint64_t n = m->f->kind == BG_FACTORS_SHAMPOO ? fit_covariance_sequences(m->f) : m->positions;
    return n > 0 ? 1.0 / (double)n : 0;
}

/* Columns of the covariance. */
static bg_status read_lower(void *self, size_t first, size_t count, double *out, bg_err *err)
{
    matrix_stream *m = self;
    double scale = scale_of(m);
    bg_status st = BG_OK;
    size_t past = first + count, next;
    for (size_t c = first; c < past && st == BG_OK; c = next) {
        size_t c0, w, panel = bg_symmetric_panel(m->sym, m->block, c, &c0, &w);
        next = c0 + w < past ? c0 + w : past;
        if (c < m->begin || c >= m->end)
            st = read_panels(m, c0, err);
        for (size_t r = c; r < m->side && st == BG_OK; r++)
            for (size_t j = c; j < next; j++)
                out[(r - first) * count + j - first] = scale * m->sum[panel - m->first + (r - c0) * w + j - c0];
    }
    return st;
}

/* Rows of the block, in float32, padded to the width of the largest. */
static bg_status write_rows(matrix_stream *m, const char *name, size_t first, size_t count, const double *x,
                            bg_err *err)
{
    size_t width = bg_block_width(m->sym.n, m->sym.k);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < width; j++)
            m->rows[i * width + j] = j < m->side ? (float)x[i * m->side + j] : 0;
    return bg_store_write_rows(m->file, name, m->at + first, count, m->rows, err);
}

static bg_status write_covariance(void *self, size_t first, size_t count, const double *rows, bg_err *err)
{
    matrix_stream *m = self;
    return write_rows(m, m->covariance, first, count, rows, err);
}

static bg_status write_vectors(void *self, size_t first, size_t count, const double *rows, bg_err *err)
{
    matrix_stream *m = self;
    return write_rows(m, m->vectors, first, count, rows, err);
}

static void count_fallback(void *self, const char *failed, const char *next)
{
    matrix_stream *m = self;
    work_plan *p = m->plan;
    if (p->n_fallbacks++ == 0)
        snprintf(p->fallback, sizeof p->fallback, "%s: %s covariance: %s did not converge, %s was used",
                 m->t->site->name, m->side_name, failed, next);
}

static void take_block(matrix_stream *m, size_t block)
{
    m->block = block;
    m->at = bg_block_start(m->sym.n, m->sym.k, block);
    m->side = bg_symmetric_side(m->sym, block);
    m->begin = m->end = 0;
}

static bg_status take_memory(matrix_stream *m, bg_err *err)
{
    m->capacity = fit_sum_capacity(m->sym);
    bg_status st = BG_NEW(m->part, m->capacity, "covariance", err);
    if (st == BG_OK)
        st = BG_NEW(m->sum, m->capacity, "covariance", err);
    if (st == BG_OK)
        st = BG_NEW(m->rows, BG_EIGEN_SLAB * bg_block_width(m->sym.n, m->sym.k), "eigenvectors", err);
    return st;
}

/* The file with its datasets; `ranks` decompose the matrix. */
static bg_status make_file(matrix_stream *m, const char *path, size_t ranks, bg_err *err)
{
    static const char *const what[] = { "covariance", "eigenvectors", "eigenvalues" };
    char *const name[] = { m->covariance, m->vectors, m->values };
    uint64_t dims[2] = { m->sym.n, bg_block_width(m->sym.n, m->sym.k) };
    bg_status st = bg_store_create(&m->file, path, "bregman/work", &m->f->in.files.run, err);
    for (size_t i = 0; i < sizeof what / sizeof *what && st == BG_OK; i++)
        st = bg_path(name[i], err, "%s/%s_%s", m->t->site->name, m->side_name, what[i]);
    if (st == BG_OK)
        st = bg_store_dataset(m->file, m->covariance, dims, err);
    if (st == BG_OK)
        st = bg_store_dataset(m->file, m->vectors, dims, err);
    if (st == BG_OK)
        st = bg_store_attr_u64(m->file, m->vectors, "ranks", ranks, err);
    return st == BG_OK ? bg_store_attr_u64(m->file, m->covariance, "n_tokens", m->positions, err) : st;
}

static bg_status add_positions(matrix_stream *m, const bg_site *site, bg_err *err)
{
    char name[BG_PATH_BYTES];
    bg_status st = bg_path(name, err, "%s/positions", site->name);
    for (size_t u = 0; u < bg_units_runs(m->units) && st == BG_OK; u++) {
        const uint64_t one = 1;
        int64_t n = 0;
        bg_rows unit;
        st = bg_units_read(m->units, u, &unit, err);
        if (st == BG_OK)
            st = bg_store_read(unit.file, name, BG_I64, &one, &n, err);
        m->positions += (uint64_t)n;
    }
    return st;
}

/* In an A are the rows of all sites whose keeper has it. */
static bg_status count_positions(matrix_stream *m, bg_err *err)
{
    const bg_model *model = m->f->in.model;
    const bg_site *site = m->t->site;
    bg_status st = BG_OK;
    if (m->t->side == BG_SIDE_OUTPUT)
        return add_positions(m, site, err);
    for (size_t i = site->index; i < model->n_tracked && st == BG_OK; i++)
        if (model->tracked[i]->keeper == site->index && bg_site_adds_input(model->tracked[i]))
            st = add_positions(m, model->tracked[i], err);
    return st;
}

/* A covariance that is kept as a diagonal: its own eigenvalues, in the basis of the parameters. */
static bg_status take_diagonal(matrix_stream *m, double *values, bg_err *err)
{
    char name[BG_PATH_BYTES];
    bg_status st = bg_path(name, err, "%s/%s_sum", m->t->site->name, m->side_name);
    for (size_t first = 0, n; first < m->sym.n && st == BG_OK; first += n) {
        n = m->sym.n - first < m->capacity ? m->sym.n - first : m->capacity;
        st = add_units(m, name, first, n, err);
        for (size_t i = 0; i < n; i++)
            m->part[i] = (float)(values[first + i] = scale_of(m) * m->sum[i]);
        if (st == BG_OK)
            st = bg_store_write_rows(m->file, m->covariance, first, n, m->part, err);
        for (size_t i = 0; i < n; i++)
            m->part[i] = 1;
        if (st == BG_OK)
            st = bg_store_write_rows(m->file, m->vectors, first, n, m->part, err);
    }
    return st;
}

static bg_status open_stream(matrix_stream *m, const char *path, size_t ranks, bg_err *err)
{
    bg_status st = take_memory(m, err);
    if (st == BG_OK)
        st = bg_units_reader_new(&m->units, &m->f->plan.covariance.units, err);
    if (st == BG_OK)
        st = bg_units_choose(m->units, m->t->site->section, err);
    if (st == BG_OK)
        st = count_positions(m, err);
    return st == BG_OK ? make_file(m, path, ranks, err) : st;
}

static bg_status close_stream(matrix_stream *m, const double *values, bg_status st, bg_err *err)
{
    uint64_t n = m->sym.n;
    if (st == BG_OK)
        st = bg_store_write(m->file, m->values, &n, values, err);
    if (m->file != NULL)
        st = bg_store_end(m->file, st, err);
    bg_units_reader_free(m->units);
    bg_free(m->part);
    bg_free(m->sum);
    bg_free(m->rows);
    return st;
}

/* Before a matrix or a diagonal block of it: has any rank failed, or been asked to stop? */
static bg_status go_on(work_plan *p, bg_err *err)
{
    if (bg_stop_heard(&p->notice))
        return BG_FAIL(err, BG_ESTOPPED, "eigendecomposition: stopped on request; finished matrices are kept");
    return BG_OK;
}

/* Decompose a matrix by the ranks of comm; rank 0 reads and writes.  Collective on comm. */
static bg_status decompose_matrix(const fit *f, const fit_matrix *t, const char *path, MPI_Comm comm, work_plan *p,
                                  bg_err *err)
{
    int rank, size;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &size);
    matrix_stream m = { .f = f, .t = t, .plan = p, .sym = t->sym, .side_name = fit_side_name(f, t->side) };
    const bg_eigen_stream stream = { &m, read_lower, write_covariance, write_vectors, count_fallback };
    double *values = NULL;
    bg_status st = BG_NEW(values, t->sym.n, "eigenvalues", err);
    if (st == BG_OK && rank == 0)
        st = open_stream(&m, path, bg_eigen_ranks(bg_block_width(t->sym.n, t->sym.k), (size_t)size), err);
    st = bg_agree(comm, st, err);
    bool diagonal = bg_symmetric_is_diagonal(t->sym);
    if (st == BG_OK && diagonal && rank == 0)
        st = take_diagonal(&m, values, err);
    for (size_t j = 0; j < m.sym.k && st == BG_OK && !diagonal; j++) {
        char what[256];
        snprintf(what, sizeof what, "%s: %s covariance", t->site->name, m.side_name);
        take_block(&m, j);
        if (j > 0 && (st = bg_agree(comm, go_on(p, err), err)) != BG_OK)
            break;
        st = bg_eigen_shared(m.side, &stream, values + m.at, what, comm, err);
    }
    if (rank == 0)
        st = close_stream(&m, values, st, err);
    bg_free(values);
    return bg_agree(comm, st, err);
}

/* *there false if the matrix is still to be decomposed.  Local. */
static bg_status find_matrix(const fit *f, const fit_matrix *t, const char *path, bool *there, bg_err *err)
{
    bg_store *s = NULL;
    *there = access(path, F_OK) == 0;
    bg_status st = *there ? fit_open_matrix(f, t->site, t->side, &s, err) : BG_OK;
    bg_store_close(s);
    return st;
}

/* The same, unless its file is there or the end is asked for.  Collective on comm. */
static bg_status decompose_once(const fit *f, const fit_matrix *t, MPI_Comm comm, work_plan *p, bg_err *err)
{
    char path[BG_PATH_BYTES];
    int rank;
    bool done = false;
    MPI_Comm_rank(comm, &rank);
    bg_status st = go_on(p, err);
    if (st == BG_OK)
        st = matrix_path(f, t->site, t->side, path, err);
    if (st == BG_OK && rank == 0)
        st = find_matrix(f, t, path, &done, err);
    st = bg_agree(comm, st, err);
    bg_broadcast(comm, &done, sizeof done, 0);
    return st == BG_OK && !done ? decompose_matrix(f, t, path, comm, p, err) : st;
}

/* ---- matrices to ranks ---- */

/* Collective. */
static void report_fallbacks(work_plan *p, const bg_grid *g)
{
    int first = p->n_fallbacks > 0 ? g->world_rank : g->world_size;
    MPI_Allreduce(MPI_IN_PLACE, &first, 1, MPI_INT, MPI_MIN, g->world);
    MPI_Allreduce(MPI_IN_PLACE, &p->n_fallbacks, 1, MPI_UINT64_T, MPI_SUM, g->world);
    if (first == g->world_size)
        return;
    bg_broadcast(g->world, p->fallback, sizeof p->fallback, first);
    bg_log("warning: %s (%" PRIu64 " such in all)", p->fallback, p->n_fallbacks);
}

/* Matrices of groups come before those of single ranks: so when a group meets, none of its ranks can have failed at a
 * matrix of its own, and be missing. */
static bg_status work_off(const fit *f, const fit_matrix *task, size_t n, work_plan *p, bg_err *err)
{
    const bg_grid *g = &f->ctx->grid;
    const fit_division *d = &p->division;
    size_t me = (size_t)g->world_rank;
    bg_status st = BG_OK;
    bg_progress progress;
    MPI_Comm group = MPI_COMM_NULL;
    if (d->n_large > 0)
        MPI_Comm_split(g->world, me / d->group_size < d->n_groups ? (int)(me / d->group_size) : MPI_UNDEFINED,
                       g->world_rank, &group);
    bg_progress_start(&progress, "eigendecomposition", "matrices", 0, n);
    bg_notice_begin(&p->notice, g->world);
    for (size_t i = 0; i < n && st == BG_OK; i++) {
        fit_place to = fit_deal(d, i, fit_side(task[i].sym), p->load);
        if (me >= to.first && me < to.first + to.ranks)
            st = decompose_once(f, &task[i], i < d->n_large ? group : MPI_COMM_SELF, p, err);
        bg_progress_update(&progress, i + 1);
    }
    if (st != BG_OK)
        bg_notice_say(&p->notice, BG_NOTICE_END);
    bg_stop_wait(&p->notice);
    if (group != MPI_COMM_NULL)
        MPI_Comm_free(&group);
    st = bg_agree(g->world, st, err);
    if (st == BG_OK)
        bg_progress_finish(&progress);
    report_fallbacks(p, g);
    return st;
}

bg_status fit_decompose(fit *f, bg_err *err)
{
    fit_matrix *task = NULL;
    work_plan plan = { .division = fit_divide(&f->plan.load) };
    const fit_division *d = &plan.division;
    bg_timing_begin("eigendecomposition");
    bg_status st = BG_NEW(task, 2 * f->in.model->n_tracked, "list of matrices", err);
    if (st == BG_OK)
        st = BG_NEW(plan.load, d->n_ranks, "list of matrices", err);
    st = bg_agree(f->ctx->grid.world, st, err);
    if (st == BG_OK) {
        size_t n = fit_list_matrices(f->in.model, task);
        if (d->n_large > 0)
            bg_log("eigendecomposition: %zu of %zu matrices by groups of %zu ranks, %zu at a time", d->n_large, n,
                   d->group_size, d->n_groups);
        st = work_off(f, task, n, &plan, err);
    }
    bg_timing_end(0);
    bg_free(task);
    bg_free(plan.load);
    return st;
}

/* ---- reading them back ---- */

bg_status fit_open_matrix(const fit *f, const bg_site *site, bg_factor_side side, bg_store **out, bg_err *err)
{
    char path[BG_PATH_BYTES];
    bg_status st = matrix_path(f, site, side, path, err);
    return st == BG_OK ? bg_work_open(out, path, &f->in.files.run, err) : st;
}

/* Vectors of one side into out->a. */
static bg_status read_vectors(const fit *f, const bg_site *site, bg_factor_side side, const bg_blockdiag *out,
                              bg_err *err)
{
    char name[BG_PATH_BYTES];
    bg_store *s = NULL;
    bg_status st = bg_path(name, err, "%s/%s_eigenvectors", site->name, fit_side_name(f, side));
    if (st == BG_OK)
        st = fit_open_matrix(f, site, side, &s, err);
    if (st == BG_OK)
        st = bg_store_read(s, name, BG_F32, (const uint64_t[]){ out->n, out->width }, out->a, err);
    bg_store_close(s);
    return st;
}

static bg_blockdiag basis_at(bg_symmetric s, float **at)
{
    bg_blockdiag q = { s.n, s.k, fit_side(s), *at };
    *at += s.n * q.width;
    return q;
}

/* This rank's pieces: a side of a module is one. */
static bg_status fill_bases(const fit *f, bg_site_range sites, fit_bases *b, bg_err *err)
{
    float *at = bg_shared_data(b->memory);
    bg_status st = BG_OK;
    for (size_t i = sites.first; i < sites.end; i++) {
        const bg_site *site = f->in.model->tracked[i];
        bg_eigenbasis *q = &b->basis[i];
        bool owns = bg_site_owns_input(site);
        q->q_s = basis_at(site->s, &at);
        q->q_a = owns ? basis_at(site->a, &at) : b->basis[site->keeper].q_a;
        if (st == BG_OK)
            st = bg_stop_check("reading eigenbases", err);
        if (st == BG_OK && bg_shared_fills(b->memory, 2 * i))
            st = read_vectors(f, site, BG_SIDE_OUTPUT, &q->q_s, err);
        if (st == BG_OK && owns && bg_shared_fills(b->memory, 2 * i + 1))
            st = read_vectors(f, site, BG_SIDE_INPUT, &q->q_a, err);
    }
    return st;
}

bg_status fit_read_bases(const fit *f, bg_site_range sites, fit_bases *b, bg_err *err)
{
    MPI_Comm place = f->ctx->grid.place;
    *b = (fit_bases){ NULL, NULL };
    bg_status st = bg_agree(place, BG_NEW(b->basis, f->in.model->n_tracked, "eigenbases", err), err);
    if (st == BG_OK)
        st = bg_shared_new(&b->memory, place, bg_eigenbasis_bytes(f->in.model, sites), NULL, "eigenbases", err);
    return st == BG_OK ? bg_shared_ready(b->memory, fill_bases(f, sites, b, err), err) : st;
}

void fit_free_bases(fit_bases *b)
{
    bg_shared_free(b->memory);
    bg_free(b->basis);
}
