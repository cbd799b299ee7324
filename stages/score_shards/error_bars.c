/* error_bars.c - how sure the scores of an explained ranking are.
 *
 * compress_queries says of each query's vector what variance its truncation (math.md M10) and the sample that Λ was
 * fitted on bring into the score of a training gradient.  Of a sequence whose gradient is longer than is expected of
 * one, the errors are larger in proportion.  They are taken to be independent of one sequence to another, which
 * overstates how open the order of two sequences that are alike is.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/memory.h"
#include "bregman/precondition.h"
#include "bregman/rng.h"
#include "scoring.h"

enum { DRAWS = 1000, MOST_PLACES = 10 };

void score_errors_clear(score_errors *e)
{
    bg_free(e->truncation);
    bg_free(e->sampling);
    *e = (score_errors){ 0 };
}

/* A module's variances of all queries, into the sums. */
static bg_status add_module(const bg_store *f, const bg_site *site, const char *name, double *one, size_t n,
                            double *sum, bg_err *err)
{
    char path[BG_PATH_BYTES];
    bg_status st = bg_path(path, err, "%s/%s", site->name, name);
    if (st != BG_OK)
        return st;
    if (!bg_store_has(f, path)) { /* of an earlier version */
        for (size_t q = 0; q < n; q++)
            sum[q] = (double)NAN;
        return BG_OK;
    }
    st = bg_store_read(f, path, BG_F64, (const uint64_t[]){ n }, one, err);
    for (size_t q = 0; q < n && st == BG_OK; q++)
        sum[q] += one[q];
    return st;
}

static bg_status add_modules(const bg_store *f, const bg_model *m, score_errors *e, bg_err *err)
{
    double *one = NULL;
    bg_status st = BG_NEW(one, e->n_queries, "errors of scores", err);
    for (size_t i = 0; i < m->n_tracked && st == BG_OK; i++) {
        st = add_module(f, m->tracked[i], "error", one, e->n_queries, e->truncation, err);
        if (st == BG_OK)
            st = add_module(f, m->tracked[i], "sampling", one, e->n_queries, e->sampling, err);
    }
    for (size_t q = 0; q < e->n_queries && st == BG_OK; q++) {
        e->truncation[q] = sqrt(e->truncation[q]);
        e->sampling[q] = sqrt(e->sampling[q]);
    }
    bg_free(one);
    return st;
}

/* The norm that the errors are of; NAN: not known, or they are not in its units (identity's weigh all alike). */
static bg_status read_norm(const bg_store *f, double *out, bg_err *err)
{
    char *kind = NULL;
    bool found = false;
    double square = 0;
    bg_status st = bg_store_get_text(f, "/", "preconditioner", &kind, NULL, err);
    if (st == BG_OK && strcmp(kind, bg_preconditioner_word[BG_IDENTITY]) != 0)
        st = bg_store_get_f64(f, "/", "expected_squared_norm", &square, &found, err);
    *out = found ? sqrt(square) : (double)NAN;
    free(kind);
    return st;
}

bg_status score_errors_read(score_errors *out, const scoring *w, bg_err *err)
{
    bg_store *f = NULL;
    *out = (score_errors){ .n_queries = w->plan.extent.n_queries };
    bg_status st = BG_NEW(out->truncation, out->n_queries, "errors of scores", err);
    if (st == BG_OK)
        st = BG_NEW(out->sampling, out->n_queries, "errors of scores", err);
    if (st == BG_OK)
        st = bg_store_open(&f, w->c->queries, "bregman/compressed", err);
    if (st == BG_OK)
        st = read_norm(f, &out->expected_norm, err);
    if (st == BG_OK)
        st = add_modules(f, w->in.model, out, err);
    bg_store_close(f);
    for (size_t q = 0; q < out->n_queries && st == BG_OK && isnan(out->expected_norm); q++)
        out->truncation[q] = out->sampling[q] = (double)NAN;
    return st;
}

/* Of n scores, best first, how many of the first `places` stay among them where errors move all, on average; a share. */
static double agreement(const float *score, const float *error, size_t n, size_t places, size_t query, float *moved)
{
    size_t stay = 0;
    for (size_t draw = 0; draw < DRAWS; draw++) {
        bg_normal_fill(0, query * DRAWS + draw, n, moved);
        for (size_t i = 0; i < n; i++)
            moved[i] = score[i] + error[i] * moved[i];
        for (size_t i = 0, better; i < places; i++) {
            better = 0;
            for (size_t j = 0; j < n && better < places; j++)
                better += moved[j] > moved[i];
            stay += better < places;
        }
    }
    return (double)stay / (double)(DRAWS * places);
}

/* Entries of a query's list; a side's unused ones are its last. */
static size_t listed(const bg_ranked *side, size_t k, size_t query)
{
    size_t n = 0;
    while (n < k && side->sequence[query * k + n] >= 0)
        n++;
    return n;
}

static bg_status write_agreement(const bg_ranking *r, const float *error, bg_store *s, bg_err *err)
{
    uint64_t n_queries = r->n_queries, places = (r->k + 1) / 2;
    double *share = NULL;
    float *moved = NULL;
    places = places < MOST_PLACES ? places : MOST_PLACES;
    bg_status st = BG_NEW(share, r->n_queries, "errors of scores", err);
    if (st == BG_OK)
        st = BG_NEW(moved, r->k, "errors of scores", err);
    for (size_t q = 0; q < r->n_queries && st == BG_OK; q++) {
        size_t n = listed(&r->side[BG_TOP], r->k, q), at = q * r->k;
        bool known = n > places; /* of all that are listed, all would stay */
        for (size_t i = 0; i < n; i++)
            known = known && !isnan(error[at + i]);
        share[q] = known ? agreement(r->side[BG_TOP].score + at, error + at, n, places, q, moved) : (double)NAN;
    }
    if (st == BG_OK)
        st = bg_store_write(s, "error/agreement", &n_queries, share, err);
    if (st == BG_OK)
        st = bg_store_attr_u64(s, "error/agreement", "places", places, err);
    bg_free(share);
    bg_free(moved);
    return st;
}

bg_status score_errors_write(const score_errors *e, const bg_ranking *r, int side, float *norm, bg_store *s,
                             bg_err *err)
{
    char path[BG_PATH_BYTES];
    const uint64_t dims[2] = { r->n_queries, r->k };
    for (size_t i = 0; i < r->n_queries * r->k; i++) {
        double sd = hypot(e->truncation[i / r->k], e->sampling[i / r->k]) / e->expected_norm;
        norm[i] = r->side[side].sequence[i] >= 0 ? (float)(sd * (double)norm[i]) : NAN;
    }
    bg_status st = bg_path(path, err, "%s/score_error", bg_side_name[side]);
    if (st == BG_OK)
        st = bg_store_write(s, path, dims, norm, err);
    if (st != BG_OK || side != BG_TOP)
        return st;
    st = bg_store_write(s, "error/truncation", dims, e->truncation, err);
    if (st == BG_OK)
        st = bg_store_write(s, "error/sampling", dims, e->sampling, err);
    return st == BG_OK ? write_agreement(r, norm, s, err) : st;
}
