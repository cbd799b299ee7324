/* kernels_rowwise.c - sums and products of rows. */
#include "bregman/kernels.h"
#include "bregman/threads.h"
#include "kernels_math.h"

BG_CLONES static void add_row(size_t d, const float *x, float *y)
{
#pragma omp simd
    for (size_t j = 0; j < d; j++)
        y[j] += x[j];
}

void bg_add(size_t n, size_t d, bg_in x, bg_out y)
{
#pragma omp parallel for if (n * d > BG_PARALLEL_FLOATS)
    for (size_t i = 0; i < n; i++)
        add_row(d, x.x + i * x.ld, y.x + i * y.ld);
}

void bg_add_bias(size_t n, size_t d, const float *bias, bg_out y) { bg_add(n, d, (bg_in){ bias, 0 }, y); }

BG_CLONES static void group_dot_row(size_t n_groups, size_t w, const float *x, const float *y, float *out)
{
    for (size_t g = 0; g < n_groups; g++)
        out[g] = (float)bg_row_sum(BG_SUM_XY, w, (bg_terms){ .x = x + g * w, .y = y + g * w });
}

void bg_group_dot(size_t n, size_t n_groups, size_t w, bg_in x, bg_in y, bg_out out)
{
#pragma omp parallel for if (n * n_groups * w > BG_PARALLEL_FLOATS)
    for (size_t i = 0; i < n; i++)
        group_dot_row(n_groups, w, x.x + i * x.ld, y.x + i * y.ld, out.x + i * out.ld);
}

BG_CLONES static void add_square(size_t n, const float *x, float *acc)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        acc[i] += x[i] * x[i];
}

void bg_add_square(size_t n, const float *x, float *acc)
{
    const size_t part = 32768; /* as much as threads take at a time */
#pragma omp parallel for if (n > BG_PARALLEL_FLOATS)
    for (size_t start = 0; start < n; start += part)
        add_square(n - start < part ? n - start : part, x + start, acc + start);
}

BG_CLONES void bg_softcap(size_t d, float scale, float cap, float *x, float *slope)
{
    float by = scale / cap;
    if (slope != NULL) {
#pragma omp simd
        for (size_t j = 0; j < d; j++) {
            float t = bg_tanh(by * x[j]);
            slope[j] = scale * (1.0f - t) * (1.0f + t);
        }
    }
#pragma omp simd
    for (size_t j = 0; j < d; j++)
        x[j] = cap * bg_tanh(by * x[j]);
}

BG_CLONES void bg_times(size_t d, const float *x, float *y)
{
#pragma omp simd
    for (size_t j = 0; j < d; j++)
        y[j] *= x[j];
}

BG_CLONES void bg_scale(size_t n, float by, float *x)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        x[i] *= by;
}

BG_CLONES static void clip_row(size_t d, float clip, float *y)
{
#pragma omp simd
    for (size_t j = 0; j < d; j++)
        y[j] = y[j] > clip ? clip : y[j] < -clip ? -clip : y[j];
}

BG_CLONES static void clip_back_row(size_t d, float clip, const float *x, float *dy)
{
#pragma omp simd
    for (size_t j = 0; j < d; j++)
        dy[j] = bg_abs(x[j]) > clip ? 0.0f : dy[j];
}

void bg_clip_forward(size_t n, size_t d, float clip, bg_out y)
{
#pragma omp parallel for if (n * d > BG_PARALLEL_FLOATS)
    for (size_t i = 0; i < n; i++)
        clip_row(d, clip, y.x + i * y.ld);
}

void bg_clip_backward(size_t n, size_t d, float clip, bg_in x, bg_out dy)
{
#pragma omp parallel for if (n * d > BG_PARALLEL_FLOATS)
    for (size_t i = 0; i < n; i++)
        clip_back_row(d, clip, x.x + i * x.ld, dy.x + i * dy.ld);
}
