#include "job.h"
#include "train_models.h"

#define FIELD(name) offsetof(train_models_config, name)

/* clang-format off */
static const bg_opt opts[] = {
    { .name = "--config", .type = BG_OPT_STR, .offset = FIELD(config), .deflt = "", .no_effect = true,
      .help = "begin with random values: a folder with config.json, and a tokenizer's files to go with the model" },
    { .name = "--model", .type = BG_OPT_STR, .offset = FIELD(model), .deflt = "", .no_effect = true,
      .help = "begin with the values of this Hugging Face directory" },
    { .name = "--tokens", .type = BG_OPT_LIST, .offset = FIELD(tokens), .no_effect = true,
      .help = "token files to train on; their order numbers the sequences" },
    { .name = "--heldout", .type = BG_OPT_LIST, .offset = FIELD(heldout), .deflt = "", .no_effect = true,
      .help = "token files whose loss is measured" },
    { .name = "--queries", .type = BG_OPT_STR, .offset = FIELD(queries), .deflt = "", .no_effect = true,
      .help = "queries.h5 of tokenize_queries, whose losses a bank keeps" },
    { .name = "--output", .type = BG_OPT_STR, .offset = FIELD(output), .deflt = "", .no_effect = true,
      .help = "folder of the trained model: a Hugging Face directory, with log and optimiser" },
    { .name = "--bank", .type = BG_OPT_STR, .offset = FIELD(bank), .deflt = "", .no_effect = true,
      .help = "instead: train a model of each subset and seed, a rank each, and keep their losses in this folder's bank.h5" },
    { .name = "--subset", .type = BG_OPT_LIST, .offset = FIELD(subset), .deflt = "", .no_effect = true,
      .help = "train on these sequences only: text, a number a line, each once; of a bank one file for each subset" },
    { .name = "--mask", .type = BG_OPT_LIST, .offset = FIELD(mask), .deflt = "", .no_effect = true,
      .help = "leave predicted tokens out of the loss: text, lines \"SEQUENCE POSITION\", the first predicted one is 1; "
              "as many files as of --subset, or one for all, or without --subset one for each model of a bank" },
    { .name = "--modules", .type = BG_OPT_STR, .offset = FIELD(modules), .deflt = "everything",
      .help = "what is trained: words of mlp, attention, all (both), embedding, position, norm, head, everything, "
              "with commas; or a regular expression of module names" },
    { .name = "--optimizer", .type = BG_OPT_STR, .offset = FIELD(optimizer), .deflt = "adamw",
      .help = "adamw or sgd" },
    { .name = "--learning-rate", .type = BG_OPT_F64, .offset = FIELD(rate), .deflt = "0.001", .lo = 0, .hi = 1e3,
      .help = "highest learning rate" },
    { .name = "--beta1", .type = BG_OPT_F64, .offset = FIELD(beta1), .deflt = "0.9", .lo = 0, .hi = 0.999999,
      .help = "AdamW: decay of the gradients' mean" },
    { .name = "--beta2", .type = BG_OPT_F64, .offset = FIELD(beta2), .deflt = "0.95", .lo = 0, .hi = 0.999999,
      .help = "AdamW: decay of their squares' mean" },
    { .name = "--epsilon", .type = BG_OPT_F64, .offset = FIELD(epsilon), .deflt = "1e-8", .lo = 1e-30, .hi = 1,
      .help = "AdamW: added to the root of the squares" },
    { .name = "--momentum", .type = BG_OPT_F64, .offset = FIELD(momentum), .deflt = "0.9", .lo = 0, .hi = 0.999999,
      .help = "SGD: momentum" },
    { .name = "--weight-decay", .type = BG_OPT_F64, .offset = FIELD(weight_decay), .deflt = "0.1", .lo = 0, .hi = 1e3,
      .help = "of matrices; gains and biases have none" },
    { .name = "--clip-norm", .type = BG_OPT_F64, .offset = FIELD(clip_norm), .deflt = "1", .lo = 0, .hi = 1e30,
      .help = "longest gradient; longer ones are scaled down. 0: none are" },
    { .name = "--schedule", .type = BG_OPT_STR, .offset = FIELD(schedule), .deflt = "cosine",
      .help = "of the learning rate after the warm-up: constant, cosine or linear" },
    { .name = "--warmup-steps", .type = BG_OPT_U64, .offset = FIELD(warmup_steps), .deflt = "0", .lo = 0, .hi = 1e12,
      .help = "steps over which the learning rate rises to its highest" },
    { .name = "--final-rate", .type = BG_OPT_F64, .offset = FIELD(final_rate), .deflt = "0.1", .lo = 0, .hi = 1,
      .help = "share of the learning rate that cosine and linear end with" },
    { .name = "--batch-tokens", .type = BG_OPT_U64, .offset = FIELD(batch_tokens), .deflt = BG_TEXT(TRAIN_BATCH_TOKENS), .lo = 2, .hi = 1e12,
      .help = "tokens of a step at most: whole sequences, at least one" },
    { .name = "--epochs", .type = BG_OPT_U64, .offset = FIELD(epochs), .deflt = "1", .lo = 1, .hi = 1e6,
      .help = "times that every sequence is trained on, in another order each" },
    { .name = "--steps", .type = BG_OPT_U64, .offset = FIELD(steps), .deflt = "0", .lo = 0, .hi = 1e12,
      .help = "so many steps instead of whole epochs; 0: --epochs" },
    { .name = "--seed", .type = BG_OPT_U64, .offset = FIELD(seed), .deflt = "0", .lo = 0, .hi = 1e18,
      .help = "of random values and of the epochs' orders" },
    { .name = "--seeds", .type = BG_OPT_RANGE, .offset = FIELD(seeds), .deflt = "0:1",
      .help = "of a bank: a model for each of these seeds, B excluded" },
    { .name = "--slices", .type = BG_OPT_U64, .offset = FIELD(slices), .deflt = BG_TEXT(TRAIN_SLICES), .lo = 1, .hi = 65536,
      .help = "parts of a step whose gradients are added up in one order: as many ranks can share it; of a bank's models, "
              "a rank each, 1 is fastest" },
    { .name = "--micro-batch-tokens", .type = BG_OPT_U64, .offset = FIELD(micro_batch_tokens), .deflt = "0", .lo = 0, .hi = 1e6,
      .help = "rows that go through the model at a time; 0: as many as 256 MB of activations hold, at most 1536" },
    { .name = "--eval-steps", .type = BG_OPT_U64, .offset = FIELD(eval_steps), .deflt = "0", .lo = 0, .hi = 1e12,
      .help = "measure the held-out loss every so many steps; 0: at the end only" },
    { .name = "--save-steps", .type = BG_OPT_U64, .offset = FIELD(save_steps), .deflt = "0", .lo = 0, .hi = 1e12,
      .help = "save the model every so many steps as OUTPUT/step-NNNNNNNN too; 0: at the end only" },
    { .name = "--save-dtype", .type = BG_OPT_STR, .offset = FIELD(save_dtype), .deflt = "float32",
      .help = "float32 or bfloat16: of the weights that are saved; training is in float32" },
    { 0 },
};
/* clang-format on */

static const bg_stage stage = {
    .name = "train_models",
    .purpose = "Train a language model, from random values or from a checkpoint, or a bank of many small ones.",
    .opts = opts,
    .config_size = sizeof(train_models_config),
    .example =
        "mpirun -n 4 train_models --config tiny --tokens tokens/*.h5 --heldout heldout/*.h5 --output models/tiny "
        "--epochs 2",
    .runs_model = true,
    .run = train_models_run,
};

int main(int argc, char **argv) { return bg_stage_main(&stage, argc, argv); }
