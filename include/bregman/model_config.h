/* model_config.h - what a Hugging Face config.json says, as block options.
 *
 * Each supported model_type is one row of the table in common/formats/family.c: it
 * maps the file's keys onto these options and names the tensors.  Anything a
 * row does not support (an activation, a rope type, tied weights it cannot have ...)
 * is refused by name.
 */
#ifndef BG_MODEL_CONFIG_H
#define BG_MODEL_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bregman/status.h"

typedef enum { BG_NORM_LAYER, BG_NORM_RMS } bg_norm_kind;
typedef enum { BG_ACT_GELU_TANH, BG_ACT_GELU_ERF, BG_ACT_SILU, BG_ACT_RELU, BG_ACT_XIELU } bg_activation;
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
typedef enum { BG_ROPE_NONE, BG_ROPE_DEFAULT, BG_ROPE_LINEAR, BG_ROPE_LLAMA3, BG_ROPE_YARN } bg_rope_kind;

/* Rotary positions: their frequencies by kind. */
typedef struct {
    bg_rope_kind kind; /* NONE: learned positions */
    double theta, factor;
    double original_positions;   /* llama3, yarn */
    double low_freq, high_freq;  /* llama3: low_freq_factor, high_freq_factor */
    double beta_fast, beta_slow; /* yarn */
    bool exact_range;            /* yarn: the range of pairs between the two is not widened to whole ones */
    double attention_factor;     /* of cosines and sines; 1 but for yarn */
} bg_rope;

/* Rotated pairs of a head at most; no published model has half as many. */
enum { BG_ROPE_MAX_PAIRS = 1024 };
/* Blocks at most; no published model has a tenth as many. */
enum { BG_MAX_BLOCKS = 4096 };
/* Of models whose MLPs have experts: blocks, and experts of each, at most. */
enum { BG_MAX_EXPERT_BLOCKS = 1 << 10, BG_MAX_EXPERTS = 1 << 10 };
/* What a block's attention does, as bits of bg_model_config.layer. */
enum {
    BG_LAYER_SLIDES = 1, /* a query sees the last `window` keys only, its own included */
    BG_LAYER_NO_ROPE = 2 /* q and k are not rotated */
};

/* Module and tensor names of a family, relative to a block's prefix unless marked.
 * A module NAME has tensors NAME.weight and, with a bias, NAME.bias. NULL: the family has none. */
typedef struct {
    const char *root;  /* prefix of everything in module paths, "transformer."; some checkpoints leave it out */
    const char *block; /* "h.%zu." after root */
    const char *embedding, *position_embedding, *final_norm; /* after root */
    const char *head;                                        /* absolute: "lm_head", "embed_out" */
    const char *attention_norm, *mlp_norm;                   /* of the inputs: x + f(norm(x))               */
    const char *attention_out_norm, *mlp_out_norm; /* of the outputs: x + norm(f(x)) (OLMo 2); both (Gemma 2) */
    const char *q, *k, *v;                         /* separate */
    const char *qkv;                               /* fused or interleaved */
    const char *attention_out;
    const char *q_norm, *k_norm;
    const char *gate, *up, *down; /* gate NULL: plain two-layer MLP up -> act -> down */
    /* of an MLP with experts: "mlp.gate", and "mlp.experts.%zu.", behind which gate, up and down have the last parts of
     * their names above */
    const char *router, *expert;
    const char *activation; /* that has weights (xIELU) */
} bg_family_names;

typedef struct {
    char family[32]; /* model_type */
    size_t n_blocks, d_model, n_heads, n_kv_heads, d_head, d_ff, vocab_size;
    size_t max_positions;      /* longest sequence the model takes */
    const char *positions_key; /* the key in config.json that says so; static storage */
    size_t window;             /* of the blocks that slide; 0: none does */
    unsigned char layer[BG_MAX_BLOCKS];
    bg_norm_kind norm;
    double norm_epsilon;
    bool gain_from_one;     /* a norm's gain is 1 + its weight (Gemma) */
    bool fixed_gain;        /* norms have no weights: the gain is 1 (OLMo 1) */
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
    bg_rope rope, sliding_rope; /* of blocks that slide; the same unless has_sliding_rope */
    bool has_sliding_rope;
    size_t rotary_dims;       /* of each head, even, <= d_head, <= 2 BG_ROPE_MAX_PAIRS; half-split pairing */
    double attention_scale;   /* of q kᵀ; 0: 1 / sqrt(d_head) */
    double attention_cap;     /* scores s become cap tanh(s / cap); 0: none (Gemma 2) */
    double logit_cap;         /* and logits */
    double clip_qkv;          /* q, k and v are clipped to [-clip, clip] before they are rotated; 0: none (OLMo 1) */
    double embedding_scale;   /* of the tokens' embeddings; 0: none (Gemma) */
    double initializer_range; /* standard deviation of a new model's weights */
    bool scaled_residual;     /* what is added to the residual stream begins smaller (GPT-2) */
    bool dropout;             /* the file asks for some, which nothing here does */
    size_t padding_token;     /* whose row of the embedding is not trained; SIZE_MAX: none */
    const char *untrained;    /* what is missing for training; NULL: nothing.  Static storage */
    bg_family_names names;
} bg_model_config;

/* Has block l's MLP experts? */
static inline bool bg_config_has_experts(const bg_model_config *c, size_t l)
{
    return c->n_experts > 0 && (c->plain_mlp[l / 64] >> l % 64 & 1) == 0;
}

/* Are the block's q and k rotated? */
static inline bool bg_rotates(const bg_model_config *c, size_t block)
{
    return c->rope.kind != BG_ROPE_NONE && !(c->layer[block] & BG_LAYER_NO_ROPE);
}

/* Does a norm follow the attention and the MLP? */
static inline bool bg_norms_outputs(const bg_model_config *c) { return c->names.attention_out_norm != NULL; }

/* Keys that a query of the block sees, its own included; SIZE_MAX: all before it. */
static inline size_t bg_window_of(const bg_model_config *c, size_t block)
{
    return c->layer[block] & BG_LAYER_SLIDES ? c->window : SIZE_MAX;
}

#endif /* BG_MODEL_CONFIG_H */
