/* compress_queries.c - open, one pass over the queries in units, assemble compressed.h5. */
#include "compress_queries.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/factors.h"
#include "bregman/inputs.h"
#include "bregman/log.h"
#include "bregman/memory.h"
#include "bregman/precondition.h"
#include "bregman/sweep.h"

enum { LOGITS_BYTES = 64 << 20 };

/* One call of the stage. */
typedef struct {
    const compress_queries_config *c;
    const bg_context *ctx;
    bg_model *model;
    bg_tokens *queries;
    bg_factors *factors;
    bg_pass *pass;
    bg_inputs in;
    bg_hash model_hash;
    bg_damping damping;
    size_t rank;                       /* most columns asked for; SIZE_MAX: all */
    double tolerance;                  /* 0: not by tolerance */
    char work[BG_PATH_BYTES];          /* folder of the units */
    /* the unit and batch in hand */
    bg_store *unit;
    uint64_t unit_first, unit_queries;
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

static bg_status open_factors(compress *w, bg_err *err)
{
    return bg_factors_open(&w->factors, w->c->factors, w->model, &w->model_hash, err);
}

/* Rank 0 hashes; the factors stand for themselves by their own fingerprint. */
static bg_status hash_inputs(compress *w, bg_err *err)
{
    const bg_list files = { 1, (const char **)(uintptr_t)&w->c->queries };
    if (w->ctx->grid.world_rank != 0)
        return BG_OK;
    bg_status st = bg_model_hash(w->model, &w->model_hash, err);
    if (st == BG_OK)
        st = open_factors(w, err);
    if (st != BG_OK)
        return st;
    bg_hash factors = bg_hash_texts((const char *const[]){ bg_factors_fingerprint(w->factors) }, 1);
    st = bg_inputs_add(&w->in, w->model->dir, &w->model_hash, err);
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

static bg_status open_memory(compress *w, bg_err *err)
{
    size_t p = 0, m = 0, pm = 0, scratch = 0, l = 0, r = 0;
    size_t rows = bg_pass_rows_for(w->model, bg_tokens_longest(w->queries, 0, bg_tokens_sequences(w->queries)), 96 << 20);
    for (size_t i = 0; i < w->model->n_tracked; i++) {
        const bg_module *mod = w->model->tracked[i];
        size_t k = columns(w, mod), s = bg_compress_scratch(mod->n_out, mod->n_in1, k);
        p = mod->n_out > p ? mod->n_out : p;
        m = mod->n_in1 > m ? mod->n_in1 : m;
        pm = mod->n_out * mod->n_in1 > pm ? mod->n_out * mod->n_in1 : pm;
        scratch = s > scratch ? s : scratch;
        l = mod->n_out * k > l ? mod->n_out * k : l;
        r = mod->n_in1 * k > r ? mod->n_in1 * k : r;
    }
    bg_log("%s: %llu queries, %zu modules; memory a rank, MB: activations %.0f, gradients and bases %.0f",
           w->c->queries, (unsigned long long)bg_tokens_sequences(w->queries), w->model->n_tracked,
           (double)bg_pass_bytes(w->model, rows, LOGITS_BYTES) * 1e-6,
           (double)(rows * (p + m) + 2 * pm + scratch + l + r + p * p + m * m) * 4e-6);
    bg_status st = bg_make_folder(w->work, err);
    if (st == BG_OK)
        st = bg_pass_new(&w->pass, w->model, rows, LOGITS_BYTES, err);
    if (st == BG_OK)
        st = BG_NEW(w->rotated_a, rows * m, "rotated activations", err);
    if (st == BG_OK)
        st = BG_NEW(w->rotated_d, rows * p, "rotated gradients", err);
    if (st == BG_OK)
        st = BG_NEW(w->gradient, pm, "query gradient", err);
    if (st == BG_OK)
        st = BG_NEW(w->scratch, scratch, "query gradient", err);
    if (st == BG_OK)
        st = BG_NEW(w->left, l, "query gradient", err);
    return st == BG_OK ? BG_NEW(w->right, r, "query gradient", err) : st;
}

/* ---- units: the gradient tap ---- */

static bg_status unit_path(const compress *w, uint64_t u, char out[BG_PATH_BYTES], bg_err *err)
{
    return bg_path(out, err, "%s/queries-%05llu.h5", w->work, (unsigned long long)u);
}

static bg_status unit_done(void *self, uint64_t u, bool *done, bg_err *err)
{
    compress *w = self;
    char path[BG_PATH_BYTES];
    bg_status st = unit_path(w, u, path, err);
    return st == BG_OK ? bg_store_is_done(path, w->in.run.fingerprint, done, err) : st;
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

static bg_status unit_begin(void *self, const bg_unit *unit, bg_err *err)
{
    compress *w = self;
    char path[BG_PATH_BYTES];
    w->unit_first = unit->first;
    w->unit_queries = unit->n_sequences;
    bg_status st = unit_path(w, unit->unit, path, err);
    if (st == BG_OK)
        st = bg_store_create(&w->unit, path, "bregman/work", &w->in.run, err);
    for (size_t i = 0; i < w->model->n_tracked && st == BG_OK; i++)
        st = make_datasets(w->unit, w->model->tracked[i], unit->n_sequences, columns(w, w->model->tracked[i]), true, err);
    return st;
}

static bg_status unit_end(void *self, const bg_unit *unit, bg_err *err)
{
    compress *w = self;
    bg_store *s = w->unit;
    (void)unit;
    w->unit = NULL;
    return bg_store_publish(s, NULL, err);
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
        st = write_query(w->unit, mod, query - w->unit_first, w->left, w->right, variance, error, (uint32_t)r, err);
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
static bg_status needed_columns(const compress *w, const bg_module *mod, bg_store *const *unit, uint64_t n_units,
                                uint32_t *out, bg_err *err)
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
    (void)w;
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
    bg_status st = needed_columns(w, mod, unit, n_units, &r, err);
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

static bg_status open_units(const compress *w, bg_store **unit, uint64_t n_units, bg_err *err)
{
    char path[BG_PATH_BYTES];
    bg_status st = BG_OK;
    for (uint64_t u = 0; u < n_units && st == BG_OK; u++) {
        st = unit_path(w, u, path, err);
        if (st == BG_OK)
            st = bg_store_open(&unit[u], path, "bregman/work", err);
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
        st = open_units(w, unit, n_units, err);
    if (st == BG_OK)
        st = bg_store_create(&s, w->c->output, "bregman/compressed", &w->in.run, err);
    if (st == BG_OK)
        st = write_head(w, s, err);
    for (size_t i = 0; i < w->model->n_tracked && st == BG_OK; i++)
        st = assemble_module(w, w->model->tracked[i], unit, n_units, s, sum, err);
    for (uint64_t u = 0; u < n_units && unit != NULL; u++)
        bg_store_close(unit[u]);
    st = bg_store_end(s, st, err);
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

bg_status compress_queries_run(const void *config, const bg_context *ctx, bg_err *err)
{
    compress w = { .c = config, .ctx = ctx };
    MPI_Comm world = ctx->grid.world;
    bool done = false;
    bg_status st = open_inputs(&w, err);
    if (st == BG_OK)
        st = hash_inputs(&w, err);
    st = bg_inputs_share(&w.in, ctx, w.c->seed, st, err);
    if (st != BG_OK)
        goto out;
    bg_broadcast(world, &w.model_hash, sizeof w.model_hash, 0);
    if (w.factors == NULL)
        st = open_factors(&w, err);
    if (st == BG_OK)
        st = bg_store_is_done(w.c->output, w.in.run.fingerprint, &done, err);
    st = bg_agree(world, st, err);
    if (st == BG_OK && done)
        bg_log("%s: already done", w.c->output);
    if (st != BG_OK || done)
        goto out;
    if ((st = bg_agree(world, open_memory(&w, err), err)) != BG_OK)
        goto out;

    bg_sweep s = {
        .what = "queries", .tokens = w.queries, .n_sequences = bg_tokens_sequences(w.queries),
        .unit_sequences = w.c->unit_queries, .tap = { query_pair, &w }, .self = &w,
        .is_done = unit_done, .begin_unit = unit_begin, .end_unit = unit_end,
    };
    st = bg_sweep_run(&s, w.pass, w.model, ctx->grid.data, err);
    if (st == BG_OK)
        st = bg_agree(world, ctx->grid.world_rank == 0 ? assemble(&w, bg_sweep_units(&s), err) : BG_OK, err);
out:
    bg_store_discard(w.unit);
    bg_pass_free(w.pass);
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
