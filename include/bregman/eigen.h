/* eigen.h - symmetric eigenproblems (float64 inside; LAPACKE, ScaLAPACK where built in). */
#ifndef BG_EIGEN_H
#define BG_EIGEN_H

#include <mpi.h>
#include <stddef.h>
#include <stdint.h>

#include "bregman/cost.h"
#include "bregman/eigen_stream.h"

/* Largest side for LAPACK: dsyevd counts its workspace, 1 + 6 n + 2 n² numbers, in a 32-bit int. */
enum { BG_EIGEN_MAX_SIDE = 32764 };

/* Symmetric eigendecomposition A = Q diag(w) Qᵀ (math.md M7), by divide and conquer (dsyevd).
 *   a [in,out, n x n, row-major, full matrix]: on return Q, eigenvectors in columns.
 *   w [out, n]: eigenvalues, ascending, as computed (rounding may leave small negative ones).
 * Sign convention: each eigenvector's entry of largest magnitude (first of equals) is positive.
 * A is lost where dsyevd does not converge: bg_eigen_shared tries other drivers then, this does not.
 * `what` names the matrix.  Errors: BG_ENUMERIC (NaN/Inf in A, no convergence), BG_EARG (n > BG_EIGEN_MAX_SIDE),
 * BG_ENOMEM.
 * Called by the main thread; on one thread up to BG_PARALLEL_ENTRIES (threads.h).
 * Cost: about 9 n³ FLOPs; 2 n² doubles of workspace. */
bg_status bg_eigen(size_t n, double *a, double *w, const char *what, bg_err *err) BG_MUST_CHECK;

void bg_eigen_cost(bg_cost *cost, size_t n);

/* Ranks, of `size`, that bg_eigen_shared computes with on an n x n matrix: of the grids p x q with p <= q <= 3 p and
 * at most n ranks the largest, of equals the squarest.  1 in a build without ScaLAPACK. */
size_t bg_eigen_ranks(size_t n, size_t size);

/* Memory of bg_eigen_shared on rank 0 of `size` ranks, which has most, in bytes: 3 n² doubles where it computes
 * alone, else 4 n² / ranks, and three slabs of [n, 64]. */
size_t bg_eigen_bytes(size_t n, size_t size);

/* bg_eigen of a matrix that no rank holds whole (math.md M7).
 *
 * ScaLAPACK's pdsyevd (divide and conquer; Tisseur & Dongarra 1999) on a two-dimensional block-cyclic layout of
 * blocks of at most 64 x 64, filled from rank 0 a block column at a time; where it does not converge, pdsyev (QR
 * iteration).  Where bg_eigen_ranks is 1, rank 0 does as bg_eigen and the others wait; where dsyevd does not converge,
 * dsyevr (robust representations) is tried, then dsyev.
 *   stream [in]: used on rank 0; the other ranks pass any.
 *   w [out, n on every rank]: eigenvalues, ascending.  n and `what` must be the same on all ranks.
 * Signs as in bg_eigen.  On one rank the bytes are those of bg_eigen.  The same number of ranks (and BLAS kernel and
 * threads) gives the same bytes; between numbers of ranks eigenvalues agree within 1e-13 n |A| and so do
 * Q diag(w) Qᵀ and QᵀQ, while the vectors of equal or nearly equal eigenvalues may be any basis of their space.
 * Collective on comm; returns an agreed status.  Errors: those of the callbacks, BG_ENUMERIC (NaN/Inf in A, no
 * convergence), BG_ENOMEM, BG_EARG (too large for that few ranks: the libraries count in ints); after one, w and
 * what the callbacks were given are undefined.
 * Cost: about 9 n³ / ranks FLOPs; 2.5 n² doubles pass through rank 0. */
bg_status bg_eigen_shared(size_t n, const bg_eigen_stream *stream, double *w, const char *what, MPI_Comm comm,
                          bg_err *err) BG_MUST_CHECK;

/* What decomposes: "LAPACK and ScaLAPACK 2.2.1", or "LAPACK" in a build without ScaLAPACK; static storage. */
const char *bg_eigen_library(void);

#endif /* BG_EIGEN_H */
