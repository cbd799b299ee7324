#include "bregman/precondition.h"

#include <math.h>
#include <string.h>

#include "bregman/low_rank.h"
#include "bregman/memory.h"

const char *const bg_preconditioner_word[] = {
    [BG_EKFAC] = "ekfac",       [BG_SHAMPOO] = "shampoo",   [BG_KFAC] = "kfac",
    [BG_DIAGONAL] = "diagonal", [BG_IDENTITY] = "identity", NULL
};

bg_preconditioner bg_preconditioner_fitted(const bg_factors *f)
{
    return bg_factors_kind(f) == BG_FACTORS_SHAMPOO ? BG_SHAMPOO : BG_EKFAC;
}

static bool is_in_eigenbases(bg_preconditioner kind) { return kind != BG_DIAGONAL && kind != BG_IDENTITY; }

bg_status bg_preconditioner_check(bg_preconditioner kind, const bg_factors *f, bg_err *err)
{
    bg_factor_kind wanted = kind == BG_SHAMPOO ? BG_FACTORS_SHAMPOO : BG_FACTORS_EKFAC, found = bg_factors_kind(f);
    if (!is_in_eigenbases(kind) || wanted == found)
        return BG_OK;
    return BG_FAIL(err, BG_EARG,
                   "%s: fitted with --preconditioner %s, and --preconditioner %s wants the eigenbases of %s: leave it out, "
                   "or run fit_factors with --preconditioner %s",
                   bg_factors_path(f), bg_factor_kind_word[found], bg_preconditioner_word[kind],
                   bg_factor_kind_word[wanted], bg_factor_kind_word[wanted]);
}

static double positive(double x) { return x > 0 ? x : 0; }

static void clamp(float *x, size_t n)
{
    for (size_t i = 0; x != NULL && i < n; i++)
        x[i] = x[i] > 0 ? x[i] : 0;
}

/* C of each kind into c->c, from what was read. */
static void form(bg_preconditioner kind, double tokens_per_sequence, bg_curvature *c)
{
    bg_site_factors *f = &c->factors;
    float **from = kind == BG_DIAGONAL ? &f->diagonal : &f->lambda;
    if (kind == BG_EKFAC || kind == BG_SHAMPOO || kind == BG_DIAGONAL) {
        c->c = *from; /* taken over */
        *from = NULL;
        c->half = f->half;
        c->half_share = f->half_share;
        f->half = NULL;
        clamp(c->c, c->p * c->m);
        clamp(c->half, c->p * c->m);
        return;
    }
    for (size_t i = 0; i < c->p && kind == BG_KFAC; i++)
        for (size_t j = 0; j < c->m; j++)
            c->c[i * c->m + j] = (float)(positive(f->sigma[i]) * positive(f->alpha[j]) * tokens_per_sequence);
}

static double mean_of(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i];
    return sum / (double)n;
}

/* Where all of C is 0 every gradient was, so every score is. */
static double lambda_of(bg_damping d, double mean)
{
    return d.absolute ? d.damping : mean == 0 ? (double)INFINITY : d.damping * mean;
}

static bg_status set_lambda(bg_damping d, const bg_factors *f, const bg_site *site, bg_curvature *c, bg_err *err)
{
    size_t n = c->p * c->m;
    double mean = mean_of(c->c, n), least = INFINITY;
    for (size_t i = 0; i < n; i++)
        least = fmin(least, (double)c->c[i]);
    c->lambda = d.kind == BG_IDENTITY ? 1.0 : lambda_of(d, mean);
    if (c->half != NULL)
        c->half_lambda = lambda_of(d, mean_of(c->half, n));
    if (!isfinite(mean) || !(least + c->lambda > 0))
        return BG_FAIL(err, BG_ENUMERIC,
                       "%s: the damped curvature of %s is not positive everywhere (damping %g); use more damping",
                       bg_factors_path(f), site->name, c->lambda);
    return BG_OK;
}

