/* training_data.h - the sequences a model is trained on, in the order of each epoch, cut into steps.
 *
 * The order of an epoch is a permutation drawn by a counter-based generator from (seed, epoch); a step takes sequences
 * in that order until the next would give it more than batch_tokens tokens, and at least one; an epoch's last step may
 * have fewer.  So the batch of any step can be named, by whoever has seed, sequences and batch_tokens.  Local.
 */
#ifndef BG_TRAINING_DATA_H
#define BG_TRAINING_DATA_H

#include "bregman/batch.h"
#include "bregman/tokens.h"

/* A predicted token that is left out of the loss: of that sequence, counted from 1. */
typedef struct {
    uint64_t sequence;
    uint32_t position;
} bg_loss_term;

typedef struct bg_training_data bg_training_data;

/* Pointers are lent; the arrays are sorted, without anything twice. */
typedef struct {
    const bg_tokens *tokens;
    size_t vocab_size;
    const uint64_t *sequence; /* [n_sequences] their numbers */
    uint64_t n_sequences;     /* from 1 */
    const bg_loss_term *mask; /* [n_masked] */
    size_t n_masked;
    uint64_t seed, batch_tokens;
} bg_training_source;

/* Reads the tokens if they take little memory (256 MiB).  Errors: those of bg_tokens_read, BG_ENOMEM. */
bg_status bg_training_data_new(bg_training_data **out, const bg_training_source *from, bg_err *err) BG_MUST_CHECK;
void bg_training_data_free(bg_training_data *d); /* NULL is fine */
/* What that takes, for sequences of so many tokens together and in the longest. */
size_t bg_training_data_bytes(uint64_t n_sequences, uint64_t tokens, size_t longest);

/* Steps of so many epochs; no token is read.  Cost: a permutation each.  Errors: BG_ENOMEM. */
bg_status bg_training_source_steps(const bg_training_source *from, uint64_t epochs, uint64_t *steps,
                                   bg_err *err) BG_MUST_CHECK;
/* Go to a step, and on to the next: its sequences, lent until the next call.  Cost of bg_training_data_seek: the
 * permutations of all epochs before. */
void bg_training_data_seek(bg_training_data *d, uint64_t step);
const uint64_t *bg_training_data_next(bg_training_data *d, size_t *n);
/* Epoch of the step that bg_training_data_next gave last. */
uint64_t bg_training_data_epoch(const bg_training_data *d);

/* Append a sequence to a batch that has room for it, without the terms that are masked, by `mask` or by the token
 * files. */
bg_status bg_training_data_add(bg_training_data *d, uint64_t sequence, bg_batch *b, bg_err *err) BG_MUST_CHECK;
/* Its tokens, and its terms in the loss. */
uint32_t bg_training_data_tokens(const bg_training_data *d, uint64_t sequence);
size_t bg_training_data_terms(const bg_training_data *d, uint64_t sequence);
uint32_t bg_training_data_longest(const bg_training_data *d); /* tokens */

#endif /* BG_TRAINING_DATA_H */
