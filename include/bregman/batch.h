/* batch.h - a micro-batch of token sequences. */
#ifndef BG_BATCH_H
#define BG_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bregman/mark.h"
#include "bregman/status.h"

/* In bg_batch.target: the row is not in the loss. */
#define BG_NO_TARGET UINT32_MAX
/* In bg_batch.erased: no token of the sequence is. */
#define BG_NOT_ERASED UINT32_MAX

/* A micro-batch.  A sequence of n tokens has n - 1 rows, one for each position that predicts a
 * token: its last token is only a target (causality makes its position irrelevant), so no
 * FLOP goes into padding or into rows without a loss.  Rows of all sequences lie back to back. */
typedef struct {
    size_t n_sequences, n_rows;
    size_t *row_start;        /* [n_sequences + 1] */
    uint64_t *sequence;       /* [n_sequences] global index: keys the sampled labels */
    uint32_t *loss_start;     /* [n_sequences] first position whose prediction is in the loss; 0 for all */
    uint32_t *erased;         /* [n_sequences] position whose token's embedding is 0; BG_NOT_ERASED for none */
    uint32_t *input, *target; /* [n_rows] */
    size_t n_documents;       /* sequences, or the documents that they are made of */
    size_t *document_start;   /* [n_documents + 1] first row of each: attention is between rows of one */
    uint32_t *position;       /* [n_rows] */
    float *weight;            /* [n_rows] of the row's loss: 1 or -1 */
    bool masked;              /* a row is not in the loss, by bg_batch_mark */
    size_t max_sequences, max_rows;
} bg_batch;

/* A micro-batch of sequences of one length whose tokens are not there: to be asked what it costs. */
typedef struct {
    size_t sequences;
    size_t rows, loss_rows; /* of each sequence, and those of them that are in the loss */
    size_t max_rows;        /* that the pass has room for */
    bool sampled;           /* labels */
    bool forward;           /* only: the losses, without a tap */
} bg_batch_shape;

bg_status bg_batch_new(bg_batch **out, size_t max_sequences, size_t max_rows, bg_err *err) BG_MUST_CHECK;
void bg_batch_free(bg_batch *b);
void bg_batch_clear(bg_batch *b);
/* Append a sequence if it fits (n_tokens - 1 rows; n_tokens >= 2).  Returns whether it did. */
bool bg_batch_add(bg_batch *b, uint64_t sequence, const uint32_t *token, size_t n_tokens, uint32_t loss_start);
/* What is said of each token of the sequence added last (mark.h).  Returns whether any is in the loss, from its
 * loss_start. */
bool bg_batch_mark(bg_batch *b, const uint8_t *mark);
/* Erase the token that the sequence added last reads at a position, 0 <= position < its rows: the token's embedding is
 * 0 there, what is added for its position stays, and so does its part as a target. */
void bg_batch_erase(bg_batch *b, uint32_t position);
/* x [n_rows, d] becomes 0 where a token is erased. */
void bg_batch_clear_erased(const bg_batch *b, size_t d, float *x);

#endif /* BG_BATCH_H */
