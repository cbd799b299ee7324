/* assemble.c - compressed.h5 from the units' files, on rank 0. */
#include <math.h>
#include <string.h>

#include "bregman/log.h"
#include "bregman/memory.h"
#include "bregman/stop.h"
#include "compress_queries.h"

typedef struct {
    double variance, error, sampling;
} query_sum;

typedef struct {
    const compress_inputs *in;
    const compress_plan *plan;
    bg_units_reader *units;
    bg_store *to;
    uint32_t *needed;       /* [unit_queries] columns that a module's queries need */
    compressed_query query; /* in hand */
    query_sum *sum;         /* [n_queries] over all modules */
    double module_variance; /* of the module in hand, over all queries */
    size_t n_silent;        /* modules whose scores are all expected to be 0, and the first of them */
    const char *silent;
} assembly;

/* Columns that the module's queries need. */
static bg_status needed_columns(assembly *a, const bg_site *site, uint32_t *out, bg_err *err)
{
    char path[BG_PATH_BYTES];
    bg_status st = bg_path(path, err, "%s/rank", site->name);
    *out = 1;
    for (size_t i = 0; i < bg_units_runs(a->units) && st == BG_OK; i++) {
        bg_rows q;
        st = bg_units_read(a->units, i, &q, err);
        if (st == BG_OK)
            st = bg_store_read_rows(q.file, path, BG_U32, (bg_slab){ q.row, q.n, 1 }, a->needed, err);
        for (uint64_t k = 0; k < q.n && st == BG_OK; k++)
            *out = a->needed[k] > *out ? a->needed[k] : *out;
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
static bg_status copy_query(assembly *a, const bg_site *site, const bg_rows *rows, uint64_t k, size_t r, bg_err *err)
{
    size_t r_from = bg_queries_columns(site, a->plan->load.columns);
    query_sum *sum = &a->sum[rows->first + k];
    bg_status st = compress_read_query(rows->file, site, rows->row + k, r_from, &a->query, err);
    trim(a->query.left, site->n_out, r_from, r);
    trim(a->query.right, site->n_in1, r_from, r);
    sum->variance += a->query.variance;
    sum->error += a->query.error;
    sum->sampling += a->query.sampling;
    a->module_variance += a->query.variance;
    return st == BG_OK ? compress_write_query(a->to, site, rows->first + k, &a->query, COMPRESS_COLUMNS, err) : st;
}

static bg_status assemble_site(assembly *a, const bg_site *site, bg_err *err)
{
    uint32_t r;
    a->module_variance = 0;
    bg_status st = needed_columns(a, site, &r, err);
    if (st == BG_OK)
        st = compress_make_datasets(a->to, site, a->plan->units.n_sequences, r, COMPRESS_COLUMNS, err);
    for (size_t i = 0; i < bg_units_runs(a->units) && st == BG_OK; i++) {
        bg_rows q;
        st = bg_stop_check("assembling", err);
        if (st == BG_OK)
            st = bg_units_read(a->units, i, &q, err);
        for (uint64_t k = 0; k < q.n && st == BG_OK; k++)
            st = copy_query(a, site, &q, k, r, err);
    }
    if (st == BG_OK && a->module_variance <= 0 && a->n_silent++ == 0)
        a->silent = site->name;
    return st;
}

/* The squared norm that a training gradient of all modules is expected to have, where the factors say. */
static bg_status write_norm(assembly *a, bg_err *err)
{
    const bg_model *model = a->in->model;
    double sum = 0, mean;
    bg_status st = BG_OK;
    for (size_t i = 0; i < model->n_tracked && st == BG_OK; i++) {
        const bg_site *site = model->tracked[i];
        st = bg_factors_mean_lambda(a->in->factors, site, &mean, err);
        sum += mean * (double)site->n_out * (double)site->n_in1;
    }
    if (st != BG_OK || !isfinite(sum))
        return st;
    return bg_store_attr_f64(a->to, "/", "expected_squared_norm", sum, err);
}

static bg_status write_head(assembly *a, bg_err *err)
{
    const compress_inputs *in = a->in;
    uint64_t n = bg_tokens_sequences(in->queries);
    const char **id = NULL;
    const bg_hash *queries;
    bg_status st = bg_tokens_hashes(in->queries, &queries, err);
    if (st != BG_OK)
        return st;
    st = BG_NEW(id, n, "query ids", err);
    for (uint64_t q = 0; q < n && st == BG_OK; q++)
        id[q] = bg_tokens_query_id(in->queries, q);
    if (st == BG_OK)
        st = bg_store_write(a->to, "id", &n, id, err);
    const struct {
        const char *name, *text;
    } attr[] = {
        { "model_hash", in->model_hash.hex },
        { "queries_hash", queries->hex },
        { "tokenizer_hash", bg_tokens_tokenizer_hash(in->queries) },
        { "factors_fingerprint", bg_factors_fingerprint(in->factors) },
        { "modules", in->modules },
        { "preconditioner", bg_preconditioner_word[a->plan->damping.kind] },
    };
    for (size_t i = 0; i < sizeof attr / sizeof attr[0] && st == BG_OK; i++)
        st = bg_store_attr_text(a->to, "/", attr[i].name, attr[i].text, err);
    const bg_damping *d = &a->plan->damping;
    if (st == BG_OK)
        st = bg_store_attr_f64(a->to, "/", d->absolute ? "damping" : "damping_factor", d->damping, err);
    bg_free(id);
    return st == BG_OK ? write_norm(a, err) : st;
}

static void report_kept(const assembly *a)
{
    const bg_tokens *queries = a->in->queries;
    for (uint64_t q = 0; q < bg_tokens_sequences(queries); q++)
        bg_log("query %s: kept %.4f of the expected score variance", bg_tokens_query_id(queries, q),
               a->sum[q].variance > 0 ? 1.0 - a->sum[q].error / a->sum[q].variance : 1.0);
    if (a->n_silent > 0)
        bg_log("warning: %zu of %zu modules score 0, for example %s: its gradients are all 0, of the queries or of the "
               "sequences that the factors were fitted on",
               a->n_silent, a->in->model->n_tracked, a->silent);
}

/* How the refined solve went, query by query. */
static bg_status assemble_residuals(assembly *a, bg_err *err)
{
    uint64_t dims[2] = { a->plan->units.n_sequences, a->plan->refine.steps + 1 };
    double *x = NULL;
    if (a->plan->refine.kind == BG_REFINE_NONE)
        return BG_OK;
    bg_status st = BG_NEW(x, dims[1] * a->plan->units.unit_sequences, "residuals", err);
    if (st == BG_OK)
        st = bg_store_dataset(a->to, "residual", dims, err);
    for (size_t i = 0; i < bg_units_runs(a->units) && st == BG_OK; i++) {
        bg_rows q;
        st = bg_units_read(a->units, i, &q, err);
        if (st == BG_OK)
            st = bg_store_read_rows(q.file, "residual", BG_F64, (bg_slab){ q.row, q.n, dims[1] }, x, err);
        if (st == BG_OK)
            st = bg_store_write_rows(a->to, "residual", q.first, q.n, x, err);
    }
    bg_free(x);
    return st;
}

static bg_status assemble_losses(assembly *a, bg_err *err)
{
    const uint64_t n = a->plan->units.n_sequences;
    double *loss = NULL;
    bg_status st = BG_NEW(loss, n, "losses", err);
    if (st == BG_OK)
        st = bg_units_choose(a->units, BG_WHOLE_MODEL, err);
    for (size_t i = 0; i < bg_units_runs(a->units) && st == BG_OK; i++) {
        bg_rows q;
        st = bg_units_read(a->units, i, &q, err);
        if (st == BG_OK)
            st = bg_store_read_rows(q.file, "completion_loss", BG_F64, (bg_slab){ q.row, q.n, 1 }, loss + q.first, err);
    }
    if (st == BG_OK)
        st = bg_store_write(a->to, "query_loss", &n, loss, err);
    bg_free(loss);
    return st;
}

/* All modules, section after section. */
static bg_status assemble_modules(assembly *a, bg_err *err)
{
    const bg_model *model = a->in->model;
    bg_status st = bg_units_reader_new(&a->units, &a->plan->units, err);
    for (size_t i = 0; i < model->n_tracked && st == BG_OK; i++) {
        const bg_site *site = model->tracked[i];
        if (i == 0 || site->section != model->tracked[i - 1]->section)
            st = bg_units_choose(a->units, site->section, err);
        if (st == BG_OK && i == 0)
            st = assemble_residuals(a, err);
        if (st == BG_OK)
            st = assemble_site(a, site, err);
    }
    if (st == BG_OK)
        st = assemble_losses(a, err);
    bg_units_reader_free(a->units);
    return st;
}

static bg_status open_memory(assembly *a, bg_err *err)
{
    size_t floats[ARRAYS];
    compress_floats(&a->plan->load, bg_model_whole(a->plan->load.model).sites, 0, floats);
    bg_status st = BG_NEW(a->query.left, floats[LEFT], "queries", err);
    if (st == BG_OK)
        st = BG_NEW(a->query.right, floats[RIGHT], "queries", err);
    if (st == BG_OK)
        st = BG_NEW(a->sum, a->plan->units.n_sequences, "queries", err);
    return st == BG_OK ? BG_NEW(a->needed, a->plan->units.unit_sequences, "queries", err) : st;
}

bg_status compress_assemble(const compress_inputs *in, const compress_plan *plan, const compress_queries_config *c,
                            bg_err *err)
{
    assembly a = { .in = in, .plan = plan };
    bg_status st = open_memory(&a, err);
    if (st == BG_OK)
        st = bg_store_create(&a.to, c->output, "bregman/compressed", &in->identities.run, err);
    if (st == BG_OK)
        st = write_head(&a, err);
    if (st == BG_OK)
        st = assemble_modules(&a, err);
    st = bg_store_end_once(a.to, st, err);
    if (st == BG_OK) {
        report_kept(&a);
        bg_log("wrote %s", c->output);
    }
    bg_free(a.query.left);
    bg_free(a.query.right);
    bg_free(a.needed);
    bg_free(a.sum);
    return st;
}
