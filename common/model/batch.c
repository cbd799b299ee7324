#include "bregman/batch.h"

#include <assert.h>
#include <string.h>

#include "bregman/memory.h"

static bg_status allocate_sequences(bg_batch *b, bg_err *err)
{
    bg_status st = BG_NEW(b->row_start, b->max_sequences + 1, "batch", err);
    if (st == BG_OK)
        st = BG_NEW(b->sequence, b->max_sequences, "batch", err);
    if (st == BG_OK)
        st = BG_NEW(b->loss_start, b->max_sequences, "batch", err);
    return st == BG_OK ? BG_NEW(b->erased, b->max_sequences, "batch", err) : st;
}

static bg_status allocate_rows(bg_batch *b, bg_err *err)
{
    bg_status st = BG_NEW(b->input, b->max_rows, "batch", err);
    if (st == BG_OK)
        st = BG_NEW(b->target, b->max_rows, "batch", err);
    if (st == BG_OK)
        st = BG_NEW(b->document_start, b->max_rows + 1, "batch", err);
    if (st == BG_OK)
        st = BG_NEW(b->position, b->max_rows, "batch", err);
    return st == BG_OK ? BG_NEW(b->weight, b->max_rows, "batch", err) : st;
}

bg_status bg_batch_new(bg_batch **out, size_t max_sequences, size_t max_rows, bg_err *err)
{
    bg_batch *b = NULL;
    *out = NULL;
    bg_status st = BG_NEW(b, 1, "batch", err);
    if (st != BG_OK)
        return st;
    b->max_sequences = max_sequences;
    b->max_rows = max_rows;
    st = allocate_sequences(b, err);
    if (st == BG_OK)
        st = allocate_rows(b, err);
    if (st != BG_OK) {
        bg_batch_free(b);
        return st;
    }
    *out = b;
    return BG_OK;
}

void bg_batch_free(bg_batch *b)
{
    if (b == NULL)
        return;
    bg_free(b->row_start);
    bg_free(b->sequence);
    bg_free(b->loss_start);
    bg_free(b->erased);
    bg_free(b->input);
    bg_free(b->target);
    bg_free(b->document_start);
    bg_free(b->position);
    bg_free(b->weight);
    bg_free(b);
}

void bg_batch_clear(bg_batch *b)
{
    b->n_sequences = b->n_rows = b->n_documents = 0;
    b->masked = false;
}

bool bg_batch_add(bg_batch *b, uint64_t sequence, const uint32_t *token, size_t n_tokens, uint32_t loss_start)
{
    size_t rows = n_tokens - 1;
    if (b->n_sequences == b->max_sequences || rows > b->max_rows - b->n_rows)
        return false;
    memcpy(b->input + b->n_rows, token, rows * sizeof *token);
    memcpy(b->target + b->n_rows, token + 1, rows * sizeof *token);
    b->sequence[b->n_sequences] = sequence;
    b->loss_start[b->n_sequences] = loss_start;
    b->erased[b->n_sequences] = BG_NOT_ERASED;
    b->row_start[b->n_sequences] = b->document_start[b->n_documents] = b->n_rows;
    for (size_t i = 0; i < rows; i++) {
        b->position[b->n_rows + i] = (uint32_t)i;
        b->weight[b->n_rows + i] = 1;
    }
    b->n_rows += rows;
    b->row_start[++b->n_sequences] = b->document_start[++b->n_documents] = b->n_rows;
    return true;
}

/* Of the row that predicts the token. */
static bool mark_target(bg_batch *b, size_t row, uint8_t mark)
{
    bool in = bg_mark_in_loss(mark);
    b->weight[row] = mark & BG_MINUS ? -1.0f : 1.0f;
    b->masked = b->masked || !in;
    if (!in)
        b->target[row] = BG_NO_TARGET;
    return in;
}

bool bg_batch_mark(bg_batch *b, const uint8_t *mark)
{
    size_t last = b->n_sequences - 1, first = b->row_start[last], base = 0;
    bool any = false;
    for (size_t i = 0; i < b->n_rows - first; i++) {
        if (i > 0 && mark[i] & BG_BEGINS) {
            b->document_start[b->n_documents++] = first + i;
            base = mark[i] & BG_RESTARTS ? i : base;
        }
        b->position[first + i] = (uint32_t)(i - base);
        any = (mark_target(b, first + i, mark[i + 1]) && i >= b->loss_start[last]) || any;
    }
    b->document_start[b->n_documents] = b->n_rows;
    return any;
}

void bg_batch_clear_erased(const bg_batch *b, size_t d, float *x)
{
    for (size_t z = 0; z < b->n_sequences; z++)
        if (b->erased[z] != BG_NOT_ERASED)
            memset(x + (b->row_start[z] + b->erased[z]) * d, 0, d * sizeof *x);
}

void bg_batch_erase(bg_batch *b, uint32_t position)
{
    size_t last = b->n_sequences - 1;
    assert(position < b->n_rows - b->row_start[last]);
    b->erased[last] = position;
}
