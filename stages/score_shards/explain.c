/* explain.c - the second, light pass: token and layer x token scores of a ranking's sequences. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/log.h"
#include "bregman/memory.h"
#include "bregman/ranking.h"
#include "bregman/stop.h"
#include "explaining.h"

enum { UNIT_SEQUENCES = 8 }; /* token scores of all queries are held for a unit */

/* A score and the sum of its parts are float32 sums in different orders: they agree to this part of the parts'
 * magnitudes. */
static const double sum_tolerance = 1e-4;

/* One pair's values [rows, L] out of the unit's [row, Q, L], where its sequence begins with row0, to `at` of the file. */
static bg_status write_pair(const explaining *e, bg_store *s, const wanted *p, size_t row0, uint64_t at, bg_err *err)
{
    size_t nl = bg_model_layers(e->w->in.model);
    float *x = NULL;
    bg_status st = BG_NEW(x, p->rows * nl, "token scores", err);
    for (size_t t = 0; t < p->rows && st == BG_OK; t++)
        bg_score_sums_tokens(e->w->made.sums, row0 + t, p->query, x + t * nl);
    if (st == BG_OK)
        st = bg_store_write_rows(s, "token_score", at, p->rows, x, err);
    for (size_t t = 0; t < p->rows && st == BG_OK && e->w->plan.by_output; t++)
        x[t] = bg_score_sums_output(e->w->made.sums, row0 + t, p->query);
    if (st == BG_OK && e->w->plan.by_output)
        st = bg_store_write_rows(s, "output_token_score", at, p->rows, x, err);
    bg_free(x);
    return st;
}

/* Of the segment's sequences: each one's square is spread over its rows and the layers. */
static bg_status write_norms(const explaining *e, const bg_segment *g, const bg_unit *unit, bg_store *s, bg_err *err)
{
    const scoring *w = e->w;
    size_t nl = bg_model_layers(w->in.model), nq = w->plan.extent.n_queries, row = 0;
    uint64_t n = g->end - g->first;
    float *x = NULL, *norm = NULL;
    bg_status st = BG_NEW(x, nl, "gradient norms", err);
    if (st == BG_OK)
        st = BG_NEW(norm, n, "gradient norms", err);
    for (uint64_t i = 0; i < g->end && st == BG_OK; i++) {
        size_t end = row + bg_tokens_count(w->in.tokens, w->plan.sequence[unit->first + i]) - 1;
        double square = 0;
        for (; row < end; row++) {
            bg_score_sums_tokens(w->made.sums, row, nq, x);
            for (size_t l = 0; l < nl; l++)
                square += (double)x[l];
        }
        if (i >= g->first)
            norm[i - g->first] = (float)sqrt(square);
    }
    if (st == BG_OK)
        st = bg_store_write(s, "gradient_norm", &n, norm, err);
    bg_free(x);
    bg_free(norm);
    return st;
}

static bg_status write_token_scores(scoring *w, const bg_unit *unit, const bg_segment *g, bg_store *s, bg_err *err)
{
    const explaining *e = w->in.explaining;
    size_t k = score_first_pair(e, unit->first + g->first), end = score_first_pair(e, unit->first + g->end), row0 = 0;
    const wanted *first = &e->pair[k], *last = &e->pair[end - 1];
    uint64_t dims[2] = { last->at + last->rows - first->at, bg_model_layers(w->in.model) };
    bg_status st = bg_store_dataset(s, "token_score", dims, err);
    if (st == BG_OK)
        st = write_norms(e, g, unit, s, err);
    if (st == BG_OK && w->plan.by_output)
        st = bg_store_dataset(s, "output_token_score", dims, err);
    for (uint64_t i = unit->first; i < unit->first + g->end && st == BG_OK; i++) {
        for (; k < end && e->pair[k].index == i && st == BG_OK; k++)
            st = write_pair(e, s, &e->pair[k], row0, e->pair[k].at - first->at, err);
        row0 += bg_tokens_count(w->in.tokens, w->plan.sequence[i]) - 1;
    }
    return st;
}

/* ---- the new version of the ranking ---- */

/* What the parts of a pair add up to, and their magnitudes. */
typedef struct {
    double sum, magnitude;
} total;

static total add_up(const float *x, size_t n)
{
    total t = { 0, 0 };
    for (size_t i = 0; i < n; i++) {
        t.sum += (double)x[i];
        t.magnitude += fabs((double)x[i]);
    }
    return t;
}

/* They add up to the score that the ranking has. */
static bg_status check_sum(const explaining *e, const wanted *p, float score, total parts, bg_err *err)
{
    double sum = parts.sum, magnitude = parts.magnitude;
    if (fabs(sum - (double)score) <= sum_tolerance * magnitude)
        return BG_OK;
    return BG_FAIL(err, BG_ESTALE,
                   "%s has the score %.7g for sequence %" PRIu64
                   " and query \"%.60s\", but its token scores add up to %.7g "
                   "(the two may differ by %.1g): it was changed since; merge the shards again",
                   e->w->c->explain, (double)score, p->sequence, e->ranking.query[p->query], sum,
                   sum_tolerance * magnitude);
}

