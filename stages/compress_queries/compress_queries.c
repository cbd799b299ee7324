/* compress_queries.c - open, one pass over the queries in units, assemble compressed.h5. */
#include "compress_queries.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/log.h"
#include "bregman/model_open.h"
#include "bregman/memory.h"

enum { ACTIVATION_BYTES = 96 << 20 };

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

/* Floats of the arrays that one module of a share needs at a time. */
typedef struct {
    size_t p, m, pm, scratch, left, right, factors;
} extent;

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

static extent largest(const compress *w, const bg_share *share)
{
    bg_rotated_widths wide = bg_eigenbasis_widths(w->model,
                                                  (bg_site_range){ share->first_tracked, share->end_tracked });
    extent e = { .p = wide.d, .m = wide.a };
    for (size_t i = share->first_tracked; i < share->end_tracked; i++) {
        const bg_site *site = w->model->tracked[i];
        size_t r = compress_columns(w, site), p = site->n_out, m = site->n_in1;
        e.pm = larger(e.pm, p * m);
        e.scratch = larger(e.scratch, bg_compress_scratch(p, m, r));
        e.left = larger(e.left, p * r);
        e.right = larger(e.right, m * r);
        e.factors = larger(e.factors, compress_factor_floats(w, site));
    }
    return e;
}

/* What this rank allocates for.  Rank 0 also takes all modules' sides from file to file in the end. */
static extent needed(const compress *w)
{
    extent e = largest(w, &w->own);
    if (w->ctx->grid.world_rank == 0) {
        const bg_share whole = bg_model_whole(w->model);
        const extent all = largest(w, &whole);
        e.left = all.left;
        e.right = all.right;
    }
    return e;
}

static size_t bytes_of(const compress *w, const extent *e, size_t rows)
{
    size_t floats = rows * (e->p + e->m) + e->pm + e->scratch + e->left + e->right + e->factors;
    return floats * sizeof(float) + bg_pipeline_pass_bytes(w->model, &w->own, &w->ctx->grid, rows);
}

static size_t plan_bytes(const void *compress_, const bg_plan *plan)
{
    const compress *w = compress_;
    extent e = needed(w);
    return bytes_of(w, &e, plan->rows);
}

static bg_status divide_model(compress *w, bg_err *err)
{
    size_t n = (size_t)w->ctx->grid.pipeline_size;
    bg_status st = BG_NEW(w->share, n, "shares of the model", err);
    if (st == BG_OK)
        st = bg_model_divide(w->model, n, NULL, w->share, err);
    if (st == BG_OK)
        w->own = w->share[w->ctx->grid.pipeline_rank];
    return st;
}

/* Micro-batches that fit.  Collective. */
static bg_status choose_plan(compress *w, bg_err *err)
{
    size_t longest = bg_tokens_longest(w->queries, 0, bg_tokens_sequences(w->queries));
    bg_demand d = { .best = { .rows = bg_pass_rows_for(w->model, longest, ACTIVATION_BYTES), .passes = 1 },
                    .least_rows = longest - 1,
                    .most_passes = 1,
                    .self = w,
                    .bytes = plan_bytes };
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
    bg_status st = BG_NEW(w->block, w->model->n_sections, "list of sections", err);
    for (; n < w->model->n_sections && st == BG_OK; n++)
        w->block[n] = w->model->section[n].number;
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
static bg_status open_room(compress *w, const extent *e, bg_err *err)
{
    const struct {
        float **to;
        size_t floats;
    } array[] = {
        { &w->rotated.a, w->plan.rows * e->m },
        { &w->rotated.d, w->plan.rows * e->p },
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
        st = BG_NEW(w->file, w->model->n_sections, "files of a unit", err);
    return st == BG_OK ? BG_NEW(w->finished, w->model->n_sections, "files of a unit", err) : st;
}

static bg_status open_memory(compress *w, bg_err *err)
{
    extent e = needed(w);
    uint64_t bytes = bytes_of(w, &e, w->plan.rows), limit = w->ctx->memory_limit;
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
        .tap = { compress_pair, w, BG_WANTS_ALL },
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
    for (size_t b = 0; w.file != NULL && b < w.model->n_sections; b++)
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
    bg_free(w.rotated.a);
    bg_free(w.rotated.d);
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
