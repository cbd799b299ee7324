/* family.c - the table of model families.  A new family is a new row.
 * Keys, defaults and tensor names are those of transformers' configuration_*.py and modeling_*.py. */
#include "family.h"

#include <stdio.h>
#include <string.h>

/* What Llama and its descendants share. */
#define LLAMA_KEYS                                                                                                \
    .d_model = "hidden_size", .n_blocks = "num_hidden_layers", .n_heads = "num_attention_heads",                  \
    .n_kv_heads = "num_key_value_heads", .d_ff = "intermediate_size", .max_positions = "max_position_embeddings", \
    .norm_epsilon = "rms_norm_eps", .activation = "hidden_act", .default_activation = "silu",                     \
    .default_rotary_fraction = 1

#define LLAMA_FIXED .norm = BG_NORM_RMS, .qkv = BG_QKV_SEPARATE, .gated = true, .rope = BG_ROPE_DEFAULT

#define LLAMA_NAMES                                                                                                 \
    .root = "model.", .block = "layers.%zu.", .embedding = "embed_tokens", .final_norm = "norm", .head = "lm_head", \
    .q = "self_attn.q_proj", .k = "self_attn.k_proj", .v = "self_attn.v_proj", .attention_out = "self_attn.o_proj", \
    .gate = "mlp.gate_proj", .up = "mlp.up_proj", .down = "mlp.down_proj"

#define EXPERT_NAMES .router = "mlp.gate", .expert = "mlp.experts.%zu."

#define PRE_NORM_NAMES .attention_norm = "input_layernorm", .mlp_norm = "post_attention_layernorm"

