/* notice.h - a word that reaches all ranks of a communicator while they work.
 *
 * Small reductions (MPI_Iallreduce, of two ints) follow one another for as long as the ranks work, each posted ahead of
 * need and looked at in between.  All ranks see the same results in the same order.  So however many ranks speak at
 * once, there are no more messages; all know together when all are through; and nothing is left on its way then. A word
 * needs two rounds at most, the one under way and its own.  A round takes as long as the rank that looks least often: a
 * product of a pass, or one file's writing.  Cost of a look: an MPI_Test. */
#ifndef BG_NOTICE_H
#define BG_NOTICE_H

#include <mpi.h>
#include <stdbool.h>

/* The greatest that any rank says is heard. */
typedef enum { BG_NOTICE_NONE, BG_NOTICE_END, BG_NOTICE_FAILED } bg_word;

/* Not to be moved between begin and the end: MPI holds its address. */
typedef struct {
    MPI_Comm comm;
    MPI_Request round;     /* under way; MPI_REQUEST_NULL when over */
    int said[2], found[2]; /* the greatest word, and whether any rank is not through yet */
    bg_word mine, heard;
    bool through;
} bg_notice;

/* Local, but every rank must come to it, and in the same order with other collectives of comm: the first round is
 * posted. */
void bg_notice_begin(bg_notice *n, MPI_Comm comm);
/* What this rank has to say, from the next round on.  Local. */
void bg_notice_say(bg_notice *n, bg_word word);
/* Look, and give the greatest word that has come.  Local. */
bg_word bg_notice_heard(bg_notice *n);
/* This rank needs no word any more, though it may still say one.  Local. */
void bg_notice_through(bg_notice *n);
/* Look; true once all ranks are through: the notice is over, and other collectives of comm may follow. */
bool bg_notice_over(bg_notice *n);

/* For who waits with MPI_Waitany for n->round too, and found that complete. */
void bg_notice_turn(bg_notice *n);

#endif /* BG_NOTICE_H */
