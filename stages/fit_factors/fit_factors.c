/* fit_factors.c - open, sum covariances, decompose, sum squares in the eigenbases, publish. */
#include "fit_factors.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "bregman/log.h"
#include "bregman/memory.h"

/* ---- opening ---- */

static bg_status set_range(bg_range *out, bg_range asked, uint64_t n, const char *option, bg_err *err)
{
    *out = asked;
    if (out->end == UINT64_MAX)
        out->end = n;
    if (out->begin >= out->end || out->end > n)
        return BG_FAIL(err, BG_EARG, "%s %" PRIu64 ":%" PRIu64 ": the token files hold %" PRIu64 " sequences", option,
                       asked.begin, out->end, n);
    return BG_OK;
}

static uint64_t rows_of(const fit *f, bg_range r)
{
    uint64_t n = 0;
    for (uint64_t z = r.begin; z < r.end; z++)
        n += bg_tokens_count(f->tokens, z) - 1;
    return n;
}

/* The blocks of the model that have tracked modules, and the work files of both sums. */
static bg_status name_units(fit *f, bg_err *err)
{
    bg_status st = BG_NEW(f->block, f->model->n_tracked, "list of blocks", err);
    if (st != BG_OK)
        return st;
    for (size_t i = 0; i < f->model->n_tracked; i++)
        if (i == 0 || f->model->tracked[i]->block != f->model->tracked[i - 1]->block)
            f->block[f->n_blocks++] = f->model->tracked[i]->block;
    f->covariance_units = (bg_units){
        .folder = f->work,
        .kind = "covariance",
        .run = &f->in.run,
        .cumulative = true,
        .group = f->block,
        .n_groups = f->n_blocks,
        .n_sequences = f->covariance.end - f->covariance.begin,
        .unit_sequences = fit_unit(f->covariance.end - f->covariance.begin, f->c->unit_sequences),
    };
    f->lambda_units = f->covariance_units;
    f->lambda_units.kind = "lambda";
    f->lambda_units.n_sequences = f->lambda.end - f->lambda.begin;
    f->lambda_units.unit_sequences = fit_unit(f->lambda.end - f->lambda.begin, f->c->unit_sequences);
    return BG_OK;
}

/* Before hours of work, not after. */
static bg_status check_lengths(const fit *f, bg_err *err)
{
    bg_status st = bg_model_check_lengths(f->model, f->tokens, f->covariance.begin, f->covariance.end, err);
    return st == BG_OK ? bg_model_check_lengths(f->model, f->tokens, f->lambda.begin, f->lambda.end, err) : st;
}

static bg_status choose_units(fit *f, bg_err *err)
{
    const fit_factors_config *c = f->c;
    bg_status st = bg_model_check_tokenizer(f->model, bg_tokens_tokenizer_hash(f->tokens), c->tokens.item[0], err);
    if (st == BG_OK && bg_tokens_are_queries(f->tokens))
        st = BG_FAIL(err, BG_EFORMAT, "%s holds queries, not a corpus: make it with tokenize_corpus",
                     c->tokens.item[0]);
    if (st != BG_OK)
        return st;
    uint64_t n = bg_tokens_sequences(f->tokens);
    if (n == 0)
        return BG_FAIL(err, BG_EFORMAT, "%s: no sequence in the token files", c->tokens.item[0]);
    st = set_range(&f->covariance, c->covariance_sequences, n, "--covariance-sequences", err);
    if (st == BG_OK)
        st = set_range(&f->lambda, c->lambda_sequences, n, "--lambda-sequences", err);
    if (st == BG_OK)
        st = check_lengths(f, err);
    if (st == BG_OK)
        st = fit_check_blocks(f->model, c->blocks, err);
    if (st == BG_OK) {
        f->covariance_rows = rows_of(f, f->covariance);
        f->lambda_rows = rows_of(f, f->lambda);
    }
    if (st == BG_OK)
        st = bg_path(f->work, err, "%s/work", c->output);
    if (st == BG_OK)
        st = bg_path(f->index, err, "%s/index.h5", c->output);
    return st == BG_OK ? name_units(f, err) : st;
}

/* Collective; the same status on all ranks. */
static bg_status open_inputs(fit *f, bg_err *err)
{
    const fit_factors_config *c = f->c;
    MPI_Comm world = f->ctx->grid.world;
    bg_status st = bg_agree(world, bg_model_open(&f->model, c->model, c->modules, err), err);
    return st == BG_OK ? bg_tokens_open_all(&f->tokens, c->tokens.item, c->tokens.n, world, err) : st;
}

