/* merge_scores.h - the stage without its main(), so that tests can link it, and what its parts share. */
#ifndef BG_STAGES_MERGE_SCORES_H
#define BG_STAGES_MERGE_SCORES_H

#include "bregman/extremes.h"
#include "bregman/inputs.h"
#include "bregman/ranking.h"
#include "bregman/stage.h"
#include "bregman/topk.h"

typedef struct {
    const char *scores, *output;
    uint64_t top;
    double tail;
} merge_scores_config;

bg_status merge_scores_run(const void *config, const bg_context *ctx, bg_err *err) BG_MUST_CHECK;

/* One call of the stage. */
typedef struct {
    const merge_scores_config *c;
    const bg_context *ctx;
    uint64_t n_shards;    /* found in the folder's file names */
    uint64_t n_sequences; /* over all shards */
    bg_inputs in;
    bg_ranking r;
    bg_extremes extremes;
    bg_topk **tail; /* [Q] */
    double *square; /* [Q] sum of squared distances from the running mean */
    char *common;   /* fingerprint of what the shards must share */
    uint64_t *rows; /* [n_shards] sequences of each, and the first of them */
    int64_t *first;
    int64_t last; /* the last sequence so far */
} merge;

/* shards.c: find the shards, check that all are there and belong together, take from the first what they share. */
bg_status merge_open_shards(merge *m, bg_err *err) BG_MUST_CHECK;
bg_status merge_shard_path(const merge *m, uint64_t i, char out[BG_PATH_BYTES], bg_err *err) BG_MUST_CHECK;

/* documents.c: where the ranked sequences come from, out of the shards' own lists. */
bg_status merge_find_documents(merge *m, bg_err *err) BG_MUST_CHECK;

#endif /* BG_STAGES_MERGE_SCORES_H */
