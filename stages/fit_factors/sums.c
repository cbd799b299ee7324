/* sums.c - the sums over the corpus, covariances (M6) and squares in the eigenbases (M8): a file a unit and block
 * of the model, so that the next run may have another grid or other passes over the modules.
 *
 * PHASE-UUUUU-block-BBB.h5 holds a finished unit; PHASE-UUUUU-block-BBB.part-NNNNNN.h5 its first N sequences.  Of a
 * block's parts the last two stay: a job may end while its ranks write the last. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bregman/memory.h"
#include "fit_factors.h"

/* What is the same of both sums. */
typedef struct {
    const char *name;                  /* "covariance", "lambda" */
    void *sums;
    void (*clear)(void *sums);
    bg_status (*write)(const void *sums, size_t block, bg_store *s, bg_err *err);
    bg_status (*read)(void *sums, size_t block, const bg_store *s, bg_err *err);
} summed;

typedef struct {
    fit *f;
    summed kind;
    size_t pass;                       /* of f->plan.passes */
    uint64_t part_before;              /* the part kept before the last one */
    uint64_t last_part;
    bool *finished;                    /* [n_blocks] the unit's file of this block is there already */
} phase;

/* ---- which blocks ---- */

/* The blocks of a share that pass `pass` of `passes` is for. */
static bg_run pass_blocks(const bg_share *s, size_t pass, size_t passes)
{
    size_t n = s->end - s->first;
    return (bg_run){ s->first + pass * n / passes, s->first + (pass + 1) * n / passes };
}

static bg_run pass_modules(const fit *f, size_t pass, size_t passes)
{
    bg_run blocks = pass_blocks(&f->own, pass, passes);
    return bg_model_tracked(f->model, blocks.first, blocks.end);
}

/* Is a block worked on in this pass, by whichever rank? */
static bool in_pass(const phase *p, size_t block)
{
    for (int r = 0; r < p->f->ctx->grid.pipeline_size; r++) {
        bg_run b = pass_blocks(&p->f->share[r], p->pass, p->f->plan.passes);
        if (block >= b.first && block < b.end)
            return fit_block_is_tracked(p->f, block);
    }
    return false;
}

/* This rank's blocks in the pass, one after the other; false at the end. */
static bool next_block(const phase *p, size_t *block)
{
    bg_run own = pass_blocks(&p->f->own, p->pass, p->f->plan.passes);
    if (*block < own.first)
        *block = own.first;
    while (*block < own.end && !fit_block_is_tracked(p->f, *block))
        ++*block;
    return *block < own.end;
}

/* ---- files ---- */

static bg_status part_path(const phase *p, uint64_t u, size_t block, uint64_t part, char out[BG_PATH_BYTES], bg_err *err)
{
    return bg_path(out, err, "%s/%s-%05llu-block-%03zu.part-%06llu.h5", p->f->work, p->kind.name, (unsigned long long)u,
                   block, (unsigned long long)part);
}

static bg_status is_done(const phase *p, const char *path, bool *done, bg_err *err)
{
    return bg_store_is_done(path, p->f->in.run.fingerprint, done, err);
}

static bg_status publish(const phase *p, const bg_unit *unit, size_t block, const char *path, uint64_t sequences, bg_err *err)
{
    bg_store *s = NULL;
    bg_status st = bg_store_create(&s, path, "bregman/work", &p->f->in.run, err);
    if (st == BG_OK)
        st = bg_store_attr_u64(s, "/", "n_rows", unit->n_rows, err);
    if (st == BG_OK)
        st = bg_store_attr_u64(s, "/", "n_sequences", sequences, err);
    if (st == BG_OK)
        st = p->kind.write(p->kind.sums, block, s, err);
    return bg_store_end(s, st, err);
}

static bg_status load_part(const phase *p, const char *path, size_t block, bg_err *err)
{
    bg_store *s = NULL;
    bg_status st = bg_store_open(&s, path, "bregman/work", err);
    if (st == BG_OK)
        st = p->kind.read(p->kind.sums, block, s, err);
    bg_store_close(s);
    return st;
}

/* ---- what is there, as world rank 0 looks for it ---- */

/* Are all of the pass's blocks finished, or else kept up to `part`? */
static bg_status all_there(const phase *p, uint64_t u, uint64_t part, bool *there, bg_err *err)
{
    char path[BG_PATH_BYTES];
    bg_status st = BG_OK;
    *there = true;
    for (size_t b = 0; b < p->f->model->config.n_blocks && *there && st == BG_OK; b++) {
        if (!in_pass(p, b))
            continue;
        st = fit_unit_path(p->f, p->kind.name, u, b, path, err);
        if (st == BG_OK)
            st = is_done(p, path, there, err);
        if (st != BG_OK || *there || part == 0)
            continue;
        st = part_path(p, u, b, part, path, err);
        if (st == BG_OK)
            st = is_done(p, path, there, err);
    }
    return st;
}

