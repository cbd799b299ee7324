/* tap.h - what a pass hands over at each tracked module, and to whom. */
#ifndef BG_TAP_H
#define BG_TAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bregman/batch.h"
#include "bregman/model.h"

/* What backward hands over for one tracked module and the whole batch; lent until the tap returns. */
typedef struct {
    const bg_module *module;
    const bg_batch *batch;
    const float *activation; /* a: [n_rows, M], the homogeneous 1 included where M has it */
    size_t ld_activation;
    const float *gradient; /* δ: [n_rows, P], of the loss summed over the batch */
    size_t ld_gradient;
} bg_pair;

/* Called once a tracked module and batch: in a block down, gate, up, attention out, q, k, v; top block first.
 * Modules that share an input come one after the other. */
typedef struct {
    bg_status (*pair)(void *self, const bg_pair *pair, bg_err *err);
    void *self;
} bg_tap;

typedef struct {
    bool sampled; /* labels from the model's own distribution (math.md M5) instead of `target` */
    uint64_t seed;
} bg_labels;

#endif /* BG_TAP_H */
