/* compress_queries.c - open, one pass over the queries in units, assemble compressed.h5. */
#include "compress_queries.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/log.h"
#include "bregman/memory.h"

/* ---- opening ---- */

static bg_status parse_rank(compress *w, bg_err *err)
{
    const char *text = w->c->rank;
    char *end;
    if (strcmp(text, "full") == 0) {
        w->most_columns = SIZE_MAX;
        return BG_OK;
    }
    if (strcmp(text, "auto") == 0) {
        w->most_columns = w->c->max_rank;
        w->tolerance = w->c->tolerance;
        return BG_OK;
    }
    errno = 0;
    uint64_t r = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || r == 0 || r > 100000)
        return BG_FAIL(err, BG_EARG, "--rank takes a number from 1, full or auto, not \"%s\"", text);
    w->most_columns = r;
    return BG_OK;
}

/* The model with the modules asked for: those that the factors were fitted with unless others are. */
static bg_status open_model(compress *w, bg_err *err)
{
    const compress_queries_config *c = w->c;
    char *fitted = NULL;
    bg_status st = bg_factors_modules(c->factors, &fitted, err);
    if (st == BG_OK)
        st = bg_model_open(&w->model, c->model, c->modules != NULL ? c->modules : fitted, err);
    if (st == BG_EARG && c->modules == NULL)
        st = BG_FAIL(err, BG_ESTALE, "%s: the modules it was fitted with, \"%.100s\", are none of %s", c->factors,
                     fitted, c->model);
    if (st == BG_OK && c->modules != NULL && strcmp(c->modules, fitted) != 0)
        bg_log("--modules %s: the factors were fitted with --modules %s; what else they hold is left out", c->modules,
               fitted);
    if (st == BG_OK && (w->modules = strdup(c->modules != NULL ? c->modules : fitted)) == NULL)
        st = BG_FAIL(err, BG_ENOMEM, "out of memory");
    free(fitted);
    return st;
}

/* What does not need the queries. */
static bg_status open_local(compress *w, bg_err *err)
{
    const compress_queries_config *c = w->c;
    bg_status st = parse_rank(w, err);
    if (st == BG_OK)
        st = bg_preconditioner_parse(c->preconditioner, &w->damping.kind, err);
    w->damping.absolute = c->damping >= 0;
    w->damping.damping = w->damping.absolute ? c->damping : c->damping_factor;
    return st == BG_OK ? open_model(w, err) : st;
}

/* Collective; the same status on all ranks. */
static bg_status open_inputs(compress *w, bg_err *err)
{
    MPI_Comm world = w->ctx->grid.world;
    bg_status st = bg_agree(world, open_local(w, err), err);
    return st == BG_OK ? bg_tokens_open_all(&w->queries, &w->c->queries, 1, world, err) : st;
}

static bg_status check_queries(compress *w, bg_err *err)
{
    const compress_queries_config *c = w->c;
    bg_status st = BG_OK;
    if (!bg_tokens_are_queries(w->queries))
        st = BG_FAIL(err, BG_EFORMAT, "%s holds no queries (no completion_start): make it with tokenize_queries",
                     c->queries);
    if (st == BG_OK)
        st = bg_model_check_tokenizer(w->model, bg_tokens_tokenizer_hash(w->queries), c->queries, err);
    if (st == BG_OK)
        st = bg_model_check_lengths(w->model, w->queries, 0, bg_tokens_sequences(w->queries), err);
    return st == BG_OK ? bg_path(w->work, err, "%s.work", c->output) : st;
}

/* Rank 0 hashes; the factors stand for themselves by their own fingerprint. */
static bg_status hash_inputs(compress *w, bg_err *err)
{
    if (w->ctx->grid.world_rank != 0)
        return BG_OK;
    bg_hash factors = bg_hash_texts((const char *const[]){ bg_factors_fingerprint(w->factors) }, 1);
    bg_status st = bg_inputs_add(&w->in, w->model->dir, &w->model_hash, err);
    if (st == BG_OK)
        st = bg_inputs_add(&w->in, bg_factors_path(w->factors), &factors, err);
    if (st == BG_OK)
        st = bg_inputs_add_tokens(&w->in, w->queries, err);
    return st;
}

/* ---- shares and memory ---- */

static bg_status divide_model(compress *w, bg_err *err)
{
    uint64_t n = bg_tokens_sequences(w->queries);
    w->load = (bg_workload){ .stage = &compress_costs,
                             .model = w->model,
                             .grid = w->ctx->grid,
                             .memory_limit = w->ctx->memory_limit,
                             .queries = n,
                             .unit_sequences = w->c->unit_queries,
                             .query_rows = bg_tokens_longest(w->queries, 0, n) - 1,
                             .rank = w->most_columns };
    bg_status st = bg_workload_divide(&w->load, &w->share, err);
    if (st == BG_OK)
        w->own = w->share[w->ctx->grid.pipeline_rank];
    w->load.share = w->share;
    return st;
}

/* Micro-batches that fit.  Collective. */
static bg_status choose_plan(compress *w, bg_err *err)
{
    w->load.blocks = bg_factors_blocks(w->factors);
    bg_demand d = bg_workload_demand(&w->load, 0);
    bg_status st = bg_attempt_recall(w->ctx, &w->in, w->work, &d.given_rows, err);
    if (st != BG_OK)
        return st;
    bg_log("%s: %" PRIu64 " queries, %zu modules", w->c->queries, bg_tokens_sequences(w->queries), w->model->n_tracked);
    return bg_budget_choose(&d, w->ctx, &w->plan, err);
}

