/* What every tap makes of a pair that has some of its batch's rows only, as an expert's: the same as of one that has
 * all, the others being zero.  A sequence may have no row in it, and so may the whole pair. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bregman/covariance.h"
#include "bregman/eigenvalues.h"
#include "bregman/folder.h"
#include "bregman/manifest.h"
#include "bregman/rng.h"
#include "bregman/score.h"
#include "bregman/symmetric.h"
#include "check.h"

enum { P = 6, M = 5, R = 2, QUERIES = 3, SEQUENCES = 4, ROWS = 9 };

static char folder[] = "/tmp/bregman-tap-XXXXXX";
static bg_site site = { .name = "layers.0/mlp", .n_out = P, .n_in1 = M, .a = { M, 1 }, .s = { P, 1 } };
static bg_site *tracked[1] = { &site };
static const bg_model model = { .config.n_blocks = 1, .tracked = tracked, .n_tracked = 1 };

/* Sequences of 3, 2, 3 and 1 rows. */
static size_t row_start[SEQUENCES + 1] = { 0, 3, 5, 8, 9 };
static uint64_t numbers[SEQUENCES] = { 7, 8, 9, 10 };
static const bg_batch batch = { .n_sequences = SEQUENCES, .n_rows = ROWS, .row_start = row_start, .sequence = numbers };

/* Rows 1 and 2 of sequence 0 and row 7 of sequence 2; sequence 3 is named, but has none. */
static const uint32_t some_row[] = { 1, 2, 7 };
static const size_t some_sequence[] = { 0, 2, 3 }, some_start[] = { 0, 2, 3, 3 };

typedef struct {
    float a[ROWS * M], d[ROWS * P];
} values;

static void fill(float *x, size_t n, uint64_t stream)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (float)bg_uniform(5, stream, (uint32_t)i) - 0.5f;
}

/* [out]: all rows, those not chosen zero; and the chosen ones back to back. */
static void make_values(values *all, values *some)
{
    values random;
    fill(random.a, ROWS * M, 1);
    fill(random.d, ROWS * P, 2);
    memset(all, 0, sizeof *all);
    for (size_t i = 0; i < 3; i++) {
        size_t row = some_row[i];
        memcpy(all->a + row * M, random.a + row * M, M * sizeof(float));
        memcpy(all->d + row * P, random.d + row * P, P * sizeof(float));
        memcpy(some->a + i * M, random.a + row * M, M * sizeof(float));
        memcpy(some->d + i * P, random.d + row * P, P * sizeof(float));
    }
}

static void give_pairs(bg_status (*pair)(void *self, const bg_pair *pair, bg_err *err), void *self, bool whole)
{
    bg_err err;
    values all, some;
    make_values(&all, &some);
    const bg_pair p = { &site, &batch, ROWS, SEQUENCES, row_start, NULL, NULL, all.a, NULL, M, all.d, P };
    const bg_pair chosen = { &site, &batch, 3, 3, some_start, some_sequence, some_row, some.a, NULL, M, some.d, P };
    const bg_pair none = { &site, &batch, 0, 0, some_start, some_sequence, some_row, some.a, NULL, M, some.d, P };
    assert_ok(pair(self, whole ? &p : &chosen, &err), err);
    if (!whole)
        assert_ok(pair(self, &none, &err), err);
}

static void assert_near(const float *x, const float *y, size_t n)
{
    bool nonzero = false;
    for (size_t i = 0; i < n; i++) {
        assert_float_equal(x[i], y[i], 1e-6f);
        nonzero = nonzero || x[i] != 0;
    }
    assert_true(nonzero);
}

static bg_store *create(const char *name, const char *format, char path[80])
{
    const bg_provenance run = { .stage = "test", .options = "{}", .fingerprint = "f" };
    bg_err err;
    bg_store *s;
    snprintf(path, 80, "%s/%s", folder, name);
    assert_ok(bg_store_create(&s, path, format, &run, &err), err);
    return s;
}

static void read_work(const char *path, const char *dataset, const uint64_t *dims, float *out)
{
    bg_err err;
    bg_store *s;
    char name[200];
    snprintf(name, sizeof name, "%s/%s", site.name, dataset);
    assert_ok(bg_store_open(&s, path, "bregman/work", &err), err);
    assert_ok(bg_store_read(s, name, BG_F32, dims, out, &err), err);
    bg_store_close(s);
}

static void covariances(void **state)
{
    (void)state;
    const bg_site_range run = { 0, 1 };
    const uint64_t n[2] = { P * (P + 1) / 2, M * (M + 1) / 2 };
    float sum[2][2][P * P];
    for (int whole = 0; whole < 2; whole++) {
        bg_err err;
        bg_covariance *c;
        char path[80];
        assert_ok(bg_covariance_new(&c, &model, &(bg_covariance_task){ .sites = run }, &err), err);
        give_pairs(bg_covariance_pair, c, whole);
        bg_store *s = create(whole ? "whole" : "some", "bregman/work", path);
        assert_ok(bg_store_end(s, bg_covariance_write(c, 0, s, &err), &err), err);
        uint64_t floats[2] = { bg_symmetric_floats((bg_symmetric){ P, 1 }),
                               bg_symmetric_floats((bg_symmetric){ M, 1 }) };
        assert_true(floats[0] >= n[0] && floats[0] <= P * P && floats[1] <= M * M);
        read_work(path, "gradient_sum", &floats[0], sum[whole][0]);
        read_work(path, "activation_sum", &floats[1], sum[whole][1]);
        bg_covariance_free(c);
    }
    assert_near(sum[0][0], sum[1][0], n[0]);
    assert_near(sum[0][1], sum[1][1], n[1]);
}

