/* model_config.h - what a Hugging Face config.json says, as block options.
 *
 * Each supported model_type is one row of the table in common/formats/family.c: it
 * maps the file's keys onto these options and names the tensors.  Anything a
 * row does not support (an activation, a rope type, sliding windows shorter than the
 * positions used, tied weights it cannot have ...) is refused by name.
 */
#ifndef BG_MODEL_CONFIG_H
#define BG_MODEL_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bregman/status.h"

typedef enum { BG_NORM_LAYER, BG_NORM_RMS } bg_norm_kind;
typedef enum { BG_ACT_GELU_TANH, BG_ACT_GELU_ERF, BG_ACT_SILU, BG_ACT_RELU } bg_activation;
typedef enum {
    BG_QKV_SEPARATE,   /* q_proj, k_proj, v_proj                        */
    BG_QKV_FUSED,      /* one matrix, rows q | k | v (GPT-2)            */
    BG_QKV_INTERLEAVED /* one matrix, rows per head q_h | k_h | v_h (NeoX) */
} bg_qkv_layout;
typedef enum {
    BG_QK_NORM_NONE,
    BG_QK_NORM_HEAD, /* RMS norm of each head's q and k (Qwen3)       */
    BG_QK_NORM_FULL  /* RMS norm over all heads' q, and k (OLMo2)     */
} bg_qk_norm;
typedef enum { BG_ROPE_NONE, BG_ROPE_DEFAULT, BG_ROPE_LINEAR, BG_ROPE_LLAMA3 } bg_rope_kind;

/* Rotated pairs of a head at most; no published model has half as many. */
enum { BG_ROPE_MAX_PAIRS = 1024 };
/* Blocks at most: tables of them are made before any weight is looked at. */
enum { BG_MAX_BLOCKS = 1 << 16 };
/* Of models whose MLPs have experts: blocks, and experts of each, at most. */
enum { BG_MAX_EXPERT_BLOCKS = 1 << 10, BG_MAX_EXPERTS = 1 << 10 };

/* Module and tensor names of a family, relative to a block's prefix unless marked.
 * A module NAME has tensors NAME.weight and, with a bias, NAME.bias. NULL: the family has none. */
typedef struct {
    const char *root;  /* prefix of everything in module paths, "transformer."; some checkpoints leave it out */
    const char *block; /* "h.%zu." after root */
    const char *embedding, *position_embedding, *final_norm; /* after root */
    const char *head;                                        /* absolute: "lm_head", "embed_out" */
    const char *attention_norm, *mlp_norm; /* pre-norm: applied to the inputs; post-norm: to the outputs */
    const char *q, *k, *v;                 /* separate */
    const char *qkv;                       /* fused or interleaved */
    const char *attention_out;
    const char *q_norm, *k_norm;
    const char *gate, *up, *down; /* gate NULL: plain two-layer MLP up -> act -> down */
    /* of an MLP with experts: "mlp.gate", and "mlp.experts.%zu.", behind which gate, up and down have the last parts of
     * their names above */
    const char *router, *expert;
} bg_family_names;

typedef struct {
    char family[32]; /* model_type */
    size_t n_blocks, d_model, n_heads, n_kv_heads, d_head, d_ff, vocab_size;
    size_t max_positions;      /* longest sequence the model takes (sliding window counts) */
    const char *positions_key; /* the key in config.json that says so, "sliding_window"; static storage */
    bg_norm_kind norm;
    double norm_epsilon;
    bool post_norm;         /* x + norm(f(x)) instead of x + f(norm(x)) (OLMo2) */
    bool parallel_residual; /* x + attention(norm1 x) + mlp(norm2 x) (NeoX) */
    bg_qkv_layout qkv;
    bg_qk_norm qk_norm;
    bool transposed; /* weights stored [in, out] (GPT-2's Conv1D) */
    bool qkv_bias, attention_out_bias, mlp_bias, head_bias;
    bool gated;
    /* MLPs of experts, gated ones: a row is read by the experts_per_token to which a router gives the highest
     * probabilities, and their outputs are added up, times these.  n_experts 0: the family has none. */
    size_t n_experts, experts_per_token, d_expert;
    bool experts_renormalised;                     /* those probabilities are divided by their sum */
    uint64_t plain_mlp[BG_MAX_EXPERT_BLOCKS / 64]; /* bit l % 64 of l / 64: block l has an MLP of d_ff all the same */
    bg_activation activation;
    bool tied_head;
    bg_rope_kind rope; /* NONE: learned positions */
    double rope_theta, rope_factor;
    size_t rotary_dims; /* of each head, even, <= d_head, <= 2 BG_ROPE_MAX_PAIRS; half-split pairing */
    double llama3_low_freq, llama3_high_freq, llama3_original_positions;
    double initializer_range; /* standard deviation of a new model's weights */
    bool scaled_residual;     /* what is added to the residual stream begins smaller (GPT-2) */
    bool dropout;             /* the file asks for some, which nothing here does */
    size_t padding_token;     /* whose row of the embedding is not trained; SIZE_MAX: none */
    bg_family_names names;
} bg_model_config;

/* Has block l's MLP experts? */
static inline bool bg_config_has_experts(const bg_model_config *c, size_t l)
{
    return c->n_experts > 0 && (c->plain_mlp[l / 64] >> l % 64 & 1) == 0;
}

#endif /* BG_MODEL_CONFIG_H */
