/* gradient_sum.h - the gradient of a step, added up in one order whoever has computed which part of it.
 *
 * A step is cut into slices, dealt to the ranks in runs.  Their gradients are the leaves of a binary tree over the
 * slices' numbers: [0, 2) is slice 0 + slice 1, [0, 4) is [0, 2) + [2, 4), and so on.  A rank adds up what lies in its
 * run; each rank then gets a range of the numbers of all that is left and completes the sums.  So the bytes of the sum
 * depend on the number of slices, not on that of ranks.
 */
#ifndef BG_GRADIENT_SUM_H
#define BG_GRADIENT_SUM_H

#include <mpi.h>
#include <stddef.h>

#include "bregman/cost.h"
#include "bregman/status.h"

/* Numbers that are squared and summed up together: ranges are cut between them. */
enum { BG_GRADIENT_BLOCK = 4096 };

typedef struct bg_gradient_sum bg_gradient_sum;

typedef struct {
    size_t first, end;
} bg_gradient_range;

/* Where the i-th of so many parts of n begins: slices are dealt to ranks so, and blocks of numbers. */
static inline size_t bg_gradient_cut(size_t n, size_t parts, size_t i)
{
    return (size_t)((unsigned long long)n * i / parts);
}

/* Of n numbers, in so many slices on the ranks of comm.  Collective.  Errors: BG_EARG with more ranks than slices, or
 * with more than 2^31 - 1 numbers; BG_ENOMEM. */
bg_status bg_gradient_sum_new(bg_gradient_sum **out, size_t n, size_t slices, MPI_Comm comm, bg_err *err) BG_MUST_CHECK;
void bg_gradient_sum_free(bg_gradient_sum *s); /* NULL is fine */

/* This rank's slices, and its range of the numbers. */
bg_gradient_range bg_gradient_sum_slices(const bg_gradient_sum *s);
bg_gradient_range bg_gradient_sum_own(const bg_gradient_sum *s);

/* Room for the next of this rank's slices, [n], zeros; lent until bg_gradient_sum_add has taken it. */
float *bg_gradient_sum_next(bg_gradient_sum *s);
void bg_gradient_sum_add(bg_gradient_sum *s);
/* All ranks have added all their slices: the sum of this rank's range, lent until the next bg_gradient_sum_next, and
 * the sum of the squares of all numbers.  Collective. */
const float *bg_gradient_sum_finish(bg_gradient_sum *s, double *square);

/* x [n], of which each rank has changed its own range: all get all.  Collective. */
void bg_gradient_sum_spread(const bg_gradient_sum *s, float *x);
/* Between arrays of each rank's range and one of all numbers, on rank 0 (NULL on others).  Collective. */
void bg_gradient_sum_gather(const bg_gradient_sum *s, const float *own, float *all);
void bg_gradient_sum_scatter(const bg_gradient_sum *s, const float *all, float *own);

/* What a rank holds, in bytes. */
size_t bg_gradient_sum_bytes(size_t n, size_t slices, size_t ranks);

/* What a rank sends to others. */
typedef struct {
    double messages, bytes;
} bg_traffic;
/* Add what a rank of those that have most slices computes for a sum; what it sends for it and for spreading as much. */
bg_traffic bg_gradient_sum_cost(bg_cost *cost, size_t n, size_t slices, size_t ranks);

#endif /* BG_GRADIENT_SUM_H */
