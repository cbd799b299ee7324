/* What a truncation is weighed by: C of every kind but the identity, which has none. */
#include <math.h>

#include "bregman/precondition.h"
#include "check.h"

static void test_variance(void **state)
{
    /* the first weight's input is always 0 */
    float c[4] = { 0, 4, 1, 0.5f }, none[4] = { 0 };
    const float v[4] = { 3, 2, -1, 2 };
    bg_curvature curvature = { .kind = BG_DIAGONAL, .p = 2, .m = 2, .lambda = 1, .c = c };
    (void)state;
    assert_true(bg_curvature_variance(&curvature, v) == 0 * 9 + 4 * 4 + 1 * 1 + 0.5 * 4);
    curvature.kind = BG_IDENTITY;
    curvature.c = none;
    assert_true(bg_curvature_variance(&curvature, v) == 9 + 4 + 1 + 4);
}

/* No gradient was ever seen: the mean that damping is a multiple of is 0, and so are all scores. */
static void test_infinite_damping(void **state)
{
    float c[2] = { 0, 0 }, v[2] = { 3, -2 };
    const bg_curvature curvature = { .kind = BG_EKFAC, .p = 1, .m = 2, .lambda = (double)INFINITY, .c = c };
    (void)state;
    bg_curvature_divide(&curvature, v);
    assert_true(v[0] == 0 && v[1] == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_variance), cmocka_unit_test(test_infinite_damping) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
