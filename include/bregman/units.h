/* units.h - the work files of a sweep: what is kept of its units until the stage's own files are published.
 *
 * A work file holds the results of sequences [first, end) of one unit for one group, a section of the model (site.h) or
 * all of it, and is called after that, numbers as %05 (unit), %03 (block) and %06 PRIu64 (sequences, counted from the
 * unit's first) print them:
 *   KIND-UUUUU-block-BBB.FFFFFF-EEEEEE.h5      KIND-UUUUU-head.FFFFFF-EEEEEE.h5
 *   KIND-UUUUU.FFFFFF-EEEEEE.h5                where the whole model is one group
 * It stands by its name: published with its name, whole, or not there.  The folder is of one call of a stage
 * (attempt.h).
 *
 * Rows (scores, compressed queries) chain: [0, 3), then [3, 8).  Files may overlap, where some groups had got further
 * than others when an attempt ended; the rows of a sequence are the same bytes in each of them.  Cumulative sums
 * (covariances) begin at 0, and one file stands for all before it.  A unit is done when every group is kept up to its
 * size; its part is what is kept of all groups: of rows the shortest chain, of sums the longest file that each group
 * has (or its finished one).
 *
 * Local; any rank may call anything.  All calls name the file in their errors.
 */
#ifndef BG_UNITS_H
#define BG_UNITS_H

#include "bregman/store.h"

#define BG_WHOLE_MODEL SIZE_MAX /* the group of files without a section */
enum { BG_UNIT_KIND_BYTES = 32, BG_UNITS_LINE_BYTES = 128 };

/* The work files of one sweep.  All pointers are lent. */
typedef struct {
    const char *folder;       /* exists */
    const char *kind;         /* "covariance": letters and _ */
    const bg_provenance *run; /* what the files are made from */
    bool cumulative;
    const size_t *group; /* [n_groups] numbers of sections; NULL: the whole model is the one group */
    size_t n_groups;     /* from 1 */
    uint64_t n_sequences, unit_sequences;
} bg_units;

/* Sequences [first, end) of a unit, counted from its first, for a group: a file, or rows of one. */
typedef struct {
    uint64_t unit;
    size_t group; /* number of a section, or BG_WHOLE_MODEL */
    uint64_t first, end;
} bg_segment;

uint64_t bg_units_count(const bg_units *u);
/* Sequences of a unit: unit_sequences, of the last one what is left. */
uint64_t bg_units_size(const bg_units *u, uint64_t unit);

/* Is it the name of a work file, to the letter?
 *   kind, out [out]  untouched if not */
bool bg_units_parse(const char *name, char kind[BG_UNIT_KIND_BYTES], bg_segment *out);

/* What is there, as bg_sweep asks for it.  Parts of sums that nothing needs any more, left by attempts that ended, are
 * removed. done, part [out, bg_units_count each] Errors: BG_EIO, BG_ENOMEM.  Cost: one reading of the folder, n log n
 * in its files; none is opened. */
bg_status bg_units_find(const bg_units *u, bool *done, uint64_t *part, bg_err *err) BG_MUST_CHECK;

/* Pairs of a unit and a group that are finished: what of `n_groups` groups of any numbers is there, for those who have
 * a line of UNITS and names only. s [in, n]  of this kind; sorted on return */
uint64_t bg_units_finished(const bg_units *u, bg_segment *s, size_t n);

/* "covariance 1024 16 12\n": kind, sequences, sequences a unit, groups: what UNITS says of the sweep. */
void bg_units_describe(const bg_units *u, char line[BG_UNITS_LINE_BYTES]);
/* Write FOLDER/UNITS: how many files of each kind a finished folder of work files will hold, a line for
 * each sweep (bg_units_describe) and "PREFIX TOTAL" for the others. */
bg_status bg_units_promise(const char *folder, const char *text, bg_err *err) BG_MUST_CHECK;

/* Is there a file of just this segment? */
bool bg_units_has(const bg_units *u, const bg_segment *g);

/* Begin the file of a segment (as bg_store_create).  It may turn out shorter:
 * bg_units_end publishes it as [first, end), first < end <= the end it was created with, which cuts the leading axes of
 * all its datasets to end - first rows where it is less; st is not BG_OK: discards it and passes that on.  s may be
 * NULL then. */
bg_status bg_units_create(bg_store **out, const bg_units *u, const bg_segment *g, bg_err *err) BG_MUST_CHECK;
bg_status bg_units_end(bg_store *s, const bg_units *u, const bg_segment *g, uint64_t end, bg_status st,
                       bg_err *err) BG_MUST_CHECK;

/* Open a work file of this call, whatever sort.  Its name says what is in it, its fingerprint whose it is: every
 * work file is opened here.
 *   run [in]  what the call's files are made from
 * Errors: as bg_store_open, with what to do about a damaged one; BG_ESTALE if another call has made it. */
bg_status bg_work_open(bg_store **out, const char *path, const bg_provenance *run, bg_err *err) BG_MUST_CHECK;
/* The same of a file that bg_units_find has promised. */
bg_status bg_units_open(bg_store **out, const bg_units *u, const bg_segment *g, bg_err *err) BG_MUST_CHECK;

/* A part that a later one stands for.  It is only a help to get on: if it cannot be removed, its folder will be, at the
 * end. */
void bg_units_remove(const bg_units *u, const bg_segment *g);

/* ---- reading what a finished sweep has left ---- */

/* All units of a group in turn, each sequence once, with a bounded number of files open: the first BG_UNITS_OPEN stay
 * open over repeated passes, the others are opened at each.  Only the file read last keeps anything cached. */
enum { BG_UNITS_OPEN = 16 };
typedef struct bg_units_reader bg_units_reader;

/* Rows [row, row + n) of `file` are those of sequences [first, first + n) of the work's own order (sums: of all of a
 * unit). */
typedef struct {
    const bg_store *file; /* lent, until the next bg_units_read or bg_units_choose */
    uint64_t first, n, row;
} bg_rows;

/* Lists the folder once; free with bg_units_reader_free.  u is lent.  Errors: BG_EIO, BG_ENOMEM. */
bg_status bg_units_reader_new(bg_units_reader **out, const bg_units *u, bg_err *err) BG_MUST_CHECK;
void bg_units_reader_free(bg_units_reader *r);
/* Go over this group from now on.  Errors: BG_EIO if a file is missing, naming it. */
bg_status bg_units_choose(bg_units_reader *r, size_t group, bg_err *err) BG_MUST_CHECK;
/* Runs of rows of the group in hand, in the order of the sequences; which of them has a sequence (by bisection); and
 * read one: 0 <= i < bg_units_runs.  Errors of bg_units_read: those of bg_units_open. */
size_t bg_units_runs(const bg_units_reader *r);
size_t bg_units_run_of(const bg_units_reader *r, uint64_t sequence);
bg_status bg_units_read(bg_units_reader *r, size_t i, bg_rows *out, bg_err *err) BG_MUST_CHECK;

#endif /* BG_UNITS_H */
