#include "bregman/visit.h"

bg_status bg_visit_sequences(const bg_visit *v, const bg_tokens *t, uint64_t begin, uint64_t end, bg_err *err)
{
    bg_status st = BG_OK;
    while (begin < end && st == BG_OK) {
        uint64_t stop = begin, n = 0;
        while (stop < end && n + bg_tokens_count(t, stop) <= v->room)
            n += bg_tokens_count(t, stop++);
        st = bg_tokens_read(t, begin, stop, SIZE_MAX, v->block, err);
        const uint32_t *token = v->block;
        for (uint64_t z = begin; z < stop && st == BG_OK; z++) {
            size_t count = bg_tokens_count(t, z);
            st = v->take(v->self, z, token, count, err);
            token += count;
        }
        begin = stop;
    }
    return st;
}
