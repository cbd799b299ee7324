#include "costs.h"

#include "bregman/blockdiag.h"
#include "bregman/precondition.h"
#include "bregman/store.h"

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* Floats of a module's eigenbases and Λ. */
enum { BASIS_S, BASIS_A, LAMBDA, FACTORS };
static size_t floats_of(const bg_workload *w, const bg_site *site, size_t which)
{
    size_t p = site->n_out, m = site->n_in1;
    return which == BASIS_S   ? p * bg_block_width(p, w->blocks)
           : which == BASIS_A ? m * bg_block_width(m, w->blocks)
                              : p * m;
}

size_t compress_factor_floats(const bg_workload *w, const bg_site *site)
{
    return floats_of(w, site, BASIS_S) + floats_of(w, site, BASIS_A) + floats_of(w, site, LAMBDA);
}

/* ---- memory ---- */

static compress_room largest(const bg_workload *w, const bg_share *share)
{
    compress_room e = { 0 };
    for (size_t i = share->first_tracked; i < share->end_tracked; i++) {
        const bg_site *site = w->model->tracked[i];
        size_t r = bg_queries_columns(site, w->rank), p = site->n_out, m = site->n_in1;
        e.p = larger(e.p, p);
        e.m = larger(e.m, m);
        e.pm = larger(e.pm, p * m);
        e.scratch = larger(e.scratch, bg_compress_scratch(p, m, r));
        e.left = larger(e.left, p * r);
        e.right = larger(e.right, m * r);
        e.factors = larger(e.factors, compress_factor_floats(w, site));
    }
    return e;
}

/* Rank 0 also takes all modules' sides from file to file in the end. */
compress_room compress_needed(const bg_workload *w)
{
    compress_room e = largest(w, bg_workload_share(w));
    if (w->grid.world_rank == 0) {
        const bg_share whole = bg_model_whole(w->model);
        const compress_room all = largest(w, &whole);
        e.left = all.left;
        e.right = all.right;
    }
    return e;
}

static size_t bytes(const bg_workload *w, const bg_plan *plan)
{
    compress_room e = compress_needed(w);
    return (plan->rows * (e.p + e.m) + e.pm + e.scratch + e.left + e.right + e.factors) * sizeof(float);
}

/* Factors of the rank's modules: those that stay in memory, taken as backward meets them, and those that are read for
 * every micro-batch. */
typedef struct {
    double held, read;
} factor_bytes;

static factor_bytes factors_of(const bg_workload *w, const bg_plan *plan)
{
    const bg_share *s = bg_workload_share(w);
    uint64_t used = bg_workload_bytes(w, plan);
    double room = w->memory_limit == UINT64_MAX || w->memory_limit < used ? 0 : (double)(w->memory_limit - used);
    factor_bytes found = { 0, 0 };
    for (size_t i = s->end_tracked; i-- > s->first_tracked;) {
        double b = sizeof(float) * (double)compress_factor_floats(w, w->model->tracked[i]);
        *(b <= room - found.held ? &found.held : &found.read) += b;
    }
    return found;
}

/* What HDF5 keeps of the factors' file, of the datasets that it has read last. */
static double cached_bytes(const bg_workload *w)
{
    const bg_share *s = bg_workload_share(w);
    double open[BG_STORE_OPEN], most = 0;
    for (size_t end = FACTORS * s->first_tracked; end < FACTORS * s->end_tracked; end++) {
        size_t n = 0;
        for (size_t at = end + 1; n < BG_STORE_OPEN && at-- > FACTORS * s->first_tracked;)
            open[n++] = sizeof(float) * (double)floats_of(w, w->model->tracked[at / FACTORS], at % FACTORS);
        double now = bg_store_cached_bytes(open, n);
        most = now > most ? now : most;
    }
    return most;
}

/* ---- disk ---- */

