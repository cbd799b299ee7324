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
