/* plan.c - read what is asked, try the grids, print the best. */
#include "plan.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/config.h"
#include "bregman/preset.h"
#include "bregman/model_open.h"
#include "bregman/log.h"
#include "bregman/path.h"
#include "../compare_scales/costs.h"
#include "../compress_queries/costs.h"
#include "../fit_factors/costs.h"
#include "../merge_scores/costs.h"
#include "../prefilter/costs.h"
#include "../score_shards/costs.h"
#include "../train_models/costs.h"

/* What is planned of each stage. */
typedef struct {
    const bg_stage_costs *costs;
    bool all_nodes; /* that there are; else as many as make it fastest */
    bool in_shards;
    bool ranks_of_one_thread; /* on one node, all its cores, or as many as have room */
    bool takes_units;         /* --unit-sequences is its own */
    bool trains;              /* the model as it is trained, without pipelines */
} planned;
static const planned stages[PLAN_STAGES] = {
    [PLAN_TRAIN] = { &train_costs, .trains = true },
    [PLAN_FIT] = { &fit_costs, .all_nodes = true, .takes_units = true },
    [PLAN_COMPRESS] = { &compress_costs },
    [PLAN_PREFILTER] = { &prefilter_costs, .ranks_of_one_thread = true },
    [PLAN_SCORE] = { &score_costs, .in_shards = true },
    [PLAN_MERGE] = { &merge_costs },
    [PLAN_COMPARE] = { &compare_costs, .ranks_of_one_thread = true },
};

/* ---- what is asked ---- */

static bool is_asked(const plan_config *c, size_t stage)
{
    if ((stage == PLAN_PREFILTER && c->prefilter == 0) || (stage == PLAN_COMPARE && c->compare == 0))
        return false;
    for (size_t i = 0; i < c->stages.n; i++)
        if (strcmp(c->stages.item[i], stages[stage].costs->name) == 0)
            return true;
    return c->stages.n == 0 && stage != PLAN_TRAIN;
}

static bg_status check_stage(const plan_config *c, const char *name, bg_err *err)
{
    for (size_t k = 0; k < PLAN_STAGES; k++) {
        if (strcmp(name, stages[k].costs->name) != 0)
            continue;
        if (is_asked(c, k))
            return BG_OK;
        return BG_FAIL(err, BG_EARG, "--stages %s: %s", name,
                       k == PLAN_COMPARE ? "give --compare, the number of rankings"
                                         : "give --prefilter, the candidates of each query");
    }
    return BG_FAIL(
        err, BG_EARG,
        "--stages takes train_models, fit_factors, compress_queries, prefilter, score_shards, merge_scores and compare_scales, not "
        "\"%s\"",
        name);
}

static bg_status check_options(const plan_config *c, bg_err *err)
{
    if ((c->config != NULL) == (c->preset != NULL))
        return BG_FAIL(err, BG_EARG, "--config or --preset is required, and not both");
    static const char *const optimizer[] = { "adamw", "sgd", NULL }, *const dtype[] = { "float32", "bfloat16", NULL };
    int which;
    bg_status st = bg_option_word("--optimizer", c->optimizer, optimizer, &which, err);
    if (st == BG_OK)
        st = bg_option_word("--save-dtype", c->save_dtype, dtype, &which, err);
    if (st == BG_OK)
        st = bg_option_word("--preconditioner", c->preconditioner, bg_factor_kind_word, &which, err);
    if (st == BG_OK)
        st = bg_option_word("--refine", c->refine, bg_refinement_word, &which, err);
    if (st == BG_OK && which != BG_REFINE_NONE && c->pipeline > 1 && is_asked(c, PLAN_COMPRESS))
        return BG_FAIL(err, BG_EARG, "--refine %s: each query is solved for by one rank: give --pipeline 1", c->refine);
    for (size_t i = 0; i < c->stages.n && st == BG_OK; i++)
        st = check_stage(c, c->stages.item[i], err);
    return st;
}

