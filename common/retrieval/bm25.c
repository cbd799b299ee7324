#include "bregman/bm25.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/memory.h"

/* No term, no place. */
static const uint32_t NONE = UINT32_MAX;
static const uint64_t EMPTY = UINT64_MAX;

/* A query that has a term, and how much of it. */
typedef struct {
    uint32_t query;
    double weight;
} posting;

/* A term of a query, as often as it stands there. */
typedef struct {
    uint32_t query, term;
} occurrence;

/* Terms are numbered as they come up.  A longer n-gram is known by the term of all but its last token, which is one
 * too, and that token: so no two have one key. */
struct bg_bm25 {
    bg_bm25_options o;
    size_t n_queries, n_ids, most_terms, mask;
    uint32_t *unigram;                      /* [n_ids] term of a token */
    uint64_t *key;                          /* [mask + 1] of longer n-grams: prefix << 32 | token, open addressing */
    uint32_t *value;                        /* [mask + 1] their terms */
    size_t n_terms, n_added, n_occurrences; /* n_added: queries */
    occurrence *occurrence;                 /* [most_terms] */
    uint32_t *place;                        /* [terms] where a term stands in the order of summing; NONE: not at all */
    /* by place */
    size_t n_places, n_stopped;
    double *idf;
    size_t *begin; /* [n_places + 1] of its postings */
    posting *posting;
    uint32_t *query_terms;                  /* [n_queries] */
    double saturation, saturation_by_token; /* k1 (1 - b), and k1 b / A */
    /* of the sequence in hand */
    uint64_t *present; /* [places] bits */
    uint32_t *times;   /* [places] */
    double *score;     /* [n_queries] */
};

/* ---- making ---- */

static size_t slots_for(size_t n_terms)
{
    size_t slots = 16;
    while (slots < 2 * n_terms)
        slots *= 2;
    return slots;
}

static size_t words_for(size_t n_terms) { return n_terms / 64 + 1; }

double bg_bm25_bytes(double n_queries, double n_tokens, double ngrams, double n_ids)
{
    double terms = n_tokens * ngrams, slots = 4 * terms + 16;
    return 4 * n_ids + slots * (sizeof(uint64_t) + sizeof(uint32_t)) +
           terms * (sizeof(occurrence) + sizeof(posting) + 2 * sizeof(uint32_t) + sizeof(double) + sizeof(size_t) +
                    sizeof(int64_t) + 0.125) +
           n_queries * (sizeof(uint32_t) + sizeof(double) + sizeof(bg_bm25_hit));
}

static bg_status check_options(const bg_bm25_options *o, size_t n_tokens, size_t n_ids, bg_err *err)
{
    if (o->ngrams < 1 || o->ngrams > BG_BM25_NGRAMS)
        return BG_FAIL(err, BG_EARG, "n-grams of 1 to %d tokens, not %zu", BG_BM25_NGRAMS, o->ngrams);
    if (!(o->k1 >= 0 && o->k1 <= 1e6 && o->b >= 0 && o->b <= 1 && o->max_share >= 0))
        return BG_FAIL(err, BG_EARG, "k1 %g, b %g or share %g is out of range", o->k1, o->b, o->max_share);
    if (n_ids > BG_BM25_IDS)
        return BG_FAIL(err, BG_EFORMAT, "the queries have token id %zu: ids up to %d are taken", n_ids - 1,
                       BG_BM25_IDS - 1);
    if (n_tokens >= UINT32_MAX / BG_BM25_NGRAMS)
        return BG_FAIL(err, BG_ENOMEM, "%zu tokens of queries are too many", n_tokens);
    return BG_OK;
}

