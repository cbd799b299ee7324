/* model_open.h - a model from a Hugging Face directory, or a sketch of one from its sizes alone. */
#ifndef BG_MODEL_OPEN_H
#define BG_MODEL_OPEN_H

#include "bregman/model.h"

/* Open DIR/config.json and its weights, or a PEFT adapter's folder with its base (adapter.h); DIR@STEP is a checkpoint
 * of a training run (checkpoint.h).  `modules`: words out of "mlp", "attention", "all" (both), "router", "adapter",
 * "embedding" and "head", with commas between them, and "shared", with which a block's experts have one A; or an
 * extended regular expression matched against all modules' names. "adapter" are both matrices of each module that an
 * adapter changes, "MODULE.lora_A" and "MODULE.lora_B"; an expression that matches MODULE too does not mean them. A
 * head that is tied to the embedding is a site as if it had a matrix of its own, and so is the embedding.
 *
 * The head, as in transformers 5: where config.json ties it to the embedding but the weights hold both with different
 * values, it is not tied, which is logged; where they hold one of the two, that one is both.  Weights that the
 * model does not use, buffers aside, are logged too.
 *
 * Of an MLP with experts each expert's matrices are sites, one expert's gate, up and down after the other's.
 *
 * Checks every tensor's shape against the config, and its one-dimensional tensors for NaN/Inf
 * (matrices are checked by what they do to the loss: see bg_pass_run).
 * Errors: BG_EIO, BG_EFORMAT, BG_ESHAPE naming file and tensor; BG_EARG if nothing matches. */
bg_status bg_model_open(bg_model **out, const char *dir, const char *modules, bg_err *err) BG_MUST_CHECK;

/* To be trained: norms and learned positions are sites as well, and may be tracked, by their names or by the words
 * "norm", "position" and "everything".  A model with experts is refused (BG_EFORMAT).  bg_parameters_own (parameters.h)
 * makes what is tracked the caller's to change. No covariances are taken of such a model: a.k and s.k of its sites are
 * 0. */
bg_status bg_model_open_trained(bg_model **out, const char *dir, const char *modules, bg_err *err) BG_MUST_CHECK;

/* The same from DIR/config.json alone, without data: bg_parameters_own gives it memory. */
bg_status bg_model_from_config(bg_model **out, const char *dir, const char *modules, bg_err *err) BG_MUST_CHECK;

/* A model of which there is a config but no weights, to be asked about sizes, costs and shares.
 * Matrices have name, shape and dtype, but no data; gains and biases are ones.  It must not be run unless
 * the caller points `sketched[i].data` at something, and has no hash.  Close with bg_model_close.
 * Errors: BG_EFORMAT (names too long, sizes beyond any model's), BG_EARG if `modules` matches nothing. */
bg_status bg_model_sketch(bg_model **out, const bg_model_config *c, const char *modules, bg_st_dtype dtype,
                          bg_err *err) BG_MUST_CHECK;
/* The same as if bg_model_from_config had opened it. */
bg_status bg_model_sketch_trained(bg_model **out, const bg_model_config *c, const char *modules,
                                  bg_err *err) BG_MUST_CHECK;

#endif /* BG_MODEL_OPEN_H */
