#include "bregman/shard.h"
#include "check.h"

static void names_round_trip(void **state)
{
    (void)state;
    static const uint64_t cases[][2] = {
        { 0, 1 }, { 3, 4 }, { 0, BG_MOST_SHARDS }, { BG_MOST_SHARDS - 1, BG_MOST_SHARDS }
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        char name[BG_SHARD_NAME_BYTES];
        uint64_t i, n;
        bg_shard_name(cases[c][0], cases[c][1], name);
        assert_true(bg_shard_parse(name, &i, &n));
        assert_int_equal(i, cases[c][0]);
        assert_int_equal(n, cases[c][1]);
    }
}

static void others_are_none(void **state)
{
    (void)state;
    static const char *const names[] = {
        "",
        "shard",
        "shard-00000-of--0001.h5",
        "shard--0001-of-00002.h5",
        "shard-00001-of-99999999999999999999.h5",
        "shard-0-of-1.h5",
        "shard-00000-of-00000.h5",
        "shard-00002-of-00002.h5",
        "shard-00000-of-00002",
        "shard-00000-of-00002.h5.tmp-x",
        "shard- 0000-of-00001.h5",
        "shard-+0000-of-00001.h5",
        "shard-00000-of-000001.h5",
        "xshard-00000-of-00001.h5",
    };
    for (size_t c = 0; c < sizeof names / sizeof names[0]; c++) {
        uint64_t i = 7, n = 8;
        if (bg_shard_parse(names[c], &i, &n))
            fail_msg("%s is taken", names[c]);
        assert_true(i == 7 && n == 8);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(names_round_trip), cmocka_unit_test(others_are_none) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
