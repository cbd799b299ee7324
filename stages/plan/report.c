/* report.c - the plan as text, with lines to paste, and as JSON. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "plan.h"

/* 1.5 ms .. 12 h .. 30 days, in 10 characters. */
static const char *duration(double s, char out[24])
{
    if (s < 100)
        snprintf(out, 24, "%.1f s", s);
    else if (s < 2 * 3600)
        snprintf(out, 24, "%.0f min", s / 60);
    else
        snprintf(out, 24, "%.1f h", s / 3600);
    return out;
}

static const char *bytes_text(double b, char out[24])
{
    static const char *const unit[] = { "B", "kB", "MB", "GB", "TB", "PB" };
    size_t u = 0;
    for (; b >= 1000 && u < 5; u++)
        b /= 1000;
    snprintf(out, 24, u == 0 ? "%.0f %s" : "%.1f %s", b, unit[u]);
    return out;
}

static const char *s_of(size_t n) { return n == 1 ? "" : "s"; }

static double node_hours(const plan_stage *s, const bg_cluster *c)
{
    size_t at_once = s->grid.shards > 0 ? c->nodes / s->grid.nodes : 1;
    return s->seconds / 3600 * (double)(at_once * s->grid.nodes);
}

static void print_stops(FILE *to, const plan_stage *s)
{
    char t[24], w[24];
    fprintf(to, "  stop      takes %s at most: warn %.0f s before a time limit\n", duration(s->stop_s, t),
            s->warning_s);
    if (s->restarts > 0)
        fprintf(to, "  restarts  %.0f%s, of %s each at most\n", s->restarts,
                s->grid.shards > 1 ? " of every shard" : "", duration(s->restart_s, w));
}

static void print_checkpoints(FILE *to, const plan_stage *s, const plan_phase *p)
{
    char unit[24], every[24], each[24];
    if (p->unit_s <= 0)
        return;
    fprintf(to, "  %-18s a unit takes %s; ", p->name, duration(p->unit_s, unit));
    if (p->checkpoints > 0)
        fprintf(to, "%.0f checkpoint%s%s, one in %s, of %s each\n", p->checkpoints, p->checkpoints > 1 ? "s" : "",
                s->grid.shards > 1 ? " of every shard" : "", duration(p->interval_s, every),
                duration(p->checkpoint_s, each));
    else
        fprintf(to, "no checkpoints\n");
}

static void print_stage(FILE *to, const plan_stage *s, const bg_cluster *c)
{
    char t[24], b[24], w[24], disk[24], work[24], net[24], parts[48] = "";
    const plan_grid *g = &s->grid;
    if (s->name == NULL)
        return;
    fprintf(to, "\n%s: %s, %.1f node-hours, %.3g FLOPs\n", s->name, duration(s->seconds, t), node_hours(s, c),
            s->flops);
    fprintf(to, "  grid      %zu node%s x %zu rank%s x %zu thread%s = %zu data x %zu pipeline", g->nodes,
            s_of(g->nodes), g->ranks_per_node, s_of(g->ranks_per_node), g->threads, s_of(g->threads), g->data,
            g->pipeline);
    fprintf(to, g->shards > 1 ? "; %zu shards\n" : "\n", g->shards);
    if (s->plan.rows > 0)
        fprintf(to, "  batches   %zu rows, %zu unit%s, %zu pass%s over the modules%s\n", s->plan.rows, s->units,
                s_of(s->units), s->plan.passes, s->plan.passes == 1 ? "" : "es",
                s->plan.on_scratch ? ", the rest on scratch" : "");
    fprintf(to, "  memory    %s a rank, and %s of mapped weights\n", bytes_text(s->bytes, b),
            bytes_text(s->weights_bytes, w));
    if (s->part_bytes > 0)
        snprintf(parts, sizeof parts, " and %s of parts", bytes_text(s->part_bytes, b));
    fprintf(to, "  disk      %s of work files%s, then %s\n", bytes_text(s->work_bytes, work), parts,
            bytes_text(s->final_bytes, disk));
    if (s->message_bytes > 0)
        fprintf(to, "  network   messages of %s, %s in all\n", bytes_text(s->message_bytes, b),
                bytes_text(s->network_bytes, net));
    print_stops(to, s);
    for (size_t i = 0; i < s->n_phases; i++)
        fprintf(to, "  %-18s %10s  %9.3g FLOPs  %9s a rank  idle %.0f %%\n", s->phase[i].name,
                duration(s->phase[i].seconds, t), s->phase[i].flops, bytes_text(s->phase[i].bytes, b),
                100 * s->phase[i].idle);
    for (size_t i = 0; i < s->n_phases; i++)
        print_checkpoints(to, s, &s->phase[i]);
}

