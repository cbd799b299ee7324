/* tap.h - what a pass hands over at each tracked module, and to whom. */
#ifndef BG_TAP_H
#define BG_TAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bregman/batch.h"
#include "bregman/model.h"

/* What backward hands over of one tracked module; lent until the tap returns.  Its rows are those of the batch that the
 * module has read, all of them or fewer, in the batch's order: sequence i of the pair has rows [row_start[i],
 * row_start[i + 1]), of which there may be none. */
typedef struct {
    const bg_site *site;
    const bg_batch *batch;
    size_t n_rows, n_sequences;
    const size_t *row_start; /* [n_sequences + 1] */
    const size_t *sequence;  /* [n_sequences] its place in the batch; NULL: all of the batch's */
    const size_t *row;       /* [n_rows] its row in the batch; NULL: all of the batch's */
    const float *activation; /* a: [n_rows, M], the homogeneous 1 included where M has it */
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

/* Called once a tracked module and batch: in a block down, gate, up, attention out, q, k, v; top block first.
 * Modules that share an input come one after the other. */
typedef struct {
    bg_status (*pair)(void *self, const bg_pair *pair, bg_err *err);
    void *self;
} bg_tap;

typedef struct {
    bool sampled; /* labels from the model's own distribution (math.md M5) instead of `target` */
    uint64_t seed;
} bg_labels;

#endif /* BG_TAP_H */
