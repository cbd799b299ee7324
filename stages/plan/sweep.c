/* sweep.c - what the stages' costs share: the pipeline's time, disk, messages, memory limits. */
#include <omp.h>

#include "bregman/memory.h"
#include "bregman/pipeline.h"
#include "plan.h"

static double larger(double a, double b) { return a > b ? a : b; }

/* A column runs its units as one stream: every batch takes as long as the slowest rank, and at the stream's ends the
 * others wait (pipeline.h); columns wait for the one with most units. */
plan_sweep_time plan_sweep(const plan_grid *g, size_t units, const plan_batches *b, const plan_rank_cost *rank,
                           double message_s)
{
    double per_column = (double)((units + g->data - 1) / g->data), slowest = 0, way = 0, busy = 0, file = 0, part = 0;
    size_t last = 0;
    for (size_t r = 0; r < g->pipeline; r++) {
        double unit_s = (double)b->whole * rank[r].whole.seconds + rank[r].rest.seconds + rank[r].unit_end_s;
        busy += unit_s;
        way += b->whole > 0 ? rank[r].whole.seconds : rank[r].rest.seconds;
        file = larger(file, rank[r].unit_end_s);
        part = larger(part, rank[r].part_s);
        if (unit_s > slowest) {
            slowest = unit_s;
            last = r;
        }
    }
    double fill = way - (b->whole > 0 ? rank[last].whole.seconds : rank[last].rest.seconds);
    double batches = (double)b->whole + (b->rest > 0 ? 1 : 0);
    double messages = g->pipeline > 1 ? message_s * batches : 0,
           there_and_back = 2 * message_s * (double)(g->pipeline - 1);
    plan_sweep_time t = { .seconds = per_column * (slowest + messages) + fill,
                          .unit_s = slowest + messages,
                          .fill_s = fill,
                          .stop_s = way + there_and_back + file,
                          .part_s = part };
    double all = t.seconds * (double)g->pipeline * (double)g->data;
    t.idle = all > 0 ? 1 - busy * (double)units / all : 0;
    return t;
}

size_t plan_column_batches(const plan_grid *g, size_t units, const plan_batches *b)
{
    return (units + g->data - 1) / g->data * (b->whole + (b->rest > 0));
}

double plan_message_s(const plan_cluster *c, const plan_profile *p, const plan_grid *g, double bytes)
{
    double of_node = c->network_gb_s > 0 && g->nodes > 1 ? (double)g->ranks_per_node / (c->network_gb_s * 1e9) : 0;
    return p->message_s + bytes * larger(p->message_byte_s, of_node);
}

static double disk_byte_s(const plan_cluster *c, double ranks, double byte_s)
{
    return larger(byte_s, c->disk_gb_s > 0 ? ranks / (c->disk_gb_s * 1e9) : 0);
}

double plan_ranks(const plan_cluster *c, const plan_grid *g)
{
    return (double)(g->shards > 0 ? c->nodes / g->nodes : 1) * (double)g->data * (double)g->pipeline;
}

double plan_write_s(const plan_cluster *c, const plan_profile *p, double ranks, double bytes, double files)
{
    return files * p->s[BG_COST_FILE] + bytes * disk_byte_s(c, ranks, p->s[BG_COST_WRITE]);
}

double plan_read_s(const plan_cluster *c, const plan_profile *p, double ranks, double bytes)
{
    return bytes * disk_byte_s(c, ranks, p->s[BG_COST_READ]);
}

/* ---- disk ---- */

/* A chunk of 1 MiB has its Fletcher-32 and its place in a B-tree; a dataset its header, attributes and the tree. */
double plan_dataset_bytes(double elements, double element_bytes)
{
    double bytes = elements * element_bytes;
    return bytes + (double)(size_t)(bytes / 1048576 + 1) * 60 + 3000;
}

double plan_file_bytes(void) { return 12000; }

/* ---- memory ---- */