/* ---- lines to paste ---- */

/* Rounded down: a limit in M that is no more than the node has. */
static void print_limit(FILE *to, const plan_grid *g, const char *before, const char *after)
{
    if (g->memory_limit != UINT64_MAX)
        fprintf(to, "%s%" PRIu64 "M%s", before, g->memory_limit >> 20, after);
}

static void print_sbatch(FILE *to, const plan_config *c, const plan_stage *s, size_t elements, const char *script,
                         const char *arguments)
{
    const plan_grid *g = &s->grid;
    fprintf(to, "sbatch --nodes=%zu --ntasks-per-node=%zu --cpus-per-task=%zu --signal=B:USR1@%.0f ", g->nodes,
            g->ranks_per_node, g->threads, s->warning_s);
    if (c->time_limit > 0)
        fprintf(to, "--time=%.0f ", floor(60 * c->time_limit));
    if (elements > 1)
        fprintf(to, "--array=0-%zu ", elements - 1);
    fprintf(to, "jobs/%s.sbatch %s --pipeline %zu", script, arguments, g->pipeline);
    print_limit(to, g, " --memory-limit ", "");
    fputs(s->plan.on_scratch ? " --scratch SCRATCH\n" : "\n", to);
}

/* An array, or as many as the shards need. */
static void print_arrays(FILE *to, const plan_config *c, const plan_stage *s, const char *arguments)
{
    size_t shards = s->grid.shards;
    for (size_t first = 0; first < shards; first += PLAN_ARRAY_SHARDS) {
        size_t elements = shards - first < PLAN_ARRAY_SHARDS ? shards - first : PLAN_ARRAY_SHARDS;
        if (elements < shards)
            fprintf(to, "SHARDS=%zu FIRST_SHARD=%zu ", shards, first);
        print_sbatch(to, c, s, elements, "score_shards", arguments);
    }
}

static void print_table(FILE *to, const char *name, const plan_config *c, const plan_stage *s)
{
    const plan_grid *g = &s->grid;
    fprintf(to, "[%s]\nnodes = %zu\nranks_per_node = %zu\nthreads = %zu\n", name, g->nodes, g->ranks_per_node,
            g->threads);
    if (strcmp(name, "train") != 0)
        fprintf(to, "pipeline = %zu\n", g->pipeline);
    print_limit(to, g, "memory_limit = \"", "\"\n");
    fprintf(to, "warning_seconds = %.0f\n", s->warning_s);
    if (c->time_limit > 0)
        fprintf(to, "time = \"%.0f\"\n", floor(60 * c->time_limit));
}

static void print_prefilter(FILE *to, const plan_config *c, const plan_stage *s)
{
    if (s->name != NULL)
        fprintf(to,
                "sbatch --ntasks-per-node=%zu --signal=B:USR1@%.0f jobs/prefilter.sbatch --tokens TOKENS "
                "--queries queries.h5 --output candidates.h5 --top %" PRIu64 "\n",
                s->grid.ranks_per_node, s->warning_s, c->prefilter);
}

static void print_compare(FILE *to, const plan_stage *s)
{
    if (s->name != NULL)
        fprintf(to,
                "sbatch --ntasks-per-node=%zu jobs/compare_scales.sbatch --rankings RANKINGS --names NAMES --tokens TOKENS "
                "--queries queries.h5 --output compare.h5\n",
                s->grid.ranks_per_node);
}

