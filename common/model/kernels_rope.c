/* kernels_rope.c - rotary position embedding. */
#include <math.h>

#include "bregman/kernels.h"
#include "bregman/rope.h"
#include "bregman/threads.h"
#include "kernels_math.h"

void bg_rope_table(const bg_rope *rope, size_t rotary_dims, size_t n_positions, float *table)
{
    if (rope->kind == BG_ROPE_NONE)
        return;
    size_t half = rotary_dims / 2;
    double freq[BG_ROPE_MAX_PAIRS];
    bg_rope_frequencies(rope, rotary_dims, freq);
    for (size_t p = 0; p < n_positions; p++, table += 2 * half)
        for (size_t i = 0; i < half; i++) {
            table[i] = (float)(cos((double)p * freq[i]) * rope->attention_factor);
            table[half + i] = (float)(sin((double)p * freq[i]) * rope->attention_factor);
        }
}

/* Every head of a row: (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin), with sin negated going back. */
BG_CLONES static void rotate_row(bg_heads heads, size_t half, float *x, const float *cosine, float sign)
{
    const float *sine = cosine + half;
    for (size_t h = 0; h < heads.n; h++, x += heads.stride) {
        float *x1 = x, *x2 = x + half;
#pragma omp simd
        for (size_t i = 0; i < half; i++) {
            float a = x1[i], b = x2[i], s = sign * sine[i];
            x1[i] = a * cosine[i] - b * s;
            x2[i] = b * cosine[i] + a * s;
        }
    }
}

void bg_rope_apply(size_t n, bg_heads heads, size_t rotary_dims, bg_out x, const uint32_t *position, const float *table,
                   int direction)
{
#pragma omp parallel for if (n * heads.n * rotary_dims > BG_PARALLEL_FLOATS)
    for (size_t i = 0; i < n; i++)
        rotate_row(heads, rotary_dims / 2, x.x + i * x.ld, table + (size_t)position[i] * rotary_dims,
                   direction < 0 ? -1.0f : 1.0f);
}
