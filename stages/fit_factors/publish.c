/* publish.c - a file of factors for each section from the work files, and the index over them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/log.h"
#include "bregman/memory.h"
#include "bregman/stop.h"
#include "fit_factors.h"

/* Room for a panel of rows on its way from file to file. */
enum { PANEL_FLOATS = 4 << 20 };
typedef struct {
    float *x, *half; /* a mean, and that of the first half of the units */
    double *sum;
    size_t n;         /* elements of each: at least a row of everything */
    bg_notice notice; /* is there a reason to end? */
} panel;

static bg_status panel_new(const fit *f, panel *m, bg_err *err)
{
    *m = (panel){ .n = PANEL_FLOATS };
    for (size_t i = 0; i < f->in.model->n_tracked; i++) {
        const bg_site *site = f->in.model->tracked[i];
        m->n = site->n_in1 > m->n ? site->n_in1 : m->n;
        m->n = site->n_out > m->n ? site->n_out : m->n;
    }
    bg_status st = BG_NEW(m->x, m->n, "factors", err);
    if (st == BG_OK)
        st = BG_NEW(m->half, m->n, "factors", err);
    return st == BG_OK ? BG_NEW(m->sum, m->n, "factors", err) : st;
}

static void panel_free(panel *m)
{
    bg_free(m->x);
    bg_free(m->half);
    bg_free(m->sum);
}

/* Before a panel. */
static bg_status go_on(panel *m, bg_err *err)
{
    if (bg_stop_heard(&m->notice))
        return BG_FAIL(err, BG_ESTOPPED, "publication: stopped on request; finished blocks are kept");
    return BG_OK;
}

/* All of a dataset (eigenvalues: of one axis) of a matrix's work file. */
static bg_status copy_dataset(const bg_store *from, bg_store *to, const char *path, bg_dtype type, bg_slab all,
                              panel *m, bg_err *err)
{
    uint64_t dims[2] = { all.n, all.row_size }, rows = m->n / all.row_size;
    void *data = type == BG_F64 ? (void *)m->sum : (void *)m->x;
    bg_status st = bg_store_dataset(to, path, dims, err);
    for (uint64_t first = 0; first < all.n && st == BG_OK; first += rows) {
        uint64_t w = all.n - first < rows ? all.n - first : rows;
        if ((st = go_on(m, err)) == BG_OK)
            st = bg_store_read_rows(from, path, type, (bg_slab){ first, w, all.row_size }, data, err);
        if (st == BG_OK)
            st = bg_store_write_rows(to, path, first, w, data, err);
    }
    return st;
}

/* How many positions are in a covariance, or how many ranks decomposed it together: its rounding depends on that. */
static bg_status copy_number(const bg_store *from, bg_store *to, const char *path, const char *name, bg_err *err)
{
    uint64_t n = 0;
    bg_status st = bg_store_get_u64(from, path, name, &n, NULL, err);
    return st == BG_OK ? bg_store_attr_u64(to, path, name, n, err) : st;
}

/* Covariance, eigenvectors and eigenvalues of one side, from its work file. */
static bg_status copy_matrix(const fit *f, bg_store *to, const bg_site *site, bg_factor_side side, panel *m,
                             bg_err *err)
{
    char path[BG_PATH_BYTES];
    bg_symmetric sym = side == BG_SIDE_INPUT ? site->a : site->s;
    size_t n = sym.n, width = bg_block_width(n, sym.k);
    const struct {
        const char *name;
        bg_dtype type;
        size_t width;
    } what[] = {
        { "covariance", BG_F32, width },
        { "eigenvectors", BG_F32, width },
        { "eigenvalues", BG_F64, 1 },
    };
    bg_store *from = NULL;
    bg_status st = fit_open_matrix(f, site, side, &from, err);
    for (size_t i = 0; i < sizeof what / sizeof what[0] && st == BG_OK; i++) {
        st = bg_path(path, err, "%s/%s_%s", site->name, fit_side_name(f, side), what[i].name);
        if (st == BG_OK)
            st = copy_dataset(from, to, path, what[i].type, (bg_slab){ 0, n, what[i].width }, m, err);
        if (st == BG_OK)
            st = bg_store_attr_u64(to, path, "blocks", sym.k, err);
        if (st == BG_OK && i < 2)
            st = copy_number(from, to, path, i == 0 ? "n_tokens" : "ranks", err);
        if (st == BG_OK && i == 0 && f->kind == BG_FACTORS_SHAMPOO)
            st = bg_store_attr_u64(to, path, "n_sequences", fit_covariance_sequences(f), err);
    }
    bg_store_close(from);
    return st;
}

