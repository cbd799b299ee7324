/* mean.c - how long something takes. */
#include "bregman/log.h"
#include "measures.h"

static const double MEASURE_S = 0.25;

double calibrate_mean_s(void (*call)(void *self), void *self, MPI_Comm world)
{
    int size, calls = 0;
    double mean, start;
    call(self); /* memory is there, threads are */
    MPI_Barrier(world);
    start = bg_now_s();
    while (calls < 3 || bg_now_s() - start < MEASURE_S) {
        call(self);
        calls++;
    }
    mean = (bg_now_s() - start) / calls;
    MPI_Comm_size(world, &size);
    MPI_Allreduce(MPI_IN_PLACE, &mean, 1, MPI_DOUBLE, MPI_SUM, world);
    return mean / size;
}
