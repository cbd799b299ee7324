#include "bregman/factors.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/memory.h"

struct bg_factors {
    bg_store *index;
    char path[BG_PATH_BYTES];
    char *fingerprint;
    bg_factor_kind kind;
    uint64_t k, n_tokens, n_sequences;
};

static bg_status dataset(char path[BG_PATH_BYTES], const bg_site *site, const char *name, bg_err *err)
{
    return bg_path(path, err, "%s/%s", site->name, name);
}

/* "activation_eigenvectors" and the like, as the kind of factors names them. */
enum { SIDE_DATASET_BYTES = 40 };
static const char *of_side(const bg_factors *f, bg_factor_side side, const char *what, char out[SIDE_DATASET_BYTES])
{
    snprintf(out, SIDE_DATASET_BYTES, "%s_%s", bg_factor_side_name(f->kind, side), what);
    return out;
}

/* What is read later is as the model makes it: said before any work begins. */
static bg_status check_shape(const bg_factors *f, const bg_site *site, const char *name, uint64_t rows,
                             uint64_t columns, bg_err *err)
{
    char path[BG_PATH_BYTES];
    uint64_t dims[2];
    bg_status st = dataset(path, site, name, err);
    if (st == BG_OK)
        st = bg_store_dims(f->index, path, 2, dims, err);
    if (st == BG_OK && (dims[0] != rows || dims[1] != columns))
        st = BG_FAIL(err, BG_ESHAPE,
                     "%s: %s is [%" PRIu64 ", %" PRIu64 "], but the model makes it [%" PRIu64 ", %" PRIu64 "]", f->path,
                     path, dims[0], dims[1], rows, columns);
    return st;
}

/* A file of the folder is believed only as its MANIFEST lists it. */
static bg_status check_listed(const char *path, bg_err *err)
{
    bool done = false;
    bg_status st = bg_store_is_done(path, NULL, &done, err);
    if (st == BG_OK && !done)
        st = BG_FAIL(err, BG_ESTALE,
                     "\"%s\" is missing, or its folder's MANIFEST does not list it: run fit_factors again, or copy "
                     "the folder as a whole",
                     path);
    return st;
}

bg_status bg_factors_section_path(const char *dir, size_t section, char out[BG_PATH_BYTES], bg_err *err)
{
    char name[BG_SECTION_NAME_BYTES];
    bg_section_name(section, name);
    return bg_path(out, err, "%s/%s.h5", dir, name);
}

/* All files of the folder are of one fit. */
static bg_status check_section(const bg_factors *f, const char *dir, size_t section, bg_err *err)
{
    char path[BG_PATH_BYTES], *fingerprint = NULL;
    bg_store *s = NULL;
    bg_status st = bg_factors_section_path(dir, section, path, err);
    if (st == BG_OK)
        st = check_listed(path, err);
    if (st == BG_OK)
        st = bg_store_open(&s, path, "bregman/factors", err);
    if (st == BG_OK)
        st = bg_store_get_text(s, "/run", "fingerprint", &fingerprint, NULL, err);
    if (st == BG_OK && strcmp(fingerprint, f->fingerprint) != 0)
        st = BG_FAIL(err, BG_ESTALE,
                     "\"%s\" (%.8s) is of another fit than \"%s\" (%.8s): fit again, or put its own file back", path,
                     fingerprint, f->path, f->fingerprint);
    bg_store_close(s);
    free(fingerprint);
    return st;
}

static bg_status check_site(const bg_factors *f, const bg_site *site, bg_err *err)
{
    char name[SIDE_DATASET_BYTES];
    bg_status st = BG_OK;
    if (!bg_store_has(f->index, site->name))
        return BG_FAIL(err, BG_ESTALE, "%s holds no factors of %s: it was fitted with other --modules", f->path,
                       site->name);
    st = check_shape(f, site, "lambda", site->n_out, site->n_in1, err);
    if (st == BG_OK)
        st = check_shape(f, site, of_side(f, BG_SIDE_INPUT, "eigenvectors", name), site->n_in1,
                         bg_block_width(site->a.n, site->a.k), err);
    if (st == BG_OK)
        st = check_shape(f, site, of_side(f, BG_SIDE_OUTPUT, "eigenvectors", name), site->n_out,
                         bg_block_width(site->s.n, site->s.k), err);
    return st;
}

/* As the factors were fitted. */
static bg_status set_shapes(const bg_factors *f, bg_model *model, bg_err *err)
{
    const bg_site *last = model->tracked[model->n_tracked - 1];
    char path[BG_PATH_BYTES], name[SIDE_DATASET_BYTES];
    uint64_t blocks = f->k;
    bg_status st = dataset(path, last, of_side(f, BG_SIDE_OUTPUT, "eigenvectors", name), err);
    if (st == BG_OK && last->kind == BG_SITE_HEAD && bg_store_has(f->index, path))
        st = bg_store_get_u64(f->index, path, "blocks", &blocks, NULL, err);
    return st == BG_OK ? bg_factor_kind_shape(model, f->kind, f->k, blocks == f->k, err) : st;
}

