/* A model of two experts, of which one reads some rows and the other none: each has its own sums and counts through
 * fit_factors' files, and the one that was never used scores 0 without a NaN. */
#include <math.h>
#include <mpi.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bregman/covariance.h"
#include "bregman/eigenvalues.h"
#include "bregman/folder.h"
#include "bregman/manifest.h"
#include "bregman/precondition.h"
#include "bregman/rng.h"
#include "fit_factors/fit_factors.h"
#include "unit/check.h"

enum { P = 3, M = 4, ROWS = 9, USED = 3, SEQUENCES = 4 };

static char folder[] = "/tmp/bregman-experts-XXXXXX";

static bg_site expert[2] = {
    { .name = "layers.0.experts.0", .n_out = P, .n_in = M, .n_in1 = M, .a = { M, 1 }, .s = { P, 1 }, .tracked = true },
    { .name = "layers.0.experts.1",
      .n_out = P,
      .n_in = M,
      .n_in1 = M,
      .a = { M, 1 },
      .s = { P, 1 },
      .tracked = true,
      .input = 1,
      .keeper = 1,
      .index = 1 },
};
static bg_site *tracked[2] = { &expert[0], &expert[1] };
static bg_section section = { 0, 0, 2 };
static bg_model model = { .config.n_blocks = 1,
                          .site = expert,
                          .n_sites = 2,
                          .tracked = tracked,
                          .n_tracked = 2,
                          .section = &section,
                          .n_sections = 1,
                          .dir = (char[]){ "experts" } };
static const bg_site_range both = { 0, 2 };
static const size_t group = 0;
static const bg_share whole = { .end = 1, .sites = { 0, 2 }, .embeds = true, .has_head = true };

/* The router sent rows 1 and 2 of the first sequence and row 7 of the third to expert 0. */
static size_t row_start[SEQUENCES + 1] = { 0, 3, 5, 8, 9 };
static uint64_t number[SEQUENCES] = { 0, 1, 2, 3 };
static const bg_batch batch = { .n_sequences = SEQUENCES, .n_rows = ROWS, .row_start = row_start, .sequence = number };
static const uint32_t used_row[USED] = { 1, 2, 7 };
static const size_t used_sequence[] = { 0, 2 }, used_start[] = { 0, 2, 3 };
static float a[USED * M], d[USED * P];

static const fit_factors_config config = { .modules = "experts", .output = folder, .blocks = 1, .subgrid_side = 8192 };
static fit job = { .c = &config, .in.model = &model, .in.model_hash = { "0123456789abcdef0123456789abcdef" } };
static bg_context ctx;

static void open_job(void)
{
    bg_err err;
    job.in.files.run = (bg_provenance){ .stage = "fit_factors", .options = "{}", .fingerprint = "f" };
    assert_ok(bg_grid_init(&ctx.grid, MPI_COMM_WORLD, 1, &err), err);
    job.ctx = &ctx;
    assert_ok(bg_path(job.plan.work, &err, "%s/work", folder), err);
    assert_ok(bg_path(job.plan.index, &err, "%s/index.h5", folder), err);
    assert_int_equal(mkdir(job.plan.work, 0777), 0);
    job.plan.load = (bg_workload){ .model = &model, .grid = ctx.grid, .share = &whole, .subgrid_side = 8192 };
    fit_sum *const sum[] = { &job.plan.covariance, &job.plan.lambda };
    for (int i = 0; i < 2; i++) {
        sum[i]->range = (bg_range){ 0, SEQUENCES };
        sum[i]->rows = ROWS;
        sum[i]->units = (bg_units){ .folder = job.plan.work,
                                    .kind = i == 0 ? "covariance" : "lambda",
                                    .run = &job.in.files.run,
                                    .cumulative = true,
                                    .group = &group,
                                    .n_groups = 1,
                                    .n_sequences = SEQUENCES,
                                    .unit_sequences = SEQUENCES };
    }
}

static void give_pair(bg_status (*pair)(void *self, const bg_pair *pair, bg_err *err), void *self)
{
    bg_err err;
    const bg_pair p = { &expert[0], &batch, USED, 2, used_start, used_sequence, used_row, a, NULL, M, d, P };
    assert_ok(pair(self, &p, &err), err);
}

static const bg_segment whole_unit = { 0, 0, 0, SEQUENCES };

