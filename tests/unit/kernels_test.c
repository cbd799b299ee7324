/* Every kernel against an obvious float64 reference; backwards against central differences of the reference. */
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../common/model/kernels_math.h"
#include "bregman/kernels.h"
#include "bregman/rng.h"
#include "bregman/rope.h"
#include "bregman/threads.h"

static const size_t width[] = { 0, 1, 2, 15, 16, 61, 64, 67, 257, 1000 };
enum { WIDTHS = sizeof width / sizeof width[0], ROWS = 3 };

static float *normals(uint64_t stream, size_t n)
{
    float *x = malloc((n + 1) * sizeof *x);
    assert_non_null(x);
    bg_normal_fill(2, stream, n, x);
    return x;
}

static void check_close(double got, double want, double rtol, double atol)
{
    if (!(fabs(got - want) <= rtol * fabs(want) + atol)) /* a NaN fails */
        fail_msg("got %.9g, want %.9g", got, want);
}

/* exp, exhaustively enough: every 97th float of either sign from 2^-30 to beyond overflow. */
static void exp_is_accurate(void **state)
{
    (void)state;
    const float tiny = 1.401298464e-45f;
    double worst_ulp = 0;
    for (uint32_t bits = 0x30800000u; bits < 0x42E00000u; bits += 97)
        for (int sign = -1; sign <= 1; sign += 2) {
            float x;
            memcpy(&x, &bits, sizeof x);
            x = (float)sign * x;
            double want = exp((double)x);
            float got = bg_exp(x), rounded = (float)want;
            if (isinf(rounded)) {
                assert_true(got > 3.4e38f);
                continue;
            }
            double ulp = fmax((double)nextafterf(rounded, INFINITY) - (double)rounded, (double)tiny);
            worst_ulp = fmax(worst_ulp, isfinite(got) ? fabs((double)got - want) / ulp : 1e9);
        }
    print_message("exp: at most %.2f ulp off\n", worst_ulp);
    assert_true(worst_ulp < 2);
    assert_true(bg_exp(-INFINITY) == 0 && bg_exp(-200) == 0 && bg_exp(0) == 1);
    assert_true(isinf(bg_exp(INFINITY)) && isinf(bg_exp(100)) && isnan(bg_exp(NAN)));
}

static double act_reference(bg_activation act, double x)
{
    switch (act) {
    case BG_ACT_GELU_TANH: return 0.5 * x * (1 + tanh(sqrt(2 / acos(-1.0)) * (x + 0.044715 * x * x * x)));
    case BG_ACT_GELU_ERF: return 0.5 * x * erfc(-x / sqrt(2.0));
    case BG_ACT_SILU: return x / (1 + exp(-x));
    case BG_ACT_RELU: return x > 0 ? x : 0;
    case BG_ACT_XIELU: break;
    }
    return NAN;
}

static double act_slope(bg_activation act, double x)
{
    const double h = 1e-5;
    return (act_reference(act, x + h) - act_reference(act, x - h)) / (2 * h);
}

