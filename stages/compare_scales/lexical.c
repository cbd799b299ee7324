/* lexical.c - what queries and sequences have in common, as texts: BM25 (math.md M12), the share of a query's inverse
 * document frequency, and the longest run of tokens. */
#include <math.h>
#include <string.h>

#include "bregman/log.h"
#include "bregman/memory.h"
#include "bregman/visit.h"
#include "compare_scales.h"
#include "costs.h"

/* ---- going through the corpus ---- */

typedef struct {
    comparison *w;
    bg_visit of;
    int64_t *frequency;
    bg_bm25_hit *hit;
    size_t first, n; /* queries */
    uint64_t at;     /* of w->compared: those before it have been met */
    float *score;
} corpus_pass;

static bg_status new_pass(corpus_pass *v, bg_err *err)
{
    v->of.self = v;
    v->of.room = COMPARE_BLOCK_TOKENS + bg_tokens_longest(v->w->tokens, 0, v->w->n_sequences);
    return BG_NEW(v->of.block, v->of.room, "token ids", err);
}

/* ---- weights ---- */

static bg_status add_queries(comparison *w, bg_err *err)
{
    const bg_bm25_options o = { BG_BM25_PAPER, 1.5, 0.75, w->c->ngrams, 1 };
    size_t n_tokens = 0;
    for (size_t q = 0; q < w->n_queries; q++)
        n_tokens += bg_tokens_count(w->queries, q);
    bg_status st = bg_bm25_new(&w->terms, &o, w->n_queries, n_tokens, w->n_query_ids, err);
    for (size_t q = 0; q < w->n_queries && st == BG_OK; q++)
        bg_bm25_add_query(w->terms, w->query_token[q], bg_tokens_count(w->queries, q));
    return st;
}

static bg_status count_terms(void *self, uint64_t sequence, const uint32_t *token, size_t n, bg_err *err)
{
    const corpus_pass *v = self;
    (void)sequence;
    (void)err;
    bg_bm25_count(v->w->terms, token, n, v->frequency);
    return BG_OK;
}

/* Different runs of `length` tokens. */
static size_t different_runs(const uint32_t *token, size_t n, size_t length)
{
    size_t different = 0;
    for (size_t i = 0; i + length <= n; i++) {
        size_t j = 0;
        while (j < i && memcmp(token + j, token + i, length * sizeof *token) != 0)
            j++;
        different += j == i;
    }
    return different;
}

/* All of a query's weight: what its own tokens score, and that of n-grams that no sequence has, which BM25 leaves out. */
static void weigh_query(comparison *w, size_t q, bg_bm25_hit *hit)
{
    const double unseen = log(((double)w->n_sequences + 0.5) / 0.5 + 1);
    size_t n = bg_tokens_count(w->queries, q), n_hits = bg_bm25_score(w->terms, w->query_token[q], n, hit), terms = 0;
    for (size_t length = 1; length <= w->c->ngrams; length++)
        terms += different_runs(w->query_token[q], n, length);
    w->query_idf[q] = unseen * (double)(terms - bg_bm25_query_terms(w->terms, q));
    for (size_t i = 0; i < n_hits; i++)
        if (hit[i].query == q)
            w->query_idf[q] += hit[i].score;
}

static bg_status weigh_queries(comparison *w, bg_err *err)
{
    bg_bm25_hit *hit = NULL;
    bg_status st = BG_NEW(hit, w->n_queries, "scores of a sequence", err);
    if (st == BG_OK)
        st = BG_NEW(w->query_idf, w->n_queries, "weights of queries", err);
    for (size_t q = 0; q < w->n_queries && st == BG_OK; q++)
        weigh_query(w, q, hit);
    bg_free(hit);
    return st;
}

bg_status compare_weigh_terms(comparison *w, bg_err *err)
{
    const bg_grid *g = &w->ctx->grid;
    uint64_t ranks = (uint64_t)g->world_size, rank = (uint64_t)g->world_rank;
    corpus_pass v = { .w = w, .of.take = count_terms };
    bg_status st = add_queries(w, err);
    if (st == BG_OK)
        st = BG_NEW(v.frequency, bg_bm25_terms(w->terms), "counts of terms", err);
    if (st == BG_OK)
        st = new_pass(&v, err);
    if (st == BG_OK)
        st = bg_visit_sequences(&v.of, w->tokens, rank * w->n_sequences / ranks, (rank + 1) * w->n_sequences / ranks,
                                err);
    if ((st = bg_agree(g->world, st, err)) == BG_OK) {
        MPI_Allreduce(MPI_IN_PLACE, v.frequency, (int)bg_bm25_terms(w->terms), MPI_INT64_T, MPI_SUM, g->world);
        st = bg_bm25_weigh(w->terms, v.frequency, w->n_sequences, w->n_tokens, err);
        if (st == BG_OK)
            st = weigh_queries(w, err);
        st = bg_agree(g->world, st, err);
    }
    bg_free(v.of.block);
    bg_free(v.frequency);
    return st;
}

