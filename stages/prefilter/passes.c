/* passes.c - the corpus in units, each in the hands of one rank, twice: how many sequences have each term; then each
 * query's best.  What a unit's file holds depends on its own sequences and on those counts only. */
#include <inttypes.h>
#include <stdlib.h>

#include "bregman/deal.h"
#include "bregman/log.h"
#include "bregman/memory.h"
#include "bregman/stop.h"
#include "bregman/timing.h"
#include "bregman/topk.h"
#include "bregman/visit.h"
#include "prefilter.h"

typedef struct pass pass;
struct pass {
    prefilter *p;
    const char *what; /* in progress lines */
    const bg_units *units;
    /* Take in a sequence, and write the unit's file; all local. */
    bg_status (*add)(pass *s, uint64_t sequence, const uint32_t *token, size_t n, bg_err *err);
    bg_status (*write)(pass *s, bg_store *to, bg_err *err);
    int64_t *frequency; /* [terms] of the unit in hand */
    bg_topk **best;     /* [n_queries] of the unit in hand */
    size_t top;         /* sequences of a query that a unit keeps */
    uint64_t rows;      /* tokens that this rank read */
};

/* ---- a unit ---- */

static bg_status take(void *self, uint64_t sequence, const uint32_t *token, size_t n, bg_err *err)
{
    pass *s = self;
    s->rows += n;
    return s->add(s, sequence, token, n, err);
}

static bg_status do_unit(void *self, uint64_t unit, bg_notice *notice, bg_err *err)
{
    pass *s = self;
    const uint64_t begin = unit * s->units->unit_sequences, n = bg_units_size(s->units, unit);
    const bg_segment g = { unit, BG_WHOLE_MODEL, 0, n };
    bg_store *to = NULL;
    (void)notice;
    const bg_visit v = { s->p->block, s->p->block_tokens, s, take };
    bg_status st = bg_visit_sequences(&v, s->p->in.corpus, begin, begin + n, err);
    if (st != BG_OK)
        return st;
    st = bg_units_create(&to, s->units, &g, err);
    if (st == BG_OK)
        st = s->write(s, to, err);
    return bg_units_end(to, s->units, &g, n, st, err);
}

/* All units that are not there.  st: of what the rank has made ready.  Collective; an agreed status. */
static bg_status run(pass *s, bg_status st, bg_err *err)
{
    const bg_context *ctx = s->p->ctx;
    const bg_deal d = { .what = s->what, .unit = "units", .units = s->units, .self = s, .run = do_unit };
    bg_timing_begin(s->what);
    if ((st = bg_agree(ctx->grid.world, st, err)) == BG_OK)
        st = bg_deal_run(&d, ctx, err);
    if (st == BG_OK)
        st = bg_agree(ctx->grid.world, bg_stop_check(s->what, err), err);
    if (st == BG_OK)
        bg_timing_end(s->rows);
    return st;
}

/* ---- the first pass ---- */

static bg_status count_sequence(pass *s, uint64_t sequence, const uint32_t *token, size_t n, bg_err *err)
{
    (void)sequence;
    (void)err;
    bg_bm25_count(s->p->terms, token, n, s->frequency);
    return BG_OK;
}

static bg_status write_frequencies(pass *s, bg_store *to, bg_err *err)
{
    uint64_t n = bg_bm25_terms(s->p->terms);
    bg_status st = bg_store_write(to, "frequency", &n, s->frequency, err);
    for (uint64_t i = 0; i < n; i++)
        s->frequency[i] = 0;
    return st;
}

/* Queries of which no term counts; an error if that is all of them. */
static bg_status check_terms(const prefilter *p, bg_err *err)
{
    enum { MOST_NAMED = 10 };
    size_t without = 0;
    for (size_t q = 0; q < p->n_queries; q++) {
        if (bg_bm25_query_terms(p->terms, q) > 0)
            continue;
        if (without++ < MOST_NAMED)
            bg_log("warning: query \"%.100s\" has no term in the corpus%s: it has no candidates",
                   bg_tokens_query_id(p->in.queries, q), p->c->max_share < 1 ? " that --max-share leaves" : "");
    }
    if (without > MOST_NAMED)
        bg_log("warning: %zu queries in all have no term in the corpus", without);
    if (without == p->n_queries)
        return BG_FAIL(err, BG_EFORMAT, "%s: no query has a term in the corpus%s: there are no candidates",
                       p->c->queries, p->c->max_share < 1 ? " that --max-share leaves" : "");
    bg_log("%zu terms of %zu queries", bg_bm25_terms(p->terms), p->n_queries);
    if (bg_bm25_stopped(p->terms) > 0)
        bg_log("--max-share leaves out %zu of them", bg_bm25_stopped(p->terms));
    return BG_OK;
}

