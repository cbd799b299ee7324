#include "plan.h"

#define FIELD(name) offsetof(plan_config, name)

/* clang-format off */
static const bg_opt opts[] = {
    { .name = "--config", .type = BG_OPT_STR, .offset = FIELD(config), .deflt = "",
      .help = "config.json of the model, or its folder" },
    { .name = "--preset", .type = BG_OPT_STR, .offset = FIELD(preset), .deflt = "",
      .help = "instead: 810m, 6b, 22b, 52b, smollm2-135m, pythia-70m ... pythia-12b" },
    { .name = "--weights", .type = BG_OPT_STR, .offset = FIELD(weights), .deflt = "bfloat16",
      .help = "how the checkpoint stores its weights: bfloat16, float16 or float32" },
    { .name = "--modules", .type = BG_OPT_STR, .offset = FIELD(modules), .deflt = "mlp",
      .help = "tracked modules, as of fit_factors: mlp, attention, all, embedding and head, with commas; or a regular expression" },
    { .name = "--sequences", .type = BG_OPT_U64, .offset = FIELD(sequences), .deflt = "1000000", .lo = 1, .hi = 1e13,
      .help = "sequences to score" },
    { .name = "--sequence-tokens", .type = BG_OPT_U64, .offset = FIELD(sequence_tokens), .deflt = "0", .lo = 0, .hi = 1e6,
      .help = "tokens of a sequence; 0: 512, or as many as the model takes" },
    { .name = "--fit-sequences", .type = BG_OPT_U64, .offset = FIELD(fit_sequences), .deflt = "100000", .lo = 1, .hi = 1e12,
      .help = "sequences for the covariances" },
    { .name = "--lambda-sequences", .type = BG_OPT_U64, .offset = FIELD(lambda_sequences), .deflt = "100000", .lo = 1,
      .hi = 1e12, .help = "sequences for the corrected eigenvalues" },
    { .name = "--unit-sequences", .type = BG_OPT_U64, .offset = FIELD(unit_sequences), .deflt = "0", .lo = 0, .hi = 1e9,
      .help = "sequences of a work unit of fit_factors; 0: as it chooses" },
    { .name = "--blocks", .type = BG_OPT_STR, .offset = FIELD(blocks), .deflt = "auto",
      .help = "diagonal blocks of a covariance; auto: the fewest that fit" },
    { .name = "--subgrid-side", .type = BG_OPT_U64, .offset = FIELD(subgrid_side), .deflt = "8192", .lo = 1, .hi = 32764,
      .help = "as of fit_factors" },
    { .name = "--no-diagonal", .type = BG_OPT_FLAG, .offset = FIELD(no_diagonal), .help = "as of fit_factors" },
    { .name = "--queries", .type = BG_OPT_U64, .offset = FIELD(queries), .deflt = "100", .lo = 1, .hi = 1e9,
      .help = "queries" },
    { .name = "--query-tokens", .type = BG_OPT_U64, .offset = FIELD(query_tokens), .deflt = "0", .lo = 0, .hi = 1e6,
      .help = "tokens of a query, prompt and completion; 0: 128, or as many as the model takes" },
    { .name = "--completion-tokens", .type = BG_OPT_U64, .offset = FIELD(completion_tokens), .deflt = "0", .lo = 0, .hi = 1e6,
      .help = "of them in the completion; 0: all but the first" },
    { .name = "--rank", .type = BG_OPT_U64, .offset = FIELD(rank), .deflt = "32", .lo = 1, .hi = 1e5,
      .help = "columns kept of each query gradient" },
    { .name = "--pipeline", .type = BG_OPT_U64, .offset = FIELD(pipeline), .deflt = "0", .lo = 0, .hi = 1e5,
      .help = "ranks that share a copy of the model; 0: the fastest number" },
    { .name = "--memory-limit", .type = BG_OPT_BYTES, .offset = FIELD(memory_limit), .deflt = "0",
      .help = "what a rank may take beside mapped weights; 0: what the node has for it" },
    { .name = "--cluster", .type = BG_OPT_STR, .offset = FIELD(cluster), .deflt = "",
      .help = "cluster file (JSON), as calibrate writes one; without: 64 assumed nodes of 128 cores" },
    { .name = "--nodes", .type = BG_OPT_U64, .offset = FIELD(nodes), .deflt = "0", .lo = 0, .hi = 1e6,
      .help = "instead of the cluster file's; 0: as there" },
    { .name = "--ranks-per-node", .type = BG_OPT_U64, .offset = FIELD(ranks_per_node), .deflt = "0", .lo = 0, .hi = 1e6,
      .help = "the same" },
    { .name = "--cores-per-node", .type = BG_OPT_U64, .offset = FIELD(cores_per_node), .deflt = "0", .lo = 0, .hi = 1e6,
      .help = "the same" },
    { .name = "--time-limit", .type = BG_OPT_F64, .offset = FIELD(time_limit), .deflt = "0", .lo = 0, .hi = 1e6,
      .help = "hours that an allocation lasts; counts restarts. 0: without end" },
    { .name = "--checkpoint-minutes", .type = BG_OPT_F64, .offset = FIELD(checkpoint_minutes), .deflt = "10", .lo = 0, .hi = 1e6,
      .help = "as of the stages" },
    { .name = "--json", .type = BG_OPT_FLAG, .offset = FIELD(json), .help = "print the plan as JSON" },
    { 0 },
};
/* clang-format on */

static const bg_stage stage = {
    .name = "plan",
    .purpose = "Predict FLOPs, memory, disk, messages and hours of each stage for a model on a cluster.",
    .opts = opts,
    .config_size = sizeof(plan_config),
    .only_reads = true,
    .example = "plan --quiet --preset 52b --sequences 10000000 --cluster cluster.json",
    .run = plan_run,
};

int main(int argc, char **argv) { return bg_stage_main(&stage, argc, argv); }
