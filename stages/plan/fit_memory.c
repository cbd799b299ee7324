/* fit_memory.c - what the ranks of fit_factors hold while they sum and decompose, and who decomposes what: the
 * formulas of stages/fit_factors/sums.c and decompose.c over bg_covariance_bytes and its like; a test compares them. */
#include <stdlib.h>

#include "bregman/covariance.h"
#include "bregman/eigen.h"
#include "bregman/eigenvalues.h"
#include "bregman/memory.h"
#include "bregman/symmetric.h"
#include "bregman/units.h"
#include "plan.h"

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* Tracked modules of pass i of n over a share's blocks. */
static bg_site_range sites_of(const bg_model *m, const bg_share *s, size_t i, size_t n)
{
    size_t blocks = s->end - s->first;
    return bg_model_tracked(m, s->first + i * blocks / n, s->first + (i + 1) * blocks / n);
}

static size_t pass_bytes(const plan_fit_run *f, size_t r, size_t rows)
{
    return plan_pass_bytes(f->w->model, f->g, &f->share[r], r, rows, f->batches);
}

size_t plan_covariance_bytes(const plan_fit_run *f, size_t r, const bg_plan *plan, size_t rows)
{
    size_t most = 0;
    for (size_t i = 0; i < plan->passes && !plan->on_scratch; i++)
        most = larger(most, bg_covariance_bytes(f->w->model, sites_of(f->w->model, &f->share[r], i, plan->passes),
                                                f->w->blocks));
    return most + pass_bytes(f, r, rows);
}

size_t plan_lambda_bytes(const plan_fit_run *f, size_t r, const bg_plan *plan, size_t rows, size_t sharers)
{
    bool diagonal = !f->w->c->no_diagonal;
    size_t most = 0;
    for (size_t i = 0; i < plan->passes; i++) {
        bg_site_range run = sites_of(f->w->model, &f->share[r], i, plan->passes);
        size_t sums = plan->on_scratch ? 0 : bg_eigenvalues_bytes(f->w->model, run, diagonal);
        most = larger(most, sums + bg_eigenbasis_bytes(f->w->model, run, f->w->blocks) / sharers +
                                bg_eigenvalues_room_bytes(f->w->model, run, diagonal, rows));
    }
    return most + pass_bytes(f, r, rows);
}

/* ---- eigendecomposition ---- */

/* Side of a matrix, and of its diagonal blocks; who decomposes those above --subgrid-side. */
typedef struct {
    size_t n_large, largest, largest_alone, n_groups, group_size;
} division;

static void count_matrix(const plan_fit_run *f, division *d, size_t n, size_t world)
{
    size_t side = bg_block_width(n, f->w->blocks);
    bool large = side > f->w->c->subgrid_side && bg_eigen_ranks(side, world) > 1;
    d->n_large += large;
    if (large)
        d->largest = larger(d->largest, side);
    else
        d->largest_alone = larger(d->largest_alone, side);
}

static size_t world_of(const plan_fit_run *f) { return f->g->data * f->g->pipeline; }

static division divide(const plan_fit_run *f)
{
    const bg_model *m = f->w->model;
    size_t world = world_of(f), need = 2, room = bg_eigen_bytes(f->w->c->subgrid_side, 1);
    division d = { 0 };
    for (size_t i = 0; i < m->n_tracked; i++) {
        count_matrix(f, &d, m->tracked[i]->n_out, world);
        if (m->tracked[i]->input == i)
            count_matrix(f, &d, m->tracked[i]->n_in1, world);
    }
    if (d.n_large == 0)
        return d;
    while (need < world && bg_eigen_bytes(d.largest, need) > room)
        need++;
    d.n_groups = world / need < d.n_large ? world / need : d.n_large;
    d.group_size = world / d.n_groups;
    return d;
}

/* Room for the units' sums: at least a panel, at most a million entries at a time. */
static size_t sum_capacity(size_t side)
{
    const bg_symmetric s = { side, 1 };
    const size_t least = (size_t)1 << 20;
    size_t c0, w, all = bg_symmetric_floats(s);
    bg_symmetric_panel(s, 0, 0, &c0, &w);
    size_t panel = side * (w + 1), most = panel > least ? panel : least;
    return all < most ? all : most;
}

size_t plan_decompose_bytes(const plan_fit_run *f)
{
    division d = divide(f);
    size_t alone = bg_eigen_bytes(d.largest_alone, 1),
           shared = d.n_large > 0 ? bg_eigen_bytes(d.largest, d.group_size) : 0;
    size_t side = d.n_large > 0 ? d.largest : d.largest_alone;
    return larger(alone, shared) + sum_capacity(side) * (sizeof(float) + sizeof(double)) +
           BG_EIGEN_SLAB * side * sizeof(float);
}

/* What HDF5 keeps of a matrix's sums in the units' files that stay open: chunks of 4 MiB each, and as many blocks of
 * memory for the next ones, up to 16 MiB. */