static void fit_covariances(void)
{
    bg_err err;
    bg_covariance *c;
    bg_store *s;
    assert_ok(bg_covariance_new(&c, &model, &(bg_covariance_task){ .sites = both }, &err), err);
    give_pair(bg_covariance_pair, c);
    assert_ok(bg_units_create(&s, &job.plan.covariance.units, &whole_unit, &err), err);
    assert_ok(bg_units_end(s, &job.plan.covariance.units, &whole_unit, SEQUENCES, bg_covariance_write(c, 0, s, &err),
                           &err),
              err);
    bg_covariance_free(c);
    assert_ok(fit_decompose(&job, &err), err);
}

static void fit_eigenvalues(void)
{
    bg_err err;
    bg_eigenvalues *e;
    bg_store *s;
    fit_bases bases;
    assert_ok(fit_read_bases(&job, both, &bases, &err), err);
    const bg_eigenvalues_task task = { both, bases.basis, true, ROWS, NULL };
    assert_ok(bg_eigenvalues_new(&e, &model, &task, &err), err);
    give_pair(bg_eigenvalues_pair, e);
    assert_ok(bg_units_create(&s, &job.plan.lambda.units, &whole_unit, &err), err);
    assert_ok(bg_units_end(s, &job.plan.lambda.units, &whole_unit, SEQUENCES, bg_eigenvalues_write(e, 0, s, &err),
                           &err),
              err);
    bg_eigenvalues_free(e);
    fit_free_bases(&bases);
}

/* The mean of x xᵀ over the rows that the expert has read, not over the batch's. */
static void check_covariance(const char *path, const char *name, size_t n, const float *x)
{
    char dataset[BG_PATH_BYTES];
    const uint64_t dims[2] = { n, n };
    float found[M * M];
    bg_err err;
    bg_store *s;
    assert_ok(bg_store_open(&s, path, "bregman/factors", &err), err);
    for (int k = 0; k < 2; k++) {
        assert_ok(bg_path(dataset, &err, "%s/%s", expert[k].name, name), err);
        assert_ok(bg_store_read(s, dataset, BG_F32, dims, found, &err), err);
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j < n; j++) {
                double sum = 0;
                for (size_t r = 0; r < USED && k == 0; r++)
                    sum += (double)x[r * n + i] * (double)x[r * n + j];
                assert_float_equal(found[i * n + j], sum / USED, 1e-6);
            }
    }
    bg_store_close(s);
}

/* The response to a gradient of ones: finite, and 0 of the expert that nothing was learnt of. */
static void check_response(const bg_factors *f, int k, bg_preconditioner kind)
{
    bg_err err;
    bg_curvature c;
    float v[P * M];
    double size = 0;
    assert_ok(bg_curvature_read(f, &expert[k], (bg_damping){ kind, false, 0.1 }, &c, &err), err);
    for (size_t i = 0; i < P * M; i++)
        v[i] = 1;
    bg_curvature_divide(&c, v);
    for (size_t i = 0; i < P * M; i++) {
        assert_true(isfinite(v[i]));
        size += fabs((double)v[i]);
    }
    assert_true(kind == BG_IDENTITY || (size > 0) == (k == 0));
    bg_curvature_clear(&c);
}

static void two_experts(void **state)
{
    (void)state;
    static const double positions[2] = { USED, 0 };
    char block[BG_PATH_BYTES];
    bg_err err;
    bg_factors *f;
    bg_normal_fill(3, 0, USED * M, a);
    bg_normal_fill(3, 1, USED * P, d);
    open_job();
    fit_covariances();
    fit_eigenvalues();
    assert_ok(fit_publish(&job, &err), err);
    assert_ok(bg_factors_section_path(folder, 0, block, &err), err);
    check_covariance(block, "activation_covariance", M, a);
    check_covariance(block, "gradient_covariance", P, d);
    assert_ok(bg_factors_open(&f, folder, &model, &job.in.model_hash, &err), err);
    for (int k = 0; k < 2; k++) {
        double per_sequence;
        assert_ok(bg_factors_tokens_per_sequence(f, &expert[k], &per_sequence, &err), err);
        assert_float_equal(per_sequence, positions[k] / SEQUENCES, 1e-12);
        for (bg_preconditioner kind = BG_EKFAC; kind <= BG_IDENTITY; kind++)
            if (kind != BG_SHAMPOO)
                check_response(f, k, kind);
    }
    bg_factors_close(f);
    bg_grid_free(&ctx.grid);
}

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    if (mkdtemp(folder) == NULL)
        return 1;
    const struct CMUnitTest tests[] = { cmocka_unit_test(two_experts) };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    bg_err err;
    bg_manifest_close(true);
    failed = failed != 0 || bg_remove_folder(job.plan.work, &err) != BG_OK || bg_remove_folder(folder, &err) != BG_OK;
    MPI_Finalize();
    return failed;
}
