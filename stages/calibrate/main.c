#include "calibrate.h"

static const bg_opt opts[] = {
    { .name = "--output",
      .type = BG_OPT_STR,
      .offset = offsetof(calibrate_config, output),
      .no_effect = true,
      .help = "cluster file (JSON) to write, for plan; files are measured in its folder" },
    { 0 },
};

static const bg_stage stage = {
    .name = "calibrate",
    .purpose = "Measure this machine, with as many ranks and threads as a node will run, for plan.",
    .opts = opts,
    .config_size = sizeof(calibrate_config),
    .only_reads = true,
    .example = "mpirun -n 4 calibrate --threads 8 --output cluster.json",
    .run = calibrate_run,
};

int main(int argc, char **argv) { return bg_stage_main(&stage, argc, argv); }
