#include "inspect.h"

/* clang-format off */
static const bg_opt opts[] = {
    { .name = "--path", .type = BG_OPT_LIST, .offset = offsetof(inspect_config, paths), .positional = true, .deflt = "",
      .help = "model directories, folders of factors, HDF5 files; the option's name may be left out" },
    { .name = "--modules", .type = BG_OPT_STR, .offset = offsetof(inspect_config, modules), .deflt = "mlp",
      .help = "tracked modules of a model, as of fit_factors: mlp, attention, all, router, adapter, embedding and head, with commas; shared: a block's experts have one A; or a regular expression" },
    { .name = "--preconditioner", .type = BG_OPT_STR, .offset = offsetof(inspect_config, preconditioner), .deflt = "ekfac",
      .help = "whose factors a model's table is of, as of fit_factors: ekfac or shampoo" },
    { .name = "--families", .type = BG_OPT_FLAG, .offset = offsetof(inspect_config, families),
      .help = "list the supported model families, and how each was checked" },
    { 0 },
};
/* clang-format on */

static const bg_stage stage = {
    .name = "inspect",
    .purpose =
        "Print what a model or a file holds: sizes, tracked modules and their factors; datasets and their origin.",
    .opts = opts,
    .config_size = sizeof(inspect_config),
    .only_reads = true,
    .example = "inspect --quiet pythia-160m factors/index.h5",
    .run = inspect_run,
};

int main(int argc, char **argv) { return bg_stage_main(&stage, argc, argv); }