/* What training does beside its defaults, as options or as lines of a table. */
static void describe_training(const plan_work *w, bool options, char *out, size_t n_bytes)
{
    const plan_config *c = w->c;
    const struct {
        const char *key;
        uint64_t value, usual;
    } number[] = { { "batch-tokens", c->batch_tokens, 0 },
                   { "slices", c->slices, 0 },
                   { "epochs", c->epochs, 1 },
                   { "steps", c->steps, 0 },
                   { "eval-steps", c->eval_steps, 0 },
                   { "save-steps", c->save_steps, 0 } };
    size_t n = 0;
    for (size_t i = 0; i < sizeof number / sizeof number[0]; i++) {
        char key[16];
        snprintf(key, sizeof key, "%s", number[i].key);
        for (char *at = key; !options && (at = strchr(at, '-')) != NULL;)
            *at = '_';
        if (number[i].value != number[i].usual)
            n += (size_t)snprintf(out + n, n_bytes - n, options ? " --%s %" PRIu64 : "%s = %" PRIu64 "\n", key,
                                  number[i].value);
    }
    (void)snprintf(out + n, n_bytes - n,
                   options ? " --modules '%.80s' --optimizer %s --save-dtype %s"
                           : "modules = \"%.80s\"\noptimizer = \"%s\"\nsave_dtype = \"%s\"\n",
                   c->train_modules, c->optimizer, c->save_dtype);
}

static void print_training(FILE *to, const plan_work *w, const plan_stage *s)
{
    const plan_config *c = w->c;
    char text[512], more[320];
    describe_training(w, true, more, sizeof more);
    snprintf(text, sizeof text, "--config CONFIG --tokens TOKENS%s%s%s",
             c->heldout_sequences > 0 ? " --heldout HELDOUT" : "",
             c->bank > 0 ? " --bank BANK --queries queries.h5 --subset SUBSETS" : " --output MODEL", more);
    if (s->name != NULL)
        print_sbatch(to, c, s, 1, "train_models", text);
}

static void print_jobs(FILE *to, const plan_work *w, const plan_stage stage[PLAN_STAGES])
{
    const plan_config *c = w->c;
    char text[512], units[64] = "", refined[160] = "";
    uint64_t a = c->fit_sequences, b = c->lambda_sequences;
    bool shampoo = w->load.factor_kind == BG_FACTORS_SHAMPOO;
    if (c->unit_sequences > 0)
        snprintf(units, sizeof units, " --unit-sequences %" PRIu64, c->unit_sequences);
    if (w->load.refine.kind != BG_REFINE_NONE)
        snprintf(refined, sizeof refined,
                 " --refine %s --refine-tokens TOKENS --refine-sequences 0:%" PRIu64 " --refine-steps %" PRIu64,
                 c->refine, c->refine_sequences, c->refine_steps);
    fprintf(to, "\nTo submit:\n");
    print_training(to, w, &stage[PLAN_TRAIN]);
    snprintf(text, sizeof text,
             "--model MODEL --tokens TOKENS --output factors --modules '%.80s' --blocks %zu "
             "--covariance-sequences 0:%" PRIu64 " --lambda-sequences %" PRIu64 ":%" PRIu64 "%s%s%s%s",
             c->modules, w->blocks, a, a, a + b, shampoo ? " --preconditioner shampoo" : "",
             c->head_blocks ? " --head-blocks" : "", c->no_diagonal ? " --no-diagonal" : "", units);
    if (stage[PLAN_FIT].name != NULL)
        print_sbatch(to, c, &stage[PLAN_FIT], 1, "fit_factors", text);
    snprintf(text, sizeof text,
             "--model MODEL --factors factors --queries queries.h5 --output compressed.h5 "
             "--modules '%.80s' --rank %" PRIu64 "%s",
             c->modules, c->rank, refined);
    if (stage[PLAN_COMPRESS].name != NULL)
        print_sbatch(to, c, &stage[PLAN_COMPRESS], 1, "compress_queries", text);
    print_prefilter(to, c, &stage[PLAN_PREFILTER]);
    snprintf(text, sizeof text, "--model MODEL --queries compressed.h5 --tokens TOKENS --output scores%s",
             c->prefilter > 0 ? " --candidates candidates.h5" : "");
    if (stage[PLAN_SCORE].name != NULL)
        print_arrays(to, c, &stage[PLAN_SCORE], text);
    if (stage[PLAN_MERGE].name != NULL)
        fprintf(to, "sbatch jobs/merge_scores.sbatch --scores scores --output ranking.h5\n");
    print_compare(to, &stage[PLAN_COMPARE]);
}

