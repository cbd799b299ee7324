/* score_shards.c - open, score the shard's sequences in units, assemble the shard's file. */
#include "score_shards.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/extremes.h"
#include "bregman/model_open.h"
#include "bregman/log.h"
#include "bregman/memory.h"
#include "bregman/shard.h"
#include "bregman/stop.h"

enum { CALL_BYTES = 128 };

/* ---- opening ---- */

static bg_status parse_shard(scoring *w, bg_err *err)
{
    uint64_t i, n;
    const char *text = w->c->shard;
    if (text[strspn(text, "0123456789/")] != '\0' || sscanf(text, "%" SCNu64 "/%" SCNu64, &i, &n) != 2 ||
        strchr(text, '/') != strrchr(text, '/') || i >= n || n > BG_MOST_SHARDS)
        return BG_FAIL(err, BG_EARG, "--shard takes I/N with 0 <= I < N <= %d, not \"%s\"", BG_MOST_SHARDS, text);
    w->shard = i;
    w->n_shards = n;
    return BG_OK;
}

/* A shard's own sequences must fit the model. */
static bg_status check_lengths(const scoring *w, bg_err *err)
{
    if (w->sequence == NULL)
        return bg_model_check_lengths(w->model, w->tokens, w->begin, w->begin + w->n_sequences, err);
    bg_status st = BG_OK;
    for (uint64_t i = 0; i < w->n_sequences && st == BG_OK; i++)
        st = bg_model_check_lengths(w->model, w->tokens, w->sequence[i], w->sequence[i] + 1, err);
    return st;
}

/* This shard's run of the candidates, or of the whole corpus; none, where there are more shards than sequences. */
static bg_status choose_sequences(scoring *w, bg_err *err)
{
    uint64_t corpus = bg_tokens_sequences(w->tokens), n = w->listed != NULL ? w->n_listed : corpus;
    if (corpus == 0)
        return BG_FAIL(err, BG_EFORMAT, "%s: no sequence in the token files", w->c->tokens.item[0]);
    w->begin = w->shard * n / w->n_shards;
    w->n_sequences = (w->shard + 1) * n / w->n_shards - w->begin;
    if (w->listed != NULL)
        w->sequence = (const uint64_t *)bg_shared_data(w->listed) + w->begin;
    if (w->n_sequences == 0)
        bg_log("--shard %s has no sequence: there are %" PRIu64, w->c->shard, n);
    return check_lengths(w, err);
}

/* The model with the modules of the compressed queries. */
static bg_status open_model(scoring *w, bg_err *err)
{
    const score_shards_config *c = w->c;
    char *modules = NULL;
    bg_status st = bg_queries_modules(c->queries, &modules, err);
    if (st == BG_OK)
        st = bg_model_open(&w->model, c->model, modules, err);
    if (st == BG_EARG)
        st = BG_FAIL(err, BG_ESTALE, "%s: the modules it was made with, \"%.100s\", are none of %s", c->queries,
                     modules, c->model);
    free(modules);
    return st;
}

/* Corpus and queries are of one tokenizer, also where the model's folder has none to compare them with. */
static bg_status check_tokenizers(const scoring *w, bg_err *err)
{
    const char *mine = bg_tokens_tokenizer_hash(w->tokens);
    bg_store *s = NULL;
    char *text = NULL;
    bool found;
    bg_status st = bg_store_open(&s, w->c->queries, "bregman/compressed", err);
    if (st == BG_OK)
        st = bg_store_get_text(s, "/", "tokenizer_hash", &text, &found, err);
    if (st == BG_OK && found && text[0] != '\0' && mine[0] != '\0' && strcmp(text, mine) != 0)
        st = BG_FAIL(err, BG_ESTALE, "%s was made with another tokenizer (%.8s) than the queries of %s (%.8s)",
                     w->c->tokens.item[0], mine, w->c->queries, text);
    bg_store_close(s);
    free(text);
    return st;
}

static bg_status name_files(scoring *w, bg_err *err)
{
    char name[BG_SHARD_NAME_BYTES];
    bg_shard_name(w->shard, w->n_shards, name);
    bg_status st = bg_path(w->shard_file, err, "%s/%s", w->c->output, name);
    return st == BG_OK ? bg_path(w->work, err, "%.*s.work", (int)(strlen(w->shard_file) - strlen(".h5")), w->shard_file)
                       : st;
}

