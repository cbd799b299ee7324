/* compress.c - cost of compress_queries: few sequences, but every micro-batch reads the factors that memory does not
 * hold. */
#include "bregman/precondition.h"
#include "bregman/share.h"
#include "plan.h"

enum { ACTIVATION_BYTES = 96 << 20, UNIT_QUERIES = 8 }; /* of compress_queries */

static double larger(double a, double b) { return a > b ? a : b; }
static size_t most(size_t a, size_t b) { return a > b ? a : b; }

static size_t columns(const plan_work *w, const bg_site *site)
{
    size_t least = site->n_out < site->n_in1 ? site->n_out : site->n_in1;
    return (size_t)w->c->rank < least ? (size_t)w->c->rank : least;
}

/* Floats of a module's eigenbases and eigenvalues. */
static size_t factor_floats(const plan_work *w, const bg_site *site)
{
    size_t p = site->n_out, m = site->n_in1;
    return p * bg_block_width(p, w->blocks) + m * bg_block_width(m, w->blocks) + p * m;
}

/* What compress_queries holds besides the pass, for the largest of a share's modules. */
static size_t module_bytes(const plan_work *w, const bg_share *s, size_t rows)
{
    size_t p = 0, m = 0, pm = 0, scratch = 0, left = 0, right = 0, factors = 0;
    for (size_t i = s->first_tracked; i < s->end_tracked; i++) {
        const bg_site *site = w->model->tracked[i];
        size_t r = columns(w, site);
        p = most(p, site->n_out);
        m = most(m, site->n_in1);
        pm = most(pm, site->n_out * site->n_in1);
        scratch = most(scratch, bg_compress_scratch(site->n_out, site->n_in1, r));
        left = most(left, site->n_out * r);
        right = most(right, site->n_in1 * r);
        factors = most(factors, factor_floats(w, site));
    }
    return (rows * (p + m) + pm + scratch + left + right + factors) * sizeof(float);
}

static size_t bytes_of(const plan_costing *f, size_t r, size_t rows, size_t batches)
{
    return module_bytes(f->w, &f->share[r], rows) + plan_pass_bytes(f->w->model, f->g, &f->share[r], r, rows, batches);
}

/* What HDF5 keeps of the factors that it reads: chunks of 4 MiB of the eight datasets last used, and as many blocks
 * of memory for the next ones, up to 16 MiB. */
static double cached_bytes(const plan_work *w, const bg_share *s)
{
    const double chunks = 4 << 20, spare = 16 << 20;
    double open[8] = { 0 }, bytes = 0, most_bytes = 0;
    size_t at = 0;
    for (size_t i = s->first_tracked; i < s->end_tracked; i++) {
        const bg_site *site = w->model->tracked[i];
        double p = (double)site->n_out, m = (double)site->n_in1;
        const double size[3] = { 4 * p * (double)bg_block_width(site->n_out, w->blocks),
                                 4 * m * (double)bg_block_width(site->n_in1, w->blocks), 4 * p * m };
        for (int j = 0; j < 3; j++, at++) {
            bytes -= open[at % 8];
            bytes += open[at % 8] = size[j] < chunks ? size[j] : chunks;
            most_bytes = larger(most_bytes, bytes);
        }
    }
    return most_bytes + (most_bytes < spare ? most_bytes : spare);
}

static size_t compress_bytes(const void *self, const bg_plan *plan)
{
    const plan_costing *f = self;
    size_t bytes = 0;
    for (size_t r = 0; r < f->g->pipeline; r++)
        bytes = most(bytes, bytes_of(f, r, plan->rows, SIZE_MAX));
    return bytes;
}

/* Disk of n queries' factors. */
static double queries_bytes(const plan_work *w, size_t first, size_t end, double n, bool unit)
{
    double bytes = plan_file_bytes();
    for (size_t i = first; i < end; i++) {
        const bg_site *site = w->model->tracked[i];
        double r = (double)columns(w, site);
        bytes += plan_dataset_bytes(n * r * (double)site->n_out, 4) +
                 plan_dataset_bytes(n * r * (double)site->n_in1, 4) + 3 * plan_dataset_bytes(n, 8) +
                 (unit ? plan_dataset_bytes(n, 4) : 0);
        if (unit && i > first && site->block != w->model->tracked[i - 1]->block)
            bytes += plan_file_bytes();
    }
    return bytes;
}

/* Factors of rank r's modules: those that stay in memory, as --memory-limit leaves room for them, and those that are
 * read for every micro-batch. */
typedef struct {
    double held, read;
} factor_bytes;

static factor_bytes factors_of(const plan_costing *f, size_t r)
{
    const bg_share *s = &f->share[r];
    uint64_t limit = f->g->memory_limit, bytes = bytes_of(f, r, f->out->plan.rows, SIZE_MAX);
    double room = limit == UINT64_MAX || limit < bytes ? 0 : (double)(limit - bytes);
    factor_bytes found = { 0 };
    for (size_t i = s->first_tracked; i < s->end_tracked; i++) {
        double b = 4 * (double)factor_floats(f->w, f->w->model->tracked[i]);
        *(b <= room - found.held ? &found.held : &found.read) += b;
    }
    return found;
}

static size_t tracked_blocks(const plan_work *w, const bg_share *s)
{
    size_t n = 0;
    for (size_t i = s->first_tracked; i < s->end_tracked; i++)
        n += i == s->first_tracked || w->model->tracked[i]->block != w->model->tracked[i - 1]->block;
    return n;
}