static void check_activation(bg_activation act, size_t d)
{
    size_t ld = d + 3;
    float *x = normals(1, ROWS * ld), *up = normals(2, ROWS * ld), *dy = normals(3, ROWS * ld);
    float *y = normals(4, ROWS * ld), *g = normals(5, ROWS * ld), *dup = normals(6, ROWS * ld);
    for (size_t i = 0; i < ROWS * ld; i++)
        x[i] *= 4;
    bg_act_forward(act, ROWS, d, (bg_in){ x, ld }, (bg_out){ y, ld });
    bg_gated_forward(act, ROWS, d, (bg_gated){ x, up, ld }, (bg_out){ g, ld });
    for (size_t i = 0; i < ROWS; i++)
        for (size_t j = i * ld; j < i * ld + d; j++) {
            double want = act_reference(act, (double)x[j]);
            check_close((double)y[j], want, 1e-6, 1e-6);
            check_close((double)g[j], want * (double)up[j], 1e-6, 2e-6);
        }
    bg_gated_backward(act, ROWS, d, (bg_gated){ x, up, ld }, (bg_in){ dy, ld }, (bg_out){ g, ld }, (bg_out){ dup, ld });
    float *dx = dy; /* in place, as allowed */
    memcpy(y, dy, ROWS * ld * sizeof *y);
    bg_act_backward(act, ROWS, d, (bg_in){ x, ld }, (bg_in){ dy, ld }, (bg_out){ dx, ld });
    for (size_t i = 0; i < ROWS; i++) {
        for (size_t j = i * ld; j < i * ld + d; j++) {
            double slope = act_slope(act, (double)x[j]), dh = (double)y[j];
            check_close((double)dx[j], dh * slope, 1e-6, 2e-6);
            check_close((double)g[j], dh * (double)up[j] * slope, 1e-6, 5e-6);
            check_close((double)dup[j], dh * act_reference(act, (double)x[j]), 1e-6, 5e-6);
        }
        for (size_t j = i * ld + d; j < (i + 1) * ld; j++) /* beyond the row: untouched */
            assert_true(dx[j] == y[j]);
    }
    float *all[] = { x, up, dy, y, g, dup };
    for (size_t i = 0; i < 6; i++)
        free(all[i]);
}

static void activations_match(void **state)
{
    (void)state;
    for (int act = BG_ACT_GELU_TANH; act <= BG_ACT_RELU; act++)
        for (size_t i = 0; i < WIDTHS; i++)
            check_activation((bg_activation)act, width[i]);
}

static double xielu_reference(bg_xielu a, double x)
{
    double alpha = (double)(x > 0 ? a.alpha_p : a.alpha_n);
    return (double)a.beta * x + (x > 0 ? alpha * x * x : alpha * (expm1(fmin(x, (double)a.eps)) - x));
}

/* Large and small, of both signs; the kink at eps aside. */
static void xielu_matches(void **state)
{
    (void)state;
    enum { N = 4, D = 67, LD = 70 };
    const bg_xielu act = { 0.7f, 1.1f, 0.5f, -1e-6f };
    float *x = normals(1, N * LD), *dy = normals(2, N * LD), *y = normals(3, N * LD), *dx = normals(4, N * LD);
    for (size_t i = 0; i < N * LD; i++)
        x[i] *= i % 3 == 0 ? 30.0f : i % 3 == 1 ? 1.0f : 1e-3f;
    bg_xielu_forward(act, N, D, (bg_in){ x, LD }, (bg_out){ y, LD });
    bg_xielu_backward(act, N, D, (bg_in){ x, LD }, (bg_in){ dy, LD }, (bg_out){ dx, LD });
    for (size_t i = 0; i < N; i++)
        for (size_t j = i * LD; j < i * LD + D; j++) {
            double h = 1e-6 * fabs((double)x[j]), at = (double)x[j];
            double slope = (xielu_reference(act, at + h) - xielu_reference(act, at - h)) / (2 * h);
            check_close((double)y[j], xielu_reference(act, at), 1e-6, 1e-6);
            check_close((double)dx[j], (double)dy[j] * slope, 1e-6, 1e-6);
        }
    float at[] = { 0, -1e30f, NAN }, value[3];
    bg_xielu_forward(act, 1, 3, (bg_in){ at, 3 }, (bg_out){ value, 3 });
    assert_true(fabsf(value[0]) < 2e-6f && isfinite(value[1]) && isnan(value[2]));
    float *all[] = { x, dy, y, dx };
    for (size_t i = 0; i < 4; i++)
        free(all[i]);
}

