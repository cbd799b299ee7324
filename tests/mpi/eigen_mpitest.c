/* One matrix by LAPACK and over the ranks: A Q = Q diag(w), orthogonality, the same eigenvalues; what ends it ends it
 * on every rank. */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/comm.h"
#include "bregman/eigen.h"
#include "bregman/gemm.h"
#include "bregman/rng.h"

static int fails, rank, size;
#define CHECK(c)                                                           \
    do {                                                                   \
        if (!(c)) {                                                        \
            fails++;                                                       \
            fprintf(stderr, "%s:%d: CHECK(%s)\n", __FILE__, __LINE__, #c); \
        }                                                                  \
    } while (0)

static double *doubles(size_t n)
{
    double *x = calloc(n + 1, sizeof *x);
    if (x == NULL)
        abort();
    return x;
}

/* ---- matrices ---- */

/* Xᵀ X of X [rows, n] whose columns shrink by `decay` from one to the next. */
static double *gram(size_t n, size_t rows, double decay)
{
    double *a = doubles(n * n);
    float *x = calloc(rows * n + 1, sizeof *x);
    if (x == NULL)
        abort();
    bg_normal_fill(3, n, rows * n, x);
    for (size_t t = 0; t < rows; t++)
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j < n; j++)
                a[i * n + j] += (double)x[t * n + i] * (double)x[t * n + j];
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++)
            a[i * n + j] *= pow(decay, (double)(i + j));
    free(x);
    return a;
}

static double cluster_value(size_t i) { return i % 3 == 0 ? 1 : i % 3 == 1 ? 1 + 1e-14 * (double)i : 5; }

/* H D H for a reflection H = I - 2 v vᵀ: two clusters of eigenvalues, D's. */
static double *clustered(size_t n)
{
    double *a = doubles(n * n), *v = doubles(n), norm = 0, vdv = 0;
    for (size_t i = 0; i < n; i++) {
        v[i] = sin((double)i + 1);
        norm += v[i] * v[i];
    }
    for (size_t i = 0; i < n; i++)
        v[i] /= sqrt(norm);
    for (size_t i = 0; i < n; i++)
        vdv += v[i] * v[i] * cluster_value(i);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j <= i; j++) {
            double x = v[i] * v[j] * (4 * vdv - 2 * cluster_value(i) - 2 * cluster_value(j));
            a[i * n + j] = a[j * n + i] = x + (i == j ? cluster_value(i) : 0);
        }
    free(v);
    return a;
}

static double *zeros(size_t n) { return doubles(n * n); }

/* ---- streams over a matrix in memory: diagonal block [at, at + n) of a [side, side] ---- */

typedef struct {
    size_t side, at, n;
    const double *a;
    double *symmetric, *q;                           /* [n, n] */
    size_t fail_lower, fail_symmetric, fail_vectors; /* the callback fails from this row on */
} matrix;

static bg_status lower(void *self, size_t first, size_t count, double *out, bg_err *err)
{
    const matrix *m = self;
    CHECK(rank == 0 && count <= BG_EIGEN_SLAB && first + count <= m->n);
    if (first + count > m->fail_lower)
        return BG_FAIL(err, BG_EIO, "cannot read row %zu", m->fail_lower);
    for (size_t i = first; i < m->n; i++)
        for (size_t j = first; j < first + count; j++)
            out[(i - first) * count + j - first] = j <= i ? m->a[(m->at + i) * m->side + m->at + j] : (double)NAN;
    return BG_OK;
}

static bg_status symmetric(void *self, size_t first, size_t count, const double *rows, bg_err *err)
{
    matrix *m = self;
    CHECK(rank == 0 && count <= BG_EIGEN_SLAB);
    if (first + count > m->fail_symmetric)
        return BG_FAIL(err, BG_EIO, "cannot write row %zu", m->fail_symmetric);
    memcpy(m->symmetric + first * m->n, rows, count * m->n * sizeof *rows);
    return BG_OK;
}

static bg_status vectors(void *self, size_t first, size_t count, const double *rows, bg_err *err)
{
    matrix *m = self;
    CHECK(rank == 0 && count <= BG_EIGEN_SLAB);
    if (first + count > m->fail_vectors)
        return BG_FAIL(err, BG_EIO, "cannot write vectors from row %zu", m->fail_vectors);
    memcpy(m->q + first * m->n, rows, count * m->n * sizeof *rows);
    return BG_OK;
}