/* --config may name the folder or the file. */
static bg_status read_config(const char *path, bg_model_config *out, bg_err *err)
{
    char dir[BG_PATH_BYTES];
    const char *name = bg_base_name(path);
    size_t n = strcmp(name, "config.json") != 0 ? strlen(path) : name > path ? (size_t)(name - path) - 1 : 0;
    bg_status st = bg_path(dir, err, "%.*s", n > 0 ? (int)n : 1, n > 0 ? path : ".");
    bg_adapter *adapter = NULL; /* costs what its base does, and a little more */
    if (st == BG_OK)
        st = bg_adapter_open(&adapter, dir, err);
    if (st == BG_OK)
        st = bg_model_config_read(out, adapter != NULL ? bg_adapter_base(adapter) : dir, err);
    bg_adapter_close(adapter);
    return st;
}

static bg_status choose_lengths(plan_config *c, const plan_work *w, bg_err *err)
{
    size_t most = w->model->config.max_positions + 1;
    if (c->sequence_tokens == 0)
        c->sequence_tokens = most < 512 ? most : 512;
    if (c->query_tokens == 0)
        c->query_tokens = most < 128 ? most : 128;
    if (c->sequence_tokens < 2 || c->query_tokens < 2)
        return BG_FAIL(err, BG_EARG, "a sequence or query has 2 tokens at least");
    if (c->completion_tokens >= c->query_tokens)
        return BG_FAIL(err, BG_EARG,
                       "--completion-tokens %" PRIu64 ": a query of --query-tokens %" PRIu64 " has a prompt too",
                       c->completion_tokens, c->query_tokens);
    if (c->sequence_tokens > most || c->query_tokens > most)
        return BG_FAIL(err, BG_EARG, "%s takes %zu positions (%s): a sequence or query has at most %zu tokens", w->name,
                       most - 1, w->model->config.positions_key, most);
    return BG_OK;
}

static bg_refine_load describe_refinement(const plan_config *c)
{
    bg_refine_load l = { BG_REFINE_NONE, (size_t)c->refine_steps, c->refine_sequences,
                         c->refine_sequences * (c->sequence_tokens - 1), (size_t)c->sequence_tokens };
    while (strcmp(c->refine, bg_refinement_word[l.kind]) != 0)
        l.kind++;
    return l;
}

/* All rankings as of this model: they are of one tokenizer, and few layers are many. */
static bg_workload_comparison describe_comparison(const plan_work *w)
{
    return (bg_workload_comparison){ .rankings = (size_t)w->c->compare,
                                     .layers = (size_t)w->c->compare * bg_model_layers(w->model),
                                     .top = COMPARE_TOP,
                                     .ngrams = COMPARE_NGRAMS,
                                     .query_ids = w->model->config.vocab_size };
}

/* As of the stages; 0 of what they choose for themselves. */
static void describe_load(plan_work *w)
{
    const plan_config *c = w->c;
    bool shampoo = strcmp(c->preconditioner, bg_factor_kind_word[BG_FACTORS_SHAMPOO]) == 0;
    size_t query_rows = (size_t)c->query_tokens - 1, loss_rows = (size_t)c->completion_tokens;
    w->load = (bg_workload){ .model = w->model,
                             .corpus_sequences = c->sequences,
                             .covariance_sequences = c->fit_sequences,
                             .lambda_sequences = c->lambda_sequences,
                             .queries = c->queries,
                             .prefilter_top = c->prefilter,
                             .rows = (size_t)c->sequence_tokens - 1,
                             .query_rows = query_rows,
                             .query_loss_rows = loss_rows > 0 && loss_rows < query_rows ? loss_rows : query_rows,
                             .subgrid_side = (size_t)c->subgrid_side,
                             .factor_kind = shampoo ? BG_FACTORS_SHAMPOO : BG_FACTORS_EKFAC,
                             .diagonal = !c->no_diagonal,
                             .columns = (size_t)c->rank,
                             .refine = describe_refinement(c),
                             .comparison = describe_comparison(w) };
}

/* Steps of as many sequences as --batch-tokens have room for. */
static void describe_training(plan_work *w)
{
    const plan_config *c = w->c;
    uint64_t step = c->batch_tokens / c->sequence_tokens;
    bg_parameter_counts numbers = bg_parameters_count(w->trained);
    bool sgd = strcmp(c->optimizer, "sgd") == 0;
    w->load.training = (bg_workload_training){
        .plan = { .recipe = { .optimizer = sgd ? BG_SGD : BG_ADAMW }, .slices = (size_t)c->slices },
        .n_trained = numbers.n_trained,
        .n_values = numbers.n_values,
        .data_bytes = bg_training_data_bytes(c->train_sequences, c->train_sequences * c->sequence_tokens,
                                             (size_t)c->sequence_tokens),
        .sequences = c->train_sequences,
        .epochs = c->epochs,
        .steps = c->steps,
        .step_sequences = step > 0 ? step : 1,
        .heldout_sequences = c->heldout_sequences,
        .eval_steps = c->eval_steps,
        .save_steps = c->save_steps,
        .bank = c->bank,
        .half = strcmp(c->save_dtype, "bfloat16") == 0
    };
}

