#include <string.h>

#include "bregman/status.h"
#include "check.h"

static void fail_fills_the_record(void **state)
{
    (void)state;
    bg_err err = { 0 };
    assert_int_equal(BG_FAIL(&err, BG_EIO, "cannot read \"%s\": %d", "x", 7), BG_EIO);
    assert_int_equal(err.code, BG_EIO);
    assert_int_equal(err.rank, -1);
    assert_string_equal(err.msg, "cannot read \"x\": 7");
    assert_non_null(strstr(err.file, "status_test.c"));
}

static void fail_without_record_gives_the_code(void **state)
{
    (void)state;
    assert_int_equal(BG_FAIL(NULL, BG_ENOMEM, "no one hears %s", "this"), BG_ENOMEM);
}

static void long_message_is_cut(void **state)
{
    (void)state;
    bg_err err;
    char text[2000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    assert_int_equal(BG_FAIL(&err, BG_EARG, "%s", text), BG_EARG);
    assert_int_equal(strlen(err.msg), sizeof err.msg - 1);
}

static void message_may_quote_itself(void **state)
{
    (void)state;
    bg_err err;
    assert_int_equal(BG_FAIL(&err, BG_EARG, "inner"), BG_EARG);
    assert_int_equal(BG_FAIL(&err, BG_EARG, "outer: %s", err.msg), BG_EARG);
    assert_string_equal(err.msg, "outer: inner");
}

static void every_code_has_a_name(void **state)
{
    (void)state;
    for (int code = 0; code < BG_STATUS_COUNT; code++)
        assert_int_equal(strncmp(bg_status_name((bg_status)code), "BG_", 3), 0);
    assert_string_equal(bg_status_name(BG_ESTOPPED), "BG_ESTOPPED");
    assert_string_equal(bg_status_name(BG_STATUS_COUNT), "BG_?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fail_fills_the_record), cmocka_unit_test(fail_without_record_gives_the_code),
        cmocka_unit_test(long_message_is_cut),   cmocka_unit_test(message_may_quote_itself),
        cmocka_unit_test(every_code_has_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
