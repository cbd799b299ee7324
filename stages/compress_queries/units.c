/* units.c - the gradient tap: a unit of queries, preconditioned and truncated, as one file per block of the model. */
#include "compress_queries.h"

#include "bregman/precondition.h"

size_t compress_columns(const compress *w, const bg_site *site) { return bg_queries_columns(site, w->most_columns); }

bg_status compress_unit_find(void *self, bool *done, uint64_t *part, bg_err *err)
{
    return bg_units_find(&((compress *)self)->units, done, part, err);
}

/* The five datasets of a module, with n queries and r columns. */
bg_status compress_make_datasets(bg_store *s, const bg_site *site, uint64_t n, uint64_t r, bool ranks, bg_err *err)
{
    const struct {
        const char *name;
        uint64_t dims[3];
    } set[] = {
        { "left", { n, site->n_out, r } },
        { "right", { n, site->n_in1, r } },
        { "kept", { n } },
        { "error", { n } },
        { "variance", { n } },
        { "rank", { n } },
    };
    bg_status st = BG_OK;
    for (size_t i = 0; i < (ranks ? 6 : 5) && st == BG_OK; i++) {
        char path[BG_PATH_BYTES];
        st = bg_path(path, err, "%s/%s", site->name, set[i].name);
        if (st == BG_OK)
            st = bg_store_dataset(s, path, set[i].dims, err);
    }
    return st;
}

/* What is being computed of the unit in hand for a block. */
static bg_segment segment_of(const compress *w, size_t block)
{
    return (bg_segment){ w->unit.unit, block, w->kept, w->unit.n_sequences };
}

bg_status compress_unit_begin(void *self, const bg_unit *unit, uint64_t part, bg_err *err)
{
    compress *w = self;
    (void)err;
    w->unit = *unit;
    w->kept = part;
    for (size_t b = w->own.first; b < w->own.end; b++) {
        const bg_segment g = segment_of(w, b);
        w->finished[b] = bg_units_has(&w->units, &g);
    }
    return BG_OK;
}

/* The file of a block, made when its first query comes. */
static bg_status file_of(compress *w, size_t block, bg_store **out, bg_err *err)
{
    const bg_segment g = segment_of(w, block);
    bg_status st = BG_OK;
    if ((*out = w->file[block]) != NULL)
        return BG_OK;
    st = bg_units_create(&w->file[block], &w->units, &g, err);
    for (size_t i = w->own.first_tracked; i < w->own.end_tracked && st == BG_OK; i++) {
        const bg_site *site = w->model->tracked[i];
        if (site->block == block)
            st = compress_make_datasets(w->file[block], site, g.end - g.first, compress_columns(w, site), true, err);
    }
    *out = w->file[block];
    return st;
}

/* Publish the queries so far; those that follow go to new files. */
bg_status compress_unit_keep(void *self, const bg_unit *unit, uint64_t part, bg_pipeline *l, bg_err *err)
{
    compress *w = self;
    bg_status st = BG_OK;
    (void)unit;
    (void)l;
    for (size_t b = w->own.first; b < w->own.end && st == BG_OK; b++) {
        const bg_segment g = segment_of(w, b);
        bg_store *s = w->file[b];
        w->file[b] = NULL;
        st = s == NULL ? BG_OK : bg_units_end(s, &w->units, &g, part, BG_OK, err);
    }
    w->kept = part;
    return st;
}

bg_status compress_unit_end(void *self, const bg_unit *unit, bg_pipeline *l, bg_err *err)
{
    return compress_unit_keep(self, unit, unit->n_sequences, l, err);
}