static bg_status check_model(const bg_factors *f, const char *dir, bg_model *model, const bg_hash *hash, bg_err *err)
{
    char *text = NULL;
    bg_status st = bg_store_get_text(f->index, "/", "model_hash", &text, NULL, err);
    if (st == BG_OK && strcmp(text, hash->hex) != 0)
        st = BG_FAIL(err, BG_ESTALE, "%s was fitted on another model (%.8s) than %s (%.8s)", f->path, text, model->dir,
                     hash->hex);
    free(text);
    if (st == BG_OK)
        st = set_shapes(f, model, err);
    for (size_t i = 0; i < model->n_sections && st == BG_OK; i++)
        st = check_section(f, dir, model->section[i].number, err);
    for (size_t i = 0; i < model->n_tracked && st == BG_OK; i++)
        st = check_site(f, model->tracked[i], err);
    return st;
}

bg_status bg_factors_modules(const char *dir, char **modules, bg_err *err)
{
    char path[BG_PATH_BYTES];
    bg_store *s = NULL;
    bg_status st = bg_path(path, err, "%s/index.h5", dir);
    if (st == BG_OK)
        st = bg_store_open(&s, path, "bregman/factors", err);
    if (st == BG_OK)
        st = bg_store_get_text(s, "/", "modules", modules, NULL, err);
    bg_store_close(s);
    return st;
}

static bg_status read_attributes(bg_factors *f, bg_err *err)
{
    const struct {
        const char *name;
        uint64_t *to;
    } number[] = { { "blocks", &f->k },
                   { "covariance_n_tokens", &f->n_tokens },
                   { "covariance_n_sequences", &f->n_sequences } };
    bg_status st = bg_store_get_text(f->index, "/run", "fingerprint", &f->fingerprint, NULL, err);
    if (st == BG_OK)
        st = bg_factor_kind_read(f->index, &f->kind, err);
    for (size_t i = 0; i < sizeof number / sizeof *number && st == BG_OK; i++)
        st = bg_store_get_u64(f->index, "/", number[i].name, number[i].to, NULL, err);
    return st;
}

bg_status bg_factors_open(bg_factors **out, const char *dir, bg_model *model, const bg_hash *model_hash, bg_err *err)
{
    bg_factors *f = NULL;
    *out = NULL;
    bg_status st = BG_NEW(f, 1, "factors", err);
    if (st != BG_OK)
        return st;
    st = bg_path(f->path, err, "%s/index.h5", dir);
    if (st == BG_OK)
        st = check_listed(f->path, err);
    if (st == BG_OK)
        st = bg_store_open(&f->index, f->path, "bregman/factors", err);
    if (st == BG_OK)
        st = read_attributes(f, err);
    if (st == BG_OK)
        st = check_model(f, dir, model, model_hash, err);
    if (st != BG_OK) {
        bg_factors_close(f);
        return st;
    }
    *out = f;
    return BG_OK;
}

void bg_factors_close(bg_factors *f)
{
    if (f == NULL)
        return;
    bg_store_close(f->index);
    free(f->fingerprint);
    bg_free(f);
}

bg_factor_kind bg_factors_kind(const bg_factors *f) { return f->kind; }
const char *bg_factors_path(const bg_factors *f) { return f->path; }
const char *bg_factors_fingerprint(const bg_factors *f) { return f->fingerprint; }

bg_status bg_factors_tokens_per_sequence(const bg_factors *f, const bg_site *site, double *out, bg_err *err)
{
    char path[BG_PATH_BYTES], name[SIDE_DATASET_BYTES];
    uint64_t n = 0;
    bool found = false;
    bg_status st = dataset(path, site, of_side(f, BG_SIDE_OUTPUT, "covariance", name), err);
    if (st == BG_OK)
        st = bg_store_get_u64(f->index, path, "n_tokens", &n, &found, err);
    *out = (double)(found ? n : f->n_tokens) / (double)f->n_sequences;
    return st;
}

bg_status bg_factors_mean_lambda(const bg_factors *f, const bg_site *site, double *out, bg_err *err)
{
    char path[BG_PATH_BYTES];
    bool found = false;
    bg_status st = dataset(path, site, "lambda", err);
    if (st == BG_OK)
        st = bg_store_get_f64(f->index, path, "mean", out, &found, err);
    *out = found ? *out : (double)NAN;
    return st;
}

static bg_status read_f32(const bg_factors *f, const bg_site *site, const char *name, size_t rows, size_t columns,
                          float **out, bg_err *err)
{
    char path[BG_PATH_BYTES];
    bg_status st = dataset(path, site, name, err);
    if (st == BG_OK)
        st = BG_NEW(*out, rows * columns, name, err);
    return st == BG_OK ? bg_store_read(f->index, path, BG_F32, (const uint64_t[]){ rows, columns }, *out, err) : st;
}

