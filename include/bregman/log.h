/* log.h - one-line messages and progress on stderr.  Local: the caller decides
 * which rank speaks (by convention rank 0). */
#ifndef BG_LOG_H
#define BG_LOG_H

#include <stddef.h>
#include <stdint.h>

#include "bregman/status.h"

/* Name put in front of every line, and whether this process speaks at all. */
void bg_log_setup(const char *name, int speaks);
void bg_log(const char *fmt, ...) BG_PRINTF(1, 2);

/* Seconds of a monotonic clock. */
double bg_now_s(void);

/* Progress with an estimated end: a line at most every few seconds (on a
 * terminal rewritten in place), and one when finished.  `done` may start above 0 (resumed):
 * the rate counts only what was done since bg_progress_start. */
typedef struct {
    const char *what, *unit;
    uint64_t total, first, done;
    double start_s, last_s;
} bg_progress;
void bg_progress_start(bg_progress *p, const char *what, const char *unit, uint64_t done, uint64_t total);
void bg_progress_update(bg_progress *p, uint64_t done);
void bg_progress_finish(bg_progress *p);

#endif /* BG_LOG_H */
