/* refine.c - with --refine: the gradients of a unit's queries are kept whole, solved for together, and then truncated. */
#include <math.h>
#include <string.h>

#include "bregman/log.h"
#include "bregman/memory.h"
#include "bregman/refine.h"
#include "compress_queries.h"

struct compress_refine {
    const compress_inputs *in;
    const compress_plan *plan;
    compress_unit *unit;
    compress_tap *tap;
    bg_batch **batch; /* [n_batches] of the sequences whose curvature it is */
    size_t n_batches;
    bg_pass *pass; /* a pass of its own: the sweep's holds queries that are on their way */
    bg_gauss_newton *matrix;
    const bg_curvature *curvature; /* [n_tracked] */
    size_t n;                      /* queries of the unit that are not refined yet */
    uint64_t first;                /* the first of them */
    float **vectors;               /* [unit_queries] */
    double *residual;              /* [unit_queries, steps + 1] */
    const char **name;             /* [unit_queries] */
    float *room;
};

static size_t longest(const compress_inputs *in, const compress_refinement *r)
{
    return bg_tokens_longest(in->refine_tokens, r->sequences.begin, r->sequences.end);
}

bg_refine_load compress_refine_load(const compress_inputs *in, const compress_refinement *r)
{
    if (r->kind == BG_REFINE_NONE)
        return (bg_refine_load){ .kind = BG_REFINE_NONE };
    uint64_t rows = 0;
    for (uint64_t z = r->sequences.begin; z < r->sequences.end; z++)
        rows += bg_tokens_count(in->refine_tokens, z) - 1;
    return (bg_refine_load){ r->kind, r->steps, r->sequences.end - r->sequences.begin, rows, longest(in, r) };
}

/* ---- the sequences ---- */

static bg_status add_tokens(compress_refine *r, uint64_t sequence, const uint32_t *token, size_t n, bg_err *err)
{
    size_t rows = bg_pass_max_rows(r->pass);
    if (r->n_batches > 0 && bg_batch_add(r->batch[r->n_batches - 1], sequence, token, n, 0))
        return BG_OK;
    bg_status st = bg_batch_new(&r->batch[r->n_batches], rows, rows, err);
    if (st == BG_OK)
        (void)bg_batch_add(r->batch[r->n_batches++], sequence, token, n, 0); /* the pass has room for the longest */
    return st;
}

/* token, mark: room for one. */
static bg_status read_sequence(compress_refine *r, uint64_t z, uint32_t *token, uint8_t *mark, bg_err *err)
{
    const bg_tokens *t = r->in->refine_tokens;
    bg_status st = bg_tokens_read(t, z, z + 1, r->in->model->config.vocab_size, token, err);
    if (st == BG_OK)
        st = bg_tokens_read_marks(t, z, z + 1, mark, err);
    if (st == BG_OK)
        st = add_tokens(r, z, token, bg_tokens_count(t, z), err);
    if (st == BG_OK && !bg_batch_mark(r->batch[r->n_batches - 1], mark))
        st = bg_tokens_fail_masked(t, z, err);
    return st;
}

static bg_status read_sequences(compress_refine *r, bg_err *err)
{
    const bg_range of = r->plan->refine.sequences;
    uint32_t *token = NULL;
    uint8_t *mark = NULL;
    bg_status st = BG_NEW(token, longest(r->in, &r->plan->refine), "tokens", err);
    if (st == BG_OK)
        st = BG_NEW(mark, longest(r->in, &r->plan->refine), "marks of tokens", err);
    if (st == BG_OK)
        st = BG_NEW(r->batch, of.end - of.begin, "micro-batches", err);
    for (uint64_t z = of.begin; z < of.end && st == BG_OK; z++)
        st = read_sequence(r, z, token, mark, err);
    bg_free(token);
    bg_free(mark);
    return st;
}

/* ---- memory ---- */

