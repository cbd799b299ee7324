/* model_save.h - a model as a Hugging Face directory: config.json, model.safetensors and its tokenizer's files. */
#ifndef BG_MODEL_SAVE_H
#define BG_MODEL_SAVE_H

#include "bregman/parameters.h"

/* Write FOLDER (made if need be) from the parameters as they are, with what else the model's own directory has: weights
 * that are not trained, the rest of config.json, the tokenizer.  Files are published (plain.h), the weights last.
 *   dtype [in]  BG_ST_F32 or BG_ST_BF16 (rounded to nearest, ties to even), of all weights
 * Errors: BG_EIO naming the file, BG_EFORMAT for a config.json that cannot be read. */
bg_status bg_model_save(const bg_parameters *p, const char *folder, bg_st_dtype dtype, bg_err *err) BG_MUST_CHECK;

#endif /* BG_MODEL_SAVE_H */
