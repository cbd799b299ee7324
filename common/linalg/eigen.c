#include "bregman/eigen.h"

#include <math.h>
#include <stdbool.h>

#include "blas_names.h"
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

bg_status bg_eigen(size_t n, double *a, double *w, const char *what, bg_err *err)
{
    /* dsyevd's workspace, 1 + 6 n + 2 n² numbers, is counted in a 32-bit int */
    const size_t max_n = 32764;
    if (n == 0)
        return BG_OK;
    if (n > max_n)
        return BG_FAIL(err, BG_EARG, "\"%s\" is %zu x %zu: LAPACK takes at most %zu; use more blocks", what, n, n, max_n);
    if (!all_finite(n * n, a))
        return BG_FAIL(err, BG_ENUMERIC, "\"%s\" has a NaN or an infinity", what);
    /* a symmetric matrix is its own transpose: column-major costs no copy, and leaves the vectors in rows */
    lapack_int info = BG_BLAS(LAPACKE_dsyevd)(LAPACK_COL_MAJOR, 'V', 'L', (lapack_int)n, a, (lapack_int)n, w);
    if (info != 0)
        return bg_lapack_fail(info, "dsyevd", what, err);
    if (!all_finite(n, w))
        return BG_FAIL(err, BG_ENUMERIC, "eigenvalues of \"%s\" are not finite", what);
    fix_signs(n, a);
    transpose(n, a);
    return BG_OK;
}
