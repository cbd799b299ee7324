/* inputs.c - the model, the factors that were fitted on it, and the queries. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/log.h"
#include "bregman/model_open.h"
#include "compress_queries.h"

/* The model with the modules asked for: those that the factors were fitted with unless others are. */
static bg_status open_model(compress_inputs *in, const compress_queries_config *c, bg_err *err)
{
    char *fitted = NULL;
    bg_status st = bg_factors_modules(c->factors, &fitted, err);
    if (st == BG_OK)
        st = bg_model_open(&in->model, c->model, c->modules != NULL ? c->modules : fitted, err);
    if (st == BG_EARG && c->modules == NULL)
        st = BG_FAIL(err, BG_ESTALE, "%s: the modules it was fitted with, \"%.100s\", are none of %s", c->factors,
                     fitted, c->model);
    if (st == BG_OK && c->modules != NULL && strcmp(c->modules, fitted) != 0)
        bg_log("--modules %s: the factors were fitted with --modules %s; what else they hold is left out", c->modules,
               fitted);
    if (st == BG_OK && (in->modules = strdup(c->modules != NULL ? c->modules : fitted)) == NULL)
        st = BG_FAIL(err, BG_ENOMEM, "out of memory");
    free(fitted);
    return st;
}

/* The sequences whose curvature it is; their number is what is asked for, or all there are. */
static bg_status check_refinement(const compress_inputs *in, const compress_queries_config *c, compress_refinement *r,
                                  bg_err *err)
{
    enum { ENOUGH = 64 };
    bg_status st = bg_tokens_check_corpus(in->refine_tokens, err);
    if (st == BG_OK)
        st = bg_option_range("--refine-sequences", bg_tokens_sequences(in->refine_tokens), &r->sequences, err);
    if (st == BG_OK)
        st = bg_model_check_tokenizer(in->model, bg_tokens_tokenizer_hash(in->refine_tokens), c->refine_tokens.item[0],
                                      err);
    if (st == BG_OK && r->sequences.end - r->sequences.begin < ENOUGH)
        bg_log("warning: --refine-sequences: the curvature of %" PRIu64 " sequences; %d or more are better",
               r->sequences.end - r->sequences.begin, ENOUGH);
    return st == BG_OK ? bg_model_check_lengths(in->model, in->refine_tokens, r->sequences.begin, r->sequences.end, err)
                       : st;
}

/* Collective; an agreed status. */
static bg_status open_refinement(compress_inputs *in, const compress_queries_config *c, compress_refinement *r,
                                 const bg_grid *g, bg_err *err)
{
    if (r->kind == BG_REFINE_NONE)
        return BG_OK;
    bg_status st = bg_tokens_open_all(&in->refine_tokens, c->refine_tokens.item, c->refine_tokens.n, g->world, err);
    return st == BG_OK ? bg_agree(g->world, check_refinement(in, c, r, err), err) : st;
}

static bg_status check_queries(const compress_inputs *in, const compress_queries_config *c, bg_err *err)
{
    bg_status st = bg_tokens_check_queries(in->queries, err);
    if (st == BG_OK)
        st = bg_model_check_tokenizer(in->model, bg_tokens_tokenizer_hash(in->queries), c->queries, err);
    return st == BG_OK ? bg_model_check_lengths(in->model, in->queries, 0, bg_tokens_sequences(in->queries), err) : st;
}

/* Factors of this model's weights, which rank 0 hashes.  Collective; an agreed status. */
static bg_status open_factors(compress_inputs *in, const char *folder, const bg_grid *g, bg_err *err)
{
    bg_status st = g->world_rank == 0 ? bg_model_hash(in->model, &in->model_hash, err) : BG_OK;
    if ((st = bg_agree(g->world, st, err)) != BG_OK)
        return st;
    bg_broadcast(g->world, &in->model_hash, sizeof in->model_hash, 0);
    return bg_agree(g->world, bg_factors_open(&in->factors, folder, in->model, &in->model_hash, err), err);
}

/* On rank 0; the factors stand for themselves by their own fingerprint. */
static bg_status identify(compress_inputs *in, bg_err *err)
{
    bg_hash factors = bg_hash_texts((const char *const[]){ bg_factors_fingerprint(in->factors) }, 1);
    bg_status st = bg_inputs_add(&in->identities, in->model->dir, &in->model_hash, err);
    if (st == BG_OK)
        st = bg_inputs_add(&in->identities, bg_factors_path(in->factors), &factors, err);
    if (st == BG_OK && in->refine_tokens != NULL)
        st = bg_inputs_add_tokens(&in->identities, in->refine_tokens, err);
    return st == BG_OK ? bg_inputs_add_tokens(&in->identities, in->queries, err) : st;
}

bg_status compress_open(compress_inputs *in, const compress_queries_config *c, compress_refinement *r,
                        const bg_context *ctx, bg_err *err)
{
    MPI_Comm world = ctx->grid.world;
    bg_status st = bg_agree(world, open_model(in, c, err), err);
    if (st == BG_OK)
        st = bg_tokens_open_all(&in->queries, &c->queries, 1, world, err);
    if (st == BG_OK)
        st = bg_agree(world, check_queries(in, c, err), err);
    if (st == BG_OK)
        st = open_factors(in, c->factors, &ctx->grid, err);
    if (st == BG_OK)
        st = open_refinement(in, c, r, &ctx->grid, err);
    if (st != BG_OK)
        return st;
    st = ctx->grid.world_rank == 0 ? identify(in, err) : BG_OK;
    return bg_inputs_share(&in->identities, ctx, "", c->seed, st, err);
}

void compress_close(compress_inputs *in)
{
    bg_factors_close(in->factors);
    bg_tokens_close(in->queries);
    bg_tokens_close(in->refine_tokens);
    bg_model_close(in->model);
    bg_inputs_clear(&in->identities);
    free(in->modules);
}
