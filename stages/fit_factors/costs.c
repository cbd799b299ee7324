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

bg_section_range fit_pass_sections(const bg_model *m, const bg_share *s, size_t pass, size_t passes)
{
    bg_section_range all = bg_share_sections(m, s);
    size_t n = all.end - all.first;
    return (bg_section_range){ all.first + pass * n / passes, all.first + (pass + 1) * n / passes };
}

static bg_site_range pass_sites(const bg_workload *w, size_t pass, size_t passes)
{
    return bg_sections_sites(w->model, fit_pass_sections(w->model, bg_workload_share(w), pass, passes));
}

/* Of Shampoo's sums for a row of a sequence of the longest. */
static double shampoo_flops(const bg_workload *w, const bg_site *site)
{
    const bg_batch_shape one = { .sequences = 1, .rows = w->rows };
    bg_cost cost = { 0 };
    bg_covariance_cost(&cost, w->model, (bg_site_range){ site->index, site->index + 1 }, w->factor_kind, &one);
    return cost.flops / (double)w->rows;
}

/* FLOPs of a module's two taps for a row: half a product for a covariance; for Λ the rotations and the product. */
static double tap_flops(const bg_workload *w, const bg_site *site)
{
    double p = (double)site->n_out, m = (double)site->n_in1, columns = site->kind == BG_SITE_EMBEDDING ? 1 : m;
    double squares = p * p / (double)site->s.k + (bg_site_adds_input(site) ? m * columns / (double)site->a.k : 0);
    double covariance = w->factor_kind == BG_FACTORS_SHAMPOO ? shampoo_flops(w, site)
                                                             : bg_model_site_rows(w->model, site, squares);
    return covariance + bg_model_site_rows(w->model, site, 2 * squares + 2 * p * columns * (w->diagonal ? 2 : 1));
}

/* ---- the sweeps ---- */

static bg_workload_sweep sweep_of(const bg_workload *w, uint64_t n)
{
    uint64_t unit = fit_unit(n, w->unit_sequences);
    return (bg_workload_sweep){ n, unit < n ? unit : n, w->rows, w->rows, true };
}

static bg_workload_sweep covariance_sweep(const bg_workload *w) { return sweep_of(w, w->covariance_sequences); }
static bg_workload_sweep lambda_sweep(const bg_workload *w) { return sweep_of(w, w->lambda_sequences); }

static uint64_t units_of(bg_workload_sweep s) { return (s.n_sequences + s.unit_sequences - 1) / s.unit_sequences; }

/* ---- disk ---- */

/* Of a run of sites: sums of a unit, matrices with their bases in them, factors; and their sections. */
typedef struct {
    double covariance, lambda, half, bases, matrices, final;
    double sections;
} disk;

/* A decomposed matrix: covariance, eigenvectors, eigenvalues. */
static double matrix_bytes(bg_symmetric s)
{
    double floats = (double)s.n * (double)fit_side(s);
    return 2 * bg_store_dataset_bytes(floats, sizeof(float)) + bg_store_dataset_bytes((double)s.n, sizeof(double));
}

static void add_side(disk *d, bg_symmetric s)
{
    d->covariance += bg_store_dataset_bytes((double)bg_symmetric_floats(s), sizeof(float));
    d->bases += sizeof(float) * (double)s.n * (double)fit_side(s);
    d->matrices += matrix_bytes(s) + bg_store_file_bytes();
    d->final += matrix_bytes(s);
}

static disk disk_of(const bg_workload *w, bg_site_range sites)
{
    disk d = { 0 };
    for (size_t i = sites.first; i < sites.end; i++) {
        const bg_site *site = w->model->tracked[i];
        d.sections += i == sites.first || site->section != w->model->tracked[i - 1]->section;
        double squares = bg_store_dataset_bytes((double)(site->n_out * site->n_in1), sizeof(float));
        d.lambda += squares * (w->diagonal ? 2 : 1);
        d.half += units_of(lambda_sweep(w)) > 1 ? squares : 0;
        add_side(&d, site->s);
        if (bg_site_owns_input(site))
            add_side(&d, site->a);
    }
    d.final += d.lambda + d.half + d.sections * bg_store_file_bytes();
    d.covariance += d.sections * bg_store_file_bytes();
    d.lambda += d.sections * bg_store_file_bytes();
    return d;
}

