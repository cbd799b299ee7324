#include "compare_scales.h"
#include "costs.h"

#define FIELD(name) offsetof(compare_scales_config, name)

/* clang-format off */
static const bg_opt opts[] = {
    { .name = "--rankings", .type = BG_OPT_LIST, .offset = FIELD(rankings), .no_effect = true,
      .help = "ranking.h5 of each model, of one corpus and one set of queries; their shards must be there still" },
    { .name = "--names", .type = BG_OPT_LIST, .offset = FIELD(names),
      .help = "of each ranking, SIZE[@STEP][:METHOD]: a model, a checkpoint of it, another method than the first" },
    { .name = "--tokens", .type = BG_OPT_LIST, .offset = FIELD(tokens), .no_effect = true,
      .help = "token files that the scores were made from, in their order" },
    { .name = "--queries", .type = BG_OPT_STR, .offset = FIELD(queries), .no_effect = true,
      .help = "queries.h5 of tokenize_queries, with their kinds and related documents where these are known" },
    { .name = "--models", .type = BG_OPT_LIST, .offset = FIELD(models), .deflt = "", .no_effect = true,
      .help = "folder of each ranking's model, whose config.json says how many parameters it has" },
    { .name = "--losses", .type = BG_OPT_LIST, .offset = FIELD(losses), .deflt = "", .no_effect = true,
      .help = "of each ranking, a bank.h5 of train_models with the model's own losses of the queries" },
    { .name = "--output", .type = BG_OPT_STR, .offset = FIELD(output), .no_effect = true,
      .help = "compare.h5 to write" },
    { .name = "--top", .type = BG_OPT_U64, .offset = FIELD(top), .deflt = BG_TEXT(COMPARE_TOP), .lo = 1, .hi = 10000,
      .help = "sequences of each query that are looked at one by one" },
    { .name = "--ngrams", .type = BG_OPT_U64, .offset = FIELD(ngrams), .deflt = BG_TEXT(COMPARE_NGRAMS), .lo = 1, .hi = BG_BM25_NGRAMS,
      .help = "of overlap and BM25: runs of 1 to so many tokens" },
    { .name = "--no-layers", .type = BG_OPT_FLAG, .offset = FIELD(no_layers),
      .help = "leave out the shares of layers, for shards without layer scores" },
    { 0 },
};
/* clang-format on */

static const bg_stage stage = {
    .name = "compare_scales",
    .purpose = "Compare the rankings of several models: what kind of sequence moves each of them.",
    .opts = opts,
    .config_size = sizeof(compare_scales_config),
    .only_reads = true,
    .example = "mpirun -n 4 compare_scales --rankings small/ranking.h5 large/ranking.h5 --names small large "
               "--tokens tokens/*.h5 --queries queries.h5 --output compare.h5",
    .run = compare_scales_run,
};

int main(int argc, char **argv) { return bg_stage_main(&stage, argc, argv); }