bg_status compress_write_query(bg_store *s, const bg_site *site, uint64_t at, const compressed_query *q, bg_err *err)
{
    float kept = q->variance > 0 ? (float)(1.0 - q->error / q->variance) : 1.0f;
    const struct {
        const char *name;
        const void *data;
    } set[] = {
        { "left", q->left },    { "right", q->right },        { "kept", &kept },
        { "error", &q->error }, { "variance", &q->variance }, { "rank", &q->columns },
    };
    bg_status st = BG_OK;
    for (size_t i = 0; i < (q->columns > 0 ? 6 : 5) && st == BG_OK; i++) {
        char path[BG_PATH_BYTES];
        st = bg_path(path, err, "%s/%s", site->name, set[i].name);
        if (st == BG_OK)
            st = bg_store_write_rows(s, path, at, 1, set[i].data, err);
    }
    return st;
}

/* Query z of the micro-batch, of which the pair may have no row. */
static bg_status compress_query(compress *w, const bg_curvature *c, bg_store *file, const bg_pair *pair, size_t z,
                                bg_err *err)
{
    const bg_site *site = pair->site;
    size_t p = site->n_out, m = site->n_in1, r0, rows = bg_pair_rows_of(pair, z, &r0);
    uint64_t query = pair->batch->sequence[z];
    const bg_truncation wanted = { w->gradient, compress_columns(w, site), w->tolerance, w->c->seed,
                                   query * w->model->n_tracked + site->index };
    bg_compressed made = { .left = w->left, .right = w->right };
    bg_gemm((bg_extent){ p, m, rows }, 1.0f, bg_f32(BG_T, pair->gradient + r0 * pair->ld_gradient, pair->ld_gradient),
            bg_f32(BG_N, pair->activation + r0 * pair->ld_activation, pair->ld_activation), 0.0f, w->gradient, m);
    bg_curvature_divide(c, w->gradient);
    bg_status st = bg_compress(c, &wanted, w->scratch, &made, err);
    const compressed_query q = { w->left, w->right, made.variance, made.error, (uint32_t)made.needed };
    return st == BG_OK ? compress_write_query(file, site, query - w->unit.first - w->kept, &q, err) : st;
}

/* The module's curvature, in *read unless it stays in memory, as it does where there is room. */
static bg_status curvature_of(compress *w, const bg_site *site, bg_curvature *read, const bg_curvature **out,
                              bg_err *err)
{
    bg_curvature *held = &w->held[site->index];
    uint64_t bytes = compress_factor_floats(&w->load, site) * sizeof(float);
    *out = held;
    if (held->p > 0)
        return BG_OK;
    if (bytes > w->room) {
        *out = read;
        return bg_curvature_read(w->factors, site, w->damping, read, err);
    }
    w->room -= bytes;
    return bg_curvature_read(w->factors, site, w->damping, held, err);
}

/* The gradient tap: rotate the rows of all queries, then a gradient a query, preconditioned and truncated in the
 * eigenbasis (a truncation there is one in the parameters' basis, the bases being orthogonal). */
bg_status compress_pair(void *self, const bg_pair *pair, bg_err *err)
{
    compress *w = self;
    const bg_site *site = pair->site;
    size_t rows = pair->n_rows;
    bg_pair in = *pair; /* in the curvature's basis */
    bg_curvature read = { .p = 0 };
    const bg_curvature *c;
    bg_store *file;
    if (w->finished[site->block])
        return BG_OK;
    bg_status st = file_of(w, site->block, &file, err);
    if (st == BG_OK)
        st = curvature_of(w, site, &read, &c, err);
    if (st != BG_OK)
        return st;
    if (c->rotated) {
        in.activation = w->rotated_a;
        in.ld_activation = site->n_in1;
        in.gradient = w->rotated_d;
        in.ld_gradient = site->n_out;
        bg_blockdiag_apply(&c->factors.basis.q_a, BG_N, rows, pair->activation, pair->ld_activation, w->rotated_a,
                           site->n_in1);
        bg_blockdiag_apply(&c->factors.basis.q_s, BG_N, rows, pair->gradient, pair->ld_gradient, w->rotated_d,
                           site->n_out);
    }
    for (size_t z = 0; z < pair->batch->n_sequences && st == BG_OK; z++)
        st = compress_query(w, c, file, &in, z, err);
    bg_curvature_clear(&read);
    return st;
}
