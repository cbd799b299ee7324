/* adapter.h - a PEFT LoRA folder: adapter_config.json and adapter_model.safetensors, on top of a base model.
 *
 * W x + b of an adapted module becomes W x + b + s B A x, with A [r, n_in] and B [n_out, r], s = lora_alpha / r, or
 * lora_alpha / sqrt(r) with use_rslora; rank_pattern and alpha_pattern give some modules an r and alpha of their own.
 * A and B are as PEFT has them whatever layout W is stored in, so fan_in_fan_out says nothing new.  Tensors that the
 * adapter holds in full (modules_to_save) stand in the base's place.
 * What changes the base in another way is refused by name: other PEFT types, DoRA, biases, a base that the adapter's
 * initialisation has changed, any key that is not known here and is set.
 */
#ifndef BG_ADAPTER_H
#define BG_ADAPTER_H

#include <stdbool.h>

#include "bregman/hash.h"
#include "bregman/safetensors.h"

typedef struct bg_adapter bg_adapter;

/* What is added to one module; a NULL: nothing. */
typedef struct {
    const bg_tensor *a, *b;
    float scale;
} bg_lora;

/* Does the folder hold an adapter_config.json? */
bool bg_adapter_is(const char *dir);

/* *out NULL if DIR is no adapter.  The base is DIR/base if that is there (a link, for example), else the folder that
 * base_model_name_or_path names, as seen from the working folder.
 * Errors: BG_EIO, BG_EFORMAT, naming the file and the key or the tensor; where the base is nowhere here, how to say it.
 */
bg_status bg_adapter_open(bg_adapter **out, const char *dir, bg_err *err) BG_MUST_CHECK;
void bg_adapter_close(bg_adapter *a); /* NULL is fine */

const char *bg_adapter_base(const bg_adapter *a); /* folder of the base model */
size_t bg_adapter_modules(const bg_adapter *a);   /* that have an A */
const bg_tensors *bg_adapter_tensors(const bg_adapter *a);

/* What the adapter does to a module of the base, "transformer.h.0.attn.c_attn"; names in the adapter may lack `root`,
 * "transformer.".  BG_EFORMAT without its B, or if r is not adapter_config.json's; BG_ESHAPE if the base's module is of
 * another shape. */
bg_status bg_adapter_find(bg_adapter *a, const char *module, const char *root, const size_t shape[2], bg_lora *out,
                          bg_err *err) BG_MUST_CHECK;
/* The tensor that stands in place of the base's of that name, or NULL. */
const bg_tensor *bg_adapter_replacement(bg_adapter *a, const char *path, const char *root);

/* After all modules were asked for: BG_EFORMAT naming a tensor that no module has taken. */
bg_status bg_adapter_check_taken(const bg_adapter *a, bg_err *err) BG_MUST_CHECK;

/* Content hash of both files. */
bg_status bg_adapter_hash(const bg_adapter *a, bg_hash *out, bg_err *err) BG_MUST_CHECK;

#endif /* BG_ADAPTER_H */