/* The furthest part of a unit that all blocks have; 0: none. */
static bg_status find_part(const phase *p, uint64_t u, uint64_t *part, bg_err *err)
{
    bg_status st = BG_OK;
    char prefix[64];
    DIR *folder = opendir(p->f->work);
    if (folder == NULL)
        return BG_FAIL(err, BG_EIO, "cannot read folder \"%s\": %s", p->f->work, strerror(errno));
    snprintf(prefix, sizeof prefix, "%s-%05llu-block-", p->kind.name, (unsigned long long)u);
    for (const struct dirent *e; st == BG_OK && (e = readdir(folder)) != NULL;) {
        unsigned long long n = 0;
        size_t block;
        char path[BG_PATH_BYTES];
        bool there = false;
        if (strncmp(e->d_name, prefix, strlen(prefix)) != 0
            || sscanf(e->d_name + strlen(prefix), "%zu.part-%llu", &block, &n) != 2 || n <= *part
            || part_path(p, u, block, n, path, NULL) != BG_OK || strcmp(path + strlen(p->f->work) + 1, e->d_name) != 0)
            continue;            /* a name that this stage gives, to the letter: sscanf takes signs and blanks too */
        st = all_there(p, u, n, &there, err);
        if (there)
            *part = n;
    }
    closedir(folder);
    return st;
}

static bg_status unit_find(void *self, bool *done, uint64_t *part, bg_err *err)
{
    const phase *p = self;
    bg_status st = BG_OK;
    uint64_t n = p->kind.name[0] == 'c' ? p->f->covariance_units : p->f->lambda_units;
    for (uint64_t u = 0; u < n && st == BG_OK; u++) {
        st = all_there(p, u, 0, &done[u], err);
        if (st == BG_OK && !done[u])
            st = find_part(p, u, &part[u], err);
    }
    return st;
}

/* ---- a unit on this rank ---- */

/* A block that is finished is summed up along, but not kept again. */
static bg_status unit_begin(void *self, const bg_unit *unit, uint64_t part, bg_err *err)
{
    phase *p = self;
    char path[BG_PATH_BYTES];
    bg_status st = BG_OK;
    p->kind.clear(p->kind.sums);
    p->part_before = 0;
    p->last_part = part;
    for (size_t b = 0; st == BG_OK && next_block(p, &b); b++) {
        st = fit_unit_path(p->f, p->kind.name, unit->unit, b, path, err);
        if (st == BG_OK)
            st = is_done(p, path, &p->finished[b], err);
        if (st != BG_OK || p->finished[b] || part == 0)
            continue;
        st = part_path(p, unit->unit, b, part, path, err);
        if (st == BG_OK)
            st = load_part(p, path, b, err);
    }
    return st;
}

/* A part is only a help to get on: if it cannot be removed, the folder will be, at the end. */
static void remove_part(const phase *p, uint64_t u, size_t block, uint64_t part)
{
    char path[BG_PATH_BYTES];
    bg_err ignored;
    if (part > 0 && part_path(p, u, block, part, path, &ignored) == BG_OK)
        unlink(path);
}

static bg_status unit_keep(void *self, const bg_unit *unit, uint64_t part, bg_pipeline *l, bg_err *err)
{
    (void)l;
    phase *p = self;
    char path[BG_PATH_BYTES];
    bg_status st = BG_OK;
    for (size_t b = 0; st == BG_OK && next_block(p, &b); b++) {
        if (p->finished[b])
            continue;
        st = part_path(p, unit->unit, b, part, path, err);
        if (st == BG_OK)
            st = publish(p, unit, b, path, part, err);
        if (st == BG_OK)
            remove_part(p, unit->unit, b, p->part_before);
    }
    p->part_before = p->last_part;
    p->last_part = part;
    return st;
}

static bg_status unit_end(void *self, const bg_unit *unit, bg_pipeline *l, bg_err *err)
{
    phase *p = self;
    char path[BG_PATH_BYTES];
    bg_status st = BG_OK;
    (void)l;
    for (size_t b = 0; st == BG_OK && next_block(p, &b); b++) {
        if (p->finished[b])
            continue;
        st = fit_unit_path(p->f, p->kind.name, unit->unit, b, path, err);
        if (st == BG_OK)
            st = publish(p, unit, b, path, unit->n_sequences, err);
        if (st != BG_OK)
            continue;
        remove_part(p, unit->unit, b, p->part_before);
        remove_part(p, unit->unit, b, p->last_part);
    }
    return st;
}

/* ---- the sweep ---- */

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
    s->given_file = f->c->labels;
    s->given_label = t->data;
    s->given_rows = t->shape[0];
    s->given_width = t->shape[1];
    return BG_OK;
}

