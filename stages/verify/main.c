#include "verify.h"

/* clang-format off */
static const bg_opt opts[] = {
    { .name = "--path", .type = BG_OPT_LIST, .offset = offsetof(verify_config, paths), .positional = true,
      .help = "folders that stages wrote, or files; the option's name may be left out" },
    { .name = "--quick", .type = BG_OPT_FLAG, .offset = offsetof(verify_config, quick),
      .help = "look at names and sizes only" },
    { .name = "--inputs", .type = BG_OPT_FLAG, .offset = offsetof(verify_config, inputs),
      .help = "also read the inputs the files were made from, where they still are, whole models too, whatever hashes are remembered" },
    { 0 },
};
/* clang-format on */

static const bg_stage stage = {
    .name = "verify",
    .purpose = "Check published files against their manifests and the schema, and say what a rerun would do.",
    .opts = opts,
    .config_size = sizeof(verify_config),
    .only_reads = true,
    .example = "verify factors compressed.h5 scores",
    .run = verify_run,
};

int main(int argc, char **argv) { return bg_stage_main(&stage, argc, argv); }
