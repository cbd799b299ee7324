#include "bregman/queries.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/comm.h"
#include "bregman/log.h"
#include "bregman/memory.h"
#include "bregman/stop.h"

static bg_status check_model(const bg_store *f, const bg_queries_source *from, bg_err *err)
{
    char *text = NULL;
    if (from->model_hash == NULL)
        return BG_OK;
    bg_status st = bg_store_get_text(f, "/", "model_hash", &text, NULL, err);
    if (st == BG_OK && strcmp(text, from->model_hash->hex) != 0)
        st = BG_FAIL(err, BG_ESTALE, "%s was made with another model (%.8s) than %s (%.8s)", bg_store_path(f), text,
                     from->model->dir, from->model_hash->hex);
    free(text);
    return st;
}

/* A dataset [Q, n, r] of a module. */
typedef struct {
    const bg_site *site;
    const char *name;
    size_t n;
} side;

static side left_of(const bg_site *site) { return (side){ site, "left", site->n_out }; }
static side right_of(const bg_site *site) { return (side){ site, "right", site->n_in1 }; }

static bg_status measure_side(const bg_store *f, side of, size_t *r, bg_err *err)
{
    char path[BG_PATH_BYTES];
    uint64_t dims[3] = { 0 };
    bg_status st = bg_path(path, err, "%s/%s", of.site->name, of.name);
    if (st == BG_OK)
        st = bg_store_dims(f, path, 3, dims, err);
    if (st == BG_OK && dims[1] != of.n)
        st = BG_FAIL(err, BG_ESHAPE, "%s: %s has a side of %" PRIu64 ", but the model makes it %zu", bg_store_path(f),
                     path, dims[1], of.n);
    *r = dims[2];
    return st;
}

size_t bg_queries_columns(const bg_site *site, size_t most_columns)
{
    size_t least = site->n_out < site->n_in1 ? site->n_out : site->n_in1;
    return most_columns < least ? most_columns : least;
}

static void add_site(bg_queries_extent *e, const bg_site *site, size_t r)
{
    size_t columns = e->n_queries * r;
    e->columns = columns > e->columns ? columns : e->columns;
    e->bytes += columns * (site->n_out + site->n_in1) * sizeof(float);
}

bg_queries_extent bg_queries_expect(const bg_model *model, const bg_share *share, size_t n_queries, size_t most_columns)
{
    bg_queries_extent e = { .n_queries = n_queries, .columns = 1 };
    for (size_t i = share->sites.first; i < share->sites.end; i++)
        add_site(&e, model->tracked[i], bg_queries_columns(model->tracked[i], most_columns));
    return e;
}

/* module [n_tracked, may be NULL]: ranks. */
static bg_status measure(const bg_store *f, const bg_queries_source *from, bg_queries_extent *out,
                         bg_site_queries *module, bg_err *err)
{
    uint64_t n_queries = 0;
    bg_status st = bg_store_dims(f, "id", 1, &n_queries, err);
    *out = (bg_queries_extent){ .n_queries = n_queries, .columns = 1 };
    for (size_t i = from->share->sites.first; i < from->share->sites.end && st == BG_OK; i++) {
        const bg_site *site = from->model->tracked[i];
        size_t r = 0;
        st = measure_side(f, left_of(site), &r, err);
        if (st == BG_OK)
            st = measure_side(f, right_of(site), &r, err);
        add_site(out, site, r);
        if (module != NULL)
            module[i].r = r;
    }
    return st;
}

bg_status bg_queries_measure(const bg_queries_source *from, bg_queries_extent *out, bg_err *err)
{
    bg_store *f = NULL;
    bg_status st = bg_store_open(&f, from->file, "bregman/compressed", err);
    if (st == BG_OK)
        st = check_model(f, from, err);
    if (st == BG_OK)
        st = measure(f, from, out, NULL, err);
    bg_store_close(f);
    return st;
}

