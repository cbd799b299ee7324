/* BM25 (math.md M12): cases worked out by hand, ties, n-grams that differ in one token, and terms that are left out. */
#include <math.h>
#include <string.h>

#include "bregman/bm25.h"
#include "check.h"

enum { QUERIES = 2, SEQUENCES = 4, LONGEST = 8 };

typedef struct {
    size_t n;
    uint32_t token[LONGEST];
} sequence;

static const sequence query[QUERIES] = { { 3, { 1, 2, 1 } }, { 2, { 2, 9 } } };
/* 1 is in three of them, 2 in two, 9 in none */
static const sequence corpus[SEQUENCES] = {
    { 4, { 1, 2, 1, 7 } }, { 2, { 1, 4 } }, { 2, { 5, 1000000 } }, { 4, { 2, 1, 1, 1 } }
};

static bg_bm25 *make(const bg_bm25_options *o)
{
    bg_err err;
    bg_bm25 *m;
    assert_ok(bg_bm25_new(&m, o, QUERIES, 5, 10, &err), err);
    for (size_t q = 0; q < QUERIES; q++)
        bg_bm25_add_query(m, query[q].token, query[q].n);
    return m;
}

/* Both passes; score [SEQUENCES, QUERIES], 0 where there is no hit. */
static void rank_all(bg_bm25 *m, double score[SEQUENCES][QUERIES])
{
    bg_err err;
    int64_t frequency[32] = { 0 };
    uint64_t n_tokens = 0;
    bg_bm25_hit hit[QUERIES];
    assert_true(bg_bm25_terms(m) <= 32);
    for (size_t z = 0; z < SEQUENCES; z++) {
        bg_bm25_count(m, corpus[z].token, corpus[z].n, frequency);
        n_tokens += corpus[z].n;
    }
    assert_ok(bg_bm25_weigh(m, frequency, SEQUENCES, n_tokens, &err), err);
    memset(score, 0, SEQUENCES * sizeof *score);
    for (size_t z = 0; z < SEQUENCES; z++) {
        size_t n = bg_bm25_score(m, corpus[z].token, corpus[z].n, hit);
        for (size_t i = 0; i < n; i++)
            score[z][hit[i].query] = hit[i].score;
    }
}

static double idf(double n) { return log((SEQUENCES - n + 0.5) / (n + 0.5) + 1); }

static void assert_close(double found, double wanted)
{
    if (!(fabs(found - wanted) <= 1e-14 * fabs(wanted)))
        fail_msg("%.17g instead of %.17g", found, wanted);
}

static void test_paper(void **state)
{
    double score[SEQUENCES][QUERIES];
    bg_bm25 *m = make(&(bg_bm25_options){ BG_BM25_PAPER, 1.5, 0.75, 1, 1 });
    (void)state;
    assert_int_equal(bg_bm25_terms(m), 3);
    rank_all(m, score);
    assert_close(score[0][0], idf(2) + idf(3));
    assert_close(score[1][0], idf(3));
    assert_true(score[3][0] == score[0][0]);
    assert_close(score[0][1], idf(2));
    assert_true(score[1][1] == 0 && score[2][0] == 0 && score[2][1] == 0);
    assert_int_equal(bg_bm25_query_terms(m, 0), 2);
    assert_int_equal(bg_bm25_query_terms(m, 1), 1); /* 9 is nowhere */
    bg_bm25_free(m);
}

static void test_k1_cancels(void **state)
{
    static const double k1[] = { 0, 0.3, 1.5, 99 };
    double first[SEQUENCES][QUERIES], score[SEQUENCES][QUERIES];
    (void)state;
    for (size_t i = 0; i < sizeof k1 / sizeof *k1; i++) {
        bg_bm25 *m = make(&(bg_bm25_options){ BG_BM25_PAPER, k1[i], 0.75, 1, 1 });
        rank_all(m, i == 0 ? first : score);
        if (i > 0)
            assert_memory_equal(score, first, sizeof first);
        bg_bm25_free(m);
    }
}

static void test_okapi(void **state)
{
    const double k1 = 1.2, b = 0.6, mean = 3;
    double score[SEQUENCES][QUERIES], long_ = k1 * (1 - b + b * 4 / mean), short_ = k1 * (1 - b + b * 2 / mean);
    bg_bm25 *m = make(&(bg_bm25_options){ BG_BM25_OKAPI, k1, b, 1, 1 });
    (void)state;
    rank_all(m, score);
    assert_close(score[0][0], idf(2) * 2.2 / (1 + long_) + 2 * idf(3) * 2 * 2.2 / (2 + long_));
    assert_close(score[1][0], 2 * idf(3) * 2.2 / (1 + short_));
    assert_close(score[3][0], idf(2) * 2.2 / (1 + long_) + 2 * idf(3) * 3 * 2.2 / (3 + long_));
    assert_close(score[3][1], idf(2) * 2.2 / (1 + long_));
    bg_bm25_free(m);
}

/* Of "1 2 1" there are 1, 1 2, 1 2 1, 2, 2 1; of "2 9" also 2 9 and 9. */
static void test_ngrams(void **state)
{
    double score[SEQUENCES][QUERIES];
    bg_bm25 *m = make(&(bg_bm25_options){ BG_BM25_PAPER, 1.5, 0.75, 3, 1 });
    (void)state;
    assert_int_equal(bg_bm25_terms(m), 7);
    rank_all(m, score);
    assert_close(score[0][0], 2 * idf(1) + 2 * idf(2) + idf(3)); /* 1 2, 1 2 1; 2, 2 1; 1 */
    assert_close(score[3][0], 2 * idf(2) + idf(3));
    assert_close(score[3][1], idf(2));
    bg_bm25_free(m);
}

static void test_stopped(void **state)
{
    double score[SEQUENCES][QUERIES];
    bg_bm25 *m = make(&(bg_bm25_options){ BG_BM25_PAPER, 1.5, 0.75, 1, 0.5 });
    (void)state;
    rank_all(m, score); /* 1 is in three of four */
    assert_int_equal(bg_bm25_stopped(m), 1);
    assert_int_equal(bg_bm25_query_terms(m, 0), 1);
    assert_close(score[0][0], idf(2));
    assert_true(score[1][0] == 0);
    bg_bm25_free(m);
}

static void test_refused(void **state)
{
    bg_err err;
    bg_bm25 *m;
    bg_bm25_options o = { BG_BM25_PAPER, 1.5, 0.75, 4, 1 };
    (void)state;
    assert_int_equal(bg_bm25_new(&m, &o, 1, 1, 1, &err), BG_EARG);
    assert_null(m);
    o.ngrams = 1;
    o.k1 = NAN;
    assert_int_equal(bg_bm25_new(&m, &o, 1, 1, 1, &err), BG_EARG);
    o.k1 = 0;
    assert_int_equal(bg_bm25_new(&m, &o, 1, 1, BG_BM25_IDS + 1, &err), BG_EFORMAT);
    assert_says(err, "16777216");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paper),  cmocka_unit_test(test_k1_cancels), cmocka_unit_test(test_okapi),
        cmocka_unit_test(test_ngrams), cmocka_unit_test(test_stopped),    cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
