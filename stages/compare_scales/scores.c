/* scores.c - a model's scores of some queries, out of its shards. */
#include <math.h>

#include "bregman/memory.h"
#include "bregman/stop.h"
#include "compare_scales.h"

enum { READ_FLOATS = 1 << 20 }; /* at a time */

/* One call of compare_read_scores. */
typedef struct {
    const comparison *w;
    const ranked_model *m;
    size_t first, n;
    uint64_t rows; /* that are read at a time */
    float *row;    /* [rows, Q] */
    float *score;
} reading;

static bg_status read_shard(const reading *r, size_t shard, bg_err *err)
{
    const ranked_model *m = r->m;
    size_t nq = r->w->n_queries;
    uint64_t begin = m->first[shard], end = m->first[shard + 1];
    bg_store *s = NULL;
    bg_status st = bg_store_open(&s, m->shard[shard], "bregman/scores", err);
    for (uint64_t at = begin, n; at < end && st == BG_OK; at += n) {
        n = end - at < r->rows ? end - at : r->rows;
        st = bg_stop_check("reading scores", err);
        if (st == BG_OK)
            st = bg_store_read_rows(s, "score", BG_F32, (bg_slab){ at - begin, n, nq }, r->row, err);
        for (uint64_t i = 0; i < n && st == BG_OK; i++) {
            uint64_t z = (uint64_t)m->sequence[at + i];
            for (size_t q = 0; r->w->scored[z] && q < r->n; q++)
                r->score[q * r->w->n_sequences + z] = r->row[i * nq + m->query[r->first + q]];
        }
    }
    bg_store_close(s);
    return st;
}

bg_status compare_read_scores(const comparison *w, const ranked_model *m, size_t first, size_t n, float *score,
                              bg_err *err)
{
    reading r = { .w = w, .m = m, .first = first, .n = n, .rows = READ_FLOATS / w->n_queries + 1, .score = score };
    bg_status st = BG_NEW(r.row, r.rows * w->n_queries, "scores", err);
    for (uint64_t i = 0; i < n * w->n_sequences; i++)
        score[i] = nan("");
    for (size_t i = 0; i < m->r.n_inputs && st == BG_OK; i++)
        st = read_shard(&r, i, err);
    bg_free(r.row);
    return st;
}