static matrix block_of(const double *a, size_t side, size_t at, size_t n)
{
    return (matrix){ side, at, n, a, doubles(n * n), doubles(n * n), SIZE_MAX, SIZE_MAX, SIZE_MAX };
}

static void clear(matrix *m)
{
    free(m->symmetric);
    free(m->q);
}

static bg_status decompose(matrix *m, double *w, bg_err *err)
{
    /* the other ranks need none */
    bg_eigen_stream stream = { m, lower, symmetric, vectors, NULL };
    return bg_eigen_shared(m->n, rank == 0 ? &stream : NULL, w, "A", MPI_COMM_WORLD, err);
}

/* ---- checks, on rank 0 ---- */

static double largest(size_t n, const double *x)
{
    double most = 0;
    for (size_t i = 0; i < n; i++)
        most = fmax(most, fabs(x[i]));
    return most;
}

/* |A Q - Q diag(w)| at (i, j). */
static double residual(const matrix *m, const double *w, size_t i, size_t j)
{
    double aq = 0;
    for (size_t l = 0; l < m->n; l++)
        aq += m->symmetric[i * m->n + l] * m->q[l * m->n + j];
    return fabs(aq - w[j] * m->q[i * m->n + j]);
}

/* |QᵀQ - I| at (i, j). */
static double departure(const matrix *m, size_t i, size_t j)
{
    double qq = 0;
    for (size_t l = 0; l < m->n; l++)
        qq += m->q[l * m->n + i] * m->q[l * m->n + j];
    return fabs(qq - (i == j));
}

static bool sign_is_fixed(const matrix *m, size_t j)
{
    size_t most = 0;
    for (size_t i = 1; i < m->n; i++)
        if (fabs(m->q[i * m->n + j]) > fabs(m->q[most * m->n + j]))
            most = i;
    return m->q[most * m->n + j] > 0;
}

static void check_against_lapack(const matrix *m, const double *w)
{
    bg_err err;
    size_t n = m->n;
    double *q = doubles(n * n), *want = doubles(n), bound;
    for (size_t i = 0; i < n; i++) {
        memcpy(q + i * n, m->a + (m->at + i) * m->side + m->at, n * sizeof *q);
        CHECK(memcmp(m->symmetric + i * n, q + i * n, n * sizeof *q) == 0);
    }
    CHECK(bg_eigen(n, q, want, "A", &err) == BG_OK);
    bound = 1e-13 * (double)n * fmax(fabs(want[0]), fabs(want[n - 1]));
    for (size_t j = 0; j < n; j++) {
        CHECK(fabs(w[j] - want[j]) <= bound && (j == 0 || w[j] >= w[j - 1]));
        CHECK(sign_is_fixed(m, j));
        for (size_t i = 0; i < n; i++)
            if (!(residual(m, w, i, j) <= bound && departure(m, i, j) <= 1e-13 * (double)n)) {
                CHECK(!"A Q = Q diag(w) and QᵀQ = I");
                i = j = n;
            }
    }
    if (size == 1)
        CHECK(memcmp(q, m->q, n * n * sizeof *q) == 0 && memcmp(want, w, n * sizeof *w) == 0);
    free(want);
    free(q);
}

/* Decomposed twice: the same bytes; the eigenvalues on all ranks. */
static void check_block(const double *a, size_t side, size_t at, size_t n)
{
    bg_err err = { .file = "" };
    matrix m = block_of(a, side, at, n), again = block_of(a, side, at, n);
    double *w = doubles(n), *w0 = doubles(n);
    CHECK(decompose(&m, w, &err) == BG_OK);
    if (rank == 0)
        check_against_lapack(&m, w);
    CHECK(decompose(&again, w0, &err) == BG_OK);
    CHECK(memcmp(w, w0, n * sizeof *w) == 0 && memcmp(m.q, again.q, n * n * sizeof *w) == 0);
    bg_broadcast(MPI_COMM_WORLD, w0, n * sizeof *w, 0);
    CHECK(memcmp(w, w0, n * sizeof *w) == 0);
    if (fails > 0)
        fprintf(stderr, "  of block %zu + %zu of %zu, largest entry %g\n", at, n, side, largest(side * side, a));
    free(w);
    free(w0);
    clear(&again);
    clear(&m);
}

