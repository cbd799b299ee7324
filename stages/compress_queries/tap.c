/* tap.c - of each query and module a gradient, in the eigenbasis preconditioned and truncated there. */
#include "bregman/memory.h"
#include "compress_queries.h"

struct compress_tap {
    const compress_inputs *in;
    const compress_plan *plan;
    compress_unit *unit;
    float *array[FACTORS];
    bg_curvature *held; /* [n_tracked] factors in memory; p is 0 of those that are not */
    bool *holds;        /* [n_tracked] they stay there once they are read */
};

/* The module's curvature, which let_go is told of when it has been used. */
static bg_status get(compress_tap *t, const bg_site *site, const bg_curvature **out, bg_err *err)
{
    bg_curvature *c = &t->held[site->index];
    *out = c;
    return c->p > 0 ? BG_OK : bg_curvature_read(t->in->factors, site, t->plan->damping, c, err);
}

static void let_go(compress_tap *t, const bg_site *site)
{
    if (!t->holds[site->index])
        bg_curvature_clear(&t->held[site->index]);
}

/* ---- the tap ---- */

bg_status compress_tap_new(compress_tap **out, const compress_inputs *in, const compress_plan *plan,
                           compress_unit *unit, bg_err *err)
{
    size_t floats[ARRAYS];
    compress_tap *t = NULL;
    bg_status st = BG_NEW(t, 1, "query gradient", err);
    if ((*out = t) == NULL)
        return st;
    *t = (compress_tap){ .in = in, .plan = plan, .unit = unit };
    compress_floats(&plan->load, bg_workload_share(&plan->load)->sites, plan->batches.rows, floats);
    for (int i = 0; i < FACTORS && st == BG_OK; i++)
        st = BG_NEW(t->array[i], floats[i], "query gradient", err);
    if (st == BG_OK)
        st = BG_NEW(t->held, in->model->n_tracked, "factors", err);
    if (st == BG_OK)
        st = BG_NEW(t->holds, in->model->n_tracked, "factors", err);
    if (st == BG_OK)
        (void)compress_hold(&plan->load, plan->factor_room, t->holds);
    return st;
}

void compress_tap_free(compress_tap *t)
{
    if (t == NULL)
        return;
    for (size_t i = 0; t->held != NULL && i < t->in->model->n_tracked; i++)
        bg_curvature_clear(&t->held[i]);
    for (int i = 0; i < FACTORS; i++)
        bg_free(t->array[i]);
    bg_free(t->held);
    bg_free(t->holds);
    bg_free(t);
}

bg_status compress_truncate(compress_tap *t, const bg_curvature *c, const bg_site *site, uint64_t query,
                            const float *gradient, double sampling, bg_err *err)
{
    const bg_truncation wanted = { gradient, bg_queries_columns(site, t->plan->load.columns), t->plan->tolerance,
                                   t->plan->seed, query * t->in->model->n_tracked + site->index };
    bg_compressed made = { .left = t->array[LEFT], .right = t->array[RIGHT] };
    bg_status st = bg_compress(c, &wanted, t->array[SCRATCH], &made, err);
    float kept = made.variance > 0 ? (float)(1.0 - made.error / made.variance) : 1.0f;
    compressed_query q = { made.left, made.right, kept, made.error, made.variance, sampling, (uint32_t)made.needed };
    return st == BG_OK ? compress_unit_write(t->unit, site, query, &q, err) : st;
}

bg_status compress_tap_read_all(compress_tap *t, const bg_curvature **out, bg_err *err)
{
    const bg_curvature *one;
    bg_status st = BG_OK;
    for (size_t i = 0; i < t->in->model->n_tracked && st == BG_OK; i++)
        st = get(t, t->in->model->tracked[i], &one, err);
    *out = t->held;
    return st;
}

/* Query z of the micro-batch, of which the pair may have no row. */
static bg_status compress_query(compress_tap *t, const bg_curvature *c, const bg_pair *pair, size_t z, bg_err *err)
{
    size_t r0, rows = bg_pair_rows_of(pair, z, &r0);
    bg_pair_gradient(pair, r0, rows, t->array[GRADIENT]);
    bg_curvature_divide(c, t->array[GRADIENT]);
    return compress_truncate(t, c, pair->site, pair->batch->sequence[z], t->array[GRADIENT],
                             bg_curvature_sampling_variance(c, t->array[GRADIENT]), err);
}

/* Rotate the rows of all queries, then make each query's gradient, preconditioned and truncated in the eigenbasis (a
 * truncation there is one in the parameters' basis, the bases being orthogonal). */
bg_status compress_pair(void *self, const bg_pair *pair, bg_err *err)
{
    compress_tap *t = self;
    const bg_site *site = pair->site;
    bg_pair in = *pair; /* in the curvature's basis */
    const bg_rotated room = { t->array[ROTATED_A], t->array[ROTATED_D] };
    const bg_curvature *c;
    if (!compress_unit_wants(t->unit, site))
        return BG_OK;
    bg_status st = get(t, site, &c, err);
    if (st == BG_OK && c->rotated)
        in = bg_eigenbasis_rotate(&c->factors.basis, pair, &room, false);
    for (size_t z = 0; z < pair->batch->n_sequences && st == BG_OK; z++)
        st = compress_query(t, c, &in, z, err);
    let_go(t, site);
    return st;
}
