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

typedef struct bg_model {
    bg_model_config config;
    bg_tensors *tensors;
    size_t n_sites;
    bg_site *site; /* all linear modules, block by block, in the order of bg_role: the forward pass's */
    size_t n_tracked;
    bg_site **tracked;                   /* those that --modules selects, same order */
    size_t lowest_block;                 /* the first block with a tracked module */
    bg_block *block;                     /* [n_blocks] */
    const bg_tensor *embedding;          /* [vocab, d] */
    const bg_tensor *position_embedding; /* [max_positions, d], or NULL */
    const bg_tensor *head;               /* [vocab, d]; the embedding if tied */
    const float *head_bias;
    bg_norm_weights final_norm;
    char *dir;
    float *small;               /* widened one-dimensional tensors */
    bg_tensor *sketched;        /* matrices of bg_model_sketch; NULL: they are in `tensors` */
    size_t n_sketched, n_small; /* how many of them, and floats of `small` */
} bg_model;

/* Open DIR/config.json and its weights.  `modules`: "mlp", "attention", "all", or an extended
 * regular expression matched against module names.
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

/* Does a tracked module come before this one?  Backward then needs the gradient at its input. */
static inline bool bg_model_goes_deeper(const bg_model *m, const bg_site *site) { return m->tracked[0] < site; }
/* The first of a block's modules that read the attention's input, or the MLP's. */
const bg_site *bg_block_first_attention(const bg_block *b);
const bg_site *bg_block_first_mlp(const bg_block *b);

#endif /* BG_MODEL_H */
