/* Shapes of models by name; stages/plan/README.md says what each stands for. */
#include "bregman/preset.h"

#include <stdio.h>
#include <string.h>

#include "bregman/config.h"
#include "bregman/options.h"

typedef enum { PAPER, PYTHIA, LLAMA } kind;

typedef struct {
    const char *name;
    kind kind;
    size_t n_blocks, d_model, n_heads, n_kv_heads, d_ff, vocab_size;
} preset;

static const preset presets[] = {
    { "810m", PAPER, 16, 2048, 16, 16, 8192, 65536 },
    { "6b", PAPER, 32, 4096, 32, 32, 16384, 65536 },
    { "22b", PAPER, 48, 6144, 48, 48, 24576, 65536 },
    { "52b", PAPER, 64, 8192, 64, 64, 32768, 65536 },
    { "smollm2-135m", LLAMA, 30, 576, 9, 3, 1536, 49152 },
    { "pythia-70m", PYTHIA, 6, 512, 8, 8, 2048, 50304 },
    { "pythia-160m", PYTHIA, 12, 768, 12, 12, 3072, 50304 },
    { "pythia-410m", PYTHIA, 24, 1024, 16, 16, 4096, 50304 },
    { "pythia-1b", PYTHIA, 16, 2048, 8, 8, 8192, 50304 },
    { "pythia-1.4b", PYTHIA, 24, 2048, 16, 16, 8192, 50304 },
    { "pythia-2.8b", PYTHIA, 32, 2560, 32, 32, 10240, 50304 },
    { "pythia-6.9b", PYTHIA, 32, 4096, 32, 32, 16384, 50432 },
    { "pythia-12b", PYTHIA, 36, 5120, 40, 40, 20480, 50688 },
};
enum { N_PRESETS = sizeof presets / sizeof presets[0] };

static bg_status unknown(const char *name, bg_err *err)
{
    char all[256] = "";
    size_t nearest = 0, at = 0;
    for (size_t i = 0; i < N_PRESETS; i++) {
        nearest = bg_edit_distance(name, presets[i].name) < bg_edit_distance(name, presets[nearest].name) ? i : nearest;
        at += (size_t)snprintf(all + at, sizeof all - at, "%s%s", i > 0 ? ", " : "", presets[i].name);
    }
    return BG_FAIL(err, BG_EARG, "unknown preset \"%.60s\" (did you mean %s?): there are %s", name,
                   presets[nearest].name, all);
}

bg_status bg_preset(const char *name, bg_model_config *out, bg_err *err)
{
    char text[512];
    const preset *p = NULL;
    for (size_t i = 0; i < N_PRESETS; i++)
        if (strcmp(name, presets[i].name) == 0)
            p = &presets[i];
    if (p == NULL)
        return unknown(name, err);
    snprintf(text, sizeof text,
             "{ \"model_type\": \"%s\", \"num_hidden_layers\": %zu, \"hidden_size\": %zu, \"num_attention_heads\": %zu, "
             "\"num_key_value_heads\": %zu, \"intermediate_size\": %zu, \"vocab_size\": %zu, "
             "\"max_position_embeddings\": 8192, \"layer_norm_eps\": 1e-5, \"rms_norm_eps\": 1e-5, "
             "\"tie_word_embeddings\": %s, \"use_parallel_residual\": %s, \"rotary_pct\": %g }",
             p->kind == LLAMA ? "llama" : "gpt_neox", p->n_blocks, p->d_model, p->n_heads, p->n_kv_heads, p->d_ff,
             p->vocab_size, p->kind != PYTHIA ? "true" : "false", p->kind == PYTHIA ? "true" : "false",
             p->kind == PYTHIA ? 0.25 : 1.0);
    return bg_model_config_parse(out, text, p->name, err);
}
