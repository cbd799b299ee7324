/* merge_scores.c - find the shards, check that they belong together, stream them once. */
#include "merge_scores.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/extremes.h"
#include "bregman/inputs.h"
#include "bregman/log.h"
#include "bregman/memory.h"
#include "bregman/ranking.h"
#include "bregman/shard.h"
#include "bregman/topk.h"

/* Histogram bins: 8 a decade from 1e-8 to 1e12 on either side of 0, and one around it. */
enum { BINS_PER_DECADE = 8, LOW_DECADE = -8, HIGH_DECADE = 12,
       BINS_PER_SIDE = BINS_PER_DECADE * (HIGH_DECADE - LOW_DECADE), BINS = 2 * BINS_PER_SIDE + 1 };
enum { LEAST_TAIL = 100, ROWS_AT_ONCE = 4096 };

typedef struct {
    const merge_scores_config *c;
    const bg_context *ctx;
    uint64_t n_shards;                 /* found in the folder's file names */
    uint64_t n_sequences;              /* over all shards */
    bg_inputs in;
    bg_ranking r;
    bg_extremes extremes;
    bg_topk **tail;                    /* [Q] */
    double *square;                    /* [Q] sum of squared distances from the running mean */
    char *first_origin;                /* what the shards must share */
} merge;

/* ---- finding ---- */

static bg_status shard_path(const merge *m, uint64_t i, char out[BG_PATH_BYTES], bg_err *err)
{
    char name[BG_SHARD_NAME_BYTES];
    bg_shard_name(i, m->n_shards, name);
    return bg_path(out, err, "%s/%s", m->c->scores, name);
}

/* N from the names of the folder; two different N are two runs in one folder. */
static bg_status find_shards(merge *m, bg_err *err)
{
    DIR *dir = opendir(m->c->scores);
    if (dir == NULL)
        return BG_FAIL(err, BG_EIO, "%s: cannot open: %s", m->c->scores, strerror(errno));
    bg_status st = BG_OK;
    for (struct dirent *d = readdir(dir); d != NULL && st == BG_OK; d = readdir(dir)) {
        uint64_t i, n;
        if (!bg_shard_parse(d->d_name, &i, &n))
            continue;
        if (m->n_shards != 0 && n != m->n_shards)
            st = BG_FAIL(err, BG_ESTALE, "%s holds shards of %" PRIu64 " and of %" PRIu64 ": remove one set", m->c->scores,
                         m->n_shards, n);
        m->n_shards = n;
    }
    closedir(dir);
    if (st == BG_OK && m->n_shards == 0)
        st = BG_FAIL(err, BG_EIO, "%s: no shard-IIIII-of-NNNNN.h5 in it", m->c->scores);
    return st;
}

/* All shards must be published; the missing ones are named. */
static bg_status check_complete(const merge *m, bg_err *err)
{
    char path[BG_PATH_BYTES], missing[200] = "";
    size_t at = 0;
    uint64_t n = 0;
    bg_status st = BG_OK;
    for (uint64_t i = 0; i < m->n_shards && st == BG_OK; i++) {
        bool done = false;
        st = shard_path(m, i, path, err);
        if (st == BG_OK)
            st = bg_store_is_done(path, NULL, &done, err);
        if (st != BG_OK || done)
            continue;
        if (at < sizeof missing - 16)
            at += (size_t)snprintf(missing + at, sizeof missing - at, " %" PRIu64, i);
        n++;
    }
    if (st == BG_OK && n > 0)
        st = BG_FAIL(err, BG_EIO, "%s: %" PRIu64 " of %" PRIu64 " shards are missing:%s%s", m->c->scores, n, m->n_shards,
                     missing, at >= sizeof missing - 16 ? " ..." : "");
    return st;
}

