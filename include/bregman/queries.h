/* queries.h - the compressed queries of a file, as the score tap takes them (math.md M10).
 *
 * Of the modules of a share of the model.  The ranks of a node that have the same share hold them once (shared.h).
 * They are gone through in groups: all products of a group's columns side by side are as fast as those of all queries,
 * and the memory for them is bounded.  A module's groups depend on the number of queries and their rank only, so that
 * a limit of memory changes no product, and no score.
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
size_t bg_queries_columns(const bg_site *site, size_t most_columns);
bg_queries_extent bg_queries_expect(const bg_model *model, const bg_share *share, size_t n_queries,
                                    size_t most_columns);

enum { BG_GROUP_COLUMNS = 1024 }; /* of a group at most, if it has more than one query */

/* Queries [first, first + n) of one module, side by side: the i-th of them has columns [i r, (i + 1) r). */
typedef struct {
    size_t first, n, r;
    const float *u; /* [P, n r] left */
    const float *v; /* [M, n r] right */
} bg_query_group;

/* One module's queries, group after group, each u before v. */
typedef struct {
    size_t r;
    float *x;
} bg_site_queries;

typedef struct {
    bg_queries_extent extent;
    char **id;             /* [n_queries] */
    double *loss;          /* [n_queries] of their completions, nats; NULL: the file does not say */
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

/* The group of a module's queries that begins with query `first`, 0 or the end of the group before; and it is not
 * needed for a while (on scratch its pages may leave memory). */
bg_query_group bg_queries_group(const bg_queries *q, const bg_site *site, size_t first);
void bg_queries_let_go(const bg_queries *q, const bg_site *site, const bg_query_group *g);
/* Queries of r columns in a group, where so many are left. */
size_t bg_queries_in_group(size_t r, size_t n_left);
/* Columns of the largest group, where the largest module has this many of all queries. */
size_t bg_queries_group_columns(const bg_queries_extent *q);

/* What a file says of itself: the modules that it was made for ("mlp", ...), the tokenizer and file of its queries, and
 * its own fingerprint.  All but the first are NULL where it does not say.  Clear with bg_queries_about_clear. */
typedef struct {
    char *modules, *tokenizer_hash, *queries_hash, *fingerprint;
} bg_queries_about;
bg_status bg_queries_describe(bg_queries_about *out, const char *file, bg_err *err) BG_MUST_CHECK;
void bg_queries_about_clear(bg_queries_about *a);

#endif /* BG_QUERIES_H */