static disk disk_of_rank(const bg_workload *w) { return disk_of(w, bg_workload_share(w)->sites); }

/* ---- the sums ---- */

static size_t covariance_bytes(const bg_workload *w, const bg_plan *plan)
{
    size_t most = 0;
    for (size_t i = 0; i < plan->passes; i++) {
        bg_site_range s = pass_sites(w, i, plan->passes);
        size_t sums = plan->on_scratch ? 0 : bg_covariance_bytes(w->model, s);
        most = larger(most, sums + bg_covariance_room_bytes(w->model, s, w->factor_kind, w->rows));
    }
    return most;
}

/* Bases are held once by the ranks of a node at one place of the pipeline. */
static size_t lambda_bytes(const bg_workload *w, const bg_plan *plan)
{
    size_t most = 0;
    for (size_t i = 0; i < plan->passes; i++) {
        bg_site_range s = pass_sites(w, i, plan->passes);
        size_t sums = plan->on_scratch ? 0 : bg_eigenvalues_bytes(w->model, s, w->diagonal);
        most = larger(most, sums + bg_eigenbasis_bytes(w->model, s) / (size_t)w->grid.place_size +
                                bg_eigenvalues_room_bytes(w->model, s, w->diagonal, plan->rows));
    }
    return most;
}

static void covariance_batch(const bg_workload *w, const bg_plan *plan, const bg_batch_shape *b, bg_cost *cost)
{
    (void)plan;
    bg_covariance_cost(cost, w->model, bg_workload_share(w)->sites, w->factor_kind, b);
}

static void lambda_batch(const bg_workload *w, const bg_plan *plan, const bg_batch_shape *b, bg_cost *cost)
{
    (void)plan;
    bg_eigenvalues_cost(cost, w->model, bg_workload_share(w)->sites, w->diagonal, b);
}

/* A part is a sum as a unit's: both are written whole. */
static void set_sums(bg_rank_costs *out, double bytes, double files)
{
    out->unit.of[BG_COST_WRITE] = out->part.of[BG_COST_WRITE] = out->resume.of[BG_COST_READ] = bytes;
    out->unit.of[BG_COST_FILE] = out->part.of[BG_COST_FILE] = files;
}

static void covariance_rank(const bg_workload *w, const bg_plan *plan, bg_rank_costs *out)
{
    disk d = disk_of_rank(w);
    (void)plan;
    set_sums(out, d.covariance, d.sections);
}

static void lambda_rank(const bg_workload *w, const bg_plan *plan, bg_rank_costs *out)
{
    disk d = disk_of_rank(w);
    (void)plan;
    set_sums(out, d.lambda, d.sections);
    out->begin.of[BG_COST_READ] = d.bases;
    out->resume.of[BG_COST_READ] += d.bases;
}

/* ---- eigendecompositions ---- */

static int by_size(const void *a, const void *b)
{
    const fit_matrix *x = a, *y = b;
    if (fit_side(x->sym) != fit_side(y->sym))
        return fit_side(x->sym) > fit_side(y->sym) ? -1 : 1;
    if (x->sym.n != y->sym.n)
        return x->sym.n > y->sym.n ? -1 : 1;
    if (x->site->index != y->site->index)
        return x->site->index < y->site->index ? -1 : 1;
    return (int)x->side - (int)y->side;
}

size_t fit_list_matrices(const bg_model *m, fit_matrix *out)
{
    size_t n = 0;
    for (size_t i = 0; i < m->n_tracked; i++) {
        const bg_site *site = m->tracked[i];
        if (bg_site_owns_input(site))
            out[n++] = (fit_matrix){ site, BG_SIDE_INPUT, site->a };
        out[n++] = (fit_matrix){ site, BG_SIDE_OUTPUT, site->s };
    }
    qsort(out, n, sizeof *out, by_size);
    return n;
}

