/* units.c - the gradient tap: a unit of queries, preconditioned and truncated, as one file per block of the model. */
#include <string.h>

#include "compress_queries.h"

#include "bregman/precondition.h"

size_t compress_columns(const compress *w, const bg_module *mod)
{
    size_t least = mod->n_out < mod->n_in1 ? mod->n_out : mod->n_in1;
    return w->most_columns < least ? w->most_columns : least;
}

size_t compress_pair_floats(const compress *w, const bg_share *share)
{
    size_t floats = 0;
    for (size_t i = share->first_tracked; i < share->end_tracked; i++)
        floats += w->model->tracked[i]->n_in1 + w->model->tracked[i]->n_out;
    return floats;
}

size_t compress_factor_floats(const compress *w, const bg_module *mod)
{
    size_t p = mod->n_out, m = mod->n_in1, k = bg_factors_blocks(w->factors);
    return p * bg_block_width(p, k) + m * bg_block_width(m, k) + p * m;
}

bg_status compress_unit_find(void *self, bool *done, uint64_t *part, bg_err *err)
{
    return bg_units_find(&((compress *)self)->units, done, part, err);
}

/* The five datasets of a module, with n queries and r columns. */
bg_status compress_make_datasets(bg_store *s, const bg_module *mod, uint64_t n, uint64_t r, bool ranks, bg_err *err)
{
    const struct {
        const char *name;
        uint64_t dims[3];
    } set[] = {
        { "left", { n, mod->n_out, r } },
        { "right", { n, mod->n_in1, r } },
        { "kept", { n } },
        { "error", { n } },
        { "variance", { n } },
        { "rank", { n } },
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
    w->pairs.rows = w->pairs.n_batches = w->pairs.n_queries = 0;
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
        const bg_module *mod = w->model->tracked[i];
        if (mod->block == block)
            st = compress_make_datasets(w->file[block], mod, g.end - g.first, compress_columns(w, mod), true, err);
    }
    *out = w->file[block];
    return st;
}

bg_status compress_write_query(bg_store *s, const bg_module *mod, uint64_t at, const compressed_query *q, bg_err *err)
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
        st = bg_path(path, err, "%s/%s", mod->name, set[i].name);
        if (st == BG_OK)
            st = bg_store_write_rows(s, path, at, 1, set[i].data, err);
    }
    return st;
}

/* A module whose pairs are worked off. */
typedef struct {
    const bg_module *mod;
    const bg_curvature *curvature;
    bg_store *file;
} task;

/* Query q of those held, from its rows a [rows, M] and d [rows, P] in the curvature's basis. */
static bg_status compress_query(compress *w, const task *t, size_t q, const float *a, const float *d, bg_err *err)
{
    const size_t *query_row = w->pairs.module[t->mod->index].query_row;
    uint64_t query = w->pairs.query[q];
    size_t p = t->mod->n_out, m = t->mod->n_in1, rows = query_row[q + 1] - query_row[q];
    const bg_truncation wanted = { w->gradient, compress_columns(w, t->mod), w->tolerance, w->c->seed,
                                   query * w->model->n_tracked + t->mod->index };
    bg_compressed made = { .left = w->left, .right = w->right };
    bg_gemm((bg_extent){ p, m, rows }, 1.0f, bg_f32(BG_T, d, p), bg_f32(BG_N, a, m), 0.0f, w->gradient, m);
    bg_curvature_divide(t->curvature, w->gradient);
    bg_status st = bg_compress(t->curvature, &wanted, w->scratch, &made, err);
    const compressed_query row = { w->left, w->right, made.variance, made.error, (uint32_t)made.needed };
    return st == BG_OK ? compress_write_query(t->file, t->mod, query - w->unit.first - w->kept, &row, err) : st;
}

/* A micro-batch of those held: its rows are rotated at once, a query's are a gradient, preconditioned and truncated in
 * the eigenbasis (a truncation there is one in the parameters' basis, the bases being orthogonal). */
static bg_status compress_batch(compress *w, const task *t, size_t batch, bg_err *err)
{
    const module_pairs *of = &w->pairs.module[t->mod->index];
    size_t p = t->mod->n_out, m = t->mod->n_in1, first = w->pairs.batch_query[batch],
           end = w->pairs.batch_query[batch + 1], row0 = of->query_row[first], rows = of->query_row[end] - row0;
    const float *a = of->activation + row0 * m, *d = of->gradient + row0 * p;
    bg_status st = BG_OK;
    if (t->curvature->rotated) {
        bg_blockdiag_apply(&t->curvature->factors.basis.q_a, BG_N, rows, a, m, w->rotated_a, m);
        bg_blockdiag_apply(&t->curvature->factors.basis.q_s, BG_N, rows, d, p, w->rotated_d, p);
        a = w->rotated_a;
        d = w->rotated_d;
    }
    for (size_t q = first; q < end && st == BG_OK; q++) {
        size_t row = of->query_row[q] - row0;
        st = compress_query(w, t, q, a + row * m, d + row * p, err);
    }
    return st;
}

