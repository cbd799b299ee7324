/* sweep.h - run a tap over a corpus in work units, shared out over ranks, resumably.
 *
 * Sequences 0 .. n-1 of the work are cut into units of unit_sequences; a unit is cut into micro-batches
 * by its own content only.  So what a unit yields depends neither on the number of
 * ranks nor on what ran before, and a published unit is the checkpoint.
 * Of a query only the completion is in the loss (M1); of a training sequence every token.
 */
#ifndef BG_SWEEP_H
#define BG_SWEEP_H

#include "bregman/comm.h"
#include "bregman/pass.h"
#include "bregman/tokens.h"

typedef struct {
    uint64_t unit;                 /* number */
    uint64_t first, n_sequences;   /* in the work's own order */
    uint64_t n_rows;               /* known at the end */
    double loss;                   /* nats, summed; known at the end */
} bg_unit;

typedef struct {
    const char *what;              /* for progress lines: "covariance" */
    const bg_tokens *tokens;
    const uint64_t *sequence;      /* global numbers of the work's sequences, or NULL: begin + i */
    uint64_t begin, n_sequences;
    uint64_t unit_sequences;
    bg_labels labels;
    const int64_t *given_label;    /* [.., given_width] by global number: replaces the targets; NULL: not */
    size_t given_width;
    size_t given_rows;
    bg_tap tap;
    void *self;                    /* of the callbacks below, each local */
    bg_status (*is_done)(void *self, uint64_t unit, bool *done, bg_err *err);
    bg_status (*begin_unit)(void *self, const bg_unit *unit, bg_err *err);
    void (*begin_batch)(void *self, const bg_batch *batch, uint64_t first);     /* may be NULL; first: the batch's
                                                                  first sequence, counted from the unit's first */
    bg_status (*end_unit)(void *self, const bg_unit *unit, bg_err *err);
} bg_sweep;

uint64_t bg_sweep_units(const bg_sweep *s);

/* Collective on comm; returns an agreed status.  Ranks agree after every round of one unit a rank, so a
 * failure or a stop request ends all of them within a unit's time (BG_ESTOPPED: units finished
 * so far stay).  Progress and an estimated end on the speaking rank. */
bg_status bg_sweep_run(const bg_sweep *s, bg_pass *pass, const bg_model *model, MPI_Comm comm,
                       bg_err *err) BG_MUST_CHECK;

#endif /* BG_SWEEP_H */
