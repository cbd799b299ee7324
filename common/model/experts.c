/* experts.c - an MLP with experts: y_t = Σ_e w_te f_e(x_t) over the k experts that a router chooses for row t.
 *
 * The router's logits are r = R x, its probabilities p = softmax(r), the chosen those of the k highest logits, and w_te
 * = p_te, or with renormalisation p_te / Σ_chosen p, which is the softmax of the chosen logits alone.  So in both cases
 * the parts move by dw = q (dr - Σ q dr) and back by dr = q (dw - Σ q dw), where q = p, or w (0 of those not chosen),
 * and dw = 0 of those not chosen: q is what the forward pass keeps.  Which experts are chosen does not move.
 *
 * An expert reads its rows as one matrix, gathered; f_e is a gated MLP.  Its output is not kept: with its hidden
 * activations h_t, dw_te = dy_t · f_e(x_t) = (W_downᵀ dy_t) · h_t. */
#include <math.h>
#include <string.h>

#include "bregman/threads.h"
#include "pass_state.h"

/* An expert's sites, and its rows. */
typedef struct {
    const bg_site *gate, *up, *down;
    size_t n, e;         /* how many rows; its number */
    const uint32_t *row; /* [n] of the batch */
    bg_gated inner;      /* [n, d_expert] */
} expert;

static expert expert_of(const bg_pass *p, const bg_block *blk, const bg_saved *s, size_t e)
{
    size_t first = s->expert_start[e], ff = p->model->config.d_expert;
    return (expert){ .gate = bg_block_expert(blk, e, BG_ROLE_GATE),
                     .up = bg_block_expert(blk, e, BG_ROLE_UP),
                     .down = bg_block_expert(blk, e, BG_ROLE_DOWN),
                     .n = s->expert_start[e + 1] - first,
                     .e = e,
                     .row = s->expert_row + first,
                     .inner = { s->gate + first * ff, s->up + first * ff, ff } };
}

/* y [x->n, d] = the expert's rows of x. */
static void gather(const expert *x, size_t d, bg_in from, float *y)
{
#pragma omp parallel for if (x->n * d > BG_PARALLEL_FLOATS)
    for (size_t i = 0; i < x->n; i++)
        memcpy(y + i * d, from.x + x->row[i] * from.ld, d * sizeof *y);
}

/* The expert's row i of x is added to that row of y.  No row comes twice. */
static void scatter(const expert *x, size_t d, const float *from, float *y)
{
#pragma omp parallel for if (x->n * d > BG_PARALLEL_FLOATS)
    for (size_t i = 0; i < x->n; i++)
        bg_add(1, d, (bg_in){ from + i * d, d }, (bg_out){ y + x->row[i] * d, d });
}

/* Rows of y times the parts that the expert has in them. */
static void scale(const bg_pass *p, const bg_saved *s, const expert *x, size_t d, bg_out y)
{
    size_t n_experts = p->model->config.n_experts;
#pragma omp parallel for if (x->n * d > BG_PARALLEL_FLOATS)
    for (size_t i = 0; i < x->n; i++) {
        float part = s->part[x->row[i] * n_experts + x->e], *row = y.x + i * y.ld;
        for (size_t j = 0; j < d; j++)
            row[j] *= part;
    }
}

static void hidden(const bg_pass *p, const expert *x)
{
    const bg_model_config *c = &p->model->config;
    bg_gated_forward(c->activation, x->n, c->d_expert, x->inner, (bg_out){ p->a_ff, p->ld_ff });
}

/* ---- forward ---- */

/* Is logit i ahead of j?  Of equals the first is.  A NaN is ahead of all numbers: it is to reach the loss, which is
 * refused then. */
static bool is_ahead(const float *logit, size_t i, size_t j)
{
    return logit[i] > logit[j] || (isnan(logit[i]) && !isnan(logit[j]));
}

/* chosen [k]: the k highest of e logits, by insertion. */
static void choose(size_t e, size_t k, const float *logit, uint32_t *chosen)
{
    size_t n = 0;
    for (size_t i = 0; i < e; i++) {
        size_t at = n;
        while (at > 0 && is_ahead(logit, i, chosen[at - 1]))
            at--;
        if (at == k)
            continue;
        n += n < k;
        memmove(chosen + at + 1, chosen + at, (n - 1 - at) * sizeof *chosen);
        chosen[at] = (uint32_t)i;
    }
}

