/* Shares of a model: they cover it, none could cost less, and what a rank holds falls with their number. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/config.h"
#include "bregman/model_open.h"
#include "bregman/covariance.h"
#include "bregman/eigenvalues.h"
#include "bregman/factors.h"
#include "bregman/pipeline.h"
#include "check.h"

enum { BLOCKS = 7 };

/* A Llama of BLOCKS blocks without weights; head_blocks: its head costs as much as that many blocks. */
static bg_model *sketch(size_t head_blocks, const char *modules)
{
    bg_err err = { .file = "" };
    bg_model *m = NULL;
    char dir[] = "/tmp/bg-share-XXXXXX", path[64];
    const size_t d = 32, ff = 64, block_weights = 4 * d * d + 3 * d * ff;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/config.json", dir);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fprintf(file,
            "{\"model_type\": \"llama\", \"hidden_size\": %zu, \"intermediate_size\": %zu, \"num_hidden_layers\": %d, "
            "\"num_attention_heads\": 4, \"vocab_size\": %zu, \"max_position_embeddings\": 64, \"rms_norm_eps\": 1e-5, "
            "\"hidden_act\": \"silu\", \"tie_word_embeddings\": false}",
            d, ff, BLOCKS, head_blocks * block_weights / d);
    fclose(file);
    bg_model_config c;
    assert_int_equal(bg_model_config_read(&c, dir, &err), BG_OK);
    assert_int_equal(bg_model_sketch(&m, &c, modules, BG_ST_BF16, &err), BG_OK);
    remove(path);
    remove(dir);
    return m;
}

/* The least cost of the costliest of n runs of cost[0 .. items), each with an item: by trying every end of the first. */
static double least(const double *cost, size_t items, size_t n)
{
    double best = 1e300, sum = 0;
    if (n == 1) {
        for (size_t i = 0; i < items; i++)
            sum += cost[i];
        return sum;
    }
    for (size_t first = 1; first + n - 1 <= items; first++) {
        sum += cost[first - 1];
        double rest = least(cost + first, items - first, n - 1);
        best = best < (sum > rest ? sum : rest) ? best : (sum > rest ? sum : rest);
    }
    return best;
}

static void check_division(const bg_model *m, size_t n, const double *cost)
{
    bg_share share[BLOCKS + 1];
    bg_err err = { .file = "" };
    double most = 0;
    size_t at = 0, tracked = 0;
    assert_int_equal(bg_model_divide(m, n, NULL, share, &err), BG_OK);
    for (size_t r = 0; r < n; r++) {
        double sum = 0;
        assert_int_equal(share[r].first, at);
        assert_int_equal(share[r].sites.first, tracked);
        assert_true(share[r].embeds == (r == 0) && share[r].has_head == (r == n - 1));
        assert_true(share[r].end > share[r].first || share[r].has_head);
        for (; at < share[r].end; at++)
            sum += cost[at];
        tracked = share[r].sites.end;
        sum += share[r].has_head ? cost[BLOCKS] : 0;
        most = sum > most ? sum : most;
    }
    assert_int_equal(at, BLOCKS);
    assert_int_equal(tracked, m->n_tracked);
    assert_true(most <= least(cost, BLOCKS + 1, n) * (1 + 1e-12));
}

static void test_divide(void **state)
{
    (void)state;
    for (size_t head = 1; head <= 9; head += 4) {
        bg_model *m = sketch(head, "mlp");
        double cost[BLOCKS + 1];
        for (size_t b = 0; b < BLOCKS; b++)
            cost[b] = 1;
        cost[BLOCKS] = (double)head;
        for (size_t n = 1; n <= BLOCKS + 1; n++)
            check_division(m, n, cost);
        bg_model_close(m);
    }
    /* blocks below the lowest tracked one run forward only */
    bg_model *m = sketch(1, "layers\\.[456]\\.mlp");
    const double cost[BLOCKS + 1] = { .5, .5, .5, .5, 1, 1, 1, 1 };
    for (size_t n = 1; n <= BLOCKS + 1; n++)
        check_division(m, n, cost);
    bg_model_close(m);
}