/* cap tanh(scale x / cap) and its slope, to the last digits near 0 and where it is flat. */
static void softcap_matches(void **state)
{
    (void)state;
    enum { D = 300 };
    const float scale = 0.3f, cap = 5;
    float x[D + 1], before[D], slope[D], plain[D];
    for (size_t i = 0; i < D; i++)
        plain[i] = x[i] = before[i] = (float)((i % 2 ? 1 : -1) * pow(10, -6 + 0.03 * (double)i));
    x[D] = 7;
    bg_softcap(D, scale, cap, x, slope);
    bg_softcap(D, scale, cap, plain, NULL);
    for (size_t i = 0; i < D; i++) {
        double t = tanh((double)scale * (double)before[i] / (double)cap);
        check_close((double)x[i], (double)cap * t, 1e-6, 0);
        check_close((double)slope[i], (double)scale * (1 - t * t), 1e-6, 1e-7);
        assert_true(plain[i] == x[i]);
    }
    assert_true(x[D] == 7);
    float odd[] = { NAN, INFINITY };
    bg_softcap(2, scale, cap, odd, NULL);
    assert_true(isnan(odd[0]) && odd[1] == cap);
}

static void clips(void **state)
{
    (void)state;
    float x[] = { -3, -0.5f, 0, 2, 9, NAN }, y[6], dy[] = { 1, 2, 3, 4, 5, 6 };
    memcpy(y, x, sizeof y);
    bg_clip_forward(2, 3, 2, (bg_out){ y, 3 });
    assert_true(y[0] == -2 && y[1] == -0.5f && y[2] == 0 && y[3] == 2 && y[4] == 2 && isnan(y[5]));
    bg_clip_backward(2, 3, 2, (bg_in){ x, 3 }, (bg_out){ dy, 3 });
    assert_true(dy[0] == 0 && dy[1] == 2 && dy[2] == 3 && dy[3] == 4 && dy[4] == 0);
}

static void activations_at_extremes(void **state)
{
    (void)state;
    for (int act = BG_ACT_GELU_TANH; act <= BG_ACT_RELU; act++) {
        float x[] = { -1e30f, -200, -14, 14, 200, 1e30f, 0, NAN }, y[8], dx[8], one[8] = { 1, 1, 1, 1, 1, 1, 1, 1 };
        bg_act_forward((bg_activation)act, 1, 8, (bg_in){ x, 8 }, (bg_out){ y, 8 });
        bg_act_backward((bg_activation)act, 1, 8, (bg_in){ x, 8 }, (bg_in){ one, 8 }, (bg_out){ dx, 8 });
        for (size_t i = 0; i < 7; i++) {
            assert_true(fabsf(y[i] - (x[i] > 0 ? x[i] : 0)) < 2e-5f);
            assert_true(x[i] == 0 || fabsf(dx[i] - (x[i] > 0 ? 1 : 0)) < 2e-5f);
        }
        assert_true(isnan(y[7]) && isnan(dx[7]));
    }
}

typedef struct {
    bg_norm_kind kind;
    size_t d;
    const double *x, *gain, *bias;
} norm_case;

static double norm_reference(norm_case c, double epsilon, size_t j)
{
    double mean = 0, square = 0;
    for (size_t i = 0; i < c.d && c.kind == BG_NORM_LAYER; i++)
        mean += c.x[i] / (double)c.d;
    for (size_t i = 0; i < c.d; i++)
        square += (c.x[i] - mean) * (c.x[i] - mean) / (double)c.d;
    return (c.x[j] - mean) / sqrt(square + epsilon) * c.gain[j] + (c.bias != NULL ? c.bias[j] : 0);
}

static double norm_slope(norm_case c, double epsilon, double *x, size_t j, const double *dy)
{
    const double h = 1e-5, at = x[j];
    double slope = 0;
    for (int sign = -1; sign <= 1; sign += 2) {
        x[j] = at + sign * h;
        for (size_t i = 0; i < c.d; i++)
            slope += sign * dy[i] * norm_reference(c, epsilon, i);
    }
    x[j] = at;
    return slope / (2 * h);
}