/* logit [e] becomes the row's q; chosen [k] are its experts. */
static void weigh(const bg_model_config *c, float *logit, const uint32_t *chosen)
{
    float of_chosen[BG_MAX_EXPERTS];
    size_t k = c->experts_per_token;
    for (size_t i = 0; i < k; i++)
        of_chosen[i] = logit[chosen[i]];
    (void)bg_softmax_row(c->experts_renormalised ? k : c->n_experts, c->experts_renormalised ? of_chosen : logit);
    if (!c->experts_renormalised)
        return;
    memset(logit, 0, c->n_experts * sizeof *logit);
    for (size_t i = 0; i < k; i++)
        logit[chosen[i]] = of_chosen[i];
}

/* Rows by expert, from `chosen`: counted, then put in their places in the batch's order. */
static void sort_rows(const bg_model_config *c, size_t rows, const uint32_t *chosen, const bg_saved *s)
{
    size_t k = c->experts_per_token;
    uint32_t *start = s->expert_start;
    memset(start, 0, (c->n_experts + 1) * sizeof *start);
    for (size_t i = 0; i < rows * k; i++)
        start[chosen[i]]++;
    for (size_t e = 0, at = 0; e <= c->n_experts; e++) { /* where each ends */
        at += start[e];
        start[e] = (uint32_t)at;
    }
    for (size_t i = rows * k; i-- > 0;)
        s->expert_row[--start[chosen[i]]] = (uint32_t)(i / k);
}

static void route(bg_pass *p, const bg_block *blk, size_t rows, const bg_saved *s)
{
    const bg_model_config *c = &p->model->config;
    size_t n = c->n_experts, k = c->experts_per_token;
    bg_pass_linear(p, blk->site[BG_ROLE_ROUTER], rows, (bg_in){ p->a_d, p->ld_d }, (bg_out){ s->part, n }, false);
#pragma omp parallel for if (rows * n * k > BG_PARALLEL_FLOATS)
    for (size_t i = 0; i < rows; i++) {
        choose(n, k, s->part + i * n, p->chosen + i * k);
        weigh(c, s->part + i * n, p->chosen + i * k);
    }
    sort_rows(c, rows, p->chosen, s);
}

void bg_experts_forward(bg_pass *p, const bg_block *blk, size_t rows, const bg_saved *s, float *y)
{
    const bg_model_config *c = &p->model->config;
    size_t d = c->d_model, ff = c->d_expert;
    route(p, blk, rows, s);
    for (size_t e = 0; e < c->n_experts; e++) {
        const expert x = expert_of(p, blk, s, e);
        float *gate = s->gate + s->expert_start[e] * ff, *up = s->up + s->expert_start[e] * ff;
        if (x.n == 0)
            continue;
        gather(&x, d, (bg_in){ p->a_d, p->ld_d }, p->x_expert);
        bg_pass_linear(p, x.gate, x.n, (bg_in){ p->x_expert, d }, (bg_out){ gate, ff }, false);
        bg_pass_linear(p, x.up, x.n, (bg_in){ p->x_expert, d }, (bg_out){ up, ff }, false);
        hidden(p, &x);
        bg_pass_linear(p, x.down, x.n, (bg_in){ p->a_ff, p->ld_ff }, (bg_out){ p->y_expert, d }, false);
        scale(p, s, &x, d, (bg_out){ p->y_expert, d });
        scatter(&x, d, p->y_expert, y);
    }
}

/* ---- backward ---- */

/* How far backward goes in a block: to the router's logits, and to the MLP's input. */
typedef struct {
    bool router, input;
} depth;

/* dw of the expert's rows, of which dh [n, d_expert] is W_downᵀ dy. */
static void part_gradient(const bg_pass *p, const expert *x, bg_in dh)
{
    const bg_model_config *c = &p->model->config;
    bg_group_dot(x->n, 1, c->d_expert, dh, (bg_in){ p->a_ff, p->ld_ff }, (bg_out){ p->dot, 1 });
    for (size_t i = 0; i < x->n; i++)
        p->dpart[x->row[i] * c->n_experts + x->e] = p->dot[i];
}

