#include "bregman/extremes.h"

#include "bregman/memory.h"

bg_status bg_extremes_init(bg_extremes *e, size_t n_queries, size_t k, bg_err *err)
{
    bg_status st = BG_OK;
    *e = (bg_extremes){ .n_queries = n_queries, .k = k };
    for (int side = 0; side < BG_SIDES && st == BG_OK; side++) {
        st = BG_NEW(e->set[side], n_queries, "ranked scores", err);
        for (size_t q = 0; q < n_queries && st == BG_OK; q++)
            st = bg_topk_new(&e->set[side][q], k, err);
    }
    return st;
}

void bg_extremes_clear(bg_extremes *e)
{
    for (int side = 0; side < BG_SIDES; side++) {
        for (size_t q = 0; q < e->n_queries && e->set[side] != NULL; q++)
            bg_topk_free(e->set[side][q]);
        bg_free(e->set[side]);
    }
    *e = (bg_extremes){ 0 };
}

bg_status bg_extremes_push(bg_extremes *e, uint64_t sequence, const float *score, bg_err *err)
{
    bg_status st = BG_OK;
    for (size_t q = 0; q < e->n_queries && st == BG_OK; q++) {
        st = bg_topk_push(e->set[BG_TOP][q], (bg_hit){ (double)score[q], sequence }, err);
        if (st == BG_OK)
            st = bg_topk_push(e->set[BG_BOTTOM][q], (bg_hit){ -(double)score[q], sequence }, err);
    }
    return st;
}

void bg_extremes_take(const bg_extremes *e, int side, bg_ranked *out)
{
    double sign = side == BG_TOP ? 1.0 : -1.0;
    for (size_t q = 0; q < e->n_queries; q++) {
        const bg_hit *hit;
        size_t n = bg_topk_sorted(e->set[side][q], &hit);
        for (size_t i = 0; i < e->k; i++) {
            out->sequence[q * e->k + i] = i < n ? (int64_t)hit[i].id : -1;
            out->score[q * e->k + i] = i < n ? (float)(sign * hit[i].score) : 0;
        }
    }
}
