/* merge_scores.c - stream the shards once. */
#include "merge_scores.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/attempt.h"
#include "bregman/log.h"
#include "bregman/memory.h"
#include "bregman/stop.h"
#include "costs.h"

/* ---- accumulating ---- */

static bg_status open_memory(merge *m, bg_err *err)
{
    bg_ranking *r = &m->r;
    size_t tail = merge_tail(m->n_sequences, m->c->tail);
    r->k = m->c->top < m->n_sequences ? m->c->top : m->n_sequences;
    r->n_bins = MERGE_BINS;
    r->n_tail = r->n_queries * tail;
    bg_status st = bg_ranking_alloc(r, err);
    if (st == BG_OK)
        st = bg_extremes_init(&m->extremes, r->n_queries, r->k, err);
    if (st == BG_OK)
        st = BG_NEW(m->tail, r->n_queries, "tail", err);
    if (st == BG_OK)
        st = BG_NEW(m->square, r->n_queries, "moments", err);
    if (st == BG_OK)
        st = BG_NEW(m->first, m->n_shards, "shards", err);
    for (size_t q = 0; q < r->n_queries && st == BG_OK; q++)
        st = bg_topk_new(&m->tail[q], tail, err);
    for (int i = 0; i <= MERGE_BINS && st == BG_OK; i++) {
        int step = i <= MERGE_BINS_PER_SIDE ? MERGE_BINS_PER_SIDE - i : i - MERGE_BINS_PER_SIDE - 1;
        double edge = pow(10.0, MERGE_LOW_DECADE + (double)step / MERGE_BINS_PER_DECADE);
        r->edge[i] = i <= MERGE_BINS_PER_SIDE ? -edge : edge;
    }
    return st;
}