bg_status bg_curvature_read(const bg_factors *f, const bg_site *site, bg_damping damping, bg_curvature *out,
                            bg_err *err)
{
    static const unsigned what[] = {
        [BG_EKFAC] = BG_READ_BASES | BG_READ_LAMBDA | BG_READ_HALF,
        [BG_SHAMPOO] = BG_READ_BASES | BG_READ_LAMBDA | BG_READ_HALF,
        [BG_KFAC] = BG_READ_BASES | BG_READ_EIGENVALUES,
        [BG_DIAGONAL] = BG_READ_DIAGONAL,
        [BG_IDENTITY] = 0,
    };
    double tokens_per_sequence = 0;
    memset(out, 0, sizeof *out);
    out->kind = damping.kind;
    out->p = site->n_out;
    out->m = site->n_in1;
    out->rotated = is_in_eigenbases(damping.kind);
    bg_status st = bg_preconditioner_check(damping.kind, f, err);
    if (st == BG_OK)
        st = bg_factors_read(f, site, what[damping.kind], &out->factors, err);
    if (st == BG_OK && damping.kind == BG_KFAC)
        st = bg_factors_tokens_per_sequence(f, site, &tokens_per_sequence, err);
    if (st == BG_OK && (damping.kind == BG_KFAC || damping.kind == BG_IDENTITY))
        st = BG_NEW(out->c, out->p * out->m, "curvature", err);
    if (st == BG_OK) {
        form(damping.kind, tokens_per_sequence, out);
        st = set_lambda(damping, f, site, out, err);
    }
    if (st != BG_OK)
        bg_curvature_clear(out);
    return st;
}

void bg_curvature_clear(bg_curvature *c)
{
    bg_site_factors_clear(&c->factors);
    bg_free(c->c);
    bg_free(c->half);
    memset(c, 0, sizeof *c);
}

static void rotate(const bg_curvature *c, bg_op of_s, bg_op of_a, const float *v, float *half, float *out)
{
    if (!c->rotated) {
        memcpy(out, v, c->p * c->m * sizeof *v);
        return;
    }
    bg_blockdiag_apply_left(&c->factors.basis.q_s, of_s, c->m, v, c->m, half, c->m);
    bg_blockdiag_apply(&c->factors.basis.q_a, of_a, c->p, half, c->m, out, c->m);
}

void bg_curvature_rotate(const bg_curvature *c, const float *v, float *half, float *out)
{
    rotate(c, BG_T, BG_N, v, half, out);
}

void bg_curvature_rotate_back(const bg_curvature *c, const float *v, float *half, float *out)
{
    rotate(c, BG_N, BG_T, v, half, out);
}

void bg_curvature_rotate_cost(bg_cost *cost, const bg_site *site, double times)
{
    if (!bg_symmetric_is_diagonal(site->s))
        bg_blockdiag_cost(cost, site->s, (double)site->n_in1, times);
    if (!bg_symmetric_is_diagonal(site->a))
        bg_blockdiag_cost(cost, site->a, (double)site->n_out, times);
}

void bg_curvature_divide(const bg_curvature *c, float *v)
{
    float lambda = (float)c->lambda;
    for (size_t i = 0; i < c->p * c->m; i++)
        v[i] /= c->c[i] + lambda;
}

/* The part of rows [first, first + n); v holds just these. */
static double variance_of_rows(const bg_curvature *c, size_t first, size_t n, const float *v)
{
    double sum = 0;
    bool unweighted = c->kind == BG_IDENTITY; /* no curvature to weigh by */
    for (size_t i = 0; i < n; i++) {
        const float *weight = c->c + (first + i) * c->m;
        double row = 0;
        for (size_t j = 0; j < c->m; j++) {
            double x = (double)v[i * c->m + j];
            row += (unweighted ? 1.0 : (double)weight[j]) * x * x;
        }
        sum += row;
    }
    return sum;
}

double bg_curvature_variance(const bg_curvature *c, const float *v) { return variance_of_rows(c, 0, c->p, v); }

double bg_curvature_sampling_variance(const bg_curvature *c, const float *v)
{
    double sum = 0;
    if (c->half == NULL || !isfinite(c->lambda))
        return c->half == NULL ? (double)NAN : 0;
    for (size_t i = 0; i < c->p * c->m; i++) {
        double of_half = (double)v[i] * (((double)c->c[i] + c->lambda) / ((double)c->half[i] + c->half_lambda));
        sum += (double)c->c[i] * (of_half - (double)v[i]) * (of_half - (double)v[i]);
    }
    sum *= c->half_share / (1 - c->half_share);
    return isfinite(sum) ? sum : (double)NAN; /* without damping some coordinate of the half may be 0 */
}

/* Rows of a residual that are formed at a time. */
enum { PANEL = 512 };

size_t bg_compress_scratch(size_t p, size_t m, size_t r) { return (p < PANEL ? p : PANEL) * m + (p + m) * r; }

