/* queries.h - the compressed queries of a file, as the score tap takes them (math.md M10).
 *
 * Of the modules of a share of the model.  The ranks of a node that have the same share hold them once (shared.h).
 */
#ifndef BG_QUERIES_H
#define BG_QUERIES_H

#include "bregman/share.h"
#include "bregman/shared.h"
#include "bregman/store.h"

/* How large they are, for a share. */
typedef struct {
    size_t n_queries;
    size_t columns; /* of the module that has most: queries times rank; at least 1 */
    size_t bytes;
} bg_queries_extent;

/* What they will be at a rank, of which a module keeps no more than its smaller side has. */
size_t bg_queries_columns(const bg_site *site, size_t rank);
bg_queries_extent bg_queries_expect(const bg_model *model, const bg_share *share, size_t n_queries, size_t rank);

/* One module's queries, side by side: query q has columns [q r, (q + 1) r). */
typedef struct {
    size_t r;
    const float *u; /* [P, Q r] left */
    const float *v; /* [M, Q r] right */
} bg_site_queries;

typedef struct {
    bg_queries_extent extent;
    char **id;             /* [n_queries] */
    bg_site_queries *site; /* [n_tracked], those of the share */
    bg_shared *memory;
} bg_queries;

/* Where they are, and for whom. */
typedef struct {
    const char *file;
    const bg_model *model;
    const bg_hash *model_hash; /* NULL: not compared */
    const bg_share *share;
    const char *scratch; /* folder that they lie in; NULL: memory */
} bg_queries_source;

/* Local.  Errors: those of opening; BG_ESTALE (made for another model: names both), BG_ESHAPE (of other sides). */
bg_status bg_queries_measure(const bg_queries_source *from, bg_queries_extent *out, bg_err *err) BG_MUST_CHECK;

/* Collective on place, whose ranks have the same share; an agreed status.  Errors: as above, BG_ENOMEM, BG_EIO.
 * Free with bg_queries_free. */
bg_status bg_queries_load(bg_queries **out, const bg_queries_source *from, MPI_Comm place, bg_err *err) BG_MUST_CHECK;
void bg_queries_free(bg_queries *q); /* local; NULL is fine */

/* Modules that a file was made for ("mlp", ...): what the model is to be opened with.  Caller frees with free(). */
bg_status bg_queries_modules(const char *file, char **modules, bg_err *err) BG_MUST_CHECK;

#endif /* BG_QUERIES_H */