static size_t bin_of(const double *edge, double x)
{
    size_t lo = 0, hi = MERGE_BINS; /* edge[lo] <= x < edge[hi], but for the outer bins */
    while (hi - lo > 1) {
        size_t mid = (lo + hi) / 2;
        if (edge[mid] <= x)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

/* Welford's running mean and squares: one pass, no cancellation. */
static void add_moments(merge *m, size_t q, double x)
{
    bg_ranking *r = &m->r;
    if (r->count[q] == 0)
        r->minimum[q] = r->maximum[q] = x;
    double before = x - r->mean[q];
    r->count[q]++;
    r->mean[q] += before / (double)r->count[q];
    m->square[q] += before * (x - r->mean[q]);
    r->sum[q] += x;
    r->sum_positive[q] += x > 0 ? x : 0;
    r->minimum[q] = fmin(r->minimum[q], x);
    r->maximum[q] = fmax(r->maximum[q], x);
    r->bin[q * MERGE_BINS + bin_of(r->edge, x)]++;
}

static bg_status add_row(merge *m, uint64_t sequence, const float *score, const char *path, bg_err *err)
{
    bg_status st = BG_OK;
    for (size_t q = 0; q < m->r.n_queries && st == BG_OK; q++) {
        double x = (double)score[q];
        if (!isfinite(x))
            return BG_FAIL(err, BG_ENUMERIC, "%s: the score of sequence %" PRIu64 " is %g", path, sequence, x);
        add_moments(m, q, x);
        st = bg_topk_push(m->tail[q], (bg_hit){ x, sequence }, err);
    }
    return st == BG_OK ? bg_extremes_push(&m->extremes, sequence, score, err) : st;
}

/* Shards are runs of the corpus, or of a sorted list of candidates: none of their sequences comes twice. */
static bg_status check_ascending(merge *m, int64_t sequence, const char *path, bg_err *err)
{
    if (sequence <= m->last)
        return BG_FAIL(
            err, BG_EFORMAT,
            "%s has scores of sequence %" PRId64 " after those of sequence %" PRId64
            ", in this or an earlier shard: their numbers must ascend, or some would be ranked twice; score it again",
            path, sequence, m->last);
    m->last = sequence;
    return BG_OK;
}

static bg_status stream_shard(merge *m, uint64_t i, int64_t *sequence, float *score, bg_err *err)
{
    char path[BG_PATH_BYTES];
    uint64_t dims[2] = { 0, 0 };
    bg_store *s = NULL;
    bg_status st = merge_shard_path(m, i, path, err);
    if (st == BG_OK)
        st = bg_store_open(&s, path, "bregman/scores", err);
    if (st == BG_OK)
        st = bg_store_dims(s, "score", 2, dims, err);
    m->first[i] = m->last + 1; /* of an empty shard */
    for (uint64_t at = 0; at < dims[0] && st == BG_OK; at += MERGE_ROWS) {
        uint64_t n = dims[0] - at < MERGE_ROWS ? dims[0] - at : MERGE_ROWS;
        st = bg_stop_check("merging", err);
        if (st == BG_OK)
            st = bg_store_read_rows(s, "sequence", BG_I64, (bg_slab){ at, n, 1 }, sequence, err);
        if (st == BG_OK)
            st = bg_store_read_rows(s, "score", BG_F32, (bg_slab){ at, n, m->r.n_queries }, score, err);
        if (st == BG_OK && at == 0)
            m->first[i] = sequence[0];
        for (uint64_t j = 0; j < n && st == BG_OK; j++) {
            st = check_ascending(m, sequence[j], path, err);
            if (st == BG_OK)
                st = add_row(m, (uint64_t)sequence[j], score + j * dims[1], path, err);
        }
    }
    bg_store_close(s);
    return st;
}

static bg_status stream(merge *m, bg_err *err)
{
    int64_t *sequence = NULL;
    float *score = NULL;
    bg_progress p;
    bg_status st = BG_NEW(sequence, MERGE_ROWS, "scores", err);
    if (st == BG_OK)
        st = BG_NEW(score, MERGE_ROWS * m->r.n_queries, "scores", err);
    bg_progress_start(&p, "merging", "shards", 0, m->n_shards);
    for (uint64_t i = 0; i < m->n_shards && st == BG_OK; i++) {
        st = stream_shard(m, i, sequence, score, err);
        bg_progress_update(&p, i + 1);
    }
    if (st == BG_OK)
        bg_progress_finish(&p);
    bg_free(sequence);
    bg_free(score);
    return st;
}

/* ---- writing ---- */

static void finish(merge *m)
{
    bg_ranking *r = &m->r;
    size_t at = 0;
    for (int side = 0; side < BG_SIDES; side++)
        bg_extremes_take(&m->extremes, side, &r->side[side]);
    for (size_t q = 0; q < r->n_queries; q++) {
        const bg_hit *hit;
        r->sd[q] = sqrt(m->square[q] / (double)r->count[q]);
        r->tail_count[q] = (uint32_t)bg_topk_sorted(m->tail[q], &hit);
        for (size_t i = 0; i < r->tail_count[q]; i++)
            r->tail[at++] = (float)hit[i].score;
    }
}

static bg_status publish(merge *m, bg_err *err)
{
    bg_store *s = NULL;
    bg_status st = bg_store_create(&s, m->c->output, "bregman/ranking", &m->in.run, err);
    if (st == BG_OK)
        st = bg_ranking_write(&m->r, s, err);
    st = bg_store_end_once(s, st, err);
    if (st == BG_OK)
        bg_log("wrote %s: %" PRIu64 " sequences, %.3g %% of the corpus, %zu queries", m->c->output, m->n_sequences,
               100.0 * (double)m->n_sequences / (double)m->r.corpus_sequences, m->r.n_queries);
    return st;
}

static void clear(merge *m)
{
    for (size_t q = 0; q < m->r.n_queries && m->tail != NULL; q++)
        bg_topk_free(m->tail[q]);
    bg_free(m->tail);
    bg_extremes_clear(&m->extremes);
    bg_free(m->square);
    bg_free(m->rows);
    bg_free(m->first);
    free(m->common);
    bg_ranking_clear(&m->r);
    bg_inputs_clear(&m->in);
}

/* Reading is all there is to do: rank 0 does it. */
static bg_status merge_all(void *self, bg_err *err)
{
    merge *m = self;
    bg_status st = BG_OK;
    if (m->ctx->grid.world_rank == 0) {
        st = open_memory(m, err);
        if (st == BG_OK)
            st = stream(m, err);
        if (st == BG_OK) {
            finish(m);
            st = merge_find_documents(m, err);
        }
        if (st == BG_OK)
            st = publish(m, err);
    }
    return bg_agree(m->ctx->grid.world, st, err);
}

bg_status merge_scores_run(const void *config, const bg_context *ctx, bg_err *err)
{
    merge m = { .c = config, .ctx = ctx, .last = -1 };
    bg_status st = bg_inputs_share(&m.in, ctx, "", 0, ctx->grid.world_rank == 0 ? merge_open_shards(&m, err) : BG_OK,
                                   err);
    const bg_attempt a = { .ctx = ctx, .in = &m.in, .output = m.c->output, .self = &m, .run = merge_all };
    if (st == BG_OK)
        st = bg_attempt_run(&a, err);
    clear(&m);
    return st;
}
