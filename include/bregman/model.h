/* model.h - a mapped checkpoint: its weights, its linear modules, and which of them are tracked.
 *
 * Matrices stay in the maps of safetensors.h; one-dimensional tensors (norm gains, biases) are
 * widened to float32 once.  Local; read-only after opening.
 */
#ifndef BG_MODEL_H
#define BG_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bregman/model_config.h"
#include "bregman/hash.h"
#include "bregman/safetensors.h"
#include "bregman/site.h"
#include "bregman/status.h"
#include "bregman/tokens.h"

typedef struct {
    const float *gain, *bias;
} bg_norm_weights; /* bias NULL: none */

typedef struct {
    const bg_site *site[BG_ROLES]; /* NULL: the family has none */
    bg_norm_weights attention_norm, mlp_norm, q_norm, k_norm;
} bg_block;

/* A section's number and its tracked sites, [first, end) of bg_model.tracked. */
typedef struct {
    size_t number, first, end;
} bg_section;

typedef struct bg_model {
    bg_model_config config;
    bg_tensors *tensors;
    size_t n_sites;
    bg_site *site; /* all: the embedding, block by block in the order of bg_role, the head: the forward pass's order */
    size_t n_tracked;
    bg_site **tracked; /* those that --modules selects, same order */
    size_t n_sections;
    bg_section *section;                 /* those with tracked sites, same order */
    size_t lowest_block;                 /* the first block that backward goes through; n_blocks: none */
    bg_block *block;                     /* [n_blocks] */
    const bg_tensor *position_embedding; /* [max_positions, d], or NULL */
    bg_norm_weights final_norm;
    char *dir;
    float *small;               /* widened one-dimensional tensors */
    bg_tensor *sketched;        /* matrices of bg_model_sketch; NULL: they are in `tensors` */
    size_t n_sketched, n_small; /* how many of them, and floats of `small` */
} bg_model;

/* Open DIR/config.json and its weights.  `modules`: words out of "mlp", "attention", "all" (both), "embedding" and
 * "head", with commas between them, or an extended regular expression matched against all modules' names.
 * A head that is tied to the embedding is a site as if it had a matrix of its own, and so is the embedding.
 *
 * The head, as in transformers 5: where config.json ties it to the embedding but the weights hold both with different
 * values, it is not tied, which is logged; where they hold one of the two, that one is both.  Weights that the
 * model does not use, buffers aside, are logged too.
 *
 * Checks every tensor's shape against the config, and its one-dimensional tensors for NaN/Inf
 * (matrices are checked by what they do to the loss: see bg_pass_run).
 * Errors: BG_EIO, BG_EFORMAT, BG_ESHAPE naming file and tensor; BG_EARG if nothing matches. */
bg_status bg_model_open(bg_model **out, const char *dir, const char *modules, bg_err *err) BG_MUST_CHECK;
void bg_model_close(bg_model *m); /* NULL is fine */

/* A model of which there is a config but no weights, to be asked about sizes, costs and shares.
 * Matrices have name, shape and dtype, but no data; gains and biases are ones.  It must not be run unless
 * the caller points `sketched[i].data` at something, and has no hash.  Close with bg_model_close.
 * Errors: BG_EFORMAT (names too long, sizes beyond any model's), BG_EARG if `modules` matches nothing. */
bg_status bg_model_sketch(bg_model **out, const bg_model_config *c, const char *modules, bg_st_dtype dtype,
                          bg_err *err) BG_MUST_CHECK;

/* Content hash of config.json and weights: the model's identity in every file.  Reads all bytes. */
bg_status bg_model_hash(const bg_model *m, bg_hash *out, bg_err *err) BG_MUST_CHECK;

/* Hash of DIR/tokenizer.json, or "" where there is none. */
bg_status bg_model_tokenizer_hash(const bg_model *m, bg_hash *out, bg_err *err) BG_MUST_CHECK;
/* BG_ESTALE if both hashes are known and differ; `file` is what the tokens came from. */
bg_status bg_model_check_tokenizer(const bg_model *m, const char *tokens_hash, const char *file,
                                   bg_err *err) BG_MUST_CHECK;

/* BG_EFORMAT, naming the sequence and the key of config.json that limits it, if one of [begin, end) has more tokens
 * than the model takes: positions, and one more, as the last token is only a target and takes none. */
bg_status bg_model_check_lengths(const bg_model *m, const bg_tokens *t, uint64_t begin, uint64_t end,
                                 bg_err *err) BG_MUST_CHECK;

size_t bg_model_parameters(const bg_model *m);

/* Choose the tracked sites, with their sections and layers; part of opening.  Errors: BG_EARG. */
bg_status bg_model_track(bg_model *m, const char *modules, bg_err *err) BG_MUST_CHECK;
/* How the tracked sites' covariances are kept (bg_site.a, .s), as fit_factors' options say: in k diagonal blocks, but
 * the embedding's A, and unless head_blocks the head's S, as a diagonal.  A model is opened with k = 1.
 * Errors: BG_EARG if a side has fewer than k rows. */
bg_status bg_model_set_shapes(bg_model *m, size_t k, bool head_blocks, bg_err *err) BG_MUST_CHECK;

/* Where the section of that number is in `section`; n_sections if nothing in it is tracked. */
size_t bg_model_section(const bg_model *m, size_t number);

/* Layers of layer scores: all blocks, before them the embedding if it is tracked, behind them the head if it is. */
size_t bg_model_layers(const bg_model *m);

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
/* The first of a block's modules that read the attention's input, or the MLP's. */
const bg_site *bg_block_first_attention(const bg_block *b);
const bg_site *bg_block_first_mlp(const bg_block *b);

#endif /* BG_MODEL_H */