/* World rank 0 reads them, and all have them.  Collective; the same status on all ranks. */
static bg_status open_candidates(scoring *w, bg_err *err)
{
    MPI_Comm world = w->ctx->grid.world;
    uint64_t *all = NULL;
    bg_status st = BG_OK;
    if (w->ctx->grid.world_rank == 0)
        st = score_read_candidates(w->c->candidates, bg_tokens_sequences(w->tokens), &all, &w->n_listed, err);
    if ((st = bg_agree(world, st, err)) == BG_OK) {
        bg_broadcast(world, &w->n_listed, sizeof w->n_listed, 0);
        st = bg_shared_spread(&w->listed, world, all, w->n_listed * sizeof *all, "candidates", err);
    }
    bg_free(all);
    return st;
}

/* Collective; the same status on all ranks. */
static bg_status open_inputs(scoring *w, bg_err *err)
{
    const score_shards_config *c = w->c;
    MPI_Comm world = w->ctx->grid.world;
    bg_status st = parse_shard(w, err);
    if (st == BG_OK)
        st = open_model(w, err);
    if ((st = bg_agree(world, st, err)) != BG_OK)
        return st;
    st = bg_tokens_open_all(&w->tokens, c->tokens.item, c->tokens.n, world, err);
    return st == BG_OK && c->candidates != NULL && c->explain == NULL ? open_candidates(w, err) : st;
}

static bg_status check_inputs(scoring *w, bg_err *err)
{
    const score_shards_config *c = w->c;
    bg_status st = bg_model_check_tokenizer(w->model, bg_tokens_tokenizer_hash(w->tokens), c->tokens.item[0], err);
    if (st == BG_OK)
        st = check_tokenizers(w, err);
    if (st == BG_OK && bg_tokens_are_queries(w->tokens))
        st = BG_FAIL(err, BG_EFORMAT, "%s holds queries, not a corpus: make it with tokenize_corpus",
                     c->tokens.item[0]);
    if (st == BG_OK && c->explain == NULL)
        st = choose_sequences(w, err);
    if (st == BG_OK && c->explain == NULL)
        st = name_files(w, err);
    w->unit_sequences = c->unit_sequences;
    return st;
}

/* The compressed queries, and the file of queries that they were made from. */
static bg_status describe_queries(scoring *w, bg_err *err)
{
    bg_store *s = NULL;
    char *text = NULL, *fingerprint = NULL;
    bool found = false;
    bg_status st = bg_store_open(&s, w->c->queries, "bregman/compressed", err);
    if (st == BG_OK)
        st = bg_store_get_text(s, "/", "queries_hash", &text, &found, err);
    if (st == BG_OK && !found)
        st = BG_FAIL(err, BG_ESTALE,
                     "%s does not say which queries it was made from: remove it and compress them again",
                     w->c->queries);
    if (st == BG_OK)
        st = bg_store_get_text(s, "/run", "fingerprint", &fingerprint, NULL, err);
    if (st == BG_OK) {
        snprintf(w->origin.queries.hex, sizeof w->origin.queries.hex, "%s", text);
        snprintf(w->origin.compressed.hex, sizeof w->origin.compressed.hex, "%s", fingerprint);
    }
    bg_store_close(s);
    free(text);
    free(fingerprint);
    return st;
}

static bg_status hash_inputs(scoring *w, bg_err *err)
{
    if (w->ctx->grid.world_rank != 0)
        return BG_OK;
    bg_status st = bg_model_hash(w->model, &w->model_hash, err);
    if (st == BG_OK)
        st = bg_inputs_add(&w->in, w->model->dir, &w->model_hash, err);
    if (st == BG_OK)
        st = bg_inputs_add_file(&w->in, w->c->queries, err);
    w->origin.model = w->model_hash;
    if (st == BG_OK)
        st = describe_queries(w, err);
    if (st == BG_OK && w->c->explain == NULL)
        st = bg_origin_set_tokens(&w->origin, w->tokens, err);
    if (st == BG_OK && w->c->explain != NULL)
        st = score_explain_check(w, err);
    if (st == BG_OK)
        st = bg_inputs_add_tokens(&w->in, w->tokens, err);
    if (st == BG_OK && w->c->candidates != NULL)
        st = bg_inputs_add_file(&w->in, w->c->candidates, err);
    if (st == BG_OK && w->c->explain != NULL)
        st = bg_inputs_add_file(&w->in, w->c->explain, err);
    return st;
}

/* ---- units ---- */

