/* kernels_activation.c - GELU (both forms), SiLU and ReLU, plain and gated; xIELU.
 *
 * The tanh form needs no tanh: (1 + tanh u) / 2 is the logistic function of 2u, without cancellation.
 */
#include "bregman/kernels.h"
#include "bregman/threads.h"
#include "kernels_math.h"

/* act(x) and act'(x).  NaN gives NaN. */
typedef struct {
    float value, slope;
} act_at;

BG_INLINE act_at gelu_tanh(float x)
{
    const float c1 = 1.5957691216f, c3 = 0.044715f; /* 2 sqrt(2 / pi) */
    float b = x < -30.0f ? -30.0f : x;              /* beyond, the slope is 0 or 1 anyway and x³ may overflow */
    b = b > 30.0f ? 30.0f : b;
    bg_sigmoid_pair s = bg_sigmoid(c1 * b * (1.0f + c3 * b * b));
    return (act_at){ x * s.plus, s.plus + b * s.plus * s.minus * (c1 * (1.0f + 3.0f * c3 * b * b)) };
}

BG_INLINE act_at gelu_erf(float x)
{
    bg_normal_at at = bg_normal(x);
    return (act_at){ x * at.cumulative, at.cumulative + x * at.density };
}

BG_INLINE act_at silu(float x)
{
    bg_sigmoid_pair s = bg_sigmoid(x);
    return (act_at){ x * s.plus, s.plus * (1.0f + x * s.minus) };
}

BG_INLINE act_at relu(float x) { return (act_at){ x < 0.0f ? 0.0f : x, x > 0.0f ? 1.0f : x <= 0.0f ? 0.0f : x }; }

/* With act a constant this is one of the four; what of it is not used is not computed. */
BG_INLINE act_at act_of(bg_activation act, float x)
{
    switch (act) {
    case BG_ACT_GELU_TANH: return gelu_tanh(x);
    case BG_ACT_GELU_ERF: return gelu_erf(x);
    case BG_ACT_SILU: return silu(x);
    case BG_ACT_RELU: return relu(x);
    case BG_ACT_XIELU: break; /* has weights, and functions of its own */
    }
    return (act_at){ x, 1.0f };
}

BG_INLINE void forward_loop(bg_activation act, size_t d, const float *x, float *y)
{
#pragma omp simd
    for (size_t j = 0; j < d; j++)
        y[j] = act_of(act, x[j]).value;
}

BG_INLINE void backward_loop(bg_activation act, size_t d, const float *x, const float *dy, float *dx)
{
#pragma omp simd
    for (size_t j = 0; j < d; j++)
        dx[j] = dy[j] * act_of(act, x[j]).slope;
}

BG_INLINE void gated_forward_loop(bg_activation act, size_t d, const float *gate, const float *up, float *h)
{
#pragma omp simd
    for (size_t j = 0; j < d; j++)
        h[j] = act_of(act, gate[j]).value * up[j];
}

BG_INLINE void gated_backward_loop(bg_activation act, size_t d, const float *gate, const float *up, const float *dh,
                                   float *dgate, float *dup)
{
#pragma omp simd
    for (size_t j = 0; j < d; j++) {
        act_at a = act_of(act, gate[j]);
        dgate[j] = dh[j] * up[j] * a.slope;
        dup[j] = dh[j] * a.value;
    }
}

BG_INLINE void gated_tangent_loop(bg_activation act, size_t d, const float *gate, const float *up, const float *dgate,
                                  const float *dup, float *dh)
{
#pragma omp simd
    for (size_t j = 0; j < d; j++) {
        act_at a = act_of(act, gate[j]);
        dh[j] = dgate[j] * up[j] * a.slope + a.value * dup[j];
    }
}

/* Runs LOOP(act, ...) with act a constant, so that each activation gets a loop of its own. */
#define FOR_ACTIVATION(act, LOOP, ...)                                 \
    switch (act) {                                                     \
    case BG_ACT_GELU_TANH: LOOP(BG_ACT_GELU_TANH, __VA_ARGS__); break; \
    case BG_ACT_GELU_ERF: LOOP(BG_ACT_GELU_ERF, __VA_ARGS__); break;   \
    case BG_ACT_SILU: LOOP(BG_ACT_SILU, __VA_ARGS__); break;           \
    case BG_ACT_RELU: LOOP(BG_ACT_RELU, __VA_ARGS__); break;           \
    case BG_ACT_XIELU: break;                                          \
    }

BG_CLONES static void forward_row(bg_activation act, size_t d, const float *x,
                                  float *y){ FOR_ACTIVATION(act, forward_loop, d, x, y) }

