/* assemble.c - compressed.h5 from the units' files, on rank 0. */
#include <string.h>

#include "bregman/log.h"
#include "bregman/memory.h"
#include "bregman/stop.h"
#include "compress_queries.h"

/* Columns that the module's queries need. */
static bg_status needed_columns(compress *w, const bg_site *site, bg_units_reader *units, uint32_t *out, bg_err *err)
{
    char path[BG_PATH_BYTES];
    bg_status st = bg_path(path, err, "%s/rank", site->name);
    *out = 1;
    for (size_t i = 0; i < bg_units_runs(units) && st == BG_OK; i++) {
        bg_rows q;
        st = bg_units_read(units, i, &q, err);
        if (st == BG_OK)
            st = bg_store_read_rows(q.file, path, BG_U32, (bg_slab){ q.row, q.n, 1 }, w->columns_needed, err);
        for (uint64_t k = 0; k < q.n && st == BG_OK; k++)
            *out = w->columns_needed[k] > *out ? w->columns_needed[k] : *out;
    }
    return st;
}

/* Keep the first r of r_from columns of n rows, in place. */
static void trim(float *x, size_t n, size_t r_from, size_t r)
{
    for (size_t i = 0; i < n && r < r_from; i++)
        memmove(x + i * r, x + i * r_from, r * sizeof *x);
}

/* Row k of those in hand, with r columns. */
static bg_status copy_query(compress *w, const bg_site *site, const bg_rows *rows, uint64_t k, bg_store *to, size_t r,
                            bg_err *err)
{
    char path[BG_PATH_BYTES];
    size_t r_from = compress_columns(w, site);
    compressed_query q = { .left = w->left, .right = w->right };
    const struct {
        const char *name;
        bg_dtype type;
        size_t size;
        void *data;
    } set[] = {
        { "left", BG_F32, site->n_out * r_from, w->left },
        { "right", BG_F32, site->n_in1 * r_from, w->right },
        { "error", BG_F64, 1, &q.error },
        { "variance", BG_F64, 1, &q.variance },
    };
    bg_status st = BG_OK;
    for (size_t i = 0; i < 4 && st == BG_OK; i++) {
        st = bg_path(path, err, "%s/%s", site->name, set[i].name);
        if (st == BG_OK)
            st = bg_store_read_rows(rows->file, path, set[i].type, (bg_slab){ rows->row + k, 1, set[i].size },
                                    set[i].data, err);
    }
    trim(w->left, site->n_out, r_from, r);
    trim(w->right, site->n_in1, r_from, r);
    w->sum[rows->first + k].variance += q.variance;
    w->sum[rows->first + k].error += q.error;
    w->module_variance += q.variance;
    return st == BG_OK ? compress_write_query(to, site, rows->first + k, &q, err) : st;
}

static bg_status assemble_site(compress *w, const bg_site *site, bg_units_reader *units, bg_store *to, bg_err *err)
{
    uint32_t r;
    w->module_variance = 0;
    bg_status st = needed_columns(w, site, units, &r, err);
    if (st == BG_OK)
        st = compress_make_datasets(to, site, w->units.n_sequences, r, false, err);
    for (size_t i = 0; i < bg_units_runs(units) && st == BG_OK; i++) {
        bg_rows q;
        st = bg_stop_check("assembling", err);
        if (st == BG_OK)
            st = bg_units_read(units, i, &q, err);
        for (uint64_t k = 0; k < q.n && st == BG_OK; k++)
            st = copy_query(w, site, &q, k, to, r, err);
    }
    if (st == BG_OK && w->module_variance <= 0 && w->n_silent++ == 0)
        w->silent = site->name;
    return st;
}

static bg_status write_head(const compress *w, bg_store *s, bg_err *err)
{
    uint64_t n = bg_tokens_sequences(w->queries);
    const char **id = NULL;
    const bg_hash *queries;
    bg_status st = bg_tokens_hashes(w->queries, &queries, err);
    if (st != BG_OK)
        return st;
    st = BG_NEW(id, n, "query ids", err);
    for (uint64_t q = 0; q < n && st == BG_OK; q++)
        id[q] = bg_tokens_query_id(w->queries, q);
    if (st == BG_OK)
        st = bg_store_write(s, "id", &n, id, err);
    const struct {
        const char *name, *text;
    } attr[] = {
        { "model_hash", w->model_hash.hex },
        { "queries_hash", queries->hex },
        { "tokenizer_hash", bg_tokens_tokenizer_hash(w->queries) },
        { "factors_fingerprint", bg_factors_fingerprint(w->factors) },
        { "modules", w->modules },
        { "preconditioner", w->c->preconditioner },
    };
    for (size_t i = 0; i < sizeof attr / sizeof attr[0] && st == BG_OK; i++)
        st = bg_store_attr_text(s, "/", attr[i].name, attr[i].text, err);
    if (st == BG_OK)
        st = bg_store_attr_f64(s, "/", w->damping.absolute ? "damping" : "damping_factor", w->damping.damping, err);
    bg_free(id);
    return st;
}

static void report_kept(const compress *w)
{
    const query_sum *sum = w->sum;
    for (uint64_t q = 0; q < bg_tokens_sequences(w->queries); q++)
        bg_log("query %s: kept %.4f of the expected score variance", bg_tokens_query_id(w->queries, q),
               sum[q].variance > 0 ? 1.0 - sum[q].error / sum[q].variance : 1.0);
    if (w->n_silent > 0)
        bg_log("warning: %zu of %zu modules score 0, for example %s: its gradients are all 0, of the queries or of the "
               "sequences that the factors were fitted on",
               w->n_silent, w->model->n_tracked, w->silent);
}

/* All modules, block after block. */
static bg_status assemble_modules(compress *w, bg_store *to, bg_err *err)
{
    bg_units_reader *units = NULL;
    bg_status st = bg_units_reader_new(&units, &w->units, err);
    for (size_t i = 0; i < w->model->n_tracked && st == BG_OK; i++) {
        const bg_site *site = w->model->tracked[i];
        if (i == 0 || site->section != w->model->tracked[i - 1]->section)
            st = bg_units_choose(units, site->section, err);
        if (st == BG_OK)
            st = assemble_site(w, site, units, to, err);
    }
    bg_units_reader_free(units);
    return st;
}

bg_status compress_assemble(compress *w, bg_err *err)
{
    bg_store *s = NULL;
    bg_status st = BG_NEW(w->sum, w->units.n_sequences, "queries", err);
    if (st == BG_OK)
        st = BG_NEW(w->columns_needed, w->c->unit_queries, "queries", err);
    if (st == BG_OK)
        st = bg_store_create(&s, w->c->output, "bregman/compressed", &w->in.run, err);
    if (st == BG_OK)
        st = write_head(w, s, err);
    if (st == BG_OK)
        st = assemble_modules(w, s, err);
    st = bg_store_end_once(s, st, err);
    if (st == BG_OK) {
        report_kept(w);
        bg_log("wrote %s", w->c->output);
    }
    bg_free(w->columns_needed);
    bg_free(w->sum);
    return st;
}
