#include "bregman/notice.h"

static void post(bg_notice *n)
{
    n->said[0] = (int)n->mine;
    n->said[1] = !n->through;
    MPI_Iallreduce(n->said, n->found, 2, MPI_INT, MPI_MAX, n->comm, &n->round);
}

void bg_notice_begin(bg_notice *n, MPI_Comm comm)
{
    *n = (bg_notice){ .comm = comm };
    post(n);
}

void bg_notice_turn(bg_notice *n)
{
    n->round = MPI_REQUEST_NULL;
    if (n->found[0] > (int)n->heard)
        n->heard = (bg_word)n->found[0];
    if (n->found[1])
        post(n);
}

static void look(bg_notice *n)
{
    int complete;
    if (n->round == MPI_REQUEST_NULL)
        return;
    MPI_Test(&n->round, &complete, MPI_STATUS_IGNORE);
    if (complete)
        bg_notice_turn(n);
}

void bg_notice_say(bg_notice *n, bg_word word)
{
    if (word > n->mine)
        n->mine = word;
}

bg_word bg_notice_heard(bg_notice *n)
{
    look(n);
    return n->heard;
}

void bg_notice_through(bg_notice *n) { n->through = true; }

bool bg_notice_over(bg_notice *n)
{
    look(n);
    return n->round == MPI_REQUEST_NULL;
}
