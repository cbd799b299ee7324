/* compress_queries.c - open, one pass over the queries in units, assemble compressed.h5. */
#include "compress_queries.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/budget.h"
#include "bregman/factors.h"
#include "bregman/inputs.h"
#include "bregman/log.h"
#include "bregman/memory.h"
#include "bregman/precondition.h"
#include "bregman/sweep.h"

enum { ACTIVATION_BYTES = 96 << 20 };

/* One call of the stage. */
typedef struct {
    const compress_queries_config *c;
    const bg_context *ctx;
    bg_model *model;
    bg_tokens *queries;
    bg_factors *factors;
    bg_pass *pass;
    bg_share *share, own;              /* [pipeline_size], and this rank's */
    bg_plan plan;
    bg_inputs in;
    bg_hash model_hash;
    bg_damping damping;
    size_t rank;                       /* most columns asked for; SIZE_MAX: all */
    double tolerance;                  /* 0: not by tolerance */
    char work[BG_PATH_BYTES];          /* folder of the units */
    /* the unit and batch in hand */
    bg_store **unit;                   /* [n_blocks] files being written, of this rank's tracked blocks */
    uint64_t unit_first;
    float *rotated_a, *rotated_d;      /* [rows, largest M], [rows, largest P] */
    float *gradient, *scratch, *left, *right;
} compress;

/* ---- opening ---- */

static bg_status parse_rank(compress *w, bg_err *err)
{
    const char *text = w->c->rank;
    char *end;
    if (strcmp(text, "full") == 0) {
        w->rank = SIZE_MAX;
        return BG_OK;
    }
    if (strcmp(text, "auto") == 0) {
        w->rank = w->c->max_rank;
        w->tolerance = w->c->tolerance;
        return BG_OK;
    }
    errno = 0;
    unsigned long long r = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || r == 0 || r > 100000)
        return BG_FAIL(err, BG_EARG, "--rank takes a number from 1, full or auto, not '%s'", text);
    w->rank = r;
    return BG_OK;
}

static bg_status open_inputs(compress *w, bg_err *err)
{
    const compress_queries_config *c = w->c;
    bg_status st = parse_rank(w, err);
    if (st == BG_OK)
        st = bg_preconditioner_parse(c->preconditioner, &w->damping.kind, err);
    w->damping.absolute = c->damping >= 0;
    w->damping.damping = w->damping.absolute ? c->damping : c->damping_factor;
    if (st == BG_OK)
        st = bg_model_open(&w->model, c->model, c->modules, err);
    if (st == BG_OK)
        st = bg_tokens_open(&w->queries, &c->queries, 1, err);
    if (st == BG_OK && !bg_tokens_are_queries(w->queries))
        st = BG_FAIL(err, BG_EFORMAT, "%s holds no queries (no completion_start): make it with tokenize_queries", c->queries);
    if (st == BG_OK && bg_tokens_sequences(w->queries) == 0)
        st = BG_FAIL(err, BG_EFORMAT, "%s holds no query", c->queries);
    if (st == BG_OK)
        st = bg_model_check_tokenizer(w->model, bg_tokens_tokenizer_hash(w->queries), c->queries, err);
    if (st == BG_OK)    /* the last token is only a target and takes no position */
        st = bg_tokens_check_longest(w->queries, 0, bg_tokens_sequences(w->queries),
                                     w->model->config.max_positions + 1, err);
    return st == BG_OK ? bg_path(w->work, err, "%s.work", c->output) : st;
}

/* Rank 0 hashes; the factors stand for themselves by their own fingerprint. */
static bg_status hash_inputs(compress *w, bg_err *err)
{
    const bg_list files = { 1, (const char **)(uintptr_t)&w->c->queries };
    if (w->ctx->grid.world_rank != 0)
        return BG_OK;
    bg_hash factors = bg_hash_texts((const char *const[]){ bg_factors_fingerprint(w->factors) }, 1);
    bg_status st = bg_inputs_add(&w->in, w->model->dir, &w->model_hash, err);
    if (st == BG_OK)
        st = bg_inputs_add(&w->in, bg_factors_path(w->factors), &factors, err);
    if (st == BG_OK)
        st = bg_inputs_add_tokens(&w->in, w->queries, &files, err);
    return st;
}

