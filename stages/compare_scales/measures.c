/* measures.c - what a query's scores say: moments, the tail, the best, related documents, agreement between models. */
#include <math.h>

#include "compare_scales.h"

static double positive(float x) { return x > 0 ? (double)x : 0; }

/* Mean and standard deviation in two passes, and the best 1 per cent's share of all that is positive. */
static double measure_all(comparison *w, size_t m, size_t query, const ordered_scores *o)
{
    const float *score = o->score[m];
    size_t n = o->n, cell = m * w->n_queries + query, percent = (n + 99) / 100;
    double sum = 0, square = 0, all = 0, best = 0;
    for (size_t i = 0; i < n; i++) {
        float x = score[o->order[m][i]];
        sum += (double)x;
        all += positive(x);
        best += i < percent ? positive(x) : 0;
    }
    double mean = n > 0 ? sum / (double)n : 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)score[o->order[m][i]] - mean;
        square += d * d;
    }
    w->v.count[cell] = (int64_t)n;
    w->v.mean[cell] = mean;
    w->v.sd[cell] = n > 0 ? sqrt(square / (double)n) : 0;
    w->v.top_percent[cell] = all > 0 ? best / all : nan("");
    for (size_t i = 0; i < w->n_tail; i++)
        w->v.tail[cell * w->n_tail + i] = i < n ? (double)score[o->order[m][i]] : nan("");
    return all;
}

/* Where a sequence stands in the order, from 1: equal scores have that of their numbers, as in a prefilter's lists. */
static int64_t position(const ordered_scores *o, size_t m, uint32_t sequence)
{
    const float *score = o->score[m];
    size_t low = 0, high = o->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        uint32_t z = o->order[m][middle];
        bool before = score[z] > score[sequence] || (score[z] >= score[sequence] && z < sequence);
        if (before)
            low = middle + 1;
        else
            high = middle;
    }
    return (int64_t)low + 1;
}

static void measure_top(comparison *w, size_t m, size_t query, const ordered_scores *o)
{
    size_t bm25 = w->n_models - 1;
    for (size_t i = 0; i < w->k; i++) {
        size_t cell = (m * w->n_queries + query) * w->k + i;
        bool there = i < o->n;
        uint32_t z = there ? o->order[m][i] : 0;
        w->v.top_sequence[cell] = there ? w->compared[z] : -1;
        w->v.top_score[cell] = there ? (double)o->score[m][z] : nan("");
        w->v.top_bm25_place[cell] = there && o->score[bm25][z] > 0 ? position(o, bm25, z) : -1;
    }
}

static size_t in_top(const comparison *w, size_t m, size_t query, uint64_t sequence)
{
    const int64_t *top = w->v.top_sequence + (m * w->n_queries + query) * w->k;
    for (size_t i = 0; i < w->k; i++)
        if (top[i] == (int64_t)sequence)
            return 1;
    return 0;
}

/* all: what is positive of all scores. */
static void measure_pair(comparison *w, size_t m, size_t pair, const ordered_scores *o, double all)
{
    const related_pair *p = &w->related.pair[pair];
    size_t at = m * w->related.n_pairs + pair, cell = m * w->n_queries + p->query, n = 0, top = 0;
    size_t k = w->k < o->n ? w->k : o->n;
    double sum = 0, own = 0, best = INFINITY, percentile = 0;
    for (size_t i = p->first; i < p->end; i++) {
        uint64_t z = compare_place_of(w, w->related.sequence[i]);
        float x = z < UINT64_MAX ? o->score[m][z] : nanf("");
        if (isnan(x))
            continue;
        n++;
        sum += (double)x;
        own += positive(x);
        best = fmin(best, o->place[m][z]);
        percentile += ((double)o->n - o->place[m][z]) / ((double)o->n - 1);
        top += in_top(w, m, p->query, w->related.sequence[i]);
    }
    double mean = n > 0 ? sum / (double)n : nan("");
    w->v.pair_scored[at] = (int64_t)n;
    w->v.pair_mean[at] = mean;
    w->v.pair_z[at] = w->v.sd[cell] > 0 ? (mean - w->v.mean[cell]) / w->v.sd[cell] : nan("");
    w->v.pair_place[at] = n > 0 ? best : nan("");
    w->v.pair_percentile[at] = n > 0 && o->n > 1 ? percentile / (double)n : nan("");
    w->v.pair_positive[at] = n > 0 && all > 0 ? own / all : nan("");
    w->v.pair_top[at] = n > 0 ? (double)top / (double)k : nan("");
}

static void measure_agreement(comparison *w, size_t query, const ordered_scores *o)
{
    size_t nm = w->n_models;
    for (size_t a = 0; a < nm; a++)
        for (size_t b = 0; b <= a; b++) {
            size_t k = o->n < w->k ? o->n : w->k, shared = 0;
            for (size_t i = 0; i < k; i++) {
                int64_t z = w->v.top_sequence[(a * w->n_queries + query) * w->k + i];
                for (size_t j = 0; j < k; j++)
                    shared += z == w->v.top_sequence[(b * w->n_queries + query) * w->k + j];
            }
            size_t ab = (a * nm + b) * w->n_queries + query, ba = (b * nm + a) * w->n_queries + query;
            w->v.spearman[ab] = w->v.spearman[ba] = compare_spearman(o, a, b);
            w->v.top_shared[ab] = w->v.top_shared[ba] = k > 0 ? (double)shared / (double)k : nan("");
        }
}

void compare_measure(comparison *w, size_t query, const ordered_scores *o)
{
    for (size_t m = 0; m < w->n_models; m++) {
        double all = measure_all(w, m, query, o);
        measure_top(w, m, query, o);
        for (size_t p = 0; p < w->related.n_pairs; p++)
            if (w->related.pair[p].query == query)
                measure_pair(w, m, p, o, all);
    }
    measure_agreement(w, query, o);
}
