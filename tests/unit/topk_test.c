#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/topk.h"
#include "check.h"

/* Reference: sort everything, take k. */
static int reference_order(const void *a, const void *b)
{
    const bg_hit *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

static void check_against_full_sort(size_t n, size_t k, uint32_t seed)
{
    bg_err err;
    bg_topk *t;
    const bg_hit *got;
    bg_hit *all = calloc(n + 1, sizeof *all);
    assert_non_null(all);
    assert_ok(bg_topk_new(&t, k, &err), err);
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        all[i] = (bg_hit){ (double)(seed >> 28), i ^ 5 }; /* 16 values: ties */
        assert_ok(bg_topk_push(t, all[i], &err), err);
        if (i % 7 == 3)
            (void)bg_topk_sorted(t, &got); /* push after sort */
    }
    qsort(all, n, sizeof *all, reference_order);
    size_t m = bg_topk_sorted(t, &got);
    assert_int_equal(m, n < k ? n : k);
    for (size_t i = 0; i < m; i++)
        assert_true(got[i].id == all[i].id && got[i].score == all[i].score);
    bg_topk_free(t);
    free(all);
}

static void keeps_what_a_full_sort_keeps(void **state)
{
    (void)state;
    for (size_t n = 0; n < 60; n++)
        for (size_t k = 1; k < 12; k++)
            check_against_full_sort(n, k, (uint32_t)(n * 100 + k));
}

static void refuses_bad_input(void **state)
{
    (void)state;
    bg_err err;
    bg_topk *t;
    const bg_hit *got;
    assert_int_equal(bg_topk_new(&t, 0, &err), BG_EARG);
    assert_null(t);
    assert_int_equal(bg_topk_new(&t, SIZE_MAX, &err), BG_ENOMEM);
    assert_null(t);
    assert_ok(bg_topk_new(&t, 2, &err), err);
    assert_int_equal(bg_topk_push(t, (bg_hit){ (double)NAN, 17 }, &err), BG_ENUMERIC);
    assert_says(err, "sequence 17");
    assert_int_equal(bg_topk_push(t, (bg_hit){ (double)INFINITY, 1 }, NULL), BG_ENUMERIC);
    assert_int_equal(bg_topk_sorted(t, &got), 0);
    bg_topk_free(t);
    bg_topk_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_what_a_full_sort_keeps),
        cmocka_unit_test(refuses_bad_input),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
