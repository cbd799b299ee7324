/* Sampled labels (math.md M5): on a model of one block and eight tokens the expectation over labels is a short
 * sum. An MLP output reaches one prediction only there, so δ at a position depends on that position's label alone and
 * E[Σ δδᵀ] = Σ_t Σ_y p_t(y) δ_t^y δ_t^yᵀ: covariances from sampled labels must come to it, at the rate 1/√draws. */
#include <math.h>

#include "bregman/rng.h"
#include "golden.h"

enum { VOCAB = 8, SEEDS = 600, MODULES = 3 };

typedef struct {
    golden g;
    bg_model *model;
    bg_batch *batch;
    bg_pass *pass;
    float *loss;
    double *p;           /* [rows, VOCAB] */
    caught given[VOCAB]; /* pairs with label y everywhere */
} tiny;

static void tiny_open(tiny *t)
{
    bg_err err;
    memset(t, 0, sizeof *t);
    golden_open(&t->g, "tiny");
    t->model = golden_model(&t->g, "mlp");
    t->batch = golden_batch(&t->g, 0, 4);
    t->pass = golden_pass(t->model, t->batch);
    size_t n = t->batch->n_rows;
    t->loss = calloc(n, sizeof *t->loss);
    t->p = calloc(n * VOCAB, sizeof *t->p);
    assert_true(t->loss != NULL && t->p != NULL && t->model->n_tracked == MODULES);
    for (uint32_t y = 0; y < VOCAB; y++) {
        for (size_t i = 0; i < n; i++)
            t->batch->target[i] = y;
        assert_ok(bg_pass_run(t->pass, t->batch, (bg_labels){ 0 }, &(bg_tap){ catch_pair, &t->given[y], BG_WANTS_ALL },
                              t->loss, &err),
                  err);
        for (size_t i = 0; i < n; i++)
            t->p[i * VOCAB + y] = exp(-(double)t->loss[i]);
    }
}

static void tiny_close(tiny *t)
{
    for (size_t y = 0; y < VOCAB; y++)
        caught_clear(&t->given[y]);
    free(t->loss);
    free(t->p);
    bg_pass_free(t->pass);
    bg_batch_free(t->batch);
    bg_model_close(t->model);
    bg_tensors_close(t->g.tensors);
}

/* s += weight δδᵀ of one row */
static void add_outer(size_t n, const float *delta, double weight, double *s)
{
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++)
            s[i * n + j] += weight * (double)delta[i] * (double)delta[j];
}

static double norm2(size_t n, const double *x)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    return sum;
}

/* Exact E[Σ δδᵀ] of module k, and the variance of one draw of the sum: E‖Σ δδᵀ − E‖² (positions are independent). */
static double *exact(const tiny *t, size_t k, double *variance)
{
    size_t n = t->given[0].pair[k].site->n_out;
    double *s = calloc(n * n, sizeof *s), *row = calloc(n * n, sizeof *row);
    assert_true(s != NULL && row != NULL);
    *variance = 0;
    for (size_t i = 0; i < t->batch->n_rows; i++) {
        memset(row, 0, n * n * sizeof *row);
        for (size_t y = 0; y < VOCAB; y++) {
            const float *delta = t->given[y].pair[k].delta + i * n;
            double p = t->p[i * VOCAB + y], square = 0;
            for (size_t j = 0; j < n; j++)
                square += (double)delta[j] * (double)delta[j];
            add_outer(n, delta, p, row);
            *variance += p * square * square;
        }
        *variance -= norm2(n * n, row);
        for (size_t j = 0; j < n * n; j++)
            s[j] += row[j];
    }
    free(row);
    return s;
}

static void probabilities_sum_to_one(void **state)
{
    tiny *t = *state;
    for (size_t i = 0; i < t->batch->n_rows; i++) {
        double sum = 0;
        for (size_t y = 0; y < VOCAB; y++)
            sum += t->p[i * VOCAB + y];
        assert_true(fabs(sum - 1) < 1e-5);
    }
}

/* Which of the given labels a sampled row of losses shows; the losses of a position's labels are far enough apart. */
static uint32_t drawn_label(const tiny *t, size_t row, double loss)
{
    uint32_t best = 0;
    for (uint32_t y = 1; y < VOCAB; y++)
        if (fabs(t->p[row * VOCAB + y] - exp(-loss)) < fabs(t->p[row * VOCAB + best] - exp(-loss)))
            best = y;
    return best;
}

/* The label that uniform u draws; VOCAB if u is too close to a boundary for float32 probabilities to tell. */
static uint32_t label_of(const tiny *t, size_t row, double u)
{
    double sum = 0;
    for (uint32_t y = 0; y < VOCAB; y++) {
        sum += t->p[row * VOCAB + y];
        if (fabs(u - sum) < 1e-5)
            return VOCAB;
        if (u < sum)
            return y;
    }
    return VOCAB;
}

