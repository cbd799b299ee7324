/* sweep.h - run a tap over a corpus in work units, shared out over the columns of the grid, resumably.
 *
 * Sequences 0 .. n-1 of the work are cut into units of unit_sequences; a unit is cut into micro-batches
 * by its own content only.  So what a unit yields depends neither on the number of
 * ranks nor on what ran before, and a published unit is the checkpoint.
 * Of a query only the completion is in the loss (M1), of a training sequence every token; of both what a mask leaves.
 *
 * A column runs its units one after another as one stream through its pipeline.  When a checkpoint is due, or any
 * rank is asked to stop or fails, all streams end: no further micro-batch is begun, those on their way are finished,
 * unfinished units are kept as parts, all ranks agree, and what is left is dealt anew.  A column in which a rank failed
 * keeps nothing of its unit.
 *
 * A checkpoint is due after checkpoint_s seconds, or 19 times what the last one took where that is more: so they take
 * at most 5 % of the time (Young 1974 and Daly 2006 weigh that against the time between failures, which is not known
 * here).
 */
#ifndef BG_SWEEP_H
#define BG_SWEEP_H

#include "bregman/comm.h"
#include "bregman/pass.h"
#include "bregman/pipeline.h"
#include "bregman/context.h"
#include "bregman/tokens.h"

typedef struct {
    uint64_t unit;               /* number */
    uint64_t first, n_sequences; /* in the work's own order */
    uint64_t n_rows;             /* predicted positions; in keep_part those of the part */
} bg_unit;

/* All pointers are lent until bg_sweep_run returns.  Callbacks run on the thread that called it.  Any of them may fail,
 * on one rank only too: the rank then calls none of them again, those of its column finish nothing more, other columns
 * keep their units, and all ranks return the error of the lowest rank that failed. */
typedef struct {
    const char *what; /* for progress lines: "covariance" */
    const bg_tokens *tokens;
    const uint64_t *sequence; /* global numbers of the work's sequences, or NULL: begin + i */
    uint64_t begin, n_sequences;
    const uint32_t *erased; /* [n_sequences] as bg_batch_erase takes them, or BG_NOT_ERASED; NULL: none is */
    uint64_t unit_sequences;
    bg_labels labels;
    const int64_t *given_label; /* [.., given_width] by global number: replaces the targets; NULL: not */
    size_t given_width;
    size_t given_rows;
    const char *given_file; /* where they are from */
    bg_tap tap;
    size_t gather_bytes; /* see bg_pipeline_work */
    void *self;          /* of the callbacks below, each local */
    /* On world rank 0.  done, part [out, n_units each, given as false and 0]: is the unit done, else how
     * many of its first sequences are kept? */
    bg_status (*find)(void *self, bool *done, uint64_t *part, bg_err *err);
    /* On every rank of the unit's column, in the order of its batches.  begin_unit starts from nothing, or from the
     * part of the first `part` sequences: BG_EGONE if that is gone by now, and `find` is asked again. */
    bg_status (*begin_unit)(void *self, const bg_unit *unit, uint64_t part, bg_err *err);
    void (*begin_batch)(void *self, const bg_batch *batch, uint64_t first); /* may be NULL; first: the batch's
                                                              first sequence, counted from the unit's first */
    /* loss [batch->n_rows]: what each of its rows' labels cost (bg_pass_losses), on the rank of the column that has the
     * head, when the batch is done; NULL: not wanted. */
    bg_status (*losses)(void *self, const bg_batch *batch, const float *loss, bg_err *err);
    /* Directions of a batch, and each of them (bg_pipeline_work): NULL, there are none. */
    size_t (*directions)(void *self, const bg_batch *batch, uint64_t index); /* index: its first sequence in the work */
    bg_status (*along)(void *self, const bg_batch *batch, size_t slot, size_t k, float *x, bg_err *err);
    float *tangent[2];
    bg_status (*end_unit)(void *self, const bg_unit *unit, bg_pipeline *l, bg_err *err);
    /* As end_unit, for the first `part` sequences of a unit that goes on in the next stream, or in another attempt. */
    bg_status (*keep_part)(void *self, const bg_unit *unit, uint64_t part, bg_pipeline *l, bg_err *err);
} bg_sweep;

uint64_t bg_sweep_units(const bg_sweep *s);

/* A sequence of which a mask leaves nothing is BG_EFORMAT.
 * Collective on ctx->grid.world; returns an agreed status, BG_ESTOPPED if a rank was asked to stop.  `pass` is of this
 * rank's share, with the depth of its place in the pipeline.  The speaking rank says how long a unit takes, how often
 * work is kept and how long a stop takes, as soon as that can be told; progress and an estimated end; with a pipeline,
 * the time its ranks have waited. */
bg_status bg_sweep_run(const bg_sweep *s, bg_pass *pass, const bg_model *model, const bg_context *ctx,
                       bg_err *err) BG_MUST_CHECK;

/* Seconds from one checkpoint, which took so long, to the next; asked_s: checkpoint_s, 0: there are none. */
double bg_sweep_interval_s(double asked_s, double took_s);

#endif /* BG_SWEEP_H */
