#include <math.h>
#include <string.h>

#include "bregman/rng.h"
#include "check.h"

/* Known answers of Random123 1.x, kat_vectors, "philox4x32 10". */
static void philox_known_answers(void **state)
{
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } known[] = {
        { { 0, 0, 0, 0 }, { 0, 0 }, { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 } },
        { { 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff },
          { 0xffffffff, 0xffffffff },
          { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd } },
        { { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344 },
          { 0xa4093822, 0x299f31d0 },
          { 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 } },
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        uint32_t out[4];
        bg_philox(known[i].key, known[i].counter, out);
        assert_memory_equal(out, known[i].out, sizeof out);
    }
}

static void uniform_is_uniform(void **state)
{
    (void)state;
    enum { N = 100000 };
    double sum = 0, squares = 0;
    for (uint32_t i = 0; i < N; i++) {
        double u = bg_uniform(7, i / 100, i % 100);
        assert_true(u >= 0.0 && u < 1.0);
        sum += u;
        squares += u * u;
    }
    /* four standard errors */
    assert_true(fabs(sum / N - 0.5) < 4 * sqrt(1.0 / 12 / N));
    assert_true(fabs(squares / N - 1.0 / 3) < 4 * sqrt(4.0 / 45 / N));
}

static void every_part_of_the_key_counts(void **state)
{
    (void)state;
    double u = bg_uniform(1, 2, 3);
    assert_true(u == bg_uniform(1, 2, 3));
    assert_true(u != bg_uniform(2, 2, 3));
    assert_true(u != bg_uniform(1, 3, 3));
    assert_true(u != bg_uniform(1, 2, 4));
    assert_true(u != bg_uniform(1 + (UINT64_C(1) << 32), 2, 3));
    assert_true(u != bg_uniform(1, 2 + (UINT64_C(1) << 32), 3));
}

static void normal_has_its_moments(void **state)
{
    (void)state;
    enum { N = 100001 }; /* odd: the last pair is cut */
    static float x[N + 1];
    double m1 = 0, m2 = 0, m4 = 0;
    x[N] = 42;
    bg_normal_fill(5, 9, N, x);
    assert_true(x[N] == 42.0f);
    for (size_t i = 0; i < N; i++) {
        double v = (double)x[i];
        assert_true(isfinite(v));
        m1 += v / N;
        m2 += v * v / N;
        m4 += v * v * v * v / N;
    }
    assert_true(fabs(m1) < 4 / sqrt(N));
    assert_true(fabs(m2 - 1) < 4 * sqrt(2.0 / N));
    assert_true(fabs(m4 - 3) < 4 * sqrt(96.0 / N));
}

static void normal_prefixes_agree(void **state)
{
    (void)state;
    float longer[16], shorter[7];
    bg_normal_fill(5, 9, 16, longer);
    bg_normal_fill(5, 9, 7, shorter);
    assert_memory_equal(longer, shorter, sizeof shorter);
    bg_normal_fill(5, 10, 7, shorter);
    assert_true(memcmp(longer, shorter, sizeof shorter) != 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_known_answers),         cmocka_unit_test(uniform_is_uniform),
        cmocka_unit_test(every_part_of_the_key_counts), cmocka_unit_test(normal_has_its_moments),
        cmocka_unit_test(normal_prefixes_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
