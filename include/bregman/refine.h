/* refine.h - (G_B + λ) x = g solved for queries' gradients beyond EK-FAC's block-diagonal answer (math.md M13).
 *
 * Conjugate gradients from 0, preconditioned with EK-FAC's inverse at the same λ: after one step x is proportional to
 * EK-FAC's answer.  LiSSA (Agarwal, Bullins & Hazan 2017; the baseline of the paper) is x <- x + (g - (G_b + λ) x) / s,
 * from g / s, here with all of the batch in each step and s an upper bound of the largest eigenvalue.
 */
#ifndef BG_REFINE_H
#define BG_REFINE_H

#include "bregman/gauss_newton.h"
#include "bregman/precondition.h"

typedef enum { BG_REFINE_NONE, BG_REFINE_CG, BG_REFINE_LISSA } bg_refinement;
extern const char *const bg_refinement_word[]; /* as options name them; NULL at the end */

typedef struct {
    bg_refinement kind;
    const bg_model *model;
    bg_gauss_newton *matrix;
    const bg_curvature *curvature; /* [n_tracked] λ of each site, and with CG the preconditioner */
    size_t steps;
    size_t n;          /* queries */
    const char **name; /* [n] for messages */
    float *const
        *vectors; /* [n][BG_REFINE_VECTORS x bg_vector_floats]; of each query the first holds g, which becomes x */
    float *room;  /* [2 x the largest P x M] */
} bg_refine_task;
enum { BG_REFINE_VECTORS = 4 };
size_t bg_refine_room_floats(const bg_model *m);

/* residual [out, n x (steps + 1)]: ‖g - (G_B + λ) x‖ over ‖g‖ after each step, in the norm that the preconditioner gives
 * (CG), or the plain one (LiSSA); 1 before the first.  A query whose gradient is 0 has x = 0 and residuals 0.
 * What a site's infinite λ says (all its gradients were 0) is kept to: x is 0 there.
 * Errors: BG_ENUMERIC where a direction's curvature is not positive or LiSSA diverges, naming query and step; those of
 * bg_gauss_newton_product.
 * Cost: `steps` products, LiSSA 10 more for s. */
bg_status bg_refine(const bg_refine_task *t, double *residual, bg_err *err) BG_MUST_CHECK;
/* A solve that is to come, with the curvature of so many sequences. */
typedef struct {
    bg_refinement kind;
    size_t steps;
    uint64_t sequences, rows; /* of all of them */
    size_t longest;           /* tokens of the longest */
} bg_refine_load;

/* Add what bg_refine computes of n queries, with micro-batches of up to max_rows rows: of sequences of one length. */
void bg_refine_cost(bg_cost *cost, const bg_model *m, const bg_refine_load *l, double n, size_t max_rows);

#endif /* BG_REFINE_H */
