/* attempt.h - one call of a stage against its output: is it done, to be begun, or to be gone on with?
 *
 * World rank 0 looks, once, and all ranks are told: what another host's ranks see of a file that is just being
 * published may differ.  Two attempts of one call may run at once, a job that was requeued while its first run still
 * lives: they work side by side, and the one that is overtaken ends well too.
 *
 * A work folder belongs to one call.  Its file IDENTITY, written before any work file, says to which, and what its
 * first attempt chose that decides the bytes of the result though it is no option: so a rerun may have another grid or
 * --memory-limit.  Each attempt has a file ATTEMPT.tmp-WRITER in it while it lives (writer.h).  Another call may have
 * the folder where nothing was kept and all who were in it are surely gone; an attempt that fails leaves none behind
 * then. That is for a clear word at the start: no number depends on it, since a work file is read only by the call
 * whose fingerprint it has (bg_work_open). */
#ifndef BG_ATTEMPT_H
#define BG_ATTEMPT_H

#include "bregman/inputs.h"

/* What the work folder's first attempt chose, if it was one of this call.  Collective on ctx->grid.world; all ranks get
 * what rank 0 finds.
 *   in   [in]   shared (bg_inputs_share)
 *   work [in]   need not be there
 *   rows [out]  of its micro-batches; 0 if there is no IDENTITY of this call
 * Errors: BG_EIO; BG_EFORMAT for an IDENTITY of another shape.  Whose folder it is, is for bg_attempt_run to say. */
bg_status bg_attempt_recall(const bg_context *ctx, const bg_inputs *in, const char *work, size_t *rows,
                            bg_err *err) BG_MUST_CHECK;

typedef struct {
    const bg_context *ctx;
    const bg_inputs *in; /* shared and chosen (inputs.h) */
    const char *output;  /* the file whose publication ends the call */
    const char *work;    /* folder of its work files; NULL: it has none, and no stop file is looked for */
    size_t rows;         /* of micro-batches, for later attempts to recall */
    void *self;
    /* On rank 0: is the result there?  NULL: `output` is published with the fingerprint of `in` (bg_store_is_done). */
    bg_status (*is_done)(void *self, bool *done, bg_err *err);
    /* The work: collective, an agreed status. */
    bg_status (*run)(void *self, bg_err *err);
} bg_attempt;

/* Say so if the output is there already; else make the work folder, run, and remove it.
 * Collective on ctx->grid.world; the same status on all ranks.
 * Errors: those of is_done and run; BG_ESTALE if output or work folder are of another call, naming them and the remedy;
 * BG_ESTOPPED if a stop file lies beside the work folder.  An error of run is none if another attempt has published the
 * output meanwhile. */
bg_status bg_attempt_run(const bg_attempt *a, bg_err *err) BG_MUST_CHECK;

#endif /* BG_ATTEMPT_H */
