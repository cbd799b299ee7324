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

BG_CLONES static void tangent_row(bg_norm norm, size_t d, const float *x, const float *dx, float *dy)
{
    moments m = row_moments(norm, d, x);
    const float *gain = norm.gain;
    float inverse = m.inverse_deviation, mean = 0;
    if (norm.kind == BG_NORM_LAYER)
        mean = (float)(bg_row_sum(BG_SUM, d, (bg_terms){ .x = dx }) / (double)d);
    double sum = bg_row_sum(BG_SUM_XY_SHIFTED, d, (bg_terms){ .x = dx, .y = x, .shift = m.mean });
    float slope = (float)(sum / (double)d * (double)inverse * (double)inverse); /* mean(x^ dx) / deviation */
#pragma omp simd
    for (size_t j = 0; j < d; j++)
        dy[j] = (dx[j] - mean - (x[j] - m.mean) * slope) * inverse * gain[j];
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

void bg_norm_tangent(bg_norm norm, size_t n, size_t d, bg_in x, bg_in dx, bg_out dy)
{
#pragma omp parallel for if (n * d > BG_PARALLEL_FLOATS)
    for (size_t i = 0; i < n; i++)
        tangent_row(norm, d, x.x + i * x.ld, dx.x + i * dx.ld, dy.x + i * dy.ld);
}

enum { COLUMNS = 64 }; /* summed up side by side */

/* Sums over rows of some columns of dy, and of dy x^ where there is x (with its moments). */
BG_CLONES static void sum_columns(size_t n, size_t d, bg_in dy, bg_in x, const float *stat, double *plain,
                                  double *scaled)
{
    for (size_t i = 0; i < n; i++) {
        const float *g = dy.x + i * dy.ld;
#pragma omp simd
        for (size_t j = 0; j < d; j++)
            plain[j] += (double)g[j];
        if (x.x == NULL)
            continue;
        const float *at = x.x + i * x.ld, mean = stat[2 * i], inverse = stat[2 * i + 1];
#pragma omp simd
        for (size_t j = 0; j < d; j++)
            scaled[j] += (double)(g[j] * (at[j] - mean) * inverse);
    }
}

static void add_columns(size_t n, size_t d, bg_in dy, bg_in x, const float *stat, float *const sum[2])
{
#pragma omp parallel for if (n * d > BG_PARALLEL_FLOATS)
    for (size_t j = 0; j < d; j += COLUMNS) {
        double of[2][COLUMNS] = { { 0 } };
        size_t w = d - j < COLUMNS ? d - j : COLUMNS;
        bg_in part = { x.x == NULL ? NULL : x.x + j, x.ld };
        sum_columns(n, w, (bg_in){ dy.x + j, dy.ld }, part, stat, of[0], of[1]);
        for (int k = 0; k < 2; k++)
            for (size_t c = 0; c < w && sum[k] != NULL; c++)
                sum[k][j + c] += (float)of[k][c];
    }
}

void bg_add_columns(size_t n, size_t d, bg_in x, float *sum)
{
    float *const into[2] = { sum, NULL };
    add_columns(n, d, x, (bg_in){ NULL, 0 }, NULL, into);
}

void bg_norm_gradient(bg_norm norm, size_t n, size_t d, bg_in x, bg_in dy, float *scratch, bg_norm_sums sums)
{
    float *const into[2] = { sums.bias, sums.gain };
#pragma omp parallel for if (n * d > BG_PARALLEL_FLOATS)
    for (size_t i = 0; i < n; i++) {
        moments m = row_moments(norm, d, x.x + i * x.ld);
        scratch[2 * i] = m.mean;
        scratch[2 * i + 1] = m.inverse_deviation;
    }
    add_columns(n, d, dy, x, scratch, into);
}