static void test_too_many(void **state)
{
    bg_share share[BLOCKS + 2];
    bg_err err = { .file = "" };
    bg_model *m = sketch(1, "mlp");
    (void)state;
    assert_int_equal(bg_model_divide(m, BLOCKS + 2, NULL, share, &err), BG_EARG);
    assert_non_null(strstr(err.msg, "at most 8 ranks"));
    bg_model_close(m);
}

/* Sums of the shares are those of the whole, cut up.  Activations stay near the whole's on all ranks: the first one has
 * its blocks of as many batches as there are ranks. */
static void test_memory(void **state)
{
    bg_model *m = sketch(1, "mlp");
    bg_err err = { .file = "" };
    const bg_site_range all = { 0, m->n_tracked };
    const size_t rows = 256, logits = 1 << 10;
    size_t whole_sums = bg_covariance_bytes(m, all), whole_lambda = bg_eigenvalues_bytes(m, all, true);
    size_t whole_pass = bg_pass_bytes(m, NULL, 1, rows, logits);
    (void)state;
    for (size_t n = 2; n <= BLOCKS; n++) {
        bg_share share[BLOCKS];
        size_t sums = 0, lambda = 0, most = 0, blocks = (BLOCKS + 1 + n - 1) / n;
        assert_int_equal(bg_model_divide(m, n, NULL, share, &err), BG_OK);
        for (size_t r = 0; r < n; r++) {
            bg_site_range own = share[r].sites;
            size_t bytes = bg_covariance_bytes(m, own);
            sums += bytes;
            lambda += bg_eigenvalues_bytes(m, own, true);
            most = bytes > most ? bytes : most;
            assert_true(bg_pass_bytes(m, &share[r], n - r, rows, logits) <= whole_pass * blocks * n / BLOCKS * 11 / 10);
        }
        assert_int_equal(sums, whole_sums);
        assert_int_equal(lambda, whole_lambda);
        assert_true(most <= whole_sums * blocks / BLOCKS);
    }
    bg_model_close(m);
}

/* MPI counts in ints. */
static void test_message_too_large(void **state)
{
    bg_model *m = sketch(1, "all");
    bg_share share[2];
    bg_grid grid = { .pipeline_rank = 0, .pipeline_size = 2 };
    bg_err err = { .file = "" };
    bg_pass *pass = NULL;
    (void)state;
    assert_int_equal(bg_model_divide(m, 2, NULL, share, &err), BG_OK);
    size_t rows = (size_t)INT_MAX / m->config.d_model + 1;
    assert_int_equal(bg_pipeline_pass_new(&pass, m, &share[0], &grid, rows, &err), BG_EARG);
    assert_says(err, "--batch-tokens");
    assert_null(pass);
    bg_model_close(m);
}

/* What plan makes a model of has no weights that bound it. */
static void test_sizes_beyond_any_model(void **state)
{
    bg_model *m = sketch(1, "all"), *huge = NULL;
    bg_model_config wide = m->config, long_ends = m->config;
    bg_err err = { .file = "" };
    (void)state;
    wide.d_model = INT_MAX;
    assert_int_equal(bg_model_sketch(&huge, &wide, "all", BG_ST_BF16, &err), BG_EFORMAT);
    assert_says(err, "config.json");
    long_ends.vocab_size = INT_MAX;
    long_ends.d_ff = INT_MAX;
    long_ends.mlp_bias = true;
    assert_int_equal(bg_model_sketch(&huge, &long_ends, "all", BG_ST_BF16, &err), BG_EFORMAT);
    assert_says(err, "config.json");
    assert_null(huge);
    bg_model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_divide),
        cmocka_unit_test(test_too_many),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_message_too_large),
        cmocka_unit_test(test_sizes_beyond_any_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