double plan_decompose_cached_bytes(const plan_fit_run *f, size_t units)
{
    const double chunks = 4 << 20, spare = 16 << 20;
    division d = divide(f);
    const bg_symmetric s = { larger(d.largest, d.largest_alone), 1 };
    double sums = 4 * (double)bg_symmetric_floats(s) * (double)f->w->blocks;
    double bytes = (double)(units < BG_UNITS_OPEN ? units : BG_UNITS_OPEN) * (sums < chunks ? sums : chunks);
    return bytes + (bytes < spare ? bytes : spare);
}

size_t plan_rank_bytes(const plan_fit_run *f, size_t r, const bg_plan *plan, size_t rows)
{
    size_t sums = larger(plan_covariance_bytes(f, r, plan, rows),
                         plan_lambda_bytes(f, r, plan, rows, plan_sharers(f->g)));
    return larger(sums, plan_decompose_bytes(f) + pass_bytes(f, r, rows));
}

size_t plan_fit_bytes(const void *fit_run, const bg_plan *plan)
{
    const plan_fit_run *f = fit_run;
    size_t most = 0;
    for (size_t r = 0; r < f->g->pipeline; r++)
        most = larger(most, plan_rank_bytes(f, r, plan, plan->rows));
    return most;
}

bool plan_can_decompose(const plan_fit_run *f) { return divide(f).largest_alone <= BG_EIGEN_MAX_SIDE; }

static int descending(const void *a, const void *b)
{
    size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return x > y ? -1 : x < y;
}

/* Seconds of one matrix of side n on `ranks` ranks: its units' sums read and added, decomposed, written. */
static double matrix_s(const plan_fit_run *f, const plan_cluster *c, const plan_profile *p, size_t n, size_t units,
                       double ranks)
{
    const bg_symmetric sym = { n, f->w->blocks };
    double side = (double)bg_block_width(n, f->w->blocks), k = (double)f->w->blocks;
    double floats = (double)bg_symmetric_floats(sym) * (double)units;
    double eigen = k * (p->s[BG_COST_EIGEN_CUBE] * side * side * side + p->s[BG_COST_EIGEN_SQUARE] * side * side);
    if (ranks > 1)
        eigen /= ranks * p->subgrid_efficiency;
    double matrices = 2 * (double)f->w->model->n_tracked, world = (double)world_of(f) / ranks;
    double at_once = matrices < world ? matrices : world;
    return eigen + floats * p->s[BG_COST_SERIAL] + plan_read_s(c, p, at_once, 4 * floats) +
           plan_write_s(c, p, at_once, 8 * (double)n * side, 1);
}

/* fit_factors deals by n³; the load here is in seconds. */
typedef struct {
    double cost, seconds;
} load;

typedef struct {
    size_t n, *side; /* the largest first */
} matrices;

static void deal(const plan_fit_run *f, const plan_cluster *c, const plan_profile *p, size_t units, matrices m,
                 load *of, plan_phase *out)
{
    division d = divide(f);
    double most = 0, sum = 0, k = (double)f->w->blocks;
    size_t world = world_of(f);
    for (size_t i = 0; i < m.n; i++) {
        bool large = i < d.n_large;
        size_t width = large ? d.group_size : 1, places = large ? d.n_groups : world, least = 0;
        for (size_t j = 1; j < places; j++)
            if (of[j * width].cost < of[least * width].cost)
                least = j;
        double cube = (double)m.side[i] * (double)m.side[i] * (double)m.side[i];
        double seconds = matrix_s(f, c, p, m.side[i], units, (double)width);
        out->stop_s = seconds / k > out->stop_s ? seconds / k : out->stop_s;
        for (size_t r = least * width; r < (least + 1) * width; r++) {
            of[r].cost += cube / (double)width;
            of[r].seconds += seconds;
            sum += seconds;
            most = of[r].seconds > most ? of[r].seconds : most;
        }
    }
    out->idle = most > 0 ? 1 - sum / (most * (double)world) : 0;
    out->seconds = most;
}

void plan_decompose(const plan_fit_run *f, const plan_cluster *c, const plan_profile *p, size_t units, plan_phase *out)
{
    const bg_model *m = f->w->model;
    size_t n = 0, *side = NULL;
    load *of = NULL;
    if (BG_NEW(side, 2 * m->n_tracked, "list of matrices", NULL) == BG_OK &&
        BG_NEW(of, world_of(f), "list of matrices", NULL) == BG_OK) {
        for (size_t i = 0; i < m->n_tracked; i++) {
            side[n++] = m->tracked[i]->n_out;
            if (m->tracked[i]->input == i)
                side[n++] = m->tracked[i]->n_in1;
        }
        qsort(side, n, sizeof *side, descending);
        deal(f, c, p, units, (matrices){ n, side }, of, out);
    }
    bg_free(side);
    bg_free(of);
}
