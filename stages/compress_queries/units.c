/* units.c - the gradient tap: a unit of queries, preconditioned and truncated, as a file a block of the model. */
#include "compress_queries.h"

#include "bregman/precondition.h"

size_t compress_columns(const compress *w, const bg_module *mod)
{
    size_t least = mod->n_out < mod->n_in1 ? mod->n_out : mod->n_in1;
    return w->rank < least ? w->rank : least;
}

bg_status compress_unit_path(const compress *w, uint64_t u, size_t block, char out[BG_PATH_BYTES], bg_err *err)
{
    return bg_path(out, err, "%s/queries-%05llu-block-%03zu.h5", w->work, (unsigned long long)u, block);
}

/* The first tracked module after i that is of another block. */
size_t compress_next_block(const compress *w, size_t i)
{
    size_t block = w->model->tracked[i]->block;
    while (i < w->model->n_tracked && w->model->tracked[i]->block == block)
        i++;
    return i;
}

static bg_status block_done(const compress *w, uint64_t u, size_t block, bool *done, bg_err *err)
{
    char path[BG_PATH_BYTES];
    bg_status st = compress_unit_path(w, u, block, path, err);
    return st == BG_OK ? bg_store_is_done(path, w->in.run.fingerprint, done, err) : st;
}

bg_status compress_unit_find(void *self, bool *done, uint64_t *part, bg_err *err)
{
    const compress *w = self;
    bg_status st = BG_OK;
    (void)part;
    for (uint64_t u = 0; u * w->c->unit_queries < bg_tokens_sequences(w->queries) && st == BG_OK; u++) {
        done[u] = true;
        for (size_t i = 0; i < w->model->n_tracked && done[u] && st == BG_OK; i = compress_next_block(w, i))
            st = block_done(w, u, w->model->tracked[i]->block, &done[u], err);
    }
    return st;
}

/* The five datasets of a module, with n queries and r columns. */
bg_status compress_make_datasets(bg_store *s, const bg_module *mod, uint64_t n, uint64_t r, bool ranks, bg_err *err)
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
    bg_status st = compress_unit_path(w, unit->unit, block, path, err);
    if (st == BG_OK)
        st = bg_store_create(&w->unit[block], path, "bregman/work", &w->in.run, err);
    for (size_t i = w->own.first_tracked; i < w->own.end_tracked && st == BG_OK; i++) {
        const bg_module *mod = w->model->tracked[i];
        if (mod->block == block)
            st = compress_make_datasets(w->unit[block], mod, unit->n_sequences, compress_columns(w, mod), true, err);
    }
    return st;
}

/* Blocks that were finished before have no file open, and are passed over. */
bg_status compress_unit_begin(void *self, const bg_unit *unit, uint64_t part, bg_err *err)
{
    compress *w = self;
    bg_status st = BG_OK;
    (void)part;
    w->unit_first = unit->first;
    for (size_t i = w->own.first_tracked; i < w->own.end_tracked && st == BG_OK; i = compress_next_block(w, i)) {
        bool done = false;
        st = block_done(w, unit->unit, w->model->tracked[i]->block, &done, err);
        if (st == BG_OK && !done)
            st = create_unit(w, unit, w->model->tracked[i]->block, err);
    }
    return st;
}

bg_status compress_unit_end(void *self, const bg_unit *unit, bg_pipeline *l, bg_err *err)
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

bg_status compress_write_query(bg_store *s, const bg_module *mod, uint64_t at, const float *left, const float *right,
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
    size_t p = mod->n_out, m = mod->n_in1, r = compress_columns(w, mod);
    size_t r0 = pair->batch->row_start[z], rows = pair->batch->row_start[z + 1] - r0;
    uint64_t query = pair->batch->sequence[z];
    double variance, error;
    bg_gemm(BG_T, BG_N, p, m, rows, 1.0f, d + r0 * ldd, ldd, a + r0 * lda, lda, 0.0f, w->gradient, m);
    bg_curvature_divide(c, w->gradient);
    bg_status st = bg_compress(c, w->gradient, w->tolerance, w->c->seed, query * w->model->n_tracked + mod->index,
                               w->scratch, &r, w->left, w->right, &variance, &error, err);
    if (st == BG_OK)
        st = compress_write_query(w->unit[mod->block], mod, query - w->unit_first, w->left, w->right, variance, error, (uint32_t)r, err);
    return st;
}

/* The gradient tap: rotate the rows of all queries, then a gradient a query, preconditioned and truncated in the
 * eigenbasis (a truncation there is one in the parameters' basis, the bases being orthogonal). */
bg_status compress_pair(void *self, const bg_pair *pair, bg_err *err)
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
