#include "costs.h"

#include <math.h>
#include <string.h>

#include "bregman/blockdiag.h"
#include "bregman/precondition.h"
#include "bregman/store.h"

/* A module's factors. */
enum { BASIS_S, BASIS_A, LAMBDA, HALF, DATASETS };
static size_t floats_of(const bg_site *site, size_t which)
{
    size_t p = site->n_out, m = site->n_in1;
    return which == BASIS_S   ? p * bg_block_width(p, site->s.k)
           : which == BASIS_A ? m * bg_block_width(m, site->a.k)
                              : p * m;
}

static size_t factor_floats(const bg_site *site)
{
    size_t n = 0;
    for (size_t i = 0; i < DATASETS; i++)
        n += floats_of(site, i);
    return n;
}

/* ---- memory ---- */

void compress_floats(const bg_workload *w, bg_site_range sites, size_t rows, size_t out[ARRAYS])
{
    const bg_rotated_widths wide = bg_eigenbasis_widths(w->model, sites);
    memset(out, 0, ARRAYS * sizeof *out);
    for (size_t i = sites.first; i < sites.end; i++) {
        const bg_site *site = w->model->tracked[i];
        size_t p = site->n_out, m = site->n_in1, r = bg_queries_columns(site, w->columns);
        const size_t floats[ARRAYS] = {
            [ROTATED_A] = rows * wide.a,
            [ROTATED_D] = rows * wide.d,
            [GRADIENT] = p * m,
            [SCRATCH] = bg_compress_scratch(p, m, r),
            [LEFT] = p * r,
            [RIGHT] = m * r,
            [FACTORS] = factor_floats(site),
        };
        for (int j = 0; j < ARRAYS; j++)
            out[j] = floats[j] > out[j] ? floats[j] : out[j];
    }
}

static bool is_refined(const bg_workload *w) { return w->refine.kind != BG_REFINE_NONE; }

static uint64_t unit_queries(const bg_workload *w)
{
    return w->unit_sequences > 0 ? w->unit_sequences : COMPRESS_UNIT_QUERIES;
}

/* The refined solve's vectors, and a pass of its own over the sequences, whose micro-batches stay. */
static size_t refine_bytes(const bg_workload *w, size_t rows)
{
    const bg_model *m = w->model;
    const bg_refine_load *l = &w->refine;
    size_t n = (size_t)unit_queries(w), batches = rows > 0 ? (size_t)(l->rows / rows) + 1 : 0;
    if (!is_refined(w))
        return 0;
    size_t vectors = n * BG_REFINE_VECTORS * bg_vector_floats(m) + bg_refine_room_floats(m);
    return vectors * sizeof(float) + n * (l->steps + 1) * sizeof(double) + bg_gauss_newton_bytes(m, rows) +
           bg_pass_bytes(m, NULL, 1, rows > l->longest ? rows : l->longest, BG_LOGITS_BYTES) +
           2 * batches * rows * (3 * sizeof(uint64_t) + 2 * sizeof(uint32_t));
}

/* Rank 0 takes all modules' sides from file to file in the end. */
static size_t bytes(const bg_workload *w, const bg_plan *plan)
{
    size_t floats[ARRAYS], sweep = 0;
    compress_floats(w, bg_workload_share(w)->sites, plan->rows, floats);
    for (int i = 0; i < ARRAYS; i++)
        sweep += floats[i];
    compress_floats(w, bg_model_whole(w->model).sites, 0, floats);
    size_t end = w->grid.world_rank == 0 ? floats[LEFT] + floats[RIGHT] : 0;
    return (end > sweep ? end : sweep) * sizeof(float) + refine_bytes(w, plan->rows);
}

compress_held compress_hold(const bg_workload *w, uint64_t room, bool *holds)
{
    const bg_site_range own = bg_workload_share(w)->sites;
    compress_held held = { 0, 0, 0 };
    for (size_t i = own.first; i < own.end; i++) {
        uint64_t n = factor_floats(w->model->tracked[i]) * sizeof(float);
        bool fits = n <= room - held.bytes;
        held.bytes_of_all += n;
        held.bytes += fits ? n : 0;
        held.modules += fits;
        if (holds != NULL)
            holds[i] = fits;
    }
    return held;
}

/* In what --memory-limit leaves. */
static compress_held held_in_limit(const bg_workload *w, const bg_plan *plan)
{
    uint64_t used = bg_workload_bytes(w, plan);
    bool no_room = w->memory_limit == UINT64_MAX || w->memory_limit < used;
    return compress_hold(w, no_room ? 0 : w->memory_limit - used, NULL);
}

/* What HDF5 keeps of the factors' file, of the datasets that it has read last. */
static double cached_bytes(const bg_workload *w)
{
    const bg_site_range own = bg_workload_share(w)->sites;
    double open[BG_STORE_OPEN], most = 0;
    for (size_t end = DATASETS * own.first; end < DATASETS * own.end; end++) {
        size_t n = 0;
        for (size_t at = end + 1; n < BG_STORE_OPEN && at-- > DATASETS * own.first;)
            open[n++] = sizeof(float) * (double)floats_of(w->model->tracked[at / DATASETS], at % DATASETS);
        double now = bg_store_cached_bytes(open, n);
        most = now > most ? now : most;
    }
    return most;
}

/* ---- disk ---- */

/* Six datasets of n queries a module, in the units' files seven. */
static double disk(const bg_workload *w, bg_site_range sites, double n, bool unit)
{
    double sum = 0;
    for (size_t i = sites.first; i < sites.end; i++) {
        const bg_site *site = w->model->tracked[i];
        double r = (double)bg_queries_columns(site, w->columns);
        sum += bg_store_dataset_bytes(n * r * (double)site->n_out, sizeof(float)) +
               bg_store_dataset_bytes(n * r * (double)site->n_in1, sizeof(float)) +
               4 * bg_store_dataset_bytes(n, sizeof(double)) + (unit ? bg_store_dataset_bytes(n, sizeof(uint32_t)) : 0);
    }
    return sum;
}

