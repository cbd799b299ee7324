/* score.c - cost of score_shards, as an array of shards, and of merge_scores. */
#include "bregman/score.h"
#include "plan.h"

/* Of score_shards: its default options. */
enum { ACTIVATION_BYTES = 512 << 20, UNIT_SEQUENCES = 64, TOP = 100 };
/* Of merge_scores. */
enum { BINS = 321, LEAST_TAIL = 100, ROWS_AT_ONCE = 4096 };

static double larger(double a, double b) { return a > b ? a : b; }
static size_t most(size_t a, size_t b) { return a > b ? a : b; }
static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

static size_t unit_of(const plan_costing *f) { return smaller(UNIT_SEQUENCES, (size_t)f->w->c->sequences); }

static bg_queries_extent extent_of(const plan_costing *f, size_t r)
{
    const bg_share *s = &f->share[r];
    bg_queries_extent q = { .n_queries = (size_t)f->w->c->queries, .columns = 1 };
    for (size_t i = s->first_tracked; i < s->end_tracked; i++) {
        const bg_site *site = f->w->model->tracked[i];
        size_t columns = q.n_queries * smaller((size_t)f->w->c->rank, smaller(site->n_out, site->n_in1));
        q.columns = most(q.columns, columns);
        q.bytes += columns * (site->n_out + site->n_in1) * sizeof(float);
    }
    return q;
}

/* Of rank r of a pipeline, with micro-batches of so many rows; queries held once by `sharers` ranks. */
static size_t rank_bytes(const plan_costing *f, size_t r, size_t rows, size_t batches, size_t sharers)
{
    bg_queries_extent q = extent_of(f, r);
    const bg_score_task task = { .share = f->share, .rank = (int)r, .unit_sequences = unit_of(f), .batch_rows = rows };
    return q.bytes / sharers + bg_scorer_bytes(&task, &q, f->w->model) +
           plan_pass_bytes(f->w->model, f->g, &f->share[r], r, rows, batches);
}

static size_t score_bytes(const void *self, const bg_plan *plan)
{
    const plan_costing *f = self;
    size_t bytes = 0;
    for (size_t r = 0; r < f->g->pipeline; r++)
        bytes = most(bytes, rank_bytes(f, r, plan->rows, SIZE_MAX, plan_sharers(f->g)));
    return bytes;
}

/* A shard of n sequences. */
static void sweep(plan_costing *f, size_t n)
{
    const plan_work *w = f->w;
    plan_stage *o = f->out;
    size_t rows = (size_t)w->c->sequence_tokens - 1, unit = smaller(unit_of(f), n), units = (n + unit - 1) / unit;
    size_t queries = (size_t)w->c->queries;
    plan_batches b = plan_batches_of(unit, rows, rows, o->plan.rows);
    for (size_t r = 0; r < f->g->pipeline; r++) {
        const bg_share *s = &f->share[r];
        const bg_site_range run = { s->first_tracked, s->end_tracked };
        plan_tally *tally[2] = { &f->rank[r].whole, &f->rank[r].rest };
        f->rank[r] = (plan_rank_cost){ 0 };
        if (r == 0) {
            f->rank[r].unit_end_s = plan_write_s(f->c, &f->profile, plan_ranks(f->c, f->g),
                                                 4.0 * (double)(unit * queries), 1);
            f->rank[r].part_s = f->profile.s[BG_COST_FILE]; /* rows are written once */
        }
        for (int i = 0; i < 2; i++) {
            size_t sequences = i == 0 ? b.sequences : b.rest;
            plan_pass_cost(tally[i], &f->profile, w->model, s, &b, sequences, false);
            plan_score_cost(tally[i], &f->profile, w->model, run, queries, (size_t)w->c->rank, sequences * rows);
        }
        o->phase[0].flops += f->rank[r].whole.flops * (double)n / (double)b.sequences;
    }
    double bytes = 4.0 * (double)b.rows * (double)w->model->config.d_model;
    plan_sweep_time t = plan_sweep(f->g, units, &b, f->rank, plan_message_s(f->c, &f->profile, f->g, bytes));
    plan_count_parts(&o->phase[0], &t, 1, w->c->checkpoint_minutes);
    o->units = units;
    o->message_bytes = f->g->pipeline > 1 ? bytes : 0;
    o->network_bytes = 2 * bytes * (double)w->c->sequences / (double)b.sequences * (double)(f->g->pipeline - 1);
}

static void set_memory(plan_costing *f, size_t rows, size_t batches)
{
    const plan_work *w = f->w;
    plan_stage *o = f->out;
    for (size_t r = 0; r < f->g->pipeline; r++) {
        double mapped = r == 0 ? w->model_bytes : plan_share_bytes(w->model, &f->share[r]);
        double bytes = (double)rank_bytes(f, r, rows, batches, plan_sharers(f->g));
        double resident = (double)rank_bytes(f, r, rows, batches, 1); /* as each rank counts what it shares */
        o->phase[0].bytes = larger(o->phase[0].bytes, bytes);
        o->phase[0].peak_bytes = larger(o->phase[0].peak_bytes, resident + mapped + f->profile.process_bytes);
        o->weights_bytes = larger(o->weights_bytes, plan_share_bytes(w->model, &f->share[r]));
    }
    o->bytes = o->phase[0].bytes;
    o->peak_bytes = o->phase[0].peak_bytes;
}

