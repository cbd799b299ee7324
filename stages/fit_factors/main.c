#include "bregman/eigen.h"
#include "fit_factors.h"

#define FIELD(name) offsetof(fit_factors_config, name)

/* clang-format off */
static const bg_opt opts[] = {
    { .name = "--model", .type = BG_OPT_STR, .offset = FIELD(model), .no_effect = true,
      .help = "Hugging Face directory: config.json, *.safetensors, tokenizer.json" },
    { .name = "--tokens", .type = BG_OPT_LIST, .offset = FIELD(tokens), .no_effect = true,
      .help = "token files; their order numbers the sequences" },
    { .name = "--output", .type = BG_OPT_STR, .offset = FIELD(output), .no_effect = true,
      .help = "folder of the factors" },
    { .name = "--covariance-sequences", .type = BG_OPT_RANGE, .offset = FIELD(covariance_sequences), .deflt = ":",
      .help = "sequences A:B (B excluded) for the covariances" },
    { .name = "--lambda-sequences", .type = BG_OPT_RANGE, .offset = FIELD(lambda_sequences), .deflt = ":",
      .help = "sequences A:B for the corrected eigenvalues" },
    { .name = "--modules", .type = BG_OPT_STR, .offset = FIELD(modules), .deflt = "mlp",
      .help = "tracked modules: of mlp, attention, all (both), router, adapter (a LoRA's), embedding and head, with commas; shared: a block's experts have one A; or a regular expression" },
    { .name = "--preconditioner", .type = BG_OPT_STR, .offset = FIELD(preconditioner), .deflt = "ekfac",
      .help = "what the eigenbases are of: ekfac, covariances of positions; shampoo, of whole sequences' gradients" },
    { .name = "--empirical-fisher", .type = BG_OPT_FLAG, .offset = FIELD(empirical_fisher),
      .help = "labels of the data instead of the model's own: for comparisons only" },
    { .name = "--labels", .type = BG_OPT_STR, .offset = FIELD(labels), .deflt = "",
      .help = "safetensors file of given labels, pseudo_cov and pseudo_lambda [sequence, position]: for tests" },
    { .name = "--blocks", .type = BG_OPT_U64, .offset = FIELD(blocks), .deflt = "1", .lo = 1, .hi = 64,
      .help = "cut every covariance into this many diagonal blocks" },
    { .name = "--head-blocks", .type = BG_OPT_FLAG, .offset = FIELD(head_blocks),
      .help = "the same of the gradients at the head, one for each token of the vocabulary: else only their diagonal" },
    { .name = "--subgrid-side", .type = BG_OPT_U64, .offset = FIELD(subgrid_side), .deflt = "8192", .lo = 1,
      .hi = BG_EIGEN_MAX_SIDE, .help = "a covariance's diagonal block with more rows is decomposed by several ranks" },
    { .name = "--seed", .type = BG_OPT_U64, .offset = FIELD(seed), .deflt = "0", .lo = 0, .hi = 9e15,
      .help = "of the sampled labels" },
    { .name = "--no-diagonal", .type = BG_OPT_FLAG, .offset = FIELD(no_diagonal),
      .help = "leave out the diagonal Fisher (only compress_queries --preconditioner diagonal reads it)" },
    { .name = "--unit-sequences", .type = BG_OPT_U64, .offset = FIELD(unit_sequences), .deflt = "0", .lo = 0, .hi = 1e9,
      .help = "sequences of a work unit, the checkpoint; 0: a 64th of the range, within 16 and 1024" },
    { .name = "--batch-tokens", .type = BG_OPT_U64, .offset = FIELD(batch_tokens), .deflt = "0", .lo = 0, .hi = 1e6,
      .help = "rows of a micro-batch; 0: as many as 512 MB of activations hold, at most 1536" },
    { 0 },
};
/* clang-format on */

static const bg_stage stage = {
    .name = "fit_factors",
    .purpose =
        "Fit the EK-FAC or Shampoo factors of a model on token sequences: covariances, eigenbases, corrected eigenvalues.",
    .opts = opts,
    .config_size = sizeof(fit_factors_config),
    .example = "mpirun -n 4 fit_factors --model pythia-160m --tokens tokens/pile-*.h5 --output factors "
               "--covariance-sequences 0:10000 --lambda-sequences 0:10000",
    .runs_model = true,
    .run = fit_factors_run,
};

int main(int argc, char **argv) { return bg_stage_main(&stage, argc, argv); }