static bg_status hash_inputs(fit *f, bg_err *err)
{
    const fit_factors_config *c = f->c;
    if (f->ctx->grid.world_rank != 0)
        return BG_OK;
    bg_status st = bg_model_hash(f->model, &f->model_hash, err);
    if (st == BG_OK)
        st = bg_inputs_add(&f->in, f->model->dir, &f->model_hash, err);
    if (st == BG_OK)
        st = bg_inputs_add_tokens(&f->in, f->tokens, err);
    if (st == BG_OK && c->labels != NULL)
        st = bg_inputs_add_file(&f->in, c->labels, err);
    return st;
}

/* ---- shares and memory ---- */

static size_t longest(const fit *f)
{
    uint64_t a = bg_tokens_longest(f->tokens, f->covariance.begin, f->covariance.end);
    uint64_t b = bg_tokens_longest(f->tokens, f->lambda.begin, f->lambda.end);
    return a > b ? a : b;
}

static bg_status divide_model(fit *f, bg_err *err)
{
    f->load = (bg_workload){ .stage = &fit_costs,
                             .model = f->model,
                             .grid = f->ctx->grid,
                             .covariance_sequences = f->covariance.end - f->covariance.begin,
                             .lambda_sequences = f->lambda.end - f->lambda.begin,
                             .unit_sequences = f->c->unit_sequences,
                             .rows = longest(f) - 1,
                             .blocks = f->c->blocks,
                             .subgrid_side = f->c->subgrid_side,
                             .diagonal = !f->c->no_diagonal };
    bg_status st = bg_workload_divide(&f->load, &f->share, err);
    if (st == BG_OK)
        f->own = f->share[f->ctx->grid.pipeline_rank];
    f->load.share = f->share;
    return st;
}

/* Micro-batches, passes and scratch; collective. */
static bg_status choose_plan(fit *f, bg_err *err)
{
    bg_demand d = bg_workload_demand(&f->load, f->c->batch_tokens);
    bg_status st = bg_attempt_recall(f->ctx, &f->in, f->work, &d.given_rows, err);
    if (st != BG_OK)
        return st;
    bg_log("%s: %zu tracked modules, %" PRIu64 " + %" PRIu64 " sequences", f->model->dir, f->model->n_tracked,
           f->covariance.end - f->covariance.begin, f->lambda.end - f->lambda.begin);
    return bg_budget_choose(&d, f->ctx, &f->plan, err);
}

/* What a finished work folder will hold. */
static bg_status write_units(const fit *f, bg_err *err)
{
    char text[512], covariance[BG_UNITS_LINE_BYTES], lambda[BG_UNITS_LINE_BYTES];
    size_t activations = 0;
    for (size_t i = 0; i < f->model->n_tracked; i++)
        activations += f->model->tracked[i]->input == i;
    bg_units_describe(&f->covariance_units, covariance);
    bg_units_describe(&f->lambda_units, lambda);
    snprintf(text, sizeof text, "%sactivation %zu\ngradient %zu\n%s", covariance, activations, f->model->n_tracked,
             lambda);
    return bg_units_promise(f->work, text, err);
}

static bg_status open_work(fit *f, bg_err *err)
{
    const bg_grid *g = &f->ctx->grid;
    bg_status st = g->world_rank == 0 ? write_units(f, err) : BG_OK;
    return st == BG_OK ? bg_pipeline_pass_new(&f->pass, f->model, &f->own, g, f->plan.rows, err) : st;
}

/* ---- the whole ---- */

static bg_status fit_all(void *self, bg_err *err)
{
    fit *f = self;
    bg_status st = bg_agree(f->ctx->grid.world, open_work(f, err), err);
    if (st == BG_OK)
        st = fit_sum_covariance(f, err);
    if (st == BG_OK)
        st = fit_decompose(f, err);
    if (st == BG_OK)
        st = fit_sum_lambda(f, err);
    return st == BG_OK ? fit_publish(f, err) : st;
}

bg_status fit_factors_run(const void *config, const bg_context *ctx, bg_err *err)
{
    fit f = { .c = config, .ctx = ctx };
    bg_status st = open_inputs(&f, err);
    if (st == BG_OK) {
        st = choose_units(&f, err);
        if (st == BG_OK)
            st = divide_model(&f, err);
        st = bg_agree(ctx->grid.world, st, err);
    }
    if (st == BG_OK)
        st = bg_inputs_share(&f.in, ctx, "", f.c->seed, hash_inputs(&f, err), err);
    if (st == BG_OK)
        st = choose_plan(&f, err);
    if (st == BG_OK)
        st = bg_agree(ctx->grid.world, bg_inputs_choose(&f.in, ctx, f.plan.identity, err), err);
    const bg_attempt a = { ctx, &f.in, f.index, f.work, f.plan.rows, &f, NULL, fit_all };
    if (st == BG_OK)
        st = bg_attempt_run(&a, err);
    bg_pass_free(f.pass);
    bg_free(f.share);
    bg_free(f.block);
    bg_tokens_close(f.tokens);
    bg_model_close(f.model);
    bg_inputs_clear(&f.in);
    return st;
}
