#include "launch.h"

#include <omp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bregman/log.h"

/* ---- the launcher's word ---- */

/* A number in the environment; -1 without one. */
static long number_env(const char *name)
{
    const char *text = getenv(name);
    char *end;
    if (text == NULL || *text < '0' || *text > '9')
        return -1;
    long n = strtol(text, &end, 10);
    return *end == '\0' ? n : -1;
}

/* Slurm tells the shell of a batch script or of an allocation how many tasks the job is for, and that it is task 0: a
 * program started there by hand is none of them.  srun's tasks have the number of their step; numbers from 0xfffffff0
 * on are those of shells. */
static bool is_slurm_task(void)
{
    const long first_shell = 0xfffffff0;
    long step = number_env("SLURM_STEP_ID"), rank = number_env("SLURM_PROCID");
    if (rank < 0 || step >= first_shell)
        return false;
    return step >= 0 || rank > 0 || getenv("SLURM_JOB_ID") == NULL;
}

bg_launch bg_launch_read(void)
{
    /* the innermost launcher first: mpirun in a step of srun hands srun's variables on; PMIx does not say how many */
    static const char *const name[][2] = {
        { "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK" },
        { "PMI_SIZE", "PMI_RANK" },
        { "SLURM_STEP_NUM_TASKS", "SLURM_PROCID" },
        { "SLURM_NTASKS", "SLURM_PROCID" },
        { NULL, "PMIX_RANK" },
    };
    for (size_t i = 0; i < sizeof name / sizeof *name; i++) {
        bg_launch found = { name[i][1], name[i][0] != NULL ? number_env(name[i][0]) : 0, number_env(name[i][1]) };
        bool is_slurm = strncmp(found.variable, "SLURM", 5) == 0;
        if (found.size >= 0 && found.rank >= 0 && (!is_slurm || is_slurm_task()))
            return found;
    }
    return (bg_launch){ 0 };
}

bg_status bg_launch_check(const bg_launch *launch, int world_size, bg_err *err)
{
    if (world_size > 1 || (launch->size <= 1 && launch->rank <= 0))
        return BG_OK;
    char of[32] = "";
    if (launch->size > 0)
        snprintf(of, sizeof of, " of %ld", launch->size);
    return BG_FAIL(err, BG_EARG,
                   "started as task %ld%s (says %s), but alone in MPI_COMM_WORLD: its launcher and its MPI "
                   "do not know each other, and every task would do all the work; use the mpirun of the MPI it was built "
                   "with, or srun --mpi=pmix or pmi2 (srun --mpi=list says which there are); for one process alone, "
                   "mpirun -n 1",
                   launch->rank, of, launch->variable);
}

/* ---- CPUs ---- */

/* Where OpenMP binds threads (OMP_PLACES, OMP_PROC_BIND), it has bound this one to its first place already. */
static bool add_places(cpu_set_t *set)
{
    int ids[CPU_SETSIZE];
    for (int p = 0; p < omp_get_num_places(); p++) {
        int n = omp_get_place_num_procs(p);
        if (n > CPU_SETSIZE)
            return false;
        omp_get_place_proc_ids(p, ids);
        for (int i = 0; i < n; i++)
            CPU_SET((size_t)ids[i], set);
    }
    return CPU_COUNT(set) > 0;
}

static void own_cpus(cpu_set_t *own)
{
    CPU_ZERO(own);
    if (add_places(own) || sched_getaffinity(0, sizeof *own, own) == 0)
        return;
    for (long i = 0; i < sysconf(_SC_NPROCESSORS_ONLN) && i < CPU_SETSIZE; i++)
        CPU_SET((size_t)i, own);
}

/* CPUs that this thread could bind itself to: all of its cgroup's.  It asks for every CPU there is, sees what it got,
 * and goes back to where it was. */
static int count_allowed(void)
{
    cpu_set_t before, set;
    if (sched_getaffinity(0, sizeof before, &before) != 0)
        return 0;
    memset(&set, 0xff, sizeof set);
    bool saw = sched_setaffinity(0, sizeof set, &set) == 0 && sched_getaffinity(0, sizeof set, &set) == 0;
    int n = saw ? CPU_COUNT(&set) : 0;
    return sched_setaffinity(0, sizeof before, &before) == 0 ? n : 0;
}

bg_cpus bg_cpus_count(MPI_Comm world)
{
    MPI_Comm node;
    cpu_set_t own, all;
    bg_cpus found;
    own_cpus(&own);
    MPI_Comm_split_type(world, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
    MPI_Comm_size(node, &found.n_ranks);
    MPI_Allreduce(&own, &all, (int)sizeof own, MPI_BYTE, MPI_BOR, node);
    MPI_Comm_free(&node);
    found.own = CPU_COUNT(&own);
    found.all = CPU_COUNT(&all);
    found.allowed = count_allowed();
    return found;
}

void bg_cpus_warn(const bg_cpus *cpus, int threads, bool chosen, const bg_launch *launch)
{
    const char *plural = cpus->own == 1 ? "" : "s";
    if (threads > cpus->own && cpus->allowed > cpus->own)
        bg_log("warning: %d threads on %d CPU%s: the launcher bound this rank to so few of the %d here; add --bind-to "
               "none or --map-by slot:PE=%d to mpirun, or --cpus-per-task=%d to srun",
               threads, cpus->own, plural, cpus->allowed, threads, threads);
    else if (threads > cpus->own)
        bg_log("warning: %d threads on %d CPU%s: this node has no more for this rank", threads, cpus->own, plural);
    /* Without a job of Slurm's, whose own binding is what was asked for */
    else if (chosen && cpus->all < cpus->allowed && launch->variable != NULL && getenv("SLURM_JOB_ID") == NULL)
        bg_log("warning: the launcher bound the %d rank%s of this node to %d of %d CPUs, so that each takes %d "
               "thread%s; add --bind-to none to mpirun, or --map-by slot:PE=THREADS",
               cpus->n_ranks, cpus->n_ranks == 1 ? "" : "s", cpus->all, cpus->allowed, threads,
               threads == 1 ? "" : "s");
}
