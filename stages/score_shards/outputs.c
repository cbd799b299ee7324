/* outputs.c - with --attribution output: how each predicted token's loss moves along the compressed queries (M14), of
 * the queries that rank some sequence of the micro-batch. */
#include "bregman/memory.h"
#include "bregman/tangent.h"
#include "scoring.h"

struct outputs {
    scoring *w;
    bg_tangent *tangent;
    bg_direction *direction; /* [n_tracked] of the query in hand */
    size_t *query;           /* [n_queries] those of the micro-batch; */
    size_t n;                /* so many */
    float *loss;             /* [n_queries, max_rows] of each on the pipeline's last rank */
};

bg_status score_outputs_open(scoring *w, bg_err *err)
{
    const bg_model *m = w->in.model;
    size_t queries = w->plan.extent.n_queries;
    bg_status st = BG_NEW(w->made.outputs, 1, "directions", err);
    if (st != BG_OK)
        return st;
    outputs *o = w->made.outputs;
    o->w = w;
    st = bg_tangent_new(&o->tangent, w->made.pass, w->plan.extent.columns / queries, err);
    if (st == BG_OK)
        st = BG_NEW(o->direction, m->n_tracked, "directions", err);
    if (st == BG_OK)
        st = BG_NEW(o->query, queries, "directions", err);
    return st == BG_OK ? BG_NEW(o->loss, queries * bg_pass_max_rows(w->made.pass), "losses along queries", err) : st;
}

void score_outputs_close(outputs *o)
{
    if (o == NULL)
        return;
    bg_tangent_free(o->tangent);
    bg_free(o->direction);
    bg_free(o->query);
    bg_free(o->loss);
    bg_free(o);
}

float *score_outputs_stream(const outputs *o, int which) { return bg_tangent_stream(o->tangent, which); }

size_t score_outputs_choose(void *self, const bg_batch *batch, uint64_t index)
{
    const scoring *w = self;
    outputs *o = w->made.outputs;
    o->n = score_explain_queries(w, index, index + batch->n_sequences, o->query);
    return o->n;
}

static void set_direction(outputs *o, size_t query)
{
    const scoring *w = o->w;
    const bg_queries *all = w->made.queries;
    const bg_site_range sites = bg_workload_share(&w->plan.load)->sites;
    for (size_t i = sites.first; i < sites.end; i++) {
        size_t r = all->site[i].r, a_group = bg_queries_in_group(r, all->extent.n_queries);
        const bg_query_group g = bg_queries_group(all, w->in.model->tracked[i], query / a_group * a_group);
        size_t at = (query - g.first) * g.r;
        o->direction[i] = (bg_direction){ g.r, g.u + at, g.v + at, g.n * g.r, g.n * g.r };
    }
}

bg_status score_outputs_along(void *self, const bg_batch *batch, size_t slot, size_t k, float *x, bg_err *err)
{
    const scoring *w = self;
    outputs *o = w->made.outputs;
    const bg_along along = { slot, batch, o->direction };
    set_direction(o, o->query[k]);
    bg_status st = bg_tangent_forward(o->tangent, &along, x, err);
    if (st == BG_OK && bg_workload_share(&w->plan.load)->has_head)
        st = bg_tangent_loss(o->tangent, &along, x, o->loss + k * bg_pass_max_rows(w->made.pass), err);
    return st;
}

/* A forward pass of the pipeline's last rank is followed by its backward pass: these are of the same batch. */
void score_outputs_keep(const outputs *o)
{
    const scoring *w = o->w;
    for (size_t k = 0; k < o->n && bg_workload_share(&w->plan.load)->has_head; k++)
        bg_score_sums_outputs(w->made.sums, o->query[k], o->loss + k * bg_pass_max_rows(w->made.pass));
}
