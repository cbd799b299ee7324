#include "costs.h"
#include "merge_scores.h"

#define FIELD(name) offsetof(merge_scores_config, name)

/* clang-format off */
static const bg_opt opts[] = {
    { .name = "--scores", .type = BG_OPT_STR, .offset = FIELD(scores), .no_effect = true,
      .help = "folder of shard-IIIII-of-NNNNN.h5 files: all N of them" },
    { .name = "--output", .type = BG_OPT_STR, .offset = FIELD(output), .no_effect = true,
      .help = "ranking.h5 to write" },
    { .name = "--top", .type = BG_OPT_U64, .offset = FIELD(top), .deflt = BG_TEXT(MERGE_TOP), .lo = 1, .hi = 1e6,
      .help = "sequences ranked at either end" },
    { .name = "--tail", .type = BG_OPT_F64, .offset = FIELD(tail), .deflt = BG_TEXT(MERGE_TAIL), .lo = 0, .hi = 1,
      .help = "fraction of the largest scores kept for the tail (at least 100)" },
    { 0 },
};
/* clang-format on */

static const bg_stage stage = {
    .name = "merge_scores",
    .purpose = "Rank the sequences of all score shards for every query.",
    .opts = opts,
    .config_size = sizeof(merge_scores_config),
    .example = "merge_scores --scores scores --output ranking.h5 --top 100",
    .run = merge_scores_run,
};

int main(int argc, char **argv) { return bg_stage_main(&stage, argc, argv); }