/* Both lists of extremes with room for k of each query, of n sequences, and what is said of the token files.  A short
 * text takes 32 bytes beside the reference to it. */
static double lists_bytes(double queries, double k, double n)
{
    double listed = queries * k, named = queries * (n < k ? n : k);
    return 2 * (plan_dataset_bytes(listed, 8) + plan_dataset_bytes(listed, 4) + listed * (8 + 16) + named * 32) + 3000;
}

static void cost(plan_costing *f)
{
    const plan_work *w = f->w;
    const plan_config *c = w->c;
    plan_stage *o = f->out;
    double shards = (double)f->g->shards, at_once = (double)(f->c->nodes / f->g->nodes);
    size_t n = (size_t)(((double)c->sequences + shards - 1) / shards);
    double rows = (double)n, queries = (double)c->queries;
    o->n_phases = 1;
    o->phase[0].name = "scores";
    sweep(f, n);
    size_t unit = smaller(unit_of(f), n);
    plan_batches b = plan_batches_of(unit, (size_t)c->sequence_tokens - 1, 1, o->plan.rows);
    set_memory(f, b.rows, plan_column_batches(f->g, o->units, &b));
    /* every shard's first rank hashes model, tokens and queries, and puts the units together, a sequence at a time */
    double compressed = 0;
    for (size_t i = 0; i < w->model->n_tracked; i++)
        compressed += 4 * queries * (double)c->rank *
                      (double)(w->model->tracked[i]->n_out + w->model->tracked[i]->n_in1);
    o->start_s = (w->model_bytes + 4.0 * (double)(c->sequences * c->sequence_tokens) + compressed) *
                     f->profile.s[BG_COST_HASH] +
                 plan_read_s(f->c, &f->profile, plan_ranks(f->c, f->g), compressed / (double)f->g->pipeline);
    double file = plan_dataset_bytes(rows * queries, 4) + plan_dataset_bytes(rows, 8) + plan_file_bytes() +
                  lists_bytes(queries, TOP, rows);
    o->final_s = rows * f->profile.s[BG_COST_ROW_WRITE] + 2 * rows * queries * f->profile.s[BG_COST_RANKED] +
                 plan_write_s(f->c, &f->profile, at_once, file, 1);
    o->resume_s = o->start_s;
    o->job_s = o->start_s + o->phase[0].seconds + o->final_s;
    double waves = (double)(size_t)((shards + at_once - 1) / at_once);
    o->work_bytes = (double)o->units * (plan_file_bytes() + plan_dataset_bytes((double)unit * queries, 4)) * at_once;
    o->final_bytes = file * shards;
    o->phase[0].flops *= shards;
    o->flops = o->phase[0].flops;
    o->phase[0].seconds *= waves;
    o->seconds = waves * o->job_s;
}

void plan_score(const plan_work *w, const plan_cluster *c, const plan_grid *g, plan_stage *out)
{
    const plan_method of = { "score_shards", (size_t)w->c->sequence_tokens, ACTIVATION_BYTES, score_bytes, cost };
    plan_cost_stage(&of, w, c, g, out);
}

/* One rank reads every score once, after hashing the shards. */
void plan_merge(const plan_work *w, const plan_cluster *c, plan_stage *out)
{
    const plan_grid one = { .nodes = 1, .ranks_per_node = 1, .threads = 1, .data = 1, .pipeline = 1 };
    double scores = (double)w->c->sequences * (double)w->c->queries, bytes = 4 * scores + 8 * (double)w->c->sequences;
    double n = (double)w->c->sequences, queries = (double)w->c->queries, tail = 0.0001 * n;
    tail = tail > LEAST_TAIL ? tail : n < LEAST_TAIL ? n : LEAST_TAIL;
    *out = (plan_stage){ .name = "merge_scores", .possible = true, .grid = one, .n_phases = 1 };
    out->phase[0].name = "merging";
    out->seconds = bytes * c->profile.s[BG_COST_HASH] + plan_read_s(c, &c->profile, 1, bytes) +
                   4 * scores * c->profile.s[BG_COST_RANKED] + c->profile.s[BG_COST_FILE];
    out->phase[0].seconds = out->job_s = out->final_s = out->seconds;
    out->final_bytes = plan_file_bytes() + 12 * plan_dataset_bytes(queries, 8) + plan_dataset_bytes(queries * BINS, 8) +
                       plan_dataset_bytes(queries * tail, 4) + lists_bytes(queries, n < TOP ? n : TOP, n);
    out->bytes = queries * (16 * (tail + 2 * TOP) + 8 * BINS + 4 * ROWS_AT_ONCE);
    out->peak_bytes = out->bytes + c->profile.process_bytes;
}
