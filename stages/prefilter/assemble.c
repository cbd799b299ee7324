/* assemble.c - what the units hold, put together. */
#include <inttypes.h>

#include "bregman/log.h"
#include "bregman/memory.h"
#include "bregman/origin.h"
#include "bregman/stop.h"
#include "bregman/topk.h"
#include "prefilter.h"

/* ---- the units ---- */

/* Call `take` with each unit's file, in order. */
static bg_status each_unit(const bg_units *units, bg_status (*take)(void *self, const bg_store *unit, bg_err *err),
                           void *self, bg_err *err)
{
    bg_units_reader *reader = NULL;
    bg_status st = bg_units_reader_new(&reader, units, err);
    if (st == BG_OK)
        st = bg_units_choose(reader, BG_WHOLE_MODEL, err);
    for (size_t i = 0; st == BG_OK && i < bg_units_runs(reader); i++) {
        bg_rows unit;
        st = bg_stop_check("assembling", err);
        if (st == BG_OK)
            st = bg_units_read(reader, i, &unit, err);
        if (st == BG_OK)
            st = take(self, unit.file, err);
    }
    bg_units_reader_free(reader);
    return st;
}

typedef struct {
    uint64_t n; /* terms */
    int64_t *sum, *unit;
} frequencies;

static bg_status add_unit(void *self, const bg_store *unit, bg_err *err)
{
    frequencies *f = self;
    bg_status st = bg_store_read(unit, "frequency", BG_I64, &f->n, f->unit, err);
    for (uint64_t i = 0; i < f->n && st == BG_OK; i++)
        f->sum[i] += f->unit[i];
    return st;
}

bg_status prefilter_add_frequencies(const prefilter *p, int64_t *frequency, bg_err *err)
{
    frequencies f = { .n = bg_bm25_terms(p->terms), .sum = frequency };
    bg_status st = BG_NEW(f.unit, f.n, "counts of terms", err);
    if (st == BG_OK)
        st = each_unit(&p->frequency, add_unit, &f, err);
    bg_free(f.unit);
    return st;
}

/* ---- the best of all units ---- */

typedef struct {
    const prefilter *p;
    bg_topk **best;  /* [n_queries] */
    size_t k;        /* of all units, room for below */
    int64_t *number; /* [k] */
    double *score;
    uint64_t *listed; /* [n_sequences] bits: the union */
} assembly;

static bg_status merge_query(assembly *a, const bg_store *unit, size_t query, uint64_t k, bg_err *err)
{
    const bg_slab row = { query, 1, k };
    bg_status st = bg_store_read_rows(unit, "top/sequence", BG_I64, row, a->number, err);
    if (st == BG_OK)
        st = bg_store_read_rows(unit, "top/score", BG_F64, row, a->score, err);
    for (uint64_t i = 0; i < k && st == BG_OK && a->number[i] >= 0; i++)
        st = bg_topk_push(a->best[query], (bg_hit){ a->score[i], (uint64_t)a->number[i] }, err);
    return st;
}

static bg_status merge_unit(void *self, const bg_store *unit, bg_err *err)
{
    assembly *a = self;
    uint64_t dims[2] = { 0, 0 };
    bg_status st = bg_store_dims(unit, "top/sequence", 2, dims, err);
    if (st == BG_OK && (dims[0] != a->p->n_queries || dims[1] > a->k))
        st = BG_FAIL(err, BG_ESHAPE, "%s lists %" PRIu64 " sequences of %" PRIu64 " queries: remove it and run again",
                     bg_store_path(unit), dims[1], dims[0]);
    for (size_t q = 0; q < a->p->n_queries && st == BG_OK; q++)
        st = merge_query(a, unit, q, dims[1], err);
    return st;
}

static bg_status open_assembly(assembly *a, bg_err *err)
{
    const prefilter *p = a->p;
    bg_status st = BG_NEW(a->best, p->n_queries, "candidates", err);
    for (size_t q = 0; q < p->n_queries && st == BG_OK; q++)
        st = bg_topk_new(&a->best[q], p->top, err);
    if (st == BG_OK)
        st = BG_NEW(a->number, a->k, "candidates", err);
    if (st == BG_OK)
        st = BG_NEW(a->score, a->k, "candidates", err);
    return st == BG_OK ? BG_NEW(a->listed, p->n_sequences / 64 + 1, "candidates", err) : st;
}

static void close_assembly(assembly *a)
{
    for (size_t q = 0; q < a->p->n_queries && a->best != NULL; q++)
        bg_topk_free(a->best[q]);
    bg_free(a->best);
    bg_free(a->number);
    bg_free(a->score);
    bg_free(a->listed);
}

/* ---- the file ---- */

