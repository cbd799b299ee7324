/* shards.c - the rankings' shards: which sequences they have scores of, and where each one's are. */
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "bregman/identity.h"
#include "bregman/log.h"
#include "bregman/memory.h"
#include "compare_scales.h"
#include "costs.h"

/* ---- opening ---- */

/* In "scores" beside the ranking, as sweeps have it, also where the folder was moved; or else where the ranking says. */
static bg_status find_shard(const ranked_model *m, size_t i, bg_err *err)
{
    char folder[BG_PATH_BYTES];
    const char *said = m->r.input_name[i];
    bg_status st = bg_folder_of(m->path, folder, err);
    if (st == BG_OK)
        st = bg_path(m->shard[i], err, "%sscores/%s", folder, bg_base_name(said));
    if (st != BG_OK || access(m->shard[i], R_OK) == 0)
        return st;
    if (access(said, R_OK) != 0)
        return BG_FAIL(err, BG_EIO,
                       "%.150s was merged from \"%.150s\", which is gone, nor is it in \"scores\" beside the "
                       "ranking: a comparison needs all scores; score again",
                       m->path, said);
    return bg_path(m->shard[i], err, "%s", said);
}

static bg_status check_layers(const comparison *w, ranked_model *m, size_t i, const bg_store *s, bg_err *err)
{
    uint64_t dims[3];
    if (w->c->no_layers)
        return BG_OK;
    if (!bg_store_has(s, "layer_score"))
        return BG_FAIL(err, BG_EFORMAT,
                       "%s has no layer scores: score again with --layer-scores, or compare with --no-layers",
                       m->shard[i]);
    bg_status st = bg_store_dims(s, "layer_score", 3, dims, err);
    if (st == BG_OK && i == 0)
        st = bg_store_read_strings(s, "layer_name", &m->layer, &m->n_layers, err);
    if (st == BG_OK && dims[2] != m->n_layers)
        st = BG_FAIL(err, BG_ESHAPE, "%s has scores of %" PRIu64 " layers, shard 0 names of %zu", m->shard[i], dims[2],
                     m->n_layers);
    return st;
}

/* Is it the shard that was merged, and how many rows has it? */
static bg_status open_shard(const comparison *w, ranked_model *m, size_t i, bg_err *err)
{
    bg_hash identity;
    uint64_t dims[2] = { 0, 0 };
    bg_store *s = NULL;
    bg_status st = bg_store_open(&s, m->shard[i], "bregman/scores", err);
    if (st == BG_OK)
        st = bg_store_identity(s, &identity, err);
    if (st == BG_OK && strcmp(identity.hex, m->r.input_hash[i]) != 0)
        st = BG_FAIL(err, BG_ESTALE, "%.200s is not the shard that %.200s was merged from: merge again", m->shard[i],
                     m->path);
    if (st == BG_OK)
        st = bg_store_dims(s, "score", 2, dims, err);
    if (st == BG_OK && dims[1] != m->r.n_queries)
        st = BG_FAIL(err, BG_ESHAPE, "%s has scores of %" PRIu64 " queries, its ranking has %zu", m->shard[i], dims[1],
                     m->r.n_queries);
    if (st == BG_OK)
        st = check_layers(w, m, i, s, err);
    m->first[i + 1] = m->first[i] + dims[0];
    bg_store_close(s);
    return st;
}

bg_status compare_open_shards(const comparison *w, ranked_model *m, bg_err *err)
{
    bg_status st = BG_NEW(m->shard, m->r.n_inputs, "names of shards", err);
    if (st == BG_OK)
        st = BG_NEW(m->first, m->r.n_inputs + 1, "rows of shards", err);
    for (size_t i = 0; i < m->r.n_inputs && st == BG_OK; i++) {
        st = find_shard(m, i, err);
        if (st == BG_OK)
            st = open_shard(w, m, i, err);
    }
    return st;
}

static uint64_t rows_of(const ranked_model *m) { return m->first[m->r.n_inputs]; }

/* ---- which sequences are compared ---- */

/* Of one model's sequences, in their order, those that the models before it have too stay in w->compared. */
typedef struct {
    comparison *w;
    ranked_model *m;
    bool is_first; /* no model was before it */
    int64_t last;  /* sequence so far */
    uint64_t at, kept;
} selection;

static void select_sequence(selection *x, int64_t sequence)
{
    int64_t *compared = x->w->compared;
    while (!x->is_first && x->at < x->w->n_compared && compared[x->at] < sequence)
        x->at++;
    if (x->is_first || (x->at < x->w->n_compared && compared[x->at] == sequence))
        compared[x->kept++] = sequence;
}

