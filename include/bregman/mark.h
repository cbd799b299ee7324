/* mark.h - what a file of sequences says of a token beyond its id. */
#ifndef BG_MARK_H
#define BG_MARK_H

#include <stdbool.h>
#include <stdint.h>

/* It is in the loss when it is predicted; a document begins with it, which reads nothing before it, and which nothing
 * before it predicts; positions begin at 0 with it; its log-probability is subtracted. */
enum { BG_IN_LOSS = 1, BG_BEGINS = 2, BG_RESTARTS = 4, BG_MINUS = 8 };
static inline bool bg_mark_in_loss(uint8_t mark) { return (mark & (BG_IN_LOSS | BG_BEGINS)) == BG_IN_LOSS; }

#endif /* BG_MARK_H */
