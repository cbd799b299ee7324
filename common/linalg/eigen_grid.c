/* eigen_grid.c - one symmetric eigenproblem over the ranks of a communicator, by ScaLAPACK.
 *
 * ScaLAPACK's layout: the processes form a grid; the matrix is cut into nb x nb blocks, and block (i, j) lies on
 * process (i mod grid rows, j mod grid columns), each process's part column-major.  A slab is one block column of the
 * matrix (of a symmetric one also a block row), and passes through rank 0.
 */
#include "eigen_grid.h"

#ifndef BG_SCALAPACK

const char *bg_eigen_grid_library(void) { return "LAPACK"; }

size_t bg_eigen_grid_ranks(size_t n, size_t size)
{
    (void)n;
    (void)size;
    return 1;
}

size_t bg_eigen_grid_bytes(size_t n, size_t size)
{
    (void)size;
    return bg_eigen_whole_bytes(n);
}

/* Never called: bg_eigen_grid_ranks is 1. */
bg_status bg_eigen_grid_shared(size_t n, const bg_eigen_stream *stream, double *w, const char *what, MPI_Comm comm,
                               bg_err *err)
{
    (void)n;
    (void)stream;
    (void)w;
    (void)comm;
    return BG_FAIL(err, BG_EARG, "\"%s\": this build has no ScaLAPACK", what);
}

#else

#include <assert.h>
#include <limits.h>
#include <math.h>
#include <stdbool.h>

#include "bregman/comm.h"
#include "bregman/gemm.h"
#include "bregman/memory.h"
#include "bregman/threads.h"

/* BLACS and ScaLAPACK install no headers.  A Fortran compiler passes the length of each character argument after
 * the last one. */
int Csys2blacs_handle(MPI_Comm comm);
void Cfree_blacs_system_handle(int handle);
void Cblacs_gridinit(int *context, const char *order, int rows, int columns);
void Cblacs_gridinfo(int context, int *rows, int *columns, int *row, int *column);
void Cblacs_gridexit(int context);
void Cblacs_set(int context, int what, int *value);
void descinit_(int *desc, const int *m, const int *n, const int *mb, const int *nb, const int *first_row,
               const int *first_column, const int *context, const int *lld, int *info);
void pdtran_(const int *m, const int *n, const double *alpha, const double *a, const int *ia, const int *ja,
             const int *desc_a, const double *beta, double *c, const int *ic, const int *jc, const int *desc_c);
void pdsyevd_(const char *jobz, const char *uplo, const int *n, double *a, const int *ia, const int *ja,
              const int *desc_a, double *w, double *z, const int *iz, const int *jz, const int *desc_z, double *work,
              const int *lwork, int *iwork, const int *liwork, int *info, size_t jobz_length, size_t uplo_length);

void pdsyev_(const char *jobz, const char *uplo, const int *n, double *a, const int *ia, const int *ja,
             const int *desc_a, double *w, double *z, const int *iz, const int *jz, const int *desc_z, double *work,
             const int *lwork, int *info, size_t jobz_length, size_t uplo_length);

/* Reductions in a fixed order, and with the same result on all processes (BLACS's SGET_TOPSREPEAT and ..COHRNT). */
enum { REPEATABLE = 15, COHERENT = 16 };

const char *bg_eigen_grid_library(void) { return "LAPACK and " BG_SCALAPACK; }

typedef struct {
    size_t rows, columns;
} grid_shape;

static grid_shape choose_shape(size_t n, size_t size)
{
    grid_shape best = { 1, 1 };
    size = bg_smaller(size, n);
    for (size_t p = 1; p * p <= size; p++) {
        size_t q = bg_smaller(size / p, 3 * p);
        if (p * q >= best.rows * best.columns) /* of equals the squarest, which comes last */
            best = (grid_shape){ p, q };
    }
    return best;
}

size_t bg_eigen_grid_ranks(size_t n, size_t size)
{
    grid_shape g = choose_shape(n, size);
    return g.rows * g.columns;
}