static const bg_family families[] = {
    {
        .model_type = "gpt2",
        .d_model = "n_embd", .n_blocks = "n_layer", .n_heads = "n_head", .d_ff = "n_inner",
        .d_ff_default_ratio = 4, .max_positions = "n_positions",
        .norm_epsilon = "layer_norm_epsilon",
        .activation = "activation_function", .default_activation = "gelu_new",
        .refused_unless = { { "scale_attn_weights", true }, { "scale_attn_by_inverse_layer_idx", false },
                            { "reorder_and_upcast_attn", false }, { "add_cross_attention", false } },
        .fixed = {
            .norm = BG_NORM_LAYER, .qkv = BG_QKV_FUSED, .transposed = true,
            .qkv_bias = true, .attention_out_bias = true, .mlp_bias = true,
            .tied_head = true, .rope = BG_ROPE_NONE, .scaled_residual = true,
            .names = {
                .root = "transformer.", .block = "h.%zu.", .embedding = "wte",
                .position_embedding = "wpe", .final_norm = "ln_f", .head = "lm_head",
                .attention_norm = "ln_1", .mlp_norm = "ln_2",
                .qkv = "attn.c_attn", .attention_out = "attn.c_proj",
                .up = "mlp.c_fc", .down = "mlp.c_proj",
            },
        },
    },
    {
        .model_type = "gpt_neox",
        .d_model = "hidden_size", .n_blocks = "num_hidden_layers", .n_heads = "num_attention_heads",
        .d_ff = "intermediate_size", .max_positions = "max_position_embeddings",
        .norm_epsilon = "layer_norm_eps", .activation = "hidden_act", .default_activation = "gelu",
        .has_attention_bias_key = true, .has_parallel_residual_key = true,
        .rope_theta = "rotary_emb_base", .rotary_fraction = "rotary_pct", .default_rotary_fraction = 0.25,
        .fixed = {
            .norm = BG_NORM_LAYER, .qkv = BG_QKV_INTERLEAVED, .parallel_residual = true,
            .qkv_bias = true, .attention_out_bias = true, .mlp_bias = true, .rope = BG_ROPE_DEFAULT,
            .names = {
                .root = "gpt_neox.", .block = "layers.%zu.", .embedding = "embed_in",
                .final_norm = "final_layer_norm", .head = "embed_out", PRE_NORM_NAMES,
                .qkv = "attention.query_key_value", .attention_out = "attention.dense",
                .up = "mlp.dense_h_to_4h", .down = "mlp.dense_4h_to_h",
            },
        },
    },
    {
        .model_type = "llama", LLAMA_KEYS, .d_head = "head_dim",
        .has_attention_bias_key = true, .has_mlp_bias_key = true, .padding = BG_PADDING_GIVEN,
        .fixed = { LLAMA_FIXED, .names = { LLAMA_NAMES, PRE_NORM_NAMES } },
    },
    {
        .model_type = "mistral", LLAMA_KEYS, .d_head = "head_dim",
        .required = { "num_key_value_heads" }, .window = BG_WINDOW_ALWAYS, .padding = BG_PADDING_GIVEN,
        .fixed = { LLAMA_FIXED, .names = { LLAMA_NAMES, PRE_NORM_NAMES } },
    },
    {
        .model_type = "qwen2", LLAMA_KEYS, .d_head = "head_dim",
        .required = { "num_key_value_heads" }, .window = BG_WINDOW_BY_BLOCK, .padding = BG_PADDING_GIVEN,
        .fixed = { LLAMA_FIXED, .qkv_bias = true, .names = { LLAMA_NAMES, PRE_NORM_NAMES } },
    },
    {
        .model_type = "qwen3", LLAMA_KEYS, .d_head = "head_dim",
        .required = { "num_key_value_heads", "head_dim" },
        .has_attention_bias_key = true, .window = BG_WINDOW_BY_BLOCK, .padding = BG_PADDING_GIVEN,
        .fixed = { LLAMA_FIXED, .qk_norm = BG_QK_NORM_HEAD,
                   .names = { LLAMA_NAMES, PRE_NORM_NAMES,
                              .q_norm = "self_attn.q_norm", .k_norm = "self_attn.k_norm" } },
    },
    {
        .model_type = "qwen3_moe", LLAMA_KEYS, .d_head = "head_dim",
        .required = { "num_key_value_heads" },
        .has_attention_bias_key = true, .window = BG_WINDOW_FLAGGED, .padding = BG_PADDING_GIVEN,
        .n_experts = { "num_experts", "num_local_experts" }, .d_expert = "moe_intermediate_size",
        .has_plain_mlp_keys = true,
        .fixed = { LLAMA_FIXED, .qk_norm = BG_QK_NORM_HEAD,
                   .names = { LLAMA_NAMES, PRE_NORM_NAMES, EXPERT_NAMES,
                              .q_norm = "self_attn.q_norm", .k_norm = "self_attn.k_norm" } },
    },
    {
        .model_type = "olmoe", LLAMA_KEYS, .d_head = "head_dim",
        .has_attention_bias_key = true, .padding = BG_PADDING_GIVEN_OR_1,
        .n_experts = { "num_experts", "num_local_experts" }, .d_expert = "intermediate_size",
        .refused_if_given = "clip_qkv",
        .fixed = { LLAMA_FIXED, .qk_norm = BG_QK_NORM_FULL,
                   .names = { LLAMA_NAMES, PRE_NORM_NAMES, EXPERT_NAMES,
                              .q_norm = "self_attn.q_norm", .k_norm = "self_attn.k_norm" } },
    },
    {
        .model_type = "olmo2", LLAMA_KEYS, .d_head = "head_dim",
        .has_attention_bias_key = true, .padding = BG_PADDING_GIVEN_OR_1,
        .fixed = { LLAMA_FIXED, .post_norm = true, .qk_norm = BG_QK_NORM_FULL,
                   .names = { LLAMA_NAMES, .attention_norm = "post_attention_layernorm",
                              .mlp_norm = "post_feedforward_layernorm",
                              .q_norm = "self_attn.q_norm", .k_norm = "self_attn.k_norm" } },
    },
    {
        .model_type = "starcoder2",
        .d_model = "hidden_size", .n_blocks = "num_hidden_layers", .n_heads = "num_attention_heads",
        .n_kv_heads = "num_key_value_heads", .d_head = "head_dim", .d_ff = "intermediate_size",
        .max_positions = "max_position_embeddings",
        .norm_epsilon = "norm_epsilon", .activation = "hidden_act", .default_activation = "gelu_pytorch_tanh",
        .required = { "num_key_value_heads" },
        .has_bias_key = true, .default_rotary_fraction = 1, .window = BG_WINDOW_GIVEN,
        .padding = BG_PADDING_GIVEN,
        .fixed = {
            .norm = BG_NORM_LAYER, .qkv = BG_QKV_SEPARATE, .initializer_range = 0.018042,
            .qkv_bias = true, .attention_out_bias = true, .mlp_bias = true,
            .tied_head = true, .rope = BG_ROPE_DEFAULT,
            .names = {
                .root = "model.", .block = "layers.%zu.", .embedding = "embed_tokens",
                .final_norm = "norm", .head = "lm_head", PRE_NORM_NAMES,
                .q = "self_attn.q_proj", .k = "self_attn.k_proj", .v = "self_attn.v_proj",
                .attention_out = "self_attn.o_proj", .up = "mlp.c_fc", .down = "mlp.c_proj",
            },
        },
    },
};
enum { N_FAMILIES = sizeof families / sizeof families[0] };

const bg_family *bg_family_find(const char *model_type)
{
    for (size_t i = 0; i < N_FAMILIES; i++)
        if (strcmp(families[i].model_type, model_type) == 0)
            return &families[i];
    return NULL;
}

void bg_family_list(char *out, size_t n_bytes)
{
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < N_FAMILIES && used < n_bytes; i++)
        used += (size_t)snprintf(out + used, n_bytes - used, "%s%s", i > 0 ? ", " : "", families[i].model_type);
}
