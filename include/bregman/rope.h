/* rope.h - rotary position embeddings: their frequencies. */
#ifndef BG_ROPE_H
#define BG_ROPE_H

#include "bregman/model_config.h"

/* Rotary frequencies, radians per position: freq [out, rotary_dims / 2], after scaling ("linear": / factor; "llama3"
 * and "yarn": transformers' _compute_llama3_parameters and _compute_yarn_parameters).  No-op without rope. */
void bg_rope_frequencies(const bg_rope *rope, size_t rotary_dims, double *freq);

#endif /* BG_ROPE_H */
