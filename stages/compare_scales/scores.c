/* scores.c - a model's scores of some queries, out of its shards. */
#include <math.h>

#include "bregman/memory.h"
#include "bregman/stop.h"
#include "compare_scales.h"
#include "costs.h"

/* One call of compare_read_scores. */
typedef struct {
    const comparison *w;
    const ranked_model *m;
    size_t first, n;
    uint64_t rows;     /* that are read at a time */
    int64_t *sequence; /* [rows] */
    float *row;        /* [rows, Q] */
    uint64_t at;       /* of w->compared: those before it have been met */
    float *score;
} reading;

/* Rows of the shards, of which those that are compared are kept. */
static void take_rows(reading *r, uint64_t n)
{
    const comparison *w = r->w;
    for (uint64_t i = 0; i < n; i++) {
        while (r->at < w->n_compared && w->compared[r->at] < r->sequence[i])
            r->at++;
        bool compared = r->at < w->n_compared && w->compared[r->at] == r->sequence[i];
        for (size_t q = 0; compared && q < r->n; q++)
            r->score[q * w->n_compared + r->at] = r->row[i * w->n_queries + r->m->query[r->first + q]];
    }
}

static bg_status read_shard(reading *r, size_t shard, bg_err *err)
{
    const ranked_model *m = r->m;
    uint64_t rows = m->first[shard + 1] - m->first[shard];
    bg_store *s = NULL;
    bg_status st = bg_store_open(&s, m->shard[shard], "bregman/scores", err);
    for (uint64_t at = 0, n; at < rows && st == BG_OK; at += n) {
        n = rows - at < r->rows ? rows - at : r->rows;
        st = bg_stop_check("reading scores", err);
        if (st == BG_OK)
            st = bg_store_read_rows(s, "sequence", BG_I64, (bg_slab){ at, n, 1 }, r->sequence, err);
        if (st == BG_OK)
            st = bg_store_read_rows(s, "score", BG_F32, (bg_slab){ at, n, r->w->n_queries }, r->row, err);
        if (st == BG_OK)
            take_rows(r, n);
    }
    bg_store_close(s);
    return st;
}

bg_status compare_read_scores(const comparison *w, const ranked_model *m, size_t first, size_t n, float *score,
                              bg_err *err)
{
    reading r = { .w = w, .m = m, .first = first, .n = n, .rows = compare_rows(w->n_queries), .score = score };
    bg_status st = BG_NEW(r.sequence, r.rows, "numbers of sequences", err);
    if (st == BG_OK)
        st = BG_NEW(r.row, r.rows * w->n_queries, "scores", err);
    for (uint64_t i = 0; i < n * w->n_compared; i++)
        score[i] = nanf("");
    for (size_t i = 0; i < m->r.n_inputs && st == BG_OK; i++)
        st = read_shard(&r, i, err);
    bg_free(r.sequence);
    bg_free(r.row);
    return st;
}
