/* What a scorer takes, counted by hand, also of the share that gathers all layers' scores while it has no modules
 * itself. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bregman/folder.h"
#include "bregman/manifest.h"
#include "bregman/score.h"
#include "check.h"

enum { N_QUERIES = 3, N_BLOCKS = 4, P = 6, M = 5, R = 2, SEQUENCES = 5, ROWS = 7, BATCH = 100 };

static char folder[] = "/tmp/bregman-scorer-XXXXXX", path[64];

static void write_compressed(void)
{
    static const char *const ids[N_QUERIES] = { "a", "b", "c" };
    const bg_provenance run = { .stage = "test", .options = "{}", .fingerprint = "f" };
    const uint64_t n = N_QUERIES, left[3] = { N_QUERIES, P, R }, right[3] = { N_QUERIES, M, R };
    const float zero[N_QUERIES * P * R] = { 0 };
    bg_err err;
    bg_store *s;
    assert_ok(bg_store_create(&s, path, "bregman/compressed", &run, &err), err);
    assert_ok(bg_store_write(s, "id", &n, ids, &err), err);
    assert_ok(bg_store_write(s, "layers.1/mlp/left", left, zero, &err), err);
    assert_ok(bg_store_write(s, "layers.1/mlp/right", right, zero, &err), err);
    assert_ok(bg_store_publish(s, NULL, &err), err);
}

static size_t bytes_of(const bg_share *share, bg_score_detail detail)
{
    static bg_site site = { .name = "layers.1/mlp", .n_out = P, .n_in1 = M };
    static bg_site *tracked[1] = { &site };
    const bg_model model = { .config.n_blocks = N_BLOCKS, .tracked = tracked, .n_tracked = 1 };
    const bg_queries_source source = { path, &model, NULL, share, NULL };
    const bg_share shares[2] = { *share, *share };
    const bg_score_task task = { .share = shares,
                                 .n_shares = 2,
                                 .rank = share->embeds ? 0 : 1,
                                 .detail = detail,
                                 .unit_sequences = SEQUENCES,
                                 .unit_rows = ROWS,
                                 .batch_rows = BATCH };
    bg_queries_extent extent;
    bg_err err;
    assert_ok(bg_queries_measure(&source, &extent, &err), err);
    return extent.bytes + bg_scorer_bytes(&task, &extent, &model);
}

static void counts_bytes(void **state)
{
    (void)state;
    const size_t products = sizeof(float) * BATCH * (2 * N_QUERIES * R + N_QUERIES),
                 none = sizeof(float) * BATCH * (2 + N_QUERIES);
    const size_t sides = sizeof(float) * N_QUERIES * R * (P + M);
    const bg_share first = { .first = 0, .end = 1, .embeds = true };
    const bg_share second = { .first = 1, .end = 3, .end_tracked = 1 };
    assert_int_equal(bytes_of(&first, BG_SCORE_SEQUENCES), none + N_BLOCKS * N_QUERIES * SEQUENCES * sizeof(double));
    assert_int_equal(bytes_of(&first, BG_SCORE_TOKENS), none + N_BLOCKS * N_QUERIES * ROWS * sizeof(float));
    assert_int_equal(bytes_of(&second, BG_SCORE_SEQUENCES),
                     sides + products + 2 * 2 * N_QUERIES * SEQUENCES * sizeof(double)); /* and what it sends */
}

int main(void)
{
    if (mkdtemp(folder) == NULL)
        return 1;
    snprintf(path, sizeof path, "%s/compressed.h5", folder);
    write_compressed();
    const struct CMUnitTest tests[] = { cmocka_unit_test(counts_bytes) };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    bg_err err;
    bg_manifest_close(true);
    return failed != 0 || bg_remove_folder(folder, &err) != BG_OK;
}
