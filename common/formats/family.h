/* family.h - the supported model families: how each spells its config.json, and what it fixes. */
#ifndef BG_FORMATS_FAMILY_H
#define BG_FORMATS_FAMILY_H

#include "bregman/model_config.h"

enum { BG_FAMILY_REQUIRED = 3, BG_FAMILY_REFUSED = 4 };

typedef enum {
    BG_WINDOW_NONE,
    BG_WINDOW_ALWAYS,  /* "sliding_window", where not null           */
    BG_WINDOW_GIVEN,   /* the same, but an absent key is as null     */
    BG_WINDOW_FLAGGED, /* the same, if "use_sliding_window"          */
    BG_WINDOW_BY_BLOCK /* as BG_WINDOW_ALWAYS, in some of the blocks */
} bg_window_rule;

/* Which token's row of the embedding is not trained. */
typedef enum {
    BG_PADDING_NONE,
    BG_PADDING_GIVEN,     /* "pad_token_id", where not null       */
    BG_PADDING_GIVEN_OR_1 /* the same, but 1 where the key is absent */
} bg_padding_rule;

typedef struct {
    const char *model_type;

    /* Keys of the sizes.  Absent or null: n_kv_heads as n_heads, d_head as d_model / n_heads,
     * d_ff as d_ff_default_ratio * d_model. */
    const char *d_model, *n_blocks, *n_heads, *n_kv_heads, *d_head, *d_ff, *max_positions;
    const char *norm_epsilon, *activation, *default_activation;
    size_t d_ff_default_ratio;                /* 0: the key is needed */
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
    bg_window_rule window;
    bg_padding_rule padding;

    bg_model_config fixed; /* everything no key decides, and the defaults of what one does */
} bg_family;

/* NULL if unknown. */
const bg_family *bg_family_find(const char *model_type);
/* "gpt2, gpt_neox, ..." into out. */
void bg_family_list(char *out, size_t n_bytes);

#endif /* BG_FORMATS_FAMILY_H */