/* Small matrices: two blocks a process where there are as many rows, so that no process is without work. */
static size_t choose_block(size_t n, grid_shape shape)
{
    size_t nb = bg_smaller(BG_EIGEN_GRID_BLOCK, n / (2 * shape.columns));
    return nb > 0 ? nb : 1;
}

size_t bg_eigen_grid_bytes(size_t n, size_t size)
{
    grid_shape g = choose_shape(n, size);
    size_t ranks = g.rows * g.columns;
    double rows = 4 * (double)n / (double)ranks + 3 * (double)choose_block(n, g);
    return ranks == 1 ? bg_eigen_whole_bytes(n) : (size_t)(rows * (double)n * sizeof(double));
}

typedef struct {
    MPI_Comm comm;
    int rank, size;
    int handle, context, desc[9];
    size_t n, nb;
    grid_shape shape;
    size_t row, column; /* this process's place; meaningless outside the grid */
    bool inside;
    size_t n_rows, n_columns;  /* of this process's part; 0 outside the grid */
    double *a, *z;             /* [n_columns][n_rows]: the matrix, and then its vectors */
    double *slab, *wire;       /* rank 0 [n, nb] */
    double *piece;             /* this process's part of a slab */
    int *count, *displacement; /* [size] of a slab's parts */
} process_grid;

/* How many of indices [0, end) lie on process p of np; also the first local index that is not below `end`. */
static size_t local_count(const process_grid *g, size_t end, size_t p, size_t np)
{
    size_t blocks = end / g->nb, rest = blocks % np;
    return blocks / np * g->nb + (p < rest ? g->nb : p == rest ? end % g->nb : 0);
}

static size_t global_index(const process_grid *g, size_t local, size_t p, size_t np)
{
    return (local / g->nb * np + p) * g->nb + local % g->nb;
}

static size_t row_count(const process_grid *g, size_t end, size_t p) { return local_count(g, end, p, g->shape.rows); }
static size_t column_count(const process_grid *g, size_t end, size_t q)
{
    return local_count(g, end, q, g->shape.columns);
}
static size_t global_row(const process_grid *g, size_t l, size_t p) { return global_index(g, l, p, g->shape.rows); }
static size_t global_column(const process_grid *g, size_t l, size_t q)
{
    return global_index(g, l, q, g->shape.columns);
}

static bg_status open_memory(process_grid *g, const char *what, bg_err *err)
{
    size_t longest = g->n_rows > g->n_columns ? g->n_rows : g->n_columns;
    bg_status st = BG_NEW(g->count, (size_t)g->size, what, err);
    if (st == BG_OK)
        st = BG_NEW(g->displacement, (size_t)g->size, what, err);
    if (st == BG_OK)
        st = BG_NEW(g->a, g->n_rows * g->n_columns, what, err);
    if (st == BG_OK)
        st = BG_NEW(g->z, g->n_rows * g->n_columns, what, err);
    if (st == BG_OK)
        st = BG_NEW(g->piece, longest * g->nb, what, err);
    if (st == BG_OK && g->rank == 0)
        st = BG_NEW(g->slab, g->n * g->nb, what, err);
    if (st == BG_OK && g->rank == 0)
        st = BG_NEW(g->wire, g->n * g->nb, what, err);
    return st;
}

/* The processes' places; collective.  Its context is left with close_grid. */
static void place_ranks(process_grid *g)
{
    int rows, columns, row, column, yes = 1;
    MPI_Comm_rank(g->comm, &g->rank);
    MPI_Comm_size(g->comm, &g->size);
    g->shape = choose_shape(g->n, (size_t)g->size);
    g->nb = choose_block(g->n, g->shape);
    g->context = g->handle = Csys2blacs_handle(g->comm);
    Cblacs_gridinit(&g->context, "R", (int)g->shape.rows, (int)g->shape.columns);
    g->inside = g->rank < (int)(g->shape.rows * g->shape.columns);
    if (!g->inside)
        return;
    Cblacs_set(g->context, REPEATABLE, &yes);
    Cblacs_set(g->context, COHERENT, &yes);
    Cblacs_gridinfo(g->context, &rows, &columns, &row, &column);
    g->row = (size_t)row;
    g->column = (size_t)column;
    g->n_rows = row_count(g, g->n, g->row);
    g->n_columns = column_count(g, g->n, g->column);
}

