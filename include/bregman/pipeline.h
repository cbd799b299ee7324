/* pipeline.h - micro-batches through the ranks of a pipeline, each running its share of the model's blocks.
 *
 * One forward, one backward (1F1B): rank p of P runs P - p batches forward, then a backward pass for every further
 * forward pass.  As taps change no weights, nothing is flushed between batches; only the ends of a stream leave ranks
 * idle, (P - 1) of n + P - 1 steps.  Messages are non-blocking: [rows, d] float32 forward, the same backward, received
 * ahead into buffers of their own.  Every rank sees the batches in the same order, so what its taps sum up does not
 * depend on P.
 *
 * A stream on every rank of the pipeline, where the first rank decides how long it goes on:
 *     bg_pipeline_begin(l)
 *     while ((st = bg_pipeline_next(l, &more, err)) == BG_OK && more)
 *         make the batch, st = bg_pipeline_push(l, batch, item, err)
 *     st = bg_pipeline_flush(l, err)
 *     st = bg_pipeline_end(l, st, err)
 * After an error of any of them, or of its own, a rank goes to the end at once; the others' calls then give BG_ESTOPPED
 * within a product or a file's writing.  Between begin and end no other collective is entered that ranks of other
 * columns take part in.
 */
#ifndef BG_PIPELINE_H
#define BG_PIPELINE_H

#include "bregman/comm.h"
#include "bregman/notice.h"
#include "bregman/pass.h"

typedef struct bg_pipeline bg_pipeline;

/* What is done with a batch on this rank; `item` is what was pushed with it. */
typedef struct {
    bg_labels labels;
    bg_tap tap;
    void *self;
    bg_status (*begin)(void *self, void *item, bg_err *err); /* before its backward pass */
    bg_status (*end)(void *self, void *item, bg_err *err);   /* after it */
    size_t gather_bytes; /* most that bg_pipeline_gather takes from this rank; 0: it is not used */
    /* Directions along which a batch's forward pass is differentiated (tangent.h), right after it and one after
     * another; `directions` gives the same number on all ranks of the pipeline.  NULL: there are none. */
    size_t (*directions)(void *self, void *item);
    /* The k-th: x [rows, d] is the tangent of this share's input (nothing yet, where it embeds), on return of its
     * output. */
    bg_status (*along)(void *self, void *item, size_t slot, size_t k, float *x, bg_err *err);
    float *tangent[2]; /* lent: room for x in turns, a batch's most rows and BG_PASS_TRAILER more floats */
} bg_pipeline_work;

/* `pass` is of this rank's share, with depth bg_pipeline_depth(); lent.
 *   others [in]  a notice of more ranks, looked at wherever this pipeline computes or waits; NULL: none.  Lent.
 * Local.  Memory: depth + 3 buffers of [max_rows, d] float32 where there is more than one rank. */
bg_status bg_pipeline_new(bg_pipeline **out, bg_pass *pass, const bg_model *model, const bg_grid *grid,
                          const bg_pipeline_work *work, bg_notice *others, bg_err *err) BG_MUST_CHECK;
void bg_pipeline_free(bg_pipeline *l);
/* Batches that a rank of a pipeline has on their way at most, and bytes that bg_pipeline_new takes. */
size_t bg_pipeline_depth(int rank, int size);
size_t bg_pipeline_bytes(const bg_model *model, int rank, int size, size_t max_rows);
/* Rows whose message MPI can send at once, an upper bound of max_rows; SIZE_MAX where nothing is sent. */
size_t bg_pipeline_most_rows(const bg_model *model, int size);
/* The pass of this rank's share, for batches of up to max_rows rows; and bytes of it and its pipeline together. */
bg_status bg_pipeline_pass_new(bg_pass **out, const bg_model *model, const bg_share *share, const bg_grid *grid,
                               size_t max_rows, bg_err *err) BG_MUST_CHECK;
size_t bg_pipeline_pass_bytes(const bg_model *model, const bg_share *share, const bg_grid *grid, size_t max_rows);
/* What a stream of so many batches, with so many rows in the loss, touches of them: memory that is never written to is
 * not the process's yet. */
size_t bg_pipeline_touched_bytes(const bg_model *model, const bg_share *share, const bg_grid *grid, size_t rows,
                                 size_t loss_rows, size_t batches);

/* Local: the first message is yet to come. */
void bg_pipeline_begin(bg_pipeline *l);
/* Is there another batch?  *more is given on the first rank and told to the others.
 * Errors: BG_ESTOPPED if another rank failed. */
bg_status bg_pipeline_next(bg_pipeline *l, bool *more, bg_err *err) BG_MUST_CHECK;
/* Forward pass of a batch, its directions, and backward pass of the oldest one if as many are on their way as may be.
 * batch and item stay lent until the batch's `end`. */
bg_status bg_pipeline_push(bg_pipeline *l, const bg_batch *batch, void *item, bg_err *err) BG_MUST_CHECK;
/* Backward passes of all batches still on their way. */
bg_status bg_pipeline_flush(bg_pipeline *l, bg_err *err) BG_MUST_CHECK;

/* Between begin and end, on all ranks of the pipeline in the same order: bring each rank's bytes to the first one.
 *   to [out, first rank only]  the others' bytes, rank after rank; n_of[r] bytes of rank r (n_of[0] is not read).
 * The other ranks' data are copied: the call returns at once unless those of the gather before are not taken yet.
 * Multiples of 4 bytes.  Errors: BG_ESTOPPED if another rank failed. */
bg_status bg_pipeline_gather(bg_pipeline *l, const void *from, size_t n_bytes, void *to, const size_t *n_of,
                             bg_err *err) BG_MUST_CHECK;

/* The stream's end on this rank, whatever st is.  Collective over the pipeline: returns when no message is on its way
 * and no rank will send one.  Gives st, or BG_ESTOPPED where another rank failed: BG_OK on all ranks of the pipeline or
 * on none. */
bg_status bg_pipeline_end(bg_pipeline *l, bg_status st, bg_err *err) BG_MUST_CHECK;

/* Seconds that this rank has waited for messages, or helped them on between products: its part of the pipeline's
 * bubble. */
double bg_pipeline_waited_s(const bg_pipeline *l);

#endif /* BG_PIPELINE_H */
