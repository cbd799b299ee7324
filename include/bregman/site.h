/* site.h - a place in the model where a linear map reads an input and gets a gradient; users call it a module.
 *
 * Sites lie in sections: the embedding, the blocks, the head.  Factor and work files, layer scores and the shares of a
 * pipeline go by sections.
 */
#ifndef BG_SITE_H
#define BG_SITE_H

#include <stdbool.h>
#include <stddef.h>

#include "bregman/model_config.h"
#include "bregman/safetensors.h"
#include "bregman/status.h"
#include "bregman/symmetric.h"

/* A section's number: a block's own, or one of these. */
#define BG_SECTION_EMBEDDING (SIZE_MAX - 2)
#define BG_SECTION_HEAD      (SIZE_MAX - 1)
/* "embedding", "block-012", "head": what files of a section are called. */
enum { BG_SECTION_NAME_BYTES = 32 };
void bg_section_name(size_t section, char out[BG_SECTION_NAME_BYTES]);

/* What a tap may want (bg_tap.wants). */
typedef enum {
    BG_SITE_LINEAR,    /* of a block                                                              */
    BG_SITE_EMBEDDING, /* tokens to vectors: its input is one-hot, and comes as the tokens' ids    */
    BG_SITE_HEAD,      /* vectors to logits: of the rows that are in the loss                      */
    BG_SITE_POSITION,  /* learned positions to vectors; its input comes as positions' numbers       */
    BG_SITE_NORM,      /* gain and bias of a norm: no linear map, and tracked only to be trained    */
    BG_SITE_KINDS
} bg_site_kind;

/* Linear maps of a block, in the order the forward pass meets them: by these its code finds them. */
typedef enum {
    BG_ROLE_Q,
    BG_ROLE_K,
    BG_ROLE_V,
    BG_ROLE_QKV,
    BG_ROLE_ATTENTION_OUT,
    BG_ROLE_ROUTER, /* of an MLP with experts: from its input to a logit for each */
    BG_ROLE_GATE,
    BG_ROLE_UP,
    BG_ROLE_DOWN,
    BG_ROLES
} bg_role;

/* A module that a PEFT adapter changes (adapter.h) computes W ā + B h with h = s A a: two more sites, whose inputs are
 * a and h. */
typedef enum { BG_PART_WEIGHT, BG_PART_LORA_A, BG_PART_LORA_B } bg_site_part;

/* s = W ā (math.md M3): W is n_out x n_in, ā = [a; 1] where there is a bias.  A norm has n_out gains and biases, and no
 * n_in. */
typedef struct bg_site {
    char name[160]; /* the module's path, as checkpoints name it: "transformer.h.0.mlp.c_fc" */
    bg_site_kind kind;
    bg_role role; /* of BG_SITE_LINEAR */
    bg_site_part part;
    size_t expert;  /* the expert of its block's MLP that it belongs to, from 1; 0: none, it reads all rows */
    size_t section; /* number */
    size_t layer;   /* of layer scores: see bg_model_layers */
    size_t n_out;   /* P */
    size_t n_in;    /* without the homogeneous coordinate */
    size_t n_in1;   /* M: n_in + 1 with a bias, else n_in */
    /* Shapes of the covariances A [M, M] and S [P, P] (M6), in how many diagonal blocks they are kept; n blocks of an
     * n x n matrix are its diagonal. */
    bg_symmetric a, s;
    const bg_tensor *weight; /* [n_out, n_in], or [n_in, n_out] of an embedding, or if config.transposed; NULL: a norm */
    const float *gain;       /* [n_out] of a norm, ... */
    bg_norm_kind norm;       /* ... which is of this kind */
    const float *bias;       /* [n_out], NULL without one */
    const struct bg_site *lora_a, *lora_b; /* the adapter's, behind this one in the model's table; NULL without one */
    float lora_scale;                      /* s */
    bool tracked;
    size_t input;  /* index in bg_model.tracked of the first tracked site that reads the same input */
    size_t keeper; /* and of the one that keeps A: the same, or where a block's experts share one the first of these */
    size_t index;  /* own index in bg_model.tracked */
} bg_site;

/* Are its weights stored as [n_in, n_out]? */
static inline bool bg_site_is_transposed(const bg_site *s, bool config_transposed)
{
    return s->kind == BG_SITE_EMBEDDING || s->kind == BG_SITE_POSITION ||
           (s->kind == BG_SITE_LINEAR && s->part == BG_PART_WEIGHT && config_transposed);
}

/* Is its input read again in backward? */
static inline bool bg_site_reads_input(const bg_site *s)
{
    return s != NULL && (s->tracked || (s->lora_a != NULL && (s->lora_a->tracked || s->lora_b->tracked)));
}

/* Does it keep the A of its input? Otherwise another site does, which reads the same or shares it. */
static inline bool bg_site_owns_input(const bg_site *s) { return s->keeper == s->index; }
/* Do its rows enter an A?  Otherwise those of another site do, which are the same. */
static inline bool bg_site_adds_input(const bg_site *s) { return s->input == s->index; }

#endif /* BG_SITE_H */
