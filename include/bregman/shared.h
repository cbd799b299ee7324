/* shared.h - a read-only array that the ranks of a node hold once between them.
 *
 * The ranks of a communicator within one node (bg_grid.place) map the same memory: a file of /dev/shm, or of a scratch
 * folder, that loses its name as soon as all have it open, and so ends with the last of them however they end.  They
 * fill it together, piece by piece, and see all of it after bg_shared_ready.  Where there is no room for such a file
 * (/dev/shm is small in many containers) each rank has an array of its own and fills all of it: more memory and a
 * longer start, the same numbers.
 */
#ifndef BG_SHARED_H
#define BG_SHARED_H

#include <mpi.h>
#include <stdbool.h>
#include <stddef.h>

#include "bregman/status.h"

typedef struct bg_shared bg_shared;

/* Room for n_bytes, zeroed.  Collective on place, within one node; the same status on all its ranks.
 *   scratch [in]  folder that it lies in; NULL: memory.
 *   what    [in]  names it in the log and in errors
 * Errors: BG_ENOMEM; BG_EIO naming the scratch folder.  Free with bg_shared_free. */
bg_status bg_shared_new(bg_shared **out, MPI_Comm place, size_t n_bytes, const char *scratch, const char *what,
                        bg_err *err) BG_MUST_CHECK;
void *bg_shared_data(const bg_shared *s);
/* Is piece i for this rank to fill?  Of any number of pieces each has one rank; of an array of its own, this one. */
bool bg_shared_fills(const bg_shared *s, size_t i);
/* All pieces are filled, this rank's with status st: nobody writes to it from now on.  Collective on place; returns an
 * agreed status. */
bg_status bg_shared_ready(bg_shared *s, bg_status st, bg_err *err) BG_MUST_CHECK;
/* A part of it is not needed for a while: its pages may leave memory (of a scratch folder only).  Local. */
void bg_shared_let_go(const bg_shared *s, const float *from, size_t n_floats);
/* What rank 0 of comm has, for all its ranks.  Collective on comm; an agreed status.
 *   from    [in]  rank 0: n_bytes; others: not looked at
 *   n_bytes [in]  the same on all ranks
 * Errors: BG_ENOMEM. */
bg_status bg_shared_spread(bg_shared **out, MPI_Comm comm, const void *from, size_t n_bytes, const char *what,
                           bg_err *err) BG_MUST_CHECK;
/* Local; NULL is fine. */
void bg_shared_free(bg_shared *s);

#endif /* BG_SHARED_H */