static void print_fit_table(FILE *to, const plan_work *w, const plan_stage *s)
{
    const plan_config *c = w->c;
    uint64_t a = c->fit_sequences, b = c->lambda_sequences;
    print_table(to, "model.cluster", c, s);
    fprintf(to, "[model.fit]\nblocks = %zu\nmodules = \"%s\"\n", w->blocks, c->modules);
    fprintf(to, "covariance_sequences = \"0:%" PRIu64 "\"\nlambda_sequences = \"%" PRIu64 ":%" PRIu64 "\"\n", a, a,
            a + b);
    fputs(w->load.factor_kind == BG_FACTORS_SHAMPOO ? "preconditioner = \"shampoo\"\n" : "", to);
    fputs(c->head_blocks ? "head_blocks = true\n" : "", to);
    fputs(c->no_diagonal ? "no_diagonal = true\n" : "", to);
    if (c->unit_sequences > 0)
        fprintf(to, "unit_sequences = %" PRIu64 "\n", c->unit_sequences);
}

static void print_tables(FILE *to, const plan_work *w, const plan_stage stage[PLAN_STAGES])
{
    const plan_config *c = w->c;
    char more[320];
    bool trains = stage[PLAN_TRAIN].name != NULL && c->bank == 0;
    bool has_model = stage[PLAN_FIT].name != NULL || stage[PLAN_COMPRESS].name != NULL ||
                     stage[PLAN_SCORE].name != NULL;
    if (trains || has_model)
        fprintf(to, "\nOr, for jobs/sweep:\n");
    describe_training(w, false, more, sizeof more);
    if (trains) {
        print_table(to, "train", c, &stage[PLAN_TRAIN]);
        fputs(more, to);
    }
    if (has_model)
        fprintf(to, "[[model]]\nname = \"%s\"\npath = \"MODEL\"\n", w->name);
    if (stage[PLAN_FIT].name != NULL)
        print_fit_table(to, w, &stage[PLAN_FIT]);
    if (stage[PLAN_COMPRESS].name != NULL) {
        print_table(to, "model.compress", c, &stage[PLAN_COMPRESS]);
        fprintf(to, "modules = \"%s\"\nrank = %" PRIu64 "\n", c->modules, c->rank);
        if (w->load.refine.kind != BG_REFINE_NONE)
            fprintf(to, "refine = \"%s\"\nrefine_sequences = \"0:%" PRIu64 "\"\nrefine_steps = %" PRIu64 "\n",
                    c->refine, c->refine_sequences, c->refine_steps);
    }
    if (stage[PLAN_PREFILTER].name != NULL)
        fprintf(to, "[model.prefilter]\nranks_per_node = %zu\nthreads = 1\ntop = %" PRIu64 "\n",
                stage[PLAN_PREFILTER].grid.ranks_per_node, c->prefilter);
    if (stage[PLAN_SCORE].name != NULL) {
        print_table(to, "model.score", c, &stage[PLAN_SCORE]);
        fprintf(to, "shards = %zu\n", stage[PLAN_SCORE].grid.shards);
    }
    if (has_model && stage[PLAN_COMPARE].name != NULL)
        fprintf(to, "[compare]\nranks_per_node = %zu\nthreads = 1\n", stage[PLAN_COMPARE].grid.ranks_per_node);
}