static bg_status write_scores(scoring *w, const bg_unit *unit, const bg_segment *g, bg_store *s, bg_err *err)
{
    size_t nq = w->queries->extent.n_queries, nl = bg_model_layers(w->model);
    uint64_t dims[3] = { g->end - g->first, nq, nl };
    float *x = NULL;
    bg_status st = BG_NEW(x, unit->n_sequences * nq * (w->c->layer_scores ? nl : 1), "scores", err);
    if (st == BG_OK) {
        bg_scorer_scores(w->scorer, x);
        st = bg_store_write(s, "score", dims, x + g->first * nq, err);
    }
    if (st == BG_OK && w->c->layer_scores) {
        bg_scorer_layers(w->scorer, x);
        st = bg_store_write(s, "layer_score", dims, x + g->first * nq * nl, err);
    }
    bg_free(x);
    return st;
}

/* ---- assembling, on rank 0 ---- */

static bg_status write_extremes(const scoring *w, bg_store *s, const bg_extremes *e, bg_err *err)
{
    bg_ranked list[BG_SIDES] = { { 0 }, { 0 } };
    bg_status st = BG_OK;
    for (int side = 0; side < BG_SIDES && st == BG_OK; side++) {
        st = bg_ranked_alloc(&list[side], e->n_queries, e->k, err);
        if (st == BG_OK)
            bg_extremes_take(e, side, &list[side]);
    }
    if (st == BG_OK)
        st = bg_ranked_find_documents(list, e->n_queries * e->k, w->tokens, err);
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
        uint64_t z = w->sequence == NULL ? w->begin + rows->first + i : w->sequence[rows->first + i];
        int64_t number = (int64_t)z;
        st = bg_store_write_rows(to, "sequence", rows->first + i, 1, &number, err);
        if (st == BG_OK)
            st = bg_extremes_push(e, z, score + i * w->queries->extent.n_queries, err);
    }
    return st;
}

/* Copy a run of rows to the shard's file, and rank them.  x: room for a unit's. */
static bg_status copy_rows(const scoring *w, const bg_rows *rows, float *x, bg_store *to, bg_extremes *e, bg_err *err)
{
    size_t nq = w->queries->extent.n_queries, nl = bg_model_layers(w->model);
    bg_status st = bg_store_read_rows(rows->file, "score", BG_F32, (bg_slab){ rows->row, rows->n, nq }, x, err);
    if (st == BG_OK)
        st = bg_store_write_rows(to, "score", rows->first, rows->n, x, err);
    if (st == BG_OK)
        st = rank_rows(w, rows, x, to, e, err);
    if (st == BG_OK && w->c->layer_scores)
        st = bg_store_read_rows(rows->file, "layer_score", BG_F32, (bg_slab){ rows->row, rows->n, nq * nl }, x, err);
    if (st == BG_OK && w->c->layer_scores)
        st = bg_store_write_rows(to, "layer_score", rows->first, rows->n, x, err);
    return st;
}

static bg_status copy_units(const scoring *w, bg_store *to, bg_extremes *e, bg_err *err)
{
    size_t values = w->queries->extent.n_queries * (w->c->layer_scores ? bg_model_layers(w->model) : 1);
    bg_units_reader *units = NULL;
    float *x = NULL;
    bg_status st = BG_NEW(x, w->unit_sequences * values, "scores", err);
    if (st == BG_OK)
        st = bg_units_reader_new(&units, &w->units, err);
    if (st == BG_OK)
        st = bg_units_choose(units, BG_WHOLE_MODEL, err);
    for (size_t i = 0; st == BG_OK && i < bg_units_runs(units); i++) {
        bg_rows rows;
        st = bg_stop_check("assembling", err);
        if (st == BG_OK)
            st = bg_units_read(units, i, &rows, err);
        if (st == BG_OK)
            st = copy_rows(w, &rows, x, to, e, err);
    }
    bg_units_reader_free(units);
    bg_free(x);
    return st;
}

