/* inputs.c - rankings and their shards, the corpus, the queries: opened, and checked that they belong together. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bregman/identity.h"
#include "bregman/log.h"
#include "bregman/memory.h"
#include "bregman/model_open.h"
#include "compare_scales.h"
#include "costs.h"

/* ---- what was asked for ---- */

/* SIZE[@STEP][:METHOD], without blanks; the page reads it so. */
static bool is_name(const char *name)
{
    size_t size = strcspn(name, "@:"), n = size;
    bool good = size > 0 && !(size == 4 && strncmp(name, "bm25", 4) == 0);
    if (name[n] == '@') {
        size_t digits = strspn(name + n + 1, "0123456789");
        good = good && digits > 0;
        n += 1 + digits;
    }
    if (name[n] == ':') {
        good = good && name[n + 1] != '\0' && strpbrk(name + n + 1, "@:") == NULL;
        n = strlen(name);
    }
    for (const unsigned char *c = (const unsigned char *)name; *c != '\0'; c++)
        good = good && *c > ' ' && *c != 0x7f;
    return good && name[n] == '\0';
}

static bg_status check_name(const compare_scales_config *c, size_t i, bg_err *err)
{
    const char *name = c->names.item[i];
    if (!is_name(name))
        return BG_FAIL(err, BG_EARG,
                       "--names: \"%s\" is not SIZE[@STEP][:METHOD], a step being a number; bm25 is compared anyway",
                       name);
    for (size_t j = 0; j < i; j++)
        if (strcmp(c->names.item[j], name) == 0)
            return BG_FAIL(err, BG_EARG, "--names: \"%s\" is there twice", name);
    return BG_OK;
}

static bg_status check_lists(const compare_scales_config *c, bg_err *err)
{
    const struct {
        const char *name;
        const bg_list *list;
        bool optional;
    } list[] = { { "--names", &c->names, false }, { "--models", &c->models, true }, { "--losses", &c->losses, true } };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        if (list[i].list->n != c->rankings.n && !(list[i].optional && list[i].list->n == 0))
            return BG_FAIL(err, BG_EARG,
                           "%s has %zu values, and there are %zu rankings: give one for each, in their order",
                           list[i].name, list[i].list->n, c->rankings.n);
    char folder[BG_PATH_BYTES];
    bg_status st = bg_folder_of(c->output, folder, err);
    if (st == BG_OK && access(folder, W_OK) != 0)
        st = BG_FAIL(err, BG_EIO, "cannot write into \"%s\": %s", folder, strerror(errno));
    for (size_t i = 0; i < c->names.n && st == BG_OK; i++)
        st = check_name(c, i, err);
    return st;
}

/* ---- a ranking ---- */

/* The same queries, in whatever order. */
static bg_status match_queries(const comparison *w, ranked_model *m, bg_err *err)
{
    bg_status st = BG_NEW(m->query, w->n_queries, "queries", err);
    for (size_t q = 0; q < w->n_queries && st == BG_OK; q++) {
        const char *id = bg_tokens_query_id(w->queries, q);
        size_t row = 0;
        while (row < m->r.n_queries && strcmp(m->r.query[row], id) != 0)
            row++;
        m->query[q] = row;
        if (row == m->r.n_queries)
            st = BG_FAIL(err, BG_EFORMAT,
                         "%.200s has no query \"%.60s\" of %.150s: all models are to have scored the same queries",
                         m->path, id, w->c->queries);
    }
    if (st == BG_OK && m->r.n_queries != w->n_queries)
        st = BG_FAIL(err, BG_EFORMAT,
                     "%.200s has %zu queries, %.150s %zu: all models are to have scored the same queries", m->path,
                     m->r.n_queries, w->c->queries, w->n_queries);
    return st;
}

static bg_status open_ranking(comparison *w, size_t i, bg_err *err)
{
    const compare_scales_config *c = w->c;
    ranked_model *m = &w->model[i];
    *m = (ranked_model){ .path = c->rankings.item[i], .name = c->names.item[i], .parameters = nan("") };
    bg_status st = bg_ranking_read(&m->r, m->path, err);
    if (st == BG_OK && m->r.corpus_sequences != w->n_sequences)
        st = BG_FAIL(err, BG_ESTALE,
                     "%s is of a corpus of %" PRIu64 " sequences, the token files have %" PRIu64
                     ": models are compared "
                     "on one corpus, cut into the same sequences",
                     m->path, m->r.corpus_sequences, w->n_sequences);
    if (st == BG_OK)
        st = match_queries(w, m, err);
    if (st == BG_OK)
        st = compare_open_shards(w, m, err);
    for (size_t j = 0; j < i && st == BG_OK; j++)
        if (strcmp(m->r.run_text[BG_RUN_FINGERPRINT], w->model[j].r.run_text[BG_RUN_FINGERPRINT]) == 0)
            st = BG_FAIL(err, BG_EARG, "%.200s and %.200s are one ranking, and are to be compared as \"%s\" and \"%s\"",
                         w->model[j].path, m->path, w->model[j].name, m->name);
    w->n_layers += m->n_layers;
    return st;
}

