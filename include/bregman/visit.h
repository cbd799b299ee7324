/* visit.h - go through the sequences of token files one after another, which are read in blocks. */
#ifndef BG_VISIT_H
#define BG_VISIT_H

#include "bregman/tokens.h"

typedef struct {
    uint32_t *block; /* [room] for token ids, the caller's */
    uint64_t room;   /* at least the tokens of the longest sequence */
    void *self;
    bg_status (*take)(void *self, uint64_t sequence, const uint32_t *token, size_t n, bg_err *err);
} bg_visit;

/* Sequences [begin, end), in their order, each with its token ids.  Local.
 * Errors: what `take` returns, which ends it; those of bg_tokens_read but for ids that are too large. */
bg_status bg_visit_sequences(const bg_visit *v, const bg_tokens *t, uint64_t begin, uint64_t end,
                             bg_err *err) BG_MUST_CHECK;

#endif /* BG_VISIT_H */