static bg_status take_vectors(compress_refine *r, bg_err *err)
{
    const bg_model *m = r->in->model;
    size_t n = r->plan->units.unit_sequences;
    bg_status st = BG_NEW(r->vectors, n, "queries' gradients", err);
    for (size_t i = 0; i < n && st == BG_OK; i++)
        st = BG_NEW(r->vectors[i], BG_REFINE_VECTORS * bg_vector_floats(m), "queries' gradients", err);
    if (st == BG_OK)
        st = BG_NEW(r->residual, n * (r->plan->refine.steps + 1), "residuals", err);
    if (st == BG_OK)
        st = BG_NEW(r->name, n, "queries' names", err);
    return st == BG_OK ? BG_NEW(r->room, bg_refine_room_floats(m), "refined solve", err) : st;
}

enum { LEAST_DAMPING = 10 }; /* mean eigenvalues of a module */

/* Against the diagonal of a module's curvature, which the damping is a multiple of, or that is given in itself. */
static void warn_of_damping(const compress_refine *r)
{
    const bg_model *m = r->in->model;
    size_t low = 0;
    for (size_t k = 0; k < m->n_tracked; k++) {
        const bg_curvature *c = &r->curvature[k];
        double sum = 0;
        for (size_t i = 0; i < c->p * c->m; i++)
            sum += (double)c->c[i];
        low += c->lambda < 0.999 * LEAST_DAMPING * sum / (double)(c->p * c->m);
    }
    if (low > 0)
        bg_log("warning: the damping is below %d mean eigenvalues in %zu of %zu modules: there a refined solve has been "
               "worse than none; give more by --refine-damping-factor or --damping",
               LEAST_DAMPING, low, m->n_tracked);
}

static bg_status take_curvature(compress_refine *r, bg_err *err)
{
    bg_status st = compress_tap_read_all(r->tap, &r->curvature, err);
    if (st == BG_OK)
        warn_of_damping(r);
    return st;
}

bg_status compress_refine_new(compress_refine **out, const compress_inputs *in, const compress_plan *plan,
                              compress_unit *unit, compress_tap *tap, bg_err *err)
{
    size_t rows = plan->batches.rows, least = longest(in, &plan->refine);
    bg_status st = BG_NEW(*out, 1, "refined solve", err);
    if (st != BG_OK)
        return st;
    compress_refine *r = *out;
    *r = (compress_refine){ .in = in, .plan = plan, .unit = unit, .tap = tap };
    st = bg_pass_new(&r->pass, in->model, NULL, 1, rows > least ? rows : least, BG_LOGITS_BYTES, err);
    if (st == BG_OK)
        st = read_sequences(r, err);
    if (st == BG_OK)
        st = bg_gauss_newton_new(&r->matrix, in->model, r->pass, r->batch, r->n_batches, err);
    if (st == BG_OK)
        st = take_vectors(r, err);
    return st == BG_OK ? take_curvature(r, err) : st;
}

void compress_refine_free(compress_refine *r)
{
    if (r == NULL)
        return;
    for (size_t i = 0; i < r->n_batches; i++)
        bg_batch_free(r->batch[i]);
    for (size_t i = 0; r->vectors != NULL && i < r->plan->units.unit_sequences; i++)
        bg_free(r->vectors[i]);
    bg_free(r->batch);
    bg_free(r->vectors);
    bg_free(r->residual);
    bg_free(r->name);
    bg_free(r->room);
    bg_gauss_newton_free(r->matrix);
    bg_pass_free(r->pass);
    bg_free(r);
}

/* ---- a unit ---- */

static bg_status begin_unit(void *self, const bg_unit *unit, uint64_t part, bg_err *err)
{
    compress_refine *r = self;
    r->n = 0;
    r->first = unit->first + part;
    return compress_unit_begin(r->unit, unit, part, err);
}

