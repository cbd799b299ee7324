#include "costs.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/covariance.h"
#include "bregman/eigen.h"
#include "bregman/eigenvalues.h"
#include "bregman/memory.h"
#include "bregman/units.h"

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

uint64_t fit_unit(uint64_t n, uint64_t asked)
{
    uint64_t unit = (n + 63) / 64;
    unit = unit < 16 ? 16 : unit > 1024 ? 1024 : unit;
    return asked > 0 ? asked : unit;
}

bg_status fit_check_blocks(const bg_model *m, uint64_t k, bg_err *err)
{
    for (size_t i = 0; i < m->n_tracked; i++)
        if (m->tracked[i]->n_out < k || m->tracked[i]->n_in1 < k)
            return BG_FAIL(err, BG_EARG, "--blocks %" PRIu64 " is more than %s has rows", k, m->tracked[i]->name);
    return BG_OK;
}

fit_blocks fit_pass_blocks(const bg_share *s, size_t pass, size_t passes)
{
    size_t n = s->end - s->first;
    return (fit_blocks){ s->first + pass * n / passes, s->first + (pass + 1) * n / passes };
}

bg_site_range fit_pass_sites(const bg_model *m, const bg_share *s, size_t pass, size_t passes)
{
    fit_blocks b = fit_pass_blocks(s, pass, passes);
    return bg_model_tracked(m, b.first, b.end);
}

/* FLOPs a row of a module's two taps: half a product a covariance; for Λ the rotations and the product. */
static double tap_flops(const bg_workload *w, const bg_site *site)
{
    double p = (double)site->n_out, m = (double)site->n_in1, k = (double)w->blocks;
    double squares = p * p / k + (site->input == site->index ? m * m / k : 0);
    return squares + 2 * squares + 2 * p * m * (w->diagonal ? 2 : 1);
}

/* ---- disk ---- */

/* Of a run of modules: sums of a unit, matrices with their bases in them, factors; and their blocks. */
typedef struct {
    double covariance, lambda, bases, matrices, final;
    double blocks;
} disk;

/* A decomposed matrix: covariance, eigenvectors, eigenvalues. */
static double matrix_bytes(const bg_workload *w, size_t n)
{
    double floats = (double)n * (double)bg_block_width(n, w->blocks);
    return 2 * bg_store_dataset_bytes(floats, sizeof(float)) + bg_store_dataset_bytes((double)n, sizeof(double));
}

static void add_side(disk *d, const bg_workload *w, size_t n)
{
    const bg_symmetric s = { n, w->blocks };
    d->covariance += bg_store_dataset_bytes((double)bg_symmetric_floats(s), sizeof(float));
    d->bases += sizeof(float) * (double)n * (double)bg_block_width(n, w->blocks);
    d->matrices += matrix_bytes(w, n) + bg_store_file_bytes();
    d->final += matrix_bytes(w, n);
}

static disk disk_of(const bg_workload *w, size_t first, size_t end)
{
    disk d = { 0 };
    for (size_t i = first; i < end; i++) {
        const bg_site *site = w->model->tracked[i];
        d.blocks += i == first || site->block != w->model->tracked[i - 1]->block;
        d.lambda += bg_store_dataset_bytes((double)(site->n_out * site->n_in1), sizeof(float)) * (w->diagonal ? 2 : 1);
        add_side(&d, w, site->n_out);
        if (site->input == i)
            add_side(&d, w, site->n_in1);
    }
    d.final += d.lambda + d.blocks * bg_store_file_bytes();
    d.covariance += d.blocks * bg_store_file_bytes();
    d.lambda += d.blocks * bg_store_file_bytes();
    return d;
}

static disk disk_of_rank(const bg_workload *w)
{
    const bg_share *s = bg_workload_share(w);
    return disk_of(w, s->first_tracked, s->end_tracked);
}

/* ---- the sums ---- */

static bg_workload_sweep sweep_of(const bg_workload *w, uint64_t n)
{
    uint64_t unit = fit_unit(n, w->unit_sequences);
    return (bg_workload_sweep){ n, unit < n ? unit : n, w->rows, w->rows, true };
}