/* Each label comes from its own random number, keyed by seed, the sequence's global index and the position. */
static void labels_are_keyed(void **state)
{
    tiny *t = *state;
    bg_err err;
    bg_batch *b = golden_batch(&t->g, 3, 2); /* global index and place in the batch differ */
    size_t n_told = 0, rows = b->row_start[1], shift = t->batch->row_start[3];
    assert_int_equal(b->sequence[0], 3);
    for (uint64_t seed = 40; seed < 60; seed++) {
        assert_ok(bg_pass_run(t->pass, b, (bg_labels){ true, seed }, NULL, t->loss, &err), err);
        for (size_t i = 0; i < rows; i++) {
            uint32_t want = label_of(t, shift + i, bg_uniform(seed, 3, (uint32_t)i));
            if (want == VOCAB)
                continue;
            assert_int_equal(drawn_label(t, shift + i, (double)t->loss[i]), want);
            n_told++;
        }
    }
    assert_true(n_told > 15 * rows);
    bg_batch_free(b);
}

/* The pairs of a sampled run are those of the labels drawn; frequencies follow p within a chi-squared bound. */
static void draws_follow_the_model(void **state)
{
    tiny *t = *state;
    bg_err err;
    size_t rows = t->batch->n_rows, n_degrees = 0;
    double *seen = calloc(rows * VOCAB, sizeof *seen), chi2 = 0;
    assert_non_null(seen);
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        caught c = { 0 };
        assert_ok(bg_pass_run(t->pass, t->batch, (bg_labels){ true, seed }, &(bg_tap){ catch_pair, &c, BG_WANTS_ALL },
                              t->loss, &err),
                  err);
        for (size_t i = 0; i < rows; i++) {
            uint32_t y = drawn_label(t, i, (double)t->loss[i]);
            size_t n = c.pair[0].site->n_out;
            seen[i * VOCAB + y]++;
            for (size_t j = 0; j < n && seed == 0; j++)
                assert_true(fabs((double)(c.pair[0].delta[i * n + j] - t->given[y].pair[0].delta[i * n + j])) < 1e-5);
        }
        caught_clear(&c);
    }
    for (size_t i = 0; i < rows * VOCAB; i++) {
        double want = SEEDS * t->p[i];
        chi2 += want >= 5 ? (seen[i] - want) * (seen[i] - want) / want : 0;
        n_degrees += want >= 5;
    }
    /* mean about n_degrees less one a row, standard deviation √(2 n): 5 of them */
    double mean = (double)(n_degrees - rows), bound = mean + 5 * sqrt(2 * (double)n_degrees);
    print_message("chi-squared %.0f, %zu cells: at most %.0f\n", chi2, n_degrees, bound);
    assert_true(chi2 < bound && chi2 > mean - 5 * sqrt(2 * (double)n_degrees));
    free(seen);
}

/* Covariances of SEEDS draws are within three standard errors (root mean square, Frobenius) of the exact one,
 * and those of the data's labels are not: the bound means something. */
static void covariances_converge(void **state)
{
    tiny *t = *state;
    bg_err err;
    for (size_t k = 0; k < MODULES; k++) {
        size_t n = t->given[0].pair[k].site->n_out, rows = t->batch->n_rows;
        double variance, *want = exact(t, k, &variance), *mean = calloc(n * n, sizeof *mean);
        double *fixed = calloc(n * n, sizeof *fixed);
        assert_true(mean != NULL && fixed != NULL);
        for (uint64_t seed = 0; seed < SEEDS; seed++) {
            caught c = { 0 };
            assert_ok(bg_pass_run(t->pass, t->batch, (bg_labels){ true, seed },
                                  &(bg_tap){ catch_pair, &c, BG_WANTS_ALL }, NULL, &err),
                      err);
            for (size_t i = 0; i < rows; i++)
                add_outer(n, c.pair[k].delta + i * n, 1.0 / SEEDS, mean);
            caught_clear(&c);
        }
        for (size_t i = 0; i < rows; i++)
            add_outer(n, t->given[0].pair[k].delta + i * n, 1.0, fixed);
        for (size_t i = 0; i < n * n; i++) {
            mean[i] -= want[i];
            fixed[i] -= want[i];
        }
        double error = sqrt(norm2(n * n, mean)), standard = sqrt(variance / SEEDS);
        print_message("%s: relative error %.4f, standard error %.4f\n", t->given[0].pair[k].site->name,
                      error / sqrt(norm2(n * n, want)), standard / sqrt(norm2(n * n, want)));
        assert_true(error < 3 * standard && error > standard / 10);
        assert_true(sqrt(norm2(n * n, fixed)) > 30 * standard);
        free(want);
        free(mean);
        free(fixed);
    }
}

static int open_tiny(void **state)
{
    static tiny t;
    tiny_open(&t);
    *state = &t;
    return 0;
}

static int close_tiny(void **state)
{
    tiny_close(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(probabilities_sum_to_one),
        cmocka_unit_test(labels_are_keyed),
        cmocka_unit_test(draws_follow_the_model),
        cmocka_unit_test(covariances_converge),
    };
    return cmocka_run_group_tests(tests, open_tiny, close_tiny);
}
