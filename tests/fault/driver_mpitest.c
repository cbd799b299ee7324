/* Drivers of LAPACK and ScaLAPACK that do not converge, or give NaN: the next one is taken, on one rank and on
 * several.  This program's own dsyevd, dsyevr, pdsyevd and dgesdd are the ones that are called. */
#include <math.h>
#include <mpi.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../common/linalg/blas_names.h"
#include "bregman/eigen.h"
#include "bregman/gemm.h"
#include "bregman/low_rank.h"
#include "bregman/rng.h"

enum { N = 50 };
typedef enum { FAILS, GIVES_NAN } fault;

static int fails, rank;
static fault first; /* what dsyevd and pdsyevd do */
static bool dsyevr_works;
static char fallbacks[200];
#define CHECK(c)                                                           \
    do {                                                                   \
        if (!(c)) {                                                        \
            fails++;                                                       \
            fprintf(stderr, "%s:%d: CHECK(%s)\n", __FILE__, __LINE__, #c); \
        }                                                                  \
    } while (0)

/* ---- drivers: all destroy the matrix, as theirs do ---- */

lapack_int BG_BLAS(LAPACKE_dsyevd)(int layout, char job, char uplo, lapack_int n, double *a, lapack_int lda, double *w)
{
    (void)layout, (void)job, (void)uplo;
    for (lapack_int i = 0; i < n * lda; i++)
        a[i] = (double)NAN;
    for (lapack_int i = 0; i < n; i++)
        w[i] = 1;
    return first == FAILS ? 7 : 0;
}

lapack_int BG_BLAS(LAPACKE_dsyevr)(int layout, char job, char range, char uplo, lapack_int n, double *a, lapack_int lda,
                                   double vl, double vu, lapack_int il, lapack_int iu, double tolerance, lapack_int *m,
                                   double *w, double *z, lapack_int ldz, lapack_int *support)
{
    double work[50 * N];
    lapack_int integers[20 * N];
    if (dsyevr_works)
        return BG_BLAS(LAPACKE_dsyevr_work)(layout, job, range, uplo, n, a, lda, vl, vu, il, iu, tolerance, m, w, z,
                                            ldz, support, work, 50 * N, integers, 20 * N);
    memset(a, 0, (size_t)(n * lda) * sizeof *a);
    return 1;
}

lapack_int BG_BLAS(LAPACKE_dgesdd)(int layout, char job, lapack_int m, lapack_int n, double *a, lapack_int lda,
                                   double *s, double *u, lapack_int ldu, double *vt, lapack_int ldvt)
{
    (void)layout, (void)job, (void)m, (void)s, (void)u, (void)ldu, (void)vt, (void)ldvt;
    memset(a, 0, (size_t)(n * lda) * sizeof *a);
    return 3;
}

/* On each process of the grid; desc: its leading dimension is the last entry. */
void pdsyevd_(const char *jobz, const char *uplo, const int *n, double *a, const int *ia, const int *ja,
              const int *desc_a, double *w, double *z, const int *iz, const int *jz, const int *desc_z, double *work,
              const int *lwork, int *iwork, const int *liwork, int *info, size_t jobz_length, size_t uplo_length);
void pdsyevd_(const char *jobz, const char *uplo, const int *n, double *a, const int *ia, const int *ja,
              const int *desc_a, double *w, double *z, const int *iz, const int *jz, const int *desc_z, double *work,
              const int *lwork, int *iwork, const int *liwork, int *info, size_t jobz_length, size_t uplo_length)
{
    (void)jobz, (void)uplo, (void)ia, (void)ja, (void)iz, (void)jz, (void)desc_z, (void)work, (void)lwork, (void)iwork;
    (void)liwork, (void)jobz_length, (void)uplo_length;
    for (int i = 0; i < desc_a[8]; i++)
        a[i] = z[i] = (double)NAN;
    for (int i = 0; i < *n; i++)
        w[i] = 1;
    *info = first == FAILS ? 7 : 0;
}

/* ---- the matrix ---- */

typedef struct {
    double a[N * N], q[N * N];
} matrix;

static bg_status lower(void *self, size_t begin, size_t count, double *out, bg_err *err)
{
    const matrix *m = self;
    (void)err;
    for (size_t i = begin; i < N; i++)
        for (size_t j = begin; j < begin + count; j++)
            out[(i - begin) * count + j - begin] = m->a[i * N + j];
    return BG_OK;
}

static bg_status vectors(void *self, size_t begin, size_t count, const double *rows, bg_err *err)
{
    matrix *m = self;
    (void)err;
    memcpy(m->q + begin * N, rows, count * N * sizeof *rows);
    return BG_OK;
}

static void fell_back(void *self, const char *failed, const char *next)
{
    size_t n = strlen(fallbacks);
    (void)self;
    snprintf(fallbacks + n, sizeof fallbacks - n, "%s %s ", failed, next);
}

static void check_vectors(const matrix *m, const double *w)
{
    double bound = 1e-13 * N * w[N - 1];
    for (size_t j = 0; j < N; j++) {
        CHECK(j == 0 || w[j] >= w[j - 1]);
        for (size_t i = 0; i < N; i++) {
            double aq = 0, qq = 0;
            for (size_t l = 0; l < N; l++) {
                aq += m->a[i * N + l] * m->q[l * N + j];
                qq += m->q[l * N + i] * m->q[l * N + j];
            }
            CHECK(fabs(aq - w[j] * m->q[i * N + j]) <= bound && fabs(qq - (i == j)) <= 1e-13 * N);
        }
    }
}

static double product(const float *x, const float *y)
{
    double sum = 0;
    for (size_t l = 0; l < N; l++)
        sum += (double)x[l] * (double)y[l];
    return sum;
}

static void falls_back(MPI_Comm comm, const char *path)
{
    static matrix m;
    static float x[N * N];
    double w[N];
    int size, my_rank;
    bg_err err = { .file = "" };
    bg_eigen_stream stream = { &m, lower, NULL, vectors, fell_back };
    MPI_Comm_size(comm, &size);
    MPI_Comm_rank(comm, &my_rank);
    bg_normal_fill(1, 2, (size_t)N * N, x);
    for (size_t i = 0; i < N; i++)
        for (size_t j = 0; j < N; j++)
            m.a[i * N + j] = product(x + i * N, x + j * N);
    fallbacks[0] = '\0';
    CHECK(bg_eigen_shared(N, &stream, w, "A", comm, &err) == BG_OK);
    if (my_rank != 0)
        return;
    CHECK(strcmp(fallbacks, path) == 0);
    check_vectors(&m, w);
}

static void takes_another_svd(void)
{
    static float x[20 * 10], u[20 * 3], v[10 * 3];
    bg_err err = { .file = "" };
    for (size_t i = 0; i < 20; i++)
        x[i * 10 + 4] = (float)i;
    CHECK(bg_low_rank(&(bg_low_rank_problem){ 20, 10, 3, x, 1, 1 }, u, v, &err) == BG_OK);
    for (size_t i = 0; i < 20; i++)
        CHECK(fabs((double)u[i * 3] * (double)v[4 * 3] - (double)i) <= 1e-5 && fabs((double)u[i * 3 + 1]) <= 1e-5);
}

int main(int argc, char **argv)
{
    int all;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    bg_gemm_set_threads(1);
    int size;
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    bool grid = bg_eigen_ranks(N, (size_t)size) > 1;
    for (int i = 0; i < 4; i++) {
        first = i % 2 == 0 ? FAILS : GIVES_NAN;
        dsyevr_works = i / 2 == 0;
        const char *serial = dsyevr_works ? "dsyevd dsyevr " : "dsyevd dsyevr dsyevr dsyev ";
        falls_back(MPI_COMM_SELF, serial);
        falls_back(MPI_COMM_WORLD, grid ? "pdsyevd pdsyev " : serial);
    }
    takes_another_svd();
    MPI_Allreduce(&fails, &all, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
    MPI_Finalize();
    return all != 0;
}