size_t bg_queries_in_group(size_t r, size_t n_left)
{
    size_t most = r > 0 && r < BG_GROUP_COLUMNS ? BG_GROUP_COLUMNS / r : 1;
    return n_left < most ? n_left : most;
}

bg_query_group bg_queries_group(const bg_queries *q, const bg_site *site, size_t first)
{
    const bg_site_queries *m = &q->site[site->index];
    bg_query_group g = { first, bg_queries_in_group(m->r, q->extent.n_queries - first), m->r, NULL, NULL };
    g.u = m->x + first * m->r * (site->n_out + site->n_in1);
    g.v = g.u + g.n * m->r * site->n_out;
    return g;
}

size_t bg_queries_group_columns(const bg_queries_extent *q)
{
    size_t r = q->columns / q->n_queries, most = r > BG_GROUP_COLUMNS ? r : BG_GROUP_COLUMNS;
    return q->columns < most ? q->columns : most;
}

void bg_queries_let_go(const bg_queries *q, const bg_site *site, const bg_query_group *g)
{
    bg_shared_let_go(q->memory, g->u, g->n * g->r * (site->n_out + site->n_in1));
}

/* [n queries, n, r] of a file -> side by side in the group */
static bg_status read_side(const bg_store *f, side of, const bg_query_group *g, float *out, bg_err *err)
{
    char path[BG_PATH_BYTES];
    float *one = NULL;
    bg_status st = bg_path(path, err, "%s/%s", of.site->name, of.name);
    if (st == BG_OK)
        st = BG_NEW(one, of.n * g->r, "compressed queries", err);
    for (size_t q = 0; q < g->n && st == BG_OK; q++) {
        st = bg_store_read_rows(f, path, BG_F32, (bg_slab){ g->first + q, 1, of.n * g->r }, one, err);
        for (size_t i = 0; i < of.n && st == BG_OK; i++)
            memcpy(out + (i * g->n + q) * g->r, one + i * g->r, g->r * sizeof *one);
    }
    bg_free(one);
    return st;
}

/* This rank's groups of a module's; *n_groups: of all modules before, and then with this one. */
static bg_status fill_site(const bg_queries *q, const bg_store *f, const bg_site *site, size_t *n_groups, bg_err *err)
{
    bg_status st = BG_OK;
    bg_query_group g = { 0 };
    for (size_t at = 0; at < q->extent.n_queries && st == BG_OK; at += g.n) {
        float *x = q->site[site->index].x + at * q->site[site->index].r * (site->n_out + site->n_in1);
        g = bg_queries_group(q, site, at);
        if (!bg_shared_fills(q->memory, (*n_groups)++))
            continue;
        st = read_side(f, left_of(site), &g, x, err);
        if (st == BG_OK)
            st = read_side(f, right_of(site), &g, x + (g.v - g.u), err);
        bg_queries_let_go(q, site, &g);
    }
    return st;
}

static bg_status fill(bg_queries *q, const bg_store *f, const bg_queries_source *from, bg_err *err)
{
    float *at = bg_shared_data(q->memory);
    size_t n_groups = 0;
    bg_status st = BG_OK;
    for (size_t i = from->share->sites.first; i < from->share->sites.end && st == BG_OK; i++) {
        const bg_site *site = from->model->tracked[i];
        q->site[i].x = at;
        at += q->extent.n_queries * q->site[i].r * (site->n_out + site->n_in1);
        st = bg_stop_check(from->file, err);
        if (st == BG_OK)
            st = fill_site(q, f, site, &n_groups, err);
    }
    return st;
}

static bg_status find_least_kept(const bg_store *f, const bg_site *site, uint64_t n_queries, float *least, bg_err *err)
{
    char path[BG_PATH_BYTES];
    float *kept = NULL;
    bg_status st = bg_path(path, err, "%s/kept", site->name);
    if (st == BG_OK)
        st = BG_NEW(kept, n_queries, "compressed queries", err);
    if (st == BG_OK)
        st = bg_store_read(f, path, BG_F32, &n_queries, kept, err);
    for (uint64_t q = 0; q < n_queries && st == BG_OK; q++)
        *least = kept[q] < *least ? kept[q] : *least;
    bg_free(kept);
    return st;
}

