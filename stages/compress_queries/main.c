#include "compress_queries.h"
#include "costs.h"

#define FIELD(name) offsetof(compress_queries_config, name)

/* clang-format off */
static const bg_opt opts[] = {
    { .name = "--model", .type = BG_OPT_STR, .offset = FIELD(model), .no_effect = true,
      .help = "Hugging Face directory" },
    { .name = "--factors", .type = BG_OPT_STR, .offset = FIELD(factors), .no_effect = true,
      .help = "folder that fit_factors wrote" },
    { .name = "--queries", .type = BG_OPT_STR, .offset = FIELD(queries), .no_effect = true,
      .help = "queries.h5 of tokenize_queries" },
    { .name = "--output", .type = BG_OPT_STR, .offset = FIELD(output), .no_effect = true,
      .help = "compressed.h5 to write" },
    { .name = "--modules", .type = BG_OPT_STR, .offset = FIELD(modules), .deflt = "",
      .help = "modules to score with, all in the factors; by default those that the factors were fitted with" },
    { .name = "--rank", .type = BG_OPT_STR, .offset = FIELD(rank), .deflt = "32",
      .help = "columns kept of each query gradient: a number, full (exact) or auto (by --tolerance)" },
    { .name = "--tolerance", .type = BG_OPT_F64, .offset = FIELD(tolerance), .deflt = "0.01", .lo = 1e-12, .hi = 1,
      .help = "with --rank auto: error variance of the score over its variance" },
    { .name = "--max-rank", .type = BG_OPT_U64, .offset = FIELD(max_rank), .deflt = "128", .lo = 1, .hi = 1e5,
      .help = "with --rank auto: most columns to keep" },
    { .name = "--preconditioner", .type = BG_OPT_STR, .offset = FIELD(preconditioner), .deflt = "",
      .help = "ekfac or shampoo, by default what the factors were fitted for; kfac of EK-FAC's; diagonal or identity of either" },
    { .name = "--damping-factor", .type = BG_OPT_F64, .offset = FIELD(damping_factor), .deflt = BG_TEXT(COMPRESS_DAMPING_FACTOR), .lo = 0, .hi = 1e6,
      .help = "damping as a multiple of each module's mean eigenvalue; with --refine: not used" },
    { .name = "--damping", .type = BG_OPT_F64, .offset = FIELD(damping), .deflt = "-1", .lo = -1, .hi = 1e30,
      .help = "absolute damping instead; below 0: not used" },
    { .name = "--seed", .type = BG_OPT_U64, .offset = FIELD(seed), .deflt = "0", .lo = 0, .hi = 9e15,
      .help = "of the randomised SVD" },
    { .name = "--refine", .type = BG_OPT_STR, .offset = FIELD(refine), .deflt = "none",
      .help = "solve with the whole Gauss-Newton matrix of some training sequences, from EK-FAC on: none, cg (conjugate gradients) or lissa. On small models cg has been worth .02 to .08 of LDS in fine-tuning, and .03 to .06, less surely, after training from scratch" },
    { .name = "--refine-tokens", .type = BG_OPT_LIST, .offset = FIELD(refine_tokens), .deflt = "", .no_effect = true,
      .help = "with --refine: token files of training data" },
    { .name = "--refine-sequences", .type = BG_OPT_RANGE, .offset = FIELD(refine_sequences), .deflt = "0:64",
      .help = "with --refine: which of their sequences; at least 64 are best" },
    { .name = "--refine-damping-factor", .type = BG_OPT_F64, .offset = FIELD(refine_damping_factor), .deflt = "30", .lo = 0, .hi = 1e6,
      .help = "with --refine: instead of --damping-factor; below 10 the solve has done harm" },
    { .name = "--refine-steps", .type = BG_OPT_U64, .offset = FIELD(refine_steps), .deflt = "5", .lo = 1, .hi = 10000,
      .help = "with --refine: products with that matrix for each query" },
    { .name = "--unit-queries", .type = BG_OPT_U64, .offset = FIELD(unit_queries), .deflt = BG_TEXT(COMPRESS_UNIT_QUERIES), .lo = 1, .hi = 1e6,
      .help = "queries of a work unit, the checkpoint" },
    { 0 },
};
/* clang-format on */

static const bg_stage stage = {
    .name = "compress_queries",
    .purpose = "Precondition each query's gradient with the factors and keep it as low-rank factors.",
    .opts = opts,
    .config_size = sizeof(compress_queries_config),
    .example =
        "mpirun -n 4 compress_queries --model pythia-160m --factors factors --queries queries.h5 --output compressed.h5",
    .runs_model = true,
    .run = compress_queries_run,
};

int main(int argc, char **argv) { return bg_stage_main(&stage, argc, argv); }