/* The work files, and what a finished folder of them will hold. */
static bg_status name_units(compress *w, bg_err *err)
{
    char line[BG_UNITS_LINE_BYTES];
    size_t n = 0;
    bg_status st = BG_NEW(w->block, w->model->n_tracked, "list of blocks", err);
    for (size_t i = 0; i < w->model->n_tracked && st == BG_OK; i++)
        if (i == 0 || w->model->tracked[i]->block != w->model->tracked[i - 1]->block)
            w->block[n++] = w->model->tracked[i]->block;
    w->units = (bg_units){ .folder = w->work,
                           .kind = "queries",
                           .run = &w->in.run,
                           .group = w->block,
                           .n_groups = n,
                           .n_sequences = bg_tokens_sequences(w->queries),
                           .unit_sequences = w->c->unit_queries };
    bg_units_describe(&w->units, line);
    return st == BG_OK && w->ctx->grid.world_rank == 0 ? bg_units_promise(w->work, line, err) : st;
}

/* Room for one module's query, and for a micro-batch's rows in the eigenbases. */
static bg_status open_room(compress *w, const compress_room *e, bg_err *err)
{
    const struct {
        float **to;
        size_t floats;
    } array[] = {
        { &w->rotated_a, w->plan.rows * e->m },
        { &w->rotated_d, w->plan.rows * e->p },
        { &w->gradient, e->pm },
        { &w->scratch, e->scratch },
        { &w->left, e->left },
        { &w->right, e->right },
    };
    bg_status st = BG_OK;
    for (size_t i = 0; i < sizeof array / sizeof *array && st == BG_OK; i++)
        st = BG_NEW(*array[i].to, array[i].floats, "query gradient", err);
    return st;
}

static bg_status open_files(compress *w, bg_err *err)
{
    bg_status st = BG_NEW(w->held, w->model->n_tracked, "factors", err);
    if (st == BG_OK)
        st = BG_NEW(w->file, w->model->config.n_blocks, "files of a unit", err);
    return st == BG_OK ? BG_NEW(w->finished, w->model->config.n_blocks, "files of a unit", err) : st;
}

static bg_status open_memory(compress *w, bg_err *err)
{
    compress_room e = compress_needed(&w->load);
    uint64_t bytes = bg_workload_bytes(&w->load, &w->plan), limit = w->ctx->memory_limit;
    w->room = limit == UINT64_MAX || limit < bytes ? 0 : limit - bytes;
    bg_status st = name_units(w, err);
    if (st == BG_OK)
        st = open_files(w, err);
    if (st == BG_OK)
        st = open_room(w, &e, err);
    return st == BG_OK ? bg_pipeline_pass_new(&w->pass, w->model, &w->own, &w->ctx->grid, w->plan.rows, err) : st;
}

/* ---- the whole ---- */

static bg_status compress_all(void *self, bg_err *err)
{
    compress *w = self;
    MPI_Comm world = w->ctx->grid.world;
    bg_status st = bg_agree(world, open_memory(w, err), err);
    if (st != BG_OK)
        return st;
    bg_sweep s = {
        .what = "queries",
        .tokens = w->queries,
        .n_sequences = w->units.n_sequences,
        .unit_sequences = w->units.unit_sequences,
        .tap = { compress_pair, w },
        .self = w,
        .find = compress_unit_find,
        .begin_unit = compress_unit_begin,
        .end_unit = compress_unit_end,
        .keep_part = compress_unit_keep,
    };
    st = bg_sweep_run(&s, w->pass, w->model, w->ctx, err);
    if (st == BG_OK)
        st = bg_agree(world, w->ctx->grid.world_rank == 0 ? compress_assemble(w, err) : BG_OK, err);
    return st;
}

bg_status compress_queries_run(const void *config, const bg_context *ctx, bg_err *err)
{
    compress w = { .c = config, .ctx = ctx };
    MPI_Comm world = ctx->grid.world;
    bg_status st = open_inputs(&w, err);
    if (st == BG_OK) {
        st = check_queries(&w, err);
        if (st == BG_OK)
            st = divide_model(&w, err);
        if (st == BG_OK && ctx->grid.world_rank == 0)
            st = bg_model_hash(w.model, &w.model_hash, err);
        st = bg_agree(world, st, err);
    }
    if (st == BG_OK) {
        bg_broadcast(world, &w.model_hash, sizeof w.model_hash, 0);
        st = bg_agree(world, bg_factors_open(&w.factors, w.c->factors, w.model, &w.model_hash, err), err);
    }
    if (st == BG_OK)
        st = bg_inputs_share(&w.in, ctx, "", w.c->seed, hash_inputs(&w, err), err);
    if (st == BG_OK)
        st = choose_plan(&w, err);
    if (st == BG_OK)
        st = bg_agree(world, bg_inputs_choose(&w.in, ctx, w.plan.identity, err), err);
    const bg_attempt a = { ctx, &w.in, w.c->output, w.work, w.plan.rows, &w, NULL, compress_all };
    if (st == BG_OK)
        st = bg_attempt_run(&a, err);
    for (size_t b = 0; w.file != NULL && b < w.model->config.n_blocks; b++)
        bg_store_discard(w.file[b]);
    for (size_t i = 0; w.held != NULL && i < w.model->n_tracked; i++)
        bg_curvature_clear(&w.held[i]);
    bg_free(w.held);
    free(w.modules);
    bg_free(w.block);
    bg_free(w.file);
    bg_free(w.finished);
    bg_pass_free(w.pass);
    bg_free(w.share);
    bg_free(w.rotated_a);
    bg_free(w.rotated_d);
    bg_free(w.gradient);
    bg_free(w.scratch);
    bg_free(w.left);
    bg_free(w.right);
    bg_factors_close(w.factors);
    bg_tokens_close(w.queries);
    bg_model_close(w.model);
    bg_inputs_clear(&w.in);
    return st;
}
