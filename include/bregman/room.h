/* room.h - room for large sums, in memory or on a scratch disk. */
#ifndef BG_ROOM_H
#define BG_ROOM_H

#include <stdbool.h>
#include <stddef.h>

#include "bregman/status.h"

/* Room for n_bytes, zeroed, in memory, or in an unlinked file of a scratch folder that is mapped: the system then writes
 * out and reads back what memory does not hold.  Errors: BG_ENOMEM; BG_EIO naming the folder (its room is
 * taken at once, so that a full disk shows here and not as a signal later). */
typedef struct {
    float *x;
    size_t n_bytes;
    bool on_disk;
} bg_room;
bg_status bg_room_new(bg_room *out, size_t n_bytes, const char *scratch, const char *what, bg_err *err) BG_MUST_CHECK;
void bg_room_free(bg_room *r);
void bg_room_clear(const bg_room *r);
/* A part of it is not needed for a while: its pages may leave memory (on disk only). */
void bg_room_let_go(const bg_room *r, const float *from, size_t n_floats);

#endif /* BG_ROOM_H */