static double *widened(size_t n, const float *x)
{
    double *wide = malloc((n + 1) * sizeof *wide);
    assert_non_null(wide);
    for (size_t i = 0; i < n; i++)
        wide[i] = (double)x[i];
    return wide;
}

static void check_norm(bg_norm_kind kind, size_t d, int with_bias, double epsilon)
{
    size_t ld = d + 2;
    float *x = normals(1, ROWS * ld), *gain = normals(2, d), *bias = normals(3, d), *y = normals(4, ROWS * ld);
    float *dy = normals(5, ROWS * ld), *dx = normals(6, ROWS * ld), *before = normals(6, ROWS * ld);
    for (size_t i = 0; i < ROWS * ld; i++)
        x[i] = 2 * x[i] + 3;
    bg_norm_forward((bg_norm){ kind, epsilon, gain, with_bias ? bias : NULL }, ROWS, d, (bg_in){ x, ld },
                    (bg_out){ y, ld });
    bg_norm_backward((bg_norm){ kind, epsilon, gain, NULL }, ROWS, d, (bg_in){ x, ld }, (bg_in){ dy, ld },
                     (bg_out){ dx, ld }, true);
    double *wgain = widened(d, gain), *wbias = widened(d, bias);
    for (size_t i = 0; i < ROWS; i++) {
        double *wx = widened(d, x + i * ld), *wdy = widened(d, dy + i * ld);
        norm_case c = { kind, d, wx, wgain, with_bias ? wbias : NULL };
        for (size_t j = 0; j < d; j++)
            check_close((double)y[i * ld + j], norm_reference(c, epsilon, j), 2e-6, 2e-6);
        for (size_t j = 0; j < d; j += 1 + d / 8)
            check_close((double)dx[i * ld + j], (double)before[i * ld + j] + norm_slope(c, epsilon, wx, j, wdy), 1e-5,
                        1e-5);
        free(wdy);
        free(wx);
    }
    memcpy(dx, dy, ROWS * ld * sizeof *dx);
    bg_norm_backward((bg_norm){ kind, epsilon, gain, NULL }, ROWS, d, (bg_in){ x, ld }, (bg_in){ dy, ld },
                     (bg_out){ y, ld }, false);
    bg_norm_backward((bg_norm){ kind, epsilon, gain, NULL }, ROWS, d, (bg_in){ x, ld }, (bg_in){ dx, ld },
                     (bg_out){ dx, ld }, false); /* in place */
    for (size_t i = 0; i < ROWS; i++)
        assert_memory_equal(dx + i * ld, y + i * ld, d * sizeof *y);
    free(wbias);
    free(wgain);
    float *all[] = { x, gain, bias, y, dy, dx, before };
    for (size_t i = 0; i < 7; i++)
        free(all[i]);
}

static void norms_match(void **state)
{
    (void)state;
    for (size_t i = 0; i < WIDTHS; i++) {
        check_norm(BG_NORM_LAYER, width[i], 1, 0.1);
        check_norm(BG_NORM_LAYER, width[i], 0, 0.1);
        check_norm(BG_NORM_RMS, width[i], 0, 1e-5);
    }
    float x[] = { 1, NAN, 2, 3 }, gain[] = { 1, 1, 1, 1 }, y[4];
    bg_norm_forward((bg_norm){ BG_NORM_RMS, 1e-5, gain, NULL }, 1, 4, (bg_in){ x, 4 }, (bg_out){ y, 4 });
    for (size_t i = 0; i < 4; i++)
        assert_true(isnan(y[i]));
}

