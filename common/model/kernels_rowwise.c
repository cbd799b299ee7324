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

void bg_add(size_t n, size_t d, const float *x, size_t ldx, float *y, size_t ldy)
{
#pragma omp parallel for if (n * d > BG_PARALLEL_FLOATS)
    for (size_t i = 0; i < n; i++)
        add_row(d, x + i * ldx, y + i * ldy);
}

void bg_add_bias(size_t n, size_t d, const float *bias, float *y, size_t ldy) { bg_add(n, d, bias, 0, y, ldy); }

BG_CLONES static void group_dot_row(size_t n_groups, size_t w, const float *x, const float *y, float *out)
{
    for (size_t g = 0; g < n_groups; g++)
        out[g] = (float)bg_row_sum(BG_SUM_XY, w, (bg_terms){ .x = x + g * w, .y = y + g * w });
}

void bg_group_dot(size_t n, size_t n_groups, size_t w, const float *x, size_t ldx, const float *y, size_t ldy,
                  float *out, size_t ldo)
{
#pragma omp parallel for if (n * n_groups * w > BG_PARALLEL_FLOATS)
    for (size_t i = 0; i < n; i++)
        group_dot_row(n_groups, w, x + i * ldx, y + i * ldy, out + i * ldo);
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
