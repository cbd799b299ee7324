#include "bregman/score_sums.h"

#include <limits.h>

#include "bregman/memory.h"
#include "bregman/room.h"

struct bg_score_sums {
    bg_score_task task;
    size_t *n_of;       /* [n_shares] bytes of a unit's results from each */
    size_t n_queries;   /* columns: Q, and one more for norms */
    size_t n_layers;    /* of the model; of the share if this is not the first rank */
    size_t first_layer; /* of the share's, among the model's */
    bool tokens;
    size_t places;                 /* in a layer of the unit in hand: its sequences or, of tokens, its rows */
    bg_room room;                  /* double [n_layers, sequences, Q], or float [n_layers, rows, Q] */
    size_t first, batch_sequences; /* the batch's first sequence in the unit, and its sequences */
    size_t row0, batch_rows;       /* and its rows */
};

static bool is_of_tokens(const bg_score_task *t) { return t->detail >= BG_SCORE_TOKENS; }
static size_t columns(const bg_score_task *t, size_t n_queries) { return n_queries + t->gradient_norms; }

/* Bytes of a layer's results. */
static size_t layer_bytes(const bg_score_task *t, size_t n_columns, size_t sequences, size_t rows)
{
    return n_columns * (is_of_tokens(t) ? rows * sizeof(float) : sequences * sizeof(double));
}

/* Predicted tokens' parts are kept as those of one more layer, the last rank's last. */
static size_t layers_of(const bg_score_task *t, int rank)
{
    return bg_share_layers(t->model, &t->share[rank]) + (t->detail == BG_SCORE_OUTPUTS && rank == t->n_shares - 1);
}

/* The first rank gathers those of all. */
static size_t kept_layers(const bg_score_task *t)
{
    return t->rank == 0 ? bg_model_layers(t->model) + (t->detail == BG_SCORE_OUTPUTS) : layers_of(t, t->rank);
}

size_t bg_score_sums_bytes(const bg_score_task *t, size_t n_queries)
{
    return kept_layers(t) * layer_bytes(t, columns(t, n_queries), t->unit_sequences, t->unit_rows);
}

size_t bg_score_sums_gather_bytes(const bg_score_task *t, size_t n_queries)
{
    return layers_of(t, t->rank) * layer_bytes(t, columns(t, n_queries), t->unit_sequences, t->unit_rows);
}

bg_status bg_score_sums_new(bg_score_sums **out, const bg_score_task *task, size_t n_queries, const char *scratch,
                            bg_err *err)
{
    bg_score_sums *s = NULL;
    *out = NULL;
    bg_status st = BG_NEW(s, 1, "scores of a unit", err);
    if (st != BG_OK)
        return st;
    s->task = *task;
    s->n_queries = columns(task, n_queries);
    s->n_layers = kept_layers(task);
    for (int r = 0; r < task->rank; r++)
        s->first_layer += layers_of(task, r);
    st = BG_NEW(s->n_of, (size_t)task->n_shares, "scores of a unit", err);
    if (st == BG_OK && task->rank > 0 && bg_score_sums_gather_bytes(task, n_queries) / sizeof(float) > INT_MAX)
        st =
            BG_FAIL(err, BG_EARG,
                    "scores of %zu sequences, %zu queries and %zu layers are more than MPI sends at once: give smaller "
                    "--unit-sequences",
                    task->unit_sequences, n_queries, s->n_layers);
    if (st == BG_OK)
        st = bg_room_new(&s->room, bg_score_sums_bytes(task, n_queries), scratch, "scores of a unit", err);
    if (st != BG_OK) {
        bg_score_sums_free(s);
        return st;
    }
    s->tokens = is_of_tokens(task);
    *out = s;
    return BG_OK;
}

void bg_score_sums_free(bg_score_sums *s)
{
    if (s == NULL)
        return;
    bg_room_free(&s->room);
    bg_free(s->n_of);
    bg_free(s);
}

void bg_score_sums_begin_unit(bg_score_sums *s, size_t n_sequences, size_t n_rows, size_t row0)
{
    s->places = s->tokens ? n_rows : n_sequences;
    s->row0 = row0;
    s->batch_rows = s->batch_sequences = 0;
    bg_room_clear(&s->room);
}