static bg_workload_sweep covariance_sweep(const bg_workload *w) { return sweep_of(w, w->covariance_sequences); }
static bg_workload_sweep lambda_sweep(const bg_workload *w) { return sweep_of(w, w->lambda_sequences); }

static size_t covariance_bytes(const bg_workload *w, const bg_plan *plan)
{
    size_t most = 0;
    for (size_t i = 0; i < plan->passes && !plan->on_scratch; i++)
        most = larger(most,
                      bg_covariance_bytes(w->model, fit_pass_sites(w->model, bg_workload_share(w), i, plan->passes),
                                          w->blocks));
    return most;
}

/* Bases are held once by the ranks of a node at one place of the pipeline. */
static size_t lambda_bytes(const bg_workload *w, const bg_plan *plan)
{
    size_t most = 0;
    for (size_t i = 0; i < plan->passes; i++) {
        bg_site_range s = fit_pass_sites(w->model, bg_workload_share(w), i, plan->passes);
        size_t sums = plan->on_scratch ? 0 : bg_eigenvalues_bytes(w->model, s, w->diagonal);
        most = larger(most, sums + bg_eigenbasis_bytes(w->model, s, w->blocks) / (size_t)w->grid.place_size +
                                bg_eigenvalues_room_bytes(w->model, s, w->diagonal, plan->rows));
    }
    return most;
}

static void covariance_batch(const bg_workload *w, const bg_plan *plan, const bg_batch_shape *b, bg_cost *cost)
{
    const bg_share *s = bg_workload_share(w);
    (void)plan;
    bg_covariance_cost(cost, w->model, (bg_site_range){ s->first_tracked, s->end_tracked }, w->blocks,
                       b->sequences * b->rows);
}

static void lambda_batch(const bg_workload *w, const bg_plan *plan, const bg_batch_shape *b, bg_cost *cost)
{
    const bg_share *s = bg_workload_share(w);
    (void)plan;
    bg_eigenvalues_cost(cost, w->model, (bg_site_range){ s->first_tracked, s->end_tracked }, w->blocks, w->diagonal, b);
}

/* A part is a sum as a unit's: both are written whole. */
static void set_sums(bg_rank_costs *out, double bytes, double blocks)
{
    out->unit.of[BG_COST_WRITE] = out->part.of[BG_COST_WRITE] = out->resume.of[BG_COST_READ] = bytes;
    out->unit.of[BG_COST_FILE] = out->part.of[BG_COST_FILE] = blocks;
}

static void covariance_rank(const bg_workload *w, const bg_plan *plan, bg_rank_costs *out)
{
    disk d = disk_of_rank(w);
    (void)plan;
    set_sums(out, d.covariance, d.blocks);
}

static void lambda_rank(const bg_workload *w, const bg_plan *plan, bg_rank_costs *out)
{
    disk d = disk_of_rank(w);
    (void)plan;
    set_sums(out, d.lambda, d.blocks);
    out->begin.of[BG_COST_READ] = d.bases;
    out->resume.of[BG_COST_READ] += d.bases;
}

/* ---- eigendecompositions ---- */

static int by_size(const void *a, const void *b)
{
    const fit_matrix *x = a, *y = b;
    if (x->n != y->n)
        return x->n > y->n ? -1 : 1;
    if (x->site->index != y->site->index)
        return x->site->index < y->site->index ? -1 : 1;
    return strcmp(x->side, y->side);
}

size_t fit_list_matrices(const bg_model *m, fit_matrix *out)
{
    size_t n = 0;
    for (size_t i = 0; i < m->n_tracked; i++) {
        const bg_site *site = m->tracked[i];
        if (site->input == i)
            out[n++] = (fit_matrix){ site, "activation", site->n_in1 };
        out[n++] = (fit_matrix){ site, "gradient", site->n_out };
    }
    qsort(out, n, sizeof *out, by_size);
    return n;
}

