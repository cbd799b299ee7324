/* calibrate.c - this machine as a cluster file of one node. */
#include <malloc.h>
#include <unistd.h>

#include "bregman/log.h"
#include "bregman/memory.h"
#include "bregman/path.h"
#include "calibrate.h"
#include "measures.h"

bg_status calibrate_run(const void *config, const bg_context *ctx, bg_err *err)
{
    const calibrate_config *c = config;
    char folder[BG_PATH_BYTES];
    bg_cluster cluster;
    bg_profile *p = &cluster.profile;
    MPI_Comm world = ctx->grid.world;
    bg_cluster_reference(&cluster); /* some rates are assumed: of ScaLAPACK small matrices would say nothing */
    cluster.network_gb_s = cluster.disk_gb_s = 0;
    gethostname(cluster.name, sizeof cluster.name - 1);
    cluster.nodes = 1;
    cluster.ranks_per_node = (size_t)ctx->grid.world_size;
    cluster.cores_per_node = cluster.ranks_per_node * (size_t)ctx->threads;
    cluster.memory_gb_per_node = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE) * 1e-9;
    p->threads = (double)ctx->threads;
    bg_status st = bg_agree(world, bg_folder_of(c->output, folder, err), err);
    if (st == BG_OK)
        st = calibrate_files(p, folder, ctx, err); /* first, as the folder may not be writable */
    if (st == BG_OK)
        st = calibrate_kernels(p, world, err);
    malloc_trim(0); /* a process that has run a stage's libraries, and holds nothing */
    p->process_bytes = (double)bg_rss_bytes();
    MPI_Allreduce(MPI_IN_PLACE, &p->process_bytes, 1, MPI_DOUBLE, MPI_MAX, world);
    if (st == BG_OK && ctx->grid.world_rank == 0)
        st = bg_cluster_write(&cluster, c->output, err);
    st = bg_agree(world, st, err);
    if (st == BG_OK)
        bg_log("wrote %s: one node as measured; edit nodes, memory, network and disk for a cluster of such", c->output);
    return st;
}