static void check_softmax(size_t v, float scale)
{
    float *x = normals(1, v), *p = normals(1, v);
    double max = -(double)INFINITY, sum = 0, total = 0;
    for (size_t i = 0; i < v; i++)
        max = fmax(max, (double)(scale * x[i]));
    for (size_t i = 0; i < v; i++) {
        p[i] = scale * x[i];
        sum += exp((double)p[i] - max);
    }
    double log_sum = bg_softmax_row(v, p);
    if (v == 0)
        assert_true(isinf(log_sum) && log_sum < 0);
    else
        check_close(log_sum, max + log(sum), 1e-6, 1e-6);
    for (size_t i = 0; i < v; i++) {
        check_close((double)p[i], exp((double)(scale * x[i]) - max) / sum, 1e-6 + 4e-7 * (double)scale, 1e-30);
        total += (double)p[i];
    }
    if (v > 0)
        check_close(total, 1, 1e-6, 0);
    free(p);
    free(x);
}

static void softmax_matches(void **state)
{
    (void)state;
    for (size_t i = 0; i < WIDTHS; i++) {
        check_softmax(width[i], 1);
        check_softmax(width[i], 30);
    }
    check_softmax(50257, 5);
    float x[40] = { [17] = NAN };
    (void)bg_softmax_row(40, x);
    for (size_t i = 0; i < 40; i++)
        assert_true(isnan(x[i]));
}

static void check_band(size_t first, size_t window)
{
    enum { N = 7, COLUMNS = 30, LD = 33 };
    float *s = normals(1, N * LD), *raw = normals(1, N * LD);
    bg_softmax_causal(N, COLUMNS, (bg_band){ first, window }, 0.25f, (bg_out){ s, LD });
    for (size_t i = 0; i < N; i++) {
        double sum = 0;
        for (size_t j = 0; j < COLUMNS; j++)
            sum += j <= first + i && first + i - j < window ? exp(0.25 * (double)raw[i * LD + j]) : 0;
        for (size_t j = 0; j < LD; j++) {
            bool kept = j <= first + i && first + i - j < window;
            double want = kept ? exp(0.25 * (double)raw[i * LD + j]) / sum : 0;
            check_close((double)s[i * LD + j], j < COLUMNS ? want : (double)raw[i * LD + j], 1e-6, 0);
        }
    }
    free(raw);
    free(s);
}

static void softmax_causal_matches(void **state)
{
    (void)state;
    for (size_t first = 0; first < 34; first += 11)
        check_band(first, SIZE_MAX);
    for (size_t window = 1; window < 12; window++)
        for (size_t first = 0; first < 24; first += 23 - window) {
            check_band(first, window);
            check_band(window - 1, window);
        }
}

/* Widths of no, some and many vectors with a rest; each element rounded as the formula is, whatever the instruction
 * set. */
static void softmax_backward_matches(void **state)
{
    (void)state;
    const size_t columns[] = { 1, 7, 16, 63, 130 };
    for (size_t k = 0; k < sizeof columns / sizeof columns[0]; k++) {
        size_t d = columns[k], n = 5;
        float *prob = normals(1, n * d), *ds = normals(2, n * d), *given = normals(2, n * d), dot[5];
        for (size_t i = 0; i < n; i++) {
            double sum = 0;
            (void)bg_softmax_row(d, prob + i * d);
            for (size_t j = 0; j < d; j++)
                sum += (double)prob[i * d + j] * (double)given[i * d + j];
            dot[i] = (float)sum;
        }
        bg_softmax_backward(n, d, 0.25f, prob, dot, ds);
        for (size_t i = 0; i < n * d; i++) {
            volatile float scaled = 0.25f * prob[i], centred = given[i] - dot[i / d];
            volatile float want = scaled * centred;
            assert_true(ds[i] == want);
        }
        free(prob);
        free(ds);
        free(given);
    }
}