static void count_matrix(const bg_workload *w, fit_division *d, size_t n)
{
    size_t side = bg_block_width(n, w->blocks);
    bool large = side > w->subgrid_side && bg_eigen_ranks(side, d->n_ranks) > 1;
    size_t *largest = large ? &d->largest : &d->largest_alone;
    d->n_large += large;
    *largest = larger(side, *largest);
}

/* Enough ranks a group that none needs more memory than a single rank may for a matrix of --subgrid-side; where
 * there are fewer large matrices than such groups, larger groups. */
fit_division fit_divide(const bg_workload *w)
{
    fit_division d = { .n_ranks = (size_t)w->grid.world_size };
    size_t room = bg_eigen_bytes(w->subgrid_side, 1), need = 2;
    for (size_t i = 0; i < w->model->n_tracked; i++) {
        count_matrix(w, &d, w->model->tracked[i]->n_out);
        if (w->model->tracked[i]->input == i)
            count_matrix(w, &d, w->model->tracked[i]->n_in1);
    }
    if (d.n_large == 0)
        return d;
    while (need < d.n_ranks && bg_eigen_bytes(d.largest, need) > room)
        need++;
    d.n_groups = d.n_ranks / need < d.n_large ? d.n_ranks / need : d.n_large;
    d.group_size = d.n_ranks / d.n_groups;
    return d;
}

/* The one that has least to do so far, the lowest of equals. */
fit_place fit_deal(const fit_division *d, size_t i, size_t side, double *load)
{
    bool large = i < d->n_large;
    size_t width = large ? d->group_size : 1, places = large ? d->n_groups : d->n_ranks, least = 0;
    for (size_t j = 1; j < places; j++)
        if (load[j * width] < load[least * width])
            least = j;
    for (size_t r = 0; r < width; r++)
        load[least * width + r] += (double)side * (double)side * (double)side / (double)width;
    return (fit_place){ least * width, width };
}

enum { SUM_FLOATS = 1 << 20 }; /* unless one panel is larger */

size_t fit_sum_capacity(bg_symmetric sym)
{
    size_t c0, w, all = bg_symmetric_floats(sym);
    bg_symmetric_panel(sym, 0, 0, &c0, &w);
    size_t panel = bg_block_width(sym.n, sym.k) * (w + 1); /* another block's may be wider by one column */
    size_t most = larger(panel, SUM_FLOATS);
    return all < most ? all : most;
}

static size_t decompose_bytes(const bg_workload *w, const bg_plan *plan)
{
    fit_division d = fit_divide(w);
    size_t alone = bg_eigen_bytes(d.largest_alone, 1),
           shared = d.n_large > 0 ? bg_eigen_bytes(d.largest, d.group_size) : 0;
    size_t side = d.n_large > 0 ? d.largest : d.largest_alone;
    (void)plan;
    return larger(alone, shared) + fit_sum_capacity((bg_symmetric){ side, 1 }) * (sizeof(float) + sizeof(double)) +
           BG_EIGEN_SLAB * side * sizeof(float);
}

static uint64_t covariance_units(const bg_workload *w)
{
    bg_workload_sweep s = covariance_sweep(w);
    return (s.n_sequences + s.unit_sequences - 1) / s.unit_sequences;
}

/* A matrix's sums in the units' files that stay open. */
static void decompose_rank(const bg_workload *w, const bg_plan *plan, bg_rank_costs *out)
{
    fit_division d = fit_divide(w);
    const bg_symmetric s = { larger(d.largest, d.largest_alone), 1 };
    uint64_t units = covariance_units(w);
    double bytes = sizeof(float) * (double)bg_symmetric_floats(s) * (double)w->blocks, open[BG_UNITS_OPEN];
    size_t n = units < BG_UNITS_OPEN ? (size_t)units : BG_UNITS_OPEN;
    (void)plan;
    for (size_t i = 0; i < n; i++)
        open[i] = bytes;
    out->cached_bytes = bg_store_cached_bytes(open, n);
}