/* Room for the terms, */
static bg_status alloc_terms(bg_bm25 *m, bg_err *err)
{
    size_t n = m->most_terms;
    bg_status st = BG_NEW(m->unigram, m->n_ids, "terms of the queries", err);
    if (st == BG_OK)
        st = BG_NEW(m->key, m->mask + 1, "terms of the queries", err);
    if (st == BG_OK)
        st = BG_NEW(m->value, m->mask + 1, "terms of the queries", err);
    if (st == BG_OK)
        st = BG_NEW(m->occurrence, n, "terms of the queries", err);
    return st == BG_OK ? BG_NEW(m->place, n, "terms of the queries", err) : st;
}

/* and for what is by place, and of a sequence. */
static bg_status alloc_places(bg_bm25 *m, bg_err *err)
{
    size_t n = m->most_terms;
    bg_status st = BG_NEW(m->idf, n, "terms of the queries", err);
    if (st == BG_OK)
        st = BG_NEW(m->begin, n + 2, "terms of the queries", err);
    if (st == BG_OK)
        st = BG_NEW(m->posting, n, "terms of the queries", err);
    if (st == BG_OK)
        st = BG_NEW(m->query_terms, m->n_queries, "terms of the queries", err);
    if (st != BG_OK)
        return st;
    st = BG_NEW(m->present, words_for(n), "terms of a sequence", err);
    if (st == BG_OK)
        st = BG_NEW(m->times, n, "terms of a sequence", err);
    return st == BG_OK ? BG_NEW(m->score, m->n_queries, "scores of a sequence", err) : st;
}

bg_status bg_bm25_new(bg_bm25 **out, const bg_bm25_options *o, size_t n_queries, size_t n_tokens, size_t n_ids,
                      bg_err *err)
{
    bg_bm25 *m = NULL;
    *out = NULL;
    bg_status st = check_options(o, n_tokens, n_ids, err);
    if (st == BG_OK)
        st = BG_NEW(m, 1, "terms of the queries", err);
    if (st != BG_OK)
        return st;
    *m = (bg_bm25){ .o = *o, .n_queries = n_queries, .n_ids = n_ids, .most_terms = n_tokens * o->ngrams };
    m->mask = slots_for(o->ngrams > 1 ? m->most_terms : 0) - 1;
    st = alloc_terms(m, err);
    if (st == BG_OK)
        st = alloc_places(m, err);
    if (st != BG_OK) {
        bg_bm25_free(m);
        return st;
    }
    memset(m->unigram, 0xff, n_ids * sizeof *m->unigram);
    memset(m->key, 0xff, (m->mask + 1) * sizeof *m->key);
    *out = m;
    return BG_OK;
}

void bg_bm25_free(bg_bm25 *m)
{
    if (m == NULL)
        return;
    void *const all[] = { m->unigram, m->key,     m->value,       m->occurrence, m->place, m->idf,
                          m->begin,   m->posting, m->query_terms, m->present,    m->times, m->score };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        bg_free(all[i]);
    bg_free(m);
}

/* ---- terms ---- */

