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

#define LLAMA_FIXED .norm = BG_NORM_RMS, .qkv = BG_QKV_SEPARATE, .gated = true, .rope = { .kind = BG_ROPE_DEFAULT }

#define LLAMA_NAMES                                                                                                 \
    .root = "model.", .block = "layers.%zu.", .embedding = "embed_tokens", .final_norm = "norm", .head = "lm_head", \
    .q = "self_attn.q_proj", .k = "self_attn.k_proj", .v = "self_attn.v_proj", .attention_out = "self_attn.o_proj", \
    .gate = "mlp.gate_proj", .up = "mlp.up_proj", .down = "mlp.down_proj"

#define EXPERT_NAMES      .router = "mlp.gate", .expert = "mlp.experts.%zu."
#define UNTRAINED_EXPERTS "which experts a token is sent to is balanced by losses that nothing here has"

#define PRE_NORM_NAMES .attention_norm = "input_layernorm", .mlp_norm = "post_attention_layernorm"

#define POST_NORM_NAMES .attention_out_norm = "post_attention_layernorm", .mlp_out_norm = "post_feedforward_layernorm"
#define QK_NORM_NAMES   .q_norm = "self_attn.q_norm", .k_norm = "self_attn.k_norm"

/* What Gemma 2 and 3 share. */
#define GEMMA_KEYS                                                                                                 \
    .d_model = "hidden_size", .n_blocks = "num_hidden_layers", .n_heads = "num_attention_heads",                   \
    .n_kv_heads = "num_key_value_heads", .d_head = "head_dim", .d_ff = "intermediate_size",                        \
    .max_positions = "max_position_embeddings", .norm_epsilon = "rms_norm_eps", .activation = "hidden_activation", \
    .default_activation = "gelu_pytorch_tanh", .default_rotary_fraction = 1,                                       \
    .required = { "num_key_value_heads", "head_dim" }, .has_attention_bias_key = true,                             \
    .refused_unless = { { "use_bidirectional_attention", false } }, .window = BG_WINDOW_PERIOD,                    \
    .default_window = 4096, .padding = BG_PADDING_GIVEN_OR, .default_padding = 0, .has_cap_keys = true,            \
    .scales_embedding = true

#define GEMMA_FIXED                                                                                       \
    .norm = BG_NORM_RMS, .qkv = BG_QKV_SEPARATE, .gated = true, .tied_head = true, .gain_from_one = true, \
    .untrained = "its norms' gains are 1 + their weights, which nothing here trains"

#define GEMMA_NAMES                                                                                     \
    LLAMA_NAMES, .attention_norm = "input_layernorm", .attention_out_norm = "post_attention_layernorm", \
        .mlp_norm = "pre_feedforward_layernorm", .mlp_out_norm = "post_feedforward_layernorm"