static bg_status say(const bg_queries *q, const bg_store *f, const bg_queries_source *from, bg_err *err)
{
    float least = 1;
    bg_status st = BG_OK;
    for (size_t i = from->share->sites.first; i < from->share->sites.end && st == BG_OK; i++)
        st = find_least_kept(f, from->model->tracked[i], q->extent.n_queries, &least, err);
    if (st != BG_OK)
        return st;
    bg_log("the compressed queries keep at least %.3f of a module's expected score variance", (double)least);
    bg_log("compressed queries of a rank: %.0f MB (%zu queries, up to %zu columns a module)",
           (double)q->extent.bytes * 1e-6, q->extent.n_queries, q->extent.columns);
    return BG_OK;
}

static bg_status read_head(bg_queries *q, const bg_store *f, const bg_queries_source *from, bg_err *err)
{
    bg_status st = BG_NEW(q->site, from->model->n_tracked, "compressed queries", err);
    if (st == BG_OK)
        st = measure(f, from, &q->extent, q->site, err);
    if (st == BG_OK)
        st = bg_store_read_strings(f, "id", &q->id, &q->extent.n_queries, err);
    if (st == BG_OK)
        st = bg_store_read_optional(f, "query_loss", q->extent.n_queries, &q->loss, err);
    return st == BG_OK ? say(q, f, from, err) : st;
}

/* Local. */
static bg_status open_file(bg_queries **out, bg_store **f, const bg_queries_source *from, bg_err *err)
{
    bg_status st = BG_NEW(*out, 1, "compressed queries", err);
    if (st == BG_OK)
        st = bg_store_open(f, from->file, "bregman/compressed", err);
    if (st == BG_OK)
        st = check_model(*f, from, err);
    return st == BG_OK ? read_head(*out, *f, from, err) : st;
}

bg_status bg_queries_load(bg_queries **out, const bg_queries_source *from, MPI_Comm place, bg_err *err)
{
    bg_queries *q = NULL;
    bg_store *f = NULL;
    *out = NULL;
    bg_status st = bg_agree(place, open_file(&q, &f, from, err), err);
    if (st == BG_OK)
        st = bg_shared_new(&q->memory, place, q->extent.bytes, from->scratch, "compressed queries", err);
    if (st == BG_OK)
        st = bg_shared_ready(q->memory, fill(q, f, from, err), err);
    bg_store_close(f);
    if (st != BG_OK)
        bg_queries_free(q);
    else
        *out = q;
    return st;
}

void bg_queries_free(bg_queries *q)
{
    if (q == NULL)
        return;
    bg_shared_free(q->memory);
    bg_free(q->site);
    bg_free(q->loss);
    bg_strings_free(q->id, q->extent.n_queries);
    bg_free(q);
}

bg_status bg_queries_describe(bg_queries_about *out, const char *file, bg_err *err)
{
    bg_store *f = NULL;
    bool found;
    *out = (bg_queries_about){ 0 };
    bg_status st = bg_store_open(&f, file, "bregman/compressed", err);
    if (st == BG_OK)
        st = bg_store_get_text(f, "/", "modules", &out->modules, NULL, err);
    if (st == BG_OK)
        st = bg_store_get_text(f, "/", "tokenizer_hash", &out->tokenizer_hash, &found, err);
    if (st == BG_OK)
        st = bg_store_get_text(f, "/", "queries_hash", &out->queries_hash, &found, err);
    if (st == BG_OK)
        st = bg_store_get_text(f, "/run", "fingerprint", &out->fingerprint, &found, err);
    bg_store_close(f);
    return st;
}

void bg_queries_about_clear(bg_queries_about *a)
{
    free(a->modules);
    free(a->tokenizer_hash);
    free(a->queries_hash);
    free(a->fingerprint);
    *a = (bg_queries_about){ 0 };
}
