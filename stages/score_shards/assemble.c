/* assemble.c - scores of units, and the shard's file made of them. */
#include <math.h>
#include <stdlib.h>

#include "bregman/extremes.h"
#include "bregman/log.h"
#include "bregman/memory.h"
#include "bregman/stop.h"
#include "scoring.h"

enum { COPY_BYTES = 4 << 20 }; /* of scores at a time */

/* Floats of a sequence's scores, without its norm. */
static size_t row_floats(const scoring *w)
{
    return w->plan.extent.n_queries * (w->c->layer_scores ? bg_model_layers(w->in.model) : 1);
}

static bg_status make_scores(const scoring *w, bg_store *s, uint64_t n, bg_err *err)
{
    uint64_t dims[3] = { n, w->plan.extent.n_queries, bg_model_layers(w->in.model) };
    bg_status st = bg_store_dataset(s, "score", dims, err);
    if (st == BG_OK && w->c->gradient_norms)
        st = bg_store_dataset(s, "gradient_norm", dims, err);
    return st == BG_OK && w->c->layer_scores ? bg_store_dataset(s, "layer_score", dims, err) : st;
}

/* Row `to` of a sequence of the unit; x: room for a norm more than its scores. */
static bg_status write_sequence(scoring *w, uint64_t sequence, uint64_t to, float *x, bg_store *s, bg_err *err)
{
    bg_score_sums_scores(w->made.sums, sequence, x);
    bg_status st = bg_store_write_rows(s, "score", to, 1, x, err);
    if (st == BG_OK && w->c->gradient_norms) {
        float norm = sqrtf(x[w->plan.extent.n_queries]);
        st = bg_store_write_rows(s, "gradient_norm", to, 1, &norm, err);
    }
    if (st != BG_OK || !w->c->layer_scores)
        return st;
    bg_score_sums_layers(w->made.sums, sequence, x);
    return bg_store_write_rows(s, "layer_score", to, 1, x, err);
}

static bg_status write_scores(scoring *w, const bg_unit *unit, const bg_segment *g, bg_store *s, bg_err *err)
{
    float *x = NULL;
    size_t norms = w->c->gradient_norms ? row_floats(w) / w->plan.extent.n_queries : 0;
    (void)unit;
    bg_status st = BG_NEW(x, row_floats(w) + norms, "scores", err);
    if (st == BG_OK)
        st = make_scores(w, s, g->end - g->first, err);
    for (uint64_t i = g->first; i < g->end && st == BG_OK; i++)
        st = write_sequence(w, i, i - g->first, x, s, err);
    bg_free(x);
    return st;
}

static bg_status write_extremes(const scoring *w, bg_store *s, const bg_extremes *e, bg_err *err)
{
    bg_ranked list[BG_SIDES] = { { 0 }, { 0 } };
    char *how = NULL;
    bg_status st = BG_OK;
    for (int side = 0; side < BG_SIDES && st == BG_OK; side++) {
        st = bg_ranked_alloc(&list[side], e->n_queries, e->k, err);
        if (st == BG_OK)
            bg_extremes_take(e, side, &list[side]);
    }
    if (st == BG_OK)
        st = bg_ranked_find_documents(list, e->n_queries * e->k, w->in.tokens, err);
    if (st == BG_OK && w->c->candidates != NULL)
        st = score_find_places(w, list, e->k, &how, err);
    if (st == BG_OK && how != NULL)
        st = bg_store_attr_text(s, "/", "prefilter", how, err);
    free(how);
    for (int side = 0; side < BG_SIDES && st == BG_OK; side++)
        st = bg_ranked_write(&list[side], bg_side_name[side], e->n_queries, e->k, s, err);
    for (int side = 0; side < BG_SIDES; side++)
        bg_ranked_clear(&list[side], e->n_queries, e->k);
    return st;
}

/* The numbers of the sequences, and their scores to the ranking; score [n, Q]. */
static bg_status rank_rows(const scoring *w, const bg_rows *rows, const float *score, bg_store *to, bg_extremes *e,
                           bg_err *err)
{
    bg_status st = BG_OK;
    for (uint64_t i = 0; i < rows->n && st == BG_OK; i++) {
        uint64_t z = score_sequence(&w->plan, rows->first + i);
        int64_t number = (int64_t)z;
        st = bg_store_write_rows(to, "sequence", rows->first + i, 1, &number, err);
        if (st == BG_OK)
            st = bg_extremes_push(e, z, score + i * w->plan.extent.n_queries, err);
    }
    return st;
}

static bg_status copy(const char *name, size_t floats, const bg_rows *rows, float *x, bg_store *to, bg_err *err)
{
    bg_status st = bg_store_read_rows(rows->file, name, BG_F32, (bg_slab){ rows->row, rows->n, floats }, x, err);
    return st == BG_OK ? bg_store_write_rows(to, name, rows->first, rows->n, x, err) : st;
}

