#include "costs.h"
#include "prefilter.h"

#define FIELD(name) offsetof(prefilter_config, name)

/* clang-format off */
static const bg_opt opts[] = {
    { .name = "--tokens", .type = BG_OPT_LIST, .offset = FIELD(tokens), .no_effect = true,
      .help = "token files; their order numbers the sequences" },
    { .name = "--queries", .type = BG_OPT_STR, .offset = FIELD(queries), .no_effect = true,
      .help = "queries.h5 of tokenize_queries" },
    { .name = "--output", .type = BG_OPT_STR, .offset = FIELD(output), .no_effect = true,
      .help = "candidates.h5 to write" },
    { .name = "--top", .type = BG_OPT_U64, .offset = FIELD(top), .deflt = BG_TEXT(PREFILTER_TOP), .lo = 1, .hi = 1e9,
      .help = "best sequences of each query, whose union are the candidates" },
    { .name = "--form", .type = BG_OPT_STR, .offset = FIELD(form), .deflt = "paper",
      .help = "paper (a term is there or not) or okapi (how often, in how long a sequence)" },
    { .name = "--k1", .type = BG_OPT_F64, .offset = FIELD(k1), .deflt = "1.5", .lo = 0, .hi = 1e6,
      .help = "at which number of occurrences a term saturates; no matter in the paper's form" },
    { .name = "--b", .type = BG_OPT_F64, .offset = FIELD(b), .deflt = "0.75", .lo = 0, .hi = 1,
      .help = "with --form okapi: how far long sequences are discounted" },
    { .name = "--terms", .type = BG_OPT_STR, .offset = FIELD(terms), .deflt = "both",
      .help = "of each query: both, prompt or completion" },
    { .name = "--ngrams", .type = BG_OPT_U64, .offset = FIELD(ngrams), .deflt = "1", .lo = 1, .hi = BG_BM25_NGRAMS,
      .help = "terms are all runs of 1 to so many tokens" },
    { .name = "--max-share", .type = BG_OPT_F64, .offset = FIELD(max_share), .deflt = "1", .lo = 0, .hi = 1,
      .help = "terms that more than this share of the sequences have are left out" },
    { .name = "--unit-sequences", .type = BG_OPT_U64, .offset = FIELD(unit_sequences), .deflt = BG_TEXT(PREFILTER_UNIT_SEQUENCES), .lo = 1, .hi = 1e9,
      .help = "sequences of a work unit, the checkpoint" },
    { 0 },
};
/* clang-format on */

static const bg_stage stage = {
    .name = "prefilter",
    .purpose = "Choose each query's best sequences by BM25 over token ids, for score_shards --candidates.",
    .opts = opts,
    .config_size = sizeof(prefilter_config),
    .example = "mpirun -n 4 prefilter --tokens tokens/pile-*.h5 --queries queries.h5 --output candidates.h5",
    .keeps_units = true,
    .run = prefilter_run,
};

int main(int argc, char **argv) { return bg_stage_main(&stage, argc, argv); }
