/* topk.h - the k highest-scoring items of a stream, in bounded memory.
 *
 * It takes the memory of 2 k hits.  Order is total: higher score first, then lower id.  The result therefore
 * does not depend on insertion order, shard order or the number of ranks.
 */
#ifndef BG_TOPK_H
#define BG_TOPK_H

#include <stddef.h>
#include <stdint.h>

#include "bregman/status.h"

typedef struct {
    double score; /* influence (math.md M2), or its negative to keep the worst; finite */
    uint64_t id;  /* global sequence index, unique within one stream */
} bg_hit;

typedef struct bg_topk bg_topk;

/* Create an empty set of at most k hits.  *out is NULL on failure.
 *
 * Caller frees *out with bg_topk_free().  Errors: BG_EARG if k is 0; BG_ENOMEM. */
bg_status bg_topk_new(bg_topk **out, size_t k, bg_err *err) BG_MUST_CHECK;
void bg_topk_free(bg_topk *t); /* NULL is fine */
/* What such a set takes. */
static inline double bg_topk_bytes(double k) { return 2 * k * (double)sizeof(bg_hit); }

/* Offer a hit; keep it iff it ranks among the best k so far.  A comparison, and a few more where it is kept.
 *
 * Errors: BG_ENUMERIC if hit.score is NaN or infinite; t is unchanged. */
bg_status bg_topk_push(bg_topk *t, bg_hit hit, bg_err *err) BG_MUST_CHECK;

/* Sort best first and lend the hits: (*hits)[0 .. return value).
 * They belong to t and stay valid until its next push or free. */
size_t bg_topk_sorted(bg_topk *t, const bg_hit **hits);

#endif /* BG_TOPK_H */