static void samples_follow_the_running_sum(void **state)
{
    (void)state;
    const float p[4] = { 0, 0.25f, 0.5f, 0.25f };
    assert_int_equal(bg_sample_row(4, p, 0), 1);
    assert_int_equal(bg_sample_row(4, p, 0.2499999), 1);
    assert_int_equal(bg_sample_row(4, p, 0.25), 2);
    assert_int_equal(bg_sample_row(4, p, 0.75), 3);
    assert_int_equal(bg_sample_row(4, p, 0.9999999), 3);
    enum { V = 1037 };
    float *x = normals(1, V);
    (void)bg_softmax_row(V, x);
    x[V - 1] = x[V - 2] = 0;
    for (size_t i = 0; i < 2000; i++) {
        double u = i == 1999 ? nextafter(1, 0) : bg_uniform(1, i, 0), total = 0, sum = 0;
        for (size_t j = 0; j < V; j++)
            total += (double)x[j];
        size_t got = bg_sample_row(V, x, u), want = 0;
        for (; want < V; want++)
            if ((sum += (double)x[want]) > u * total)
                break;
        assert_true(x[got] > 0);
        assert_true(got == want || i == 1999);
    }
    const float zero[3] = { 0 };
    assert_int_equal(bg_sample_row(3, zero, 0.5), 0);
    free(x);
}

static void rope_rotates(void **state)
{
    (void)state;
    enum { N = 5, HEADS = 3, ROTARY = 6, STRIDE = 10, LD = 40 };
    const bg_rope rope = { .kind = BG_ROPE_DEFAULT, .theta = 10000, .factor = 1, .attention_factor = 1 };
    const uint32_t position[N] = { 0, 3, 1, 900, 3 };
    float *table = normals(1, 901 * ROTARY), *x = normals(2, N * LD), *before = normals(2, N * LD);
    double freq[ROTARY / 2];
    bg_rope_table(&rope, ROTARY, 901, table);
    bg_rope_frequencies(&rope, ROTARY, freq);
    bg_rope_apply(N, (bg_heads){ HEADS, STRIDE }, ROTARY, (bg_out){ x, LD }, position, table, 1);
    for (size_t i = 0; i < N * LD; i++) {
        size_t row = i / LD, head = i % LD / STRIDE, at = i % LD % STRIDE, pair = at % (ROTARY / 2);
        double want = (double)before[i];
        if (head < HEADS && at < ROTARY) {
            double angle = position[row] * freq[pair];
            const float *b = before + row * LD + head * STRIDE;
            double b1 = (double)b[pair], b2 = (double)b[pair + ROTARY / 2];
            want = at < ROTARY / 2 ? b1 * cos(angle) - b2 * sin(angle) : b2 * cos(angle) + b1 * sin(angle);
        }
        check_close((double)x[i], want, 1e-6, 1e-6);
    }
    bg_rope_apply(N, (bg_heads){ HEADS, STRIDE }, ROTARY, (bg_out){ x, LD }, position, table, -1);
    for (size_t i = 0; i < N * LD; i++)
        check_close((double)x[i], (double)before[i], 1e-6, 1e-6);
    free(before);
    free(x);
    free(table);
}

static void rowwise_match(void **state)
{
    (void)state;
    for (size_t w = 0; w < WIDTHS; w++) {
        enum { GROUPS = 2 };
        size_t d = width[w] * GROUPS, ldx = d + 1, ldy = d + 4;
        float *x = normals(1, ROWS * ldx), *y = normals(2, ROWS * ldy), *sum = normals(2, ROWS * ldy);
        float *dot = normals(3, ROWS * 3), *biased = normals(2, ROWS * ldy), *acc = normals(2, ROWS * ldx);
        float *acc_before = normals(2, ROWS * ldx);
        bg_add(ROWS, d, (bg_in){ x, ldx }, (bg_out){ sum, ldy });
        bg_add_bias(ROWS, d, x, (bg_out){ biased, ldy });
        bg_group_dot(ROWS, GROUPS, width[w], (bg_in){ x, ldx }, (bg_in){ y, ldy }, (bg_out){ dot, 3 });
        bg_add_square(ROWS * ldx, x, acc);
        for (size_t i = 0; i < ROWS; i++)
            for (size_t g = 0; g < GROUPS; g++) {
                double want = 0, size = 0;
                for (size_t j = g * width[w]; j < (g + 1) * width[w]; j++) {
                    double product = (double)x[i * ldx + j] * (double)y[i * ldy + j];
                    want += product;
                    size += fabs(product);
                    assert_true(sum[i * ldy + j] == y[i * ldy + j] + x[i * ldx + j]);
                    assert_true(biased[i * ldy + j] == y[i * ldy + j] + x[j]);
                }
                check_close((double)dot[i * 3 + g], want, 1e-7, 1e-6 * size);
            }
        for (size_t i = 0; i < ROWS * ldx; i++)
            check_close((double)acc[i], (double)acc_before[i] + (double)x[i] * (double)x[i], 1e-6, 1e-6);
        float *all[] = { x, y, sum, dot, biased, acc, acc_before };
        for (size_t i = 0; i < 7; i++)
            free(all[i]);
    }
}