/* Taps of gate and up, and the gradient at their input added to p->da; p->dff is that at the hidden activations. */
static bg_status inner_backward(const bg_backward *w, const bg_saved *s, const expert *x, depth to)
{
    bg_pass *p = w->p;
    const bg_model_config *c = &p->model->config;
    size_t d = c->d_model, ff = c->d_expert;
    const bg_in dgate = { p->dgate, ff }, dup = { p->dup, ff };
    bg_gated_backward(c->activation, x->n, ff, x->inner, (bg_in){ p->dff, ff }, (bg_out){ p->dgate, ff },
                      (bg_out){ p->dup, ff });
    if (x->gate->tracked || x->up->tracked)
        gather(x, d, (bg_in){ p->a_d, p->ld_d }, p->x_expert);
    bg_status st = bg_tap_expert(w, s, x->gate, (bg_in){ p->x_expert, d }, dgate);
    if (st == BG_OK)
        st = bg_tap_expert(w, s, x->up, (bg_in){ p->x_expert, d }, dup);
    if (st != BG_OK || !to.input)
        return st;
    bg_pass_linear_back(p, x->up, x->n, dup, (bg_out){ p->y_expert, d }, false);
    bg_pass_linear_back(p, x->gate, x->n, dgate, (bg_out){ p->y_expert, d }, true);
    scatter(x, d, p->y_expert, p->da);
    return BG_OK;
}

/* Pairs without rows: a tap hears of every site of a batch. */
static bg_status tap_unread(const bg_backward *w, const bg_saved *s, const expert *x)
{
    const bg_pass *p = w->p;
    size_t d = p->model->config.d_model, ff = p->model->config.d_expert;
    bg_status st = bg_tap_expert(w, s, x->down, (bg_in){ p->a_ff, p->ld_ff }, (bg_in){ p->y_expert, d });
    if (st == BG_OK)
        st = bg_tap_expert(w, s, x->gate, (bg_in){ p->x_expert, d }, (bg_in){ p->dgate, ff });
    return st == BG_OK ? bg_tap_expert(w, s, x->up, (bg_in){ p->x_expert, d }, (bg_in){ p->dup, ff }) : st;
}

static bg_status expert_backward(const bg_backward *w, const bg_saved *s, const expert *x, const float *dy, depth to)
{
    bg_pass *p = w->p;
    size_t d = p->model->config.d_model, ff = p->model->config.d_expert;
    bool inner = to.input || x->gate->tracked || x->up->tracked;
    if (x->n == 0)
        return tap_unread(w, s, x);
    if (!inner && !to.router && !x->down->tracked)
        return BG_OK;
    gather(x, d, (bg_in){ dy, d }, p->y_expert);
    hidden(p, x);
    if (inner || to.router)
        bg_pass_linear_back(p, x->down, x->n, (bg_in){ p->y_expert, d }, (bg_out){ p->dff, ff }, false);
    if (to.router)
        part_gradient(p, x, (bg_in){ p->dff, ff });
    scale(p, s, x, d, (bg_out){ p->y_expert, d });
    bg_status st = bg_tap_expert(w, s, x->down, (bg_in){ p->a_ff, p->ld_ff }, (bg_in){ p->y_expert, d });
    if (st != BG_OK || !inner)
        return st;
    scale(p, s, x, ff, (bg_out){ p->dff, ff });
    return inner_backward(w, s, x, to);
}

/* From dw, or how the logits move, in p->dpart to its counterpart: the same matrix. */
static void through_softmax(const bg_pass *p, const bg_saved *s, size_t rows)
{
    size_t n = p->model->config.n_experts;
#pragma omp parallel for if (rows * n > BG_PARALLEL_FLOATS)
    for (size_t i = 0; i < rows; i++)
        (void)bg_softmax_tangent(n, 1.0f, s->part + i * n, p->dpart + i * n);
}