static bg_status read_f64(const bg_factors *f, const bg_site *site, const char *name, size_t n, double **out,
                          bg_err *err)
{
    char path[BG_PATH_BYTES];
    bg_status st = dataset(path, site, name, err);
    if (st == BG_OK)
        st = BG_NEW(*out, n, name, err);
    return st == BG_OK ? bg_store_read(f->index, path, BG_F64, (const uint64_t[]){ n }, *out, err) : st;
}

static bg_status read_bases(const bg_factors *f, const bg_site *site, bg_site_factors *out, bg_err *err)
{
    char name[SIDE_DATASET_BYTES];
    bg_blockdiag *a = &out->basis.q_a, *s = &out->basis.q_s;
    bg_status st = read_f32(f, site, of_side(f, BG_SIDE_INPUT, "eigenvectors", name), a->n, a->width, &a->a, err);
    return st == BG_OK ? read_f32(f, site, of_side(f, BG_SIDE_OUTPUT, "eigenvectors", name), s->n, s->width, &s->a, err)
                       : st;
}

static bg_status read_eigenvalues(const bg_factors *f, const bg_site *site, bg_site_factors *out, bg_err *err)
{
    char name[SIDE_DATASET_BYTES];
    bg_status st = read_f64(f, site, of_side(f, BG_SIDE_INPUT, "eigenvalues", name), site->n_in1, &out->alpha, err);
    return st == BG_OK
               ? read_f64(f, site, of_side(f, BG_SIDE_OUTPUT, "eigenvalues", name), site->n_out, &out->sigma, err)
               : st;
}

static bg_status read_diagonal(const bg_factors *f, const bg_site *site, bg_site_factors *out, bg_err *err)
{
    char path[BG_PATH_BYTES];
    bg_status st = dataset(path, site, "diagonal", err);
    if (st == BG_OK && !bg_store_has(f->index, path))
        st = BG_FAIL(err, BG_EARG, "%s holds no diagonal Fisher: fit_factors ran with --no-diagonal", f->path);
    return st == BG_OK ? read_f32(f, site, "diagonal", site->n_out, site->n_in1, &out->diagonal, err) : st;
}

/* None where Λ is of a single unit, or of an older version. */
static bg_status read_half(const bg_factors *f, const bg_site *site, bg_site_factors *out, bg_err *err)
{
    char whole[BG_PATH_BYTES], half[BG_PATH_BYTES];
    uint64_t n = 0, of_half = 0;
    bg_status st = dataset(whole, site, "lambda", err);
    if (st == BG_OK)
        st = dataset(half, site, "lambda_half", err);
    if (st != BG_OK || !bg_store_has(f->index, half))
        return st;
    st = bg_store_get_u64(f->index, whole, "n_sequences", &n, NULL, err);
    if (st == BG_OK)
        st = bg_store_get_u64(f->index, half, "n_sequences", &of_half, NULL, err);
    if (st == BG_OK && (of_half == 0 || of_half >= n))
        st = BG_FAIL(err, BG_EFORMAT, "%s: %s is of %" PRIu64 " sequences, %s of %" PRIu64 ": not a part of them",
                     f->path, half, of_half, whole, n);
    if (st != BG_OK)
        return st;
    out->half_share = (double)of_half / (double)n;
    return read_f32(f, site, "lambda_half", site->n_out, site->n_in1, &out->half, err);
}

bg_status bg_factors_read(const bg_factors *f, const bg_site *site, unsigned what, bg_site_factors *out, bg_err *err)
{
    size_t p = site->n_out, m = site->n_in1;
    bg_status st = BG_OK;
    memset(out, 0, sizeof *out);
    out->basis.q_a = (bg_blockdiag){ m, site->a.k, bg_block_width(m, site->a.k), NULL };
    out->basis.q_s = (bg_blockdiag){ p, site->s.k, bg_block_width(p, site->s.k), NULL };
    if (what & BG_READ_BASES)
        st = read_bases(f, site, out, err);
    if (st == BG_OK && (what & BG_READ_LAMBDA))
        st = read_f32(f, site, "lambda", p, m, &out->lambda, err);
    if (st == BG_OK && (what & BG_READ_HALF))
        st = read_half(f, site, out, err);
    if (st == BG_OK && (what & BG_READ_EIGENVALUES))
        st = read_eigenvalues(f, site, out, err);
    if (st == BG_OK && (what & BG_READ_DIAGONAL))
        st = read_diagonal(f, site, out, err);
    if (st != BG_OK)
        bg_site_factors_clear(out);
    return st;
}

void bg_site_factors_clear(bg_site_factors *m)
{
    bg_free(m->basis.q_a.a);
    bg_free(m->basis.q_s.a);
    bg_free(m->lambda);
    bg_free(m->half);
    bg_free(m->diagonal);
    bg_free(m->alpha);
    bg_free(m->sigma);
    memset(m, 0, sizeof *m);
}
