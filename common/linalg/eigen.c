#include "bregman/eigen.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "blas_names.h"
#include "bregman/comm.h"
#include "bregman/gemm.h"
#include "bregman/memory.h"
#include "bregman/threads.h"
#include "eigen_grid.h"
#include "lapack_status.h"

/* Each vector (a row here) gets the sign that makes its largest entry positive. */
static void fix_signs(size_t n, double *vectors)
{
    for (size_t i = 0; i < n; i++) {
        double *v = vectors + i * n;
        size_t largest = 0;
        for (size_t j = 1; j < n; j++)
            if (fabs(v[j]) > fabs(v[largest]))
                largest = j;
        if (v[largest] < 0)
            for (size_t j = 0; j < n; j++)
                v[j] = -v[j];
    }
}

/* In place, by tiles that fit the first cache. */
static void transpose(size_t n, double *a)
{
    enum { TILE = 32 };
    for (size_t i0 = 0; i0 < n; i0 += TILE)
        for (size_t j0 = 0; j0 <= i0; j0 += TILE)
            for (size_t i = i0; i < n && i < i0 + TILE; i++)
                for (size_t j = j0; j < i && j < j0 + TILE; j++) {
                    double t = a[i * n + j];
                    a[i * n + j] = a[j * n + i];
                    a[j * n + i] = t;
                }
}

static bg_status check_side(size_t n, const char *what, bg_err *err)
{
    if (n > BG_EIGEN_MAX_SIDE)
        return BG_FAIL(err, BG_EARG, "\"%s\" is %zu x %zu: LAPACK takes at most %d; use more ranks or blocks", what, n,
                       n, BG_EIGEN_MAX_SIDE);
    return BG_OK;
}

/* ---- LAPACK's drivers: a symmetric matrix is its own transpose, so column-major costs no copy, and leaves the
 * vectors in rows ---- */

static lapack_int divide_and_conquer(size_t n, double *a, double *w)
{
    return BG_BLAS(LAPACKE_dsyevd)(LAPACK_COL_MAJOR, 'V', 'L', (lapack_int)n, a, (lapack_int)n, w);
}

static lapack_int robust_representations(size_t n, double *a, double *w)
{
    lapack_int found = 0, info = LAPACK_WORK_MEMORY_ERROR, side = (lapack_int)n;
    lapack_int *support = malloc(2 * n * sizeof *support);
    double *z = malloc(n * n * sizeof *z);
    if (z != NULL && support != NULL)
        info = BG_BLAS(LAPACKE_dsyevr)(LAPACK_COL_MAJOR, 'V', 'A', 'L', side, a, side, 0, 0, 0, 0, 0, &found, w, z,
                                       side, support);
    if (info == 0)
        memcpy(a, z, n * n * sizeof *z);
    free(support);
    free(z);
    return info == 0 && found != side ? 1 : info;
}

static lapack_int qr_iteration(size_t n, double *a, double *w)
{
    return BG_BLAS(LAPACKE_dsyev)(LAPACK_COL_MAJOR, 'V', 'L', (lapack_int)n, a, (lapack_int)n, w);
}

/* The fastest first.  What one does not converge on, another mostly does. */
static const struct {
    const char *name;
    lapack_int (*run)(size_t n, double *a, double *w);
} driver[] = {
    { "dsyevd", divide_and_conquer },
    { "dsyevr", robust_representations },
    { "dsyev", qr_iteration },
};
enum { N_DRIVERS = sizeof driver / sizeof driver[0] };

/* BG_ENUMERIC: another driver may do better. */
static bg_status run_driver(size_t i, size_t n, double *a, double *w, const char *what, bg_err *err)
{
    bool alone = n * n <= BG_PARALLEL_ENTRIES;
    if (alone)
        bg_gemm_serial_begin();
    lapack_int info = driver[i].run(n, a, w);
    if (alone)
        bg_gemm_serial_end();
    if (info != 0)
        return bg_lapack_fail(info, driver[i].name, what, err);
    if (!bg_all_finite(n, w) || !bg_all_finite(n * n, a))
        return BG_FAIL(err, BG_ENUMERIC, "\"%s\": %s gives eigenvectors or eigenvalues that are not finite", what,
                       driver[i].name);
    fix_signs(n, a);
    transpose(n, a);
    return BG_OK;
}

