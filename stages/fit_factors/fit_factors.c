/* fit_factors.c - open, sum covariances, decompose, sum squares in the eigenbases, publish. */
#include "fit_factors.h"

#include <stdio.h>
#include <string.h>

#include "bregman/log.h"
#include "bregman/memory.h"

enum { LOGITS_BYTES = 64 << 20, ACTIVATION_BYTES = 512 << 20 };

bg_status fit_unit_path(const fit *f, const char *phase, uint64_t u, char out[BG_PATH_BYTES], bg_err *err)
{
    return bg_path(out, err, "%s/%s-%05llu.h5", f->work, phase, (unsigned long long)u);
}

bg_status fit_matrix_path(const fit *f, const bg_module *mod, const char *side, char out[BG_PATH_BYTES], bg_err *err)
{
    return bg_path(out, err, "%s/%s-%s.h5", f->work, side, mod->name);
}

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

static uint64_t unit_of(bg_range r, uint64_t asked)
{
    uint64_t n = r.end - r.begin, unit = (n + 63) / 64;
    unit = unit < 16 ? 16 : unit > 1024 ? 1024 : unit;
    return asked > 0 ? asked : unit;
}

/* Before hours of work, not after: the last token of a sequence is only a target and takes no position. */
static bg_status check_lengths(const fit *f, bg_err *err)
{
    size_t most = f->model->config.max_positions + 1;
    bg_status st = bg_tokens_check_longest(f->tokens, f->covariance.begin, f->covariance.end, most, err);
    return st == BG_OK ? bg_tokens_check_longest(f->tokens, f->lambda.begin, f->lambda.end, most, err) : st;
}