static void describe(process_grid *g)
{
    const int n = (int)g->n, nb = (int)g->nb, zero = 0, lld = g->n_rows > 0 ? (int)g->n_rows : 1;
    int info;
    descinit_(g->desc, &n, &n, &nb, &nb, &zero, &zero, &g->context, &lld, &info);
    assert(info == 0);
}

static void close_grid(process_grid *g)
{
    if (g->inside)
        Cblacs_gridexit(g->context);
    Cfree_blacs_system_handle(g->handle);
    bg_free(g->count);
    bg_free(g->displacement);
    bg_free(g->a);
    bg_free(g->z);
    bg_free(g->slab);
    bg_free(g->wire);
    bg_free(g->piece);
}

/* ---- slabs between rank 0 and the grid ---- */

/* A slab's parts: what each process of a grid column (of a row with across) has of rows (columns) [from, n) of w
 * columns (rows).  Fills count and displacement; returns this process's number of elements. */
static int share_slab(process_grid *g, bool across, size_t at, size_t from, size_t w)
{
    size_t owner = at / g->nb % (across ? g->shape.rows : g->shape.columns);
    int next = 0;
    for (int r = 0; r < g->size; r++) {
        size_t p = (size_t)r / g->shape.columns, q = (size_t)r % g->shape.columns, n = 0;
        if (p < g->shape.rows && !across && q == owner)
            n = row_count(g, g->n, p) - row_count(g, from, p);
        if (p < g->shape.rows && across && p == owner)
            n = column_count(g, g->n, q);
        g->count[r] = (int)(n * w);
        g->displacement[r] = next;
        next += g->count[r];
    }
    return g->count[g->rank];
}

/* Columns [c, c + w) from the diagonal down, out of slab [n - c, w]. */
static void scatter_lower(process_grid *g, size_t c, size_t w)
{
    int mine = share_slab(g, false, c, c, w);
    double *to = g->wire;
    for (size_t p = 0; p < g->shape.rows && g->rank == 0; p++) {
        size_t begin = row_count(g, c, p), end = row_count(g, g->n, p);
        for (size_t k = 0; k < w; k++)
            for (size_t l = begin; l < end; l++)
                *to++ = g->slab[(global_row(g, l, p) - c) * w + k];
    }
    MPI_Scatterv(g->wire, g->count, g->displacement, MPI_DOUBLE, g->piece, mine, MPI_DOUBLE, 0, g->comm);
    if (mine == 0)
        return;
    size_t first = row_count(g, c, g->row), column = column_count(g, c, g->column), at = 0;
    for (size_t k = 0; k < w; k++)
        for (size_t l = first; l < g->n_rows; l++)
            g->a[(column + k) * g->n_rows + l] = g->piece[at++];
}

/* Rows [c, c + w) of the whole matrix, which are its columns: below the diagonal in a, above it in z = aᵀ. */
static void gather_symmetric(process_grid *g, size_t c, size_t w)
{
    int mine = share_slab(g, false, c, 0, w);
    size_t column = column_count(g, c, g->column), at = 0;
    for (size_t k = 0; k < w && mine > 0; k++)
        for (size_t l = 0; l < g->n_rows; l++) {
            const double *from = global_row(g, l, g->row) < c + k ? g->z : g->a;
            g->piece[at++] = from[(column + k) * g->n_rows + l];
        }
    MPI_Gatherv(g->piece, mine, MPI_DOUBLE, g->wire, g->count, g->displacement, MPI_DOUBLE, 0, g->comm);
    const double *from = g->wire;
    for (size_t p = 0; p < g->shape.rows && g->rank == 0; p++) {
        size_t rows = row_count(g, g->n, p);
        for (size_t k = 0; k < w; k++)
            for (size_t l = 0; l < rows; l++)
                g->slab[k * g->n + global_row(g, l, p)] = *from++;
    }
}

