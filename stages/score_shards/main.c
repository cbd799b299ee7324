#include "costs.h"
#include "score_shards.h"
#include "scoring.h"

#define FIELD(name) offsetof(score_shards_config, name)

/* clang-format off */
static const bg_opt opts[] = {
    { .name = "--model", .type = BG_OPT_STR, .offset = FIELD(model), .no_effect = true,
      .help = "Hugging Face directory" },
    { .name = "--queries", .type = BG_OPT_STR, .offset = FIELD(queries), .no_effect = true,
      .help = "compressed.h5 of compress_queries" },
    { .name = "--tokens", .type = BG_OPT_LIST, .offset = FIELD(tokens), .no_effect = true,
      .help = "token files; their order numbers the sequences" },
    { .name = "--output", .type = BG_OPT_STR, .offset = FIELD(output), .no_effect = true,
      .help = "folder of the score files" },
    { .name = "--shard", .type = BG_OPT_STR, .offset = FIELD(shard), .deflt = "0/1", .no_effect = true,
      .help = "I/N: score the I-th of N equal runs of the sequences, from 0" },
    { .name = "--candidates", .type = BG_OPT_STR, .offset = FIELD(candidates), .deflt = "", .no_effect = true,
      .help = "score only these sequences: text, a number a line, or HDF5 with `sequence`" },
    { .name = "--layer-scores", .type = BG_OPT_FLAG, .offset = FIELD(layer_scores),
      .help = "also write each block's part of the score" },
    { .name = "--gradient-norms", .type = BG_OPT_FLAG, .offset = FIELD(gradient_norms), .no_effect = true,
      .help = "also write the norm of each sequence's gradient of the tracked weights" },
    { .name = "--top", .type = BG_OPT_U64, .offset = FIELD(top), .deflt = BG_TEXT(SCORE_TOP), .lo = 1, .hi = 1e6,
      .help = "highest and lowest scores listed in the shard file" },
    { .name = "--explain", .type = BG_OPT_STR, .offset = FIELD(explain), .deflt = "", .no_effect = true,
      .help = "a ranking.h5: add token and layer scores of its sequences to it instead of scoring" },
    { .name = "--attribution", .type = BG_OPT_STR, .offset = FIELD(attribution), .deflt = "position",
      .help = "with --explain, what a token is given: the part of the score of the position where it is read; `output`: also how its own loss moves along the query; `input`: also what the score loses without its embedding, a pass for each token of each ranked sequence; `all`: also both" },
    { .name = "--unit-sequences", .type = BG_OPT_U64, .offset = FIELD(unit_sequences), .deflt = BG_TEXT(SCORE_UNIT_SEQUENCES), .lo = 1, .hi = 1e6,
      .help = "sequences of a work unit, the checkpoint" },
    { .name = "--batch-tokens", .type = BG_OPT_U64, .offset = FIELD(batch_tokens), .deflt = "0", .lo = 0, .hi = 1e6,
      .help = "rows of a micro-batch; 0: as many as 256 MB of activations hold, at most 1536" },
    { 0 },
};
/* clang-format on */

static const bg_stage stage = {
    .name = "score_shards",
    .purpose = "Score corpus sequences against all compressed queries in one pass.",
    .opts = opts,
    .config_size = sizeof(score_shards_config),
    .example = "mpirun -n 4 score_shards --model pythia-160m --queries compressed.h5 --tokens tokens/pile-*.h5 "
               "--output scores --shard 3/16",
    .runs_model = true,
    .run = score_shards_run,
};

int main(int argc, char **argv) { return bg_stage_main(&stage, argc, argv); }
