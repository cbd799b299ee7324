/* costs.h - what fit_factors holds, computes and writes: for itself and for plan. */
#ifndef BG_STAGES_FIT_FACTORS_COSTS_H
#define BG_STAGES_FIT_FACTORS_COSTS_H

#include "bregman/blockdiag.h"
#include "bregman/symmetric.h"
#include "bregman/workload.h"

extern const bg_stage_costs fit_costs;

/* Sequences of a work unit for a sum over n of them. */
uint64_t fit_unit(uint64_t n, uint64_t asked);

/* The sections of a share that pass `pass` of `passes` is for. */
bg_section_range fit_pass_sections(const bg_model *m, const bg_share *s, size_t pass, size_t passes);

/* ---- who decomposes what ---- */

typedef struct {
    const bg_site *site;
    bg_factor_side side;
    bg_symmetric sym;
} fit_matrix;
/* Of its largest diagonal block. */
static inline size_t fit_side(bg_symmetric s) { return bg_block_width(s.n, s.k); }

/* List them, out [2 n_tracked]: larger first; then in order of the modules, the inputs' side first. */
size_t fit_list_matrices(const bg_model *m, fit_matrix *out);

/* Matrices whose blocks have a side above --subgrid-side go to groups of consecutive ranks, the others to single ranks;
 * both largest first.  All ranks make the same division. */
typedef struct {
    size_t n_ranks;
    size_t n_large, largest; /* matrices for groups, and the side of the largest one's blocks */
    size_t largest_alone;    /* of those for single ranks */
    size_t n_groups, group_size;
} fit_division;
fit_division fit_divide(const bg_workload *w);
/* The first rank and the number of ranks that get matrix i, of blocks k, of the list.
 *   load [in,out, n_ranks]  what each has to do so far, from 0 */
typedef struct {
    size_t first, ranks;
} fit_place;
fit_place fit_deal(const fit_division *d, size_t i, size_t side, double *load);

/* Floats of a matrix's sums that are held at a time. */
size_t fit_sum_capacity(bg_symmetric sym);

#endif /* BG_STAGES_FIT_FACTORS_COSTS_H */