static bg_status make_datasets(const scoring *w, bg_store *s, bg_err *err)
{
    uint64_t nq = w->queries->extent.n_queries, dims[3] = { w->n_sequences, nq, bg_model_layers(w->model) };
    bg_hash common;
    bg_status st = bg_inputs_fingerprint(&w->in, w->ctx, w->plan.identity, &common, err);
    if (st == BG_OK)
        st = bg_store_write(s, "id", &nq, (const char *const *)w->queries->id, err);
    if (st == BG_OK)
        st = bg_store_dataset(s, "sequence", dims, err);
    if (st == BG_OK)
        st = bg_store_dataset(s, "score", dims, err);
    if (st == BG_OK && w->c->layer_scores)
        st = bg_store_dataset(s, "layer_score", dims, err);
    if (st == BG_OK)
        st = bg_store_attr_u64(s, "/", "shard", w->shard, err);
    if (st == BG_OK)
        st = bg_store_attr_u64(s, "/", "shards", w->n_shards, err);
    if (st == BG_OK)
        st = bg_store_attr_u64(s, "/", "corpus_sequences", bg_tokens_sequences(w->tokens), err);
    if (st == BG_OK)
        st = bg_store_attr_text(s, "run", "shards_fingerprint", common.hex, err);
    return st == BG_OK ? bg_origin_write(&w->origin, s, err) : st;
}

static bg_status assemble(scoring *w, bg_err *err)
{
    bg_extremes e = { 0 };
    bg_store *s = NULL;
    bg_status st = bg_extremes_init(&e, w->queries->extent.n_queries, w->c->top, err);
    if (st == BG_OK)
        st = bg_store_create(&s, w->shard_file, "bregman/scores", &w->in.run, err);
    if (st == BG_OK)
        st = make_datasets(w, s, err);
    if (st == BG_OK)
        st = copy_units(w, s, &e, err);
    if (st == BG_OK)
        st = write_extremes(w, s, &e, err);
    st = bg_store_end_once(s, st, err);
    if (st == BG_OK)
        bg_log("wrote %s", w->shard_file);
    bg_extremes_clear(&e);
    return st;
}

/* ---- the whole ---- */

static bg_status score_all(void *self, bg_err *err)
{
    scoring *w = self;
    MPI_Comm world = w->ctx->grid.world;
    w->write_segment = write_scores;
    bg_status st = score_open_memory(w, "scores", err);
    if (st == BG_OK)
        st = score_sweep(w, "scores", err);
    return st == BG_OK ? bg_agree(world, w->ctx->grid.world_rank == 0 ? assemble(w, err) : BG_OK, err) : st;
}

/* What decides the bytes of a shard beside the options that all shards share. */
static void describe_call(const scoring *w, char out[CALL_BYTES])
{
    snprintf(out, CALL_BYTES, "%s", w->plan.identity);
    if (w->c->explain == NULL)
        snprintf(out, CALL_BYTES, "%s shard %" PRIu64 " of %" PRIu64, w->plan.identity, w->shard, w->n_shards);
}

bg_status score_shards_run(const void *config, const bg_context *ctx, bg_err *err)
{
    scoring w = { .c = config, .ctx = ctx };
    char call[CALL_BYTES];
    w.detail = w.c->explain != NULL ? BG_SCORE_TOKENS : w.c->layer_scores ? BG_SCORE_LAYERS : BG_SCORE_SEQUENCES;
    bg_status st = open_inputs(&w, err);
    if (st == BG_OK) {
        st = check_inputs(&w, err);
        if (st == BG_OK && w.c->explain != NULL)
            st = score_explain_open(&w, err);
        if (st == BG_OK)
            st = score_divide_model(&w, err);
        st = bg_agree(ctx->grid.world, st, err);
    }
    if (st == BG_OK) {
        describe_call(&w, call);
        st = bg_inputs_share(&w.in, ctx, call, 0, hash_inputs(&w, err), err);
    }
    if (st == BG_OK)
        st = score_choose_plan(&w, err);
    if (st == BG_OK) {
        describe_call(&w, call);
        st = bg_agree(ctx->grid.world, bg_inputs_choose(&w.in, ctx, call, err), err);
    }
    if (st == BG_OK) {
        const bg_attempt a = { ctx, &w.in, w.shard_file, w.work, w.plan.rows, &w, NULL, score_all };
        bg_broadcast(ctx->grid.world, &w.model_hash, sizeof w.model_hash, 0);
        st = w.c->explain == NULL ? bg_attempt_run(&a, err) : score_explain(&w, err);
    }
    score_explain_close(&w);
    bg_scorer_free(w.scorer);
    bg_queries_free(w.queries);
    bg_pass_free(w.pass);
    bg_free(w.share);
    bg_shared_free(w.listed);
    bg_tokens_close(w.tokens);
    bg_model_close(w.model);
    bg_origin_clear(&w.origin);
    bg_inputs_clear(&w.in);
    return st;
}
