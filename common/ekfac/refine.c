#include "bregman/refine.h"

#include <math.h>
#include <string.h>

#include "bregman/log.h"
#include "bregman/memory.h"

const char *const bg_refinement_word[] = { "none", "cg", "lissa", NULL };

/* A query's vectors: the solution, the residual, the direction, and a product or the preconditioned residual. */
typedef struct {
    float *x, *r, *d, *s;
    double norm, square; /* of the residual: at the start, and in the preconditioner's norm squared */
} query;

typedef struct {
    const bg_refine_task *t;
    size_t floats;
    query *q;          /* [n] */
    float **in, **out; /* [n] of a product */
    double *residual;  /* [n, steps + 1] */
} solve;

enum { POWER_STEPS = 10 }; /* of the power method, for LiSSA's scale */

size_t bg_refine_room_floats(const bg_model *m)
{
    size_t most = 0;
    for (size_t i = 0; i < m->n_tracked; i++) {
        size_t n = m->tracked[i]->n_out * m->tracked[i]->n_in1;
        most = n > most ? n : most;
    }
    return 2 * most;
}

static double dot(size_t n, const float *x, const float *y)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)y[i];
    return sum;
}

/* y += a x */
static void add(size_t n, double a, const float *x, float *y)
{
    for (size_t i = 0; i < n; i++)
        y[i] += (float)a * x[i];
}

/* The part of a vector of site i. */
static float *part(const solve *w, size_t i, float *v)
{
    return v + bg_vector_offset(w->t->model, w->t->model->tracked[i]);
}

/* s += λ d; nothing moves where λ is infinite. */
static void add_damping(const solve *w, const float *d, float *s)
{
    for (size_t i = 0; i < w->t->model->n_tracked; i++) {
        const bg_curvature *c = &w->t->curvature[i];
        size_t n = c->p * c->m, at = bg_vector_offset(w->t->model, w->t->model->tracked[i]);
        if (isfinite(c->lambda))
            add(n, c->lambda, d + at, s + at);
        else
            memset(s + at, 0, n * sizeof *s);
    }
}

/* z = P(r) (M9); room for two of a site's matrices. */
static void precondition(const solve *w, float *r, float *z)
{
    for (size_t i = 0; i < w->t->model->n_tracked; i++) {
        const bg_curvature *c = &w->t->curvature[i];
        float *half = w->t->room, *turned = half + c->p * c->m;
        if (!isfinite(c->lambda)) {
            memset(part(w, i, z), 0, c->p * c->m * sizeof *z);
            continue;
        }
        bg_curvature_rotate(c, part(w, i, r), half, turned);
        bg_curvature_divide(c, turned);
        bg_curvature_rotate_back(c, turned, half, part(w, i, z));
    }
}

/* s = (G_B + λ) x or (G_B + λ) d, of the queries whose gradient is not 0. */
static bg_status products(solve *w, bool of_x, bg_err *err)
{
    size_t n = 0;
    for (size_t i = 0; i < w->t->n; i++) {
        if (w->q[i].norm <= 0)
            continue;
        w->in[n] = of_x ? w->q[i].x : w->q[i].d;
        w->out[n++] = w->q[i].s;
    }
    bg_status st = bg_gauss_newton_product(w->t->matrix, n, w->in, w->out, err);
    for (size_t i = 0; i < n && st == BG_OK; i++)
        add_damping(w, w->in[i], w->out[i]);
    return st;
}

static void say_step(const solve *w, size_t step)
{
    double worst = 0;
    for (size_t i = 0; i < w->t->n; i++)
        worst = fmax(worst, w->residual[i * (w->t->steps + 1) + step]);
    bg_log("refining %zu queries: step %zu of %zu, residual %.2g at most", w->t->n, step, w->t->steps, worst);
}

static bg_status not_finite(const solve *w, size_t i, size_t step, bg_err *err)
{
    return BG_FAIL(err, BG_ENUMERIC, "query %s: step %zu of the refined solve: the residual is not finite",
                   w->t->name[i], step);
}

/* ---- conjugate gradients ---- */

