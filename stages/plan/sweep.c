/* sweep.c - units of micro-batches through a grid; parts of units in progress, the warning that a job needs before its
 * time limit, and restarts. */
#include <math.h>
#include <stdio.h>

#include "bregman/sweep.h"
#include "plan.h"

static double larger(double a, double b) { return a > b ? a : b; }

plan_batches plan_batches_of(size_t unit, size_t sequence_rows, size_t max_rows)
{
    size_t fit = max_rows / sequence_rows, n = fit < 1 ? 1 : fit < unit ? fit : unit;
    return (plan_batches){ n, n * sequence_rows, unit / n, unit % n };
}

/* A column runs its units as one stream: every batch takes as long as the slowest rank, and at the stream's ends the
 * others wait (pipeline.h); columns wait for the one with most units. */
void plan_sweep(plan_phase *out, const plan_grid *g, size_t units, const plan_batches *b, const plan_rank_cost *rank,
                double message_s)
{
    double per_column = (double)((units + g->data - 1) / g->data), slowest = 0, way = 0, busy = 0, file = 0, part = 0;
    size_t last = 0;
    for (size_t r = 0; r < g->pipeline; r++) {
        double unit_s = (double)b->whole * rank[r].whole_s + rank[r].rest_s + rank[r].unit_end_s + rank[r].solve_s;
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

/* ---- checkpoints and stops ---- */

/* The first is due after so many minutes. */
void plan_count_parts(plan_phase *p, size_t passes, double minutes)
{
    double n = (double)passes, sweep_s = p->seconds, pass_s = sweep_s / n, first_s = 60 * minutes;
    p->unit_s /= n;
    p->stop_s /= n;
    p->checkpoint_s /= n;
    p->interval_s = bg_sweep_interval_s(first_s, p->checkpoint_s);
    p->checkpoints = first_s > 0 && pass_s > first_s ? n * (1 + floor((pass_s - first_s) / p->interval_s)) : 0;
    p->seconds += p->checkpoints * p->checkpoint_s;
    p->idle = p->seconds > 0 ? 1 - (1 - p->idle) * sweep_s / p->seconds : 0;
}

/* Of a unit's parts the last two stay. */
double plan_parts_alive(const plan_phase *p)
{
    double of_unit = p->interval_s > 0 ? 1 + floor(p->unit_s / p->interval_s) : 0;
    double alive = of_unit < p->checkpoints ? of_unit : p->checkpoints;
    return alive < 2 ? alive : 2;
}

/* What is begun when the warning comes is ended first: micro-batches on their way, a diagonal block, the final files.
 * Every job, a shard's too, works until it is warned, and then begins anew in another allocation. */
void plan_count_restarts(plan_stage *s, double limit_hours)
{
    s->stop_s = s->final_s;
    for (size_t i = 0; i < s->n_phases; i++)
        s->stop_s = larger(s->stop_s, s->phase[i].stop_s);
    s->warning_s = ceil(s->stop_s + PLAN_MARGIN_S);
    double limit_s = 3600 * limit_hours, work_s = s->job_s - s->start_s;
    double first_s = limit_s - s->warning_s - s->start_s, next_s = limit_s - s->warning_s - s->resume_s;
    if (limit_s <= 0 || work_s <= first_s)
        return;
    if (first_s <= 0 || next_s <= 0) {
        s->possible = false;
        snprintf(s->why_not, sizeof s->why_not,
                 "--time-limit %g hours is no more than it takes to begin (%.0f s) and to be "
                 "warned before the end (%.0f s)",
                 limit_hours, larger(s->start_s, s->resume_s), s->warning_s);
        return;
    }
    double waves = s->seconds / s->job_s;
    s->restarts = ceil((work_s - first_s) / next_s);
    s->restart_s = s->resume_s + s->warning_s;
    s->job_s += s->restarts * s->restart_s;
    s->seconds = waves * s->job_s;
}
