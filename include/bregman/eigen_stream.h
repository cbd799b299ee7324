/* eigen_stream.h - where a matrix to be decomposed comes from, and where its eigenvectors go. */
#ifndef BG_EIGEN_STREAM_H
#define BG_EIGEN_STREAM_H

#include <stddef.h>

#include "bregman/status.h"

/* Most rows or columns that a callback of bg_eigen_stream is asked for or given at once. */
enum { BG_EIGEN_SLAB = 256 };

/* Where bg_eigen_shared (eigen.h) takes a matrix A [n, n] from and where it puts it and its eigenvectors Q.  All are
 * local, are called on rank 0 of the communicator only, and run through A or Q from 0 to n in order, each before the
 * next one starts; an error of theirs ends the decomposition. */
typedef struct {
    void *self;
    /* Columns [first, first + count) of A from row `first` down: out [n - first, count] row-major.  Its entries
     * above A's diagonal are not read.  Run through from 0 again for each further driver that is tried. */
    bg_status (*lower)(void *self, size_t first, size_t count, double *out, bg_err *err);
    /* Rows [first, first + count) of the whole of A, rows [count, n] lent, row-major: the matrix as it is decomposed.
     * May be NULL. */
    bg_status (*symmetric)(void *self, size_t first, size_t count, const double *rows, bg_err *err);
    /* Rows [first, first + count) of Q, rows [count, n] lent, row-major. */
    bg_status (*vectors)(void *self, size_t first, size_t count, const double *rows, bg_err *err);
    /* LAPACK's or ScaLAPACK's driver `failed` ("dsyevd") did not converge, and `next` is tried.  May be NULL. */
    void (*fell_back)(void *self, const char *failed, const char *next);
} bg_eigen_stream;

/* stream->lower of an n x n matrix called `what`, and BG_ENUMERIC where it gave a NaN or an infinity on or below the
 * diagonal. */
bg_status bg_eigen_read_lower(const bg_eigen_stream *stream, size_t n, size_t first, size_t count, double *out,
                              const char *what, bg_err *err) BG_MUST_CHECK;

#endif /* BG_EIGEN_STREAM_H */
