/* pairs.c - the sequences of a ranking, and the queries that rank each. */
#include <inttypes.h>
#include <stdlib.h>

#include "bregman/memory.h"
#include "explaining.h"

static int by_sequence(const void *a, const void *b)
{
    const wanted *x = a, *y = b;
    if (x->sequence != y->sequence)
        return x->sequence < y->sequence ? -1 : 1;
    return (x->query > y->query) - (x->query < y->query);
}

bg_status score_list_pairs(explaining *e, bg_err *err)
{
    scoring *w = e->w;
    const bg_ranking *r = &e->ranking;
    uint64_t corpus = bg_tokens_sequences(w->in.tokens), at = 0;
    size_t n = 0, kept = 0;
    bg_status st = BG_NEW(e->pair, BG_SIDES * r->n_queries * r->k, "pairs to explain", err);
    if (st == BG_OK)
        st = BG_NEW(e->sequence, BG_SIDES * r->n_queries * r->k, "sequences to explain", err);
    for (size_t i = 0; i < BG_SIDES * r->n_queries * r->k && st == BG_OK; i++) {
        size_t side = i / (r->n_queries * r->k), cell = i % (r->n_queries * r->k);
        int64_t z = r->side[side].sequence[cell];
        if (z >= 0 && (uint64_t)z >= corpus)
            st = BG_FAIL(err, BG_ESTALE, "%s ranks sequence %" PRId64 ", but the token files hold %" PRIu64,
                         w->c->explain, z, corpus);
        else if (z >= 0)
            e->pair[n++] = (wanted){ .sequence = (uint64_t)z, .query = (uint32_t)(cell / r->k) };
    }
    if (st != BG_OK)
        return st;
    qsort(e->pair, n, sizeof *e->pair, by_sequence);
    for (size_t i = 0; i < n; i++) {
        if (kept > 0 && by_sequence(&e->pair[i], &e->pair[kept - 1]) == 0)
            continue;
        wanted p = e->pair[i];
        if (w->plan.n_sequences == 0 || e->sequence[w->plan.n_sequences - 1] != p.sequence)
            e->sequence[w->plan.n_sequences++] = p.sequence;
        p.index = w->plan.n_sequences - 1;
        p.rows = bg_tokens_count(w->in.tokens, p.sequence) - 1;
        p.at = at;
        at += p.rows;
        e->pair[kept++] = p;
    }
    e->n_pairs = kept;
    w->plan.sequence = e->sequence;
    return BG_OK;
}

size_t score_first_pair(const explaining *e, uint64_t index)
{
    size_t lo = 0, hi = e->n_pairs;
    while (lo < hi) {
        size_t m = (lo + hi) / 2;
        if (e->pair[m].index < index)
            lo = m + 1;
        else
            hi = m;
    }
    return lo;
}

static int by_number(const void *a, const void *b)
{
    size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return (x > y) - (x < y);
}

size_t score_explain_queries(const scoring *w, uint64_t first, uint64_t end, size_t *out)
{
    const explaining *e = w->in.explaining;
    size_t n = 0;
    for (size_t k = score_first_pair(e, first); k < e->n_pairs && e->pair[k].index < end; k++) {
        size_t query = e->pair[k].query, i = 0;
        while (i < n && out[i] != query)
            i++;
        out[i] = query;
        n += i == n;
    }
    qsort(out, n, sizeof *out, by_number);
    return n;
}

const wanted *score_find_pair(const explaining *e, int64_t sequence, size_t query)
{
    wanted key = { .sequence = (uint64_t)sequence, .query = (uint32_t)query };
    return sequence < 0 ? NULL : bsearch(&key, e->pair, e->n_pairs, sizeof key, by_sequence);
}
