/* compare_scales.h - the stage without its main(), so that tests can link it, and what its parts share. */
#ifndef BG_STAGES_COMPARE_SCALES_H
#define BG_STAGES_COMPARE_SCALES_H

#include "bregman/bm25.h"
#include "bregman/inputs.h"
#include "bregman/options.h"
#include "bregman/ranking.h"
#include "bregman/stage.h"
#include "bregman/store.h"

typedef struct {
    bg_list rankings, names, tokens, models, losses;
    const char *queries, *output;
    uint64_t top, ngrams;
    bool no_layers;
} compare_scales_config;

bg_status compare_scales_run(const void *config, const bg_context *ctx, bg_err *err) BG_MUST_CHECK;

/* The first row of a piece of a shard, and its sequence. */
typedef struct {
    uint64_t row, sequence;
} row_mark;

/* One ranking and the shards that it was merged from. */
typedef struct {
    const char *path, *name;
    bg_ranking r;
    char (*shard)[BG_PATH_BYTES]; /* [r.n_inputs] */
    uint64_t *first;              /* [r.n_inputs + 1] rows before each shard */
    row_mark *mark;               /* [n_marks] of each piece of COMPARE_PIECE rows of a shard, ascending */
    size_t n_marks;
    size_t *query;     /* [Q] row in this ranking of each query */
    size_t n_layers;   /* 0: without layer scores */
    char **layer;      /* [n_layers] their names */
    double parameters; /* NaN: not known */
} ranked_model;

/* The documents that are related to one query in one way, and their sequences. */
typedef struct {
    size_t query;
    const char *relation; /* lent */
    size_t first, end;    /* of comparison.related.sequence */
} related_pair;

typedef struct {
    size_t n_pairs, n_rows;
    related_pair *pair;
    size_t *pair_of;             /* [n_rows] of each row of related/document */
    char **relation, **document; /* [n_rows] */
    uint64_t *sequence;          /* ascending within a pair, none twice */
} related_documents;

/* All results; see the schema's rows "comparison".  Each query's are computed by one rank, the others have zeros. */
typedef struct {
    double *loss, *mean, *sd, *top_percent;                                               /* [M, Q] */
    int64_t *count;                                                                       /* [M, Q] */
    int64_t *top_sequence, *top_run, *top_bm25_place;                                     /* [M, Q, k] */
    double *top_score, *top_overlap, *top_sparsity;                                       /* [M, Q, k] */
    double *tail;                                                                         /* [M, Q, n_tail] */
    double *spearman, *top_shared;                                                        /* [M, M, Q] */
    int64_t *pair_scored;                                                                 /* [M, pairs] */
    double *pair_mean, *pair_z, *pair_place, *pair_percentile, *pair_positive, *pair_top; /* [M, pairs] */
    double *layer_share;                                                                  /* [layers of all, Q] */
} compared_values;

typedef struct {
    const compare_scales_config *c;
    const bg_context *ctx;
    bg_inputs in;
    bg_tokens *tokens, *queries;
    ranked_model *model; /* [n_rankings] */
    size_t n_rankings;
    size_t n_models;                       /* with BM25, the last: M */
    size_t n_queries, k, n_tail, n_layers; /* layers of all models */
    int64_t *compared;                     /* [n_compared] sequences that all rankings have scores of, ascending */
    uint64_t n_compared;                   /* only these are compared; memory goes with them */
    uint64_t n_sequences, n_tokens;        /* of the corpus */
    char **kind;                           /* [Q], or NULL: not said */
    related_documents related;
    uint32_t **query_token; /* [Q] */
    size_t n_query_ids;     /* all their ids are below */
    bg_bm25 *terms;
    double *query_idf; /* [Q] that all n-grams of a query have */
    compared_values v;
} comparison;

/* inputs.c: open all that is read and check that it belongs together.  Collective; an agreed status. */
bg_status compare_open(comparison *w, bg_err *err) BG_MUST_CHECK;
void compare_close(comparison *w);

