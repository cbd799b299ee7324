#include "bregman/shared.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bregman/comm.h"
#include "bregman/log.h"
#include "bregman/memory.h"
#include "bregman/room.h"

struct bg_shared {
    MPI_Comm place;
    int rank, size;
    void *data;
    size_t n_bytes;
    bool mapped; /* one for all ranks; else this rank's own */
    bool on_disk;
};

enum { NAME_BYTES = 4096 };

/* Rank 0 makes the file, of no length yet, and the others open it; -1 on a rank that cannot, with *cause. */
static int open_file(const bg_shared *s, const char *folder, char name[NAME_BYTES], int *cause)
{
    int fd = -1;
    *cause = ENAMETOOLONG;
    if (s->rank == 0 && (size_t)snprintf(name, NAME_BYTES, "%s/bregman-shared-XXXXXX", folder) < NAME_BYTES) {
        fd = mkostemp(name, O_CLOEXEC);
        *cause = errno;
    }
    if (fd < 0)
        name[0] = '\0';
    bg_broadcast(s->place, name, NAME_BYTES, 0);
    if (s->rank > 0 && name[0] != '\0') {
        fd = open(name, O_RDWR | O_CLOEXEC);
        *cause = errno;
    }
    return fd;
}

/* This rank's slice of the file takes its room now, so that a lack of it shows here and not as a signal later; and on a
 * node of several memories each slice lies in its rank's. */
static int take_slice(const bg_shared *s, int fd)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = (s->n_bytes + page - 1) / page;
    size_t first = pages * (size_t)s->rank / (size_t)s->size, end = pages * (size_t)(s->rank + 1) / (size_t)s->size;
    int cause = 0;
    do
        cause = end > first ? posix_fallocate(fd, (off_t)(first * page), (off_t)((end - first) * page)) : 0;
    while (cause == EINTR);
    return cause;
}

/* Have all ranks succeeded?  Collective. */
static bool all(const bg_shared *s, bool succeeded)
{
    int yes = succeeded;
    MPI_Allreduce(MPI_IN_PLACE, &yes, 1, MPI_INT, MPI_MIN, s->place);
    return yes != 0;
}

/* Collective; the same answer on all ranks.  *cause: why this rank could not, if it could not. */
static bool map_for_all(bg_shared *s, const char *folder, int *cause)
{
    char name[NAME_BYTES] = "";
    int fd = open_file(s, folder, name, cause);
    bool good = all(s, fd >= 0);
    if (s->rank == 0 && name[0] != '\0')
        unlink(name); /* before it takes room: a kill from now on leaves nothing */
    if (good) {
        *cause = take_slice(s, fd);
        good = all(s, *cause == 0);
    }
    if (good) {
        s->data = mmap(NULL, s->n_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        s->mapped = s->data != MAP_FAILED;
        *cause = errno;
        good = all(s, s->mapped);
    }
    if (fd >= 0)
        close(fd); /* the map stays */
    if (!good && s->mapped)
        munmap(s->data, s->n_bytes);
    s->mapped = good;
    return good;
}

static bg_status take_memory(bg_shared *s, const char *scratch, const char *what, bg_err *err)
{
    int cause = 0;
    bool wanted = s->n_bytes > 0 && (s->size > 1 || scratch != NULL);
    s->on_disk = scratch != NULL;
    if (wanted && map_for_all(s, s->on_disk ? scratch : "/dev/shm", &cause))
        return BG_OK;
    if (wanted && scratch != NULL)
        return BG_FAIL(err, BG_EIO, "cannot write into scratch folder \"%s\": %s", scratch, strerror(cause));
    if (wanted)
        bg_log("warning: %s: no room for %.0f MB in /dev/shm: each rank holds its own", what,
               (double)s->n_bytes * 1e-6);
    s->data = bg_alloc(s->n_bytes, 1, what, err);
    return bg_allocated(s->data);
}

bg_status bg_shared_new(bg_shared **out, MPI_Comm place, size_t n_bytes, const char *scratch, const char *what,
                        bg_err *err)
{
    bg_shared *s = NULL;
    *out = NULL;
    bg_status st = bg_agree(place, BG_NEW(s, 1, what, err), err);
    if (st == BG_OK) {
        *s = (bg_shared){ .place = place, .n_bytes = n_bytes };
        MPI_Comm_rank(place, &s->rank);
        MPI_Comm_size(place, &s->size);
        st = bg_agree(place, take_memory(s, scratch, what, err), err);
    }
    if (st != BG_OK)
        bg_shared_free(s);
    else
        *out = s;
    return st;
}

void *bg_shared_data(const bg_shared *s) { return s->data; }

bool bg_shared_fills(const bg_shared *s, size_t i) { return !s->mapped || i % (size_t)s->size == (size_t)s->rank; }

void bg_shared_let_go(const bg_shared *s, const float *from, size_t n_floats)
{
    bg_room_let_go(&(bg_room){ .on_disk = s->mapped && s->on_disk }, from, n_floats);
}

/* Agreement is the barrier too: nobody reads before all have written. */
bg_status bg_shared_ready(bg_shared *s, bg_status st, bg_err *err)
{
    st = bg_agree(s->place, st, err);
    if (s->mapped)
        mprotect(s->data, s->n_bytes, PROT_READ); /* to write to it is a fault of the program, and ends it */
    return st;
}

bg_status bg_shared_spread(bg_shared **out, MPI_Comm comm, const void *from, size_t n_bytes, const char *what,
                           bg_err *err)
{
    MPI_Comm node, fillers;
    int rank;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
    bg_status st = bg_agree(comm, bg_shared_new(out, node, n_bytes, NULL, what, err), err);
    if (st == BG_OK) {
        if (rank == 0 && n_bytes > 0)
            memcpy((*out)->data, from, n_bytes);
        MPI_Comm_split(comm, bg_shared_fills(*out, 0) ? 0 : MPI_UNDEFINED, 0, &fillers);
        if (fillers != MPI_COMM_NULL) {
            bg_broadcast(fillers, (*out)->data, n_bytes, 0);
            MPI_Comm_free(&fillers);
        }
        st = bg_agree(comm, bg_shared_ready(*out, BG_OK, err), err);
    }
    MPI_Comm_free(&node);
    if (st != BG_OK) {
        bg_shared_free(*out);
        *out = NULL;
    }
    return st;
}

void bg_shared_free(bg_shared *s)
{
    if (s == NULL)
        return;
    if (s->mapped)
        munmap(s->data, s->n_bytes);
    else
        bg_free(s->data);
    bg_free(s);
}
