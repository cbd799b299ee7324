/* terms.c - what of sequences is in the loss. */
#include <inttypes.h>

#include "bregman/mark.h"
#include "bregman/memory.h"
#include "bregman/tokens.h"

/* Of one sequence. */
static bg_status count_terms(const bg_tokens *t, uint64_t sequence, uint64_t *n, bg_err *err)
{
    uint32_t count = bg_tokens_count(t, sequence);
    uint32_t first = bg_tokens_are_queries(t) ? bg_tokens_completion_start(t, sequence) : 1;
    uint8_t *mark = NULL;
    *n = count - first;
    if (!bg_tokens_are_marked(t))
        return BG_OK;
    bg_status st = BG_NEW(mark, count, "marks of tokens", err);
    if (st == BG_OK)
        st = bg_tokens_read_marks(t, sequence, sequence + 1, mark, err);
    *n = 0;
    for (uint32_t i = first; i < count && st == BG_OK; i++)
        *n += bg_mark_in_loss(mark[i]);
    bg_free(mark);
    return st == BG_OK && *n == 0 ? bg_tokens_fail_masked(t, sequence, err) : st;
}

bg_status bg_tokens_terms(const bg_tokens *t, uint64_t begin, uint64_t end, uint64_t *n, bg_err *err)
{
    bg_status st = BG_OK;
    *n = 0;
    for (uint64_t z = begin; z < end && st == BG_OK; z++) {
        uint64_t one;
        st = count_terms(t, z, &one, err);
        *n += one;
    }
    return st;
}

bg_status bg_tokens_fail_masked(const bg_tokens *t, uint64_t sequence, bg_err *err)
{
    size_t file = 0;
    while (sequence >= bg_tokens_file_sequences(t, file))
        sequence -= bg_tokens_file_sequences(t, file++);
    return BG_FAIL(err, BG_EFORMAT,
                   "%s %" PRIu64
                   " of \"%s\": its mask (dataset loss) leaves no predicted token in the loss: leave such "
                   "sequences out when the file is made",
                   bg_tokens_are_queries(t) ? "query" : "sequence", sequence, bg_tokens_path(t, file));
}