/* The slot that an n-gram is in, or would be in.  The high half of the product has all of the key in it. */
static size_t slot_of(const bg_bm25 *m, uint64_t key)
{
    size_t i = (size_t)((key * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & m->mask;
    while (m->key[i] != key && m->key[i] != EMPTY)
        i = (i + 1) & m->mask;
    return i;
}

static uint64_t key_of(uint32_t prefix, uint32_t token) { return (uint64_t)prefix << 32 | token; }

static uint32_t add_term(bg_bm25 *m, uint32_t *at)
{
    if (*at == NONE) {
        assert(m->n_terms < m->most_terms);
        m->place[m->n_terms] = (uint32_t)m->n_terms;
        *at = (uint32_t)m->n_terms++;
    }
    return *at;
}

static uint32_t add_longer(bg_bm25 *m, uint32_t prefix, uint32_t token)
{
    const uint64_t key = key_of(prefix, token);
    size_t i = slot_of(m, key);
    if (m->key[i] == EMPTY) {
        m->key[i] = key;
        m->value[i] = NONE;
    }
    return add_term(m, &m->value[i]);
}

void bg_bm25_add_query(bg_bm25 *m, const uint32_t *token, size_t n)
{
    const uint32_t query = (uint32_t)m->n_added++;
    assert(query < m->n_queries && m->n_occurrences + n * m->o.ngrams <= m->most_terms);
    for (size_t i = 0; i < n; i++) {
        assert(token[i] < m->n_ids);
        uint32_t term = add_term(m, &m->unigram[token[i]]);
        m->occurrence[m->n_occurrences++] = (occurrence){ query, term };
        for (size_t k = 1; k < m->o.ngrams && i + k < n; k++) {
            term = add_longer(m, term, token[i + k]);
            m->occurrence[m->n_occurrences++] = (occurrence){ query, term };
        }
    }
}

size_t bg_bm25_terms(const bg_bm25 *m) { return m->n_terms; }

/* ---- a sequence ---- */

static inline void meet(bg_bm25 *m, uint32_t term)
{
    uint32_t p = m->place[term];
    if (p == NONE)
        return;
    m->present[p / 64] |= UINT64_C(1) << p % 64;
    m->times[p]++;
}

static inline uint32_t unigram_of(const bg_bm25 *m, uint32_t token)
{
    return token < m->n_ids ? m->unigram[token] : NONE;
}

/* Note the places of the terms that a sequence has, and how often.  Most tokens that follow a query's token are in no
 * query: they are told apart without a look into the large table. */
static void meet_all(bg_bm25 *m, const uint32_t *token, size_t n)
{
    const size_t longest = m->o.ngrams;
    for (size_t i = 0; i < n; i++) {
        uint32_t term = unigram_of(m, token[i]);
        if (term == NONE)
            continue;
        meet(m, term);
        for (size_t k = 1; k < longest && i + k < n && unigram_of(m, token[i + k]) != NONE; k++) {
            size_t slot = slot_of(m, key_of(term, token[i + k]));
            if (m->key[slot] == EMPTY)
                break;
            term = m->value[slot];
            meet(m, term);
        }
    }
}

void bg_bm25_count(bg_bm25 *m, const uint32_t *token, size_t n, int64_t *frequency)
{
    meet_all(m, token, n);
    for (size_t w = 0; w < words_for(m->n_terms); w++) {
        for (uint64_t left = m->present[w]; left != 0; left &= left - 1) {
            size_t term = 64 * w + (size_t)__builtin_ctzll(left);
            frequency[term]++;
            m->times[term] = 0;
        }
        m->present[w] = 0;
    }
}

/* What a term counts that the sequence has so many times, over its IDF. */
static double factor_of(const bg_bm25 *m, double times, double saturation)
{
    return m->o.form == BG_BM25_PAPER ? (m->o.k1 + 1) / (m->o.k1 + 1) : times * (m->o.k1 + 1) / (times + saturation);
}

/* Add the scores of a place's queries; those met first follow the n in hit.  Their number. */
static size_t add_postings(bg_bm25 *m, size_t p, double value, bg_bm25_hit *hit, size_t n)
{
    for (size_t i = m->begin[p]; i < m->begin[p + 1]; i++) {
        uint32_t query = m->posting[i].query;
        if (m->score[query] <= 0)
            hit[n++].query = query;
        m->score[query] += value * m->posting[i].weight;
    }
    return n;
}

size_t bg_bm25_score(bg_bm25 *m, const uint32_t *token, size_t n, bg_bm25_hit *hit)
{
    const double saturation = m->saturation + m->saturation_by_token * (double)n;
    size_t n_hits = 0;
    meet_all(m, token, n);
    for (size_t w = 0; w < words_for(m->n_places); w++) {
        for (uint64_t left = m->present[w]; left != 0; left &= left - 1) {
            size_t p = 64 * w + (size_t)__builtin_ctzll(left);
            double value = m->idf[p] * factor_of(m, m->times[p], saturation);
            n_hits = add_postings(m, p, value, hit, n_hits);
            m->times[p] = 0;
        }
        m->present[w] = 0;
    }
    for (size_t i = 0; i < n_hits; i++) {
        hit[i].score = m->score[hit[i].query];
        m->score[hit[i].query] = 0;
    }
    return n_hits;
}

/* ---- between the passes ---- */

/* A term on its way to its place. */
typedef struct {
    int64_t frequency;
    uint32_t term;
} counted;

static int rarest_first(const void *a_, const void *b_)
{
    const counted *a = a_, *b = b_;
    if (a->frequency != b->frequency)
        return a->frequency < b->frequency ? -1 : 1;
    return (a->term > b->term) - (a->term < b->term);
}

/* Give the terms that count their places.  c: room for all terms. */
static void place_terms(bg_bm25 *m, const int64_t *frequency, uint64_t n_sequences, counted *c)
{
    const double all = (double)n_sequences, most = m->o.max_share * all;
    for (size_t t = 0; t < m->n_terms; t++) {
        m->place[t] = NONE;
        if ((double)frequency[t] > most)
            m->n_stopped++;
        else if (frequency[t] > 0)
            c[m->n_places++] = (counted){ frequency[t], (uint32_t)t };
    }
    if (m->n_places > 0)
        qsort(c, m->n_places, sizeof *c, rarest_first);
    for (size_t p = 0; p < m->n_places; p++) {
        double n = (double)c[p].frequency;
        m->place[c[p].term] = (uint32_t)p;
        m->idf[p] = log1p((all - n + 0.5) / (n + 0.5));
    }
}

/* Occurrences become postings: by place, then query. */
static void list_postings(bg_bm25 *m)
{
    for (size_t i = 0; i < m->n_occurrences; i++)
        if (m->place[m->occurrence[i].term] != NONE)
            m->begin[m->place[m->occurrence[i].term] + 2]++;
    for (size_t p = 0; p < m->n_places; p++)
        m->begin[p + 2] += m->begin[p + 1];
    for (size_t i = 0; i < m->n_occurrences; i++) {
        uint32_t p = m->place[m->occurrence[i].term];
        if (p != NONE)
            m->posting[m->begin[p + 1]++] = (posting){ m->occurrence[i].query, 1 };
    }
}

/* One posting of a query that has a term several times. */
static void join_postings(bg_bm25 *m)
{
    size_t n = 0, at = 0;
    for (size_t p = 0; p < m->n_places; p++) {
        size_t first = n, end = m->begin[p + 1];
        for (; at < end; at++) {
            uint32_t query = m->posting[at].query;
            if (n > first && m->posting[n - 1].query == query) {
                m->posting[n - 1].weight += m->o.form == BG_BM25_OKAPI;
                continue;
            }
            m->posting[n++] = m->posting[at];
            m->query_terms[query]++;
        }
        m->begin[p + 1] = n;
    }
}

bg_status bg_bm25_weigh(bg_bm25 *m, const int64_t *frequency, uint64_t n_sequences, uint64_t n_tokens, bg_err *err)
{
    counted *c = NULL;
    bg_status st = BG_NEW(c, m->n_terms, "terms of the queries", err);
    if (st != BG_OK)
        return st;
    assert(m->n_added == m->n_queries && m->n_places == 0);
    place_terms(m, frequency, n_sequences, c);
    list_postings(m);
    join_postings(m);
    m->saturation = m->o.k1 * (1 - m->o.b);
    m->saturation_by_token = n_tokens > 0 ? m->o.k1 * m->o.b * ((double)n_sequences / (double)n_tokens) : 0;
    bg_free(c);
    return BG_OK;
}

size_t bg_bm25_query_terms(const bg_bm25 *m, size_t query) { return m->query_terms[query]; }
size_t bg_bm25_stopped(const bg_bm25 *m) { return m->n_stopped; }