/* Values before those in a file, whose own first sequence may come before the first of the run. */
static uint64_t first_value(const explaining *e, const bg_rows *from)
{
    return e->pair[score_first_pair(e, from->first - from->row)].at;
}

/* Where the values of one entry of a side go. */
typedef struct {
    bg_store *to;
    int side;
    uint64_t at;
    float score; /* of the entry */
} place;

static bg_status append(const place *to, const char *name, size_t rows, const float *x, bg_err *err)
{
    char path[BG_PATH_BYTES];
    bg_status st = bg_path(path, err, "%s/%s", bg_side_name[to->side], name);
    return st == BG_OK ? bg_store_write_rows(to->to, path, to->at, rows, x, err) : st;
}

/* A pair's values [rows, columns] of its unit; they must add up. */
static bg_status read_values(const explaining *e, const wanted *p, const char *name, size_t columns, float score,
                             float *x, bg_err *err)
{
    bg_units_reader *units = e->units[SCORE_PHASE];
    bg_rows from;
    bg_status st = bg_units_read(units, bg_units_run_of(units, p->index), &from, err);
    if (st == BG_OK)
        st = bg_store_read_rows(from.file, name, BG_F32, (bg_slab){ p->at - first_value(e, &from), p->rows, columns },
                                x, err);
    return st == BG_OK ? check_sum(e, p, score, add_up(x, p->rows * columns), err) : st;
}

static bg_status read_gradient_norm(const explaining *e, const wanted *p, float *out, bg_err *err)
{
    bg_units_reader *units = e->units[SCORE_PHASE];
    bg_rows from;
    bg_status st = bg_units_read(units, bg_units_run_of(units, p->index), &from, err);
    return st == BG_OK ? bg_store_read_rows(from.file, "gradient_norm", BG_F32,
                                            (bg_slab){ from.row + p->index - from.first, 1, 1 }, out, err)
                       : st;
}

/* By position and layer; x [rows, L] is room, sum [rows] too. */
static bg_status copy_positions(const explaining *e, const wanted *p, const place *to, float *x, float *sum,
                                bg_err *err)
{
    size_t nl = bg_model_layers(e->w->in.model);
    bg_status st = read_values(e, p, "token_score", nl, to->score, x, err);
    for (size_t t = 0; t < p->rows && st == BG_OK; t++) {
        double all = 0;
        for (size_t l = 0; l < nl; l++)
            all += (double)x[t * nl + l];
        sum[t] = (float)all;
    }
    if (st == BG_OK)
        st = append(to, "layer_token_score", p->rows, x, err);
    return st == BG_OK ? append(to, "token_score", p->rows, sum, err) : st;
}

/* What the score loses without the token at each position, and the whole sequence's score once more: magnitude is that
 * of its parts by position.  sum [rows] is room. */
static bg_status copy_inputs(const explaining *e, const wanted *p, const place *to, double magnitude, float *sum,
                             bg_err *err)
{
    float *x = NULL;
    bg_status st = BG_NEW(x, p->rows + (size_t)1, "scores", err);
    if (st == BG_OK)
        st = score_erase_read(e, p, x, err);
    if (st == BG_OK)
        st = check_sum(e, p, to->score, (total){ (double)x[0], magnitude }, err);
    for (size_t t = 0; t < p->rows && st == BG_OK; t++)
        sum[t] = (float)((double)x[0] - (double)x[t + 1]);
    if (st == BG_OK)
        st = append(to, "input_token_score", p->rows, sum, err);
    bg_free(x);
    return st;
}

static bg_status copy_entry(const explaining *e, const wanted *p, const place *to, bg_err *err)
{
    float *x = NULL, *sum = NULL;
    bg_status st = BG_NEW(x, p->rows * bg_model_layers(e->w->in.model), "token scores", err);
    if (st == BG_OK)
        st = BG_NEW(sum, p->rows, "token scores", err);
    if (st == BG_OK)
        st = copy_positions(e, p, to, x, sum, err);
    double magnitude = st == BG_OK ? add_up(x, p->rows * bg_model_layers(e->w->in.model)).magnitude : 0;
    if (st == BG_OK && e->w->plan.by_output)
        st = read_values(e, p, "output_token_score", 1, to->score, sum, err);
    if (st == BG_OK && e->w->plan.by_output)
        st = append(to, "output_token_score", p->rows, sum, err);
    if (st == BG_OK && e->w->plan.by_input)
        st = copy_inputs(e, p, to, magnitude, sum, err);
    bg_free(x);
    bg_free(sum);
    return st;
}