/* What shards of one run share: options but for the shard, and the hashes of all inputs. */
static bg_status read_origin(const bg_store *s, char **out, bg_err *err)
{
    char **hash = NULL;
    size_t n = 0, bytes = 1;
    uint64_t corpus = 0;
    bg_status st = bg_store_read_strings(s, "run/input_hash", &hash, &n, err);
    if (st == BG_OK)
        st = bg_store_get_u64(s, "/", "corpus_sequences", &corpus, NULL, err);
    if (st == BG_OK && (*out = calloc(33 * n + 40, bytes)) == NULL)
        st = BG_FAIL(err, BG_ENOMEM, "%s: out of memory", bg_store_path(s));
    for (size_t i = 0; i < n && st == BG_OK; i++)
        strcat(strncat(*out, hash[i], 32), " ");
    if (st == BG_OK)
        snprintf(*out + strlen(*out), 24, "%" PRIu64, corpus);
    bg_strings_free(hash, n);
    return st;
}

/* Check one shard against the first; count its sequences. */
static bg_status check_shard(merge *m, uint64_t i, bg_err *err)
{
    char path[BG_PATH_BYTES], *origin = NULL, **id = NULL;
    uint64_t dims[2] = { 0, 0 };
    size_t nq = 0;
    bg_store *s = NULL;
    bg_status st = shard_path(m, i, path, err);
    if (st == BG_OK)
        st = bg_store_open(&s, path, "bregman/scores", err);
    if (st == BG_OK)
        st = read_origin(s, &origin, err);
    if (st == BG_OK && i == 0)
        st = bg_store_get_u64(s, "/", "corpus_sequences", &m->r.corpus_sequences, NULL, err);
    if (st == BG_OK && m->first_origin != NULL && strcmp(origin, m->first_origin) != 0)
        st = BG_FAIL(err, BG_ESTALE, "%s was made from other inputs than shard 0: score it again", path);
    if (st == BG_OK)
        st = bg_store_read_strings(s, "id", &id, &nq, err);
    if (st == BG_OK)
        st = bg_store_dims(s, "score", 2, dims, err);
    if (st == BG_OK && (dims[1] != nq || (i > 0 && nq != m->r.n_queries)))
        st = BG_FAIL(err, BG_ESHAPE, "%s: scores of %" PRIu64 " queries, but %zu ids", path, dims[1], nq);
    m->n_sequences += dims[0];
    if (st == BG_OK && i == 0) {
        m->first_origin = origin;
        m->r.query = id;
        m->r.n_queries = nq;
        origin = NULL;
        id = NULL;
    }
    bg_store_close(s);
    bg_strings_free(id, nq);
    free(origin);
    return st;
}

static bg_status open_inputs(merge *m, bg_err *err)
{
    char path[BG_PATH_BYTES];
    bg_status st = find_shards(m, err);
    if (st == BG_OK)
        st = check_complete(m, err);
    for (uint64_t i = 0; i < m->n_shards && st == BG_OK; i++) {
        st = check_shard(m, i, err);
        if (st == BG_OK)
            st = shard_path(m, i, path, err);
        if (st == BG_OK)
            st = bg_inputs_add_file(&m->in, path, err);
    }
    return st;
}

/* ---- accumulating ---- */

static bg_status open_memory(merge *m, bg_err *err)
{
    bg_ranking *r = &m->r;
    size_t tail = (size_t)ceil((double)m->n_sequences * m->c->tail);
    tail = tail < LEAST_TAIL ? LEAST_TAIL : tail;
    tail = tail > m->n_sequences ? m->n_sequences : tail;
    r->k = m->c->top < m->n_sequences ? m->c->top : m->n_sequences;
    r->n_bins = BINS;
    r->n_tail = r->n_queries * tail;
    bg_status st = bg_ranking_alloc(r, err);
    if (st == BG_OK)
        st = bg_extremes_init(&m->extremes, r->n_queries, r->k, err);
    if (st == BG_OK)
        st = BG_NEW(m->tail, r->n_queries, "tail", err);
    if (st == BG_OK)
        st = BG_NEW(m->square, r->n_queries, "moments", err);
    for (size_t q = 0; q < r->n_queries && st == BG_OK; q++)
        st = bg_topk_new(&m->tail[q], tail, err);
    for (int i = 0; i <= BINS && st == BG_OK; i++) {
        int step = i <= BINS_PER_SIDE ? BINS_PER_SIDE - i : i - BINS_PER_SIDE - 1;
        double edge = pow(10.0, LOW_DECADE + (double)step / BINS_PER_DECADE);
        r->edge[i] = i <= BINS_PER_SIDE ? -edge : edge;
    }
    return st;
}

