/* kernels_softmax.c - softmax and sampling from it. */
#include <math.h>

#include "bregman/kernels.h"
#include "kernels_math.h"

BG_INLINE float row_max(size_t d, const float *x)
{
    float lane[BG_LANES], max = -INFINITY;
    for (size_t l = 0; l < BG_LANES; l++)
        lane[l] = -INFINITY;
    size_t j = 0;
    for (; j + BG_LANES <= d; j += BG_LANES) {
#pragma omp simd
        for (size_t l = 0; l < BG_LANES; l++)
            lane[l] = x[j + l] > lane[l] ? x[j + l] : lane[l];
    }
    for (; j < d; j++)
        max = x[j] > max ? x[j] : max;
    for (size_t l = 0; l < BG_LANES; l++)
        max = lane[l] > max ? lane[l] : max;
    return max;
}

/* x = softmax(scale x) in place; returns log sum exp (scale x).  A NaN makes the whole row NaN. */
BG_CLONES static double softmax(size_t d, float scale, float *x)
{
    if (scale != 1.0f) {
#pragma omp simd
        for (size_t j = 0; j < d; j++)
            x[j] *= scale;
    }
    float max = row_max(d, x);
#pragma omp simd
    for (size_t j = 0; j < d; j++)
        x[j] = bg_exp(x[j] - max);
    double sum = bg_row_sum(BG_SUM, d, (bg_terms){ .x = x });
    float inverse = (float)(1.0 / sum);
#pragma omp simd
    for (size_t j = 0; j < d; j++)
        x[j] *= inverse;
    return (double)max + log(sum);
}

void bg_softmax_causal(size_t n, size_t columns, bg_band band, float scale, bg_out s)
{
    for (size_t i = 0; i < n; i++, s.x += s.ld) {
        size_t end = band.first + i + 1 < columns ? band.first + i + 1 : columns;
        size_t begin = band.first + i + 1 > band.width ? band.first + i + 1 - band.width : 0;
        begin = begin < end ? begin : end;
        memset(s.x, 0, begin * sizeof *s.x);
        if (begin < end)
            (void)softmax(end - begin, scale, s.x + begin);
        memset(s.x + end, 0, (columns - end) * sizeof *s.x);
    }
}

BG_CLONES double bg_softmax_tangent(size_t d, float scale, const float *prob, float *ds)
{
    double mean = (double)scale * bg_row_sum(BG_SUM_XY, d, (bg_terms){ .x = prob, .y = ds });
    float centre = (float)mean;
#pragma omp simd
    for (size_t j = 0; j < d; j++)
        ds[j] = prob[j] * (scale * ds[j] - centre);
    return mean;
}

BG_CLONES void bg_softmax_backward(size_t n, size_t columns, float scale, const float *prob, const float *dot,
                                   float *ds)
{
    for (size_t i = 0; i < n; i++, prob += columns, ds += columns) {
        float mean = dot[i];
#pragma omp simd
        for (size_t j = 0; j < columns; j++)
            ds[j] = scale * prob[j] * (ds[j] - mean);
    }
}

double bg_softmax_row(size_t v, float *x) { return v == 0 ? -(double)INFINITY : softmax(v, 1.0f, x); }

enum { SAMPLE_BLOCK = 256 };

BG_CLONES static double block_sum(size_t v, const float *p, size_t start)
{
    size_t d = v - start < SAMPLE_BLOCK ? v - start : SAMPLE_BLOCK;
    return bg_row_sum(BG_SUM, d, (bg_terms){ .x = p + start });
}

/* First index of the block at which `before` plus the running sum exceeds target; the block's end if none does. */
static size_t scan_block(size_t v, const float *p, size_t start, double before, double target)
{
    size_t end = v - start < SAMPLE_BLOCK ? v : start + SAMPLE_BLOCK, i = start;
    for (double sum = before; i < end; i++) {
        sum += (double)p[i];
        if (sum > target)
            break;
    }
    return i;
}

size_t bg_sample_row(size_t v, const float *p, double u)
{
    double total = 0, before = 0;
    for (size_t start = 0; start < v; start += SAMPLE_BLOCK)
        total += block_sum(v, p, start);
    for (size_t start = 0; start < v; start += SAMPLE_BLOCK) {
        double block = block_sum(v, p, start);
        size_t end = v - start < SAMPLE_BLOCK ? v : start + SAMPLE_BLOCK;
        if (before + block > u * total) {
            size_t i = scan_block(v, p, start, before, u * total);
            if (i < end)
                return i;
        }
        before += block;
    }
    /* rounding left u * total unreached: the last index that can be drawn at all */
    for (size_t i = v; i-- > 0;)
        if (p[i] > 0)
            return i;
    return 0;
}
