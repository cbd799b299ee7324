#include "bregman/eigen.h"

#include <math.h>
#include <stdbool.h>

#include "blas_names.h"
#include "bregman/comm.h"
#include "bregman/gemm.h"
#include "bregman/memory.h"
#include "bregman/threads.h"
#include "eigen_grid.h"
#include "lapack_status.h"

static bool all_finite(size_t n, const double *x)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

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
        return BG_FAIL(err, BG_EARG, "\"%s\" is %zu x %zu: LAPACK takes at most %d; use more ranks or blocks", what, n, n,
                       BG_EIGEN_MAX_SIDE);
    return BG_OK;
}

bg_status bg_eigen(size_t n, double *a, double *w, const char *what, bg_err *err)
{
    if (n == 0)
        return BG_OK;
    bg_status st = check_side(n, what, err);
    if (st != BG_OK)
        return st;
    if (!all_finite(n * n, a))
        return BG_FAIL(err, BG_ENUMERIC, "\"%s\" has a NaN or an infinity", what);
    bool alone = n * n <= BG_PARALLEL_ENTRIES;
    if (alone)
        bg_gemm_serial_begin();
    /* a symmetric matrix is its own transpose: column-major costs no copy, and leaves the vectors in rows */
    lapack_int info = BG_BLAS(LAPACKE_dsyevd)(LAPACK_COL_MAJOR, 'V', 'L', (lapack_int)n, a, (lapack_int)n, w);
    if (alone)
        bg_gemm_serial_end();
    if (info != 0)
        return bg_lapack_fail(info, "dsyevd", what, err);
    if (!all_finite(n, w))
        return BG_FAIL(err, BG_ENUMERIC, "eigenvalues of \"%s\" are not finite", what);
    fix_signs(n, a);
    transpose(n, a);
    return BG_OK;
}

/* ---- the same from and to streams ---- */

/* Of columns [c, c + w) of a lower triangle, as bg_eigen_stream gives them. */
static bool lower_is_finite(size_t rows, size_t w, const double *x)
{
    for (size_t i = 0; i < rows; i++)
        for (size_t k = 0; k < w && k <= i; k++)
            if (!isfinite(x[i * w + k]))
                return false;
    return true;
}

bg_status bg_eigen_read_lower(const bg_eigen_stream *stream, size_t n, size_t first, size_t count, double *out,
                              const char *what, bg_err *err)
{
    bg_status st = stream->lower(stream->self, first, count, out, err);
    if (st == BG_OK && !lower_is_finite(n - first, count, out))
        st = BG_FAIL(err, BG_ENUMERIC, "\"%s\" has a NaN or an infinity", what);
    return st;
}

/* ---- one rank ---- */

static bg_status fill_whole(const bg_eigen_stream *stream, size_t n, double *slab, double *a, const char *what,
                            bg_err *err)
{
    bg_status st = BG_OK;
    for (size_t c = 0; c < n && st == BG_OK; c += BG_EIGEN_SLAB) {
        size_t w = bg_smaller(n - c, BG_EIGEN_SLAB);
        st = bg_eigen_read_lower(stream, n, c, w, slab, what, err);
        for (size_t i = c; i < n && st == BG_OK; i++)
            for (size_t j = c; j < c + w && j <= i; j++)
                a[i * n + j] = a[j * n + i] = slab[(i - c) * w + j - c];
    }
    return st;
}

static bg_status give_whole(bg_eigen_take_rows *take, void *self, size_t n, const double *a, bg_err *err)
{
    bg_status st = BG_OK;
    for (size_t r = 0; r < n && st == BG_OK; r += BG_EIGEN_SLAB)
        st = take(self, r, bg_smaller(n - r, BG_EIGEN_SLAB), a + r * n, err);
    return st;
}

static bg_status decompose_whole(size_t n, const bg_eigen_stream *stream, double *w, const char *what, bg_err *err)
{
    double *a = NULL, *slab = NULL;
    bg_status st = check_side(n, what, err);
    if (st == BG_OK)
        st = BG_NEW(a, n * n, what, err);
    if (st == BG_OK)
        st = BG_NEW(slab, n * bg_smaller(n, BG_EIGEN_SLAB), what, err);
    if (st == BG_OK)
        st = fill_whole(stream, n, slab, a, what, err);
    bg_free(slab);    /* before the workspace is taken */
    if (st == BG_OK && stream->symmetric != NULL)
        st = give_whole(stream->symmetric, stream->self, n, a, err);
    if (st == BG_OK)
        st = bg_eigen(n, a, w, what, err);
    if (st == BG_OK)
        st = give_whole(stream->vectors, stream->self, n, a, err);
    bg_free(a);
    return st;
}

static bg_status decompose_on_rank_0(size_t n, const bg_eigen_stream *stream, double *w, const char *what, MPI_Comm comm,
                                     bg_err *err)
{
    int rank;
    MPI_Comm_rank(comm, &rank);
    bg_status st = rank == 0 ? decompose_whole(n, stream, w, what, err) : BG_OK;
    st = bg_agree(comm, st, err);
    if (st == BG_OK)
        bg_broadcast(comm, w, n * sizeof *w, 0);
    return st;
}

bg_status bg_eigen_shared(size_t n, const bg_eigen_stream *stream, double *w, const char *what, MPI_Comm comm,
                          bg_err *err)
{
    int size;
    MPI_Comm_size(comm, &size);
    if (n == 0)
        return BG_OK;
    return bg_eigen_ranks(n, (size_t)size) == 1 ? decompose_on_rank_0(n, stream, w, what, comm, err)
                                                : bg_eigen_on_grid(n, stream, w, what, comm, err);
}
