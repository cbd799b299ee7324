/* eigen_grid.h - the two sides of bg_eigen_shared: the matrix on one rank (eigen.c) and on a grid (eigen_grid.c). */
#ifndef BG_EIGEN_GRID_H
#define BG_EIGEN_GRID_H

#include <math.h>
#include <stdbool.h>

#include "bregman/eigen.h"

/* Largest side of the blocks of the grid's layout. */
enum { BG_EIGEN_GRID_BLOCK = 64 };

static inline size_t bg_smaller(size_t a, size_t b) { return a < b ? a : b; }

static inline bool bg_all_finite(size_t n, const double *x)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

/* dsyevd's matrix and workspace. */
static inline size_t bg_eigen_whole_bytes(size_t n)
{
    return (size_t)((3 * (double)n + 10) * (double)n * sizeof(double));
}

/* A callback of bg_eigen_stream that takes rows. */
typedef bg_status bg_eigen_take_rows(void *self, size_t first, size_t count, const double *rows, bg_err *err);

/* stream->lower, and BG_ENUMERIC where it gave a NaN or an infinity on or below the diagonal. */
bg_status bg_eigen_read_lower(const bg_eigen_stream *stream, size_t n, size_t first, size_t count, double *out,
                              const char *what, bg_err *err) BG_MUST_CHECK;

/* bg_eigen_shared where bg_eigen_ranks is above 1. */
bg_status bg_eigen_on_grid(size_t n, const bg_eigen_stream *stream, double *w, const char *what, MPI_Comm comm,
                           bg_err *err) BG_MUST_CHECK;

#endif /* BG_EIGEN_GRID_H */
