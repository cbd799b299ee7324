/* launch.h - what the launcher of this process said to it, and the CPUs it was given. */
#ifndef BG_LAUNCH_H
#define BG_LAUNCH_H

#include <stdbool.h>

#include <mpi.h>

#include "bregman/status.h"

/* This process's place among those started together, as its launcher tells it in the environment. */
typedef struct {
    const char *variable; /* where the rank was read; static storage; NULL: there is no word of a launcher */
    long size, rank;      /* size 0: not told */
} bg_launch;

/* To be called before MPI_Init, which may set these variables itself. */
bg_launch bg_launch_read(void);

/* BG_EARG where one of several processes is alone in its world, because launcher and MPI do not know each other: each
 * would do all the work.  Local. */
bg_status bg_launch_check(const bg_launch *launch, int world_size, bg_err *err);

/* CPUs of this node: of this rank, of all ranks here together, and what they could have if nobody bound them. */
typedef struct {
    int n_ranks, own, all, allowed;
} bg_cpus;

/* Collective on world. */
bg_cpus bg_cpus_count(MPI_Comm world);

/* Say so where the launcher's binding keeps this rank from its threads, or where it left CPUs idle and `chosen`, the
 * number of threads, was not the user's. */
void bg_cpus_warn(const bg_cpus *cpus, int threads, bool chosen, const bg_launch *launch);

#endif /* BG_LAUNCH_H */