static void eigenvalues(void **state)
{
    (void)state;
    float qs[P * P], qa[M * M], lambda[2][P * M], diagonal[2][P * M];
    fill(qs, P * P, 3);
    fill(qa, M * M, 4);
    const bg_eigenbasis basis = { .q_s = { P, 1, P, qs }, .q_a = { M, 1, M, qa } };
    const bg_eigenvalues_task task = { { 0, 1 }, &basis, true, ROWS, NULL };
    const uint64_t dims[2] = { P, M };
    for (int whole = 0; whole < 2; whole++) {
        bg_err err;
        bg_eigenvalues *e;
        char path[80];
        assert_ok(bg_eigenvalues_new(&e, &model, &task, &err), err);
        give_pairs(bg_eigenvalues_pair, e, whole);
        bg_store *s = create(whole ? "whole" : "some", "bregman/work", path);
        assert_ok(bg_store_end(s, bg_eigenvalues_write(e, 0, s, &err), &err), err);
        read_work(path, "lambda_sum", dims, lambda[whole]);
        read_work(path, "diagonal_sum", dims, diagonal[whole]);
        bg_eigenvalues_free(e);
    }
    assert_near(lambda[0], lambda[1], P * M);
    assert_near(diagonal[0], diagonal[1], P * M);
}

static void write_queries(char path[80])
{
    static const char *const ids[QUERIES] = { "a", "b", "c" };
    const uint64_t n = QUERIES, left[3] = { QUERIES, P, R }, right[3] = { QUERIES, M, R };
    float u[QUERIES * P * R], v[QUERIES * M * R], kept[QUERIES] = { 1, 1, 1 };
    bg_err err;
    fill(u, QUERIES * P * R, 5);
    fill(v, QUERIES * M * R, 6);
    bg_store *s = create("compressed.h5", "bregman/compressed", path);
    assert_ok(bg_store_write(s, "id", &n, ids, &err), err);
    assert_ok(bg_store_write(s, "layers.0/mlp/left", left, u, &err), err);
    assert_ok(bg_store_write(s, "layers.0/mlp/right", right, v, &err), err);
    assert_ok(bg_store_write(s, "layers.0/mlp/kept", &n, kept, &err), err);
    assert_ok(bg_store_attr_text(s, "/", "model_hash", "0", &err), err);
    assert_ok(bg_store_publish(s, NULL, &err), err);
}

static void scores(void **state)
{
    (void)state;
    static const bg_share share = { .first = 0, .end = 1, .sites = { 0, 1 }, .embeds = true };
    const bg_hash hash = { "0" };
    float sequence[2][SEQUENCES * QUERIES], token[2][ROWS * QUERIES];
    char path[80];
    write_queries(path);
    for (int whole = 0; whole < 2; whole++)
        for (int detail = 0; detail < 2; detail++) {
            const bg_queries_source source = { path, &model, &hash, &share, NULL };
            const bg_score_task task = { &model,    &share, 1,    0,    detail ? BG_SCORE_TOKENS : BG_SCORE_SEQUENCES,
                                         SEQUENCES, ROWS,   ROWS, false };
            bg_err err;
            bg_queries *queries;
            bg_products products;
            bg_score_sums *s;
            assert_ok(bg_queries_load(&queries, &source, MPI_COMM_SELF, &err), err);
            assert_ok(bg_products_init(&products, &queries->extent, ROWS, &err), err);
            assert_ok(bg_score_sums_new(&s, &task, QUERIES, NULL, &err), err);
            bg_score_sums_begin_unit(s, SEQUENCES, ROWS, 0);
            bg_score_sums_begin_batch(s, &batch, 0);
            give_pairs(bg_scorer_pair, &(bg_scorer){ queries, &products, s, NULL }, whole);
            for (size_t i = 0; !detail && i < SEQUENCES; i++)
                bg_score_sums_scores(s, i, sequence[whole] + i * QUERIES);
            for (size_t i = 0; detail && i < ROWS * QUERIES; i++)
                bg_score_sums_tokens(s, i / QUERIES, i % QUERIES, &token[whole][i]);
            bg_score_sums_free(s);
            bg_products_clear(&products);
            bg_queries_free(queries);
        }
    assert_near(sequence[0], sequence[1], SEQUENCES * QUERIES);
    assert_near(token[0], token[1], ROWS * QUERIES);
}

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    if (mkdtemp(folder) == NULL)
        return 1;
    const struct CMUnitTest tests[] = { cmocka_unit_test(covariances), cmocka_unit_test(eigenvalues),
                                        cmocka_unit_test(scores) };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    bg_err err;
    bg_manifest_close(true);
    failed = failed != 0 || bg_remove_folder(folder, &err) != BG_OK;
    MPI_Finalize();
    return failed;
}