static double n_files(const bg_workload *w)
{
    bg_section_range own = bg_share_sections(w->model, bg_workload_share(w));
    return (double)(own.end - own.first) + bg_workload_share(w)->has_head; /* and that of the losses */
}

/* ---- the sweep ---- */

static bg_workload_sweep sweep(const bg_workload *w)
{
    uint64_t unit = unit_queries(w);
    return (bg_workload_sweep){ w->queries, unit < w->queries ? unit : w->queries, w->query_rows, w->query_loss_rows,
                                false };
}

/* A unit's refined solve; then each gradient, turned into the eigenbases, is truncated. */
static void solve(const bg_workload *w, const bg_plan *plan, double n, bg_cost *cost)
{
    bg_refine_cost(cost, w->model, &w->refine, n, plan->rows);
    for (size_t i = 0; i < w->model->n_tracked; i++) {
        const bg_site *site = w->model->tracked[i];
        bg_curvature_rotate_cost(cost, site, n);
        bg_compress_cost(cost, site, bg_queries_columns(site, w->columns), n);
    }
}

static void batch(const bg_workload *w, const bg_plan *plan, const bg_batch_shape *b, bg_cost *cost)
{
    const bg_site_range own = bg_workload_share(w)->sites;
    double z = (double)b->sequences;
    const double forming = 5; /* loops over a module's curvature and half of it */
    for (size_t i = own.first; i < own.end; i++) {
        const bg_site *site = w->model->tracked[i];
        double rows = bg_model_site_rows(w->model, site, (double)b->rows);
        bg_pair_gradient_cost(cost, site, rows, z);
        if (is_refined(w)) /* what is done with the gradients is done at the unit's end */
            continue;
        bg_eigenbasis_rotate_cost(cost, site, false, z * rows);
        bg_compress_cost(cost, site, bg_queries_columns(site, w->columns), z);
        cost->of[BG_COST_SERIAL] += forming * (double)site->n_out * (double)site->n_in1;
    }
    const compress_held held = held_in_limit(w, plan);
    cost->of[BG_COST_READ] += is_refined(w) ? 0 : (double)(held.bytes_of_all - held.bytes);
}

/* Time in that of a query's computations, of which reading all of a rank's factors is taken to take two.  Few, large
 * micro-batches leave the ranks of a pipeline idle. */
double compress_rows_cost(const bg_workload *w, size_t rows, uint64_t batches)
{
    const double read = 2;
    const compress_held held = held_in_limit(w, &(bg_plan){ .rows = rows });
    double n = (double)batches, units = ceil((double)w->queries / (double)sweep(w).unit_sequences),
           of_column = ceil(units / w->grid.data_size) * n / units,
           unread = held.bytes_of_all > 0 ? 1 - (double)held.bytes / (double)held.bytes_of_all : 0;
    return (of_column + w->grid.pipeline_size - 1) * (read * unread + (double)w->queries / n);
}

/* Of queries of one length. */
static double rows_cost(const bg_workload *w, size_t rows)
{
    uint64_t unit = sweep(w).unit_sequences, each = rows / w->query_rows;
    return compress_rows_cost(w, rows, (w->queries + unit - 1) / unit * ((unit + each - 1) / each));
}

/* Rows are written once: a checkpoint costs their files. */
static void rank(const bg_workload *w, const bg_plan *plan, bg_rank_costs *out)
{
    double files = n_files(w), unit = (double)sweep(w).unit_sequences;
    const compress_held held = held_in_limit(w, plan);
    out->held_bytes = (double)(is_refined(w) ? held.bytes_of_all : held.bytes);
    out->cached_bytes = cached_bytes(w);
    out->begin.of[BG_COST_READ] = out->resume.of[BG_COST_READ] = out->held_bytes;
    out->unit.of[BG_COST_WRITE] = disk(w, bg_workload_share(w)->sites, unit, true) +
                                  bg_store_dataset_bytes(unit, sizeof(double)) + files * bg_store_file_bytes();
    out->unit.of[BG_COST_FILE] = out->part.of[BG_COST_FILE] = files;
    if (is_refined(w))
        solve(w, plan, unit, &out->solve);
}

/* A refined query is solved for by one rank. */
static bool is_possible(const bg_workload *w) { return !is_refined(w) || w->grid.pipeline_size == 1; }

/* Rank 0 copies the units' rows into one file, seven small reads and six writes for each query and module. */
static void ends(const bg_workload *w, const bg_plan *plan, bg_ends_costs *out)
{
    size_t n = w->model->n_tracked;
    (void)plan;
    out->final_bytes = disk(w, bg_model_whole(w->model).sites, (double)w->queries, false) +
                       bg_store_dataset_bytes((double)w->queries, sizeof(double)) + bg_store_file_bytes();
    out->end.of[BG_COST_READ] = out->end.of[BG_COST_WRITE] = out->final_bytes;
    out->end.of[BG_COST_FILE] = 1;
    out->end.of[BG_COST_ROW_WRITE] = 13 * (double)w->queries * (double)n;
    out->end_ranks = 1;
}

static const bg_phase_costs phase = { .name = "queries", .bytes = bytes, .rank = rank, .sweep = sweep, .batch = batch };

const bg_stage_costs compress_costs = { .name = "compress_queries",
                                        .activation_bytes = 96 << 20,
                                        .is_possible = is_possible,
                                        .rows_cost = rows_cost,
                                        .ends = ends,
                                        .n_phases = 1,
                                        .phase = &phase };
