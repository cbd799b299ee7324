/* pass.h - one forward and activation-backward pass over a ragged batch of token sequences.
 *
 * Backward hands each tracked module's pair (a, δ) of math.md M4 to a tap, layer by layer from the
 * top, then forgets it.  Weight gradients are never formed.  Backward stops at the lowest tracked
 * module.  No stage knows an architecture; nothing here knows a stage.
 */
#ifndef BG_PASS_H
#define BG_PASS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bregman/cost.h"
#include "bregman/share.h"
#include "bregman/tap.h"

typedef struct bg_pass bg_pass;

enum { BG_LOGITS_BYTES = 64 << 20 }; /* what a stage gives to a chunk of logits */
enum { BG_PASS_TRAILER = 16 }; /* floats behind a share's output that it has room for: what a pipeline sends along */

/* Room for batches of up to max_rows rows and sequences of up to max_rows + 1 tokens.
 *   share [in]         the blocks to run; NULL: the whole model.
 *   depth [in]         batches that may be between their forward and their backward pass: 1 if there is no pipeline.
 *   logits_bytes [in]  budget for one chunk of logits (at least one row is taken; all rows, if the head is tracked).
 * All memory is taken here, in one piece.  Errors: BG_ENOMEM. */
bg_status bg_pass_new(bg_pass **out, const bg_model *model, const bg_share *share, size_t depth, size_t max_rows,
                      size_t logits_bytes, bg_err *err) BG_MUST_CHECK;
void bg_pass_free(bg_pass *p);
size_t bg_pass_max_rows(const bg_pass *p);
size_t bg_pass_depth(const bg_pass *p);
const bg_share *bg_pass_share(const bg_pass *p);

/* Bytes that bg_pass_new would take. */
size_t bg_pass_bytes(const bg_model *model, const bg_share *share, size_t depth, size_t max_rows, size_t logits_bytes);
/* Rows for which the whole model's activations take about `budget_bytes`, at least `longest` - 1 rows, else at most
 * 1536; depends on the model and the arguments only. A rank of a pipeline holds about as much or less: the first has 1
 * / P of the blocks, but P batches on their way. */
size_t bg_pass_rows_for(const bg_model *model, size_t longest, size_t budget_bytes);

/* Add what bg_pass_forward and bg_pass_backward compute for such a batch, with as many threads as there are. */
void bg_pass_cost(bg_cost *cost, const bg_model *m, const bg_share *share, const bg_batch_shape *b);

/* Run a batch.  tap NULL: forward and loss only.
 *   loss [out, n_rows, may be NULL]: -log p(target) (or of the sampled label) in nats; 0 where not in the loss.
 * Errors: what the tap returns; BG_ENUMERIC if the loss is NaN or infinite, naming the model and sequence;
 * BG_EARG for more positions than the model takes.
 * Cost: about 4 FLOPs a row and body weight, 4 a loss row and head weight, attention besides. */
bg_status bg_pass_run(bg_pass *p, const bg_batch *batch, bg_labels labels, const bg_tap *tap, float *loss,
                      bg_err *err) BG_MUST_CHECK;

/* The two halves of bg_pass_run for a share, each batch in a slot of its own (0 .. depth - 1) from the first
 * to the second.  pipeline.h strings them together over ranks.
 *   x [in, rows x d]           output of the block before the share; NULL where the share embeds.  Lent until backward.
 *   *out [rows x d]            the share's own output, in the slot; lent until the next forward there.
 *   dx [in,out, rows x d]      the loss's gradient with respect to the share's output (where the share has the head it
 *                              is made here), on return with respect to its input, unless backward ended on the way. */
bg_status bg_pass_forward(bg_pass *p, size_t slot, const bg_batch *batch, float *x, float **out,
                          bg_err *err) BG_MUST_CHECK;
bg_status bg_pass_backward(bg_pass *p, size_t slot, const bg_batch *batch, bg_labels labels, const bg_tap *tap,
                           float *dx, bg_err *err) BG_MUST_CHECK;
/* loss [rows] of the batch of the last bg_pass_backward, as bg_pass_run has it; NULL: the share has no head.  Lent
 * until the next. */
const float *bg_pass_losses(const bg_pass *p);
/* Called between products by the thread that runs the pass, so that messages under way move on; self is lent. */
void bg_pass_set_poke(bg_pass *p, void (*poke)(void *self), void *self);
/* Forward only: logits of every row, [n_rows, vocab]. For tests and small uses. */
bg_status bg_pass_logits(bg_pass *p, const bg_batch *batch, float *logits, bg_err *err) BG_MUST_CHECK;

#endif /* BG_PASS_H */