enum { D = 402, LEFT_ALONE = BG_PARALLEL_FLOATS / D };

/* n rows: the same bytes for one thread and three. */
static void check_threads(size_t n)
{
    static const uint32_t position[LEFT_ALONE + 1];
    float *x = normals(1, n * D), *gain = normals(2, D), *up = normals(3, n * D), *out[2];
    for (int t = 0; t < 2; t++) {
        float *o = out[t] = normals(4, 7 * n * D);
        omp_set_num_threads(t == 0 ? 1 : 3);
        bg_norm_forward((bg_norm){ BG_NORM_LAYER, 1e-5, gain, gain }, n, D, (bg_in){ x, D }, (bg_out){ o, D });
        bg_norm_backward((bg_norm){ BG_NORM_LAYER, 1e-5, gain, NULL }, n, D, (bg_in){ x, D }, (bg_in){ up, D },
                         (bg_out){ o + n * D, D }, true);
        bg_act_forward(BG_ACT_GELU_ERF, n, D, (bg_in){ x, D }, (bg_out){ o + 2 * n * D, D });
        bg_gated_backward(BG_ACT_SILU, n, D, (bg_gated){ x, up, D }, (bg_in){ x, D }, (bg_out){ o + 3 * n * D, D },
                          (bg_out){ o + 4 * n * D, D });
        bg_rope_apply(n, (bg_heads){ 1, D }, D, (bg_out){ o + 5 * n * D, D }, position, gain, 1);
        bg_group_dot(n, 1, D, (bg_in){ x, D }, (bg_in){ up, D },
                     (bg_out){ o + 6 * n * D, 1 }); /* the first n of the last part */
        bg_add_square(n * D, x, o + 6 * n * D);
    }
    omp_set_num_threads(1);
    float *fresh = normals(4, 7 * n * D);
    for (size_t i = n; i < n * D; i++) { /* beyond the row dots */
        size_t at = 6 * n * D + i;
        check_close((double)out[0][at], (double)fresh[at] + (double)x[i] * (double)x[i], 1e-6, 1e-6);
    }
    free(fresh);
    assert_memory_equal(out[0], out[1], 7 * n * D * sizeof(float));
    float *all[] = { x, gain, up, out[0], out[1] };
    for (size_t i = 0; i < 5; i++)
        free(all[i]);
}

/* The most rows that one thread keeps, and the fewest that are shared out. */
static void threads_change_nothing(void **state)
{
    (void)state;
    check_threads(LEFT_ALONE);
    check_threads(LEFT_ALONE + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exp_is_accurate),
        cmocka_unit_test(activations_match),
        cmocka_unit_test(activations_at_extremes),
        cmocka_unit_test(norms_match),
        cmocka_unit_test(softmax_matches),
        cmocka_unit_test(xielu_matches),
        cmocka_unit_test(softcap_matches),
        cmocka_unit_test(clips),
        cmocka_unit_test(softmax_causal_matches),
        cmocka_unit_test(softmax_backward_matches),
        cmocka_unit_test(samples_follow_the_running_sum),
        cmocka_unit_test(rope_rotates),
        cmocka_unit_test(rowwise_match),
        cmocka_unit_test(threads_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
