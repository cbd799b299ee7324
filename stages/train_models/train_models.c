/* train_models.c - open, choose, and train: one model on all ranks, or a bank of them. */
#include "train_models.h"

#include <glob.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bregman/folder.h"
#include "bregman/log.h"
#include "job.h"

/* ---- options ---- */

static bg_status read_words(train_job *j, bg_err *err)
{
    static const char *const optimizer[] = { "adamw", "sgd", NULL },
                             *const schedule[] = { "constant", "cosine", "linear", NULL },
                             *const dtype[] = { "float32", "bfloat16", NULL };
    bg_recipe *r = &j->plan.recipe;
    int found;
    bg_status st = bg_option_word("--optimizer", j->c->optimizer, optimizer, &found, err);
    r->optimizer = found == 0 ? BG_ADAMW : BG_SGD;
    if (st == BG_OK)
        st = bg_option_word("--schedule", j->c->schedule, schedule, &found, err);
    r->schedule = found == 0 ? BG_CONSTANT : found == 1 ? BG_COSINE : BG_LINEAR;
    if (st == BG_OK)
        st = bg_option_word("--save-dtype", j->c->save_dtype, dtype, &found, err);
    j->plan.save_dtype = found == 0 ? BG_ST_F32 : BG_ST_BF16;
    return st;
}

static bg_status read_options(train_job *j, bg_err *err)
{
    const train_models_config *c = j->c;
    bg_recipe *r = &j->plan.recipe;
    *r = (bg_recipe){ .rate = c->rate,
                      .beta1 = c->beta1,
                      .beta2 = c->beta2,
                      .epsilon = c->epsilon,
                      .momentum = c->momentum,
                      .weight_decay = c->weight_decay,
                      .clip_norm = c->clip_norm,
                      .warmup_steps = c->warmup_steps,
                      .final_rate = c->final_rate };
    bg_status st = read_words(j, err);
    if (st == BG_OK && j->ctx->grid.pipeline_size > 1)
        st = BG_FAIL(err, BG_EARG, "--pipeline %d: training is data-parallel only, as each step changes all weights",
                     j->ctx->grid.pipeline_size);
    if (st == BG_OK && c->bank == NULL && (uint64_t)j->ctx->grid.world_size > c->slices)
        st = BG_FAIL(err, BG_EARG,
                     "%d ranks share the %llu slices of a step: give as many with --slices, or fewer ranks",
                     j->ctx->grid.world_size, (unsigned long long)c->slices);
    const char *folder = c->bank != NULL ? c->bank : c->output;
    if (st == BG_OK)
        st = bg_path(j->plan.output, err, "%s/%s", folder, c->bank != NULL ? "bank.h5" : "log.h5");
    return st == BG_OK ? bg_path(j->plan.work, err, "%s/%s", folder, c->bank != NULL ? "bank.work" : "training.work")
                       : st;
}

/* Files by which a folder is some model's. */
static bool has_model(const char *folder)
{
    static const char *const pattern[] = { "config.json", "tokenizer*", "*.safetensors*", "step-*" };
    char path[BG_PATH_BYTES];
    bool found = false;
    for (size_t i = 0; i < sizeof pattern / sizeof pattern[0] && !found; i++) {
        glob_t names = { 0 };
        found = bg_path(path, NULL, "%s/%s", folder, pattern[i]) == BG_OK && glob(path, 0, NULL, &names) == 0;
        globfree(&names);
    }
    return found;
}

/* Not where the model to begin with is, nor over somebody's model: this call's own is there with its log, or with its
 * work files. */
static bg_status check_output(const train_job *j, bg_err *err)
{
    const char *begin = j->c->config != NULL ? j->c->config : j->c->model, *output = j->c->output;
    struct stat from, to;
    if (output == NULL || stat(output, &to) != 0)
        return BG_OK;
    if (stat(begin, &from) == 0 && from.st_dev == to.st_dev && from.st_ino == to.st_ino)
        return BG_FAIL(err, BG_EARG, "--output \"%s\" is the folder to begin with: choose another", output);
    if (access(j->plan.output, F_OK) != 0 && access(j->plan.work, F_OK) != 0 && has_model(output))
        return BG_FAIL(err, BG_ESTALE,
                       "\"%s\" has a model that is not of this command: remove it or choose another --output", output);
    return BG_OK;
}

/* All that a training leaves; log.h5 comes last. */
static bg_status is_done(void *job, bool *done, bg_err *err)
{
    static const char *const file[] = { "model.safetensors", "config.json", "optimizer.h5", "log.csv" };
    const train_job *j = job;
    char path[BG_PATH_BYTES];
    bg_status st = bg_store_is_done(j->plan.output, j->in.files.fingerprint.hex, done, err);
    for (size_t i = 0; i < 4 && st == BG_OK && *done && j->c->output != NULL; i++) {
        st = bg_path(path, err, "%s/%s", j->c->output, file[i]);
        if (st == BG_OK && access(path, F_OK) != 0) {
            bg_log("%s is not there: the model is trained again", path);
            *done = false;
        }
    }
    return st;
}

/* ---- what is chosen ---- */

static size_t longest(const bg_tokens *t) { return t == NULL ? 2 : bg_tokens_longest(t, 0, bg_tokens_sequences(t)); }

