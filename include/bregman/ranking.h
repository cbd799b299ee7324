/* ranking.h - ranking.h5 in memory: what merge_scores writes and score_shards --explain adds to. */
#ifndef BG_RANKING_H
#define BG_RANKING_H

#include <stdbool.h>

#include "bregman/store.h"

enum { BG_TOP, BG_BOTTOM, BG_SIDES };
extern const char *const bg_side_name[BG_SIDES];       /* "top", "bottom" */

typedef struct {
    int64_t *sequence;         /* [Q, k], most extreme first; -1: none */
    float *score;              /* [Q, k] */
} bg_ranked;

typedef struct {
    size_t n_queries, k, n_bins, n_tail;
    char **query;              /* [Q] ids */
    bg_ranked side[BG_SIDES];
    int64_t *count;            /* [Q] moments: of all scores of a query */
    double *sum, *sum_positive, *mean, *sd, *minimum, *maximum;
    double *edge;              /* [n_bins + 1] histogram: ascending; outer bins hold what lies beyond them */
    int64_t *bin;              /* [Q, n_bins] */
    uint32_t *tail_count;      /* [Q] largest scores kept */
    float *tail;               /* [n_tail] flat, descending for each query */
    uint64_t corpus_sequences;
    /* of the merge that made it */
    char *stage, *options, *fingerprint;
    char **input_name, **input_hash;
    size_t n_inputs;
    char *explained;           /* fingerprint of the explanation it holds, or NULL */
} bg_ranking;

/* Allocate the arrays for the four sizes set in r.  BG_ENOMEM. */
bg_status bg_ranking_alloc(bg_ranking *r, bg_err *err) BG_MUST_CHECK;
void bg_ranking_clear(bg_ranking *r);

/* Everything but the token scores.  Errors: BG_EIO, BG_EFORMAT, BG_ESHAPE, naming the file. */
bg_status bg_ranking_read(bg_ranking *r, const char *path, bg_err *err) BG_MUST_CHECK;
/* Into a created store, not yet published. */
bg_status bg_ranking_write(const bg_ranking *r, bg_store *s, bg_err *err) BG_MUST_CHECK;

#endif /* BG_RANKING_H */
