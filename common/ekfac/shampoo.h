/* shampoo.h - Shampoo's two sums over sequences' gradients (math.md M6), a sequence at a time:
 * left [P, P] += G Gᵀ and right [M, M] += Gᵀ G, G = Σ_t δ_t a_tᵀ over the sequence's T rows, in the site's shapes.
 *
 * G itself is formed where that takes fewer FLOPs (2 T P M, then P M² + M P² for the sums' triangles); else the gram
 * matrices of its rows take its place, G Gᵀ = δᵀ (a aᵀ) δ and Gᵀ G = aᵀ (δ δᵀ) a (4 T² (P + M), then T (P² + M²)).  Of
 * one-hot inputs the columns of G are sums of rows of δ, at most T of them: T P². */
#ifndef BG_SHAMPOO_H
#define BG_SHAMPOO_H

#include <stddef.h>

#include "bregman/cost.h"
#include "bregman/pair.h"

/* Floats to work in, of a site whose sequences have so many rows at most. */
size_t bg_shampoo_floats(const bg_site *site, size_t rows);
/* Sequence i of the pair, to sums of bg_symmetric_floats; room: bg_shampoo_floats of its rows, at least. */
void bg_shampoo_add(const bg_pair *pair, size_t i, float *room, float *left, float *right);
/* Of so many sequences of so many rows each. */
void bg_shampoo_cost(bg_cost *cost, const bg_site *site, size_t rows, double sequences);

#endif /* BG_SHAMPOO_H */
