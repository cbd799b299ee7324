/* explaining.h - what of a ranking is explained: the pairs of its sequences and queries. */
#ifndef BG_STAGES_EXPLAINING_H
#define BG_STAGES_EXPLAINING_H

#include "scoring.h"

/* A (sequence, query) whose parts are wanted; the values of all pairs lie back to back in the files of the units. */
typedef struct {
    uint64_t sequence, index; /* number in the corpus, and among the sequences to explain */
    uint32_t query, rows;
    uint64_t at; /* values before the pair's */
} wanted;

/* The sequences to explain, each whole and then once for each position it is read at, with the token there erased.  In
 * the units' files each of these has a value for every pair of its sequence. */
typedef struct {
    uint64_t n;         /* of them; */
    uint64_t *sequence; /* [n] the number in the corpus of each, */
    uint32_t *erased;   /* [n] and the position, or BG_NOT_ERASED */
    uint64_t *first;    /* [sequences to explain + 1] the first of each sequence, */
    uint64_t *at;       /* [sequences to explain] and the values before it */
} erased_sequences;

struct explaining {
    scoring *w;
    bg_ranking ranking;
    uint64_t *sequence; /* of all pairs, ascending */
    wanted *pair;       /* by sequence, then query */
    size_t n_pairs;
    erased_sequences erased;              /* to explain by input tokens */
    bg_units_reader *units[SCORE_PHASES]; /* while rank 0 publishes */
    score_errors errors;                  /* likewise */
};

/* pairs.c: all pairs of the ranking once, the list of their sequences, and where their values will be.  BG_ESTALE for a
 * sequence that the token files do not have. */
bg_status score_list_pairs(explaining *e, bg_err *err) BG_MUST_CHECK;
/* The first pair of the sequences to explain from this one on; and the pair of a sequence and a query, NULL for none. */
size_t score_first_pair(const explaining *e, uint64_t index);
const wanted *score_find_pair(const explaining *e, int64_t sequence, size_t query);

/* erase.c: list what is to be scored; clear also after an error. */
bg_status score_erase_list(explaining *e, bg_err *err) BG_MUST_CHECK;
void score_erase_clear(erased_sequences *s);
/* A pair's scores: x[0] of the whole sequence, x[1 + t] without the token at position t; x [rows + 1]. */
bg_status score_erase_read(const explaining *e, const wanted *p, float *x, bg_err *err) BG_MUST_CHECK;

#endif /* BG_STAGES_EXPLAINING_H */
