/* The micro-batches that a stage's demand gets under a limit. */
#include "bregman/budget.h"

#include <mpi.h>
#include <string.h>

#include "bregman/log.h"
#include "check.h"

enum { BEST = 100, MOST = 1000, ROW_BYTES = 10 };

static size_t bytes(const void *self, const bg_plan *plan)
{
    (void)self;
    return ROW_BYTES * plan->rows;
}

/* Of 1000 rows to do, something is read for each micro-batch that one with more than `most` rows has no room for. */
static double reads(const void *most, size_t rows)
{
    return 1000.0 / (double)rows * (rows > *(const size_t *)most ? 3 : 1);
}

static double the_same(const void *self, size_t rows)
{
    (void)self;
    (void)rows;
    return 0.1;
}

static bg_plan choose(uint64_t limit, double (*cost)(const void *self, size_t rows), size_t held_up_to, size_t given)
{
    const bg_context ctx = { .grid = { .world = MPI_COMM_SELF, .world_size = 1 }, .memory_limit = limit };
    const bg_demand d = { .best = { .rows = BEST, .passes = 1 },
                          .given_rows = given,
                          .least_rows = 10,
                          .most_passes = 1,
                          .most_rows = MOST,
                          .self = &held_up_to,
                          .bytes = bytes,
                          .cost = cost };
    bg_plan plan = { .rows = 0 };
    bg_err err;
    assert_ok(bg_budget_choose(&d, &ctx, &plan, &err), err);
    assert_true(limit >= bytes(NULL, &plan));
    return plan;
}

static void usual_without_reason(void **state)
{
    (void)state;
    assert_int_equal(choose(UINT64_MAX, reads, MOST, 0).rows, BEST);
    assert_int_equal(choose(1 << 20, NULL, MOST, 0).rows, BEST);
    assert_int_equal(choose(1 << 20, the_same, MOST, 0).rows, BEST);
    assert_string_equal(choose(1 << 20, the_same, MOST, 0).identity, "");
    assert_int_equal(choose(1 << 20, reads, MOST, 70).rows, 70);
}

static void larger_where_that_costs_less(void **state)
{
    (void)state;
    bg_plan plan = choose(1 << 20, reads, MOST, 0);
    assert_int_equal(plan.rows, MOST);
    assert_string_equal(plan.identity, "micro-batches of 1000 rows");
    assert_int_equal(choose(ROW_BYTES * 777 + 3, reads, MOST, 0).rows, 777);
    /* a half of those leaves room for what would be read three times as often */
    assert_int_equal(choose(ROW_BYTES * 777 + 3, reads, 500, 0).rows, 389);
    /* those that were halved to fit grow to what fits */
    assert_int_equal(choose(ROW_BYTES * 60, reads, MOST, 0).rows, 60);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(usual_without_reason),
        cmocka_unit_test(larger_where_that_costs_less),
    };
    MPI_Init(&argc, &argv);
    bg_log_setup("budget_test", 0);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    MPI_Finalize();
    return failed;
}
