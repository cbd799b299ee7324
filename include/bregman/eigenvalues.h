/* eigenvalues.h - the tap that sums squares in the eigenbases (math.md M8). */
#ifndef BG_EIGENVALUES_H
#define BG_EIGENVALUES_H

#include <stdbool.h>
#include <stddef.h>

#include "bregman/factors.h"
#include "bregman/pass.h"
#include "bregman/share.h"
#include "bregman/store.h"

typedef struct bg_eigenvalues bg_eigenvalues;
/* Sums of (Q_Sᵀ G_z Q_A)∘² for the tracked sites of a run; with `diagonal` also of G_z∘² (the diagonal Fisher, a
 * baseline). */
typedef struct {
    bg_site_range sites;
    const bg_eigenbasis *basis; /* [n_tracked] lent, filled for the run; sites that share their input share q_a */
    bool diagonal;
    size_t max_rows;     /* of a micro-batch */
    const char *scratch; /* as for bg_covariance_new */
} bg_eigenvalues_task;
bg_status bg_eigenvalues_new(bg_eigenvalues **out, const bg_model *model, const bg_eigenvalues_task *task,
                             bg_err *err) BG_MUST_CHECK;
void bg_eigenvalues_free(bg_eigenvalues *e);
void bg_eigenvalues_clear(bg_eigenvalues *e);
/* Call before each batch: forgets the rotated input of the batch before. */
void bg_eigenvalues_begin_batch(bg_eigenvalues *e);
bg_status bg_eigenvalues_pair(void *eigenvalues, const bg_pair *pair, bg_err *err);
/* Write a block's MODULE/lambda_sum and, if kept, MODULE/diagonal_sum; or read them back. */
bg_status bg_eigenvalues_write(const bg_eigenvalues *e, size_t block, bg_store *s, bg_err *err) BG_MUST_CHECK;
bg_status bg_eigenvalues_read(bg_eigenvalues *e, size_t block, const bg_store *s, bg_err *err) BG_MUST_CHECK;
/* Of the pairs of such a batch. */
void bg_eigenvalues_cost(bg_cost *cost, const bg_model *model, bg_site_range sites, size_t k, bool diagonal,
                         const bg_batch_shape *b);
/* The sums, and room to work in; the bases are the caller's (bg_eigenbasis_bytes). */
size_t bg_eigenvalues_bytes(const bg_model *model, bg_site_range sites, bool diagonal);
size_t bg_eigenvalues_room_bytes(const bg_model *model, bg_site_range sites, bool diagonal, size_t max_rows);

#endif /* BG_EIGENVALUES_H */