/* ---- scores ---- */

static bg_status score_sequence(void *self, uint64_t sequence, const uint32_t *token, size_t n, bg_err *err)
{
    corpus_pass *v = self;
    const comparison *w = v->w;
    (void)err;
    if (v->at == w->n_compared || (uint64_t)w->compared[v->at] != sequence)
        return BG_OK;
    size_t n_hits = bg_bm25_score(w->terms, token, n, v->hit);
    for (size_t i = 0; i < n_hits; i++)
        if (v->hit[i].query - v->first < v->n)
            v->score[(v->hit[i].query - v->first) * w->n_compared + v->at] = (float)v->hit[i].score;
    v->at++;
    return BG_OK;
}

/* What is compared, and what lies between where passing over it would save little: tokens are read by the chunk. */
static bg_status visit_compared(corpus_pass *v, bg_err *err)
{
    enum { GAP = 256 };
    const int64_t *compared = v->w->compared;
    bg_status st = BG_OK;
    for (uint64_t i = 0, end; i < v->w->n_compared && st == BG_OK; i = end) {
        for (end = i + 1; end < v->w->n_compared && compared[end] - compared[end - 1] <= GAP; end++)
            ;
        st = bg_visit_sequences(&v->of, v->w->tokens, (uint64_t)compared[i], (uint64_t)compared[end - 1] + 1, err);
    }
    return st;
}

bg_status compare_bm25(comparison *w, size_t first, size_t n, float *score, bg_err *err)
{
    corpus_pass v = { .w = w, .of.take = score_sequence, .first = first, .n = n, .score = score };
    bg_status st = BG_NEW(v.hit, w->n_queries, "scores of a sequence", err);
    for (uint64_t i = 0; i < n * w->n_compared; i++)
        score[i] = 0;
    if (st == BG_OK)
        st = new_pass(&v, err);
    if (st == BG_OK)
        st = visit_compared(&v, err);
    bg_free(v.of.block);
    bg_free(v.hit);
    return st;
}

/* ---- one sequence and one query ---- */

/* Longest run of tokens that both have: of runs that end at a[i] and b[j] one is kept for each j.  length [nb + 1], 0. */
static int64_t common_run(const uint32_t *a, size_t na, const uint32_t *b, size_t nb, uint32_t *length)
{
    uint32_t most = 0;
    for (size_t i = 0; i < na; i++)
        for (size_t j = nb; j > 0; j--) { /* backwards: length[j - 1] is still that of a[i - 1] */
            length[j] = a[i] == b[j - 1] ? length[j - 1] + 1 : 0;
            most = length[j] > most ? length[j] : most;
        }
    return most;
}

bg_status compare_text(comparison *w, size_t query, uint64_t sequence, double *overlap, int64_t *run, bg_err *err)
{
    size_t n = bg_tokens_count(w->tokens, sequence), n_query = bg_tokens_count(w->queries, query);
    uint32_t *token = NULL, *length = NULL;
    bg_bm25_hit *hit = NULL;
    bg_status st = BG_NEW(token, n, "token ids", err);
    if (st == BG_OK)
        st = BG_NEW(length, n_query + 1, "lengths of runs", err);
    if (st == BG_OK)
        st = BG_NEW(hit, w->n_queries, "scores of a sequence", err);
    if (st == BG_OK)
        st = bg_tokens_read(w->tokens, sequence, sequence + 1, SIZE_MAX, token, err);
    if (st == BG_OK) {
        *run = common_run(token, n, w->query_token[query], n_query, length);
        *overlap = 0;
        size_t n_hits = bg_bm25_score(w->terms, token, n, hit);
        for (size_t i = 0; i < n_hits; i++)
            if (hit[i].query == query)
                *overlap = hit[i].score / w->query_idf[query];
    }
    bg_free(token);
    bg_free(length);
    bg_free(hit);
    return st;
}