static bg_status advance(solve *w, size_t i, size_t step, bg_err *err)
{
    query *q = &w->q[i];
    double curvature = dot(w->floats, q->d, q->s), a = q->square / curvature;
    if (!(curvature > 0) || !isfinite(a))
        return BG_FAIL(err, BG_ENUMERIC,
                       "query %s: step %zu of the refined solve: the curvature along its direction is %.3g, not "
                       "positive: give more damping, or fewer steps",
                       w->t->name[i], step, curvature);
    add(w->floats, a, q->d, q->x);
    add(w->floats, -a, q->s, q->r);
    precondition(w, q->r, q->s);
    double square = dot(w->floats, q->r, q->s);
    if (!isfinite(square))
        return not_finite(w, i, step, err);
    for (size_t j = 0; j < w->floats; j++)
        q->d[j] = q->s[j] + (float)(square / q->square) * q->d[j];
    q->square = square;
    w->residual[i * (w->t->steps + 1) + step] = sqrt(fmax(square, 0)) / q->norm;
    return BG_OK;
}

static bg_status conjugate_gradients(solve *w, bg_err *err)
{
    bg_status st = BG_OK;
    for (size_t i = 0; i < w->t->n; i++) {
        query *q = &w->q[i];
        precondition(w, q->r, q->d);
        q->square = dot(w->floats, q->r, q->d);
        if (!isfinite(q->square))
            return not_finite(w, i, 0, err);
        q->norm = sqrt(fmax(q->square, 0));
        w->residual[i * (w->t->steps + 1)] = q->norm > 0;
    }
    for (size_t step = 1; step <= w->t->steps && st == BG_OK; step++) {
        st = products(w, false, err);
        for (size_t i = 0; i < w->t->n && st == BG_OK; i++)
            if (w->q[i].norm > 0 && w->q[i].square > 0)
                st = advance(w, i, step, err);
        if (st == BG_OK)
            say_step(w, step);
    }
    return st;
}

/* ---- LiSSA ---- */

/* The largest eigenvalue of G_B + λ by the power method, from the first query's gradient that is not 0; and as much
 * again for what is left of it. */
static bg_status largest_eigenvalue(solve *w, double *out, bg_err *err)
{
    size_t i = 0;
    bg_status st = BG_OK;
    while (i < w->t->n && w->q[i].norm <= 0)
        i++;
    *out = 1;
    if (i == w->t->n)
        return BG_OK;
    query *q = &w->q[i];
    memcpy(q->d, q->r, w->floats * sizeof *q->d);
    for (int step = 0; step < POWER_STEPS && st == BG_OK; step++) {
        double norm = sqrt(dot(w->floats, q->d, q->d));
        for (size_t j = 0; j < w->floats; j++)
            q->d[j] = (float)((double)q->d[j] / norm);
        st = bg_gauss_newton_product(w->t->matrix, 1, &q->d, &q->s, err);
        add_damping(w, q->d, q->s);
        *out = 2 * sqrt(dot(w->floats, q->s, q->s));
        memcpy(q->d, q->s, w->floats * sizeof *q->d);
    }
    return st;
}

/* The gradient stays in r; s = (G_B + λ) x.  Where λ is infinite, x is 0 from the start. */
static bg_status step_lissa(solve *w, size_t i, size_t step, double scale, bg_err *err)
{
    query *q = &w->q[i];
    double square = 0;
    for (size_t j = 0; j < w->floats; j++) {
        double left = (double)q->r[j] - (double)q->s[j];
        square += left * left;
        q->x[j] += (float)(left / scale);
    }
    double residual = sqrt(square) / q->norm;
    w->residual[i * (w->t->steps + 1) + step] = residual;
    if (!(residual < 1e3))
        return BG_FAIL(err, BG_ENUMERIC,
                       "query %s: LiSSA diverges: after %zu steps the residual is %.3g of the gradient", w->t->name[i],
                       step, residual);
    return BG_OK;
}