/* Of what is asked, *c. */
static bg_status open_work(plan_work *w, plan_config *c, bg_err *err)
{
    bg_model_config config;
    bg_st_dtype dtype = BG_ST_BF16;
    if (!bg_st_dtype_parse(c->weights, &dtype))
        return BG_FAIL(err, BG_EARG, "--weights takes bfloat16, float16 or float32, not \"%s\"", c->weights);
    bg_status st = c->preset != NULL ? bg_preset(c->preset, &config, err) : read_config(c->config, &config, err);
    if (st == BG_OK)
        st = bg_model_sketch(&w->model, &config, c->modules, dtype, err);
    if (st == BG_OK && is_asked(c, PLAN_TRAIN))
        st = bg_model_sketch_trained(&w->trained, &config, c->train_modules, err);
    if (st != BG_OK)
        return st;
    snprintf(w->name, sizeof w->name, "%.127s", c->preset != NULL ? c->preset : c->config);
    for (size_t i = 0; i < w->model->n_sketched; i++)
        w->model_bytes += (double)w->model->sketched[i].n_bytes;
    w->model_bytes += (double)w->model->n_small * (double)bg_st_dtype_bytes(dtype);
    if ((st = choose_lengths(c, w, err)) != BG_OK)
        return st;
    describe_load(w);
    if (w->trained != NULL)
        describe_training(w);
    return BG_OK;
}

/* The file's, but for what is asked for instead. */
static bg_status choose_cluster(bg_cluster *out, const plan_config *c, bg_err *err)
{
    bg_status st = BG_OK;
    bg_cluster_reference(out);
    if (c->cluster != NULL)
        st = bg_cluster_read(out, c->cluster, err);
    out->nodes = c->nodes > 0 ? (size_t)c->nodes : out->nodes;
    out->ranks_per_node = c->ranks_per_node > 0 ? (size_t)c->ranks_per_node : out->ranks_per_node;
    out->cores_per_node = c->cores_per_node > 0 ? (size_t)c->cores_per_node : out->cores_per_node;
    if (st == BG_OK && out->ranks_per_node > out->cores_per_node)
        st = BG_FAIL(err, BG_EARG,
                     "%zu ranks on a node of %zu cores: --ranks-per-node and --cores-per-node say otherwise",
                     out->ranks_per_node, out->cores_per_node);
    return st;
}

/* ---- grids ---- */

/* Shards should not take longer each, as long as one array holds them. */
static const double SHARD_S = 4 * 3600;

static void evaluate(const planned *of, const plan_work *w, const bg_cluster *c, plan_grid g, plan_stage *out)
{
    size_t at_once = c->nodes / g.nodes, scored = (size_t)plan_scored(&w->load);
    g.shards = !of->in_shards ? 0 : at_once < scored ? at_once : scored;
    plan_cost_stage(of->costs, w, c, &g, out);
    double shard_s = out->seconds;
    if (!of->in_shards || !out->possible || shard_s <= SHARD_S)
        return;
    size_t most = scored / 64 / at_once, waves = (size_t)(shard_s / SHARD_S) + 1;
    most = most < PLAN_ARRAY_SHARDS / at_once ? most : PLAN_ARRAY_SHARDS / at_once;
    g.shards = at_once * (waves < most ? waves : most > 0 ? most : 1);
    plan_cost_stage(of->costs, w, c, &g, out);
}

/* Better: faster by more than a percent, or as fast on fewer nodes or with a shorter pipeline. */
static bool is_better(const plan_stage *a, const plan_stage *b)
{
    if (!b->possible || a->seconds < 0.99 * b->seconds)
        return true;
    if (a->seconds > 1.01 * b->seconds)
        return false;
    return a->grid.nodes < b->grid.nodes || (a->grid.nodes == b->grid.nodes && a->grid.pipeline < b->grid.pipeline);
}

/* Ranks a node that the user asks for; else those whose number of threads is within a factor of four of the profile's,
 * whose rates are carried over, if there are any. */
