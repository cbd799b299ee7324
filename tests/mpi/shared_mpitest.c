/* One array for all ranks of a node: filled together, seen by all, gone with its name; and one for each where there is
 * no room. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "bregman/comm.h"
#include "bregman/log.h"
#include "bregman/shared.h"

static int fails;
#define CHECK(c)                                                           \
    do {                                                                   \
        if (!(c)) {                                                        \
            fails++;                                                       \
            fprintf(stderr, "%s:%d: CHECK(%s)\n", __FILE__, __LINE__, #c); \
        }                                                                  \
    } while (0)

enum { PIECES = 37, PIECE = 1000 };

/* Inode of the file that is mapped at an address; 0 if none is. */
static unsigned long inode_at(const void *address)
{
    char line[512];
    unsigned long inode = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps != NULL && fgets(line, sizeof line, maps) != NULL) {
        unsigned long from, to, found;
        if (sscanf(line, "%lx-%lx %*s %*s %*s %lu", &from, &to, &found) == 3 && (unsigned long)address >= from &&
            (unsigned long)address < to)
            inode = found;
    }
    if (maps != NULL)
        fclose(maps);
    return inode;
}

/* Fill and compare; returns whether all ranks have the same file behind it. */
static bool fill_and_see(bg_shared *s)
{
    bg_err err;
    int *x = bg_shared_data(s), filled = 0, all_filled;
    bool same = true;
    for (int i = 0; i < PIECES; i++)
        for (int k = 0; bg_shared_fills(s, (size_t)i) && k < PIECE; k++, filled++) {
            same = same && x[i * PIECE + k] == 0;
            x[i * PIECE + k] = i * PIECE + k;
        }
    CHECK(bg_shared_ready(s, BG_OK, &err) == BG_OK);
    for (int i = 0; i < PIECES * PIECE; i++)
        same = same && x[i] == i;
    CHECK(same);
    MPI_Allreduce(&filled, &all_filled, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    unsigned long inode = inode_at(x), most;
    MPI_Allreduce(&inode, &most, 1, MPI_UNSIGNED_LONG, MPI_MAX, MPI_COMM_WORLD);
    return all_filled == PIECES * PIECE && inode == most && (inode != 0);
}

static void one_for_all(int size, const char *scratch)
{
    bg_err err;
    bg_shared *s = NULL;
    CHECK(bg_shared_new(&s, MPI_COMM_WORLD, sizeof(int) * PIECES * PIECE, scratch, "numbers", &err) == BG_OK);
    CHECK(fill_and_see(s) == (size > 1 || scratch != NULL));
    bg_shared_free(s);
}

static void a_rank_that_fails_is_heard(int rank, int size)
{
    bg_err err = { .file = "" };
    bg_shared *s = NULL;
    CHECK(bg_shared_new(&s, MPI_COMM_WORLD, 100, NULL, "numbers", &err) == BG_OK);
    bg_status st = rank == size - 1 ? BG_FAIL(&err, BG_EFORMAT, "damaged") : BG_OK;
    CHECK(bg_shared_ready(s, st, &err) == BG_EFORMAT && strcmp(err.msg, "damaged") == 0);
    bg_shared_free(s);
    CHECK(bg_shared_new(&s, MPI_COMM_WORLD, 100, "/nowhere", "numbers", &err) == BG_EIO && s == NULL);
    CHECK(strstr(err.msg, "/nowhere") != NULL);
    CHECK(bg_shared_new(&s, MPI_COMM_WORLD, 0, NULL, "numbers", &err) == BG_OK);
    CHECK(bg_shared_ready(s, BG_OK, &err) == BG_OK);
    bg_shared_free(s);
}

/* The rank at the file's end may not make it longer: as on a full /dev/shm. */
static void without_room_each_has_its_own(int rank, int size)
{
    bg_err err;
    bg_shared *s = NULL;
    struct rlimit before, less;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    less = before;
    less.rlim_cur = 4096;
    if (rank == size - 1)
        setrlimit(RLIMIT_FSIZE, &less);
    CHECK(bg_shared_new(&s, MPI_COMM_WORLD, sizeof(int) * PIECES * PIECE, NULL, "numbers", &err) == BG_OK);
    setrlimit(RLIMIT_FSIZE, &before);
    CHECK(bg_shared_fills(s, 0) && bg_shared_fills(s, 1));
    CHECK(!fill_and_see(s));
    bg_shared_free(s);
}

int main(int argc, char **argv)
{
    int rank, size, all;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    bg_log_setup("shared_mpitest", false);
    one_for_all(size, NULL);
    one_for_all(size, ".");
    a_rank_that_fails_is_heard(rank, size);
    without_room_each_has_its_own(rank, size);
    MPI_Allreduce(&fails, &all, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    MPI_Finalize();
    return all != 0;
}