static bg_status open_inputs(fit *f, bg_err *err)
{
    const fit_factors_config *c = f->c;
    bg_status st = bg_model_open(&f->model, c->model, c->modules, err);
    if (st == BG_OK)
        st = bg_tokens_open(&f->tokens, c->tokens.item, c->tokens.n, err);
    if (st == BG_OK)
        st = bg_model_check_tokenizer(f->model, bg_tokens_tokenizer_hash(f->tokens), c->tokens.item[0], err);
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
    if (st == BG_OK)
        st = bg_path(f->work, err, "%s/work", c->output);
    return st == BG_OK ? bg_path(f->index, err, "%s/index.h5", c->output) : st;
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

static size_t batch_rows(const fit *f)
{
    uint64_t a = bg_tokens_longest(f->tokens, f->covariance.begin, f->covariance.end);
    uint64_t b = bg_tokens_longest(f->tokens, f->lambda.begin, f->lambda.end);
    size_t longest = a > b ? a : b;
    if (f->c->batch_tokens > 0)
        return f->c->batch_tokens < longest - 1 ? longest - 1 : f->c->batch_tokens;
    return bg_pass_rows_for(f->model, longest, ACTIVATION_BYTES);
}

static bg_status open_pass(fit *f, bg_err *err)
{
    const double mb = 1e-6;
    size_t rows = batch_rows(f), k = f->c->blocks;
    bg_log("%s: %zu tracked modules, %llu + %llu sequences, micro-batches of %zu rows", f->model->dir,
           f->model->n_tracked, (unsigned long long)(f->covariance.end - f->covariance.begin),
           (unsigned long long)(f->lambda.end - f->lambda.begin), rows);
    bg_log("memory a rank, MB: activations %.0f, covariance sums %.0f, then bases and eigenvalue sums %.0f; "
           "weights are mapped", (double)bg_pass_bytes(f->model, rows, LOGITS_BYTES) * mb,
           (double)bg_covariance_bytes(f->model, k) * mb,
           (double)bg_eigenvalues_bytes(f->model, k, !f->c->no_diagonal, rows) * mb);
    bg_status st = bg_make_folder(f->work, err);
    return st == BG_OK ? bg_pass_new(&f->pass, f->model, rows, LOGITS_BYTES, err) : st;
}

/* ---- units ---- */

static bg_status unit_done(const fit *f, const char *phase, uint64_t u, bool *done, bg_err *err)
{
    char path[BG_PATH_BYTES];
    bg_status st = fit_unit_path(f, phase, u, path, err);
    return st == BG_OK ? bg_store_is_done(path, f->in.run.fingerprint, done, err) : st;
}

typedef bg_status write_sums(const void *sums, bg_store *s, bg_err *err);

static bg_status publish_unit(const fit *f, const char *phase, const bg_unit *unit, write_sums *write,
                              const void *sums, bg_err *err)
{
    char path[BG_PATH_BYTES];
    bg_store *s = NULL;
    bg_status st = fit_unit_path(f, phase, unit->unit, path, err);
    if (st == BG_OK)
        st = bg_store_create(&s, path, "bregman/work", &f->in.run, err);
    if (st == BG_OK)
        st = bg_store_attr_u64(s, "/", "n_rows", unit->n_rows, err);
    if (st == BG_OK)
        st = bg_store_attr_u64(s, "/", "n_sequences", unit->n_sequences, err);
    if (st == BG_OK)
        st = bg_store_attr_f64(s, "/", "loss", unit->loss, err);
    if (st == BG_OK)
        st = write(sums, s, err);
    return bg_store_end(s, st, err);
}

typedef struct { fit *f; bg_covariance *sums; } covariance_work;

static bg_status covariance_done(void *self, uint64_t u, bool *done, bg_err *err)
{
    return unit_done(((covariance_work *)self)->f, "covariance", u, done, err);
}

static bg_status covariance_begin(void *self, const bg_unit *unit, bg_err *err)
{
    (void)unit;
    (void)err;
    bg_covariance_clear(((covariance_work *)self)->sums);
    return BG_OK;
}

static bg_status write_covariance(const void *sums, bg_store *s, bg_err *err)
{
    return bg_covariance_write(sums, s, err);
}

static bg_status covariance_end(void *self, const bg_unit *unit, bg_err *err)
{
    covariance_work *w = self;
    return publish_unit(w->f, "covariance", unit, write_covariance, w->sums, err);
}

typedef struct { fit *f; bg_eigenvalues *sums; } lambda_work;

static bg_status lambda_done(void *self, uint64_t u, bool *done, bg_err *err)
{
    return unit_done(((lambda_work *)self)->f, "lambda", u, done, err);
}

static bg_status lambda_begin(void *self, const bg_unit *unit, bg_err *err)
{
    (void)unit;
    (void)err;
    bg_eigenvalues_clear(((lambda_work *)self)->sums);
    return BG_OK;
}

static void lambda_batch(void *self, const bg_batch *batch, uint64_t first)
{
    (void)batch;
    (void)first;
    bg_eigenvalues_begin_batch(((lambda_work *)self)->sums);
}

static bg_status write_lambda(const void *sums, bg_store *s, bg_err *err)
{
    return bg_eigenvalues_write(sums, s, err);
}

static bg_status lambda_end(void *self, const bg_unit *unit, bg_err *err)
{
    lambda_work *w = self;
    return publish_unit(w->f, "lambda", unit, write_lambda, w->sums, err);
}

/* ---- phases ---- */

/* Labels given in a file, mapped; tensor name pseudo_cov or pseudo_lambda. */
static bg_status given_labels(const fit *f, bg_tensors **file, const char *name, bg_sweep *s, bg_err *err)
{
    if (f->c->labels == NULL)
        return BG_OK;
    bg_status st = bg_tensors_open_file(file, f->c->labels, err);
    if (st != BG_OK)
        return st;
    const bg_tensor *t = bg_tensors_find(*file, name);
    if (t == NULL || t->dtype != BG_ST_I64 || t->n_dims != 2)
        return BG_FAIL(err, BG_EFORMAT, "%s: no tensor '%s' of I64 [sequence, position]", f->c->labels, name);
    s->given_label = t->data;
    s->given_rows = t->shape[0];
    s->given_width = t->shape[1];
    return BG_OK;
}

static bg_sweep sweep_of(const fit *f, const char *what, bg_range r, uint64_t unit)
{
    return (bg_sweep){
        .what = what, .tokens = f->tokens, .begin = r.begin, .n_sequences = r.end - r.begin, .unit_sequences = unit,
        .labels = { .sampled = !f->c->empirical_fisher && f->c->labels == NULL, .seed = f->c->seed },
    };
}

static bg_status covariance_phase(fit *f, bg_err *err)
{
    covariance_work w = { f, NULL };
    bg_tensors *labels = NULL;
    bg_sweep s = sweep_of(f, "covariance", f->covariance, f->covariance_unit);
    bg_status st = bg_covariance_new(&w.sums, f->model, f->c->blocks, err);
    if (st == BG_OK)
        st = given_labels(f, &labels, "pseudo_cov", &s, err);
    st = bg_agree(f->ctx->grid.world, st, err);
    if (st == BG_OK) {
        s.tap = (bg_tap){ bg_covariance_pair, w.sums };
        s.self = &w;
        s.is_done = covariance_done;
        s.begin_unit = covariance_begin;
        s.end_unit = covariance_end;
        st = bg_sweep_run(&s, f->pass, f->model, f->ctx->grid.data, err);
    }
    bg_covariance_free(w.sums);
    bg_tensors_close(labels);
    return st;
}

static bg_status lambda_phase(fit *f, bg_err *err)
{
    lambda_work w = { f, NULL };
    bg_tensors *labels = NULL;
    bg_eigenbasis *basis = NULL;
    bg_sweep s = sweep_of(f, "eigenvalues", f->lambda, f->lambda_unit);
    bg_status st = fit_read_bases(f, &basis, err);
    if (st == BG_OK)
        st = bg_eigenvalues_new(&w.sums, f->model, basis, !f->c->no_diagonal, bg_pass_max_rows(f->pass), err);
    if (st == BG_OK)
        st = given_labels(f, &labels, "pseudo_lambda", &s, err);
    st = bg_agree(f->ctx->grid.world, st, err);
    if (st == BG_OK) {
        s.tap = (bg_tap){ bg_eigenvalues_pair, w.sums };
        s.self = &w;
        s.is_done = lambda_done;
        s.begin_unit = lambda_begin;
        s.begin_batch = lambda_batch;
        s.end_unit = lambda_end;
        st = bg_sweep_run(&s, f->pass, f->model, f->ctx->grid.data, err);
    }
    bg_eigenvalues_free(w.sums);
    bg_tensors_close(labels);
    fit_free_bases(f, basis);
    return st;
}

bg_status fit_factors_run(const void *config, const bg_context *ctx, bg_err *err)
{
    fit f = { .c = config, .ctx = ctx };
    MPI_Comm world = ctx->grid.world;
    bool done = false;
    bg_status st = open_inputs(&f, err);
    if (st == BG_OK)
        st = hash_inputs(&f, err);
    st = bg_inputs_share(&f.in, ctx, f.c->seed, st, err);
    if (st != BG_OK)
        goto out;
    st = bg_agree(world, bg_store_is_done(f.index, f.in.run.fingerprint, &done, err), err);
    if (st == BG_OK && done)
        bg_log("%s: already done", f.index);
    if (st != BG_OK || done)
        goto out;

    st = bg_agree(world, open_pass(&f, err), err);
    if (st == BG_OK)
        st = covariance_phase(&f, err);
    if (st == BG_OK)
        st = fit_decompose(&f, err);
    if (st == BG_OK)
        st = lambda_phase(&f, err);
    if (st == BG_OK)
        st = fit_publish(&f, err);
out:
    bg_pass_free(f.pass);
    bg_tokens_close(f.tokens);
    bg_model_close(f.model);
    bg_inputs_clear(&f.in);
    return st;
}
