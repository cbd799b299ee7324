#include "bregman/blockdiag.h"

void bg_blockdiag_apply(const bg_blockdiag *q, bg_op op, size_t rows, const float *x, size_t ldx, float *y, size_t ldy)
{
    for (size_t j = 0; j < q->k; j++) {
        size_t b = bg_block_start(q->n, q->k, j), side = bg_block_start(q->n, q->k, j + 1) - b;
        bg_gemm((bg_extent){ rows, side, side }, 1.0f, bg_f32(BG_N, x + b, ldx),
                bg_f32(op, q->a + b * q->width, q->width), 0.0f, y + b, ldy);
    }
}

void bg_blockdiag_apply_left(const bg_blockdiag *q, bg_op op, size_t columns, const float *x, size_t ldx, float *y,
                             size_t ldy)
{
    for (size_t j = 0; j < q->k; j++) {
        size_t b = bg_block_start(q->n, q->k, j), side = bg_block_start(q->n, q->k, j + 1) - b;
        bg_gemm((bg_extent){ side, columns, side }, 1.0f, bg_f32(op, q->a + b * q->width, q->width),
                bg_f32(BG_N, x + b * ldx, ldx), 0.0f, y + b * ldy, ldy);
    }
}

void bg_blockdiag_cost(bg_cost *cost, size_t n, size_t k, double rows, double times)
{
    for (size_t j = 0; j < k; j++) {
        double side = (double)(bg_block_start(n, k, j + 1) - bg_block_start(n, k, j));
        bg_cost_product(cost, rows, side, side, times);
    }
}
