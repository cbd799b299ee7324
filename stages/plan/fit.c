/* fit.c - cost of fit_factors: two sweeps with an eigendecomposition between them, then the factors' files. */
#include <stdio.h>

#include "bregman/memory.h"
#include "bregman/pass.h"
#include "bregman/symmetric.h"
#include "plan.h"

enum { ACTIVATION_BYTES = 512 << 20 }; /* of fit_factors */

static double larger(double a, double b) { return a > b ? a : b; }
static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

/* Sequences of a work unit, as fit_factors chooses it. */
static size_t unit_of(size_t n, size_t asked)
{
    size_t unit = (n + 63) / 64;
    unit = unit < 16 ? 16 : unit > 1024 ? 1024 : unit;
    return smaller(asked > 0 ? asked : unit, n);
}

static double tap_flops(const plan_work *w, const bg_site *site)
{
    double p = (double)site->n_out, m = (double)site->n_in1, k = (double)w->blocks;
    double squares = p * p / k + (site->input == site->index ? m * m / k : 0);
    return squares + 2 * squares + 2 * p * m * (w->c->no_diagonal ? 1 : 2);
}

static bg_status divide(plan_fit_run *f, bg_err *err)
{
    double *flops = NULL;
    const bg_model *m = f->w->model;
    bg_status st = BG_NEW(f->share, f->g->pipeline, "shares of the model", err);
    if (st == BG_OK)
        st = BG_NEW(flops, m->n_tracked, "shares of the model", err);
    for (size_t i = 0; i < m->n_tracked && st == BG_OK; i++)
        flops[i] = tap_flops(f->w, m->tracked[i]);
    if (st == BG_OK)
        st = bg_model_divide(m, f->g->pipeline, flops, f->share, err);
    bg_free(flops);
    return st;
}

/* ---- files ---- */

/* A block's partial sums of a unit; of the whole model if `block` is SIZE_MAX. */
typedef struct {
    double covariance, lambda, matrices, bases, final;
    size_t blocks;
} file_bytes;

static void add_site(file_bytes *b, const plan_work *w, const bg_site *site)
{
    double p = (double)site->n_out, m = (double)site->n_in1;
    double wp = (double)bg_block_width(site->n_out, w->blocks), wm = (double)bg_block_width(site->n_in1, w->blocks);
    const bg_symmetric s = { site->n_out, w->blocks }, a = { site->n_in1, w->blocks };
    double squares = plan_dataset_bytes(p * m, 4) * (w->c->no_diagonal ? 1 : 2);
    double side = 2 * plan_dataset_bytes(p * wp, 4) + plan_dataset_bytes(p, 8);
    b->covariance += plan_dataset_bytes((double)bg_symmetric_floats(s), 4);
    b->bases += 4 * p * wp;
    b->lambda += squares;
    b->matrices += side + plan_file_bytes();
    b->final += side + squares;
    if (site->input != site->index)
        return;
    side = 2 * plan_dataset_bytes(m * wm, 4) + plan_dataset_bytes(m, 8);
    b->covariance += plan_dataset_bytes((double)bg_symmetric_floats(a), 4);
    b->bases += 4 * m * wm;
    b->matrices += side + plan_file_bytes();
    b->final += side;
}

static file_bytes files_of(const plan_work *w, size_t first_tracked, size_t end_tracked)
{
    file_bytes b = { 0 };
    for (size_t i = first_tracked; i < end_tracked; i++) {
        if (i == first_tracked || w->model->tracked[i]->block != w->model->tracked[i - 1]->block) {
            b.blocks++;
            b.covariance += plan_file_bytes();
            b.lambda += plan_file_bytes();
            b.final += plan_file_bytes();
        }
        add_site(&b, w, w->model->tracked[i]);
    }
    return b;
}

/* ---- sweeps ---- */

typedef struct {
    plan_fit_run run;
    const plan_cluster *c;
    plan_profile profile;
    plan_stage *out;
    plan_rank_cost *rank; /* [pipeline] */
} fitting;

