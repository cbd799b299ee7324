/* timing.h - seconds, FLOPs, rows and memory of a stage's phases: what --timings writes.
 *
 * Phases follow one another and do not nest.  The record is the process's own: bg_stage_main enables it,
 * and bg_timing_begin and bg_timing_end cost next to nothing where it is not enabled.
 */
#ifndef BG_TIMING_H
#define BG_TIMING_H

#include <stdint.h>

#include "bregman/context.h"

/* Start recording.  From here on each phase's peak memory is its own, where the kernel lets a process
 * reset its peak (/proc/self/clear_refs). */
void bg_timing_enable(void);

/* Open and close a phase; all ranks pass the same phases in the same order.
 *   name [in]  static storage
 *   rows [in]  rows of micro-batches that this rank worked on; 0 where there are none
 * A phase begun but not ended (an error) is left out. */
void bg_timing_begin(const char *name);
void bg_timing_end(uint64_t rows);
/* Seconds of the open phase that this rank waited for other ranks of its pipeline. */
void bg_timing_wait(double seconds);

/* Peak resident set of this process from its start, in bytes, whatever was reset in between. */
uint64_t bg_timing_peak_bytes(void);

/* Rank 0 writes one JSON object: name (of the stage), ranks, threads, blas, seconds, flops (both since
 * bg_timing_enable), peak_rss_bytes, and phases[] with name, seconds, flops, rows, waited_s, peak_rss_bytes.  seconds:
 * the slowest rank's; flops (of matrix products, executed), rows and waited_s: summed over ranks; peak_rss_bytes: a
 * number for each rank. Collective on ctx->grid.world; returns an agreed status.  Errors: BG_EIO, BG_ENOMEM. */
bg_status bg_timing_write(const char *path, const bg_context *ctx, bg_err *err) BG_MUST_CHECK;

#endif /* BG_TIMING_H */