static size_t bin_of(const double *edge, double x)
{
    size_t lo = 0, hi = BINS;          /* edge[lo] <= x < edge[hi], but for the outer bins */
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
    r->bin[q * BINS + bin_of(r->edge, x)]++;
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

static bg_status stream_shard(merge *m, uint64_t i, int64_t *sequence, float *score, bg_err *err)
{
    char path[BG_PATH_BYTES];
    uint64_t dims[2] = { 0, 0 };
    bg_store *s = NULL;
    bg_status st = shard_path(m, i, path, err);
    if (st == BG_OK)
        st = bg_store_open(&s, path, "bregman/scores", err);
    if (st == BG_OK)
        st = bg_store_dims(s, "score", 2, dims, err);
    for (uint64_t at = 0; at < dims[0] && st == BG_OK; at += ROWS_AT_ONCE) {
        uint64_t n = dims[0] - at < ROWS_AT_ONCE ? dims[0] - at : ROWS_AT_ONCE;
        st = bg_store_read_rows(s, "sequence", BG_I64, at, n, 1, sequence, err);
        if (st == BG_OK)
            st = bg_store_read_rows(s, "score", BG_F32, at, n, m->r.n_queries, score, err);
        for (uint64_t j = 0; j < n && st == BG_OK; j++)
            st = add_row(m, (uint64_t)sequence[j], score + j * dims[1], path, err);
    }
    bg_store_close(s);
    return st;
}

static bg_status stream(merge *m, bg_err *err)
{
    int64_t *sequence = NULL;
    float *score = NULL;
    bg_progress p;
    bg_status st = BG_NEW(sequence, ROWS_AT_ONCE, "scores", err);
    if (st == BG_OK)
        st = BG_NEW(score, ROWS_AT_ONCE * m->r.n_queries, "scores", err);
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
    st = bg_store_end(s, st, err);
    if (st == BG_OK)
        bg_log("wrote %s: %" PRIu64 " sequences, %zu queries", m->c->output, m->n_sequences, m->r.n_queries);
    return st;
}

static void clear(merge *m)
{
    for (size_t q = 0; q < m->r.n_queries && m->tail != NULL; q++)
        bg_topk_free(m->tail[q]);
    bg_free(m->tail);
    bg_extremes_clear(&m->extremes);
    bg_free(m->square);
    free(m->first_origin);
    bg_ranking_clear(&m->r);
    bg_inputs_clear(&m->in);
}

/* Reading is all there is to do: rank 0 does it. */
bg_status merge_scores_run(const void *config, const bg_context *ctx, bg_err *err)
{
    merge m = { .c = config, .ctx = ctx };
    bool done = false, first = ctx->grid.world_rank == 0;
    bg_status st = bg_inputs_share(&m.in, ctx, "", 0, first ? open_inputs(&m, err) : BG_OK, err);
    if (st == BG_OK) {
        st = bg_store_is_done(m.c->output, m.in.run.fingerprint, &done, err);
        if (st == BG_OK && done)
            bg_log("%s: already done", m.c->output);
        if (st == BG_OK && !done && first) {
            st = open_memory(&m, err);
            if (st == BG_OK)
                st = stream(&m, err);
            if (st == BG_OK) {
                finish(&m);
                st = publish(&m, err);
            }
        }
        st = bg_agree(ctx->grid.world, st, err);
    }
    clear(&m);
    return st;
}