/* Of the subset that takes most. */
static size_t data_bytes(const train_inputs *in)
{
    size_t most = 0, of_longest = longest(in->tokens);
    for (size_t i = 0; i < in->n_subsets; i++) {
        const train_subset *s = &in->subset[i];
        uint64_t tokens = 0;
        for (uint64_t z = 0; z < s->n_sequences; z++)
            tokens += bg_tokens_count(in->tokens, s->sequence[z]);
        size_t bytes = bg_training_data_bytes(s->n_sequences, tokens, of_longest);
        most = bytes > most ? bytes : most;
    }
    return most;
}

/* As far as its budget goes.  A bank's trainings are a rank's each, and what they begin with is kept. */
static bg_workload describe(const train_job *j)
{
    const train_inputs *in = &j->in;
    bool bank = j->c->bank != NULL, twice = bank && j->c->config == NULL;
    size_t most = longest(in->tokens), other = longest(in->heldout), query = longest(in->queries);
    most = other > most ? other : most;
    most = query > most ? query : most;
    bg_workload w = { .stage = &train_costs, .model = in->model, .grid = j->ctx->grid, .rows = most - 1 };
    if (bank)
        w.grid = (bg_grid){ .world_size = 1, .data_size = 1, .pipeline_size = 1, .place_size = 1 };
    w.training = (bg_workload_training){ .plan = j->plan.training,
                                         .n_trained = j->plan.numbers.n_trained,
                                         .n_values = j->plan.numbers.n_values * (twice ? 2 : 1),
                                         .data_bytes = data_bytes(in),
                                         .bank = bank ? in->n_subsets * j->plan.n_seeds : 0 };
    return w;
}

static bg_status choose_batches(train_job *j, bg_err *err)
{
    const bg_share whole = bg_model_whole(j->in.model);
    bg_workload w = describe(j);
    w.share = &whole;
    bg_demand d = bg_workload_demand(&w, (size_t)j->c->micro_batch_tokens);
    d.no_pipeline = true;
    bg_status st = bg_attempt_recall(j->ctx, &j->in.files, j->plan.work, &d.given_rows, err);
    if (st == BG_OK)
        st = bg_budget_choose(&d, j->ctx, &j->plan.memory, err);
    j->plan.training.max_rows = j->plan.memory.rows;
    return st;
}

/* What a checkpoint's file counts: of one training steps, of a bank trainings. */
static bg_status choose_units(train_job *j, bg_err *err)
{
    const train_models_config *c = j->c;
    bool bank = c->bank != NULL;
    uint64_t n = bank ? j->in.n_subsets * j->plan.n_seeds : c->steps;
    if (!bank && n == 0) {
        const bg_training_source from = train_source(j, j->in.subset, c->seed);
        bg_status st = bg_training_source_steps(&from, c->epochs, &n, err);
        if (st != BG_OK)
            return st;
    }
    j->plan.units = (bg_units){ .folder = j->plan.work,
                                .kind = bank ? "bank" : "training",
                                .run = &j->in.files.run,
                                .cumulative = !bank,
                                .n_groups = 1,
                                .n_sequences = n,
                                .unit_sequences = bank ? 1 : n };
    return BG_OK;
}

static bg_status choose(train_job *j, bg_err *err)
{
    MPI_Comm world = j->ctx->grid.world;
    bool first = j->ctx->grid.world_rank == 0;
    j->plan.n_seeds = j->c->bank != NULL ? j->c->seeds.end - j->c->seeds.begin : 1;
    j->plan.training = (bg_training_plan){ .recipe = j->plan.recipe, .slices = (size_t)j->c->slices };
    bg_status st = bg_inputs_share(&j->in.files, j->ctx, "", j->c->seed, first ? train_add_inputs(j, err) : BG_OK, err);
    if (st != BG_OK)
        return st;
    j->plan.numbers = bg_parameters_count(j->in.model);
    if (j->plan.numbers.n_trained > INT_MAX)
        return BG_FAIL(err, BG_EARG, "%zu numbers are to be trained: at most 2^31 - 1 can be (see --modules)",
                       j->plan.numbers.n_trained);
    if (j->in.model->config.dropout)
        bg_log("warning: config.json asks for dropout: nothing is dropped here");
    if ((st = choose_batches(j, err)) != BG_OK)
        return st;
    st = bg_inputs_choose(&j->in.files, j->ctx, j->plan.memory.identity, err);
    if (st == BG_OK)
        st = choose_units(j, err);
    if (st == BG_OK && first)
        st = check_output(j, err);
    if (st == BG_OK && first && j->c->output != NULL)
        st = bg_make_folder(j->c->output, err);
    return bg_agree(world, st, err);
}

bg_status train_models_run(const void *config, const bg_context *ctx, bg_err *err)
{
    train_job j = { .c = config, .ctx = ctx };
    bg_status st = train_open(&j, err);
    if (st == BG_OK)
        st = bg_agree(ctx->grid.world, read_options(&j, err), err);
    if (st == BG_OK)
        st = choose(&j, err);
    if (st == BG_OK) {
        const bg_attempt a = { .ctx = ctx,
                               .in = &j.in.files,
                               .output = j.plan.output,
                               .work = j.plan.work,
                               .rows = j.plan.memory.rows,
                               .self = &j,
                               .is_done = is_done,
                               .run = j.c->bank != NULL ? train_bank : train_one };
        st = bg_attempt_run(&a, err);
    }
    train_close(&j);
    return st;
}