/* A module that shares its input links to the one copy. */
static bg_status link_activation(bg_store *to, const bg_site *owner, const bg_site *site, bg_err *err)
{
    static const char *const what[] = { "covariance", "eigenvectors", "eigenvalues" };
    char target[BG_PATH_BYTES], path[BG_PATH_BYTES];
    bg_status st = BG_OK;
    for (int i = 0; i < 3 && st == BG_OK; i++) {
        st = bg_path(target, err, "%s/activation_%s", owner->name, what[i]);
        if (st == BG_OK)
            st = bg_path(path, err, "%s/activation_%s", site->name, what[i]);
        if (st == BG_OK)
            st = bg_store_link(to, target, path, err);
    }
    return st;
}

/* What is averaged over sequences (M8). */
typedef struct {
    const char *name;          /* of the units' sums "NAME_sum", of the result "NAME", of its half "NAME_half" */
    bool halved;               /* also for the first half of the units */
    double n_of_half, entries; /* sequences of that; sum of all entries of the result [out] */
} squares;

static uint64_t lambda_sequences(const fit *f) { return f->plan.lambda.range.end - f->plan.lambda.range.begin; }

/* Rows of it: the units' sums in order in float64, over the number of sequences. */
static bg_status mean_panel(const fit *f, const bg_site *site, bg_units_reader *units, squares *what, bg_slab rows,
                            panel *m, bg_err *err)
{
    char dataset[BG_PATH_BYTES];
    size_t n = rows.n * rows.row_size, n_units = bg_units_runs(units);
    bg_status st = bg_path(dataset, err, "%s/%s_sum", site->name, what->name);
    memset(m->sum, 0, n * sizeof *m->sum);
    for (size_t u = 0; u < n_units && st == BG_OK; u++) {
        bg_rows unit;
        st = bg_units_read(units, u, &unit, err);
        if (st == BG_OK)
            st = bg_store_read_rows(unit.file, dataset, BG_F32, rows, m->x, err);
        for (size_t i = 0; i < n && st == BG_OK; i++)
            m->sum[i] += (double)m->x[i];
        for (size_t i = 0; i < n && st == BG_OK && what->halved && u + 1 == n_units / 2; i++)
            m->half[i] = (float)(m->sum[i] / what->n_of_half);
    }
    for (size_t i = 0; i < n; i++) {
        m->x[i] = (float)(m->sum[i] / (double)lambda_sequences(f));
        what->entries += (double)m->x[i];
    }
    return st;
}

static bg_status write_panels(const fit *f, bg_store *to, const bg_site *site, bg_units_reader *units, squares *what,
                              panel *m, bg_err *err)
{
    char mean[BG_PATH_BYTES], half[BG_PATH_BYTES];
    size_t rows = m->n / site->n_in1;
    bg_status st = bg_path(mean, err, "%s/%s", site->name, what->name);
    if (st == BG_OK)
        st = bg_path(half, err, "%s/%s_half", site->name, what->name);
    for (size_t first = 0; first < site->n_out && st == BG_OK; first += rows) {
        size_t w = site->n_out - first < rows ? site->n_out - first : rows;
        if ((st = go_on(m, err)) == BG_OK)
            st = mean_panel(f, site, units, what, (bg_slab){ first, w, site->n_in1 }, m, err);
        if (st == BG_OK)
            st = bg_store_write_rows(to, mean, first, w, m->x, err);
        if (st == BG_OK && what->halved)
            st = bg_store_write_rows(to, half, first, w, m->half, err);
    }
    return st;
}

/* A dataset for it, and what it is of. */
static bg_status make_mean(bg_store *to, const bg_site *site, const char *name, uint64_t n_sequences, bg_err *err)
{
    char dataset[BG_PATH_BYTES];
    uint64_t dims[2] = { site->n_out, site->n_in1 };
    bg_status st = bg_path(dataset, err, "%s/%s", site->name, name);
    if (st == BG_OK)
        st = bg_store_dataset(to, dataset, dims, err);
    return st == BG_OK ? bg_store_attr_u64(to, dataset, "n_sequences", n_sequences, err) : st;
}

static bg_status write_mean(const fit *f, bg_store *to, const bg_site *site, bg_units_reader *units, const char *name,
                            panel *m, bg_err *err)
{
    char dataset[BG_PATH_BYTES];
    uint64_t of_half = bg_units_runs(units) / 2 * f->plan.lambda.units.unit_sequences;
    squares what = { name, strcmp(name, "lambda") == 0 && of_half > 0, (double)of_half, 0 };
    bg_status st = bg_path(dataset, err, "%s/%s", site->name, name);
    if (st == BG_OK)
        st = make_mean(to, site, name, lambda_sequences(f), err);
    if (st == BG_OK && what.halved)
        st = make_mean(to, site, "lambda_half", of_half, err);
    if (st == BG_OK)
        st = write_panels(f, to, site, units, &what, m, err);
    if (st == BG_OK)
        st = bg_store_attr_f64(to, dataset, "mean", what.entries / (double)(site->n_out * site->n_in1), err);
    return st == BG_OK ? bg_store_attr_u64(to, dataset, "n_tokens", f->plan.lambda.rows, err) : st;
}

