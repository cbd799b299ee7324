#include <string.h>

#include "bregman/memory.h"
#include "check.h"

static void arrays_are_zeroed_and_aligned(void **state)
{
    (void)state;
    bg_err err;
    for (size_t n = 0; n < 300; n++) {
        unsigned char *p;
        assert_ok(BG_NEW(p, n, "bytes", &err), err);
        assert_int_equal((uintptr_t)p % 64, 0);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(p[i], 0);
        memset(p, 255, n);
        bg_free(p);
    }
    bg_free(NULL);
}

static void overflow_is_refused(void **state)
{
    (void)state;
    bg_err err;
    double *p = &(double){ 1 };
    assert_int_equal(BG_NEW(p, SIZE_MAX / 4, "covariance of h.0", &err), BG_ENOMEM);
    assert_null(p);
    assert_says(err, "covariance of h.0");
    assert_int_equal(BG_NEW(p, SIZE_MAX / sizeof *p, "covariance of h.0", &err), BG_ENOMEM);
}

/* The address sanitizer's malloc must fail as the system's does. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "allocator_may_return_null=1"; }

static void too_much_is_refused_with_its_size(void **state)
{
    (void)state;
    bg_err err;
    char *p;
    assert_int_equal(BG_NEW(p, (size_t)1 << 60, "scores", &err), BG_ENOMEM);
    assert_says(err, "1152921504606846976 bytes");
}

static void peak_memory_grows(void **state)
{
    (void)state;
    bg_err err;
    const size_t size = (size_t)64 << 20;
    size_t before = bg_peak_rss_bytes();
    char *p;
    assert_true(before > 0);
    assert_ok(BG_NEW(p, size, "block", &err), err);
    memset(p, 1, size);
    assert_true(bg_peak_rss_bytes() >= before + size / 2);
    bg_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arrays_are_zeroed_and_aligned),
        cmocka_unit_test(overflow_is_refused),
        cmocka_unit_test(too_much_is_refused_with_its_size),
        cmocka_unit_test(peak_memory_grows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