static void begin_batch(void *self, const bg_batch *batch, uint64_t first)
{
    compress_refine *r = self;
    (void)first;
    for (size_t z = 0; z < batch->n_sequences; z++) {
        memset(r->vectors[r->n], 0, bg_vector_floats(r->in->model) * sizeof(float));
        r->name[r->n++] = bg_tokens_query_id(r->in->queries, batch->sequence[z]);
    }
}

static bg_status keep_gradient(void *self, const bg_pair *pair, bg_err *err)
{
    const compress_refine *r = self;
    size_t at = bg_vector_offset(r->in->model, pair->site);
    (void)err;
    for (size_t z = 0; z < pair->batch->n_sequences; z++) {
        size_t r0, rows = bg_pair_rows_of(pair, z, &r0);
        bg_pair_add_gradient(pair, r0, rows, r->vectors[pair->batch->sequence[z] - r->first] + at);
    }
    return BG_OK;
}

static bg_status solve(const compress_refine *r, bg_err *err)
{
    const compress_refinement *how = &r->plan->refine;
    const bg_refine_task task = { how->kind, r->in->model, r->matrix,  r->curvature, how->steps,
                                  r->n,      r->name,      r->vectors, r->room };
    bg_status st = bg_refine(&task, r->residual, err);
    for (size_t i = 0; i < r->n && st == BG_OK; i++) {
        double left = r->residual[i * (how->steps + 1) + how->steps];
        if (left > 0.9)
            bg_log("warning: query %s: %zu steps leave %.2g of the residual: the solve stagnates; give more "
                   "--refine-damping-factor, or more --refine-steps",
                   r->name[i], how->steps, left);
    }
    return st;
}

static bg_status write_query(const compress_refine *r, size_t i, bg_err *err)
{
    const bg_model *m = r->in->model;
    bg_status st = compress_unit_write_residual(r->unit, r->first + i, r->residual + i * (r->plan->refine.steps + 1),
                                                err);
    for (size_t k = 0; k < m->n_tracked && st == BG_OK; k++) {
        const bg_site *site = m->tracked[k];
        float *turned = r->room + site->n_out * site->n_in1;
        if (!compress_unit_wants(r->unit, site))
            continue;
        bg_curvature_rotate(&r->curvature[k], r->vectors[i] + bg_vector_offset(m, site), r->room, turned);
        st = compress_truncate(r->tap, &r->curvature[k], site, r->first + i, turned, (double)NAN, err);
    }
    return st;
}

/* Solve for the queries so far, and publish them. */
static bg_status keep_unit(void *self, const bg_unit *unit, uint64_t part, bg_pipeline *l, bg_err *err)
{
    compress_refine *r = self;
    bg_status st = r->n > 0 ? solve(r, err) : BG_OK;
    for (size_t i = 0; i < r->n && st == BG_OK; i++)
        st = write_query(r, i, err);
    r->first += r->n;
    r->n = 0;
    return st == BG_OK ? compress_unit_keep(r->unit, unit, part, l, err) : st;
}

static bg_status end_unit(void *self, const bg_unit *unit, bg_pipeline *l, bg_err *err)
{
    return keep_unit(self, unit, unit->n_sequences, l, err);
}

static bg_status find_units(void *self, bool *done, uint64_t *part, bg_err *err)
{
    return compress_unit_find(((compress_refine *)self)->unit, done, part, err);
}

static bg_status keep_losses(void *self, const bg_batch *batch, const float *loss, bg_err *err)
{
    return compress_unit_losses(((compress_refine *)self)->unit, batch, loss, err);
}

void compress_refine_serve(compress_refine *r, bg_sweep *s)
{
    s->tap = (bg_tap){ keep_gradient, r, BG_WANTS_MAPS };
    s->self = r;
    s->find = find_units;
    s->begin_unit = begin_unit;
    s->begin_batch = begin_batch;
    s->end_unit = end_unit;
    s->keep_part = keep_unit;
    s->losses = keep_losses;
}