static void check_matrix(double *a, size_t n, size_t k)
{
    for (size_t j = 0; j < k; j++)
        check_block(a, n, j * n / k, (j + 1) * n / k - j * n / k);
    free(a);
}

static void all_kinds(void)
{
    const size_t sides[] = { 1, 2, 3, 4, 5, 7, 16, 31, 64, 97, 200, 301 };
    for (size_t i = 0; i < sizeof sides / sizeof sides[0]; i++) {
        size_t n = sides[i];
        check_matrix(gram(n, n + 5, n < 40 ? 0.7 : 0.95), n, 1);
        check_matrix(gram(n, n / 3 + 1, 1), n, 1);
        check_matrix(clustered(n), n, 1);
        check_matrix(zeros(n), n, 1);
    }
    check_matrix(gram(101, 110, 0.97), 101, 2);
    check_matrix(gram(101, 110, 0.97), 101, 3);
}

/* ---- failures ---- */

static void ends_with(double *a, size_t n, matrix m, bg_status code, const char *text)
{
    bg_err err = { .file = "" };
    double *w = doubles(n);
    CHECK(decompose(&m, w, &err) == code && err.code == code && err.rank == 0);
    CHECK(strstr(err.msg, text) != NULL);
    free(w);
    clear(&m);
    check_matrix(a, n, 1); /* nothing is left behind that spoils the next one */
}

static void each_callback_fails(void)
{
    const size_t n = 90, row[] = { 0, 45, 89 };
    for (size_t i = 0; i < 3; i++) {
        double *a = gram(n, 100, 1);
        matrix m = block_of(a, n, 0, n);
        m.fail_lower = row[i];
        ends_with(a, n, m, BG_EIO, "cannot read row");
        a = gram(n, 100, 1);
        m = block_of(a, n, 0, n);
        m.fail_symmetric = row[i];
        ends_with(a, n, m, BG_EIO, "cannot write row");
        a = gram(n, 100, 1);
        m = block_of(a, n, 0, n);
        m.fail_vectors = row[i];
        ends_with(a, n, m, BG_EIO, "cannot write vectors");
    }
}

static void refuses_nan_and_infinity(void)
{
    const size_t n = 70, at[] = { 0, 69 * 70, 70 * 70 - 1 };
    const double bad[] = { (double)NAN, (double)INFINITY, -(double)INFINITY };
    for (size_t i = 0; i < 3; i++) {
        double *a = gram(n, 80, 1), *w = doubles(n);
        bg_err err = { .file = "" };
        a[at[i]] = bad[i];
        matrix m = block_of(a, n, 0, n);
        CHECK(decompose(&m, w, &err) == BG_ENUMERIC);
        CHECK(strstr(err.msg, "\"A\" has a NaN or an infinity") != NULL);
        clear(&m);
        free(w);
        free(a);
    }
}

static void grids(void)
{
    const size_t sides[] = { 100, 100, 100, 100, 100, 100, 100, 100, 3, 1, 2 };
    const size_t sizes[] = { 1, 2, 3, 4, 5, 6, 7, 64, 8, 4, 4 }, want[] = { 1, 2, 3, 4, 4, 6, 6, 64, 3, 1, 2 };
    bool shared = strstr(bg_eigen_library(), "ScaLAPACK") != NULL;
    for (size_t i = 0; i < sizeof sides / sizeof sides[0]; i++)
        CHECK(bg_eigen_ranks(sides[i], sizes[i]) == (shared ? want[i] : 1));
    size_t alone = bg_eigen_bytes(8192, 1), four = bg_eigen_bytes(16384, 4);
    CHECK(alone / 8 >= (size_t)3 * 8192 * 8192 && alone / 8 < (size_t)3 * 8192 * 8200);
    CHECK(!shared || (four / 8 > (size_t)16384 * 16384 && four / 8 < (size_t)16384 * 16384 / 10 * 11));
    CHECK(bg_eigen_shared(0, NULL, NULL, "A", MPI_COMM_WORLD, NULL) == BG_OK);
}

int main(int argc, char **argv)
{
    int all;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    bg_gemm_set_threads(1); /* ranks share the cores */
    grids();
    all_kinds();
    each_callback_fails();
    refuses_nan_and_infinity();
    MPI_Allreduce(&fails, &all, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
    MPI_Finalize();
    return all != 0;
}
