#include "bregman/comm.h"

#include <inttypes.h>
#include <string.h>

bg_status bg_grid_init(bg_grid *g, MPI_Comm world, int pipeline, bg_err *err)
{
    g->world = world;
    g->pipeline = g->place = MPI_COMM_NULL;
    MPI_Comm_rank(world, &g->world_rank);
    MPI_Comm_size(world, &g->world_size);
    if (g->world_size % pipeline != 0)
        return BG_FAIL(err, BG_EARG, "--pipeline %d: %d rank%s cannot be laid out in columns of %d", pipeline,
                       g->world_size, g->world_size == 1 ? "" : "s", pipeline);
    g->data_size = g->world_size / pipeline;
    g->data_rank = g->world_rank % g->data_size;
    g->pipeline_size = pipeline;
    g->pipeline_rank = g->world_rank / g->data_size;
    MPI_Comm_split(world, g->data_rank, g->pipeline_rank, &g->pipeline);
    MPI_Comm node;
    MPI_Comm_split_type(world, MPI_COMM_TYPE_SHARED, g->world_rank, MPI_INFO_NULL, &node);
    MPI_Comm_split(node, g->pipeline_rank, g->world_rank, &g->place);
    MPI_Comm_size(node, &g->node_size);
    MPI_Comm_free(&node);
    MPI_Comm_size(g->place, &g->place_size);
    return BG_OK;
}

void bg_grid_free(bg_grid *g)
{
    if (g->pipeline != MPI_COMM_NULL)
        MPI_Comm_free(&g->pipeline);
    if (g->place != MPI_COMM_NULL)
        MPI_Comm_free(&g->place);
}

bg_status bg_agree(MPI_Comm comm, bg_status local, bg_err *err)
{
    int rank, size;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &size);

    /* The lowest key wins: failed ranks come before stopped ones, those before the rest. */
    int key = local == BG_OK ? 2 * size : local == BG_ESTOPPED ? size + rank : rank, first;
    MPI_Allreduce(&key, &first, 1, MPI_INT, MPI_MIN, comm);
    if (first == 2 * size)
        return BG_OK;
    int source = first % size;

    /* A fixed-size wire record: pointers do not cross ranks. */
    struct {
        int code, line;
        char msg[sizeof err->msg];
    } wire = { 0 };
    if (rank == source) {
        wire.code = (int)local;
        wire.line = err->line;
        memcpy(wire.msg, err->msg, sizeof wire.msg);
    }
    MPI_Bcast(&wire, (int)sizeof wire, MPI_BYTE, source, comm);

    err->code = (bg_status)wire.code;
    err->line = wire.line;
    if (rank != source)
        err->file = "";
    memcpy(err->msg, wire.msg, sizeof err->msg);
    err->rank = source;
    return err->code;
}

bg_status bg_same_u64(MPI_Comm comm, uint64_t value, const char *what, bg_err *err)
{
    /* max(value) and max(~value) = ~min(value) in one reduction. */
    uint64_t v[2] = { value, ~value };
    MPI_Allreduce(MPI_IN_PLACE, v, 2, MPI_UINT64_T, MPI_MAX, comm);
    if (v[0] == ~v[1])
        return BG_OK;
    return BG_FAIL(err, BG_EARG, "%s differs between ranks: %" PRIu64 " to %" PRIu64, what, ~v[1], v[0]);
}

void bg_broadcast(MPI_Comm comm, void *data, size_t n_bytes, int root)
{
    const size_t piece = (size_t)1 << 30; /* fits an int */
    for (size_t done = 0; done < n_bytes; done += piece) {
        size_t n = n_bytes - done < piece ? n_bytes - done : piece;
        MPI_Bcast((char *)data + done, (int)n, MPI_BYTE, root, comm);
    }
}
