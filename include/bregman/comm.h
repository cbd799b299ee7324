/* comm.h - agreement between ranks; see also the rule of phases below.
 *
 * Rule of phases.  Code between two agreements is either local (no MPI call)
 * or collective (no early return).  A local phase ends in bg_agree(); only
 * when it says BG_OK may any rank enter the next collective phase.
 */
#ifndef BG_COMM_H
#define BG_COMM_H

#include <mpi.h>
#include <stddef.h>
#include <stdint.h>

#include "bregman/status.h"

/* The process grid.  World = data x pipeline: a column of the grid (one data rank) owns sequences, a
 * pipeline rank within it a contiguous run of the model's blocks.  World ranks of one pipeline rank follow one
 * another, so that the ranks of a node read the same weights and share their pages; what goes from
 * node to node is one [rows, d] message a micro-batch.  Nothing is reduced over the data
 * axis: units of work are files (sweep.h). */
typedef struct {
    MPI_Comm world;
    MPI_Comm pipeline; /* the ranks of this column, in the order of the blocks */
    MPI_Comm place;    /* the ranks of this node that have the same pipeline rank (shared.h) */
    int world_rank, world_size;
    int data_rank, data_size; /* world_rank = pipeline_rank * data_size + data_rank */
    int pipeline_rank, pipeline_size;
    int place_size, node_size; /* ranks in `place`, and of this node in all */
} bg_grid;

/* Lay the ranks of world out as columns of `pipeline` ranks.  Collective; free with bg_grid_free.
 * BG_EARG on all ranks if their number is no multiple of it. */
bg_status bg_grid_init(bg_grid *g, MPI_Comm world, int pipeline, bg_err *err) BG_MUST_CHECK;
void bg_grid_free(bg_grid *g);

/* Make all ranks of comm agree on one status.
 *
 * Collective on comm.
 *   comm  [in]      valid communicator, errors fatal (the MPI default).
 *   local [in]      this rank's status; may differ between ranks.
 *   err   [in,out]  if local != BG_OK, the filled record.  On return with an
 *                   error, every rank holds the record of the lowest rank
 *                   that failed, with err->rank set.  Untouched on BG_OK.
 *                   A real failure wins over BG_ESTOPPED.
 * Returns the same code on every rank: BG_OK iff all ranks passed BG_OK.
 * Cost: one 4-byte allreduce; on error also one broadcast of ~500 bytes. */
bg_status bg_agree(MPI_Comm comm, bg_status local, bg_err *err) BG_MUST_CHECK;

/* Check that a value which must be the same on all ranks is.
 *
 * Collective on comm.  BG_EARG on all ranks if not; `what` names the value. */
bg_status bg_same_u64(MPI_Comm comm, uint64_t value, const char *what, bg_err *err) BG_MUST_CHECK;

/* Broadcast any number of bytes from rank `root` (MPI counts are ints). */
void bg_broadcast(MPI_Comm comm, void *data, size_t n_bytes, int root);

#endif /* BG_COMM_H */
