/* site.h - a place in the model where a linear map reads an input and gets a gradient; users call it a module. */
#ifndef BG_SITE_H
#define BG_SITE_H

#include <stdbool.h>
#include <stddef.h>

#include "bregman/safetensors.h"

/* Linear modules of a block, in the order the forward pass meets them. */
typedef enum {
    BG_ROLE_Q,
    BG_ROLE_K,
    BG_ROLE_V,
    BG_ROLE_QKV,
    BG_ROLE_ATTENTION_OUT,
    BG_ROLE_GATE,
    BG_ROLE_UP,
    BG_ROLE_DOWN,
    BG_ROLES
} bg_role;

/* s = W ā (math.md M3): W is n_out x n_in, ā = [a; 1] where there is a bias. */
typedef struct {
    char name[160]; /* the module's path in transformers: "transformer.h.0.mlp.c_fc" */
    bg_role role;
    size_t block;
    size_t n_out;            /* P */
    size_t n_in;             /* without the homogeneous coordinate */
    size_t n_in1;            /* M: n_in + 1 with a bias, else n_in */
    const bg_tensor *weight; /* [n_out, n_in], or [n_in, n_out] if config.transposed */
    const float *bias;       /* [n_out], NULL without one */
    bool tracked;
    size_t input; /* index in bg_model.tracked of the first tracked module that reads the same input */
    size_t index; /* own index in bg_model.tracked */
} bg_site;

#endif /* BG_SITE_H */