static size_t columns(const compress *w, const bg_module *mod)
{
    size_t least = mod->n_out < mod->n_in1 ? mod->n_out : mod->n_in1;
    return w->rank < least ? w->rank : least;
}

/* ---- shares and memory ---- */

/* Floats of the arrays that one module of a share needs at a time. */
typedef struct { size_t p, m, pm, scratch, left, right, factors; } extent;

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

static extent largest(const compress *w, const bg_share *share)
{
    extent e = { 0 };
    size_t k = bg_factors_blocks(w->factors);
    for (size_t i = share->first_tracked; i < share->end_tracked; i++) {
        const bg_module *mod = w->model->tracked[i];
        size_t r = columns(w, mod), p = mod->n_out, m = mod->n_in1;
        e.p = larger(e.p, p);
        e.m = larger(e.m, m);
        e.pm = larger(e.pm, p * m);
        e.scratch = larger(e.scratch, bg_compress_scratch(p, m, r));
        e.left = larger(e.left, p * r);
        e.right = larger(e.right, m * r);
        e.factors = larger(e.factors, p * bg_block_width(p, k) + m * bg_block_width(m, k) + p * m);
    }
    return e;
}

static size_t plan_bytes(const void *compress_, const bg_plan *plan)
{
    const compress *w = compress_;
    const bg_grid *g = &w->ctx->grid;
    extent e = largest(w, &w->own);
    size_t floats = plan->rows * (e.p + e.m) + e.pm + e.scratch + e.left + e.right + e.factors;
    return floats * sizeof(float) + bg_pass_bytes(w->model, &w->own, bg_pipeline_depth(g->pipeline_rank, g->pipeline_size),
                                                  plan->rows, BG_LOGITS_BYTES)
        + bg_pipeline_bytes(w->model, g->pipeline_rank, g->pipeline_size, plan->rows);
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
static bg_status choose_plan(compress *w, char identity[64], bg_err *err)
{
    size_t longest = bg_tokens_longest(w->queries, 0, bg_tokens_sequences(w->queries));
    bg_demand d = { .best = { .rows = bg_pass_rows_for(w->model, longest, ACTIVATION_BYTES), .passes = 1 },
                    .least_rows = longest - 1, .most_passes = 1, .self = w, .bytes = plan_bytes };
    bg_log("%s: %llu queries, %zu modules", w->c->queries, (unsigned long long)bg_tokens_sequences(w->queries), w->model->n_tracked);
    bg_status st = bg_budget_choose(&d, w->ctx, &w->plan, err);
    if (st == BG_OK)
        bg_budget_identity(&d, &w->plan, identity);
    return st;
}

/* How many files of units there will be. */
static bg_status write_units(const compress *w, bg_err *err)
{
    char text[64];
    uint64_t blocks = 0, units = (bg_tokens_sequences(w->queries) + w->c->unit_queries - 1) / w->c->unit_queries;
    for (size_t i = 0; i < w->model->n_tracked; i++)
        blocks += i == 0 || w->model->tracked[i]->block != w->model->tracked[i - 1]->block;
    snprintf(text, sizeof text, "queries- %llu\n", (unsigned long long)(units * blocks));
    return bg_write_units(w->work, text, err);
}

static bg_status open_memory(compress *w, bg_err *err)
{
    const bg_grid *g = &w->ctx->grid;
    const bg_share whole = bg_model_whole(w->model);
    extent e = largest(w, g->world_rank == 0 ? &whole : &w->own);    /* rank 0 assembles */
    bg_status st = bg_make_folder(w->work, err);
    if (st == BG_OK)
        st = bg_stop_folder_of(w->c->output, err);
    if (st == BG_OK && g->world_rank == 0)
        st = write_units(w, err);
    if (st == BG_OK)
        st = bg_pass_new(&w->pass, w->model, &w->own, bg_pipeline_depth(g->pipeline_rank, g->pipeline_size), w->plan.rows,
                         BG_LOGITS_BYTES, err);
    if (st == BG_OK)
        st = BG_NEW(w->unit, w->model->config.n_blocks, "files of a unit", err);
    if (st == BG_OK)
        st = BG_NEW(w->rotated_a, w->plan.rows * e.m, "rotated activations", err);
    if (st == BG_OK)
        st = BG_NEW(w->rotated_d, w->plan.rows * e.p, "rotated gradients", err);
    if (st == BG_OK)
        st = BG_NEW(w->gradient, e.pm, "query gradient", err);
    if (st == BG_OK)
        st = BG_NEW(w->scratch, e.scratch, "query gradient", err);
    if (st == BG_OK)
        st = BG_NEW(w->left, e.left, "query gradient", err);
    return st == BG_OK ? BG_NEW(w->right, e.right, "query gradient", err) : st;
}

/* ---- units: the gradient tap ---- */

static bg_status unit_path(const compress *w, uint64_t u, size_t block, char out[BG_PATH_BYTES], bg_err *err)
{
    return bg_path(out, err, "%s/queries-%05llu-block-%03zu.h5", w->work, (unsigned long long)u, block);
}

/* The first tracked module after i that is of another block. */
static size_t next_block(const compress *w, size_t i)
{
    size_t block = w->model->tracked[i]->block;
    while (i < w->model->n_tracked && w->model->tracked[i]->block == block)
        i++;
    return i;
}

static bg_status block_done(const compress *w, uint64_t u, size_t block, bool *done, bg_err *err)
{
    char path[BG_PATH_BYTES];
    bg_status st = unit_path(w, u, block, path, err);
    return st == BG_OK ? bg_store_is_done(path, w->in.run.fingerprint, done, err) : st;
}

static bg_status unit_find(void *self, uint64_t u, bool *done, uint64_t *part, bg_err *err)
{
    const compress *w = self;
    bg_status st = BG_OK;
    *part = 0;
    *done = true;
    for (size_t i = 0; i < w->model->n_tracked && *done && st == BG_OK; i = next_block(w, i))
        st = block_done(w, u, w->model->tracked[i]->block, done, err);
    return st;
}

/* The five datasets of a module, with n queries and r columns. */
static bg_status make_datasets(bg_store *s, const bg_module *mod, uint64_t n, uint64_t r, bool ranks, bg_err *err)
{
    const struct { const char *name; uint64_t dims[3]; } set[] = {
        { "left", { n, mod->n_out, r } }, { "right", { n, mod->n_in1, r } }, { "kept", { n } }, { "error", { n } },
        { "variance", { n } }, { "rank", { n } },
    };
    bg_status st = BG_OK;
    for (size_t i = 0; i < (ranks ? 6 : 5) && st == BG_OK; i++) {
        char path[BG_PATH_BYTES];
        st = bg_path(path, err, "%s/%s", mod->name, set[i].name);
        if (st == BG_OK)
            st = bg_store_dataset(s, path, set[i].dims, err);
    }
    return st;
}

static bg_status create_unit(compress *w, const bg_unit *unit, size_t block, bg_err *err)
{
    char path[BG_PATH_BYTES];
    bg_status st = unit_path(w, unit->unit, block, path, err);
    if (st == BG_OK)
        st = bg_store_create(&w->unit[block], path, "bregman/work", &w->in.run, err);
    for (size_t i = w->own.first_tracked; i < w->own.end_tracked && st == BG_OK; i++) {
        const bg_module *mod = w->model->tracked[i];
        if (mod->block == block)
            st = make_datasets(w->unit[block], mod, unit->n_sequences, columns(w, mod), true, err);
    }
    return st;
}

/* Blocks that were finished before have no file open, and are passed over. */
static bg_status unit_begin(void *self, const bg_unit *unit, uint64_t part, bg_err *err)
{
    compress *w = self;
    bg_status st = BG_OK;
    (void)part;
    w->unit_first = unit->first;
    for (size_t i = w->own.first_tracked; i < w->own.end_tracked && st == BG_OK; i = next_block(w, i)) {
        bool done = false;
        st = block_done(w, unit->unit, w->model->tracked[i]->block, &done, err);
        if (st == BG_OK && !done)
            st = create_unit(w, unit, w->model->tracked[i]->block, err);
    }
    return st;
}

static bg_status unit_end(void *self, const bg_unit *unit, bg_pipeline *l, bg_err *err)
{
    compress *w = self;
    bg_status st = BG_OK;
    (void)unit;
    (void)l;
    for (size_t b = w->own.first; b < w->own.end && st == BG_OK; b++) {
        bg_store *s = w->unit[b];
        w->unit[b] = NULL;
        st = s == NULL ? BG_OK : bg_store_publish(s, NULL, err);
    }
    return st;
}

static bg_status write_query(bg_store *s, const bg_module *mod, uint64_t at, const float *left, const float *right,
                             double variance, double error, uint32_t rank, bg_err *err)
{
    float kept = variance > 0 ? (float)(1.0 - error / variance) : 1.0f;
    const struct { const char *name; const void *data; } set[] = {
        { "left", left }, { "right", right }, { "kept", &kept }, { "error", &error }, { "variance", &variance },
        { "rank", &rank },
    };
    bg_status st = BG_OK;
    for (size_t i = 0; i < (rank > 0 ? 6 : 5) && st == BG_OK; i++) {
        char path[BG_PATH_BYTES];
        st = bg_path(path, err, "%s/%s", mod->name, set[i].name);
        if (st == BG_OK)
            st = bg_store_write_rows(s, path, at, 1, set[i].data, err);
    }
    return st;
}

static bg_status compress_query(compress *w, const bg_curvature *c, const bg_pair *pair, size_t z,
                                const float *a, size_t lda, const float *d, size_t ldd, bg_err *err)
{
    const bg_module *mod = pair->module;
    size_t p = mod->n_out, m = mod->n_in1, r = columns(w, mod);
    size_t r0 = pair->batch->row_start[z], rows = pair->batch->row_start[z + 1] - r0;
    uint64_t query = pair->batch->sequence[z];
    double variance, error;
    bg_gemm(BG_T, BG_N, p, m, rows, 1.0f, d + r0 * ldd, ldd, a + r0 * lda, lda, 0.0f, w->gradient, m);
    bg_curvature_divide(c, w->gradient);
    bg_status st = bg_compress(c, w->gradient, w->tolerance, w->c->seed, query * w->model->n_tracked + mod->index,
                               w->scratch, &r, w->left, w->right, &variance, &error, err);
    if (st == BG_OK)
        st = write_query(w->unit[mod->block], mod, query - w->unit_first, w->left, w->right, variance, error, (uint32_t)r, err);
    return st;
}

/* The gradient tap: rotate the rows of all queries, then a gradient a query, preconditioned and truncated in the
 * eigenbasis (a truncation there is one in the parameters' basis, the bases being orthogonal). */
static bg_status query_pair(void *self, const bg_pair *pair, bg_err *err)
{
    compress *w = self;
    const bg_module *mod = pair->module;
    const float *a = pair->activation, *d = pair->gradient;
    size_t lda = pair->ld_activation, ldd = pair->ld_gradient, rows = pair->batch->n_rows;
    bg_curvature c;
    if (w->unit[mod->block] == NULL)
        return BG_OK;
    bg_status st = bg_curvature_read(w->factors, mod, w->damping, &c, err);
    if (st != BG_OK)
        return st;
    if (c.rotated) {
        bg_blockdiag_apply(&c.factors.basis.q_a, BG_N, rows, a, lda, w->rotated_a, mod->n_in1);
        bg_blockdiag_apply(&c.factors.basis.q_s, BG_N, rows, d, ldd, w->rotated_d, mod->n_out);
        a = w->rotated_a;
        d = w->rotated_d;
        lda = mod->n_in1;
        ldd = mod->n_out;
    }
    for (size_t z = 0; z < pair->batch->n_sequences && st == BG_OK; z++)
        st = compress_query(w, &c, pair, z, a, lda, d, ldd, err);
    bg_curvature_clear(&c);
    return st;
}

/* ---- assembling, on rank 0 ---- */

/* Columns that the module's queries need, over all units. */
static bg_status needed_columns(const bg_module *mod, bg_store *const *unit, uint64_t n_units, uint32_t *out, bg_err *err)
{
    char path[BG_PATH_BYTES];
    bg_status st = bg_path(path, err, "%s/rank", mod->name);
    *out = 1;
    for (uint64_t u = 0; u < n_units && st == BG_OK; u++) {
        uint64_t n = 0;
        st = bg_store_dims(unit[u], path, 1, &n, err);
        for (uint64_t i = 0; i < n && st == BG_OK; i++) {
            uint32_t r = 0;
            st = bg_store_read_rows(unit[u], path, BG_U32, i, 1, &r, err);
            *out = r > *out ? r : *out;
        }
    }
    return st;
}

/* Keep the first r of r_from columns of n rows, in place. */
static void trim(float *x, size_t n, size_t r_from, size_t r)
{
    for (size_t i = 0; i < n && r < r_from; i++)
        memmove(x + i * r, x + i * r_from, r * sizeof *x);
}

typedef struct { double variance, error; } query_sum;

static bg_status copy_query(compress *w, const bg_module *mod, const bg_store *from, uint64_t i, bg_store *to,
                            uint64_t query, size_t r, query_sum *sum, bg_err *err)
{
    char path[BG_PATH_BYTES];
    size_t r_from = columns(w, mod);
    double variance = 0, error = 0;
    const struct { const char *name; bg_dtype type; void *data; } set[] = {
        { "left", BG_F32, w->left }, { "right", BG_F32, w->right }, { "error", BG_F64, &error },
        { "variance", BG_F64, &variance },
    };
    bg_status st = BG_OK;
    for (size_t k = 0; k < 4 && st == BG_OK; k++) {
        st = bg_path(path, err, "%s/%s", mod->name, set[k].name);
        if (st == BG_OK)
            st = bg_store_read_rows(from, path, set[k].type, i, 1, set[k].data, err);
    }
    trim(w->left, mod->n_out, r_from, r);
    trim(w->right, mod->n_in1, r_from, r);
    sum->variance += variance;
    sum->error += error;
    return st == BG_OK ? write_query(to, mod, query, w->left, w->right, variance, error, 0, err) : st;
}

static bg_status assemble_module(compress *w, const bg_module *mod, bg_store *const *unit, uint64_t n_units,
                                 bg_store *to, query_sum *sum, bg_err *err)
{
    uint64_t n = bg_tokens_sequences(w->queries), query = 0;
    uint32_t r;
    bg_status st = needed_columns(mod, unit, n_units, &r, err);
    if (st == BG_OK)
        st = make_datasets(to, mod, n, r, false, err);
    for (uint64_t u = 0; u < n_units && st == BG_OK; u++)
        for (uint64_t i = 0; i < w->c->unit_queries && query < n && st == BG_OK; i++, query++)
            st = copy_query(w, mod, unit[u], i, to, query, r, &sum[query], err);
    return st;
}

static bg_status write_head(const compress *w, bg_store *s, bg_err *err)
{
    uint64_t n = bg_tokens_sequences(w->queries);
    const char **id = NULL;
    bg_status st = BG_NEW(id, n, "query ids", err);
    for (uint64_t q = 0; q < n && st == BG_OK; q++)
        id[q] = bg_tokens_query_id(w->queries, q);
    if (st == BG_OK)
        st = bg_store_write(s, "id", &n, id, err);
    const struct { const char *name, *text; } attr[] = {
        { "model_hash", w->model_hash.hex }, { "tokenizer_hash", bg_tokens_tokenizer_hash(w->queries) },
        { "factors_fingerprint", bg_factors_fingerprint(w->factors) }, { "modules", w->c->modules },
        { "preconditioner", w->c->preconditioner },
    };
    for (size_t i = 0; i < sizeof attr / sizeof attr[0] && st == BG_OK; i++)
        st = bg_store_attr_text(s, "/", attr[i].name, attr[i].text, err);
    if (st == BG_OK)
        st = bg_store_attr_f64(s, "/", w->damping.absolute ? "damping" : "damping_factor", w->damping.damping, err);
    bg_free(id);
    return st;
}

/* All modules of one block, from the block's file of each unit.  *i: its first module, on return the next block's. */
static bg_status assemble_block(compress *w, size_t *i, bg_store **unit, uint64_t n_units, bg_store *to, query_sum *sum,
                                bg_err *err)
{
    char path[BG_PATH_BYTES];
    size_t end = next_block(w, *i);
    bg_status st = BG_OK;
    for (uint64_t u = 0; u < n_units && st == BG_OK; u++) {
        st = unit_path(w, u, w->model->tracked[*i]->block, path, err);
        if (st == BG_OK)
            st = bg_store_open(&unit[u], path, "bregman/work", err);
    }
    for (; *i < end && st == BG_OK; ++*i)
        st = assemble_module(w, w->model->tracked[*i], unit, n_units, to, sum, err);
    for (uint64_t u = 0; u < n_units; u++) {
        bg_store_close(unit[u]);
        unit[u] = NULL;
    }
    return st;
}

static void report_kept(const compress *w, const query_sum *sum)
{
    for (uint64_t q = 0; q < bg_tokens_sequences(w->queries); q++)
        bg_log("query %s: kept %.4f of the expected score variance", bg_tokens_query_id(w->queries, q),
               sum[q].variance > 0 ? 1.0 - sum[q].error / sum[q].variance : 1.0);
}

static bg_status assemble(compress *w, uint64_t n_units, bg_err *err)
{
    bg_store *s = NULL, **unit = NULL;
    query_sum *sum = NULL;
    bg_status st = BG_NEW(unit, n_units, "units", err);
    if (st == BG_OK)
        st = BG_NEW(sum, bg_tokens_sequences(w->queries), "units", err);
    if (st == BG_OK)
        st = bg_store_create(&s, w->c->output, "bregman/compressed", &w->in.run, err);
    if (st == BG_OK)
        st = write_head(w, s, err);
    for (size_t i = 0; i < w->model->n_tracked && st == BG_OK;)
        st = assemble_block(w, &i, unit, n_units, s, sum, err);
    st = bg_store_end_once(s, st, err);
    if (st == BG_OK)
        st = bg_remove_folder(w->work, err);
    if (st == BG_OK) {
        report_kept(w, sum);
        bg_log("wrote %s", w->c->output);
    }
    bg_free(unit);
    bg_free(sum);
    return st;
}

static bg_status compress_all(compress *w, bg_err *err)
{
    MPI_Comm world = w->ctx->grid.world;
    bg_status st = bg_agree(world, open_memory(w, err), err);
    if (st != BG_OK)
        return st;
    bg_sweep s = {
        .what = "queries", .tokens = w->queries, .n_sequences = bg_tokens_sequences(w->queries),
        .unit_sequences = w->c->unit_queries, .tap = { query_pair, w }, .self = w,
        .find = unit_find, .begin_unit = unit_begin, .end_unit = unit_end,
    };
    st = bg_sweep_run(&s, w->pass, w->model, w->ctx, err);
    if (st == BG_OK)
        st = bg_agree(world, w->ctx->grid.world_rank == 0 ? assemble(w, bg_sweep_units(&s), err) : BG_OK, err);
    return st;
}

bg_status compress_queries_run(const void *config, const bg_context *ctx, bg_err *err)
{
    compress w = { .c = config, .ctx = ctx };
    MPI_Comm world = ctx->grid.world;
    char identity[64] = "";
    bool done = false;
    bg_status st = open_inputs(&w, err);
    if (st == BG_OK)
        st = divide_model(&w, err);
    if (st == BG_OK && ctx->grid.world_rank == 0)
        st = bg_model_hash(w.model, &w.model_hash, err);
    if ((st = bg_agree(world, st, err)) == BG_OK) {
        bg_broadcast(world, &w.model_hash, sizeof w.model_hash, 0);
        st = bg_agree(world, bg_factors_open(&w.factors, w.c->factors, w.model, &w.model_hash, err), err);
    }
    if (st == BG_OK)
        st = choose_plan(&w, identity, err);
    if (st == BG_OK)
        st = bg_inputs_share(&w.in, ctx, identity, w.c->seed, hash_inputs(&w, err), err);
    if (st == BG_OK)
        st = bg_agree(world, bg_store_is_done(w.c->output, w.in.run.fingerprint, &done, err), err);
    if (st == BG_OK && done)
        st = bg_inputs_already_done(ctx, w.c->output, w.work, err);
    if (st == BG_OK && !done)
        st = bg_inputs_outcome(&w.in, ctx, w.c->output, w.work, bg_inputs_is_done, compress_all(&w, err), err);
    for (size_t b = 0; w.unit != NULL && b < w.model->config.n_blocks; b++)
        bg_store_discard(w.unit[b]);
    bg_free(w.unit);
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
