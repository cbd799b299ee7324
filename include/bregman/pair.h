/* pair.h - the input a and the output gradient δ of one site, of a micro-batch's rows (math.md M4). */
#ifndef BG_PAIR_H
#define BG_PAIR_H

#include <stddef.h>
#include <stdint.h>

#include "bregman/batch.h"
#include "bregman/cost.h"
#include "bregman/site.h"

/* What backward hands over of one tracked site; lent until the tap returns.  Its rows are those of the batch that the
 * site has read, all of them or fewer, in the batch's order: sequence i of the pair has rows [row_start[i],
 * row_start[i + 1]), of which there may be none.  A head has those that are in the loss.
 * A norm's is its input x [n_rows, n_out] as it was before the norm, and the gradient at its output. */
typedef struct {
    const bg_site *site;
    const bg_batch *batch;
    size_t n_rows, n_sequences;
    const size_t *row_start; /* [n_sequences + 1] */
    const size_t *sequence;  /* [n_sequences] its place in the batch; NULL: all of the batch's */
    const uint32_t *row;     /* [n_rows] its row in the batch; NULL: all of the batch's */
    const float *activation; /* a: [n_rows, M], the homogeneous 1 included where M has it; NULL for an embedding: */
    const uint32_t *token;   /* [n_rows] where its a has the only 1: ids, or positions */
    size_t ld_activation;
    const float *gradient; /* δ: [n_rows, P], of the loss summed over the batch */
    size_t ld_gradient;
} bg_pair;

static inline size_t bg_pair_sequence(const bg_pair *p, size_t i) { return p->sequence != NULL ? p->sequence[i] : i; }
static inline size_t bg_pair_row(const bg_pair *p, size_t i) { return p->row != NULL ? p->row[i] : i; }

/* Rows of the batch's sequence z in the pair: their number, and the first; 0 if the module has read none of it. */
static inline size_t bg_pair_rows_of(const bg_pair *p, size_t z, size_t *first)
{
    size_t i = p->sequence == NULL ? z : 0;
    while (i < p->n_sequences && bg_pair_sequence(p, i) != z)
        i++;
    *first = i < p->n_sequences ? p->row_start[i] : 0;
    return i < p->n_sequences ? p->row_start[i + 1] - p->row_start[i] : 0;
}

/* g [P, M] = δᵀ a over rows [first, first + n): with all rows of a sequence, its gradient of the weights. */
void bg_pair_gradient(const bg_pair *p, size_t first, size_t n, float *g);
/* g += that. */
void bg_pair_add_gradient(const bg_pair *p, size_t first, size_t n, float *g);
/* Of `times` such calls with so many rows each: a product, but of one-hot inputs. */
void bg_pair_gradient_cost(bg_cost *cost, const bg_site *site, double rows, double times);

#endif /* BG_PAIR_H */
