/* tap.h - to whom a pass hands over the pairs of tracked sites. */
#ifndef BG_TAP_H
#define BG_TAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bregman/pair.h"

/* Called once a tracked site of a wanted kind and batch, from the top: the head; in a block down, gate, up (of experts
 * from the last to the first, with the rows that each has read, maybe none; then the router), attention out, q, k, v;
 * the embedding.  Sites that share an input come one after the other. Of a model that is trained (model_open.h) the head
 * and the final norm come once for each chunk of logits, and a norm that several heads share once for each of them. */
typedef struct {
    bg_status (*pair)(void *self, const bg_pair *pair, bg_err *err);
    void *self;
    unsigned wants; /* bits BG_WANTS(kind) */
} bg_tap;
#define BG_WANTS(kind) (1U << (kind))
#define BG_WANTS_ALL   (BG_WANTS(BG_SITE_KINDS) - 1)
/* Linear maps: sites of which there are covariances. */
#define BG_WANTS_MAPS (BG_WANTS(BG_SITE_LINEAR) | BG_WANTS(BG_SITE_EMBEDDING) | BG_WANTS(BG_SITE_HEAD))

typedef struct {
    bool sampled; /* labels from the model's own distribution (math.md M5) instead of `target` */
    uint64_t seed;
} bg_labels;

#endif /* BG_TAP_H */