BG_CLONES static void backward_row(bg_activation act, size_t d, const float *x, const float *dy,
                                   float *dx){ FOR_ACTIVATION(act, backward_loop, d, x, dy, dx) }

BG_CLONES static void gated_forward_row(bg_activation act, size_t d, const float *gate, const float *up,
                                        float *h){ FOR_ACTIVATION(act, gated_forward_loop, d, gate, up, h) }

BG_CLONES
    static void gated_backward_row(bg_activation act, size_t d, const float *gate, const float *up, const float *dh,
                                   float *dgate,
                                   float *dup){ FOR_ACTIVATION(act, gated_backward_loop, d, gate, up, dh, dgate, dup) }

BG_CLONES static void gated_tangent_row(bg_activation act, size_t d, const float *gate, const float *up,
                                        const float *dgate, const float *dup, float *dh)
{
    FOR_ACTIVATION(act, gated_tangent_loop, d, gate, up, dgate, dup, dh)
}

void bg_act_forward(bg_activation act, size_t n, size_t d, bg_in x, bg_out y)
{
#pragma omp parallel for if (n * d > BG_PARALLEL_FLOATS)
    for (size_t i = 0; i < n; i++)
        forward_row(act, d, x.x + i * x.ld, y.x + i * y.ld);
}

void bg_act_backward(bg_activation act, size_t n, size_t d, bg_in x, bg_in dy, bg_out dx)
{
#pragma omp parallel for if (n * d > BG_PARALLEL_FLOATS)
    for (size_t i = 0; i < n; i++)
        backward_row(act, d, x.x + i * x.ld, dy.x + i * dy.ld, dx.x + i * dx.ld);
}

void bg_gated_forward(bg_activation act, size_t n, size_t d, bg_gated x, bg_out h)
{
#pragma omp parallel for if (n * d > BG_PARALLEL_FLOATS)
    for (size_t i = 0; i < n; i++)
        gated_forward_row(act, d, x.gate + i * x.ld, x.up + i * x.ld, h.x + i * h.ld);
}

void bg_gated_backward(bg_activation act, size_t n, size_t d, bg_gated x, bg_in dh, bg_out dgate, bg_out dup)
{
#pragma omp parallel for if (n * d > BG_PARALLEL_FLOATS)
    for (size_t i = 0; i < n; i++)
        gated_backward_row(act, d, x.gate + i * x.ld, x.up + i * x.ld, dh.x + i * dh.ld, dgate.x + i * dgate.ld,
                           dup.x + i * dup.ld);
}

void bg_gated_tangent(bg_activation act, size_t n, size_t d, bg_gated x, bg_gated dx, bg_out dh)
{
#pragma omp parallel for if (n * d > BG_PARALLEL_FLOATS)
    for (size_t i = 0; i < n; i++)
        gated_tangent_row(act, d, x.gate + i * x.ld, x.up + i * x.ld, dx.gate + i * dx.ld, dx.up + i * dx.ld,
                          dh.x + i * dh.ld);
}

/* ---- xIELU ---- */

BG_INLINE act_at xielu(bg_xielu a, float x)
{
    bool flat = x > a.eps; /* min(x, eps) stands still */
    float m = bg_expm1(flat ? a.eps : x);
    float value = x > 0.0f ? a.alpha_p * x * x : (m - x) * a.alpha_n;
    float slope = x > 0.0f ? 2.0f * a.alpha_p * x : (flat ? -1.0f : m) * a.alpha_n;
    return (act_at){ value + a.beta * x, slope + a.beta };
}

BG_CLONES static void xielu_forward_row(bg_xielu act, size_t d, const float *x, float *y)
{
#pragma omp simd
    for (size_t j = 0; j < d; j++)
        y[j] = xielu(act, x[j]).value;
}

BG_CLONES static void xielu_backward_row(bg_xielu act, size_t d, const float *x, const float *dy, float *dx)
{
#pragma omp simd
    for (size_t j = 0; j < d; j++)
        dx[j] = dy[j] * xielu(act, x[j]).slope;
}

void bg_xielu_forward(bg_xielu act, size_t n, size_t d, bg_in x, bg_out y)
{
#pragma omp parallel for if (n * d > BG_PARALLEL_FLOATS)
    for (size_t i = 0; i < n; i++)
        xielu_forward_row(act, d, x.x + i * x.ld, y.x + i * y.ld);
}

void bg_xielu_backward(bg_xielu act, size_t n, size_t d, bg_in x, bg_in dy, bg_out dx)
{
#pragma omp parallel for if (n * d > BG_PARALLEL_FLOATS)
    for (size_t i = 0; i < n; i++)
        xielu_backward_row(act, d, x.x + i * x.ld, dy.x + i * dy.ld, dx.x + i * dx.ld);
}