/* Rows [r, r + w) of the vectors. */
static void gather_vectors(process_grid *g, size_t r, size_t w)
{
    int mine = share_slab(g, true, r, 0, w);
    size_t row = row_count(g, r, g->row), at = 0;
    for (size_t l = 0; l < g->n_columns && mine > 0; l++)
        for (size_t k = 0; k < w; k++)
            g->piece[at++] = g->z[l * g->n_rows + row + k];
    MPI_Gatherv(g->piece, mine, MPI_DOUBLE, g->wire, g->count, g->displacement, MPI_DOUBLE, 0, g->comm);
    const double *from = g->wire;
    for (size_t q = 0; q < g->shape.columns && g->rank == 0; q++) {
        size_t columns = column_count(g, g->n, q);
        for (size_t l = 0; l < columns; l++)
            for (size_t k = 0; k < w; k++)
                g->slab[k * g->n + global_column(g, l, q)] = *from++;
    }
}

/* Agreement before each transfer: an error of the source on rank 0 reaches all ranks before they wait for a slab. */
static bg_status fill_grid(process_grid *g, const bg_eigen_stream *stream, const char *what, bg_err *err)
{
    bg_status st = BG_OK;
    for (size_t c = 0; c < g->n && st == BG_OK; c += g->nb) {
        size_t w = bg_smaller(g->nb, g->n - c);
        if (g->rank == 0)
            st = bg_eigen_read_lower(stream, g->n, c, w, g->slab, what, err);
        if ((st = bg_agree(g->comm, st, err)) == BG_OK)
            scatter_lower(g, c, w);
    }
    return st;
}

typedef void gather_slab(process_grid *g, size_t first, size_t w);

static bg_status give_slabs(process_grid *g, gather_slab *gather, bg_eigen_take_rows *take, void *self, bg_err *err)
{
    bg_status st = BG_OK;
    for (size_t r = 0; r < g->n && st == BG_OK; r += g->nb) {
        size_t w = bg_smaller(g->nb, g->n - r);
        gather(g, r, w);
        if (g->rank == 0)
            st = take(self, r, w, g->slab, err);
        st = bg_agree(g->comm, st, err);
    }
    return st;
}

static bg_status give_symmetric(process_grid *g, const bg_eigen_stream *stream, bg_err *err)
{
    const int n = (int)g->n, one = 1;
    const double alpha = 1, beta = 0;
    int wanted = g->rank == 0 && stream->symmetric != NULL;
    MPI_Bcast(&wanted, 1, MPI_INT, 0, g->comm);
    if (!wanted)
        return BG_OK;
    if (g->inside)
        pdtran_(&n, &n, &alpha, g->a, &one, &one, g->desc, &beta, g->z, &one, &one, g->desc);
    return give_slabs(g, gather_symmetric, g->rank == 0 ? stream->symmetric : NULL, g->rank == 0 ? stream->self : NULL,
                      err);
}

/* ---- the decomposition ---- */

/* pdsyevd's workspace as its documentation counts it: the numbers of doubles and of ints. */
static bg_status new_workspace(const process_grid *g, double **work, int *lwork, int **iwork, int *liwork,
                               const char *what, bg_err *err)
{
    size_t n = g->n, nb = g->nb, tridiagonal = 3 * n + (nb * (g->n_rows + 1) > 3 * nb ? nb * (g->n_rows + 1) : 3 * nb);
    size_t product = 1 + 6 * n + 2 * g->n_rows * g->n_columns;
    size_t doubles = (product > tridiagonal ? product : tridiagonal) + 2 * n, ints = 7 * n + 8 * g->shape.columns + 2;
    if (doubles > INT_MAX || ints > INT_MAX)
        return BG_FAIL(err, BG_EARG,
                       "\"%s\" is %zu x %zu: too large for ScaLAPACK on %zu ranks; use more ranks or blocks", what, n,
                       n, g->shape.rows * g->shape.columns);
    *lwork = (int)doubles;
    *liwork = (int)ints;
    bg_status st = BG_NEW(*work, doubles, what, err);
    return st == BG_OK ? BG_NEW(*iwork, ints, what, err) : st;
}

