/* What a scorer takes, counted by hand, also of the share that gathers all layers' scores while it has no modules
 * itself; and scores of queries that make up several groups. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bregman/folder.h"
#include "bregman/manifest.h"
#include "bregman/rng.h"
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
    const bg_score_task task = { .model = &model,
                                 .share = shares,
                                 .n_shares = 2,
                                 .rank = share->embeds ? 0 : 1,
                                 .detail = detail,
                                 .unit_sequences = SEQUENCES,
                                 .unit_rows = ROWS,
                                 .batch_rows = BATCH };
    bg_queries_extent extent;
    bg_err err;
    assert_ok(bg_queries_measure(&source, &extent, &err), err);
    return extent.bytes + bg_scorer_bytes(&task, &extent);
}

static void counts_bytes(void **state)
{
    (void)state;
    const size_t products = sizeof(float) * BATCH * (2 * N_QUERIES * R + N_QUERIES),
                 none = sizeof(float) * BATCH * (2 + 1); /* no modules: as if of one column */
    const size_t sides = sizeof(float) * N_QUERIES * R * (P + M);
    const bg_share first = { .first = 0, .end = 1, .embeds = true };
    const bg_share second = { .first = 1, .end = 3, .sites = { 0, 1 } };
    assert_int_equal(bytes_of(&first, BG_SCORE_SEQUENCES), none + N_BLOCKS * N_QUERIES * SEQUENCES * sizeof(double));
    assert_int_equal(bytes_of(&first, BG_SCORE_TOKENS), none + N_BLOCKS * N_QUERIES * ROWS * sizeof(float));
    assert_int_equal(bytes_of(&second, BG_SCORE_SEQUENCES),
                     sides + products + 2 * 2 * N_QUERIES * SEQUENCES * sizeof(double)); /* and what it sends */
}

/* ---- groups ---- */

enum { WIDE = 500, MANY = 5, BATCH_ROWS = 3, BATCH_SEQUENCES = 2 }; /* of MANY queries two make a group */

static bg_site wide_site = { .name = "layers.0/mlp", .n_out = P, .n_in1 = M };
static bg_site *wide_tracked[1] = { &wide_site };
static const bg_model wide_model = { .config.n_blocks = 1, .tracked = wide_tracked, .n_tracked = 1 };
static const bg_share wide_share = { .end = 1, .sites = { 0, 1 }, .embeds = true };

/* Numbers of query q's left (side 0) and right (1) factor. */
static float value(uint64_t side, size_t q, size_t i) { return (float)bg_uniform(7 + side, q, (uint32_t)i) - 0.5f; }
static float gradient(size_t i) { return (float)bg_uniform(9, 0, (uint32_t)i) - 0.5f; }
static float activation(size_t i) { return (float)bg_uniform(10, 0, (uint32_t)i) - 0.5f; }

/* Queries [first, first + n) of MANY as a file. */
static void write_wide(const char *name, size_t first, size_t n)
{
    static const char *const ids[MANY] = { "a", "b", "c", "d", "e" };
    static float x[MANY * P * WIDE];
    const bg_provenance run = { .stage = "test", .options = "{}", .fingerprint = "f" };
    const char *const side[2] = { "layers.0/mlp/left", "layers.0/mlp/right" };
    const uint64_t count = n, rows[2] = { P, M };
    const float kept[MANY] = { 1, 1, 1, 1, 1 };
    bg_err err;
    bg_store *s;
    assert_ok(bg_store_create(&s, name, "bregman/compressed", &run, &err), err);
    assert_ok(bg_store_write(s, "id", &count, ids, &err), err);
    for (uint64_t k = 0; k < 2; k++) {
        const uint64_t dims[3] = { n, rows[k], WIDE };
        size_t each = rows[k] * WIDE;
        for (size_t i = 0; i < n * each; i++)
            x[i] = value(k, first + i / each, i % each);
        assert_ok(bg_store_write(s, side[k], dims, x, &err), err);
    }
    assert_ok(bg_store_write(s, "layers.0/mlp/kept", &count, kept, &err), err);
    assert_ok(bg_store_publish(s, NULL, &err), err);
}

/* score [BATCH_SEQUENCES, queries of the file] of sequences of two rows and of one; returns groups of queries. */
static size_t score_wide(const char *name, const char *scratch, float *score)
{
    static size_t row_start[BATCH_SEQUENCES + 1] = { 0, 2, 3 };
    const bg_batch batch = { .n_sequences = BATCH_SEQUENCES, .n_rows = BATCH_ROWS, .row_start = row_start };
    const bg_queries_source source = { name, &wide_model, NULL, &wide_share, scratch };
    const bg_score_task task = { &wide_model,     &wide_share, 1,          0,    BG_SCORE_SEQUENCES,
                                 BATCH_SEQUENCES, BATCH_ROWS,  BATCH_ROWS, false };
    float d[BATCH_ROWS * P], a[BATCH_ROWS * M];
    const bg_pair pair = { &wide_site, &batch, BATCH_ROWS, BATCH_SEQUENCES, row_start, NULL, NULL, a, NULL, M, d, P };
    bg_queries *queries;
    bg_products products;
    bg_score_sums *sums;
    bg_err err;
    for (size_t i = 0; i < BATCH_ROWS * P; i++)
        d[i] = gradient(i);
    for (size_t i = 0; i < BATCH_ROWS * M; i++)
        a[i] = activation(i);
    assert_ok(bg_queries_load(&queries, &source, MPI_COMM_SELF, &err), err);
    size_t n = queries->extent.n_queries, n_groups = 0;
    for (size_t q = 0; q < n; q += bg_queries_group(queries, &wide_site, q).n)
        n_groups++;
    assert_ok(bg_products_init(&products, &queries->extent, BATCH_ROWS, &err), err);
    assert_ok(bg_score_sums_new(&sums, &task, n, scratch, &err), err);
    bg_score_sums_begin_unit(sums, BATCH_SEQUENCES, BATCH_ROWS, 0);
    bg_score_sums_begin_batch(sums, &batch, 0);
    assert_ok(bg_scorer_pair(&(bg_scorer){ queries, &products, sums, NULL }, &pair, &err), err);
    for (size_t z = 0; z < BATCH_SEQUENCES; z++)
        bg_score_sums_scores(sums, z, score + z * n);
    bg_score_sums_free(sums);
    bg_products_clear(&products);
    bg_queries_free(queries);
    return n_groups;
}

