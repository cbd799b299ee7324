/* shards.c - find the shards, check that they belong together. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/memory.h"
#include "bregman/shard.h"
#include "bregman/stop.h"
#include "merge_scores.h"

/* ---- finding ---- */

bg_status merge_shard_path(const merge *m, uint64_t i, char out[BG_PATH_BYTES], bg_err *err)
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
            st = BG_FAIL(err, BG_ESTALE, "%s holds shards of %" PRIu64 " and of %" PRIu64 ": remove one set",
                         m->c->scores, m->n_shards, n);
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
        st = merge_shard_path(m, i, path, err);
        if (st == BG_OK)
            st = bg_store_is_done(path, NULL, &done, err);
        if (st != BG_OK || done)
            continue;
        if (at < sizeof missing - 16)
            at += (size_t)snprintf(missing + at, sizeof missing - at, " %" PRIu64, i);
        n++;
    }
    if (st == BG_OK && n > 0)
        st = BG_FAIL(err, BG_EIO, "%s: %" PRIu64 " of %" PRIu64 " shards are missing:%s%s", m->c->scores, n,
                     m->n_shards, missing, at >= sizeof missing - 16 ? " ..." : "");
    return st;
}

/* ---- belonging together ---- */

/* What one shard says of itself. */
typedef struct {
    const char *path;
    uint64_t number, of, rows, corpus_sequences;
    char *common, *prefilter;
    char **id;
    double *query_loss;
    size_t n_queries;
    bg_origin origin;
} shard;

static void clear_shard(shard *s)
{
    free(s->common);
    free(s->prefilter);
    bg_strings_free(s->id, s->n_queries);
    bg_free(s->query_loss);
    bg_origin_clear(&s->origin);
}

static bg_status read_numbers(shard *h, const bg_store *s, bg_err *err)
{
    const struct {
        const char *name;
        uint64_t *to;
    } number[] = { { "shard", &h->number }, { "shards", &h->of }, { "corpus_sequences", &h->corpus_sequences } };
    bg_status st = BG_OK;
    for (size_t i = 0; i < sizeof number / sizeof *number && st == BG_OK; i++)
        st = bg_store_get_u64(s, "/", number[i].name, number[i].to, NULL, err);
    return st;
}

/* What all shards of a run have in common. */
static bg_status read_common(shard *h, const bg_store *s, bg_err *err)
{
    bool found = false;
    bg_status st = bg_origin_read(&h->origin, s, "remove it and score it again", err);
    if (st == BG_OK)
        st = bg_store_get_text(s, "/run", "shards_fingerprint", &h->common, &found, err);
    if (st == BG_OK && !found)
        st = BG_FAIL(err, BG_ESTALE,
                     "%s does not say what it has in common with other shards: remove it and score it again", h->path);
    return st == BG_OK ? bg_store_get_text(s, "/", "prefilter", &h->prefilter, &found, err) : st;
}

static bg_status read_queries(shard *h, const bg_store *s, bg_err *err)
{
    bg_status st = bg_store_read_strings(s, "id", &h->id, &h->n_queries, err);
    return st == BG_OK ? bg_store_read_optional(s, "query_loss", h->n_queries, &h->query_loss, err) : st;
}

static bg_status read_shard(shard *h, bg_err *err)
{
    bg_store *s = NULL;
    uint64_t dims[2] = { 0, 0 };
    bg_status st = bg_store_open(&s, h->path, "bregman/scores", err);
    if (st == BG_OK)
        st = read_numbers(h, s, err);
    if (st == BG_OK)
        st = read_common(h, s, err);
    if (st == BG_OK)
        st = read_queries(h, s, err);
    if (st == BG_OK)
        st = bg_store_dims(s, "score", 2, dims, err);
    h->rows = dims[0];
    if (st == BG_OK && dims[1] != h->n_queries)
        st = BG_FAIL(err, BG_ESHAPE, "%s has %zu ids of queries, but scores of %" PRIu64, h->path, h->n_queries,
                     dims[1]);
    bg_store_close(s);
    return st;
}

