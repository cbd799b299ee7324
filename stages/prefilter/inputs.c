/* inputs.c - the corpus, the queries, and their terms. */
#include <inttypes.h>
#include <string.h>

#include "bregman/log.h"
#include "bregman/memory.h"
#include "costs.h"
#include "prefilter.h"

static bg_status choose_form(prefilter *p, bg_err *err)
{
    static const char *const form[] = { "paper", "okapi", NULL }, *const terms[] = { "both", "prompt", "completion",
                                                                                     NULL };
    int which;
    bg_status st = bg_option_word("--terms", p->c->terms, terms, &which, err);
    if (st == BG_OK)
        st = bg_option_word("--form", p->c->form, form, &which, err);
    p->form = which == 1 ? BG_BM25_OKAPI : BG_BM25_PAPER;
    return st;
}

/* A corpus and queries of one tokenizer, as far as the files know theirs. */
static bg_status check_kinds(const prefilter *p, bg_err *err)
{
    const char *corpus = p->c->tokens.item[0], *mine = bg_tokens_tokenizer_hash(p->in.corpus);
    const char *theirs = bg_tokens_tokenizer_hash(p->in.queries);
    bg_status st = bg_tokens_check_corpus(p->in.corpus, err);
    if (st == BG_OK)
        st = bg_tokens_check_queries(p->in.queries, err);
    if (st == BG_OK && mine[0] != '\0' && theirs[0] != '\0' && strcmp(mine, theirs) != 0)
        st = BG_FAIL(err, BG_ESTALE,
                     "%s was made with another tokenizer (%.8s) than %s (%.8s): their token ids are of different "
                     "words; tokenize one of them again",
                     p->c->queries, theirs, corpus, mine);
    return st;
}

/* The part of a query's tokens that --terms asks for. */
static void part_of(const prefilter *p, uint64_t query, uint32_t *first, uint32_t *end)
{
    uint32_t start = bg_tokens_completion_start(p->in.queries, query);
    *first = strcmp(p->c->terms, "completion") == 0 ? start : 0;
    *end = strcmp(p->c->terms, "prompt") == 0 ? start : bg_tokens_count(p->in.queries, query);
}

/* token: all queries' tokens, back to back. */
static bg_status make_terms(prefilter *p, const uint32_t *token, size_t n_tokens, bg_err *err)
{
    const bg_bm25_options o = { p->form, p->c->k1, p->c->b, p->c->ngrams, p->c->max_share };
    size_t n_ids = 0;
    for (size_t i = 0; i < n_tokens; i++)
        n_ids = token[i] >= n_ids ? (size_t)token[i] + 1 : n_ids;
    bg_status st = bg_bm25_new(&p->terms, &o, p->n_queries, n_tokens, n_ids, err);
    for (uint64_t q = 0; q < p->n_queries && st == BG_OK; q++) {
        uint32_t first, end;
        part_of(p, q, &first, &end);
        bg_bm25_add_query(p->terms, token + first, end - first);
        token += bg_tokens_count(p->in.queries, q);
    }
    return st;
}

static bg_status read_queries(prefilter *p, bg_err *err)
{
    uint32_t *token = NULL;
    size_t n = 0;
    p->n_queries = bg_tokens_sequences(p->in.queries);
    for (uint64_t q = 0; q < p->n_queries; q++)
        n += bg_tokens_count(p->in.queries, q);
    bg_status st = BG_NEW(token, n, "queries", err);
    if (st == BG_OK)
        st = bg_tokens_read(p->in.queries, 0, p->n_queries, SIZE_MAX, token, err);
    if (st == BG_OK)
        st = make_terms(p, token, n, err);
    bg_free(token);
    return st;
}

static bg_status take_memory(prefilter *p, bg_err *err)
{
    for (uint64_t z = 0; z < p->n_sequences; z++) {
        uint32_t n = bg_tokens_count(p->in.corpus, z);
        p->n_tokens += n;
        p->block_tokens = n > p->block_tokens ? n : p->block_tokens;
    }
    if (p->block_tokens < PREFILTER_BLOCK_TOKENS)
        p->block_tokens = PREFILTER_BLOCK_TOKENS;
    if (p->block_tokens > p->n_tokens)
        p->block_tokens = p->n_tokens;
    bg_status st = BG_NEW(p->block, p->block_tokens, "token ids", err);
    return st == BG_OK ? BG_NEW(p->hit, p->n_queries, "scores of a sequence", err) : st;
}

/* Local. */
static bg_status prepare(prefilter *p, bg_err *err)
{
    bg_status st = check_kinds(p, err);
    if (st == BG_OK)
        st = read_queries(p, err);
    p->n_sequences = bg_tokens_sequences(p->in.corpus);
    p->top = p->c->top < p->n_sequences ? p->c->top : p->n_sequences;
    if (st == BG_OK)
        st = take_memory(p, err);
    const char *name = p->c->output;
    size_t n = strlen(name) - (bg_ends_in(name, ".h5") ? strlen(".h5") : 0);
    return st == BG_OK ? bg_path(p->work, err, "%.*s.work", (int)n, name) : st;
}

bg_status prefilter_open(prefilter *p, bg_err *err)
{
    const prefilter_config *c = p->c;
    MPI_Comm world = p->ctx->grid.world;
    bg_status st = bg_agree(world, choose_form(p, err), err);
    if (st == BG_OK)
        st = bg_tokens_open_all(&p->in.queries, &c->queries, 1, world, err);
    if (st == BG_OK)
        st = bg_tokens_open_all(&p->in.corpus, c->tokens.item, c->tokens.n, world, err);
    return st == BG_OK ? bg_agree(world, prepare(p, err), err) : st;
}

bg_status prefilter_hash(prefilter *p, bg_err *err)
{
    if (p->ctx->grid.world_rank != 0)
        return BG_OK;
    bg_status st = bg_inputs_add_tokens(&p->in.files, p->in.queries, err);
    return st == BG_OK ? bg_inputs_add_tokens(&p->in.files, p->in.corpus, err) : st;
}
