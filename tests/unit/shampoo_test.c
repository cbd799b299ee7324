/* Shampoo's sums of ragged sequences against loops in float64: sites of every kind, whole, in diagonal blocks and as a
 * diagonal; both ways to a sequence's G Gᵀ and Gᵀ G, and the FLOPs of each, which are those that plan is told. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bregman/covariance.h"
#include "bregman/folder.h"
#include "bregman/gemm.h"
#include "bregman/manifest.h"
#include "bregman/rng.h"
#include "check.h"

enum { SEQUENCES = 7, ROWS = 1 + 2 + 0 + 9 + 60 + 3 + 25, LONGEST = 60, BATCHES = 2 };
static size_t row_start[SEQUENCES + 1] = { 0, 1, 3, 3, 12, 72, 75, 100 };
static uint64_t number[SEQUENCES] = { 0, 1, 2, 3, 4, 5, 6 };
static const bg_batch batch = { .n_sequences = SEQUENCES, .n_rows = ROWS, .row_start = row_start, .sequence = number };
static char folder[] = "/tmp/bregman-shampoo-XXXXXX";

typedef struct {
    bg_site site;
    bg_site *tracked[1];
    bg_model model;
    float *a, *d; /* [BATCHES, ROWS, M], [BATCHES, ROWS, P] with gaps between rows */
    size_t lda, ldd;
    uint32_t *token;      /* [BATCHES, ROWS] */
    double *left, *right; /* [P, P], [M, M] wanted */
} example;

static float *normals(uint64_t stream, size_t n)
{
    float *x = malloc(n * sizeof *x);
    assert_non_null(x);
    bg_normal_fill(11, stream, (uint32_t)n, x);
    return x;
}

static double input_of(const example *e, size_t row, size_t j)
{
    return e->token != NULL ? e->token[row] == j : (double)e->a[row * e->lda + j];
}

/* By the definition: the gradient of each sequence, then its products. */
static void add_wanted(example *e, size_t first, size_t end)
{
    size_t p = e->site.n_out, m = e->site.n_in1;
    double *g = calloc(p * m, sizeof *g);
    assert_non_null(g);
    for (size_t t = first; t < end; t++)
        for (size_t i = 0; i < p; i++)
            for (size_t j = 0; j < m; j++)
                g[i * m + j] += (double)e->d[t * e->ldd + i] * input_of(e, t, j);
    for (size_t i = 0; i < p; i++)
        for (size_t k = 0; k <= i; k++)
            for (size_t j = 0; j < m; j++)
                e->left[i * p + k] += g[i * m + j] * g[k * m + j];
    for (size_t i = 0; i < p; i++)
        for (size_t j = 0; j < m; j++)
            for (size_t k = 0; k <= j; k++)
                e->right[j * m + k] += g[i * m + j] * g[i * m + k];
    free(g);
}

static void open_example(example *e, bg_site_kind kind, bg_symmetric a, bg_symmetric s)
{
    bool one_hot = kind == BG_SITE_EMBEDDING;
    *e = (example){ .site = { .name = "layers.0/mlp", .kind = kind, .n_out = s.n, .n_in1 = a.n, .a = a, .s = s } };
    e->tracked[0] = &e->site;
    e->model = (bg_model){ .config.n_blocks = 1, .tracked = e->tracked, .n_tracked = 1 };
    e->lda = a.n + 3;
    e->ldd = s.n + 2;
    e->a = one_hot ? NULL : normals(1, BATCHES * ROWS * e->lda);
    e->d = normals(2, BATCHES * ROWS * e->ldd);
    e->token = one_hot ? malloc(BATCHES * ROWS * sizeof *e->token) : NULL;
    for (size_t i = 0; one_hot && i < BATCHES * ROWS; i++) /* few, so that most come again in their sequence */
        e->token[i] = (uint32_t)(bg_uniform(3, 0, (uint32_t)i) * (double)a.n);
    e->left = calloc(s.n * s.n, sizeof *e->left);
    e->right = calloc(a.n * a.n, sizeof *e->right);
    assert_true(e->left != NULL && e->right != NULL);
    for (size_t b = 0; b < BATCHES; b++)
        for (size_t z = 0; z < SEQUENCES; z++)
            add_wanted(e, b * ROWS + row_start[z], b * ROWS + row_start[z + 1]);
}

