/* erase.c - with --attribution input: the ranked sequences scored again with one of their tokens erased, each in turn
 * (M14).
 *
 * A sequence of T tokens has T - 1 that are read: the last is a target only, and erasing it changes nothing. */
#include <inttypes.h>

#include "bregman/log.h"
#include "bregman/memory.h"
#include "explaining.h"

static bg_status allocate(const explaining *e, erased_sequences *s, bg_err *err)
{
    const scoring *w = e->w;
    uint64_t n = w->plan.n_sequences;
    for (uint64_t k = 0; k < n; k++)
        s->n += bg_tokens_count(w->in.tokens, e->sequence[k]);
    bg_status st = BG_NEW(s->sequence, s->n, "sequences with a token erased", err);
    if (st == BG_OK)
        st = BG_NEW(s->erased, s->n, "sequences with a token erased", err);
    if (st == BG_OK)
        st = BG_NEW(s->first, n + 1, "sequences with a token erased", err);
    return st == BG_OK ? BG_NEW(s->at, n, "sequences with a token erased", err) : st;
}

/* How many pairs a sequence to explain has. */
static uint64_t pairs_of(const explaining *e, uint64_t index)
{
    return score_first_pair(e, index + 1) - score_first_pair(e, index);
}

bg_status score_erase_list(explaining *e, bg_err *err)
{
    const scoring *w = e->w;
    erased_sequences *s = &e->erased;
    uint64_t i = 0, at = 0;
    bg_status st = allocate(e, s, err);
    for (uint64_t k = 0; k < w->plan.n_sequences && st == BG_OK; k++) {
        uint32_t count = bg_tokens_count(w->in.tokens, e->sequence[k]);
        s->first[k] = i;
        s->at[k] = at;
        at += count * pairs_of(e, k);
        for (uint32_t t = 0; t < count; t++, i++) {
            s->sequence[i] = e->sequence[k];
            s->erased[i] = t == 0 ? BG_NOT_ERASED : t - 1;
        }
    }
    if (st == BG_OK)
        s->first[w->plan.n_sequences] = i;
    return st;
}

void score_erase_clear(erased_sequences *s)
{
    bg_free(s->sequence);
    bg_free(s->erased);
    bg_free(s->first);
    bg_free(s->at);
}

/* Of which sequence to explain the i-th is. */
static uint64_t index_of(const explaining *e, uint64_t i)
{
    const uint64_t *first = e->erased.first;
    uint64_t lo = 0, hi = e->w->plan.n_sequences;
    while (hi - lo > 1) {
        uint64_t m = (lo + hi) / 2;
        if (first[m] <= i)
            lo = m;
        else
            hi = m;
    }
    return lo;
}

/* Values before those of the i-th. */
static uint64_t values_before(const explaining *e, uint64_t i)
{
    uint64_t k = index_of(e, i);
    return e->erased.at[k] + (i - e->erased.first[k]) * pairs_of(e, k);
}

/* Scores of the unit's i-th (the work's `number`) for the queries that rank its sequence; x [Q] is room. */
static bg_status write_scores(const explaining *e, uint64_t i, uint64_t number, uint64_t at, float *x, bg_store *s,
                              bg_err *err)
{
    size_t k = score_first_pair(e, index_of(e, number)), n = 0;
    uint64_t index = e->pair[k].index;
    bg_score_sums_scores(e->w->made.sums, i, x);
    /* queries ascend, so that what is overwritten has been taken */
    for (; k < e->n_pairs && e->pair[k].index == index; k++)
        x[n++] = x[e->pair[k].query];
    return bg_store_write_rows(s, "erased_score", at, n, x, err);
}

static bg_status write_segment(scoring *w, const bg_unit *unit, const bg_segment *g, bg_store *s, bg_err *err)
{
    const explaining *e = w->in.explaining;
    uint64_t first = unit->first + g->first, end = unit->first + g->end, before = values_before(e, first);
    uint64_t last = end - 1, n = values_before(e, last) + pairs_of(e, index_of(e, last)) - before;
    float *x = NULL;
    bg_status st = BG_NEW(x, w->plan.extent.n_queries, "scores", err);
    if (st == BG_OK)
        st = bg_store_dataset(s, "erased_score", &n, err);
    for (uint64_t i = first; i < end && st == BG_OK; i++)
        st = write_scores(e, i - unit->first, i, values_before(e, i) - before, x, s, err);
    bg_free(x);
    return st;
}

static const score_kept kept = { "erased_scores", "scores with a token erased", write_segment };

uint64_t score_erased_count(const scoring *w) { return w->in.explaining->erased.n; }

score_phase score_erased_phase(const scoring *w)
{
    const erased_sequences *s = &w->in.explaining->erased;
    bg_log("%" PRIu64 " sequences once more, and again with each of their tokens erased: %" PRIu64 " passes",
           w->plan.n_sequences, s->n);
    return (score_phase){
        .kept = &kept, .sequence = s->sequence, .erased = s->erased, .load = score_erased_load(&w->plan.load)
    };
}

/* The values of the pair's column, of the n from the i-th on, which lie in one file. */
static bg_status read_column(const explaining *e, const bg_rows *from, uint64_t i, size_t n, const wanted *p, float *x,
                             bg_err *err)
{
    size_t first = score_first_pair(e, p->index), columns = pairs_of(e, p->index);
    size_t column = (size_t)(p - e->pair) - first;
    uint64_t at = values_before(e, i) - values_before(e, from->first - from->row);
    float *all = NULL;
    bg_status st = BG_NEW(all, n * columns, "scores", err);
    if (st == BG_OK)
        st = bg_store_read_rows(from->file, "erased_score", BG_F32, (bg_slab){ at, n * columns, 1 }, all, err);
    for (size_t t = 0; t < n && st == BG_OK; t++)
        x[t] = all[t * columns + column];
    bg_free(all);
    return st;
}

bg_status score_erase_read(const explaining *e, const wanted *p, float *x, bg_err *err)
{
    bg_units_reader *units = e->units[ERASED_PHASE];
    uint64_t first = e->erased.first[p->index], end = e->erased.first[p->index + 1], n;
    bg_status st = BG_OK;
    for (uint64_t i = first; i < end && st == BG_OK; i += n) {
        bg_rows from = { 0 };
        st = bg_units_read(units, bg_units_run_of(units, i), &from, err);
        n = from.first + from.n < end ? from.first + from.n - i : end - i;
        if (st == BG_OK)
            st = read_column(e, &from, i, n, p, x + (i - first), err);
    }
    return st;
}