static bool tries_ranks(const bg_cluster *c, size_t ranks)
{
    if (c->ranks_per_node > 0)
        return ranks == c->ranks_per_node;
    double by = (double)(c->cores_per_node / ranks) / c->profile.threads;
    bool few = 4 * (double)c->cores_per_node < c->profile.threads;
    return c->cores_per_node % ranks == 0 && (few || (by >= 0.25 && by <= 4));
}

static bool tries_nodes(const planned *of, const bg_cluster *c, size_t nodes)
{
    bool power = (nodes & (nodes - 1)) == 0;
    return nodes == c->nodes || (!of->all_nodes && power && (!of->in_shards || c->nodes % nodes == 0));
}

static void try_grid(const planned *of, const plan_work *w, const bg_cluster *c, const plan_grid *g, plan_stage *best,
                     plan_stage *no)
{
    plan_stage s;
    evaluate(of, w, c, *g, &s);
    if (s.possible)
        plan_count_restarts(&s, of->costs->activation_bytes > 0 ? w->c->time_limit : 0); /* else it begins anew */
    if (s.possible && is_better(&s, best))
        *best = s;
    if (!s.possible && (no->name == NULL || s.needs_bytes <= no->needs_bytes))
        *no = s; /* needs_bytes is 0 where memory would do, but not the time limit */
}

static uint64_t most_ranks(const plan_config *c) { return c->bank > 0 ? c->bank : c->slices; }

/* Pipelines of `pipeline` ranks; 0: of any number.  A stage that does not run the model is on one node; slices of
 * training steps, or a bank's models, are dealt to as many ranks at most. */
static void try_grids(const planned *of, const plan_work *w, const bg_cluster *c, size_t pipeline, plan_stage *best,
                      plan_stage *no)
{
    plan_grid g = { .nodes = 1, .ranks_per_node = 1, .threads = 1, .data = 1, .pipeline = 1 };
    *best = *no = (plan_stage){ .possible = false };
    if (of->costs->activation_bytes == 0) {
        size_t ranks = of->ranks_of_one_thread ? c->cores_per_node : 1;
        for (; ranks > 0 && !best->possible; ranks /= 2) {
            g.ranks_per_node = g.data = ranks;
            *no = (plan_stage){ .possible = false };
            try_grid(of, w, c, &g, best, no);
        }
        return;
    }
    for (g.nodes = 1; g.nodes <= c->nodes; g.nodes++)
        for (g.ranks_per_node = 1; g.ranks_per_node <= c->cores_per_node; g.ranks_per_node++) {
            size_t world = g.nodes * g.ranks_per_node, most = of->trains ? 1 : w->model->config.n_blocks + 1;
            g.threads = c->cores_per_node / g.ranks_per_node;
            if (!tries_nodes(of, c, g.nodes) || !tries_ranks(c, g.ranks_per_node) ||
                (of->trains && world > most_ranks(w->c)))
                continue;
            for (g.pipeline = 1; g.pipeline <= world && g.pipeline <= most; g.pipeline++) {
                g.data = world / g.pipeline;
                if (world % g.pipeline == 0 && (pipeline == 0 || g.pipeline == pipeline))
                    try_grid(of, w, c, &g, best, no);
            }
        }
}

static bg_status refuse(const planned *of, const plan_work *w, const bg_cluster *c, const plan_stage *no, bg_err *err)
{
    plan_stage other = { .possible = false }, ignored;
    char instead[64] = "";
    const char *name = of->costs->name;
    if (of->trains && no->name == NULL)
        return BG_FAIL(err, BG_EARG,
                       "%s: the ranks of a node are more than the %" PRIu64 " %s: give fewer --ranks-per-node", name,
                       most_ranks(w->c), w->c->bank > 0 ? "models of a --bank" : "--slices of a step");
    if (of->costs->activation_bytes == 0)
        return BG_FAIL(err, BG_ENOMEM,
                       "%s: a rank needs %.1f GB and has %.1f GB: nodes with more memory, or fewer candidates "
                       "(--prefilter), will do",
                       name, no->needs_bytes * 1e-9, (double)no->grid.memory_limit * 1e-9);
    if (w->c->pipeline > 0 && !of->trains)
        try_grids(of, w, c, 0, &other, &ignored);
    if (other.possible)
        snprintf(instead, sizeof instead, ": --pipeline %zu would do", other.grid.pipeline);
    if (no->name == NULL)
        return BG_FAIL(err, BG_EARG, "%s: the ranks of %zu nodes cannot be laid out in pipelines of %" PRIu64 "%s",
                       name, c->nodes, w->c->pipeline, instead);
    if (no->needs_bytes <= 0)
        return BG_FAIL(err, BG_EARG, "%s: %s%s", name, no->why_not, instead);
    return BG_FAIL(err, BG_ENOMEM,
                   "%s: %s does not fit %zu nodes: a rank needs %.1f GB beside its weights and has %.1f GB%s", name,
                   w->name, c->nodes, no->needs_bytes * 1e-9, (double)no->grid.memory_limit * 1e-9,
                   other.possible ? instead
                   : of->trains   ? ": fewer ranks_per_node may do"
                                  : ": more nodes, fewer ranks_per_node or more --blocks may do");
}