void bg_score_sums_begin_batch(bg_score_sums *s, const bg_batch *batch, uint64_t first)
{
    s->first = first;
    s->row0 += s->batch_rows;
    s->batch_rows = batch->n_rows;
    s->batch_sequences = batch->n_sequences;
}

static double *of_sequence(const bg_score_sums *s, size_t layer, size_t sequence)
{
    return (double *)(void *)s->room.x + (layer * s->places + sequence) * s->n_queries;
}

static float *of_row(const bg_score_sums *s, size_t layer, size_t row)
{
    return s->room.x + (layer * s->places + row) * s->n_queries;
}

/* The sums of a layer and n sequences are not needed for a while. */
static void let_go(const bg_score_sums *s, size_t layer, size_t sequence, size_t n)
{
    const float *from = (const float *)(const void *)of_sequence(s, layer, sequence);
    bg_room_let_go(&s->room, from, n * s->n_queries * (sizeof(double) / sizeof(float)));
}

static void add_tokens(bg_score_sums *s, size_t layer, const bg_pair *pair, bg_dots d)
{
    for (size_t i = 0; i < d.n; i++) {
        float *to = of_row(s, layer, s->row0 + bg_pair_row(pair, d.row + i)) + d.query;
        for (size_t q = 0; q < d.n_queries; q++)
            to[q] += d.dot[i * d.n_queries + q];
    }
    bg_room_let_go(&s->room, of_row(s, layer, s->row0), s->batch_rows * s->n_queries);
}

static void add_sequences(bg_score_sums *s, size_t layer, const bg_pair *pair, bg_dots d)
{
    for (size_t i = 0, z = 0; i < d.n; i++) {
        while (pair->row_start[z + 1] <= d.row + i)
            z++;
        double *to = of_sequence(s, layer, s->first + bg_pair_sequence(pair, z)) + d.query;
        for (size_t q = 0; q < d.n_queries; q++)
            to[q] += (double)d.dot[i * d.n_queries + q];
    }
    let_go(s, layer, s->first, s->batch_sequences);
}

void bg_score_sums_add(bg_score_sums *s, const bg_pair *pair, bg_dots d)
{
    size_t layer = pair->site->layer - s->first_layer;
    if (s->tokens)
        add_tokens(s, layer, pair, d);
    else
        add_sequences(s, layer, pair, d);
}

void bg_score_sums_outputs(bg_score_sums *s, size_t query, const float *loss)
{
    size_t last = s->n_layers - 1;
    for (size_t i = 0; i < s->batch_rows; i++)
        of_row(s, last, s->row0 + i)[query] = loss[i];
    bg_room_let_go(&s->room, of_row(s, last, s->row0), s->batch_rows * s->n_queries);
}

bg_status bg_score_sums_gather(bg_score_sums *s, bg_pipeline *l, bg_err *err)
{
    char *own = (char *)s->room.x;
    size_t bytes = layer_bytes(&s->task, s->n_queries, s->places, s->places);
    for (int r = 0; r < s->task.n_shares; r++)
        s->n_of[r] = layers_of(&s->task, r) * bytes;
    return bg_pipeline_gather(l, own, s->n_of[s->task.rank], own + s->n_of[0], s->n_of, err);
}

void bg_score_sums_scores(const bg_score_sums *s, size_t sequence, float *out)
{
    for (size_t q = 0; q < s->n_queries; q++) {
        double sum = 0;
        for (size_t l = 0; l < s->n_layers; l++)
            sum += of_sequence(s, l, sequence)[q];
        out[q] = (float)sum;
    }
    for (size_t l = 0; l < s->n_layers; l++)
        let_go(s, l, sequence, 1);
}

void bg_score_sums_layers(const bg_score_sums *s, size_t sequence, float *out)
{
    for (size_t l = 0; l < s->n_layers; l++) {
        for (size_t q = 0; q < s->n_queries; q++)
            out[q * s->n_layers + l] = (float)of_sequence(s, l, sequence)[q];
        let_go(s, l, sequence, 1);
    }
}

void bg_score_sums_tokens(const bg_score_sums *s, size_t row, size_t query, float *out)
{
    for (size_t l = 0; l < bg_model_layers(s->task.model); l++)
        out[l] = of_row(s, l, row)[query];
}

float bg_score_sums_output(const bg_score_sums *s, size_t row, size_t query)
{
    return of_row(s, s->n_layers - 1, row)[query];
}
