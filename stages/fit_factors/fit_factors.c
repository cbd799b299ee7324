/* fit_factors.c - open, sum covariances, decompose, sum squares in the eigenbases, publish. */
#include "fit_factors.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "bregman/log.h"
#include "bregman/model_open.h"
#include "bregman/tracking.h"
#include "bregman/memory.h"

/* ---- opening ---- */

/* The output's files, and the work files of both sums. */
static bg_status name_units(fit *f, bg_err *err)
{
    const bg_model *m = f->in.model;
    bg_status st = bg_path(f->plan.work, err, "%s/work", f->c->output);
    if (st == BG_OK)
        st = bg_path(f->plan.index, err, "%s/index.h5", f->c->output);
    if (st == BG_OK)
        st = bg_model_section_numbers(m, &f->plan.section, err);
    fit_sum *const sum[] = { &f->plan.covariance, &f->plan.lambda };
    for (int i = 0; i < 2; i++)
        sum[i]->units = (bg_units){
            .folder = f->plan.work,
            .kind = i == 0 ? "covariance" : "lambda",
            .run = &f->in.files.run,
            .cumulative = true,
            .group = f->plan.section,
            .n_groups = m->n_sections,
            .n_sequences = sum[i]->range.end - sum[i]->range.begin,
            .unit_sequences = fit_unit(sum[i]->range.end - sum[i]->range.begin, f->c->unit_sequences),
        };
    return st;
}

/* Before hours of work, not after. */
static bg_status check_lengths(const fit *f, bg_err *err)
{
    bg_status st = bg_model_check_lengths(f->in.model, f->in.tokens, f->plan.covariance.range.begin,
                                          f->plan.covariance.range.end, err);
    return st == BG_OK ? bg_model_check_lengths(f->in.model, f->in.tokens, f->plan.lambda.range.begin,
                                                f->plan.lambda.range.end, err)
                       : st;
}

/* And the shapes of its matrices. */
static bg_status choose_kind(fit *f, bg_err *err)
{
    const fit_factors_config *c = f->c;
    int kind;
    bg_status st = bg_option_word("--preconditioner", c->preconditioner, bg_factor_kind_word, &kind, err);
    if (st != BG_OK)
        return st;
    f->kind = (bg_factor_kind)kind;
    return bg_factor_kind_shape(f->in.model, f->kind, c->blocks, c->head_blocks, err);
}

static bg_status choose_units(fit *f, bg_err *err)
{
    const fit_factors_config *c = f->c;
    bg_status st = bg_model_check_tokenizer(f->in.model, bg_tokens_tokenizer_hash(f->in.tokens), c->tokens.item[0],
                                            err);
    if (st == BG_OK)
        st = bg_tokens_check_corpus(f->in.tokens, err);
    if (st != BG_OK)
        return st;
    uint64_t n = bg_tokens_sequences(f->in.tokens);
    f->plan.covariance.range = c->covariance_sequences;
    f->plan.lambda.range = c->lambda_sequences;
    st = bg_option_range("--covariance-sequences", n, &f->plan.covariance.range, err);
    if (st == BG_OK)
        st = bg_option_range("--lambda-sequences", n, &f->plan.lambda.range, err);
    if (st == BG_OK)
        st = check_lengths(f, err);
    if (st == BG_OK)
        st = choose_kind(f, err);
    return st == BG_OK ? name_units(f, err) : st;
}

/* Collective; the same status on all ranks. */
static bg_status open_inputs(fit *f, bg_err *err)
{
    const fit_factors_config *c = f->c;
    MPI_Comm world = f->ctx->grid.world;
    bg_status st = bg_agree(world, bg_model_open(&f->in.model, c->model, c->modules, err), err);
    return st == BG_OK ? bg_tokens_open_all(&f->in.tokens, c->tokens.item, c->tokens.n, world, err) : st;
}

/* A mask that leaves nothing of a sequence is found here, before the work. */
static bg_status count_rows(fit *f, bg_err *err)
{
    bg_status st = BG_OK;
    fit_sum *const sum[] = { &f->plan.covariance, &f->plan.lambda };
    for (int i = 0; i < 2 && st == BG_OK; i++)
        st = bg_tokens_terms(f->in.tokens, sum[i]->range.begin, sum[i]->range.end, &sum[i]->rows, err);
    return st;
}