/* ---- losses ---- */

/* A bank of a step of length 0, of the model that the ranking is of. */
static bg_status check_bank(const ranked_model *m, const char *path, const bg_store *s, bg_err *err)
{
    char **hash = NULL, *options = NULL;
    size_t n = 0, i = 0;
    bg_status st = bg_store_read_strings(s, "run/input_hash", &hash, &n, err);
    if (st == BG_OK)
        st = bg_store_get_text(s, "/run", "options", &options, NULL, err);
    while (i < n && strcmp(hash[i], m->r.origin.model.hex) != 0)
        i++;
    if (st == BG_OK && m->r.origin.model.hex[0] != '\0' && i == n)
        st = BG_FAIL(err, BG_ESTALE, "%.200s is not of the model that %.200s is of", path, m->path);
    if (st == BG_OK && strstr(options, "\"learning_rate\":0,") == NULL &&
        strstr(options, "\"learning_rate\":0.0,") == NULL)
        st = BG_FAIL(err, BG_EFORMAT,
                     "%.200s has losses of models that were trained: give one of train_models --bank --steps 1 "
                     "--learning-rate 0",
                     path);
    bg_strings_free(hash, n);
    free(options);
    return st;
}

static bg_status read_loss(comparison *w, size_t i, bg_err *err)
{
    const char *path = w->c->losses.item[i];
    uint64_t dims[3] = { 0, 0, 0 };
    char **name = NULL;
    size_t n = 0;
    double *loss = w->v.loss + i * w->n_queries;
    bg_store *s = NULL;
    bg_status st = bg_store_open(&s, path, "bregman/bank", err);
    if (st == BG_OK)
        st = check_bank(&w->model[i], path, s, err);
    if (st == BG_OK)
        st = bg_store_read_strings(s, "query", &name, &n, err);
    if (st == BG_OK)
        st = bg_store_dims(s, "query_loss", 3, dims, err);
    if (st == BG_OK && (n != w->n_queries || dims[0] != 1 || dims[1] != 1 || dims[2] != n))
        st = BG_FAIL(err, BG_ESHAPE, "%s is to be of one model and of the %zu queries that are compared", path,
                     w->n_queries);
    if (st == BG_OK)
        st = bg_store_read(s, "query_loss", BG_F64, dims, loss, err);
    for (size_t q = 0; q < w->n_queries && st == BG_OK; q++) {
        const char *id = bg_tokens_query_id(w->queries, q);
        uint64_t terms;
        if (strcmp(name[q], id) != 0)
            st = BG_FAIL(err, BG_EFORMAT, "%.200s has query \"%.60s\" where %.150s has \"%.60s\"", path, name[q],
                         w->c->queries, id);
        else if ((st = bg_tokens_terms(w->queries, q, q + 1, &terms, err)) == BG_OK)
            loss[q] /= (double)terms;
    }
    bg_strings_free(name, n);
    bg_store_close(s);
    return st;
}

static bg_status read_losses(comparison *w, bg_err *err)
{
    bg_status st = BG_NEW(w->v.loss, w->n_models * w->n_queries, "losses", err);
    for (size_t i = 0; i < w->n_models * w->n_queries && st == BG_OK; i++)
        w->v.loss[i] = nan("");
    for (size_t i = 0; i < w->c->losses.n && st == BG_OK; i++)
        st = read_loss(w, i, err);
    return st;
}

/* ---- all of it ---- */

static bg_status read_query_tokens(comparison *w, bg_err *err)
{
    bg_status st = BG_NEW(w->query_token, w->n_queries, "queries", err);
    for (size_t q = 0; q < w->n_queries && st == BG_OK; q++) {
        st = BG_NEW(w->query_token[q], bg_tokens_count(w->queries, q), "queries", err);
        if (st == BG_OK)
            st = bg_tokens_read(w->queries, q, q + 1, SIZE_MAX, w->query_token[q], err);
        for (uint32_t i = 0; i < bg_tokens_count(w->queries, q) && st == BG_OK; i++)
            w->n_query_ids = w->query_token[q][i] >= w->n_query_ids ? (size_t)w->query_token[q][i] + 1 : w->n_query_ids;
    }
    return st;
}

static void choose_sizes(comparison *w)
{
    w->n_rankings = w->c->rankings.n;
    if (w->n_rankings == 1)
        bg_log("warning: \"%.100s\" is the only model: it is compared with BM25, and nothing is said of sizes",
               w->c->names.item[0]);
    w->n_models = w->n_rankings + 1;
    w->n_queries = bg_tokens_sequences(w->queries);
    w->n_sequences = bg_tokens_sequences(w->tokens);
    for (uint64_t z = 0; z < w->n_sequences; z++)
        w->n_tokens += bg_tokens_count(w->tokens, z);
    w->k = w->c->top < w->n_sequences ? w->c->top : w->n_sequences;
    w->n_tail = compare_tail(w->n_sequences);
}