static bg_status write_lists(assembly *a, bg_store *s, bg_err *err)
{
    const uint64_t dims[2] = { a->p->n_queries, a->k };
    bg_status st = bg_store_dataset(s, "top/sequence", dims, err);
    if (st == BG_OK)
        st = bg_store_dataset(s, "top/score", dims, err);
    for (size_t q = 0; q < a->p->n_queries && st == BG_OK; q++) {
        const bg_hit *hit;
        size_t n = bg_topk_sorted(a->best[q], &hit);
        for (size_t i = 0; i < a->k; i++) {
            a->number[i] = i < n ? (int64_t)hit[i].id : -1;
            a->score[i] = i < n ? hit[i].score : 0;
            if (i < n)
                a->listed[hit[i].id / 64] |= UINT64_C(1) << hit[i].id % 64;
        }
        st = bg_store_write_rows(s, "top/sequence", q, 1, a->number, err);
        if (st == BG_OK)
            st = bg_store_write_rows(s, "top/score", q, 1, a->score, err);
    }
    return st;
}

/* The union, ascending; of all sequences, where each is asked for. */
static bg_status write_union(const assembly *a, bg_store *s, uint64_t *n, bg_err *err)
{
    const uint64_t corpus = a->p->n_sequences;
    const bool all = a->p->c->top >= corpus;
    int64_t *number = NULL;
    bg_status st = BG_NEW(number, corpus, "candidates", err);
    *n = 0;
    for (uint64_t z = 0; z < corpus && st == BG_OK; z++)
        if (all || (a->listed[z / 64] >> z % 64 & 1) != 0)
            number[(*n)++] = (int64_t)z;
    if (st == BG_OK)
        st = bg_store_write(s, "sequence", n, number, err);
    bg_free(number);
    return st;
}

static bg_status write_names(const prefilter *p, bg_store *s, bg_err *err)
{
    const uint64_t n = p->n_queries;
    const char **name = NULL;
    bg_status st = BG_NEW(name, n, "names of queries", err);
    for (uint64_t q = 0; q < n && st == BG_OK; q++)
        name[q] = bg_tokens_query_id(p->in.queries, q);
    if (st == BG_OK)
        st = bg_store_write(s, "query", &n, name, err);
    bg_free(name);
    return st;
}

/* How they were chosen, and among what. */
static bg_status write_attributes(const prefilter *p, bg_store *s, bg_err *err)
{
    const struct {
        const char *name;
        double value;
    } number[] = { { "k1", p->c->k1 }, { "b", p->c->b }, { "max_share", p->c->max_share } };
    bg_status st = bg_store_attr_text(s, "/", "form", p->c->form, err);
    if (st == BG_OK)
        st = bg_store_attr_text(s, "/", "terms", p->c->terms, err);
    if (st == BG_OK)
        st = bg_store_attr_u64(s, "/", "ngrams", p->c->ngrams, err);
    for (size_t i = 0; i < sizeof number / sizeof *number && st == BG_OK; i++)
        st = bg_store_attr_f64(s, "/", number[i].name, number[i].value, err);
    return st == BG_OK ? bg_store_attr_u64(s, "/", "corpus_sequences", p->n_sequences, err) : st;
}

static bg_status write_origin(prefilter *p, bg_store *s, bg_err *err)
{
    bg_origin origin = { 0 };
    const bg_hash *queries = NULL;
    bg_status st = bg_tokens_hashes(p->in.queries, &queries, err);
    if (st == BG_OK)
        st = bg_origin_set_tokens(&origin, p->in.corpus, err);
    if (st == BG_OK)
        st = bg_origin_write_tokens(&origin, s, err);
    if (st == BG_OK)
        st = bg_store_attr_text(s, "/", "queries_hash", queries->hex, err);
    bg_origin_clear(&origin);
    return st == BG_OK ? write_attributes(p, s, err) : st;
}

static bg_status write_file(assembly *a, bg_store *s, uint64_t *n, bg_err *err)
{
    bg_status st = write_names(a->p, s, err);
    if (st == BG_OK)
        st = write_lists(a, s, err);
    return st == BG_OK ? write_union(a, s, n, err) : st;
}

bg_status prefilter_publish(prefilter *p, bg_err *err)
{
    assembly a = { .p = p, .k = p->top };
    bg_store *s = NULL;
    uint64_t n = 0;
    bg_status st = open_assembly(&a, err);
    if (st == BG_OK)
        st = each_unit(&p->best, merge_unit, &a, err);
    if (st == BG_OK)
        st = bg_store_create(&s, p->c->output, "bregman/candidates", &p->in.files.run, err);
    if (st == BG_OK)
        st = write_file(&a, s, &n, err);
    if (st == BG_OK)
        st = write_origin(p, s, err);
    st = bg_store_end_once(s, st, err);
    if (st == BG_OK)
        bg_log("wrote %s: %" PRIu64 " of %" PRIu64 " sequences (%.3g %%)", p->c->output, n, p->n_sequences,
               100.0 * (double)n / (double)p->n_sequences);
    close_assembly(&a);
    return st;
}
