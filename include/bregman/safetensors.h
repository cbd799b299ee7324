/* safetensors.h - map the tensors of a safetensors file, or of a Hugging Face
 * directory with one file or a sharded set with its index.  Nothing is copied:
 * tensors point into read-only maps that ranks of a node share.
 */
#ifndef BG_SAFETENSORS_H
#define BG_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "bregman/hash.h"
#include "bregman/tensor.h"

typedef struct bg_tensors bg_tensors;

/* Open one .safetensors file. */
bg_status bg_tensors_open_file(bg_tensors **out, const char *path, bg_err *err) BG_MUST_CHECK;

/* Open DIR/model.safetensors, or the files DIR/model.safetensors.index.json names (every
 * tensor of the index must be in the file it names), which may be in folders inside DIR.
 *
 * Checks before any tensor is believed: header length within the file (and <= 100 MB), valid
 * JSON, offsets ascending without overlap or gaps past the end, begin <= end, shape x
 * dtype size = byte length (overflow-checked), names unique over files.
 * Errors: BG_EIO, BG_EFORMAT, naming the file and the tensor. */
bg_status bg_tensors_open_model(bg_tensors **out, const char *dir, bg_err *err) BG_MUST_CHECK;
void bg_tensors_close(bg_tensors *t); /* NULL is fine; unmaps */

size_t bg_tensors_count(const bg_tensors *t);
const bg_tensor *bg_tensors_at(const bg_tensors *t, size_t i);           /* i < count; sorted by name */
const bg_tensor *bg_tensors_find(const bg_tensors *t, const char *name); /* NULL if absent; O(log n) */

/* Content hash over the files' names (within DIR) and contents, in name order.
 * Reads all bytes once.  BG_EIO naming the file. */
bg_status bg_tensors_hash(const bg_tensors *t, bg_hash *out, bg_err *err) BG_MUST_CHECK;

#endif /* BG_SAFETENSORS_H */
