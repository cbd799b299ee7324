/* eigenbasis.h - the eigenbases of a site's covariances, and pairs in them (math.md M7, M8). */
#ifndef BG_EIGENBASIS_H
#define BG_EIGENBASIS_H

#include "bregman/blockdiag.h"
#include "bregman/pair.h"
#include "bregman/share.h"

/* As lent to the taps that work in them. */
typedef struct {
    bg_blockdiag q_a; /* [M] activation eigenvectors in columns */
    bg_blockdiag q_s; /* [P] gradient eigenvectors in columns */
} bg_eigenbasis;
/* Bytes of the bases of tracked sites, in their shapes; inputs that sites share count once. */
size_t bg_eigenbasis_bytes(const bg_model *model, bg_site_range sites);

/* Room for the rotated rows of any of these sites. */
typedef struct {
    float *a, *d; /* [rows, largest M], [rows, largest P] */
} bg_rotated;
/* Floats of a row of each.  A side kept as a diagonal is in its basis already, and takes none. */
typedef struct {
    size_t a, d;
} bg_rotated_widths;
bg_rotated_widths bg_eigenbasis_widths(const bg_model *model, bg_site_range sites);

/* The pair with rows Q_Aᵀ a and Q_Sᵀ δ, which lie in `room`.
 *   has_a [in]  room->a is that of this input already */
bg_pair bg_eigenbasis_rotate(const bg_eigenbasis *q, const bg_pair *pair, const bg_rotated *room, bool has_a);

/* Of so many rows of the site. */
void bg_eigenbasis_rotate_cost(bg_cost *cost, const bg_site *site, bool has_a, double rows);

#endif /* BG_EIGENBASIS_H */