/* Units' sums read and added, blocks decomposed, the matrix written. */
static bg_task_costs matrix_task(const bg_workload *w, const fit_matrix *m, fit_place place)
{
    const bg_symmetric sym = { m->n, w->blocks };
    double floats = (double)bg_symmetric_floats(sym) * (double)covariance_units(w);
    bg_task_costs t = { .first = place.first, .ranks = place.ranks, .steps = w->blocks };
    for (size_t j = 0; j < w->blocks; j++)
        bg_eigen_cost(&t.cost, bg_block_width(m->n, w->blocks));
    t.cost.of[BG_COST_SERIAL] = floats;
    t.cost.of[BG_COST_READ] = sizeof(float) * floats;
    t.cost.of[BG_COST_WRITE] = matrix_bytes(w, m->n) + bg_store_file_bytes();
    t.cost.of[BG_COST_FILE] = 1;
    return t;
}

static bg_status decompose_tasks(const bg_workload *w, bg_task_costs **out, size_t *n, bg_err *err)
{
    fit_division d = fit_divide(w);
    fit_matrix *matrix = NULL;
    double *load = NULL;
    bg_status st = BG_NEW(matrix, 2 * w->model->n_tracked, "list of matrices", err);
    if (st == BG_OK)
        st = BG_NEW(*out, 2 * w->model->n_tracked, "list of matrices", err);
    if (st == BG_OK)
        st = BG_NEW(load, d.n_ranks, "list of matrices", err);
    if (st == BG_OK)
        *n = fit_list_matrices(w->model, matrix);
    for (size_t i = 0; st == BG_OK && i < *n; i++)
        (*out)[i] = matrix_task(w, &matrix[i], fit_deal(&d, i, bg_block_width(matrix[i].n, w->blocks), load));
    bg_free(matrix);
    bg_free(load);
    return st;
}

static bool is_possible(const bg_workload *w) { return fit_divide(w).largest_alone <= BG_EIGEN_MAX_SIDE; }

/* ---- the whole ---- */

/* Blocks' files, each by one rank: matrices copied, units' squares added. */
static void ends(const bg_workload *w, const bg_plan *plan, bg_ends_costs *out)
{
    bg_workload_sweep a = covariance_sweep(w), b = lambda_sweep(w);
    disk all = disk_of(w, 0, w->model->n_tracked);
    double world = (double)w->grid.world_size,
           units = (double)((b.n_sequences + b.unit_sequences - 1) / b.unit_sequences);
    double own = (double)(size_t)((all.blocks + world - 1) / world), read = all.matrices + all.lambda * units;
    (void)plan;
    out->begin.of[BG_COST_HASH] = 4.0 * (double)(w->rows + 1) * (double)larger(a.n_sequences, b.n_sequences);
    out->end.of[BG_COST_READ] = own / all.blocks * read;
    out->end.of[BG_COST_SERIAL] = own / all.blocks * read / 4;
    out->end.of[BG_COST_WRITE] = own / all.blocks * all.final;
    out->end.of[BG_COST_FILE] = own + 1;
    out->end_ranks = all.blocks < world ? all.blocks : world;
    out->end_stops = true;
    out->final_bytes = all.final + bg_store_file_bytes() + 200.0 * (double)w->model->n_tracked;
}

static const bg_phase_costs phases[] = {
    { .name = "covariance",
      .bytes = covariance_bytes,
      .rank = covariance_rank,
      .sweep = covariance_sweep,
      .batch = covariance_batch },
    { .name = "eigendecomposition", .bytes = decompose_bytes, .rank = decompose_rank, .tasks = decompose_tasks },
    { .name = "eigenvalues", .bytes = lambda_bytes, .rank = lambda_rank, .sweep = lambda_sweep, .batch = lambda_batch },
};

const bg_stage_costs fit_costs = { .name = "fit_factors",
                                   .activation_bytes = 512 << 20,
                                   .spills = "sums",
                                   .in_passes = true,
                                   .is_possible = is_possible,
                                   .tap_flops = tap_flops,
                                   .ends = ends,
                                   .n_phases = sizeof phases / sizeof phases[0],
                                   .phase = phases };
