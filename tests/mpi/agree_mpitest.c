/* Each rank fails in turn: all ranks end with the same record. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/comm.h"

static int fails;
#define CHECK(c)                                                           \
    do {                                                                   \
        if (!(c)) {                                                        \
            fails++;                                                       \
            fprintf(stderr, "%s:%d: CHECK(%s)\n", __FILE__, __LINE__, #c); \
        }                                                                  \
    } while (0)

static void each_rank_fails_in_turn(int rank, int size)
{
    bg_err err = { .file = "" };
    for (int bad = 0; bad < size; bad++) {
        bg_status st = BG_OK;
        if (rank == bad)
            st = BG_FAIL(&err, BG_EIO, "disk of rank %d", rank);
        if (rank > bad)
            st = BG_FAIL(&err, BG_ENOMEM, "a later rank fails otherwise");
        CHECK(bg_agree(MPI_COMM_WORLD, st, &err) == BG_EIO);
        char want[32];
        snprintf(want, sizeof want, "disk of rank %d", bad);
        CHECK(err.rank == bad && err.code == BG_EIO && strcmp(err.msg, want) == 0);
    }
}

/* The last rank fails, all before it were only asked to stop. */
static void failure_wins_over_stop(int rank, int size)
{
    bg_err err = { .file = "" };
    bg_status st = rank == size - 1 ? BG_FAIL(&err, BG_ENUMERIC, "NaN") : BG_FAIL(&err, BG_ESTOPPED, "stopped");
    CHECK(bg_agree(MPI_COMM_WORLD, st, &err) == BG_ENUMERIC);
    CHECK(err.rank == size - 1 && strcmp(err.msg, "NaN") == 0);
}

static void one_stop_stops_all(int rank, int size)
{
    bg_err err = { .file = "" };
    bg_status st = rank == size - 1 ? BG_FAIL(&err, BG_ESTOPPED, "stopped") : BG_OK;
    CHECK(bg_agree(MPI_COMM_WORLD, st, &err) == BG_ESTOPPED);
    CHECK(err.rank == size - 1);
}

static void same_values(int rank, int size)
{
    bg_err err = { .file = "" };
    CHECK(bg_same_u64(MPI_COMM_WORLD, UINT64_MAX, "x", &err) == BG_OK);
    CHECK(bg_same_u64(MPI_COMM_WORLD, 0, "x", &err) == BG_OK);
    bg_status st = bg_same_u64(MPI_COMM_WORLD, (uint64_t)rank, "shard count", &err);
    CHECK(st == (size > 1 ? BG_EARG : BG_OK));
    CHECK(size == 1 || strncmp(err.msg, "shard count differs between ranks: 0 to ", 40) == 0);
}

static void broadcast_from_each(int rank, int size)
{
    unsigned char data[1000];
    for (int root = 0; root < size; root++) {
        memset(data, rank == root ? 100 + root : 0, sizeof data);
        bg_broadcast(MPI_COMM_WORLD, data, sizeof data - 1, root);
        CHECK(data[0] == 100 + root && data[998] == 100 + root);
        CHECK(data[999] == (rank == root ? 100 + root : 0));
    }
    bg_broadcast(MPI_COMM_WORLD, NULL, 0, 0);
}

int main(int argc, char **argv)
{
    int rank, size, all;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);

    bg_err err = { .file = "" };
    CHECK(bg_agree(MPI_COMM_WORLD, BG_OK, &err) == BG_OK);
    each_rank_fails_in_turn(rank, size);
    failure_wins_over_stop(rank, size);
    one_stop_stops_all(rank, size);
    same_values(rank, size);
    broadcast_from_each(rank, size);

    MPI_Allreduce(&fails, &all, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
    MPI_Finalize();
    return all != 0;
}