/* Copy rows to the shard's file, and rank them.  x: room for their scores. */
static bg_status copy_rows(const scoring *w, const bg_rows *rows, float *x, bg_store *to, bg_extremes *e, bg_err *err)
{
    bg_status st = copy("score", w->plan.extent.n_queries, rows, x, to, err);
    if (st == BG_OK)
        st = rank_rows(w, rows, x, to, e, err);
    if (st == BG_OK && w->c->gradient_norms)
        st = copy("gradient_norm", 1, rows, x, to, err);
    return st == BG_OK && w->c->layer_scores ? copy("layer_score", row_floats(w), rows, x, to, err) : st;
}

static bg_status copy_units(const scoring *w, bg_store *to, bg_extremes *e, bg_err *err)
{
    size_t floats = row_floats(w), fit = COPY_BYTES / (floats * sizeof(float)), most = fit > 0 ? fit : 1;
    bg_units_reader *units = NULL;
    float *x = NULL;
    bg_status st = BG_NEW(x, most * floats, "scores", err);
    if (st == BG_OK)
        st = bg_units_reader_new(&units, &w->made.phase[SCORE_PHASE].units, err);
    if (st == BG_OK)
        st = bg_units_choose(units, BG_WHOLE_MODEL, err);
    for (size_t i = 0; st == BG_OK && i < bg_units_runs(units); i++) {
        bg_rows run;
        st = bg_units_read(units, i, &run, err);
        for (uint64_t at = 0, n; st == BG_OK && at < run.n; at += n) {
            n = run.n - at < most ? run.n - at : most;
            st = bg_stop_check("assembling", err);
            if (st == BG_OK)
                st = copy_rows(w, &(bg_rows){ run.file, run.first + at, n, run.row + at }, x, to, e, err);
        }
    }
    bg_units_reader_free(units);
    bg_free(x);
    return st;
}

/* Which shard it is, and of what. */
static bg_status write_attributes(const scoring *w, bg_store *s, bg_err *err)
{
    const struct {
        const char *name;
        uint64_t value;
    } attribute[] = { { "shard", w->plan.shard },
                      { "shards", w->plan.n_shards },
                      { "corpus_sequences", bg_tokens_sequences(w->in.tokens) } };
    bg_hash common;
    bg_status st = bg_inputs_fingerprint(&w->in.files, w->ctx, w->plan.memory.identity, &common, err);
    for (size_t i = 0; i < sizeof attribute / sizeof *attribute && st == BG_OK; i++)
        st = bg_store_attr_u64(s, "/", attribute[i].name, attribute[i].value, err);
    if (st == BG_OK)
        st = bg_store_attr_text(s, "run", "shards_fingerprint", common.hex, err);
    return st == BG_OK ? bg_origin_write(&w->in.origin, s, err) : st;
}

bg_status score_name_layers(const bg_model *m, bg_store *s, bg_err *err)
{
    uint64_t n = bg_model_layers(m);
    char(*text)[BG_SECTION_NAME_BYTES] = NULL;
    const char **name = NULL;
    bg_status st = BG_NEW(text, n, "names of layers", err);
    if (st == BG_OK)
        st = BG_NEW(name, n, "names of layers", err);
    for (size_t i = 0; i < n && st == BG_OK; i++) {
        bg_model_layer_name(m, i, text[i]);
        name[i] = text[i];
    }
    if (st == BG_OK)
        st = bg_store_write(s, "layer_name", &n, name, err);
    bg_free(text);
    bg_free(name);
    return st;
}

static bg_status make_datasets(const scoring *w, bg_store *s, bg_err *err)
{
    uint64_t nq = w->plan.extent.n_queries, n = w->plan.n_sequences;
    const bg_queries *queries = w->made.queries;
    bg_status st = bg_store_write(s, "id", &nq, (const char *const *)queries->id, err);
    if (st == BG_OK && queries->loss != NULL)
        st = bg_store_write(s, "query_loss", &nq, queries->loss, err);
    if (st == BG_OK)
        st = bg_store_dataset(s, "sequence", &n, err);
    if (st == BG_OK)
        st = make_scores(w, s, n, err);
    if (st == BG_OK && w->c->layer_scores)
        st = score_name_layers(w->in.model, s, err);
    return st == BG_OK ? write_attributes(w, s, err) : st;
}

static bg_status write_shard(scoring *w, bg_err *err)
{
    bg_extremes e = { 0 };
    bg_store *s = NULL;
    bg_status st = bg_extremes_init(&e, w->plan.extent.n_queries, w->c->top, err);
    if (st == BG_OK)
        st = bg_store_create(&s, w->plan.output, "bregman/scores", &w->in.files.run, err);
    if (st == BG_OK)
        st = make_datasets(w, s, err);
    if (st == BG_OK)
        st = copy_units(w, s, &e, err);
    if (st == BG_OK)
        st = write_extremes(w, s, &e, err);
    st = bg_store_end_once(s, st, err);
    if (st == BG_OK)
        bg_log("wrote %s", w->plan.output);
    bg_extremes_clear(&e);
    return st;
}

const score_result score_shard = { { "scores", "scores", write_scores }, write_shard, NULL };