bg_status bg_eigen(size_t n, double *a, double *w, const char *what, bg_err *err)
{
    if (n == 0)
        return BG_OK;
    bg_status st = check_side(n, what, err);
    if (st != BG_OK)
        return st;
    if (!bg_all_finite(n * n, a))
        return BG_FAIL(err, BG_ENUMERIC, "\"%s\" has a NaN or an infinity", what);
    return run_driver(0, n, a, w, what, err);
}

/* ---- the same from and to streams ---- */

/* ---- one rank ---- */

static bg_status fill_whole(const bg_eigen_stream *stream, size_t n, double *a, const char *what, bg_err *err)
{
    double *slab = NULL;
    bg_status st = BG_NEW(slab, n * bg_smaller(n, BG_EIGEN_SLAB), what, err);
    for (size_t c = 0; c < n && st == BG_OK; c += BG_EIGEN_SLAB) {
        size_t w = bg_smaller(n - c, BG_EIGEN_SLAB);
        st = bg_eigen_read_lower(stream, n, c, w, slab, what, err);
        for (size_t i = c; i < n && st == BG_OK; i++)
            for (size_t j = c; j < c + w && j <= i; j++)
                a[i * n + j] = a[j * n + i] = slab[(i - c) * w + j - c];
    }
    bg_free(slab); /* before the workspace is taken */
    return st;
}

static bg_status give_whole(bg_eigen_take_rows *take, void *self, size_t n, const double *a, bg_err *err)
{
    bg_status st = BG_OK;
    for (size_t r = 0; r < n && st == BG_OK; r += BG_EIGEN_SLAB)
        st = take(self, r, bg_smaller(n - r, BG_EIGEN_SLAB), a + r * n, err);
    return st;
}

/* A driver that fails leaves nothing of the matrix: it is read again. */
static bg_status run_drivers(const bg_eigen_stream *stream, size_t n, double *a, double *w, const char *what,
                             bg_err *err)
{
    bg_status st = run_driver(0, n, a, w, what, err);
    for (size_t i = 1; i < N_DRIVERS && st == BG_ENUMERIC; i++) {
        if (stream->fell_back != NULL)
            stream->fell_back(stream->self, driver[i - 1].name, driver[i].name);
        st = fill_whole(stream, n, a, what, err);
        if (st != BG_OK)
            return st;
        st = run_driver(i, n, a, w, what, err);
    }
    return st;
}

static bg_status decompose_whole(size_t n, const bg_eigen_stream *stream, double *w, const char *what, bg_err *err)
{
    double *a = NULL;
    bg_status st = check_side(n, what, err);
    if (st == BG_OK)
        st = BG_NEW(a, n * n, what, err);
    if (st == BG_OK)
        st = fill_whole(stream, n, a, what, err);
    if (st == BG_OK && stream->symmetric != NULL)
        st = give_whole(stream->symmetric, stream->self, n, a, err);
    if (st == BG_OK)
        st = run_drivers(stream, n, a, w, what, err);
    if (st == BG_OK)
        st = give_whole(stream->vectors, stream->self, n, a, err);
    bg_free(a);
    return st;
}

static bg_status decompose_on_rank_0(size_t n, const bg_eigen_stream *stream, double *w, const char *what,
                                     MPI_Comm comm, bg_err *err)
{
    int rank;
    MPI_Comm_rank(comm, &rank);
    bg_status st = rank == 0 ? decompose_whole(n, stream, w, what, err) : BG_OK;
    st = bg_agree(comm, st, err);
    if (st == BG_OK)
        bg_broadcast(comm, w, n * sizeof *w, 0);
    return st;
}

size_t bg_eigen_ranks(size_t n, size_t size) { return bg_eigen_grid_ranks(n, size); }
size_t bg_eigen_bytes(size_t n, size_t size) { return bg_eigen_grid_bytes(n, size); }
const char *bg_eigen_library(void) { return bg_eigen_grid_library(); }

bg_status bg_eigen_shared(size_t n, const bg_eigen_stream *stream, double *w, const char *what, MPI_Comm comm,
                          bg_err *err)
{
    int size;
    MPI_Comm_size(comm, &size);
    if (n == 0)
        return BG_OK;
    return bg_eigen_ranks(n, (size_t)size) == 1 ? decompose_on_rank_0(n, stream, w, what, comm, err)
                                                : bg_eigen_grid_shared(n, stream, w, what, comm, err);
}

void bg_eigen_cost(bg_cost *cost, size_t n)
{
    cost->of[BG_COST_EIGEN_CUBE] += (double)n * (double)n * (double)n;
    cost->of[BG_COST_EIGEN_SQUARE] += (double)n * (double)n;
}