/* The module's curvature, in *read unless it stays in memory, as it does where there is room. */
static bg_status curvature_of(compress *w, const bg_module *mod, bg_curvature *read, const bg_curvature **out,
                              bg_err *err)
{
    bg_curvature *held = &w->held[mod->index];
    uint64_t bytes = compress_factor_floats(w, mod) * sizeof(float);
    *out = held;
    if (held->p > 0)
        return BG_OK;
    if (bytes > w->room) {
        *out = read;
        return bg_curvature_read(w->factors, mod, w->damping, read, err);
    }
    w->room -= bytes;
    return bg_curvature_read(w->factors, mod, w->damping, held, err);
}

static bg_status compress_module(compress *w, const bg_module *mod, bg_err *err)
{
    bg_curvature read = { .p = 0 };
    task t = { .mod = mod };
    bg_status st = file_of(w, mod->block, &t.file, err);
    if (st == BG_OK)
        st = curvature_of(w, mod, &read, &t.curvature, err);
    for (size_t i = 0; i < w->pairs.n_batches && st == BG_OK; i++)
        st = compress_batch(w, &t, i, err);
    bg_curvature_clear(&read);
    return st;
}

/* All that is held, the modules in turn. */
static bg_status compress_held(compress *w, bg_err *err)
{
    bg_status st = BG_OK;
    for (size_t i = w->own.first_tracked; i < w->own.end_tracked && st == BG_OK && w->pairs.rows > 0; i++)
        if (!w->finished[w->model->tracked[i]->block]) {
            st = compress_module(w, w->model->tracked[i], err);
            bg_pass_poke(w->pass);
        }
    w->pairs.rows = w->pairs.n_batches = w->pairs.n_queries = 0;
    return st;
}

/* Make room for the batch's rows, and note its queries: no module has rows of them yet. */
static bg_status hold_batch(compress *w, const bg_batch *b, bg_err *err)
{
    compress_pairs *held = &w->pairs;
    bg_status st = held->rows + b->n_rows > held->room ? compress_held(w, err) : BG_OK;
    size_t first = held->n_queries;
    memcpy(held->query + first, b->sequence, b->n_sequences * sizeof *held->query);
    held->rows += b->n_rows;
    held->n_queries += b->n_sequences;
    held->batch_query[++held->n_batches] = held->n_queries;
    for (size_t i = w->own.first_tracked; i < w->own.end_tracked; i++) {
        size_t *row = held->module[i].query_row;
        for (size_t q = first; q < held->n_queries; q++)
            row[q + 1] = row[first];
    }
    return st;
}

void compress_batch_begin(void *self, const bg_batch *batch, uint64_t first)
{
    (void)batch;
    (void)first;
    ((compress *)self)->batch_begins = true;
}

/* The gradient tap: what comes is held until the unit's end, or until there is no more room. */
bg_status compress_pair(void *self, const bg_pair *pair, bg_err *err)
{
    compress *w = self;
    const bg_module *mod = pair->module;
    const module_pairs *to = &w->pairs.module[mod->index];
    size_t p = mod->n_out, m = mod->n_in1;
    bg_status st = w->batch_begins ? hold_batch(w, pair->batch, err) : BG_OK;
    w->batch_begins = false;
    if (st != BG_OK)
        return st;
    size_t first = w->pairs.n_queries - pair->batch->n_sequences, *row = to->query_row + first, i = 0;
    for (size_t z = 0; z < pair->batch->n_sequences; z++) {
        size_t n = 0;
        if (i < pair->n_sequences && bg_pair_sequence(pair, i) == z) {
            n = pair->row_start[i + 1] - pair->row_start[i];
            i++;
        }
        row[z + 1] = row[z] + n;
    }
    for (size_t k = 0; k < pair->n_rows; k++) {
        memcpy(to->activation + (row[0] + k) * m, pair->activation + k * pair->ld_activation, m * sizeof(float));
        memcpy(to->gradient + (row[0] + k) * p, pair->gradient + k * pair->ld_gradient, p * sizeof(float));
    }
    return BG_OK;
}

/* Publish the queries so far; those that follow go to new files. */
bg_status compress_unit_keep(void *self, const bg_unit *unit, uint64_t part, bg_pipeline *l, bg_err *err)
{
    compress *w = self;
    bg_status st = compress_held(w, err);
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
