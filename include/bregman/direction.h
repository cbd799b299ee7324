/* direction.h - a direction in the weights of one tracked site: math.md M13's V. */
#ifndef BG_DIRECTION_H
#define BG_DIRECTION_H

#include <stddef.h>

/* V [P, M]: left rightᵀ, as compressed queries are, or dense. */
typedef struct {
    size_t rank;        /* columns of left and right; 0: dense */
    const float *left;  /* [P, rank], or V [P, M] itself; NULL: the site's weights do not move */
    const float *right; /* [M, rank] */
    size_t ld_left, ld_right;
} bg_direction;

#endif /* BG_DIRECTION_H */