static void close_example(example *e)
{
    free(e->a);
    free(e->d);
    free(e->token);
    free(e->left);
    free(e->right);
}

/* Every entry of the diagonal blocks, relative to the largest. */
static void check_sums(bg_symmetric s, const char *path, const char *dataset, const double *want)
{
    const uint64_t floats = bg_symmetric_floats(s);
    float *sum = malloc(floats * sizeof *sum);
    double largest = 0;
    size_t start = 0;
    bg_err err;
    bg_store *file;
    assert_ok(bg_store_open(&file, path, "bregman/work", &err), err);
    assert_ok(bg_store_read(file, dataset, BG_F32, &floats, sum, &err), err);
    bg_store_close(file);
    for (size_t i = 0; i < s.n * s.n; i++)
        largest = fmax(largest, fabs(want[i]));
    assert_true(largest > 0);
    for (size_t j = 0; j < s.k; j++) {
        size_t side = bg_symmetric_is_diagonal(s) ? 1 : bg_symmetric_side(s, j), c0, w;
        for (size_t c = 0; c < side; c++) {
            size_t panel = bg_symmetric_is_diagonal(s) ? (c0 = 0, w = 1, j) : bg_symmetric_panel(s, j, c, &c0, &w);
            for (size_t r = c; r < side; r++) {
                double found = (double)sum[panel + (r - c0) * w + c - c0];
                double wanted = want[(start + r) * s.n + start + c];
                if (!(fabs(found - wanted) <= 2e-6 * largest))
                    fail_msg("%s [%zu, %zu] is %g, not %g", dataset, start + r, start + c, found, wanted);
            }
        }
        start += side;
    }
    assert_int_equal(start, s.n);
    free(sum);
}

/* FLOPs of a batch as its sequences' costs say, and how many of them take the gram matrices. */
static double counted(const example *e, size_t *n_gram)
{
    double p = (double)e->site.n_out, m = (double)e->site.n_in1, sum = 0;
    *n_gram = 0;
    for (size_t z = 0; z < SEQUENCES; z++) {
        const size_t rows = row_start[z + 1] - row_start[z];
        const bg_batch_shape one = { .sequences = 1, .rows = rows };
        bg_cost cost = { 0 }, whole = { 0 };
        bg_covariance_cost(&cost, &e->model, (bg_site_range){ 0, 1 }, BG_FACTORS_SHAMPOO, &one);
        bg_cost_product(&whole, p, m, (double)rows, 1);
        bg_symmetric_cost(&whole, e->site.s, m);
        bg_symmetric_cost(&whole, e->site.a, p);
        assert_true(cost.flops <= whole.flops || e->token != NULL);
        *n_gram += rows > 0 && cost.flops < whole.flops;
        sum += rows > 0 ? cost.flops : 0;
    }
    return sum;
}

static const char *scratch;

static size_t check_example(bg_site_kind kind, bg_symmetric a, bg_symmetric s)
{
    example e;
    bg_err err;
    bg_covariance *c;
    bg_store *file;
    size_t n_gram;
    char path[80];
    const bg_provenance run = { .stage = "test", .options = "{}", .fingerprint = "f" };
    open_example(&e, kind, a, s);
    const bg_covariance_task task = { { 0, 1 }, BG_FACTORS_SHAMPOO, LONGEST, scratch };
    assert_ok(bg_covariance_new(&c, &e.model, &task, &err), err);
    uint64_t before = bg_gemm_flops();
    for (size_t b = 0; b < BATCHES; b++) {
        const bg_pair pair = { .site = &e.site,
                               .batch = &batch,
                               .n_rows = ROWS,
                               .n_sequences = SEQUENCES,
                               .row_start = row_start,
                               .activation = e.a == NULL ? NULL : e.a + b * ROWS * e.lda,
                               .token = e.token == NULL ? NULL : e.token + b * ROWS,
                               .ld_activation = e.lda,
                               .gradient = e.d + b * ROWS * e.ldd,
                               .ld_gradient = e.ldd };
        assert_ok(bg_covariance_pair(c, &pair, &err), err);
    }
    assert_true((double)(bg_gemm_flops() - before) == BATCHES * counted(&e, &n_gram));
    snprintf(path, sizeof path, "%s/sums.h5", folder);
    assert_ok(bg_store_create(&file, path, "bregman/work", &run, &err), err);
    assert_ok(bg_store_end(file, bg_covariance_write(c, 0, file, &err), &err), err);
    check_sums(s, path, "layers.0/mlp/left_sum", e.left);
    check_sums(a, path, "layers.0/mlp/right_sum", e.right);
    bg_covariance_free(c);
    close_example(&e);
    return n_gram;
}