static bg_status run_sweep(phase *p, const char *what, bg_range r, uint64_t unit, const char *labels, bg_sweep *s,
                           bg_status st, bg_err *err)
{
    const fit *f = p->f;
    bg_tensors *file = NULL;
    s->what = what;
    s->tokens = f->tokens;
    s->begin = r.begin;
    s->n_sequences = r.end - r.begin;
    s->unit_sequences = unit;
    s->labels = (bg_labels){ .sampled = !f->c->empirical_fisher && f->c->labels == NULL, .seed = f->c->seed };
    s->self = p;
    s->find = unit_find;
    s->begin_unit = unit_begin;
    s->end_unit = unit_end;
    s->keep_part = unit_keep;
    if (st == BG_OK)
        st = BG_NEW(p->finished, f->model->config.n_blocks, "list of blocks", err);
    if (st == BG_OK)
        st = given_labels(f, &file, labels, s, err);
    if ((st = bg_agree(f->ctx->grid.world, st, err)) == BG_OK)
        st = bg_sweep_run(s, f->pass, f->model, f->ctx, err);
    bg_tensors_close(file);
    bg_free(p->finished);
    return st;
}

static void clear_covariance(void *sums) { bg_covariance_clear(sums); }
static bg_status write_covariance(const void *sums, size_t block, bg_store *s, bg_err *err)
{
    return bg_covariance_write(sums, block, s, err);
}
static bg_status read_covariance(void *sums, size_t block, const bg_store *s, bg_err *err)
{
    return bg_covariance_read(sums, block, s, err);
}

static bg_status covariance_pass(fit *f, size_t pass, bg_err *err)
{
    bg_covariance *sums = NULL;
    bg_run modules = pass_modules(f, pass, f->plan.passes);
    bg_status st = bg_covariance_new(&sums, f->model, modules, f->c->blocks, f->plan.on_scratch ? f->ctx->scratch : NULL, err);
    phase p = { .f = f, .pass = pass, .kind = { "covariance", sums, clear_covariance, write_covariance, read_covariance } };
    bg_sweep s = { .tap = { bg_covariance_pair, sums } };
    st = run_sweep(&p, "covariance", f->covariance, f->covariance_unit, "pseudo_cov", &s, st, err);
    bg_covariance_free(sums);
    return st;
}

static void clear_lambda(void *sums) { bg_eigenvalues_clear(sums); }
static bg_status write_lambda(const void *sums, size_t block, bg_store *s, bg_err *err)
{
    return bg_eigenvalues_write(sums, block, s, err);
}
static bg_status read_lambda(void *sums, size_t block, const bg_store *s, bg_err *err)
{
    return bg_eigenvalues_read(sums, block, s, err);
}
static void begin_lambda_batch(void *self, const bg_batch *batch, uint64_t first)
{
    (void)batch;
    (void)first;
    bg_eigenvalues_begin_batch(((phase *)self)->kind.sums);
}

static bg_status lambda_pass(fit *f, size_t pass, bg_err *err)
{
    bg_eigenvalues *sums = NULL;
    bg_eigenbasis *basis = NULL;
    bg_run modules = pass_modules(f, pass, f->plan.passes);
    bg_status st = fit_read_bases(f, modules, &basis, err);
    if (st == BG_OK)
        st = bg_eigenvalues_new(&sums, f->model, modules, basis, !f->c->no_diagonal, f->plan.rows,
                                f->plan.on_scratch ? f->ctx->scratch : NULL, err);
    phase p = { .f = f, .pass = pass, .kind = { "lambda", sums, clear_lambda, write_lambda, read_lambda } };
    bg_sweep s = { .tap = { bg_eigenvalues_pair, sums }, .begin_batch = begin_lambda_batch };
    st = run_sweep(&p, "eigenvalues", f->lambda, f->lambda_unit, "pseudo_lambda", &s, st, err);
    bg_eigenvalues_free(sums);
    fit_free_bases(f, basis);
    return st;
}

bg_status fit_sum_covariance(fit *f, bg_err *err)
{
    bg_status st = BG_OK;
    for (size_t pass = 0; pass < f->plan.passes && st == BG_OK; pass++)
        st = covariance_pass(f, pass, err);
    return st;
}

bg_status fit_sum_lambda(fit *f, bg_err *err)
{
    bg_status st = BG_OK;
    for (size_t pass = 0; pass < f->plan.passes && st == BG_OK; pass++)
        st = lambda_pass(f, pass, err);
    return st;
}

/* ---- memory ---- */

size_t fit_bytes(const void *fit_, const bg_plan *plan)
{
    const fit *f = fit_;
    size_t most = 0;
    for (size_t pass = 0; pass < plan->passes; pass++) {
        bg_run m = pass_modules(f, pass, plan->passes);
        size_t covariance = plan->on_scratch ? 0 : bg_covariance_bytes(f->model, m, f->c->blocks);
        size_t lambda = (plan->on_scratch ? 0 : bg_eigenvalues_bytes(f->model, m, !f->c->no_diagonal))
            + bg_eigenvalues_other_bytes(f->model, m, f->c->blocks, !f->c->no_diagonal, plan->rows);
        most = covariance > most ? covariance : most;
        most = lambda > most ? lambda : most;
    }
    size_t decompose = fit_decompose_bytes(f);
    most = decompose > most ? decompose : most;
    return most + bg_pipeline_pass_bytes(f->model, &f->own, &f->ctx->grid, plan->rows);
}