static bg_status choose_with(const plan_work *w, const bg_cluster *c, plan_stage stage[PLAN_STAGES], bg_err *err)
{
    for (size_t i = 0; i < PLAN_STAGES; i++) {
        plan_work own = *w;
        plan_stage no;
        stage[i] = (plan_stage){ .name = NULL };
        if (!is_asked(w->c, i))
            continue;
        own.load.unit_sequences = stages[i].takes_units ? w->c->unit_sequences : 0;
        own.load.model = stages[i].trains ? w->trained : w->model;
        try_grids(&stages[i], &own, c, stages[i].trains ? 1 : (size_t)w->c->pipeline, &stage[i], &no);
        if (!stage[i].possible)
            return refuse(&stages[i], &own, c, &no, err);
    }
    return BG_OK;
}

static bg_status fixed_blocks(const plan_work *w, size_t *out, bg_err *err)
{
    char *end;
    const char *text = w->c->blocks;
    errno = 0;
    uint64_t k = strtoull(text, &end, 10);
    if (*text < '1' || *text > '9' || *end != '\0' || errno != 0 || k > 64)
        return BG_FAIL(err, BG_EARG, "--blocks takes a number from 1 to 64 or auto, not \"%s\"", text);
    *out = (size_t)k;
    return bg_factor_kind_shape(w->model, w->load.factor_kind, k, w->c->head_blocks, err);
}

/* The fastest grid of each stage, with the fewest diagonal blocks that fit. */
static bg_status choose(plan_work *w, const bg_cluster *c, plan_stage stage[PLAN_STAGES], bg_err *err)
{
    if (strcmp(w->c->blocks, "auto") != 0) {
        bg_status st = fixed_blocks(w, &w->blocks, err);
        return st == BG_OK ? choose_with(w, c, stage, err) : st;
    }
    bg_status st = BG_OK;
    for (w->blocks = 1; w->blocks <= 64; w->blocks *= 2)
        if ((st = bg_factor_kind_shape(w->model, w->load.factor_kind, w->blocks, w->c->head_blocks, err)) != BG_OK ||
            (st = choose_with(w, c, stage, err)) != BG_ENOMEM)
            return st;
    return st;
}

static bg_status print_plan(const plan_config *asked, bg_err *err)
{
    plan_config own = *asked;
    const plan_config *c = &own;
    plan_work w = { .c = c };
    bg_cluster cluster;
    plan_stage stage[PLAN_STAGES];
    bg_status st = choose_cluster(&cluster, c, err);
    if (st == BG_OK)
        st = open_work(&w, &own, err);
    bg_log_setup("plan", 0); /* bg_budget_choose speaks of every grid that is tried */
    if (st == BG_OK)
        st = choose(&w, &cluster, stage, err);
    if (st == BG_OK && c->json)
        st = plan_print_json(stdout, &w, &cluster, stage, err);
    else if (st == BG_OK)
        plan_print(stdout, &w, &cluster, stage);
    bg_model_close(w.model);
    bg_model_close(w.trained);
    return st;
}

bg_status plan_run(const void *config, const bg_context *ctx, bg_err *err)
{
    const plan_config *c = config;
    bg_status st = bg_agree(ctx->grid.world, check_options(c, err), err);
    if (st != BG_OK)
        return st;
    return bg_agree(ctx->grid.world, ctx->grid.world_rank == 0 ? print_plan(c, err) : BG_OK, err);
}