/* Of 6 sequences with rows some take the gram matrices, and the longer ones the gradient. */
static void linear(void **state)
{
    (void)state;
    for (size_t k = 1; k <= 3; k++) {
        size_t small = check_example(BG_SITE_LINEAR, (bg_symmetric){ 7, k }, (bg_symmetric){ 11, k });
        size_t middle = check_example(BG_SITE_LINEAR, (bg_symmetric){ 40, k }, (bg_symmetric){ 29, k });
        assert_true(small > 0 && small < 6 && middle > small && middle < 6);
    }
    assert_int_equal(check_example(BG_SITE_LINEAR, (bg_symmetric){ 1, 1 }, (bg_symmetric){ 1, 1 }), 0);
    assert_int_equal(check_example(BG_SITE_LINEAR, (bg_symmetric){ 301, 1 }, (bg_symmetric){ 70, 1 }), 6);
    for (size_t k = 1; k <= 2; k++) { /* sides of several panels */
        size_t n = check_example(BG_SITE_LINEAR, (bg_symmetric){ 301, k }, (bg_symmetric){ 7, 1 });
        assert_true(n > 0 && n < 6 &&
                    n == check_example(BG_SITE_LINEAR, (bg_symmetric){ 7, 1 }, (bg_symmetric){ 301, k }));
    }
}

static void head(void **state)
{
    (void)state;
    size_t n = check_example(BG_SITE_HEAD, (bg_symmetric){ 20, 1 }, (bg_symmetric){ 150, 150 });
    assert_true(n > 0 && n < 6);
    n = check_example(BG_SITE_HEAD, (bg_symmetric){ 20, 2 }, (bg_symmetric){ 270, 2 });
    assert_true(n > 0);
}

static void embedding(void **state)
{
    (void)state;
    check_example(BG_SITE_EMBEDDING, (bg_symmetric){ 13, 13 }, (bg_symmetric){ 30, 1 });
    check_example(BG_SITE_EMBEDDING, (bg_symmetric){ 500, 500 }, (bg_symmetric){ 30, 3 });
}

static void on_scratch(void **state)
{
    (void)state;
    scratch = folder;
    check_example(BG_SITE_LINEAR, (bg_symmetric){ 40, 1 }, (bg_symmetric){ 29, 2 });
    scratch = NULL;
}

/* Room for the longest sequence is room for all shorter ones, whichever way they take, and never less than any needs. */
static void room_grows(void **state)
{
    example e;
    (void)state;
    open_example(&e, BG_SITE_LINEAR, (bg_symmetric){ 40, 1 }, (bg_symmetric){ 29, 1 });
    for (size_t rows = 1, last = 0; rows < 300; rows++) {
        size_t n = bg_covariance_room_bytes(&e.model, (bg_site_range){ 0, 1 }, BG_FACTORS_SHAMPOO, rows);
        assert_true(n >= last && n >= sizeof(float));
        last = n;
    }
    assert_int_equal(bg_covariance_room_bytes(&e.model, (bg_site_range){ 0, 1 }, BG_FACTORS_EKFAC, 100), 0);
    close_example(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(linear), cmocka_unit_test(head), cmocka_unit_test(embedding),
                                        cmocka_unit_test(on_scratch), cmocka_unit_test(room_grows) };
    if (mkdtemp(folder) == NULL)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    bg_err err;
    bg_manifest_close(true);
    return failed != 0 || bg_remove_folder(folder, &err) != BG_OK;
}