/* One sweep, all passes over it: covariances, or squares. */
static void sweep(fitting *f, plan_phase *phase, bool lambda, size_t n_sequences, size_t unit)
{
    const plan_work *w = f->run.w;
    const plan_grid *g = f->run.g;
    size_t rows = (size_t)w->c->sequence_tokens - 1, units = (n_sequences + unit - 1) / unit,
           passes = f->out->plan.passes;
    plan_batches b = plan_batches_of(unit, rows, rows, f->out->plan.rows);
    double flops = 0, batches = (double)n_sequences / (double)b.sequences, resume_s = 0, bases_s = 0;
    for (size_t r = 0; r < g->pipeline; r++) {
        const bg_share *s = &f->run.share[r];
        const bg_site_range run = { s->first_tracked, s->end_tracked };
        file_bytes files = files_of(w, run.first, run.end);
        plan_tally *tally[2] = { &f->rank[r].whole, &f->rank[r].rest };
        double end_s = plan_write_s(f->c, &f->profile, plan_ranks(f->c, g), lambda ? files.lambda : files.covariance,
                                    (double)files.blocks);
        f->rank[r] = (plan_rank_cost){ .unit_end_s = end_s, .part_s = end_s };
        resume_s = larger(resume_s, plan_read_s(f->c, &f->profile, plan_ranks(f->c, g),
                                                lambda ? files.lambda + files.bases : files.covariance));
        bases_s = larger(bases_s, lambda ? plan_read_s(f->c, &f->profile, plan_ranks(f->c, g), files.bases) : 0);
        for (int i = 0; i < 2; i++) {
            size_t sequences = i == 0 ? b.sequences : b.rest;
            plan_pass_cost(tally[i], &f->profile, w->model, s, &b, sequences, true);
            /* the pass runs `passes` times, the taps of each module once */
            tally[i]->flops *= (double)passes;
            tally[i]->seconds *= (double)passes;
            if (sequences > 0 && lambda)
                plan_lambda_cost(tally[i], &f->profile, w->model, run, w->blocks, !w->c->no_diagonal,
                                 (plan_sequences){ sequences, rows });
            else if (sequences > 0)
                plan_covariance_cost(tally[i], &f->profile, w->model, run, w->blocks, sequences * rows);
        }
        flops += b.whole > 0 ? f->rank[r].whole.flops * batches : 0;
    }
    double bytes = 4.0 * (double)b.rows * (double)w->model->config.d_model;
    plan_sweep_time t = plan_sweep(g, units, &b, f->rank, plan_message_s(f->c, &f->profile, g, bytes) * (double)passes);
    plan_count_parts(phase, &t, passes, w->c->checkpoint_minutes);
    phase->flops = flops;
    phase->seconds += bases_s;
    file_bytes all = files_of(w, 0, w->model->n_tracked);
    double sums = (lambda ? all.lambda : all.covariance) / (double)passes;
    f->out->part_bytes = larger(f->out->part_bytes, plan_parts_alive(phase) * sums * (double)smaller(units, g->data));
    f->out->resume_s = larger(f->out->resume_s, resume_s / (double)passes);
    f->out->units = units;
    f->out->message_bytes = g->pipeline > 1 ? bytes : 0;
    f->out->network_bytes += 2 * bytes * batches * (double)(g->pipeline - 1) * (double)passes;
}

/* ---- memory ---- */

/* The rank of the pipeline that holds most in each phase; rank 0 of the world has hashed, and so mapped, all weights. */
static void set_memory(fitting *f, size_t rows, size_t units)
{
    const plan_work *w = f->run.w;
    plan_stage *o = f->out;
    double decompose = (double)plan_decompose_bytes(&f->run), process = f->profile.process_bytes;
    for (size_t r = 0; r < f->run.g->pipeline; r++) {
        double mapped = r == 0 ? w->model_bytes : plan_share_bytes(w->model, &f->run.share[r]);
        const bg_plan bare = { .rows = rows, .passes = 1, .on_scratch = true };
        double held[3] = { (double)plan_covariance_bytes(&f->run, r, &o->plan, rows),
                           (double)plan_covariance_bytes(&f->run, r, &bare, rows) + decompose,
                           (double)plan_lambda_bytes(&f->run, r, &o->plan, rows, plan_sharers(f->run.g)) };
        /* a process counts all that it shares */
        double alone = (double)plan_lambda_bytes(&f->run, r, &o->plan, rows, 1);
        const double uncounted[3] = { 0, plan_decompose_cached_bytes(&f->run, units), alone - held[2] };
        for (int i = 0; i < 3; i++) {
            o->phase[i].bytes = larger(o->phase[i].bytes, held[i]);
            o->phase[i].peak_bytes = larger(o->phase[i].peak_bytes, held[i] + uncounted[i] + mapped + process);
        }
        o->weights_bytes = larger(o->weights_bytes, plan_share_bytes(w->model, &f->run.share[r]));
    }
}

static void set_disk(fitting *f, size_t covariance_units, size_t lambda_units)
{
    const plan_work *w = f->run.w;
    file_bytes all = files_of(w, 0, w->model->n_tracked);
    f->out->final_bytes = all.final + plan_file_bytes() + 200.0 * (double)w->model->n_tracked;
    f->out->work_bytes = all.covariance * (double)covariance_units + all.matrices + all.lambda * (double)lambda_units;
}