static const bg_family families[] = {
    {
        .model_type = "gpt2", .cases = "gpt2, gpt2_ends",
        .d_model = "n_embd", .n_blocks = "n_layer", .n_heads = "n_head", .d_ff = "n_inner",
        .d_ff_default_ratio = 4, .max_positions = "n_positions",
        .norm_epsilon = "layer_norm_epsilon",
        .activation = "activation_function", .default_activation = "gelu_new",
        .refused_unless = { { "scale_attn_weights", true }, { "scale_attn_by_inverse_layer_idx", false },
                            { "reorder_and_upcast_attn", false }, { "add_cross_attention", false } },
        .fixed = {
            .norm = BG_NORM_LAYER, .qkv = BG_QKV_FUSED, .transposed = true,
            .qkv_bias = true, .attention_out_bias = true, .mlp_bias = true,
            .tied_head = true, .rope = { .kind = BG_ROPE_NONE }, .scaled_residual = true,
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
        .model_type = "gpt_neox", .cases = "neox, neox_serial",
        .d_model = "hidden_size", .n_blocks = "num_hidden_layers", .n_heads = "num_attention_heads",
        .d_ff = "intermediate_size", .max_positions = "max_position_embeddings",
        .norm_epsilon = "layer_norm_eps", .activation = "hidden_act", .default_activation = "gelu",
        .has_attention_bias_key = true, .has_parallel_residual_key = true,
        .rope_theta = "rotary_emb_base", .rotary_fraction = "rotary_pct", .default_rotary_fraction = 0.25,
        .fixed = {
            .norm = BG_NORM_LAYER, .qkv = BG_QKV_INTERLEAVED, .parallel_residual = true,
            .qkv_bias = true, .attention_out_bias = true, .mlp_bias = true, .rope = { .kind = BG_ROPE_DEFAULT },
            .names = {
                .root = "gpt_neox.", .block = "layers.%zu.", .embedding = "embed_in",
                .final_norm = "final_layer_norm", .head = "embed_out", PRE_NORM_NAMES,
                .qkv = "attention.query_key_value", .attention_out = "attention.dense",
                .up = "mlp.dense_h_to_4h", .down = "mlp.dense_4h_to_h",
            },
        },
    },
    {
        .model_type = "llama", .cases = "llama, llama_pad, llama_llama3, llama_linear, llama_yarn, llama_half, llama_ends", LLAMA_KEYS, .d_head = "head_dim",
        .has_attention_bias_key = true, .has_mlp_bias_key = true, .padding = BG_PADDING_GIVEN,
        .fixed = { LLAMA_FIXED, .names = { LLAMA_NAMES, PRE_NORM_NAMES } },
    },
    {
        .model_type = "mistral", .cases = "mistral", LLAMA_KEYS, .d_head = "head_dim",
        .required = { "num_key_value_heads" }, .window = BG_WINDOW_ALL, .default_window = 4096, .padding = BG_PADDING_GIVEN,
        .fixed = { LLAMA_FIXED, .names = { LLAMA_NAMES, PRE_NORM_NAMES } },
    },
    {
        .model_type = "qwen2", .cases = "qwen2, qwen2_window", LLAMA_KEYS, .d_head = "head_dim",
        .required = { "num_key_value_heads" }, .window = BG_WINDOW_SOME, .default_window = 4096, .padding = BG_PADDING_GIVEN,
        .fixed = { LLAMA_FIXED, .qkv_bias = true, .names = { LLAMA_NAMES, PRE_NORM_NAMES } },
    },
    {
        .model_type = "qwen3", .cases = "qwen3", LLAMA_KEYS, .d_head = "head_dim",
        .required = { "num_key_value_heads", "head_dim" },
        .has_attention_bias_key = true, .window = BG_WINDOW_SOME, .default_window = 4096, .padding = BG_PADDING_GIVEN,
        .fixed = { LLAMA_FIXED, .qk_norm = BG_QK_NORM_HEAD,
                   .names = { LLAMA_NAMES, PRE_NORM_NAMES, QK_NORM_NAMES } },
    },
    {
        .model_type = "qwen3_moe", .cases = "qwen3_moe, qwen3_moe_raw", LLAMA_KEYS, .d_head = "head_dim",
        .required = { "num_key_value_heads" },
        .has_attention_bias_key = true, .window = BG_WINDOW_FLAGGED, .default_window = 4096, .padding = BG_PADDING_GIVEN,
        .n_experts = { "num_experts", "num_local_experts" }, .d_expert = "moe_intermediate_size",
        .has_plain_mlp_keys = true,
        .fixed = { LLAMA_FIXED, .qk_norm = BG_QK_NORM_HEAD, .untrained = UNTRAINED_EXPERTS,
                   .names = { LLAMA_NAMES, PRE_NORM_NAMES, QK_NORM_NAMES, EXPERT_NAMES } },
    },
    {
        .model_type = "olmoe", .cases = "olmoe, olmoe_renormalised", LLAMA_KEYS, .d_head = "head_dim",
        .has_attention_bias_key = true, .padding = BG_PADDING_GIVEN_OR, .default_padding = 1,
        .n_experts = { "num_experts", "num_local_experts" }, .d_expert = "intermediate_size",
        .refused_if_given = "clip_qkv",
        .fixed = { LLAMA_FIXED, .qk_norm = BG_QK_NORM_FULL, .untrained = UNTRAINED_EXPERTS,
                   .names = { LLAMA_NAMES, PRE_NORM_NAMES, QK_NORM_NAMES, EXPERT_NAMES } },
    },
    {
        .model_type = "olmo2", .cases = "olmo2", LLAMA_KEYS, .d_head = "head_dim",
        .has_attention_bias_key = true, .padding = BG_PADDING_GIVEN_OR, .default_padding = 1,
        .fixed = { LLAMA_FIXED, .qk_norm = BG_QK_NORM_FULL,
                   .names = { LLAMA_NAMES, POST_NORM_NAMES, QK_NORM_NAMES } },
    },
    {
        .model_type = "starcoder2", .cases = "starcoder2",
        .d_model = "hidden_size", .n_blocks = "num_hidden_layers", .n_heads = "num_attention_heads",
        .n_kv_heads = "num_key_value_heads", .d_head = "head_dim", .d_ff = "intermediate_size",
        .max_positions = "max_position_embeddings",
        .norm_epsilon = "norm_epsilon", .activation = "hidden_act", .default_activation = "gelu_pytorch_tanh",
        .required = { "num_key_value_heads" },
        .has_bias_key = true, .default_rotary_fraction = 1, .window = BG_WINDOW_ALL,
        .padding = BG_PADDING_GIVEN,
        .fixed = {
            .norm = BG_NORM_LAYER, .qkv = BG_QKV_SEPARATE, .initializer_range = 0.018042,
            .qkv_bias = true, .attention_out_bias = true, .mlp_bias = true,
            .tied_head = true, .rope = { .kind = BG_ROPE_DEFAULT },
            .names = {
                .root = "model.", .block = "layers.%zu.", .embedding = "embed_tokens",
                .final_norm = "norm", .head = "lm_head", PRE_NORM_NAMES,
                .q = "self_attn.q_proj", .k = "self_attn.k_proj", .v = "self_attn.v_proj",
                .attention_out = "self_attn.o_proj", .up = "mlp.c_fc", .down = "mlp.c_proj",
            },
        },
    },
    {
        .model_type = "gpt_neo", .cases = "gpt_neo",
        .d_model = "hidden_size", .n_blocks = "num_layers", .n_heads = "num_heads", .d_ff = "intermediate_size",
        .d_ff_default_ratio = 4, .max_positions = "max_position_embeddings",
        .norm_epsilon = "layer_norm_epsilon", .activation = "activation_function", .default_activation = "gelu_new",
        .window = BG_WINDOW_NEO, .window_key = "window_size", .default_window = 256,
        .fixed = {
            .norm = BG_NORM_LAYER, .qkv = BG_QKV_SEPARATE, .attention_out_bias = true, .mlp_bias = true,
            .attention_scale = 1, .tied_head = true, .rope = { .kind = BG_ROPE_NONE },
            .names = {
                .root = "transformer.", .block = "h.%zu.", .embedding = "wte",
                .position_embedding = "wpe", .final_norm = "ln_f", .head = "lm_head",
                .attention_norm = "ln_1", .mlp_norm = "ln_2",
                .q = "attn.attention.q_proj", .k = "attn.attention.k_proj", .v = "attn.attention.v_proj",
                .attention_out = "attn.attention.out_proj", .up = "mlp.c_fc", .down = "mlp.c_proj",
            },
        },
    },
    {
        .model_type = "olmo", .cases = "olmo",
        .d_model = "hidden_size", .n_blocks = "num_hidden_layers", .n_heads = "num_attention_heads",
        .n_kv_heads = "num_key_value_heads", .d_head = "head_dim", .d_ff = "intermediate_size",
        .max_positions = "max_position_embeddings",
        .activation = "hidden_act", .default_activation = "silu", .default_rotary_fraction = 1,
        .has_attention_bias_key = true, .has_clip_key = true,
        .padding = BG_PADDING_GIVEN_OR, .default_padding = 1,
        .fixed = { .norm = BG_NORM_LAYER, .norm_epsilon = 1e-5, .fixed_gain = true, .qkv = BG_QKV_SEPARATE,
                   .gated = true, .rope = { .kind = BG_ROPE_DEFAULT }, .names = { LLAMA_NAMES, PRE_NORM_NAMES } },
    },
    {
        .model_type = "olmo3", .cases = "olmo3", LLAMA_KEYS, .d_head = "head_dim",
        .has_attention_bias_key = true, .window = BG_WINDOW_PERIOD, .default_window = 4096, .window_period = 4,
        .has_sliding_rope = true, .padding = BG_PADDING_GIVEN_OR, .default_padding = 1,
        .fixed = { .norm = BG_NORM_RMS, .qkv = BG_QKV_SEPARATE, .gated = true, .qk_norm = BG_QK_NORM_FULL,
                   .rope = { .kind = BG_ROPE_DEFAULT, .theta = 500000 },
                   .sliding_rope = { .kind = BG_ROPE_DEFAULT, .theta = 500000 },
                   .names = { LLAMA_NAMES, POST_NORM_NAMES, QK_NORM_NAMES } },
    },
    {
        .model_type = "smollm3", .cases = "smollm3", LLAMA_KEYS, .d_head = "head_dim",
        .required = { "num_key_value_heads" },
        .has_attention_bias_key = true, .has_mlp_bias_key = true,
        .window = BG_WINDOW_NO_ROPE, .has_no_rope_keys = true,
        .padding = BG_PADDING_GIVEN_OR, .default_padding = 128004,
        .fixed = { .norm = BG_NORM_RMS, .qkv = BG_QKV_SEPARATE, .gated = true, .tied_head = true,
                   .rope = { .kind = BG_ROPE_DEFAULT, .theta = 2000000 },
                   .names = { LLAMA_NAMES, PRE_NORM_NAMES } },
    },
    {
        .model_type = "gemma2", .cases = "gemma2", GEMMA_KEYS, .window_period = 2,
        .fixed = { GEMMA_FIXED, .rope = { .kind = BG_ROPE_DEFAULT }, .attention_cap = 50, .logit_cap = 30, .names = { GEMMA_NAMES } },
    },
    {
        .model_type = "gemma3_text", .cases = "gemma3", GEMMA_KEYS, .window_period = 6, .has_window_period_key = true,
        .has_sliding_rope = true, .sliding_theta = "rope_local_base_freq",
        .fixed = { GEMMA_FIXED, .qk_norm = BG_QK_NORM_HEAD, .names = { GEMMA_NAMES, QK_NORM_NAMES },
                   .rope = { .kind = BG_ROPE_DEFAULT, .theta = 1000000 },
                   .sliding_rope = { .kind = BG_ROPE_DEFAULT, .theta = 10000 } },
    },
    {
        .model_type = "apertus", .cases = "apertus",
        .d_model = "hidden_size", .n_blocks = "num_hidden_layers", .n_heads = "num_attention_heads",
        .n_kv_heads = "num_key_value_heads", .d_head = "head_dim", .d_ff = "intermediate_size",
        .max_positions = "max_position_embeddings", .norm_epsilon = "rms_norm_eps",
        .activation = "hidden_act", .default_activation = "xielu", .default_rotary_fraction = 1,
        .has_attention_bias_key = true, .padding = BG_PADDING_GIVEN_OR, .default_padding = 3,
        .fixed = {
            .norm = BG_NORM_RMS, .qkv = BG_QKV_SEPARATE, .qk_norm = BG_QK_NORM_HEAD,
            .untrained = "its activations have weights, which nothing here trains",
            .rope = { .kind = BG_ROPE_LLAMA3, .theta = 12000000, .factor = 8, .original_positions = 8192,
                      .low_freq = 1, .high_freq = 4, .attention_factor = 1 },
            .names = {
                .root = "model.", .block = "layers.%zu.", .embedding = "embed_tokens",
                .final_norm = "norm", .head = "lm_head",
                .attention_norm = "attention_layernorm", .mlp_norm = "feedforward_layernorm", QK_NORM_NAMES,
                .q = "self_attn.q_proj", .k = "self_attn.k_proj", .v = "self_attn.v_proj",
                .attention_out = "self_attn.o_proj", .up = "mlp.up_proj", .down = "mlp.down_proj",
                .activation = "mlp.act_fn",
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

const bg_family *bg_family_at(size_t i) { return i < N_FAMILIES ? &families[i] : NULL; }

void bg_family_list(char *out, size_t n_bytes)
{
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < N_FAMILIES && used < n_bytes; i++)
        used += (size_t)snprintf(out + used, n_bytes - used, "%s%s", i > 0 ? ", " : "", families[i].model_type);
}
