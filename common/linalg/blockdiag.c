#include "bregman/blockdiag.h"

void bg_blockdiag_apply(const bg_blockdiag *q, bg_op op, size_t rows, const float *x, size_t ldx, float *y, size_t ldy)
{
    for (size_t i = 0; q->k == q->n && i < rows; i++)
        for (size_t j = 0; j < q->n; j++)
            y[i * ldy + j] = x[i * ldx + j] * q->a[j];
    for (size_t j = 0; j < q->k && q->k != q->n; j++) {
        size_t b = bg_block_start(q->n, q->k, j), side = bg_block_start(q->n, q->k, j + 1) - b;
        bg_gemm((bg_extent){ rows, side, side }, 1.0f, bg_f32(BG_N, x + b, ldx),
                bg_f32(op, q->a + b * q->width, q->width), 0.0f, y + b, ldy);
    }
}

void bg_blockdiag_apply_left(const bg_blockdiag *q, bg_op op, size_t columns, const float *x, size_t ldx, float *y,
                             size_t ldy)
{
    for (size_t i = 0; q->k == q->n && i < q->n; i++)
        for (size_t j = 0; j < columns; j++)
            y[i * ldy + j] = q->a[i] * x[i * ldx + j];
    for (size_t j = 0; j < q->k && q->k != q->n; j++) {
        size_t b = bg_block_start(q->n, q->k, j), side = bg_block_start(q->n, q->k, j + 1) - b;
        bg_gemm((bg_extent){ side, columns, side }, 1.0f, bg_f32(op, q->a + b * q->width, q->width),
                bg_f32(BG_N, x + b * ldx, ldx), 0.0f, y + b * ldy, ldy);
    }
}

void bg_blockdiag_cost(bg_cost *cost, bg_symmetric s, double rows, double times)
{
    if (bg_symmetric_is_diagonal(s)) {
        cost->of[BG_COST_SERIAL] += times * rows * (double)s.n;
        return;
    }
    for (size_t j = 0; j < s.k; j++) {
        double side = (double)bg_symmetric_side(s, j);
        bg_cost_product(cost, rows, side, side, times);
    }
}