/* Against the first shard, which m has already. */
static bg_status check_together(const merge *m, const shard *h, bg_err *err)
{
    char what[BG_DIFFERENCE_BYTES];
    if (bg_origin_differs(&h->origin, &m->r.origin, what))
        return BG_FAIL(err, BG_ESTALE, "%.140s was made from other inputs than shard 0: %s; score it again", h->path,
                       what);
    if (h->n_queries != m->r.n_queries)
        return BG_FAIL(err, BG_ESHAPE, "%s has scores of %zu queries, shard 0 of %zu: score it again", h->path,
                       h->n_queries, m->r.n_queries);
    for (size_t q = 0; q < h->n_queries; q++)
        if (strcmp(h->id[q], m->r.query[q]) != 0)
            return BG_FAIL(err, BG_ESTALE,
                           "%.200s has scores of query \"%.60s\" where shard 0 has those of \"%.60s\": score it again",
                           h->path, h->id[q], m->r.query[q]);
    if (strcmp(h->common, m->common) != 0)
        return BG_FAIL(err, BG_ESTALE,
                       "%s was made with other options, candidates or micro-batches than shard 0: score it again",
                       h->path);
    return BG_OK;
}

/* The first shard tells what all must share. */
static void take(merge *m, shard *h)
{
    m->r.corpus_sequences = h->corpus_sequences;
    m->r.query = h->id;
    m->r.query_loss = h->query_loss;
    m->r.n_queries = h->n_queries;
    m->r.origin = h->origin;
    m->r.prefilter = h->prefilter;
    m->common = h->common;
}

static bg_status open_shard(merge *m, uint64_t i, bg_err *err)
{
    char path[BG_PATH_BYTES];
    shard h = { .path = path };
    bg_status st = merge_shard_path(m, i, path, err);
    if (st == BG_OK)
        st = read_shard(&h, err);
    if (st == BG_OK && (h.number != i || h.of != m->n_shards))
        st = BG_FAIL(err, BG_EFORMAT, "%s says that it is shard %" PRIu64 " of %" PRIu64 ": was it renamed?", path,
                     h.number, h.of);
    if (st == BG_OK && i > 0)
        st = check_together(m, &h, err);
    m->n_sequences += h.rows;
    m->rows[i] = h.rows;
    if (st == BG_OK && i == 0)
        take(m, &h);
    else
        clear_shard(&h);
    return st == BG_OK ? bg_inputs_add_file(&m->in, path, err) : st;
}

/* All sequences in equal runs, as score_shards cuts them: of more shards than sequences some are empty. */
static bg_status check_rows(const merge *m, bg_err *err)
{
    char path[BG_PATH_BYTES];
    uint64_t all = m->n_sequences, n = m->n_shards;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t expected = (i + 1) * all / n - i * all / n;
        if (m->rows[i] == expected && all > 0)
            continue;
        bg_status st = merge_shard_path(m, i, path, err);
        if (st != BG_OK)
            return st;
        return BG_FAIL(err, BG_EFORMAT,
                       "%s has scores of %" PRIu64 " sequences, and all %" PRIu64 " shards of %" PRIu64 ": "
                       "they are not of one run; score them again",
                       path, m->rows[i], n, all);
    }
    return BG_OK;
}

bg_status merge_open_shards(merge *m, bg_err *err)
{
    bg_status st = find_shards(m, err);
    if (st == BG_OK)
        st = check_complete(m, err);
    if (st == BG_OK)
        st = BG_NEW(m->rows, m->n_shards, "shards", err);
    for (uint64_t i = 0; i < m->n_shards && st == BG_OK; i++)
        if ((st = bg_stop_check("opening shards", err)) == BG_OK)
            st = open_shard(m, i, err);
    return st == BG_OK ? check_rows(m, err) : st;
}
