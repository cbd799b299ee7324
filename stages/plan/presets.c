/* presets.c - shapes of models by name.  README.md says what each stands for. */
#include <stdio.h>
#include <string.h>

#include "bregman/config.h"
#include "plan.h"

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

bg_status plan_preset(const char *name, bg_model_config *out, bg_err *err)
{
    const preset *p = NULL;
    for (size_t i = 0; i < N_PRESETS; i++)
        if (strcmp(name, presets[i].name) == 0)
            p = &presets[i];
    if (p == NULL)
        return unknown(name, err);
    *out = *bg_model_config_fixed(p->kind == LLAMA ? "llama" : "gpt_neox");
    out->n_blocks = p->n_blocks;
    out->d_model = p->d_model;
    out->n_heads = p->n_heads;
    out->n_kv_heads = p->n_kv_heads;
    out->d_head = p->d_model / p->n_heads;
    out->d_ff = p->d_ff;
    out->vocab_size = p->vocab_size;
    out->max_positions = 8192;
    out->positions_key = "max_position_embeddings";
    out->norm_epsilon = 1e-5;
    out->parallel_residual = p->kind == PYTHIA;
    out->activation = p->kind == LLAMA ? BG_ACT_SILU : BG_ACT_GELU_ERF;
    out->tied_head = p->kind != PYTHIA;
    out->rope_theta = 10000;
    out->rope_factor = 1;
    out->rotary_dims = p->kind == PYTHIA ? out->d_head / 4 / 2 * 2 : out->d_head;
    snprintf(out->family, sizeof out->family, "%s", p->name);
    return BG_OK;
}