double plan_share_bytes(const bg_model *m, const bg_share *s)
{
    double bytes = s->embeds ? (double)m->embedding->n_bytes : 0;
    if (s->has_head && (m->head != m->embedding || !s->embeds))
        bytes += (double)m->head->n_bytes;
    for (size_t i = 0; i < m->n_sites; i++)
        if (m->site[i].block >= s->first && m->site[i].block < s->end)
            bytes += (double)m->site[i].weight->n_bytes;
    return bytes;
}

size_t plan_pass_bytes(const bg_model *m, const plan_grid *g, const bg_share *share, size_t r, size_t rows,
                       size_t batches)
{
    int rank = (int)r, size = (int)g->pipeline;
    size_t depth = bg_pipeline_depth(rank, size), messages = bg_pipeline_bytes(m, rank, size, rows);
    if (rank == 0 && batches != SIZE_MAX)
        messages = messages / (depth + 3) * 2; /* nobody sends it activations */
    return bg_pass_bytes(m, share, depth < batches ? depth : batches, rows, BG_LOGITS_BYTES) + messages;
}

/* Ranks of a node share the weights they map; consecutive ranks are of one place in the pipeline (comm.h), so a node
 * maps ranks_per_node / data shares, and one more where they don't begin with the node. */
uint64_t plan_memory_limit(const plan_work *w, const plan_cluster *c, const plan_grid *g)
{
    if (w->c->memory_limit > 0)
        return w->c->memory_limit;
    if (c->memory_gb_per_node <= 0)
        return UINT64_MAX;
    double places = (double)((g->ranks_per_node + g->data - 1) / g->data) + (g->data % g->ranks_per_node != 0 ? 1 : 0);
    places = places > (double)g->pipeline ? (double)g->pipeline : places;
    double weights = w->model_bytes * places / (double)g->pipeline;
    double room = 0.92 * c->memory_gb_per_node * 1e9 - weights - (double)g->ranks_per_node * c->profile.process_bytes;
    return room > 0 ? (uint64_t)(room / (double)g->ranks_per_node) : 1;
}

bool plan_budget(const plan_grid *g, const plan_cluster *c, const bg_demand *d, bg_plan *out, double *needs)
{
    const bg_context ctx = { .grid = { .world = MPI_COMM_SELF, .world_size = 1, .data_size = 1, .pipeline_size = 1 },
                             .memory_limit = g->memory_limit,
                             .scratch = c->scratch ? "" : NULL };
    omp_set_num_threads((int)g->threads); /* bg_pass_bytes counts the threads' own buffers */
    bg_status st = bg_budget_choose(d, &ctx, out, NULL);
    *needs = st == BG_OK ? 0 : (double)d->bytes(d->self, out);
    return st == BG_OK;
}

void plan_cost_stage(const plan_method *of, const plan_work *w, const plan_cluster *c, const plan_grid *g,
                     plan_stage *out)
{
    size_t rows = bg_pass_rows_for(w->model, of->tokens, of->activation_bytes);
    *out = (plan_stage){ .name = of->name, .grid = *g };
    plan_costing f = { .w = w, .g = &out->grid, .c = c, .out = out };
    bg_err err = { .msg = "" };
    f.profile = plan_profile_scaled(&c->profile, (double)g->threads);
    bg_status st = BG_NEW(f.share, g->pipeline, "shares of the model", &err);
    if (st == BG_OK)
        st = BG_NEW(f.rank, g->pipeline, "pipeline", &err);
    if (st == BG_OK)
        st = bg_model_divide(w->model, g->pipeline, NULL, f.share, &err);
    if (st == BG_OK) {
        const bg_demand d = { .best = { .rows = rows, .passes = 1 },
                              .least_rows = of->tokens - 1,
                              .most_passes = 1,
                              .self = &f,
                              .bytes = of->bytes };
        out->grid.memory_limit = plan_memory_limit(w, c, g);
        out->possible = plan_budget(&out->grid, c, &d, &out->plan, &out->needs_bytes);
    } else {
        snprintf(out->why_not, sizeof out->why_not, "%.190s", err.msg);
    }
    if (out->possible)
        of->cost(&f);
    bg_free(f.share);
    bg_free(f.rank);
}

size_t plan_sharers(const plan_grid *g) { return g->ranks_per_node < g->data ? g->ranks_per_node : g->data; }