static bg_status lissa(solve *w, bg_err *err)
{
    double scale;
    for (size_t i = 0; i < w->t->n; i++) {
        query *q = &w->q[i];
        for (size_t k = 0; k < w->t->model->n_tracked; k++)
            if (!isfinite(w->t->curvature[k].lambda))
                memset(part(w, k, q->r), 0, w->t->curvature[k].p * w->t->curvature[k].m * sizeof *q->r);
        q->norm = sqrt(dot(w->floats, q->r, q->r));
        w->residual[i * (w->t->steps + 1)] = q->norm > 0;
    }
    bg_status st = largest_eigenvalue(w, &scale, err);
    for (size_t i = 0; i < w->t->n && st == BG_OK; i++)
        add(w->floats, 1 / scale, w->q[i].r, w->q[i].x);
    for (size_t step = 1; step <= w->t->steps && st == BG_OK; step++) {
        st = products(w, true, err);
        for (size_t i = 0; i < w->t->n && st == BG_OK; i++)
            if (w->q[i].norm > 0)
                st = step_lissa(w, i, step, scale, err);
        if (st == BG_OK)
            say_step(w, step);
    }
    return st;
}

/* ---- both ---- */

/* g moves on to be the residual, and x begins at 0. */
static void begin(solve *w, size_t i)
{
    float *at = w->t->vectors[i];
    w->q[i] = (query){ at, at + w->floats, at + 2 * w->floats, at + 3 * w->floats, 0, 0 };
    memcpy(w->q[i].r, at, w->floats * sizeof *at);
    memset(at, 0, w->floats * sizeof *at);
}

bg_status bg_refine(const bg_refine_task *t, double *residual, bg_err *err)
{
    solve w = { .t = t, .floats = bg_vector_floats(t->model), .residual = residual };
    bg_status st = BG_NEW(w.q, t->n, "refined solve", err);
    if (st == BG_OK)
        st = BG_NEW(w.in, t->n, "refined solve", err);
    if (st == BG_OK)
        st = BG_NEW(w.out, t->n, "refined solve", err);
    memset(residual, 0, t->n * (t->steps + 1) * sizeof *residual);
    for (size_t i = 0; i < t->n && st == BG_OK; i++)
        begin(&w, i);
    if (st == BG_OK)
        st = t->kind == BG_REFINE_LISSA ? lissa(&w, err) : conjugate_gradients(&w, err);
    bg_free(w.q);
    bg_free(w.in);
    bg_free(w.out);
    return st;
}

/* ---- cost ---- */

/* Of all sequences, n vectors. */
static void product_cost(bg_cost *cost, const bg_model *m, const bg_refine_load *l, double n, size_t max_rows)
{
    size_t rows = (size_t)(l->rows / l->sequences), room = max_rows > rows ? max_rows : rows;
    uint64_t each = room / rows, whole = l->sequences / each, rest = l->sequences % each;
    const bg_batch_shape shape = { each, rows, rows, room, false, false },
                         last = { rest, rows, rows, room, false, false };
    bg_cost one = { 0 };
    bg_gauss_newton_cost(&one, m, &shape, n);
    bg_cost_add(cost, &one, (double)whole);
    if (rest > 0)
        bg_gauss_newton_cost(cost, m, &last, n);
}

void bg_refine_cost(bg_cost *cost, const bg_model *m, const bg_refine_load *l, double n, size_t max_rows)
{
    const double loops = 8; /* over a vector's floats in a step: sums of products, and additions */
    double steps = (double)l->steps, floats = (double)bg_vector_floats(m);
    bg_cost product = { 0 }, alone = { 0 };
    product_cost(&product, m, l, n, max_rows);
    bg_cost_add(cost, &product, steps);
    cost->of[BG_COST_SERIAL] += loops * floats * n * steps;
    if (l->kind == BG_REFINE_LISSA) {
        product_cost(&alone, m, l, 1, max_rows);
        bg_cost_add(cost, &alone, POWER_STEPS);
        return;
    }
    for (size_t i = 0; i < m->n_tracked; i++)
        bg_curvature_rotate_cost(cost, m->tracked[i], 2 * n * (steps + 1));
}