/* Expected variance of the score's error if only the first k of the columns in u, v (ld) are kept. */
static double truncation_error(const bg_curvature *c, const float *x, const float *u, const float *v, size_t ld,
                               size_t k, float *residual)
{
    double sum = 0;
    for (size_t i = 0; i < c->p; i += PANEL) {
        size_t n = c->p - i < PANEL ? c->p - i : PANEL;
        memcpy(residual, x + i * c->m, n * c->m * sizeof *x);
        bg_gemm((bg_extent){ n, c->m, k }, -1.0f, bg_f32(BG_N, u + i * ld, ld), bg_f32(BG_T, v, ld), 1.0f, residual,
                c->m);
        sum += variance_of_rows(c, i, n, residual);
    }
    return sum;
}

/* Smallest k in [1, r] with error <= limit, by bisection (the error falls as k grows); r if there is none. */
static size_t enough_columns(const bg_curvature *c, const float *x, const float *u, const float *v, size_t r,
                             double limit, float *residual)
{
    size_t lo = 0, hi = r; /* lo is not enough; hi is, or is all there is */
    while (hi - lo > 1) {
        size_t k = (lo + hi) / 2;
        if (truncation_error(c, x, u, v, r, k, residual) <= limit)
            hi = k;
        else
            lo = k;
    }
    return hi;
}

/* left = Q_S u, right = Q_A v (or copies, where there is no basis). */
static void rotate_back(const bg_curvature *c, size_t r, const float *u, const float *v, float *left, float *right)
{
    if (!c->rotated) {
        memcpy(left, u, c->p * r * sizeof *u);
        memcpy(right, v, c->m * r * sizeof *v);
        return;
    }
    bg_blockdiag_apply_left(&c->factors.basis.q_s, BG_N, r, u, r, left, r);
    bg_blockdiag_apply_left(&c->factors.basis.q_a, BG_N, r, v, r, right, r);
}

void bg_compress_cost(bg_cost *cost, const bg_site *site, size_t r, double times)
{
    const double loops = 8; /* over the gradient: divided, copied, weighed before and after and with half of Λ */
    double p = (double)site->n_out, m = (double)site->n_in1;
    bg_cost one = { 0 };
    if (r < site->n_out && r < site->n_in1) {
        bg_low_rank_cost(&one, site->n_out, site->n_in1, r);
        bg_cost_product(&one, p, m, (double)r, 1);
    }
    bg_blockdiag_cost(&one, site->s, (double)r, 1);
    bg_blockdiag_cost(&one, site->a, (double)r, 1);
    one.of[BG_COST_SERIAL] += loops * p * m;
    bg_cost_add(cost, &one, times);
}

static void set_identity(size_t n, float *x)
{
    memset(x, 0, n * n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i * n + i] = 1.0f;
}

/* v = v I = I v: exact factors with r = min(P, M) columns. */
static void whole(const bg_curvature *c, const float *x, size_t r, float *u, float *v)
{
    if (r == c->m) {
        memcpy(u, x, c->p * c->m * sizeof *x);
        set_identity(c->m, v);
        return;
    }
    set_identity(c->p, u);
    for (size_t i = 0; i < c->p; i++)
        for (size_t j = 0; j < c->m; j++)
            v[j * r + i] = x[i * c->m + j];
}

bg_status bg_compress(const bg_curvature *c, const bg_truncation *t, float *scratch, bg_compressed *out, bg_err *err)
{
    size_t least = c->p < c->m ? c->p : c->m, n = t->r;
    float *residual = scratch, *u = residual + (c->p < PANEL ? c->p : PANEL) * c->m, *v = u + c->p * n;
    out->variance = bg_curvature_variance(c, t->v);
    out->error = 0;
    out->needed = n;
    if (n == least && t->tolerance <= 0) {
        whole(c, t->v, n, u, v);
        rotate_back(c, n, u, v, out->left, out->right);
        return BG_OK;
    }
    bg_status st = bg_low_rank(&(bg_low_rank_problem){ c->p, c->m, n, t->v, t->seed, t->stream }, u, v, err);
    if (st != BG_OK)
        return st;
    if (t->tolerance > 0)
        out->needed = enough_columns(c, t->v, u, v, n, t->tolerance * out->variance, residual);
    out->error = truncation_error(c, t->v, u, v, n, out->needed, residual);
    for (size_t j = out->needed; j < n; j++) {
        for (size_t i = 0; i < c->p; i++)
            u[i * n + j] = 0;
        for (size_t i = 0; i < c->m; i++)
            v[i * n + j] = 0;
    }
    rotate_back(c, n, u, v, out->left, out->right);
    return BG_OK;
}
