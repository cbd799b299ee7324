/* ranking.h - ranking.h5 in memory: what merge_scores writes and score_shards --explain adds to. */
#ifndef BG_RANKING_H
#define BG_RANKING_H

#include <stdbool.h>

#include "bregman/origin.h"
#include "bregman/store.h"

enum { BG_TOP, BG_BOTTOM, BG_SIDES };
extern const char *const bg_side_name[BG_SIDES]; /* "top", "bottom" */

typedef struct {
    int64_t *sequence; /* [Q, k], most extreme first; -1: none */
    float *score;      /* [Q, k] */
    char **document;   /* [Q, k] id of the sequence's document, "" or NULL: not known */
    int64_t *start;    /* [Q, k] its first token within that, -1: not known */
    /* [Q, k] its place among the query's best of the prefilter, from 1; -1: not among them, 0: not known.
     * NULL: no prefilter chose the sequences */
    int64_t *prefilter_rank;
} bg_ranked;

/* Attributes of /run.  What a ranking is made anew from keeps them. */
enum { BG_RUN_STAGE, BG_RUN_OPTIONS, BG_RUN_FINGERPRINT, BG_RUN_REQUIRED_TEXTS, BG_RUN_TEXTS = 9, BG_RUN_NUMBERS = 3 };

typedef struct {
    size_t n_queries, k, n_bins, n_tail;
    char **query;       /* [Q] ids */
    double *query_loss; /* [Q] of their completions, nats; NULL: not known */
    bg_ranked side[BG_SIDES];
    int64_t *count; /* [Q] moments: of all scores of a query */
    double *sum, *sum_positive, *mean, *sd, *minimum, *maximum;
    double *edge;         /* [n_bins + 1] histogram: ascending; outer bins hold what lies beyond them */
    int64_t *bin;         /* [Q, n_bins] */
    uint32_t *tail_count; /* [Q] largest scores kept */
    float *tail;          /* [n_tail] flat, descending for each query */
    uint64_t corpus_sequences;
    bg_origin origin;
    /* of the merge that made it, if it was read */
    char *run_text[BG_RUN_TEXTS];
    uint64_t run_number[BG_RUN_NUMBERS];
    char **input_name, **input_hash;
    size_t n_inputs;
    char *prefilter; /* how the sequences were chosen that were scored, in words; NULL: by no prefilter */
    char *explained; /* fingerprint of the explanation it holds, or NULL */
} bg_ranking;

/* Allocate one side's lists, with no sequence in them.  BG_ENOMEM.  Clear also after an error. */
bg_status bg_ranked_alloc(bg_ranked *side, size_t n_queries, size_t k, bg_err *err) BG_MUST_CHECK;
/* Also prefilter_rank, nothing known. */
bg_status bg_ranked_add_prefilter(bg_ranked *side, size_t n_queries, size_t k, bg_err *err) BG_MUST_CHECK;
void bg_ranked_clear(bg_ranked *side, size_t n_queries, size_t k);
/* Fill in document and start of both sides' sequences from the token files they were numbered through. */
bg_status bg_ranked_find_documents(bg_ranked side[BG_SIDES], size_t n, const bg_tokens *t, bg_err *err) BG_MUST_CHECK;
/* Bytes on disk of both sides' lists with room for k of each query, of n sequences. */
double bg_ranked_disk_bytes(double queries, double k, double n);
/* Lists of a side into a created store of scores or a ranking. */
bg_status bg_ranked_write(const bg_ranked *side, const char *name, size_t n_queries, size_t k, bg_store *s,
                          bg_err *err) BG_MUST_CHECK;

/* Allocate the arrays for the four sizes set in r, and those of a prefilter if r has one.  BG_ENOMEM. */
bg_status bg_ranking_alloc(bg_ranking *r, bg_err *err) BG_MUST_CHECK;
void bg_ranking_clear(bg_ranking *r);

/* Everything but the token scores.  Errors: BG_EIO, BG_EFORMAT, BG_ESHAPE, naming the file. */
bg_status bg_ranking_read(bg_ranking *r, const char *path, bg_err *err) BG_MUST_CHECK;
/* Into a created store, not yet published. */
bg_status bg_ranking_write(const bg_ranking *r, bg_store *s, bg_err *err) BG_MUST_CHECK;

#endif /* BG_RANKING_H */