/* On rank 0. */
static bg_status hash_inputs(fit *f, bg_err *err)
{
    const fit_factors_config *c = f->c;
    if (f->ctx->grid.world_rank != 0)
        return BG_OK;
    bg_status st = count_rows(f, err);
    if (st == BG_OK)
        st = bg_model_hash(f->in.model, &f->in.model_hash, err);
    if (st == BG_OK)
        st = bg_inputs_add(&f->in.files, f->in.model->dir, &f->in.model_hash, err);
    if (st == BG_OK)
        st = bg_inputs_add_tokens(&f->in.files, f->in.tokens, err);
    if (st == BG_OK && c->labels != NULL)
        st = bg_inputs_add_file(&f->in.files, c->labels, err);
    return st;
}

/* ---- shares and memory ---- */

static size_t longest(const fit *f)
{
    uint64_t a = bg_tokens_longest(f->in.tokens, f->plan.covariance.range.begin, f->plan.covariance.range.end);
    uint64_t b = bg_tokens_longest(f->in.tokens, f->plan.lambda.range.begin, f->plan.lambda.range.end);
    return a > b ? a : b;
}

static bg_status divide_model(fit *f, bg_err *err)
{
    bg_workload *load = &f->plan.load;
    const bg_range covariance = f->plan.covariance.range, lambda = f->plan.lambda.range;
    *load = (bg_workload){ .stage = &fit_costs,
                           .model = f->in.model,
                           .grid = f->ctx->grid,
                           .covariance_sequences = covariance.end - covariance.begin,
                           .lambda_sequences = lambda.end - lambda.begin,
                           .unit_sequences = f->c->unit_sequences,
                           .rows = longest(f) - 1,
                           .subgrid_side = f->c->subgrid_side,
                           .factor_kind = f->kind,
                           .diagonal = !f->c->no_diagonal };
    bg_status st = bg_workload_divide(load, &f->plan.share, err);
    load->share = f->plan.share;
    return st;
}

/* Micro-batches, passes and scratch; collective. */
static bg_status choose_plan(fit *f, bg_err *err)
{
    bg_demand d = bg_workload_demand(&f->plan.load, f->c->batch_tokens);
    bg_status st = bg_attempt_recall(f->ctx, &f->in.files, f->plan.work, &d.given_rows, err);
    if (st != BG_OK)
        return st;
    bg_log("%s: %zu tracked modules, %" PRIu64 " + %" PRIu64 " sequences", f->in.model->dir, f->in.model->n_tracked,
           f->plan.load.covariance_sequences, f->plan.load.lambda_sequences);
    return bg_budget_choose(&d, f->ctx, &f->plan.budget, err);
}

/* What a finished work folder will hold. */
static bg_status write_units(const fit *f, bg_err *err)
{
    char text[512], covariance[BG_UNITS_LINE_BYTES], lambda[BG_UNITS_LINE_BYTES];
    size_t inputs = 0;
    for (size_t i = 0; i < f->in.model->n_tracked; i++)
        inputs += bg_site_owns_input(f->in.model->tracked[i]);
    bg_units_describe(&f->plan.covariance.units, covariance);
    bg_units_describe(&f->plan.lambda.units, lambda);
    snprintf(text, sizeof text, "%s%s %zu\n%s %zu\n%s", covariance, fit_side_name(f, BG_SIDE_INPUT), inputs,
             fit_side_name(f, BG_SIDE_OUTPUT), f->in.model->n_tracked, lambda);
    return bg_units_promise(f->plan.work, text, err);
}

static bg_status open_work(fit *f, bg_err *err)
{
    const bg_grid *g = &f->ctx->grid;
    bg_status st = g->world_rank == 0 ? write_units(f, err) : BG_OK;
    const bg_share *own = bg_workload_share(&f->plan.load);
    return st == BG_OK ? bg_pipeline_pass_new(&f->pass, f->in.model, own, g, f->plan.budget.rows, err) : st;
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
        st = bg_inputs_share(&f.in.files, ctx, "", f.c->seed, hash_inputs(&f, err), err);
    bg_broadcast(ctx->grid.world, &f.plan.covariance.rows, sizeof f.plan.covariance.rows, 0);
    bg_broadcast(ctx->grid.world, &f.plan.lambda.rows, sizeof f.plan.lambda.rows, 0);
    if (st == BG_OK)
        st = choose_plan(&f, err);
    if (st == BG_OK)
        st = bg_agree(ctx->grid.world, bg_inputs_choose(&f.in.files, ctx, f.plan.budget.identity, err), err);
    const bg_attempt a = { ctx, &f.in.files, f.plan.index, f.plan.work, f.plan.budget.rows, &f, NULL, fit_all };
    if (st == BG_OK)
        st = bg_attempt_run(&a, err);
    bg_pass_free(f.pass);
    bg_free(f.plan.share);
    bg_free(f.plan.section);
    bg_tokens_close(f.in.tokens);
    bg_model_close(f.in.model);
    bg_inputs_clear(&f.in.files);
    return st;
}
