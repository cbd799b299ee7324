/* order.c - scores in order, places, and rank correlations. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/memory.h"
#include "compare_scales.h"

static bg_status new_of_all(ordered_scores *o, bg_err *err)
{
    bg_status st = BG_NEW(o->score, o->n_models, "scores in order", err);
    if (st == BG_OK)
        st = BG_NEW(o->order, o->n_models, "scores in order", err);
    return st == BG_OK ? BG_NEW(o->place, o->n_models, "places", err) : st;
}

bg_status compare_new_order(ordered_scores *o, size_t n_models, uint64_t n_sequences, bg_err *err)
{
    *o = (ordered_scores){ .n_models = n_models, .n_sequences = n_sequences };
    if (n_sequences >= UINT32_MAX)
        return BG_FAIL(err, BG_ENOMEM, "%" PRIu64 " sequences are more than can be put in order: at most %" PRIu32,
                       n_sequences, UINT32_MAX - 1);
    bg_status st = new_of_all(o, err);
    if (st == BG_OK)
        st = BG_NEW(o->scored, n_sequences, "scores in order", err);
    for (size_t m = 0; m < n_models && st == BG_OK; m++) {
        st = BG_NEW(o->order[m], n_sequences, "scores in order", err);
        if (st == BG_OK)
            st = BG_NEW(o->place[m], n_sequences, "places", err);
    }
    return st;
}

void compare_free_order(ordered_scores *o)
{
    for (size_t m = 0; m < o->n_models; m++) {
        if (o->order != NULL)
            bg_free(o->order[m]);
        if (o->place != NULL)
            bg_free(o->place[m]);
    }
    bg_free(o->scored);
    bg_free(o->order);
    bg_free(o->place);
    bg_free(o->score);
}

static int best_first(const void *a, const void *b)
{
    const scored_sequence *x = a, *y = b;
    if (x->score > y->score || x->score < y->score)
        return x->score > y->score ? -1 : 1;
    return (x->sequence > y->sequence) - (x->sequence < y->sequence);
}

/* Places of sequence[n], best first, by their scores; equal ones share the mean. */
static void set_places(const float *score, const uint32_t *sequence, size_t n, double *place)
{
    for (size_t i = 0, end; i < n; i = end) {
        float s = score[sequence[i]];
        for (end = i + 1; end < n && score[sequence[end]] >= s; end++)
            ;
        for (size_t j = i; j < end; j++)
            place[sequence[j]] = ((double)i + 1 + (double)end) / 2;
    }
}

void compare_order(ordered_scores *o, size_t model, const float *score)
{
    size_t n = 0;
    for (uint64_t z = 0; z < o->n_sequences; z++)
        if (!isnan(score[z]))
            o->scored[n++] = (scored_sequence){ score[z], (uint32_t)z };
    if (n > 0)
        qsort(o->scored, n, sizeof *o->scored, best_first);
    for (size_t i = 0; i < n; i++)
        o->order[model][i] = o->scored[i].sequence;
    o->score[model] = score;
    o->n = n;
    set_places(score, o->order[model], n, o->place[model]);
}

double compare_spearman(const ordered_scores *o, size_t a, size_t b)
{
    const double *x = o->place[a], *y = o->place[b];
    double mean = ((double)o->n + 1) / 2, xy = 0, xx = 0, yy = 0;
    for (size_t i = 0; i < o->n; i++) {
        uint32_t z = o->order[a][i];
        double dx = x[z] - mean, dy = y[z] - mean;
        xy += dx * dy;
        xx += dx * dx;
        yy += dy * dy;
    }
    return xx > 0 && yy > 0 ? xy / sqrt(xx * yy) : nan("");
}
