/* sweep.c - units of micro-batches through a grid. */
#include "plan.h"

static double larger(double a, double b) { return a > b ? a : b; }

plan_batches plan_batches_of(size_t unit, size_t sequence_rows, size_t max_rows)
{
    size_t fit = max_rows / sequence_rows, n = fit < 1 ? 1 : fit < unit ? fit : unit;
    return (plan_batches){ n, n * sequence_rows, unit / n, unit % n };
}

size_t plan_column_batches(const plan_grid *g, size_t units, const plan_batches *b)
{
    return (units + g->data - 1) / g->data * (b->whole + (b->rest > 0));
}

/* A column runs its units as one stream: every batch takes as long as the slowest rank, and at the stream's ends the
 * others wait (pipeline.h); columns wait for the one with most units. */
void plan_sweep(plan_phase *out, const plan_grid *g, size_t units, const plan_batches *b, const plan_rank_cost *rank,
                double message_s)
{
    double per_column = (double)((units + g->data - 1) / g->data), slowest = 0, way = 0, busy = 0, file = 0, part = 0;
    size_t last = 0;
    for (size_t r = 0; r < g->pipeline; r++) {
        double unit_s = (double)b->whole * rank[r].whole_s + rank[r].rest_s + rank[r].unit_end_s;
        busy += unit_s;
        way += rank[r].whole_s;
        file = larger(file, rank[r].unit_end_s);
        part = larger(part, rank[r].part_s);
        if (unit_s > slowest) {
            slowest = unit_s;
            last = r;
        }
    }
    double fill = way - rank[last].whole_s, batches = (double)b->whole + (b->rest > 0 ? 1 : 0);
    double messages = g->pipeline > 1 ? message_s * batches : 0,
           there_and_back = 2 * message_s * (double)(g->pipeline - 1);
    out->seconds = per_column * (slowest + messages) + fill;
    out->unit_s = slowest + messages;
    out->stop_s = way + there_and_back + file;
    out->checkpoint_s = fill + part;
    double all = out->seconds * (double)g->pipeline * (double)g->data;
    out->idle = all > 0 ? 1 - busy * (double)units / all : 0;
}
