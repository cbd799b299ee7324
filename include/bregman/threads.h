/* threads.h - what is worth sharing out over a rank's OpenMP threads, and how idle threads wait for more.
 *
 * A parallel region ends when its last thread does.  On an idle node a thread that sleeps takes up to 0.1 ms to wake;
 * on a busy one it waits for its turn, while the others wait for it.  So a rank of a small model must not run regions.
 */
#ifndef BG_THREADS_H
#define BG_THREADS_H

/* Only what is more than this is shared out.
 *   FLOATS: elements that a kernel goes through, 0.1 to 0.3 ms on one core;
 *   PRODUCTS: multiply-adds of a matrix product, of which 64 take as long as a kernel's element;
 *   ENTRIES: of a matrix that LAPACK works on.  It goes through the matrix once a column, with regions of its BLAS in
 *   each: two threads on an idle node gain a quarter from a side of 720 on, little below. */
enum { BG_PARALLEL_FLOATS = 1 << 18, BG_PARALLEL_PRODUCTS = 64 * BG_PARALLEL_FLOATS, BG_PARALLEL_ENTRIES = 1 << 19 };

/* Idle threads are to sleep soon, unless the environment has OMP_WAIT_POLICY or GOMP_SPINCOUNT, or binds threads to
 * places. GNU's OpenMP reads those when it is loaded, before main, so this starts the program again with GOMP_SPINCOUNT
 * set: call it first, before MPI_Init.  Where that cannot be done it returns, and threads wait as they would have. */
void bg_threads_sleep_when_idle(char **argv);

#endif /* BG_THREADS_H */