/* A driver's eigenvalues, on every process, and this process's part of the vectors. */
static bg_status check_result(const process_grid *g, const double *w, int info, const char *driver, const char *what,
                              bg_err *err)
{
    if (info > 0)
        return BG_FAIL(err, BG_ENUMERIC, "\"%s\": %s did not converge (%d)", what, driver, info);
    if (info < 0)
        return BG_FAIL(err, BG_ENUMERIC, "\"%s\": %s refuses its argument %d", what, driver, -info);
    if (g->inside && (!bg_all_finite(g->n, w) || !bg_all_finite(g->n_rows * g->n_columns, g->z)))
        return BG_FAIL(err, BG_ENUMERIC, "\"%s\": %s gives eigenvectors or eigenvalues that are not finite", what,
                       driver);
    return BG_OK;
}

static bg_status run_pdsyevd(process_grid *g, double *w, const char *what, bg_err *err)
{
    const int n = (int)g->n, one = 1;
    double *work = NULL;
    int *iwork = NULL, lwork = 0, liwork = 0, info = 0;
    bg_status st = g->inside ? new_workspace(g, &work, &lwork, &iwork, &liwork, what, err) : BG_OK;
    st = bg_agree(g->comm, st, err);
    bool alone = g->n_rows * g->n_columns <= BG_PARALLEL_ENTRIES;
    if (alone)
        bg_gemm_serial_begin();
    if (st == BG_OK && g->inside)
        pdsyevd_("V", "L", &n, g->a, &one, &one, g->desc, w, g->z, &one, &one, g->desc, work, &lwork, iwork, &liwork,
                 &info, 1, 1);
    if (alone)
        bg_gemm_serial_end();
    if (st == BG_OK)
        st = check_result(g, w, info, "pdsyevd", what, err);
    bg_free(work);
    bg_free(iwork);
    return bg_agree(g->comm, st, err);
}

/* Slower, and by another iteration.  It tells its workspace itself. */
static bg_status run_pdsyev(process_grid *g, double *w, const char *what, bg_err *err)
{
    const int n = (int)g->n, one = 1;
    double *work = NULL, doubles = 0;
    int lwork = -1, info = 0;
    bg_status st = BG_OK;
    if (g->inside)
        pdsyev_("V", "L", &n, g->a, &one, &one, g->desc, w, g->z, &one, &one, g->desc, &doubles, &lwork, &info, 1, 1);
    if (doubles > INT_MAX)
        st = BG_FAIL(err, BG_EARG, "\"%s\" is %zu x %zu: too large for pdsyev; use more ranks or blocks", what, g->n,
                     g->n);
    lwork = st == BG_OK ? (int)doubles : 0;
    if (st == BG_OK)
        st = BG_NEW(work, (size_t)lwork, what, err);
    st = bg_agree(g->comm, st, err);
    if (st == BG_OK && g->inside)
        pdsyev_("V", "L", &n, g->a, &one, &one, g->desc, w, g->z, &one, &one, g->desc, work, &lwork, &info, 1, 1);
    if (st == BG_OK)
        st = check_result(g, w, info, "pdsyev", what, err);
    bg_free(work);
    return bg_agree(g->comm, st, err);
}

/* A driver that fails leaves nothing of the matrix: it is read again. */
static bg_status run_drivers(process_grid *g, const bg_eigen_stream *stream, double *w, const char *what, bg_err *err)
{
    bg_status st = run_pdsyevd(g, w, what, err);
    if (st != BG_ENUMERIC)
        return st;
    if (g->rank == 0 && stream->fell_back != NULL)
        stream->fell_back(stream->self, "pdsyevd", "pdsyev");
    st = fill_grid(g, stream, what, err);
    return st == BG_OK ? run_pdsyev(g, w, what, err) : st;
}

