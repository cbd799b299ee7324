/* prefilter.h - the stage without its main(), so that tests can link it, and what its parts share. */
#ifndef BG_STAGES_PREFILTER_H
#define BG_STAGES_PREFILTER_H

#include "bregman/bm25.h"
#include "bregman/inputs.h"
#include "bregman/options.h"
#include "bregman/stage.h"
#include "bregman/units.h"

typedef struct {
    bg_list tokens;
    const char *queries, *output, *form, *terms;
    uint64_t top, ngrams, unit_sequences;
    double k1, b, max_share;
} prefilter_config;

bg_status prefilter_run(const void *config, const bg_context *ctx, bg_err *err) BG_MUST_CHECK;

/* What is read. */
typedef struct {
    bg_tokens *corpus, *queries;
    bg_inputs files;
} prefilter_inputs;

/* One call of the stage. */
typedef struct {
    const prefilter_config *c;
    const bg_context *ctx;
    prefilter_inputs in;
    uint64_t n_sequences, n_tokens; /* of the corpus */
    size_t n_queries;
    size_t top; /* sequences kept of each query: --top, or all */
    char work[BG_PATH_BYTES];
    bg_bm25_form form;
    bg_bm25 *terms;
    bg_units frequency, best; /* work files of the two passes */
    uint32_t *block;          /* [block_tokens] of the corpus */
    uint64_t block_tokens;
    bg_bm25_hit *hit; /* [n_queries] */
} prefilter;

/* inputs.c: open all that is read and check that it belongs together.  Collective; an agreed status.  Then hash it, on
 * rank 0 (local). */
bg_status prefilter_open(prefilter *p, bg_err *err) BG_MUST_CHECK;
bg_status prefilter_hash(prefilter *p, bg_err *err) BG_MUST_CHECK;

/* passes.c: the two sweeps over the corpus, which leave all units in their files; between them the terms get their
 * weights.  Collective; an agreed status. */
bg_status prefilter_count(prefilter *p, bg_err *err) BG_MUST_CHECK;
bg_status prefilter_rank(prefilter *p, bg_err *err) BG_MUST_CHECK;

/* assemble.c: add up the first pass's units (local, on rank 0): frequency [terms, out];
 * make candidates.h5 of the second's (local, on rank 0). */
bg_status prefilter_add_frequencies(const prefilter *p, int64_t *frequency, bg_err *err) BG_MUST_CHECK;
bg_status prefilter_publish(prefilter *p, bg_err *err) BG_MUST_CHECK;

#endif /* BG_STAGES_PREFILTER_H */