static bg_status select_shard(selection *x, size_t shard, int64_t *piece, bg_err *err)
{
    ranked_model *m = x->m;
    uint64_t begin = m->first[shard], end = m->first[shard + 1];
    bg_store *s = NULL;
    bg_status st = bg_store_open(&s, m->shard[shard], "bregman/scores", err);
    for (uint64_t at = begin, n; at < end && st == BG_OK; at += n) {
        n = end - at < COMPARE_PIECE ? end - at : COMPARE_PIECE;
        st = bg_store_read_rows(s, "sequence", BG_I64, (bg_slab){ at - begin, n, 1 }, piece, err);
        for (uint64_t i = 0; i < n && st == BG_OK; x->last = piece[i++]) {
            if (piece[i] <= x->last || (uint64_t)piece[i] >= x->w->n_sequences)
                st = BG_FAIL(err, BG_EFORMAT, "the shards of %s do not name sequences of the corpus in ascending order",
                             m->path);
            else
                select_sequence(x, piece[i]);
        }
        m->mark[m->n_marks++] = (row_mark){ at, (uint64_t)piece[0] };
    }
    bg_store_close(s);
    return st;
}

static bg_status select_model(comparison *w, ranked_model *m, bool is_first, int64_t *piece, bg_err *err)
{
    selection x = { .w = w, .m = m, .is_first = is_first, .last = -1 };
    bg_status st = BG_NEW(m->mark, rows_of(m) / COMPARE_PIECE + m->r.n_inputs, "places of rows", err);
    for (size_t i = 0; i < m->r.n_inputs && st == BG_OK; i++)
        st = select_shard(&x, i, piece, err);
    w->n_compared = x.kept;
    return st;
}

/* No more room than they need. */
static bg_status keep_compared(comparison *w, bg_err *err)
{
    int64_t *all = w->compared;
    bg_status st = BG_NEW(w->compared, w->n_compared, "sequences", err);
    if (st == BG_OK)
        memcpy(w->compared, all, w->n_compared * sizeof *all);
    bg_free(all);
    return st;
}

bg_status compare_find_compared(comparison *w, bg_err *err)
{
    size_t fewest = 0;
    int64_t *piece = NULL;
    for (size_t i = 1; i < w->n_rankings; i++)
        fewest = rows_of(&w->model[i]) < rows_of(&w->model[fewest]) ? i : fewest;
    bg_status st = BG_NEW(w->compared, rows_of(&w->model[fewest]), "sequences", err);
    if (st == BG_OK)
        st = BG_NEW(piece, COMPARE_PIECE, "numbers of sequences", err);
    for (size_t i = 0; i < w->n_rankings && st == BG_OK; i++)
        st = select_model(w, &w->model[(fewest + i) % w->n_rankings], i == 0, piece, err);
    bg_free(piece);
    if (st == BG_OK && w->n_compared == 0)
        st = BG_FAIL(err, BG_EFORMAT, "no sequence has scores in all rankings: they are of different candidates");
    if (st == BG_OK && w->n_compared < w->n_sequences)
        bg_log("%" PRIu64 " of %" PRIu64 " sequences have scores in all rankings: only these are compared",
               w->n_compared, w->n_sequences);
    return st == BG_OK ? keep_compared(w, err) : st;
}

/* ---- where a sequence is ---- */

uint64_t compare_place_of(const comparison *w, uint64_t sequence)
{
    uint64_t low = 0, high = w->n_compared;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if ((uint64_t)w->compared[middle] < sequence)
            low = middle + 1;
        else
            high = middle;
    }
    return low < w->n_compared && (uint64_t)w->compared[low] == sequence ? low : UINT64_MAX;
}

/* The row of the last piece that begins with the sequence or before it. */
static uint64_t piece_of(const ranked_model *m, uint64_t sequence)
{
    size_t low = 0, high = m->n_marks;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        *(m->mark[middle].sequence <= sequence ? &low : &high) = middle;
    }
    return m->mark[low].row;
}

bg_status compare_find_row(const ranked_model *m, uint64_t sequence, bg_store **shard, uint64_t *row, bg_err *err)
{
    uint64_t begin = piece_of(m, sequence);
    size_t i = 0;
    int64_t *piece = NULL;
    *shard = NULL;
    while (m->first[i + 1] <= begin)
        i++;
    uint64_t left = m->first[i + 1] - begin, n = left < COMPARE_PIECE ? left : COMPARE_PIECE, at = 0;
    bg_status st = bg_store_open(shard, m->shard[i], "bregman/scores", err);
    if (st == BG_OK)
        st = BG_NEW(piece, n, "numbers of sequences", err);
    if (st == BG_OK)
        st = bg_store_read_rows(*shard, "sequence", BG_I64, (bg_slab){ begin - m->first[i], n, 1 }, piece, err);
    while (st == BG_OK && at < n && (uint64_t)piece[at] != sequence)
        at++;
    if (st == BG_OK && at == n)
        st = BG_FAIL(err, BG_ESTALE, "%s has no scores of sequence %" PRIu64 " any more: it was changed meanwhile",
                     m->shard[i], sequence);
    *row = begin - m->first[i] + at;
    bg_free(piece);
    return st;
}