/* Where each vector's entry of largest magnitude lies: MPI_MAXLOC takes the lowest index of equals. */
typedef struct {
    double magnitude;
    int row;
} largest_entry;

static void find_largest(const process_grid *g, largest_entry *largest)
{
    for (size_t j = 0; j < g->n; j++)
        largest[j] = (largest_entry){ -1, INT_MAX };
    for (size_t l = 0; l < g->n_columns; l++) {
        largest_entry *best = &largest[global_column(g, l, g->column)];
        for (size_t i = 0; i < g->n_rows; i++) {
            double magnitude = fabs(g->z[l * g->n_rows + i]);
            if (magnitude > best->magnitude)
                *best = (largest_entry){ magnitude, (int)global_row(g, i, g->row) };
        }
    }
}

/* The process that has a vector's largest entry knows its sign. */
static void find_signs(const process_grid *g, const largest_entry *largest, signed char *negative)
{
    for (size_t l = 0; l < g->n_columns; l++) {
        size_t j = global_column(g, l, g->column), row = (size_t)largest[j].row;
        if (row / g->nb % g->shape.rows == g->row)
            negative[j] = g->z[l * g->n_rows + row_count(g, row, g->row)] < 0;
    }
}

/* As in bg_eigen: each vector's entry of largest magnitude is positive. */
static bg_status fix_signs(process_grid *g, const char *what, bg_err *err)
{
    largest_entry *largest = NULL;
    signed char *negative = NULL;
    bg_status st = BG_NEW(largest, g->n, what, err);
    if (st == BG_OK)
        st = BG_NEW(negative, g->n, what, err);
    if ((st = bg_agree(g->comm, st, err)) == BG_OK) {
        find_largest(g, largest);
        MPI_Allreduce(MPI_IN_PLACE, largest, (int)g->n, MPI_DOUBLE_INT, MPI_MAXLOC, g->comm);
        find_signs(g, largest, negative);
        MPI_Allreduce(MPI_IN_PLACE, negative, (int)g->n, MPI_SIGNED_CHAR, MPI_MAX, g->comm);
        for (size_t l = 0; l < g->n_columns; l++)
            for (size_t i = 0; i < g->n_rows && negative[global_column(g, l, g->column)]; i++)
                g->z[l * g->n_rows + i] = -g->z[l * g->n_rows + i];
    }
    bg_free(largest);
    bg_free(negative);
    return st;
}

/* The matrix comes in, its eigenvectors go out.  Collective; the same status on all ranks. */
static bg_status decompose(process_grid *g, const bg_eigen_stream *stream, double *w, const char *what, bg_err *err)
{
    bg_status st = fill_grid(g, stream, what, err);
    if (st == BG_OK)
        st = give_symmetric(g, stream, err);
    if (st == BG_OK)
        st = run_drivers(g, stream, w, what, err);
    if (st == BG_OK)
        st = fix_signs(g, what, err);
    if (st == BG_OK)
        st = give_slabs(g, gather_vectors, g->rank == 0 ? stream->vectors : NULL, g->rank == 0 ? stream->self : NULL,
                        err);
    return st;
}

bg_status bg_eigen_grid_shared(size_t n, const bg_eigen_stream *stream, double *w, const char *what, MPI_Comm comm,
                               bg_err *err)
{
    process_grid grid = { .comm = comm, .n = n }, *g = &grid;
    if (n > INT_MAX / BG_EIGEN_GRID_BLOCK) /* the same on all ranks */
        return BG_FAIL(err, BG_EARG, "\"%s\" is %zu x %zu: too large for ScaLAPACK; use more blocks", what, n, n);
    place_ranks(g);
    bg_status st = bg_agree(g->comm, open_memory(g, what, err), err);
    if (st == BG_OK && g->inside)
        describe(g);
    if (st == BG_OK)
        st = decompose(g, stream, w, what, err);
    if (st == BG_OK)
        bg_broadcast(g->comm, w, g->n * sizeof *w, 0); /* to the ranks outside the grid */
    close_grid(g);
    return st;
}

#endif
