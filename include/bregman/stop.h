/* stop.h - a stop that somebody asks for, and how all ranks hear of it. */
#ifndef BG_STOP_H
#define BG_STOP_H

#include <stdbool.h>

#include "bregman/notice.h"
#include "bregman/status.h"

/* True once SIGTERM, SIGINT or SIGUSR1 has come to this rank, or, on world rank 0, a file named `stop` lies in the
 * folder given to bg_stop_beside (looked for once a second at most).  Other ranks hear of it by a notice (notice.h):
 * finish the micro-batch or matrix in hand, keep what is done, then return BG_ESTOPPED. */
bool bg_stop_requested(void);
/* For work of one rank that others wait for, before each of its pieces: BG_ESTOPPED if a stop is requested.  Local.
 *   what [in]  "reading model.safetensors" */
bg_status bg_stop_check(const char *what, bg_err *err) BG_MUST_CHECK;
/* Say on a notice that this rank has been asked to stop, if it has; true if any rank has said that streams are to end.
 * Local. */
bool bg_stop_heard(bg_notice *n);
/* This rank is through: go on listening, and saying so if it is asked to stop, until all are.  Collective. */
void bg_stop_wait(bg_notice *n);
/* The folder that `file` is in, where the stop file is looked for.  BG_ESTOPPED on world rank 0 if it is there already.
 */
bg_status bg_stop_beside(const char *file, bg_err *err) BG_MUST_CHECK;

/* ---- for bg_stage_main ---- */

/* Signals that ask for a stop are held back (also while the program is begun anew), until they are caught.  Caught
 * before MPI_Init, which can take seconds, and again after it, as it may set handlers of its own. */
void bg_stop_hold_signals(void);
void bg_stop_catch_signals(void);
void bg_stop_let_signals_end(void);   /* for a stage that only reads: they end it at once */
void bg_stop_look_for_file(bool yes); /* yes at first */
/* The stop file, if it is there, or NULL. */
const char *bg_stop_file(void);

#endif /* BG_STOP_H */
