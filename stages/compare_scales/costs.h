/* costs.h - what compare_scales holds, reads and writes: for itself and for plan. */
#ifndef BG_STAGES_COMPARE_SCALES_COSTS_H
#define BG_STAGES_COMPARE_SCALES_COSTS_H

#include "bregman/workload.h"

/* Unless options say otherwise. */
#define COMPARE_TOP    10
#define COMPARE_NGRAMS 3

enum {
    COMPARE_PIECE = 1 << 13,        /* rows of numbers or texts, read at a time */
    COMPARE_BLOCK_TOKENS = 1 << 18, /* of the corpus, read at a time, and the longest sequence */
};

/* Ranks share the queries; each is of one thread. */
extern const bg_stage_costs compare_costs;

/* Rows of a shard that are read at a time, each with scores of so many queries. */
uint64_t compare_rows(size_t queries);
/* Queries whose scores by all models are in memory at a time, of a rank's own: of so many models, BM25 with them, and
 * sequences. */
uint64_t compare_block(uint64_t own, size_t models, uint64_t sequences);
/* Scores of a model and query that are written as its tail, of a corpus of so many sequences. */
uint64_t compare_tail(uint64_t corpus_sequences);

#endif /* BG_STAGES_COMPARE_SCALES_COSTS_H */
