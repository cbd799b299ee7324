/* inputs.c - open, check and hash what is read. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "bregman/model_open.h"
#include "bregman/memory.h"
#include "bregman/shard.h"
#include "scoring.h"

static bg_status parse_shard(scoring *w, bg_err *err)
{
    uint64_t i, n;
    const char *text = w->c->shard;
    if (w->c->gradient_norms && w->c->explain != NULL)
        return BG_FAIL(err, BG_EARG, "--gradient-norms go with scores, not with --explain");
    if (text[strspn(text, "0123456789/")] != '\0' || sscanf(text, "%" SCNu64 "/%" SCNu64, &i, &n) != 2 ||
        strchr(text, '/') != strrchr(text, '/') || i >= n || n > BG_MOST_SHARDS)
        return BG_FAIL(err, BG_EARG, "--shard takes I/N with 0 <= I < N <= %d, not \"%s\"", BG_MOST_SHARDS, text);
    w->plan.shard = i;
    w->plan.n_shards = n;
    return BG_OK;
}

/* The model with the modules of the compressed queries. */
static bg_status open_model(scoring *w, bg_err *err)
{
    const score_shards_config *c = w->c;
    const char *modules;
    bg_status st = bg_queries_describe(&w->in.about, c->queries, err);
    if (st != BG_OK)
        return st;
    modules = w->in.about.modules;
    st = bg_model_open(&w->in.model, c->model, modules, err);
    return st != BG_EARG ? st
                         : BG_FAIL(err, BG_ESTALE, "%s: the modules it was made with, \"%.100s\", are none of %s",
                                   c->queries, modules, c->model);
}

/* The token files are a corpus, of the model's tokenizer and the queries', also where the model's folder has none to
 * compare them with. */
static bg_status check_tokens(const scoring *w, bg_err *err)
{
    const char *path = w->c->tokens.item[0], *mine = bg_tokens_tokenizer_hash(w->in.tokens);
    const char *theirs = w->in.about.tokenizer_hash;
    bg_status st = bg_model_check_tokenizer(w->in.model, mine, path, err);
    if (st == BG_OK && theirs != NULL && theirs[0] != '\0' && mine[0] != '\0' && strcmp(theirs, mine) != 0)
        st = BG_FAIL(err, BG_ESTALE, "%s was made with another tokenizer (%.8s) than the queries of %s (%.8s)", path,
                     mine, w->c->queries, theirs);
    return st == BG_OK ? bg_tokens_check_corpus(w->in.tokens, err) : st;
}

/* World rank 0 reads them, and all have them.  Collective; the same status on all ranks. */
static bg_status open_candidates(scoring *w, bg_err *err)
{
    MPI_Comm world = w->ctx->grid.world;
    uint64_t *all = NULL;
    bg_status st = BG_OK;
    if (w->ctx->grid.world_rank == 0)
        st = score_read_candidates(w->c->candidates, bg_tokens_sequences(w->in.tokens), &all, &w->in.n_listed, err);
    if ((st = bg_agree(world, st, err)) == BG_OK) {
        bg_broadcast(world, &w->in.n_listed, sizeof w->in.n_listed, 0);
        st = bg_shared_spread(&w->in.listed, world, all, w->in.n_listed * sizeof *all, "candidates", err);
    }
    bg_free(all);
    return st;
}

bg_status score_open_inputs(scoring *w, bg_err *err)
{
    const score_shards_config *c = w->c;
    MPI_Comm world = w->ctx->grid.world;
    bg_status st = parse_shard(w, err);
    if (st == BG_OK)
        st = open_model(w, err);
    if ((st = bg_agree(world, st, err)) != BG_OK)
        return st;
    st = bg_tokens_open_all(&w->in.tokens, c->tokens.item, c->tokens.n, world, err);
    if (st == BG_OK && c->candidates != NULL && c->explain == NULL)
        st = open_candidates(w, err);
    return st == BG_OK ? bg_agree(world, check_tokens(w, err), err) : st;
}

void score_close_inputs(scoring *w)
{
    score_explain_close(w);
    bg_shared_free(w->in.listed);
    bg_tokens_close(w->in.tokens);
    bg_model_close(w->in.model);
    bg_origin_clear(&w->in.origin);
    bg_inputs_clear(&w->in.files);
    bg_queries_about_clear(&w->in.about);
}

/* Model, compressed queries, and the file of queries that they were made from. */
static bg_status set_origin(score_inputs *in, const char *queries, bg_err *err)
{
    if (in->about.queries_hash == NULL || in->about.fingerprint == NULL)
        return BG_FAIL(err, BG_ESTALE,
                       "%s does not say which queries it was made from: remove it and compress them again", queries);
    in->origin.model = in->model_hash;
    snprintf(in->origin.queries.hex, sizeof in->origin.queries.hex, "%s", in->about.queries_hash);
    snprintf(in->origin.compressed.hex, sizeof in->origin.compressed.hex, "%s", in->about.fingerprint);
    return BG_OK;
}

bg_status score_hash_inputs(scoring *w, bg_err *err)
{
    score_inputs *in = &w->in;
    const char *also = w->c->explain != NULL ? w->c->explain : w->c->candidates;
    if (w->ctx->grid.world_rank != 0)
        return BG_OK;
    bg_status st = bg_model_hash(in->model, &in->model_hash, err);
    if (st == BG_OK)
        st = bg_inputs_add(&in->files, in->model->dir, &in->model_hash, err);
    if (st == BG_OK)
        st = bg_inputs_add_file(&in->files, w->c->queries, err);
    if (st == BG_OK)
        st = set_origin(in, w->c->queries, err);
    if (st != BG_OK)
        return st;
    st = w->c->explain != NULL ? score_explain_check(w, err) : bg_origin_set_tokens(&in->origin, in->tokens, err);
    if (st == BG_OK)
        st = bg_inputs_add_tokens(&in->files, in->tokens, err);
    if (st == BG_OK && also != NULL && w->c->explain == NULL)
        st = score_check_candidates(w, err);
    return st == BG_OK && also != NULL ? bg_inputs_add_file(&in->files, also, err) : st;
}
