/* family.h - the supported model families: how each spells its config.json, and what it fixes. */
#ifndef BG_FORMATS_FAMILY_H
#define BG_FORMATS_FAMILY_H

#include <jansson.h>

#include "bregman/model_config.h"

enum { BG_FAMILY_REQUIRED = 3, BG_FAMILY_REFUSED = 4 };

/* Which blocks slide, where there is a window. */
typedef enum {
    BG_WINDOW_NONE,
    BG_WINDOW_ALL,
    BG_WINDOW_FLAGGED, /* all, if "use_sliding_window" */
    BG_WINDOW_SOME,    /* "use_sliding_window", then "layer_types" or "max_window_layers" */
    BG_WINDOW_PERIOD,  /* "layer_types", or all but each window_period-th */
    BG_WINDOW_NEO,     /* "attention_types" (GPT-Neo) */
    BG_WINDOW_NO_ROPE  /* "use_sliding_window", then "layer_types" or those that do not rotate (SmolLM3) */
} bg_window_rule;

/* Which token's row of the embedding is not trained. */
typedef enum {
    BG_PADDING_NONE,
    BG_PADDING_GIVEN,   /* "pad_token_id", where not null */
    BG_PADDING_GIVEN_OR /* the same, but default_padding where the key is absent */
} bg_padding_rule;

typedef struct {
    const char *model_type;
    const char *cases; /* of tests/goldens, by which it is checked against PyTorch */

    /* Keys of the sizes.  Absent or null: n_kv_heads as n_heads, d_head as d_model / n_heads,
     * d_ff as d_ff_default_ratio * d_model. */
    const char *d_model, *n_blocks, *n_heads, *n_kv_heads, *d_head, *d_ff, *max_positions;
    const char *norm_epsilon, *activation, *default_activation; /* norm_epsilon NULL: fixed */
    size_t d_ff_default_ratio;                                  /* 0: the key is needed */
    const char *required[BG_FAMILY_REQUIRED]; /* further keys without a default that all checkpoints share */

    /* Flags that must have this value, which is also what an absent one means. */
    struct {
        const char *key;
        bool value;
    } refused_unless[BG_FAMILY_REFUSED];

    /* Biases of q, k, v and of the attention's output: fixed, or by the key "attention_bias"; or, with the MLP's, by
     * "use_bias". */
    bool has_attention_bias_key, has_mlp_bias_key, has_bias_key;
    bool has_parallel_residual_key; /* "use_parallel_residual" */

    /* MLPs with experts: the number of these, by either key, and their width; NULL: there are none. */
    const char *n_experts[2], *d_expert;
    bool has_plain_mlp_keys; /* "decoder_sparse_step", "mlp_only_layers" */

    const char *refused_if_given; /* a key that must be absent or null */

    const char *rope_theta, *rotary_fraction; /* own spellings at the root; NULL: those of all others */
    double default_rotary_fraction;
    bool has_sliding_rope;     /* blocks that slide have rope settings of their own */
    const char *sliding_theta; /* its theta at the root; NULL: none */
    bool has_clip_key;         /* "clip_qkv" */
    bool has_cap_keys;         /* "query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping" */
    bool scales_embedding;     /* by sqrt(d_model) */
    bg_window_rule window;
    const char *window_key; /* NULL: "sliding_window" */
    size_t default_window;  /* where it is absent; 0: none */
    size_t window_period;
    bool has_window_period_key; /* "sliding_window_pattern" */
    bool has_no_rope_keys;      /* "no_rope_layers", "no_rope_layer_interval" */
    bg_padding_rule padding;
    json_int_t default_padding;

    bg_model_config fixed; /* everything no key decides, and the defaults of what one does */
} bg_family;

/* NULL if unknown. */
const bg_family *bg_family_find(const char *model_type);
/* The table's rows, in its order; NULL behind the last. */
const bg_family *bg_family_at(size_t i);
/* "gpt2, gpt_neox, ..." into out. */
void bg_family_list(char *out, size_t n_bytes);

#endif /* BG_FORMATS_FAMILY_H */
