/* kernels_norm.c - layer norm and RMS norm. */
#include <math.h>

#include "bregman/kernels.h"
#include "bregman/threads.h"
#include "kernels_math.h"

typedef struct {
    float mean, inverse_deviation;
} moments;

BG_INLINE moments row_moments(bg_norm norm, size_t d, const float *x)
{
    double mean = 0;
    if (norm.kind == BG_NORM_LAYER)
        mean = bg_row_sum(BG_SUM, d, (bg_terms){ .x = x }) / (double)d;
    float shift = (float)mean;
    double variance = bg_row_sum(BG_SUM_SQUARE, d, (bg_terms){ .x = x, .shift = shift }) / (double)d;
    return (moments){ shift, (float)(1.0 / sqrt(variance + norm.epsilon)) };
}

BG_CLONES static void forward_row(bg_norm norm, size_t d, const float *x, float *y)
{
    moments m = row_moments(norm, d, x);
    const float *gain = norm.gain, *bias = norm.bias;
    if (bias != NULL) {
#pragma omp simd
        for (size_t j = 0; j < d; j++)
            y[j] = (x[j] - m.mean) * m.inverse_deviation * gain[j] + bias[j];
    } else {
#pragma omp simd
        for (size_t j = 0; j < d; j++)
            y[j] = (x[j] - m.mean) * m.inverse_deviation * gain[j];
    }
}

/* With x^ = (x - mean) / deviation and g = dy gain: dx = (g - mean(g) - x^ mean(g x^)) / deviation; RMS norm
 * has no mean(g) term. */
BG_CLONES static void backward_row(bg_norm norm, size_t d, const float *x, const float *dy, float *dx, bool accumulate)
{
    moments m = row_moments(norm, d, x);
    const float *gain = norm.gain;
    float inverse = m.inverse_deviation, mean_g = 0;
    if (norm.kind == BG_NORM_LAYER)
        mean_g = (float)(bg_row_sum(BG_SUM_XY, d, (bg_terms){ .x = dy, .y = gain }) / (double)d);
    double sum_gx = bg_row_sum(BG_SUM_XYZ, d, (bg_terms){ .x = dy, .y = gain, .z = x, .shift = m.mean });
    float slope = (float)(sum_gx / (double)d * (double)inverse * (double)inverse); /* mean(g x^) / deviation */
    if (accumulate) {
#pragma omp simd
        for (size_t j = 0; j < d; j++)
            dx[j] += (dy[j] * gain[j] - mean_g - (x[j] - m.mean) * slope) * inverse;
    } else {
#pragma omp simd
        for (size_t j = 0; j < d; j++)
            dx[j] = (dy[j] * gain[j] - mean_g - (x[j] - m.mean) * slope) * inverse;
    }
}

void bg_norm_forward(bg_norm norm, size_t n, size_t d, bg_in x, bg_out y)
{
#pragma omp parallel for if (n * d > BG_PARALLEL_FLOATS)
    for (size_t i = 0; i < n; i++)
        forward_row(norm, d, x.x + i * x.ld, y.x + i * y.ld);
}

void bg_norm_backward(bg_norm norm, size_t n, size_t d, bg_in x, bg_in dy, bg_out dx, bool accumulate)
{
#pragma omp parallel for if (n * d > BG_PARALLEL_FLOATS)
    for (size_t i = 0; i < n; i++)
        backward_row(norm, d, x.x + i * x.ld, dy.x + i * dy.ld, dx.x + i * dx.ld, accumulate);
}
