/* eigen_grid.h - a symmetric eigenproblem on a grid of ranks. */
#ifndef BG_EIGEN_GRID_H
#define BG_EIGEN_GRID_H

#include <math.h>
#include <mpi.h>
#include <stdbool.h>

#include "bregman/eigen_stream.h"

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

/* bg_eigen_ranks, bg_eigen_bytes and bg_eigen_shared where there are several ranks; bg_eigen_library. */
size_t bg_eigen_grid_ranks(size_t n, size_t size);
size_t bg_eigen_grid_bytes(size_t n, size_t size);
bg_status bg_eigen_grid_shared(size_t n, const bg_eigen_stream *stream, double *w, const char *what, MPI_Comm comm,
                               bg_err *err) BG_MUST_CHECK;
const char *bg_eigen_grid_library(void);

#endif /* BG_EIGEN_GRID_H */