/* Local. */
static bg_status open_all(comparison *w, bg_err *err)
{
    choose_sizes(w);
    bg_status st = bg_tokens_check_corpus(w->tokens, err);
    if (st == BG_OK)
        st = bg_tokens_check_queries(w->queries, err);
    if (st == BG_OK)
        st = BG_NEW(w->model, w->n_rankings, "rankings", err);
    for (size_t i = 0; i < w->n_rankings && st == BG_OK; i++)
        st = open_ranking(w, i, err);
    if (st == BG_OK)
        st = compare_find_compared(w, err);
    if (st == BG_OK)
        st = read_losses(w, err);
    if (st == BG_OK)
        st = read_query_tokens(w, err);
    return st == BG_OK ? compare_read_related(w, err) : st;
}

/* Rank 0: the files given are those that every ranking's scores were made from. */
static bg_status check_origin(comparison *w, bg_err *err)
{
    char what[BG_DIFFERENCE_BYTES];
    const bg_hash *queries;
    bg_origin given = { 0 };
    bg_status st = bg_origin_set_tokens(&given, w->tokens, err);
    if (st == BG_OK)
        st = bg_tokens_hashes(w->queries, &queries, err);
    if (st == BG_OK)
        given.queries = *queries;
    for (size_t i = 0; i < w->n_rankings && st == BG_OK; i++)
        if (bg_origin_differs(&given, &w->model[i].r.origin, what))
            st = BG_FAIL(err, BG_ESTALE, "%.150s was made from other files than are given: %s", w->model[i].path, what);
    bg_origin_clear(&given);
    return st;
}

/* Rank 0: the model of a ranking, for its size. */
static bg_status add_model(comparison *w, size_t i, bg_err *err)
{
    ranked_model *m = &w->model[i];
    const char *folder = w->c->models.item[i];
    bg_model *model = NULL;
    bg_hash hash;
    bg_status st = bg_model_open(&model, folder, "all", err);
    if (st == BG_OK)
        st = bg_model_hash(model, &hash, err);
    if (st == BG_OK && m->r.origin.model.hex[0] != '\0' && strcmp(hash.hex, m->r.origin.model.hex) != 0)
        st = BG_FAIL(err, BG_ESTALE, "%.200s is not the model that %.200s is of", folder, m->path);
    if (st == BG_OK)
        st = bg_inputs_add(&w->in, folder, &hash, err);
    if (st == BG_OK)
        m->parameters = (double)bg_model_parameters(model);
    bg_model_close(model);
    return st;
}

static bg_status add_inputs(comparison *w, bg_err *err)
{
    bg_status st = check_origin(w, err);
    for (size_t i = 0; i < w->n_rankings && st == BG_OK; i++)
        st = bg_inputs_add_file(&w->in, w->model[i].path, err);
    for (size_t i = 0; i < w->c->losses.n && st == BG_OK; i++)
        st = bg_inputs_add_file(&w->in, w->c->losses.item[i], err);
    for (size_t i = 0; i < w->c->models.n && st == BG_OK; i++)
        st = add_model(w, i, err);
    if (st == BG_OK)
        st = bg_inputs_add_tokens(&w->in, w->queries, err);
    return st == BG_OK ? bg_inputs_add_tokens(&w->in, w->tokens, err) : st;
}

bg_status compare_open(comparison *w, bg_err *err)
{
    const compare_scales_config *c = w->c;
    MPI_Comm world = w->ctx->grid.world;
    bg_status st = bg_agree(world, check_lists(c, err), err);
    if (st == BG_OK)
        st = bg_tokens_open_all(&w->queries, &c->queries, 1, world, err);
    if (st == BG_OK)
        st = bg_tokens_open_all(&w->tokens, c->tokens.item, c->tokens.n, world, err);
    if (st == BG_OK)
        st = bg_agree(world, open_all(w, err), err);
    if (st != BG_OK)
        return st;
    return bg_inputs_share(&w->in, w->ctx, "", 0, w->ctx->grid.world_rank == 0 ? add_inputs(w, err) : BG_OK, err);
}

void compare_close(comparison *w)
{
    for (size_t i = 0; i < w->n_rankings && w->model != NULL; i++) {
        ranked_model *m = &w->model[i];
        bg_free(m->shard);
        bg_free(m->first);
        bg_free(m->mark);
        bg_free(m->query);
        bg_strings_free(m->layer, m->n_layers);
        bg_ranking_clear(&m->r);
    }
    for (size_t q = 0; q < w->n_queries && w->query_token != NULL; q++)
        bg_free(w->query_token[q]);
    bg_free(w->query_token);
    bg_free(w->query_idf);
    bg_free(w->compared);
    bg_free(w->model);
    compare_clear_related(w);
    bg_bm25_free(w->terms);
    bg_tokens_close(w->tokens);
    bg_tokens_close(w->queries);
    bg_inputs_clear(&w->in);
}