bg_status bg_experts_backward(const bg_backward *w, size_t l, const float *x, const float *dy)
{
    bg_pass *p = w->p;
    const bg_model_config *c = &p->model->config;
    const bg_block *blk = &p->model->block[l];
    const bg_site *router = blk->site[BG_ROLE_ROUTER];
    const bg_saved *s = bg_pass_saved(p, l);
    size_t rows = w->batch->n_rows, n = c->n_experts;
    depth to = { .input = bg_model_goes_deeper(p->model, router) };
    to.router = to.input || router->tracked;
    bg_module_input(p, &blk->mlp_norm, rows, x);
    if (to.input)
        memset(p->da, 0, rows * c->d_model * sizeof *p->da);
    if (to.router)
        memset(p->dpart, 0, rows * n * sizeof *p->dpart);
    bg_status st = BG_OK;
    for (size_t e = n; e-- > 0 && st == BG_OK;) {
        const expert one = expert_of(p, blk, s, e);
        st = expert_backward(w, s, &one, dy, to);
    }
    if (st != BG_OK || !to.router)
        return st;
    through_softmax(p, s, rows);
    st = bg_tap_site(w, router, (bg_in){ p->a_d, p->ld_d }, (bg_in){ p->dpart, n });
    if (st == BG_OK && to.input)
        bg_pass_linear_back(p, router, rows, (bg_in){ p->dpart, n }, (bg_out){ p->da, c->d_model }, true);
    return st;
}

/* ---- tangent ---- */

/* The tangent under way. */
typedef struct {
    bg_pass *p;
    const bg_direction *direction;
    float *product;
} moving;

/* ty = ta Wᵀ + a Vᵀ over n rows. */
static void moved(const moving *m, const bg_site *site, size_t n, bg_in a, bg_in ta, bg_out ty)
{
    bg_pass_times(m->p, site, n, ta, ty, false);
    if (site->tracked)
        bg_direction_apply(&m->direction[site->index], site, n, a, m->product, ty);
}

/* h becomes w h, th w th + ẇ h: what the down projection turns into its output, and into how that moves. */
static void move_parts(const bg_pass *p, const bg_saved *s, const expert *x, bg_out h, bg_out th)
{
    size_t n = p->model->config.n_experts, ff = p->model->config.d_expert;
#pragma omp parallel for if (x->n * ff > BG_PARALLEL_FLOATS)
    for (size_t i = 0; i < x->n; i++) {
        float part = s->part[x->row[i] * n + x->e], dpart = p->dpart[x->row[i] * n + x->e];
        float *at = h.x + i * h.ld, *tat = th.x + i * th.ld;
        for (size_t j = 0; j < ff; j++) {
            tat[j] = part * tat[j] + dpart * at[j];
            at[j] *= part;
        }
    }
}

static void expert_tangent(const moving *m, const bg_saved *s, const expert *x)
{
    bg_pass *p = m->p;
    const bg_model_config *c = &p->model->config;
    size_t d = c->d_model, ff = c->d_expert;
    const bg_in a = { p->x_expert, d }, ta = { p->y_expert, d };
    gather(x, d, (bg_in){ p->a_d, p->ld_d }, p->x_expert);
    gather(x, d, (bg_in){ p->da, d }, p->y_expert);
    moved(m, x->gate, x->n, a, ta, (bg_out){ p->dgate, ff });
    moved(m, x->up, x->n, a, ta, (bg_out){ p->dup, ff });
    bg_gated_tangent(c->activation, x->n, ff, x->inner, (bg_gated){ p->dgate, p->dup, ff }, (bg_out){ p->dff, ff });
    hidden(p, x);
    move_parts(p, s, x, (bg_out){ p->a_ff, p->ld_ff }, (bg_out){ p->dff, ff });
    moved(m, x->down, x->n, (bg_in){ p->a_ff, p->ld_ff }, (bg_in){ p->dff, ff }, (bg_out){ p->y_expert, d });
    scatter(x, d, p->y_expert, p->dmid);
}

void bg_experts_tangent(bg_pass *p, const bg_block *blk, size_t rows, const bg_direction *direction, float *product)
{
    const bg_model_config *c = &p->model->config;
    const bg_site *router = blk->site[BG_ROLE_ROUTER];
    const bg_saved *s = bg_pass_saved(p, router->section);
    const moving m = { p, direction, product };
    size_t d = c->d_model;
    moved(&m, router, rows, (bg_in){ p->a_d, p->ld_d }, (bg_in){ p->da, d }, (bg_out){ p->dpart, c->n_experts });
    through_softmax(p, s, rows);
    memset(p->dmid, 0, rows * d * sizeof *p->dmid);
    for (size_t e = 0; e < c->n_experts; e++) {
        const expert x = expert_of(p, blk, s, e);
        if (x.n > 0)
            expert_tangent(&m, s, &x);
    }
}