/* Without candidates the counts are of no use: other options are to find no work folder of this call. */
static void remove_counts(const prefilter *p)
{
    for (uint64_t i = 0; i < bg_units_count(&p->frequency); i++)
        bg_units_remove(&p->frequency, &(bg_segment){ i, BG_WHOLE_MODEL, 0, bg_units_size(&p->frequency, i) });
}

/* The counts of all units make the terms' weights.  Collective; an agreed status. */
static bg_status weigh(prefilter *p, bg_err *err)
{
    const bg_grid *g = &p->ctx->grid;
    size_t n = bg_bm25_terms(p->terms);
    int64_t *frequency = NULL;
    bg_status st = BG_NEW(frequency, n, "counts of terms", err);
    if (st == BG_OK && g->world_rank == 0)
        st = prefilter_add_frequencies(p, frequency, err);
    if ((st = bg_agree(g->world, st, err)) == BG_OK) {
        bg_broadcast(g->world, frequency, n * sizeof *frequency, 0);
        st = bg_bm25_weigh(p->terms, frequency, p->n_sequences, p->n_tokens, err);
        if (st == BG_OK)
            st = check_terms(p, err);
        if (st == BG_EFORMAT && g->world_rank == 0)
            remove_counts(p);
        st = bg_agree(g->world, st, err);
    }
    bg_free(frequency);
    return st;
}

bg_status prefilter_count(prefilter *p, bg_err *err)
{
    pass s = { .p = p,
               .what = "document frequencies",
               .units = &p->frequency,
               .add = count_sequence,
               .write = write_frequencies };
    bg_status st = run(&s, BG_NEW(s.frequency, bg_bm25_terms(p->terms), "counts of terms", err), err);
    bg_free(s.frequency);
    return st == BG_OK ? weigh(p, err) : st;
}

/* ---- the second pass ---- */

static bg_status rank_sequence(pass *s, uint64_t sequence, const uint32_t *token, size_t n, bg_err *err)
{
    bg_bm25_hit *hit = s->p->hit;
    size_t n_hits = bg_bm25_score(s->p->terms, token, n, hit);
    bg_status st = BG_OK;
    for (size_t i = 0; i < n_hits && st == BG_OK; i++)
        st = bg_topk_push(s->best[hit[i].query], (bg_hit){ hit[i].score, sequence }, err);
    return st;
}

static bg_status clear_best(pass *s, bg_err *err)
{
    bg_status st = BG_OK;
    for (size_t q = 0; q < s->p->n_queries && st == BG_OK; q++) {
        bg_topk_free(s->best[q]);
        st = bg_topk_new(&s->best[q], s->top, err);
    }
    return st;
}

static bg_status write_query(pass *s, bg_store *to, size_t query, int64_t *sequence, double *score, bg_err *err)
{
    const bg_hit *hit;
    size_t n = bg_topk_sorted(s->best[query], &hit);
    for (size_t i = 0; i < s->top; i++) {
        sequence[i] = i < n ? (int64_t)hit[i].id : -1;
        score[i] = i < n ? hit[i].score : 0;
    }
    bg_status st = bg_store_write_rows(to, "top/sequence", query, 1, sequence, err);
    return st == BG_OK ? bg_store_write_rows(to, "top/score", query, 1, score, err) : st;
}

static bg_status write_best(pass *s, bg_store *to, bg_err *err)
{
    const uint64_t dims[2] = { s->p->n_queries, s->top };
    int64_t *sequence = NULL;
    double *score = NULL;
    bg_status st = BG_NEW(sequence, s->top, "candidates", err);
    if (st == BG_OK)
        st = BG_NEW(score, s->top, "candidates", err);
    if (st == BG_OK)
        st = bg_store_dataset(to, "top/sequence", dims, err);
    if (st == BG_OK)
        st = bg_store_dataset(to, "top/score", dims, err);
    for (size_t q = 0; q < s->p->n_queries && st == BG_OK; q++)
        st = write_query(s, to, q, sequence, score, err);
    bg_free(sequence);
    bg_free(score);
    return st == BG_OK ? clear_best(s, err) : st;
}

bg_status prefilter_rank(prefilter *p, bg_err *err)
{
    uint64_t unit = p->best.unit_sequences < p->n_sequences ? p->best.unit_sequences : p->n_sequences;
    pass s = { .p = p, .what = "scores", .units = &p->best, .add = rank_sequence, .write = write_best };
    s.top = p->top < unit ? p->top : unit;
    bg_status st = BG_NEW(s.best, p->n_queries, "candidates", err);
    if (st == BG_OK)
        st = clear_best(&s, err);
    st = run(&s, st, err);
    for (size_t q = 0; q < p->n_queries && s.best != NULL; q++)
        bg_topk_free(s.best[q]);
    bg_free(s.best);
    return st;
}