/* The datasets of a side, and of each entry how many values it has: rows.  count [n_queries, k] [out] */
static bg_status make_side(const explaining *e, bg_store *s, int side, uint32_t *count, bg_err *err)
{
    const bg_ranking *r = &e->ranking;
    char path[BG_PATH_BYTES];
    const struct {
        const char *name;
        bool wanted;
    } what[] = { { "token_score", true },
                 { "layer_token_score", true },
                 { "output_token_score", e->w->plan.by_output },
                 { "input_token_score", e->w->plan.by_input } };
    uint64_t dims[2] = { r->n_queries, r->k }, values[2] = { 0, bg_model_layers(e->w->in.model) };
    for (size_t i = 0; i < r->n_queries * r->k; i++) {
        const wanted *p = score_find_pair(e, r->side[side].sequence[i], i / r->k);
        count[i] = p == NULL ? 0 : p->rows;
        values[0] += count[i];
    }
    bg_status st = bg_path(path, err, "%s/count", bg_side_name[side]);
    if (st == BG_OK)
        st = bg_store_write(s, path, dims, count, err);
    for (size_t i = 0; i < sizeof what / sizeof *what && st == BG_OK; i++) {
        st = bg_path(path, err, "%s/%s", bg_side_name[side], what[i].name);
        if (st == BG_OK && what[i].wanted)
            st = bg_store_dataset(s, path, values, err);
    }
    return st;
}

static bg_status write_side(const explaining *e, bg_store *s, int side, bg_err *err)
{
    const bg_ranking *r = &e->ranking;
    uint64_t at = 0;
    size_t n = r->n_queries * r->k;
    uint32_t *count = NULL;
    float *norm = NULL;
    bg_status st = BG_NEW(count, n, "token scores", err);
    if (st == BG_OK)
        st = BG_NEW(norm, n, "gradient norms", err);
    if (st == BG_OK)
        st = make_side(e, s, side, count, err);
    for (size_t i = 0; i < n && st == BG_OK; i++) {
        const wanted *p = score_find_pair(e, r->side[side].sequence[i], i / r->k);
        st = bg_stop_check("assembling", err);
        if (p != NULL && st == BG_OK)
            st = copy_entry(e, p, &(place){ s, side, at, r->side[side].score[i] }, err);
        if (p != NULL && st == BG_OK)
            st = read_gradient_norm(e, p, &norm[i], err);
        at += count[i];
    }
    if (st == BG_OK)
        st = score_errors_write(&e->errors, r, side, norm, s, err);
    bg_free(norm);
    bg_free(count);
    return st;
}

static bg_status write_sides(explaining *e, bg_store *s, bg_err *err)
{
    const score_work *m = &e->w->made;
    bg_status st = BG_OK;
    for (size_t i = 0; i < m->n_phases && st == BG_OK; i++) {
        st = bg_units_reader_new(&e->units[i], &m->phase[i].units, err);
        if (st == BG_OK)
            st = bg_units_choose(e->units[i], BG_WHOLE_MODEL, err);
    }
    if (st == BG_OK)
        st = score_errors_read(&e->errors, e->w, err);
    for (int side = 0; side < BG_SIDES && st == BG_OK; side++)
        st = write_side(e, s, side, err);
    score_errors_clear(&e->errors);
    for (size_t i = 0; i < m->n_phases; i++)
        bg_units_reader_free(e->units[i]);
    return st;
}

static bg_status write_ranking(explaining *e, bg_store *s, bg_err *err)
{
    bg_status st = bg_ranking_write(&e->ranking, s, err);
    if (st == BG_OK)
        st = score_name_layers(e->w->in.model, s, err);
    if (st == BG_OK)
        st = write_sides(e, s, err);
    if (st == BG_OK)
        st = bg_store_attr_text(s, "/", "explain_options", e->w->ctx->options, err);
    return st == BG_OK ? bg_store_add_run(s, "run/explain", &e->w->in.files.run, err) : st;
}

/* How those that help most stood with the prefilter, and how much of the corpus it let through. */
static void say_prefilter(const bg_ranking *r)
{
    uint64_t ranked = 0, listed = 0;
    if (r->prefilter == NULL || r->side[BG_TOP].prefilter_rank == NULL)
        return;
    for (size_t i = 0; i < r->n_queries * r->k; i++) {
        ranked += r->side[BG_TOP].sequence[i] >= 0;
        listed += r->side[BG_TOP].prefilter_rank[i] > 0;
    }
    bg_log("%s: %" PRIu64 " of %" PRIu64
           " best sequences are among their own query's; %.3g %% of the corpus were scored",
           r->prefilter, listed, ranked, 100.0 * (double)r->count[0] / (double)r->corpus_sequences);
}

