/* documents.c - where the ranked sequences come from.  score_shards has the token files at hand, and lists the
 * documents of each shard's own best and worst. */
#include <inttypes.h>
#include <stdlib.h>

#include "bregman/log.h"
#include "bregman/memory.h"
#include "merge_scores.h"

/* A ranked sequence: the shard it is from, and its place in the ranking. */
typedef struct {
    uint64_t shard;
    size_t cell;
} place; /* cell: side, query, rank */

static int by_shard(const void *a, const void *b)
{
    const place *x = a, *y = b;
    if (x->shard != y->shard)
        return x->shard < y->shard ? -1 : 1;
    return (x->cell > y->cell) - (x->cell < y->cell);
}

static uint64_t shard_of(const merge *m, int64_t sequence)
{
    uint64_t low = 0, high = m->n_shards;
    while (high - low > 1) {
        uint64_t middle = low + (high - low) / 2;
        if (m->first[middle] <= sequence)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* A query's best or worst in one shard. */
typedef struct {
    uint64_t k;
    int64_t *sequence, *start, *prefilter_rank; /* the last NULL: no prefilter */
    float *score;
} shard_list;

static bg_status read_list(shard_list *l, const bg_store *s, const char *side, size_t query, bg_err *err)
{
    const struct {
        const char *name;
        bg_dtype dtype;
        void *to;
    } part[] = { { "sequence", BG_I64, l->sequence },
                 { "score", BG_F32, l->score },
                 { "start", BG_I64, l->start },
                 { "prefilter_rank", BG_I64, l->prefilter_rank } };
    bg_status st = BG_OK;
    for (size_t i = 0; i < sizeof part / sizeof *part && st == BG_OK; i++) {
        char path[BG_PATH_BYTES];
        if (part[i].to == NULL)
            continue;
        st = bg_path(path, err, "%s/%s", side, part[i].name);
        if (st == BG_OK)
            st = bg_store_read_rows(s, path, part[i].dtype, (bg_slab){ query, 1, l->k }, part[i].to, err);
    }
    return st;
}

static bg_status open_list(shard_list *l, const bg_store *s, bool prefiltered, bg_err *err)
{
    uint64_t dims[2];
    bg_status st = bg_store_dims(s, "top/sequence", 2, dims, err);
    if (st != BG_OK)
        return st;
    l->k = dims[1];
    st = BG_NEW(l->sequence, l->k, "a shard's ranked sequences", err);
    if (st == BG_OK)
        st = BG_NEW(l->start, l->k, "a shard's ranked sequences", err);
    if (st == BG_OK && prefiltered)
        st = BG_NEW(l->prefilter_rank, l->k, "a shard's ranked sequences", err);
    return st == BG_OK ? BG_NEW(l->score, l->k, "a shard's ranked sequences", err) : st;
}

/* Both lists have one order, by score and then by sequence: the ranked sequences that a shard has of a query are the
 * first of the shard's own, in that order.  The j-th of them is `cell` of the ranking; it stays unknown if the shard
 * lists fewer. */
static bg_status take_document(merge *m, const shard_list *l, uint64_t j, size_t cell, const bg_store *s, bg_err *err)
{
    size_t all = m->r.n_queries * m->r.k, side = cell / all, i = cell % all;
    bg_ranked *r = &m->r.side[side];
    char path[BG_PATH_BYTES];
    if (j >= l->k)
        return BG_OK;
    if (l->sequence[j] != r->sequence[i] || !(l->score[j] >= r->score[i] && l->score[j] <= r->score[i]))
        return BG_FAIL(err, BG_EFORMAT,
                       "%s lists sequence %" PRId64 " with score %.7g among the %s of query \"%.60s\", but by its "
                       "scores it is sequence %" PRId64 " with %.7g: score it again",
                       bg_store_path(s), l->sequence[j], (double)l->score[j], bg_side_name[side],
                       m->r.query[i / m->r.k], r->sequence[i], (double)r->score[i]);
    r->start[i] = l->start[j];
    if (r->prefilter_rank != NULL)
        r->prefilter_rank[i] = l->prefilter_rank[j];
    bg_status st = bg_path(path, err, "%s/document", bg_side_name[side]);
    return st == BG_OK ? bg_store_read_string(s, path, i / m->r.k, j, &r->document[i], err) : st;
}

/* All n places of one shard. */
static bg_status search_shard(merge *m, const place *p, size_t n, uint64_t *found, bg_err *err)
{
    char path[BG_PATH_BYTES];
    shard_list l = { 0 };
    bg_store *s = NULL;
    uint64_t j = 0;
    bg_status st = merge_shard_path(m, p->shard, path, err);
    if (st == BG_OK)
        st = bg_store_open(&s, path, "bregman/scores", err);
    if (st == BG_OK)
        st = open_list(&l, s, m->r.prefilter != NULL, err);
    for (size_t i = 0; i < n && st == BG_OK; i++) {
        size_t list = p[i].cell / m->r.k; /* side, query */
        if (i == 0 || list != p[i - 1].cell / m->r.k) {
            j = 0;
            st = read_list(&l, s, bg_side_name[list / m->r.n_queries], list % m->r.n_queries, err);
        }
        if (st == BG_OK)
            st = take_document(m, &l, j, p[i].cell, s, err);
        *found += j < l.k;
        j++;
    }
    bg_store_close(s);
    bg_free(l.sequence);
    bg_free(l.start);
    bg_free(l.prefilter_rank);
    bg_free(l.score);
    return st;
}

bg_status merge_find_documents(merge *m, bg_err *err)
{
    size_t all = m->r.n_queries * m->r.k, n = 0, end;
    uint64_t found = 0;
    place *p = NULL;
    bg_status st = BG_NEW(p, BG_SIDES * all, "ranked sequences", err);
    for (size_t cell = 0; cell < BG_SIDES * all && st == BG_OK; cell++) {
        int64_t sequence = m->r.side[cell / all].sequence[cell % all];
        if (sequence >= 0)
            p[n++] = (place){ shard_of(m, sequence), cell };
    }
    if (n > 0)
        qsort(p, n, sizeof *p, by_shard);
    for (size_t begin = 0; begin < n && st == BG_OK; begin = end) {
        for (end = begin; end < n && p[end].shard == p[begin].shard; end++)
            ;
        st = search_shard(m, p + begin, end - begin, &found, err);
    }
    if (st == BG_OK && found < n)
        bg_log("%" PRIu64 " of %zu places without a document: shards list fewer sequences than are ranked; "
               "--explain fills them in",
               n - found, n);
    bg_free(p);
    return st;
}
