/* model.h - a mapped checkpoint: its weights, its linear modules, and which of them are tracked.
 *
 * Matrices stay in the maps of safetensors.h; one-dimensional tensors (norm gains, biases) are
 * widened to float32 once.  Local; read-only after opening (model_open.h).
 */
#ifndef BG_MODEL_H
#define BG_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bregman/adapter.h"
#include "bregman/model_config.h"
#include "bregman/hash.h"
#include "bregman/kernels.h"
#include "bregman/safetensors.h"
#include "bregman/site.h"
#include "bregman/status.h"
#include "bregman/tokens.h"

typedef struct {
    const float *gain, *bias; /* bias NULL: none */
    bg_site *site;            /* of a model that is trained, else NULL */
} bg_norm_weights;

typedef struct {
    const bg_site *site[BG_ROLES]; /* NULL: the family, or the block, has none */
    const bg_site *expert;         /* [n_experts][3] gate, up and down of each; NULL: its MLP is a plain one */
    bg_norm_weights attention_norm, mlp_norm, attention_out_norm, mlp_out_norm; /* gain NULL: none */
    bg_norm_weights q_norm, k_norm;
    bg_xielu xielu; /* of BG_ACT_XIELU */
} bg_block;

/* A section's number and its tracked sites, [first, end) of bg_model.tracked. */
typedef struct {
    size_t number, first, end;
} bg_section;

typedef struct bg_model {
    bg_model_config config;
    bg_tensors *tensors;
    bg_adapter *adapter; /* on top of them, or NULL */
    size_t n_sites;
    bg_site *site; /* all: the embedding, block by block in the order of bg_role, the head: the forward pass's order;
                      those of an adapter behind the module that they change */
    bool trained;  /* norms and positions are sites as well (model_open.h) */
    size_t n_tracked;
    bg_site **tracked; /* those that --modules selects, same order */
    size_t n_sections;
    bg_section *section;                 /* those with tracked sites, same order */
    size_t lowest_block;                 /* the first block that backward goes through; n_blocks: none */
    bg_block *block;                     /* [n_blocks] */
    const bg_tensor *position_embedding; /* [max_positions, d], or NULL; a site's weight if the model is trained */
    bg_norm_weights final_norm;
    char *dir;
    const char *base;           /* where config.json is: dir, or the adapter's base */
    float *small;               /* widened one-dimensional tensors */
    bg_tensor *sketched;        /* matrices of bg_model_sketch; NULL: they are in `tensors` */
    size_t n_sketched, n_small; /* how many of them, and of other numbers that a file would hold */
    size_t n_parameters;
} bg_model;

void bg_model_close(bg_model *m); /* NULL is fine */

/* Content hash of config.json and weights, and of the adapter if there is one: the model's identity in every file.
 * Reads all bytes. */
bg_status bg_model_hash(const bg_model *m, bg_hash *out, bg_err *err) BG_MUST_CHECK;

/* Hash of DIR/tokenizer.json, or of an adapter's base; "" where there is none. */
bg_status bg_model_tokenizer_hash(const bg_model *m, bg_hash *out, bg_err *err) BG_MUST_CHECK;
/* BG_ESTALE if both hashes are known and differ; `file` is what the tokens came from. */
bg_status bg_model_check_tokenizer(const bg_model *m, const char *tokens_hash, const char *file,
                                   bg_err *err) BG_MUST_CHECK;

/* BG_EFORMAT, naming the sequence and the key of config.json that limits it, if one of [begin, end) has more tokens
 * than the model takes: positions, and one more, as the last token is only a target and takes none. */
bg_status bg_model_check_lengths(const bg_model *m, const bg_tokens *t, uint64_t begin, uint64_t end,
                                 bg_err *err) BG_MUST_CHECK;

/* Weights that the model has, those of a tied head once: neither buffers nor tensors that it does not use. */
size_t bg_model_parameters(const bg_model *m);

/* Where the section of that number is in `section`; n_sections if nothing in it is tracked. */
size_t bg_model_section(const bg_model *m, size_t number);
/* Their numbers, as bg_units.group is; to be freed with bg_free. */
bg_status bg_model_section_numbers(const bg_model *m, size_t **out, bg_err *err) BG_MUST_CHECK;

/* The block at which a pass meets the section: its own; 0 of the embedding, n_blocks of the head. */
static inline size_t bg_model_section_block(const bg_model *m, size_t number)
{
    return number == BG_SECTION_EMBEDDING ? 0 : number == BG_SECTION_HEAD ? m->config.n_blocks : number;
}

/* Layers of layer scores: all blocks, before them the embedding if it is tracked, behind them the head if it is. */
size_t bg_model_layers(const bg_model *m);
/* "embedding", "0", "1", ... "head". */
void bg_model_layer_name(const bg_model *m, size_t layer, char out[BG_SECTION_NAME_BYTES]);

/* Their matrices, [vocab, d], are one where config.tied_head. */
static inline const bg_site *bg_model_embedding(const bg_model *m) { return &m->site[0]; }
static inline const bg_site *bg_model_head(const bg_model *m) { return &m->site[m->n_sites - 1]; }
/* NULL where they are not tracked. */
static inline const bg_site *bg_model_tracked_embedding(const bg_model *m)
{
    return m->tracked[0]->kind == BG_SITE_EMBEDDING ? m->tracked[0] : NULL;
}
static inline const bg_site *bg_model_tracked_head(const bg_model *m)
{
    const bg_site *last = m->tracked[m->n_tracked - 1];
    return last->kind == BG_SITE_HEAD ? last : NULL;
}
/* Does a tracked site come before this one?  Backward then needs the gradient at its input. */
static inline bool bg_model_goes_deeper(const bg_model *m, const bg_site *site) { return m->tracked[0] < site; }
static inline const bg_site *bg_block_expert(const bg_block *b, size_t e, bg_role role)
{
    return b->expert + 3 * e + (role - BG_ROLE_GATE);
}
/* Of so many rows of a block, those that a site of it reads: of experts on average. */
double bg_model_site_rows(const bg_model *m, const bg_site *site, double rows);
/* The first of a block's modules that read the attention's input, or the MLP's. */
const bg_site *bg_block_first_attention(const bg_block *b);
const bg_site *bg_block_first_mlp(const bg_block *b);

#endif /* BG_MODEL_H */