/* shards.c: the rankings' shards.  Local.  Find and open them, and check that they are those that were merged; then,
 * of all models, the sequences that are compared. */
bg_status compare_open_shards(const comparison *w, ranked_model *m, bg_err *err) BG_MUST_CHECK;
bg_status compare_find_compared(comparison *w, bg_err *err) BG_MUST_CHECK;
/* Where a sequence is among those that are compared; UINT64_MAX: it is not. */
uint64_t compare_place_of(const comparison *w, uint64_t sequence);
/* Open the shard that has a compared sequence's scores, in *row of it.  To be closed, whatever the status. */
bg_status compare_find_row(const ranked_model *m, uint64_t sequence, bg_store **shard, uint64_t *row,
                           bg_err *err) BG_MUST_CHECK;

/* related.c: the queries' kinds and related documents, and these documents' sequences.  Local. */
bg_status compare_read_related(comparison *w, bg_err *err) BG_MUST_CHECK;
void compare_clear_related(comparison *w);

/* lexical.c: weights of the queries' n-grams, by the whole corpus (collective; an agreed status).  Then, local: scores
 * of BM25, score [n, n_compared], of queries [first, first + n); and what one sequence has in common with one
 * query. */
bg_status compare_weigh_terms(comparison *w, bg_err *err) BG_MUST_CHECK;
bg_status compare_bm25(comparison *w, size_t first, size_t n, float *score, bg_err *err) BG_MUST_CHECK;
bg_status compare_text(comparison *w, size_t query, uint64_t sequence, double *overlap, int64_t *run,
                       bg_err *err) BG_MUST_CHECK;

/* scores.c: those of queries [first, first + n) of one model, score [n, n_compared].  Local. */
bg_status compare_read_scores(const comparison *w, const ranked_model *m, size_t first, size_t n, float *score,
                              bg_err *err) BG_MUST_CHECK;

typedef struct {
    float score;
    uint32_t sequence; /* its place among those that are compared */
} scored_sequence;

/* A query's scores by each model, in order.  Sequences stand for their places among those that are compared. */
typedef struct {
    size_t n_models;
    uint64_t n_sequences;    /* that are compared */
    const float **score;     /* [M] of [sequences] */
    size_t n;                /* that have a score: the same ones by all models */
    uint32_t **order;        /* [M] of [n]: sequences, best first, then by their numbers */
    double **place;          /* [M] of [sequences]: from 1, the mean one where scores are equal */
    scored_sequence *scored; /* [sequences] room */
} ordered_scores;

/* order.c.  Local; free with compare_free_order. */
bg_status compare_new_order(ordered_scores *o, size_t n_models, uint64_t n_sequences, bg_err *err) BG_MUST_CHECK;
void compare_free_order(ordered_scores *o);
/* Put one model's scores in order. */
void compare_order(ordered_scores *o, size_t model, const float *score);
/* Rank correlation of two models; NaN where one side is the same everywhere. */
double compare_spearman(const ordered_scores *o, size_t a, size_t b);

/* measures.c: all of one query that its scores give.  Local. */
void compare_measure(comparison *w, size_t query, const ordered_scores *o);

/* parts.c: shares of layers, and how sparse token scores are, of a query's best sequences by one model.  Local. */
bg_status compare_layers(comparison *w, size_t model, size_t query, bg_err *err) BG_MUST_CHECK;
bg_status compare_sparsity(comparison *w, size_t model, size_t query, bg_err *err) BG_MUST_CHECK;
size_t compare_first_layer(const comparison *w, size_t model); /* of layer_share */

/* values.c: the arrays of the results, by their datasets.  Local; add up: collective. */
bg_status compare_new_values(comparison *w, bg_err *err) BG_MUST_CHECK;
void compare_add_up(comparison *w);
bg_status compare_publish(comparison *w, bg_err *err) BG_MUST_CHECK;
void compare_free_values(comparison *w);

#endif /* BG_STAGES_COMPARE_SCALES_H */
