/* symmetric.c - lower triangles of diagonal blocks, in panels of PANEL columns.
 *
 * Panel p of a block of side s covers columns [c0, c0 + w), c0 = p * PANEL, and rows [c0, s): a row-major
 * (s - c0) x w rectangle.  Panels of a block follow one another, blocks too.
 */
#include "bregman/symmetric.h"

#include <assert.h>

#include "bregman/gemm.h"

/* Wide enough for full GEMM speed; the w² / 2 entries above the diagonal that a panel wastes stay a few percent. */
enum { PANEL = 256 };

static size_t block_start(bg_symmetric s, size_t j)
{
    assert(s.k >= 1 && j <= s.k);
    return j * s.n / s.k;
}

size_t bg_symmetric_side(bg_symmetric s, size_t j) { return block_start(s, j + 1) - block_start(s, j); }

static size_t panel_width(size_t side, size_t c0) { return side - c0 < PANEL ? side - c0 : PANEL; }

static size_t block_floats(size_t side)
{
    size_t floats = 0;
    for (size_t c0 = 0; c0 < side; c0 += PANEL)
        floats += (side - c0) * panel_width(side, c0);
    return floats;
}

size_t bg_symmetric_floats(bg_symmetric s)
{
    size_t floats = 0;
    if (bg_symmetric_is_diagonal(s))
        return s.n;
    for (size_t j = 0; j < s.k; j++)
        floats += block_floats(bg_symmetric_side(s, j));
    return floats;
}

/* X from its row c on, or Y from its column c on; `along`: the op with which that is along a stored row. */
static bg_operand from(bg_operand o, size_t c, bg_op along)
{
    o.x = (const float *)o.x + c * (o.op == along ? 1 : o.ld);
    return o;
}

/* sum_i += Σ_r X_ir Y_ri, X read along its stored rows. */
static void add_diagonal(size_t n, float *sum, size_t rows, bg_operand x, bg_operand y)
{
    const float *a = x.x, *b = y.x;
    size_t b_row = y.op == BG_N ? y.ld : 1, b_entry = y.op == BG_N ? 1 : y.ld;
    if (x.op == BG_T) {
        for (size_t r = 0; r < rows; r++)
            for (size_t i = 0; i < n; i++)
                sum[i] += a[r * x.ld + i] * b[r * b_row + i * b_entry];
        return;
    }
    for (size_t i = 0; i < n; i++)
        for (size_t r = 0; r < rows; r++)
            sum[i] += a[i * x.ld + r] * b[r * b_row + i * b_entry];
}

void bg_symmetric_add_product(bg_symmetric s, float *sum, size_t rows, bg_operand x, bg_operand y)
{
    if (bg_symmetric_is_diagonal(s)) {
        add_diagonal(s.n, sum, rows, x, y);
        return;
    }
    for (size_t j = 0; j < s.k; j++) {
        size_t start = block_start(s, j), side = bg_symmetric_side(s, j);
        for (size_t c0 = 0; c0 < side; c0 += PANEL) {
            size_t w = panel_width(side, c0), at = start + c0;
            bg_gemm((bg_extent){ side - c0, w, rows }, 1, from(x, at, BG_T), from(y, at, BG_N), 1, sum, w);
            sum += (side - c0) * w;
        }
    }
}

void bg_symmetric_add(bg_symmetric s, float *sum, size_t rows, const float *x, size_t ldx)
{
    bg_symmetric_add_product(s, sum, rows, bg_f32(BG_T, x, ldx), bg_f32(BG_N, x, ldx));
}

void bg_symmetric_cost(bg_cost *cost, bg_symmetric s, double rows)
{
    if (bg_symmetric_is_diagonal(s)) {
        cost->of[BG_COST_SERIAL] += rows * (double)s.n;
        return;
    }
    for (size_t j = 0; j < s.k; j++)
        for (size_t side = bg_symmetric_side(s, j), c0 = 0; c0 < side; c0 += PANEL)
            bg_cost_product(cost, (double)(side - c0), (double)panel_width(side, c0), rows, 1);
}

size_t bg_symmetric_panel(bg_symmetric s, size_t j, size_t c, size_t *c0, size_t *w)
{
    size_t side = bg_symmetric_side(s, j), at = 0;
    assert(c < side);
    for (size_t i = 0; i < j; i++)
        at += block_floats(bg_symmetric_side(s, i));
    for (*c0 = 0; *c0 + PANEL <= c; *c0 += PANEL)
        at += (side - *c0) * PANEL;
    *w = panel_width(side, *c0);
    return at;
}