/* The ranking keeps the provenance of the merge that made it: a merge run again still finds its own.  This run's stands
 * beside it. */
static bg_status publish_ranking(scoring *w, bg_err *err)
{
    explaining *e = w->in.explaining;
    bg_ranking *r = &e->ranking;
    bg_store *s = NULL;
    bg_hash *hash = NULL;
    bg_status st = BG_NEW(hash, r->n_inputs, "list of inputs", err);
    for (size_t i = 0; i < r->n_inputs && st == BG_OK; i++)
        snprintf(hash[i].hex, sizeof hash[i].hex, "%s", r->input_hash[i]);
    bg_provenance merge = { .n_inputs = r->n_inputs,
                            .input_name = (const char *const *)r->input_name,
                            .input_hash = hash };
    if (r->explained != NULL)
        bg_log("%s has token scores of other options: they are replaced", w->c->explain);
    free(r->explained);
    if (st == BG_OK && (r->explained = strdup(w->in.files.run.fingerprint)) == NULL)
        st = BG_FAIL(err, BG_ENOMEM, "%s: out of memory", w->c->explain);
    if (st == BG_OK)
        st = bg_ranked_find_documents(r->side, r->n_queries * r->k, w->in.tokens, err);
    if (st == BG_OK)
        st = bg_store_create(&s, w->c->explain, "bregman/ranking", &merge, err);
    if (st == BG_OK)
        st = write_ranking(e, s, err);
    st = bg_store_end(s, st, err);
    if (st == BG_OK)
        bg_log("wrote token and layer scores to %s", w->c->explain);
    if (st == BG_OK)
        say_prefilter(r);
    bg_free(hash);
    return st;
}

bg_status score_explain_check_queries(const scoring *w, bg_err *err)
{
    const bg_ranking *r = &w->in.explaining->ranking;
    bool same = r->n_queries == w->plan.extent.n_queries;
    for (size_t q = 0; q < r->n_queries && same; q++)
        same = strcmp(r->query[q], w->made.queries->id[q]) == 0;
    return same ? BG_OK : BG_FAIL(err, BG_ESTALE, "%s ranks other queries than %s holds", w->c->explain, w->c->queries);
}

bg_status score_explain_check(const scoring *w, bg_err *err)
{
    char what[BG_DIFFERENCE_BYTES];
    if (!bg_origin_differs(&w->in.origin, &w->in.explaining->ranking.origin, what))
        return BG_OK;
    return BG_FAIL(err, BG_ESTALE,
                   "%.140s was made from other inputs: %s; give those that were scored, token files in their order",
                   w->c->explain, what);
}

bg_status score_explain_open(scoring *w, bg_err *err)
{
    bg_status st = BG_NEW(w->in.explaining, 1, "ranking", err);
    if (st != BG_OK)
        return st;
    explaining *e = w->in.explaining;
    e->w = w;
    w->plan.unit_sequences = UNIT_SEQUENCES;
    st = bg_ranking_read(&e->ranking, w->c->explain, err);
    if (st == BG_OK && w->ctx->grid.world_rank == 0) /* before the numbers of sequences mean anything */
        st = bg_origin_set_tokens(&w->in.origin, w->in.tokens, err);
    if (st == BG_OK && w->ctx->grid.world_rank == 0)
        st = score_explain_check(w, err);
    if (st == BG_OK)
        st = score_list_pairs(e, err);
    if (st == BG_OK && w->plan.by_input)
        st = score_erase_list(e, err);
    if (st == BG_OK)
        st = bg_path(w->plan.output, err, "%s", w->c->explain);
    const char *name = bg_base_name(w->c->explain);
    size_t n = strlen(name) - (bg_ends_in(name, ".h5") ? strlen(".h5") : 0);
    return st == BG_OK ? bg_path(w->plan.work, err, "%s/explain-%.*s.work", w->c->output, (int)n, name) : st;
}

void score_explain_close(scoring *w)
{
    if (w->in.explaining == NULL)
        return;
    bg_ranking_clear(&w->in.explaining->ranking);
    bg_free(w->in.explaining->pair);
    score_erase_clear(&w->in.explaining->erased);
    bg_free(w->in.explaining->sequence);
    bg_free(w->in.explaining);
}

/* As it is now: another attempt may have explained it since it was opened. */
static bg_status is_explained(void *self, bool *done, bg_err *err)
{
    const scoring *w = self;
    bg_ranking r = { 0 };
    bg_status st = bg_ranking_read(&r, w->c->explain, err);
    *done = st == BG_OK && r.explained != NULL && strcmp(r.explained, w->in.files.fingerprint.hex) == 0;
    bg_ranking_clear(&r);
    return st;
}

const score_result score_explanation = { { "token_scores", "token scores", write_token_scores },
                                         publish_ranking,
                                         is_explained };