void plan_print(FILE *to, const plan_work *w, const bg_cluster *c, const plan_stage stage[PLAN_STAGES])
{
    char b[24], t[24];
    double seconds = 0, hours = 0;
    for (int i = 0; i < PLAN_STAGES; i++) {
        seconds += stage[i].name != NULL ? stage[i].seconds : 0;
        hours += stage[i].name != NULL ? node_hours(&stage[i], c) : 0;
    }
    fprintf(to, "%s: %.4g parameters, %s of weights, %zu tracked modules (%s), %zu diagonal block%s\n", w->name,
            (double)bg_model_parameters(w->model), bytes_text(w->model_bytes, b), w->model->n_tracked, w->c->modules,
            w->blocks, w->blocks == 1 ? "" : "s");
    fprintf(to, "%s: %zu nodes of %zu cores, %.1f GFLOP/s a core\n", c->name, c->nodes, c->cores_per_node,
            2e-9 / (2 * c->profile.s[BG_COST_FLOP] * c->profile.threads));
    fprintf(to, "predicted, not measured: %s, %.0f node-hours\n", duration(seconds, t), hours);
    for (int i = 0; i < PLAN_STAGES; i++)
        print_stage(to, &stage[i], c);
    print_jobs(to, w, stage);
    print_tables(to, w, stage);
}

/* ---- JSON ---- */

static json_t *phases_json(const plan_stage *s)
{
    json_t *list = json_array();
    for (size_t i = 0; i < s->n_phases; i++) {
        const plan_phase *p = &s->phase[i];
        json_array_append_new(list, json_pack("{s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "name",
                                              p->name, "flops", p->flops, "seconds", p->seconds, "rank_bytes", p->bytes,
                                              "peak_rss_bytes", p->peak_bytes, "idle", p->idle, "unit_s", p->unit_s,
                                              "checkpoints", p->checkpoints, "checkpoint_s", p->checkpoint_s,
                                              "interval_s", p->interval_s, "stop_s", p->stop_s));
    }
    return list;
}

static json_t *stage_json(const plan_stage *s, const bg_cluster *c)
{
    const plan_grid *g = &s->grid;
    json_t *grid = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:f}", "nodes", (json_int_t)g->nodes, "ranks_per_node",
                             (json_int_t)g->ranks_per_node, "threads", (json_int_t)g->threads, "data",
                             (json_int_t)g->data, "pipeline", (json_int_t)g->pipeline, "shards", (json_int_t)g->shards,
                             "memory_limit", g->memory_limit == UINT64_MAX ? 0.0 : (double)g->memory_limit);
    return json_pack("{s:s, s:o, s:I, s:I, s:b, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, "
                     "s:f, s:o}",
                     "name", s->name, "grid", grid, "batch_rows", (json_int_t)s->plan.rows, "passes",
                     (json_int_t)s->plan.passes, "on_scratch", (int)s->plan.on_scratch, "units", (json_int_t)s->units,
                     "flops", s->flops, "seconds", s->seconds, "start_s", s->start_s, "node_hours", node_hours(s, c),
                     "rank_bytes", s->bytes, "peak_rss_bytes", s->peak_bytes, "weights_bytes", s->weights_bytes,
                     "work_bytes", s->work_bytes, "final_bytes", s->final_bytes, "message_bytes", s->message_bytes,
                     "network_bytes", s->network_bytes, "part_bytes", s->part_bytes, "stop_s", s->stop_s, "warning_s",
                     s->warning_s, "restarts", s->restarts, "restart_s", s->restart_s, "phases", phases_json(s));
}

bg_status plan_print_json(FILE *to, const plan_work *w, const bg_cluster *c, const plan_stage stage[PLAN_STAGES],
                          bg_err *err)
{
    json_t *stages = json_array();
    for (int i = 0; i < PLAN_STAGES; i++)
        if (stage[i].name != NULL)
            json_array_append_new(stages, stage_json(&stage[i], c));
    json_t *modules = json_array();
    for (size_t i = 0; i < w->model->n_tracked; i++)
        json_array_append_new(modules, json_string(w->model->tracked[i]->name));
    json_t *root = json_pack("{s:s, s:s, s:f, s:f, s:I, s:o, s:o}", "model", w->name, "cluster", c->name, "parameters",
                             (double)bg_model_parameters(w->model), "model_bytes", w->model_bytes, "blocks",
                             (json_int_t)w->blocks, "modules", modules, "stages", stages);
    int failed = root == NULL || json_dumpf(root, to, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) != 0;
    json_decref(root);
    if (failed)
        return BG_FAIL(err, BG_EIO, "cannot print the plan");
    fputc('\n', to);
    return BG_OK;
}