static double wide_score(size_t q, size_t row)
{
    double sum = 0;
    for (size_t k = 0; k < WIDE; k++) {
        double left = 0, right = 0;
        for (size_t i = 0; i < P; i++)
            left += (double)gradient(row * P + i) * (double)value(0, q, i * WIDE + k);
        for (size_t i = 0; i < M; i++)
            right += (double)activation(row * M + i) * (double)value(1, q, i * WIDE + k);
        sum += left * right;
    }
    return sum;
}

/* Three groups score as float64 does, and to the bit as each group alone, in memory or on scratch. */
static void scores_in_groups(void **state)
{
    (void)state;
    char all[80], middle[80];
    float score[BATCH_SEQUENCES * MANY], of_middle[BATCH_SEQUENCES * 2], on_scratch[BATCH_SEQUENCES * MANY];
    snprintf(all, sizeof all, "%s/all.h5", folder);
    snprintf(middle, sizeof middle, "%s/middle.h5", folder);
    write_wide(all, 0, MANY);
    write_wide(middle, 2, 2);
    assert_int_equal(score_wide(all, NULL, score), 3);
    assert_int_equal(score_wide(middle, NULL, of_middle), 1);
    assert_int_equal(score_wide(all, folder, on_scratch), 3);
    assert_memory_equal(score, on_scratch, sizeof score);
    for (size_t q = 0; q < MANY; q++) {
        assert_float_equal(score[q], (float)(wide_score(q, 0) + wide_score(q, 1)), 1e-4f);
        assert_float_equal(score[MANY + q], (float)wide_score(q, 2), 1e-4f);
    }
    for (size_t z = 0; z < BATCH_SEQUENCES; z++)
        assert_memory_equal(score + z * MANY + 2, of_middle + z * 2, 2 * sizeof *score);
}

/* ---- norms ---- */

enum { LONG = 150 /* rows: more than are multiplied at a time */ };

/* The squared norm of δᵀ a over rows [first, end), formed in float64; token: where a's rows have their only 1. */
static double square(const float *d, const float *a, const uint32_t *token, size_t first, size_t end)
{
    double sum = 0;
    for (size_t p = 0; p < P; p++)
        for (size_t m = 0; m < M; m++) {
            double g = 0;
            for (size_t t = first; t < end; t++)
                g += (double)d[t * P + p] * (token != NULL ? (double)(token[t] == m) : (double)a[t * M + m]);
            sum += g * g;
        }
    return sum;
}

static void norms_of_gradients(void **state)
{
    (void)state;
    static const size_t row_start[] = { 0, 1, 1, LONG };
    float d[LONG * P], a[LONG * M];
    uint32_t token[LONG];
    bg_gradient_norm norm;
    bg_err err;
    for (size_t i = 0; i < LONG * P; i++)
        d[i] = gradient(i);
    for (size_t i = 0; i < LONG * M; i++)
        a[i] = activation(i) + 1.0f; /* much in common */
    for (size_t t = 0; t < LONG; t++)
        token[t] = (uint32_t)(t * t % M);
    const bg_pair dense = { .site = &wide_site,
                            .n_rows = LONG,
                            .n_sequences = 3,
                            .row_start = row_start,
                            .activation = a,
                            .ld_activation = M,
                            .gradient = d,
                            .ld_gradient = P };
    bg_pair one_hot = dense;
    one_hot.activation = NULL;
    one_hot.token = token;
    assert_ok(bg_gradient_norm_init(&norm, LONG, &err), err);
    for (size_t z = 0; z < 3; z += 2) {
        double wanted = square(d, a, NULL, row_start[z], row_start[z + 1]);
        double by_token = square(d, NULL, token, row_start[z], row_start[z + 1]);
        assert_true(fabs(bg_gradient_norm_square(&norm, &dense, z) - wanted) <= 1e-5 * wanted);
        assert_true(fabs(bg_gradient_norm_square(&norm, &one_hot, z) - by_token) <= 1e-5 * by_token);
    }
    bg_gradient_norm_clear(&norm);
}

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    if (mkdtemp(folder) == NULL)
        return 1;
    snprintf(path, sizeof path, "%s/compressed.h5", folder);
    write_compressed();
    const struct CMUnitTest tests[] = { cmocka_unit_test(counts_bytes), cmocka_unit_test(scores_in_groups),
                                        cmocka_unit_test(norms_of_gradients) };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    bg_err err;
    bg_manifest_close(true);
    failed = failed != 0 || bg_remove_folder(folder, &err) != BG_OK;
    MPI_Finalize();
    return failed;
}