static void sweep(plan_costing *f)
{
    const plan_work *w = f->w;
    plan_stage *o = f->out;
    size_t rows = (size_t)w->c->query_tokens - 1, queries = (size_t)w->c->queries;
    size_t loss = w->c->completion_tokens > 0 ? (size_t)w->c->completion_tokens : rows;
    size_t unit = queries < UNIT_QUERIES ? queries : UNIT_QUERIES, units = (queries + unit - 1) / unit;
    plan_batches b = plan_batches_of(unit, rows, loss < rows ? loss : rows, o->plan.rows);
    double ranks = plan_ranks(f->c, f->g), once_s = 0;
    for (size_t r = 0; r < f->g->pipeline; r++) {
        const bg_share *s = &f->share[r];
        const bg_site_range run = { s->first_tracked, s->end_tracked };
        plan_tally *tally[2] = { &f->rank[r].whole, &f->rank[r].rest };
        double files = (double)tracked_blocks(w, s);
        double bytes = queries_bytes(w, run.first, run.end, (double)unit, true);
        factor_bytes factors = factors_of(f, r);
        once_s = larger(once_s, plan_read_s(f->c, &f->profile, ranks, factors.held));
        f->rank[r] = (plan_rank_cost){ .unit_end_s = plan_write_s(f->c, &f->profile, ranks, bytes, files),
                                       .part_s = files * f->profile.s[BG_COST_FILE] }; /* rows are written once */
        for (int i = 0; i < 2; i++) {
            size_t sequences = i == 0 ? b.sequences : b.rest;
            plan_pass_cost(tally[i], &f->profile, w->model, s, &b, sequences, false);
            plan_query_cost(tally[i], &f->profile, w->model, run, w->blocks, (size_t)w->c->rank,
                            (plan_sequences){ sequences, rows });
            tally[i]->seconds += sequences > 0 ? plan_read_s(f->c, &f->profile, ranks, factors.read) : 0;
        }
        o->phase[0].flops += f->rank[r].whole.flops * (double)queries / (double)b.sequences;
    }
    double message = 4.0 * (double)b.rows * (double)w->model->config.d_model;
    plan_sweep_time t = plan_sweep(f->g, units, &b, f->rank, plan_message_s(f->c, &f->profile, f->g, message));
    plan_count_parts(&o->phase[0], &t, 1, w->c->checkpoint_minutes);
    o->phase[0].seconds += once_s;
    o->resume_s = once_s;
    o->units = units;
    o->message_bytes = f->g->pipeline > 1 ? message : 0;
    o->network_bytes = 2 * message * (double)queries / (double)b.sequences * (double)(f->g->pipeline - 1);
}

static void cost(plan_costing *f)
{
    const plan_work *w = f->w;
    plan_stage *o = f->out;
    double n = (double)w->c->queries, tracked = (double)w->model->n_tracked;
    o->n_phases = 1;
    o->phase[0].name = "queries";
    sweep(f);
    plan_batches b = plan_batches_of(UNIT_QUERIES < w->c->queries ? UNIT_QUERIES : (size_t)w->c->queries,
                                     (size_t)w->c->query_tokens - 1, 1, o->plan.rows);
    size_t batches = plan_column_batches(f->g, o->units, &b);
    for (size_t r = 0; r < f->g->pipeline; r++) {
        double mapped = r == 0 ? w->model_bytes : plan_share_bytes(w->model, &f->share[r]),
               bytes = (double)bytes_of(f, r, b.rows, batches) + factors_of(f, r).held;
        o->phase[0].bytes = larger(o->phase[0].bytes, bytes);
        o->phase[0].peak_bytes = larger(o->phase[0].peak_bytes,
                                        bytes + mapped + f->profile.process_bytes + cached_bytes(w, &f->share[r]));
        o->weights_bytes = larger(o->weights_bytes, plan_share_bytes(w->model, &f->share[r]));
    }
    o->bytes = o->phase[0].bytes;
    o->peak_bytes = o->phase[0].peak_bytes;
    o->final_bytes = queries_bytes(w, 0, w->model->n_tracked, n, false);
    double unit = n < UNIT_QUERIES ? n : UNIT_QUERIES;
    o->work_bytes = queries_bytes(w, 0, w->model->n_tracked, unit, true) * (double)o->units;
    /* rank 0 copies the units' rows into one file, six small reads and five writes a query and module */
    o->final_s = plan_read_s(f->c, &f->profile, 1, o->final_bytes) +
                 plan_write_s(f->c, &f->profile, 1, o->final_bytes, 1) +
                 11 * n * tracked * f->profile.s[BG_COST_ROW_WRITE];
    o->start_s = w->model_bytes * f->profile.s[BG_COST_HASH];
    o->flops = o->phase[0].flops;
    o->resume_s += o->start_s;
    o->seconds = o->job_s = o->start_s + o->phase[0].seconds + o->final_s;
}

void plan_compress(const plan_work *w, const plan_cluster *c, const plan_grid *g, plan_stage *out)
{
    const plan_method of = { "compress_queries", (size_t)w->c->query_tokens, ACTIVATION_BYTES, compress_bytes, cost };
    plan_cost_stage(&of, w, c, g, out);
}
