/* bm25.h - lexical relevance of token sequences to queries (math.md M12), for all queries at once.
 *
 * A term is an n-gram of token ids, of length 1 to `ngrams`, within the tokens that a query is given by.  Only terms of
 * the queries are looked for, so that memory is bounded by the queries.  Of C sequences n_t have the term t:
 *   IDF(t) = ln((C - n_t + 1/2) / (n_t + 1/2) + 1)
 * BG_BM25_PAPER (Grosse et al. 2023, as M12 has it): the query's terms that the sequence D has, each once, whatever
 * number of times it stands in either.  With e = 1 for these the factor is 1 for every k1: k1 changes no score.
 *   score(Q, D) = sum over t in Q and D of (k1 + 1) e / (k1 + e) IDF(t)
 * BG_BM25_OKAPI (Robertson and Zaragoza 2009, eq. 3.15): a term that D has f times, of |D| tokens where the mean is A;
 * one that the query has m times counts m times.
 *   score(Q, D) = sum over t in Q and D of m f (k1 + 1) / (f + k1 (1 - b + b |D| / A)) IDF(t)
 * Terms with n_t > max_share C, or n_t = 0, count for nothing.  Every other IDF is positive: a score of 0 says that no
 * term is shared, and such a sequence is no hit.
 *
 * In float64.  A score's terms are added from the rarest to the most frequent, those of one n_t in the order in which
 * the queries have them first: the bytes depend on nothing else, and two sequences that share terms of the same n_t
 * with a query have the same score by BG_BM25_PAPER.
 *
 * Local.  A bg_bm25 has working memory of its own: one thread at a time. */
#ifndef BG_BM25_H
#define BG_BM25_H

#include <stddef.h>
#include <stdint.h>

#include "bregman/status.h"

typedef enum { BG_BM25_PAPER, BG_BM25_OKAPI } bg_bm25_form;
enum { BG_BM25_NGRAMS = 3, BG_BM25_IDS = 1 << 24 };

typedef struct {
    bg_bm25_form form;
    double k1, b; /* from 0; b at most 1 */
    size_t ngrams;
    double max_share; /* of the sequences */
} bg_bm25_options;

typedef struct bg_bm25 bg_bm25;

/* Room for the terms of n_queries queries with n_tokens tokens in all, ids below n_ids.  Free with bg_bm25_free.
 * Errors: BG_EARG for options out of range; BG_EFORMAT for n_ids above BG_BM25_IDS; BG_ENOMEM. */
bg_status bg_bm25_new(bg_bm25 **out, const bg_bm25_options *o, size_t n_queries, size_t n_tokens, size_t n_ids,
                      bg_err *err) BG_MUST_CHECK;
void bg_bm25_free(bg_bm25 *m); /* NULL is fine */
/* What it takes, at most. */
double bg_bm25_bytes(double n_queries, double n_tokens, double ngrams, double n_ids);

/* The next query's tokens, token [n]; all queries before anything else.  What bg_bm25_new was told is asserted. */
void bg_bm25_add_query(bg_bm25 *m, const uint32_t *token, size_t n);
/* Different terms of the queries added so far. */
size_t bg_bm25_terms(const bg_bm25 *m);

/* First pass: frequency [terms, in/out] is raised by one for each term that the sequence has.  Cost: a look-up a token,
 * one more for each longer n-gram that a query has the beginning of, and terms / 64 words. */
void bg_bm25_count(bg_bm25 *m, const uint32_t *token, size_t n, int64_t *frequency);

/* Between the passes, once: IDF from the counts of the whole corpus, of n_sequences sequences with n_tokens tokens.
 *   frequency [in]  [terms], each at most n_sequences
 * Errors: BG_ENOMEM. */
bg_status bg_bm25_weigh(bg_bm25 *m, const int64_t *frequency, uint64_t n_sequences, uint64_t n_tokens,
                        bg_err *err) BG_MUST_CHECK;
/* After that: terms of a query that count, and different terms that --max-share stops. */
size_t bg_bm25_query_terms(const bg_bm25 *m, size_t query);
size_t bg_bm25_stopped(const bg_bm25 *m);

/* Second pass: the sequence's scores for the queries that it shares a term with.
 *   hit [out]  [n_queries], the first of which are set, each query once
 * Returns how many.  Cost: as bg_bm25_count, and an addition for each query that has a term of the sequence. */
typedef struct {
    uint32_t query;
    double score; /* > 0 */
} bg_bm25_hit;
size_t bg_bm25_score(bg_bm25 *m, const uint32_t *token, size_t n, bg_bm25_hit *hit);

#endif /* BG_BM25_H */
