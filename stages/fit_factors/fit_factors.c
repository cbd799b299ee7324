/* fit_factors.c - open, sum covariances, decompose, sum squares in the eigenbases, publish. */
#include "fit_factors.h"

#include <stdio.h>
#include <string.h>

#include "bregman/log.h"
#include "bregman/memory.h"

enum { ACTIVATION_BYTES = 512 << 20 };

/* ---- opening ---- */

static bg_status set_range(bg_range *out, bg_range asked, uint64_t n, const char *option, bg_err *err)
{
    *out = asked;
    if (out->end == UINT64_MAX)
        out->end = n;
    if (out->begin >= out->end || out->end > n)
        return BG_FAIL(err, BG_EARG, "%s %llu:%llu: the token files hold %llu sequences", option,
                       (unsigned long long)asked.begin, (unsigned long long)out->end, (unsigned long long)n);
    return BG_OK;
}

static uint64_t rows_of(const fit *f, bg_range r)
{
    uint64_t n = 0;
    for (uint64_t z = r.begin; z < r.end; z++)
        n += bg_tokens_count(f->tokens, z) - 1;
    return n;
}

static uint64_t unit_of(bg_range r, uint64_t asked)
{
    uint64_t n = r.end - r.begin, unit = (n + 63) / 64;
    unit = unit < 16 ? 16 : unit > 1024 ? 1024 : unit;
    return asked > 0 ? asked : unit;
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
        st = BG_FAIL(err, BG_EFORMAT, "%s holds queries, not a corpus: make it with tokenize_corpus", c->tokens.item[0]);
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
    for (size_t i = 0; i < f->model->n_tracked && st == BG_OK; i++)
        if (f->model->tracked[i]->n_out < c->blocks || f->model->tracked[i]->n_in1 < c->blocks)
            st = BG_FAIL(err, BG_EARG, "--blocks %llu is more than %s has rows", (unsigned long long)c->blocks,
                         f->model->tracked[i]->name);
    f->covariance_unit = unit_of(f->covariance, c->unit_sequences);
    f->lambda_unit = unit_of(f->lambda, c->unit_sequences);
    f->covariance_units = (f->covariance.end - f->covariance.begin + f->covariance_unit - 1) / f->covariance_unit;
    f->lambda_units = (f->lambda.end - f->lambda.begin + f->lambda_unit - 1) / f->lambda_unit;
    if (st == BG_OK) {
        f->covariance_rows = rows_of(f, f->covariance);
        f->lambda_rows = rows_of(f, f->lambda);
    }
    if (st == BG_OK)
        st = bg_path(f->work, err, "%s/work", c->output);
    return st == BG_OK ? bg_path(f->index, err, "%s/index.h5", c->output) : st;
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
        st = bg_inputs_add_tokens(&f->in, f->tokens, &c->tokens, err);
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

/* FLOPs a row of a module's two taps: half a product a covariance; for Λ the rotations and the product. */
static double tap_flops(const fit *f, const bg_module *mod)
{
    double p = (double)mod->n_out, m = (double)mod->n_in1, k = (double)f->c->blocks;
    double squares = p * p / k + (mod->input == mod->index ? m * m / k : 0);
    return squares + 2 * squares + 2 * p * m * (f->c->no_diagonal ? 1 : 2);
}

static bg_status divide_model(fit *f, bg_err *err)
{
    size_t n = (size_t)f->ctx->grid.pipeline_size;
    double *flops = NULL;
    bg_status st = BG_NEW(f->share, n, "shares of the model", err);
    if (st == BG_OK)
        st = BG_NEW(flops, f->model->n_tracked, "shares of the model", err);
    for (size_t i = 0; i < f->model->n_tracked && st == BG_OK; i++)
        flops[i] = tap_flops(f, f->model->tracked[i]);
    if (st == BG_OK)
        st = bg_model_divide(f->model, n, flops, f->share, err);
    if (st == BG_OK)
        f->own = f->share[f->ctx->grid.pipeline_rank];
    bg_free(flops);
    return st;
}

/* Micro-batches, passes and scratch; collective. */
static bg_status choose_plan(fit *f, bg_err *err)
{
    size_t least = longest(f) - 1, rows = f->c->batch_tokens;
    bg_demand d = { .best = { .passes = 1 }, .least_rows = least, .most_passes = 1, .can_spill = true, .self = f, .bytes = fit_bytes };
    d.best.rows = rows == 0 ? bg_pass_rows_for(f->model, longest(f), ACTIVATION_BYTES) : rows < least ? least : rows;
    for (int r = 0; r < f->ctx->grid.pipeline_size; r++)
        if (f->share[r].end - f->share[r].first > d.most_passes)
            d.most_passes = f->share[r].end - f->share[r].first;
    bg_log("%s: %zu tracked modules, %llu + %llu sequences", f->model->dir, f->model->n_tracked,
           (unsigned long long)(f->covariance.end - f->covariance.begin), (unsigned long long)(f->lambda.end - f->lambda.begin));
    return bg_budget_choose(&d, f->ctx, &f->plan, err);
}

/* How many files of each kind there will be. */
static bg_status write_units(const fit *f, bg_err *err)
{
    char text[256];
    uint64_t blocks = 0, activations = 0;
    for (size_t b = 0; b < f->model->config.n_blocks; b++)
        blocks += fit_block_is_tracked(f, b);
    for (size_t i = 0; i < f->model->n_tracked; i++)
        activations += f->model->tracked[i]->input == i;
    snprintf(text, sizeof text, "covariance- %llu\nactivation- %llu\ngradient- %zu\nlambda- %llu\n",
             (unsigned long long)(f->covariance_units * blocks), (unsigned long long)activations, f->model->n_tracked,
             (unsigned long long)(f->lambda_units * blocks));
    return bg_write_units(f->work, text, err);
}

static bg_status open_work(fit *f, bg_err *err)
{
    const bg_grid *g = &f->ctx->grid;
    bg_status st = bg_make_folder(f->work, err);
    if (st == BG_OK)
        st = bg_stop_folder(f->c->output, err);
    if (st == BG_OK && g->world_rank == 0)
        st = write_units(f, err);
    return st == BG_OK ? bg_pipeline_pass_new(&f->pass, f->model, &f->own, g, f->plan.rows, err) : st;
}

/* ---- the whole ---- */

static bg_status fit_all(fit *f, bg_err *err)
{
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
    bool done = false;
    bg_status st = open_inputs(&f, err);
    if (st == BG_OK) {
        st = choose_units(&f, err);
        if (st == BG_OK)
            st = divide_model(&f, err);
        st = bg_agree(ctx->grid.world, st, err);
    }
    if (st == BG_OK)
        st = choose_plan(&f, err);
    if (st == BG_OK)
        st = bg_inputs_share(&f.in, ctx, f.plan.identity, f.c->seed, hash_inputs(&f, err), err);
    if (st == BG_OK)
        st = bg_agree(ctx->grid.world, bg_store_is_done(f.index, f.in.run.fingerprint, &done, err), err);
    if (st == BG_OK && done)
        st = bg_inputs_already_done(ctx, f.index, f.work, err);
    if (st == BG_OK && !done)
        st = bg_inputs_outcome(&f.in, ctx, f.index, f.work, bg_inputs_is_done, fit_all(&f, err), err);
    bg_pass_free(f.pass);
    bg_free(f.share);
    bg_tokens_close(f.tokens);
    bg_model_close(f.model);
    bg_inputs_clear(&f.in);
    return st;
}