static void count_matrix(const bg_workload *w, fit_division *d, bg_symmetric s)
{
    size_t side = fit_side(s);
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
        count_matrix(w, &d, w->model->tracked[i]->s);
        if (bg_site_owns_input(w->model->tracked[i]))
            count_matrix(w, &d, w->model->tracked[i]->a);
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

static const bg_symmetric *largest_matrix(const bg_workload *w)
{
    const bg_symmetric *most = &w->model->tracked[0]->s;
    for (size_t i = 0; i < w->model->n_tracked; i++) {
        const bg_site *site = w->model->tracked[i];
        const bg_symmetric *const side[] = { &site->a, &site->s };
        for (int k = 0; k < 2; k++)
            if (fit_side(*side[k]) > fit_side(*most))
                most = side[k];
    }
    return most;
}

/* A matrix's sums in the units' files that stay open. */
static void decompose_rank(const bg_workload *w, const bg_plan *plan, bg_rank_costs *out)
{
    const bg_symmetric *most = largest_matrix(w);
    uint64_t units = units_of(covariance_sweep(w));
    double bytes = sizeof(float) * (double)bg_symmetric_floats(*most), open[BG_UNITS_OPEN];
    size_t n = units < BG_UNITS_OPEN ? (size_t)units : BG_UNITS_OPEN;
    (void)plan;
    for (size_t i = 0; i < n; i++)
        open[i] = bytes;
    out->cached_bytes = bg_store_cached_bytes(open, n);
}

/* Units' sums read and added, blocks decomposed, the matrix written. */
static bg_task_costs matrix_task(const bg_workload *w, const fit_matrix *m, fit_place place)
{
    bool diagonal = bg_symmetric_is_diagonal(m->sym);
    double floats = (double)bg_symmetric_floats(m->sym) * (double)units_of(covariance_sweep(w));
    bg_task_costs t = { .first = place.first, .ranks = place.ranks, .steps = diagonal ? 1 : m->sym.k };
    for (size_t j = 0; j < m->sym.k && !diagonal; j++)
        bg_eigen_cost(&t.cost, fit_side(m->sym));
    t.cost.of[BG_COST_SERIAL] = floats;
    t.cost.of[BG_COST_READ] = sizeof(float) * floats;
    t.cost.of[BG_COST_WRITE] = matrix_bytes(m->sym) + bg_store_file_bytes();
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
        (*out)[i] = matrix_task(w, &matrix[i], fit_deal(&d, i, fit_side(matrix[i].sym), load));
    bg_free(matrix);
    bg_free(load);
    return st;
}

static bool is_possible(const bg_workload *w) { return fit_divide(w).largest_alone <= BG_EIGEN_MAX_SIDE; }

/* ---- the whole ---- */

/* Sections' files, each by one rank: matrices copied, units' squares added. */
static void ends(const bg_workload *w, const bg_plan *plan, bg_ends_costs *out)
{
    bg_workload_sweep a = covariance_sweep(w), b = lambda_sweep(w);
    disk all = disk_of(w, bg_model_whole(w->model).sites);
    double world = (double)w->grid.world_size, units = (double)units_of(b);
    double own = (double)(size_t)((all.sections + world - 1) / world), read = all.matrices + all.lambda * units;
    (void)plan;
    out->begin.of[BG_COST_HASH] = 4.0 * (double)(w->rows + 1) * (double)larger(a.n_sequences, b.n_sequences);
    out->end.of[BG_COST_READ] = own / all.sections * read;
    out->end.of[BG_COST_SERIAL] = own / all.sections * read / 4;
    out->end.of[BG_COST_WRITE] = own / all.sections * all.final;
    out->end.of[BG_COST_FILE] = own + 1;
    out->end_ranks = all.sections < world ? all.sections : world;
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