/* Blocks' files, each by one rank: matrices copied, units' squares added. */
static double publish_s(const fitting *f, size_t lambda_units)
{
    const plan_work *w = f->run.w;
    file_bytes all = files_of(w, 0, w->model->n_tracked);
    double world = (double)(f->run.g->data * f->run.g->pipeline), blocks = (double)all.blocks;
    double own = (double)(size_t)((blocks + world - 1) / world) / blocks,
           read = all.matrices + all.lambda * (double)lambda_units;
    double ranks = blocks < world ? blocks : world;
    return own * (plan_read_s(f->c, &f->profile, ranks, read) + read / 4 * f->profile.s[BG_COST_SERIAL]) +
           plan_write_s(f->c, &f->profile, ranks, own * all.final, own * blocks + 1);
}

static void cost(fitting *f)
{
    const plan_config *c = f->run.w->c;
    plan_stage *o = f->out;
    size_t rows = (size_t)c->sequence_tokens - 1;
    size_t n[2] = { (size_t)c->fit_sequences, (size_t)c->lambda_sequences };
    size_t unit[2] = { unit_of(n[0], (size_t)c->unit_sequences), unit_of(n[1], (size_t)c->unit_sequences) };
    size_t units[2] = { (n[0] + unit[0] - 1) / unit[0], (n[1] + unit[1] - 1) / unit[1] };
    o->n_phases = 3;
    o->phase[0].name = "covariance";
    o->phase[1].name = "eigendecomposition";
    o->phase[2].name = "eigenvalues";
    sweep(f, &o->phase[0], false, n[0], unit[0]);
    plan_decompose(&f->run, f->c, &f->profile, units[0], &o->phase[1]);
    sweep(f, &o->phase[2], true, n[1], unit[1]);
    o->units = units[0];
    plan_batches b = plan_batches_of(unit[0] > unit[1] ? unit[0] : unit[1], rows, rows, o->plan.rows);
    f->run.batches = plan_column_batches(f->run.g, units[0], &b);
    set_memory(f, b.rows, units[0]);
    set_disk(f, units[0], units[1]);
    double tokens = 4.0 * (double)c->sequence_tokens * (double)(n[0] > n[1] ? n[0] : n[1]);
    o->start_s = (f->run.w->model_bytes + tokens) * f->profile.s[BG_COST_HASH];
    o->resume_s += o->start_s;
    o->seconds = o->start_s + publish_s(f, units[1]);
    for (size_t i = 0; i < o->n_phases; i++) {
        o->seconds += o->phase[i].seconds;
        o->flops += o->phase[i].flops;
        o->bytes = larger(o->bytes, o->phase[i].bytes);
        o->peak_bytes = larger(o->peak_bytes, o->phase[i].peak_bytes);
    }
    o->job_s = o->seconds;
}

void plan_fit(const plan_work *w, const plan_cluster *c, const plan_grid *g, plan_stage *out)
{
    *out = (plan_stage){ .name = "fit_factors", .grid = *g };
    fitting f = { .run = { .w = w, .g = &out->grid, .batches = SIZE_MAX }, .c = c, .out = out };
    bg_err err = { .msg = "" };
    f.profile = plan_profile_scaled(&c->profile, (double)g->threads);
    size_t longest = (size_t)w->c->sequence_tokens;
    bg_status st = divide(&f.run, &err);
    if (st == BG_OK)
        st = BG_NEW(f.rank, g->pipeline, "pipeline", &err);
    if (st == BG_OK) {
        bg_demand d = { .best = { .rows = bg_pass_rows_for(w->model, longest, ACTIVATION_BYTES), .passes = 1 },
                        .least_rows = longest - 1,
                        .most_passes = 1,
                        .spills = "sums",
                        .self = &f.run,
                        .bytes = plan_fit_bytes };
        for (size_t r = 0; r < g->pipeline; r++)
            d.most_passes = f.run.share[r].end - f.run.share[r].first > d.most_passes
                                ? f.run.share[r].end - f.run.share[r].first
                                : d.most_passes;
        out->grid.memory_limit = plan_memory_limit(w, c, g);
        out->possible = plan_budget(&out->grid, c, &d, &out->plan, &out->needs_bytes);
        if (out->possible && !plan_can_decompose(&f.run)) {
            out->possible = false;
            out->needs_bytes = (double)plan_fit_bytes(&f.run, &out->plan);
        }
    }
    if (st != BG_OK)
        snprintf(out->why_not, sizeof out->why_not, "%.190s", err.msg);
    if (out->possible)
        cost(&f);
    bg_free(f.rank);
    bg_free(f.run.share);
}
