/* extremes.h - the best and the worst k sequences of every query, in bounded memory. */
#ifndef BG_EXTREMES_H
#define BG_EXTREMES_H

#include "bregman/ranking.h"
#include "bregman/topk.h"

typedef struct {
    size_t n_queries, k;
    bg_topk **set[BG_SIDES]; /* [n_queries] each; the bottom's scores with their sign turned */
} bg_extremes;

/* Clear with bg_extremes_clear, also after an error.  BG_EARG if k is 0; BG_ENOMEM. */
bg_status bg_extremes_init(bg_extremes *e, size_t n_queries, size_t k, bg_err *err) BG_MUST_CHECK;
void bg_extremes_clear(bg_extremes *e);

/* Offer a sequence's scores for all queries, score [n_queries].  BG_ENUMERIC for a NaN or infinity. */
bg_status bg_extremes_push(bg_extremes *e, uint64_t sequence, const float *score, bg_err *err) BG_MUST_CHECK;

/* Both arrays of out [n_queries, k], most extreme first; -1 and 0 where there are fewer. */
void bg_extremes_take(const bg_extremes *e, int side, bg_ranked *out);

#endif /* BG_EXTREMES_H */