/* Five datasets of n queries a module, in the units' files six. */
static double disk(const bg_workload *w, size_t first, size_t end, double n, bool unit)
{
    double sum = 0;
    for (size_t i = first; i < end; i++) {
        const bg_site *site = w->model->tracked[i];
        double r = (double)bg_queries_columns(site, w->rank);
        sum += bg_store_dataset_bytes(n * r * (double)site->n_out, sizeof(float)) +
               bg_store_dataset_bytes(n * r * (double)site->n_in1, sizeof(float)) +
               3 * bg_store_dataset_bytes(n, sizeof(double)) + (unit ? bg_store_dataset_bytes(n, sizeof(uint32_t)) : 0);
    }
    return sum;
}

static double n_blocks(const bg_workload *w, const bg_share *s)
{
    double n = 0;
    for (size_t i = s->first_tracked; i < s->end_tracked; i++)
        n += i == s->first_tracked || w->model->tracked[i]->block != w->model->tracked[i - 1]->block;
    return n;
}

/* ---- the sweep ---- */

static bg_workload_sweep sweep(const bg_workload *w)
{
    uint64_t unit = w->unit_sequences > 0 ? w->unit_sequences : COMPRESS_UNIT_QUERIES;
    return (bg_workload_sweep){ w->queries, unit < w->queries ? unit : w->queries, w->query_rows, w->query_loss_rows,
                                false };
}

static void batch(const bg_workload *w, const bg_plan *plan, const bg_batch_shape *b, bg_cost *cost)
{
    const bg_share *s = bg_workload_share(w);
    double z = (double)b->sequences, rows = (double)b->rows;
    const double forming = 3; /* loops over a module's curvature */
    for (size_t i = s->first_tracked; i < s->end_tracked; i++) {
        const bg_site *site = w->model->tracked[i];
        double p = (double)site->n_out, m = (double)site->n_in1;
        bg_blockdiag_cost(cost, site->n_in1, w->blocks, z * rows, 1);
        bg_blockdiag_cost(cost, site->n_out, w->blocks, z * rows, 1);
        bg_cost_product(cost, p, m, rows, z);
        bg_compress_cost(cost, site, w->blocks, bg_queries_columns(site, w->rank), z);
        cost->of[BG_COST_SERIAL] += forming * p * m;
    }
    cost->of[BG_COST_READ] += factors_of(w, plan).read;
}

/* Rows are written once: a checkpoint costs their files. */
static void rank(const bg_workload *w, const bg_plan *plan, bg_rank_costs *out)
{
    const bg_share *s = bg_workload_share(w);
    double blocks = n_blocks(w, s), unit = (double)sweep(w).unit_sequences;
    out->held_bytes = factors_of(w, plan).held;
    out->cached_bytes = cached_bytes(w);
    out->begin.of[BG_COST_READ] = out->resume.of[BG_COST_READ] = out->held_bytes;
    out->unit.of[BG_COST_WRITE] = disk(w, s->first_tracked, s->end_tracked, unit, true) +
                                  blocks * bg_store_file_bytes();
    out->unit.of[BG_COST_FILE] = out->part.of[BG_COST_FILE] = blocks;
}

/* Rank 0 copies the units' rows into one file, six small reads and five writes a query and module. */
static void ends(const bg_workload *w, const bg_plan *plan, bg_ends_costs *out)
{
    size_t n = w->model->n_tracked;
    (void)plan;
    out->final_bytes = disk(w, 0, n, (double)w->queries, false) + bg_store_file_bytes();
    out->end.of[BG_COST_READ] = out->end.of[BG_COST_WRITE] = out->final_bytes;
    out->end.of[BG_COST_FILE] = 1;
    out->end.of[BG_COST_ROW_WRITE] = 11 * (double)w->queries * (double)n;
    out->end_ranks = 1;
}

static const bg_phase_costs phase = { .name = "queries", .bytes = bytes, .rank = rank, .sweep = sweep, .batch = batch };

const bg_stage_costs compress_costs = {
    .name = "compress_queries", .activation_bytes = 96 << 20, .ends = ends, .n_phases = 1, .phase = &phase
};