static bg_status write_site(const fit *f, bg_store *to, const bg_site *site, bg_units_reader *units, panel *m,
                            bg_err *err)
{
    bg_status st = copy_matrix(f, to, site, BG_SIDE_OUTPUT, m, err);
    if (st == BG_OK)
        st = bg_site_owns_input(site) ? copy_matrix(f, to, site, BG_SIDE_INPUT, m, err)
                                      : link_activation(to, f->in.model->tracked[site->keeper], site, err);
    if (st == BG_OK)
        st = write_mean(f, to, site, units, "lambda", m, err);
    if (st == BG_OK && !f->c->no_diagonal)
        st = write_mean(f, to, site, units, "diagonal", m, err);
    return st;
}

static bg_status create_file(const fit *f, const char *path, bg_store **out, bg_err *err)
{
    bg_status st = bg_store_create(out, path, "bregman/factors", &f->in.files.run, err);
    return st == BG_OK ? bg_factor_kind_write(*out, f->kind, err) : st;
}

static bg_status write_section(const fit *f, const bg_section *section, bg_units_reader *units, panel *m, bg_err *err)
{
    char path[BG_PATH_BYTES];
    bool done = false;
    bg_store *s = NULL;
    bg_status st = bg_factors_section_path(f->c->output, section->number, path, err);
    if (st == BG_OK)
        st = bg_store_is_done(path, f->in.files.run.fingerprint, &done, err);
    if (st != BG_OK || done)
        return st;
    st = bg_units_choose(units, section->number, err);
    if (st == BG_OK)
        st = create_file(f, path, &s, err);
    for (size_t i = section->first; i < section->end && st == BG_OK; i++)
        st = write_site(f, s, f->in.model->tracked[i], units, m, err);
    return bg_store_end_once(s, st, err);
}

/* One file to open: links to every module's group, and what holds for all. */
static bg_status write_index(const fit *f, bg_err *err)
{
    bg_store *s = NULL;
    bg_status st = create_file(f, f->plan.index, &s, err);
    for (size_t i = 0; i < f->in.model->n_tracked && st == BG_OK; i++) {
        const bg_site *site = f->in.model->tracked[i];
        char file[BG_PATH_BYTES], target[BG_PATH_BYTES];
        st = bg_factors_section_path(f->c->output, site->section, file, err);
        if (st == BG_OK)
            st = bg_path(target, err, "/%s", site->name);
        if (st == BG_OK)
            st = bg_store_link_external(s, bg_base_name(file), target, target, err);
    }
    const struct {
        const char *name;
        uint64_t value;
    } number[] = {
        { "blocks", f->c->blocks },
        { "covariance_n_tokens", f->plan.covariance.rows },
        { "covariance_n_sequences", fit_covariance_sequences(f) },
        { "lambda_n_tokens", f->plan.lambda.rows },
        { "lambda_n_sequences", f->plan.lambda.range.end - f->plan.lambda.range.begin },
    };
    for (size_t i = 0; i < sizeof number / sizeof number[0] && st == BG_OK; i++)
        st = bg_store_attr_u64(s, "/", number[i].name, number[i].value, err);
    if (st == BG_OK)
        st = bg_store_attr_text(s, "/", "modules", f->c->modules, err);
    if (st == BG_OK)
        st = bg_store_attr_text(s, "/", "model_hash", f->in.model_hash.hex, err);
    return bg_store_end_once(s, st, err);
}

bg_status fit_publish(fit *f, bg_err *err)
{
    const bg_grid *g = &f->ctx->grid;
    panel m;
    bg_units_reader *units = NULL;
    bg_status st = panel_new(f, &m, err);
    if (st == BG_OK)
        st = bg_units_reader_new(&units, &f->plan.lambda.units, err);
    bg_notice_begin(&m.notice, g->world);
    for (size_t i = 0; i < f->in.model->n_sections && st == BG_OK; i++)
        if ((int)(i % (size_t)g->world_size) == g->world_rank)
            st = write_section(f, &f->in.model->section[i], units, &m, err);
    if (st != BG_OK)
        bg_notice_say(&m.notice, BG_NOTICE_END);
    bg_stop_wait(&m.notice);
    bg_units_reader_free(units);
    panel_free(&m);
    if ((st = bg_agree(g->world, st, err)) != BG_OK)
        return st;
    if (g->world_rank == 0) {
        st = write_index(f, err);
        if (st == BG_OK)
            bg_log("wrote %s", f->plan.index);
    }
    return bg_agree(g->world, st, err);
}
