/* plan.c - which sequences, whose share of the model, and micro-batches that fit. */
#include <inttypes.h>
#include <string.h>

#include "bregman/log.h"
#include "bregman/memory.h"
#include "bregman/shard.h"
#include "scoring.h"

/* A shard's own sequences must fit the model. */
static bg_status check_lengths(const scoring *w, bg_err *err)
{
    bg_status st = BG_OK;
    for (uint64_t i = 0; i < w->plan.n_sequences && st == BG_OK; i++) {
        uint64_t z = score_sequence(&w->plan, i);
        st = bg_model_check_lengths(w->in.model, w->in.tokens, z, z + 1, err);
    }
    return st;
}

/* This shard's run of the candidates, or of the whole corpus; none, where there are more shards than sequences. */
static bg_status choose_sequences(scoring *w, bg_err *err)
{
    uint64_t corpus = bg_tokens_sequences(w->in.tokens), n = w->in.listed != NULL ? w->in.n_listed : corpus;
    w->plan.begin = w->plan.shard * n / w->plan.n_shards;
    w->plan.n_sequences = (w->plan.shard + 1) * n / w->plan.n_shards - w->plan.begin;
    if (w->in.listed != NULL)
        w->plan.sequence = (const uint64_t *)bg_shared_data(w->in.listed) + w->plan.begin;
    if (w->plan.n_sequences == 0)
        bg_log("--shard %s has no sequence: there are %" PRIu64, w->c->shard, n);
    return check_lengths(w, err);
}

static bg_status name_files(score_plan *p, const char *folder, bg_err *err)
{
    char name[BG_SHARD_NAME_BYTES];
    bg_shard_name(p->shard, p->n_shards, name);
    bg_status st = bg_path(p->output, err, "%s/%s", folder, name);
    return st == BG_OK ? bg_path(p->work, err, "%.*s.work", (int)(strlen(p->output) - strlen(".h5")), p->output) : st;
}

/* Tokens of the longest of the sequences. */
static size_t longest(const scoring *w)
{
    size_t most = 2;
    for (uint64_t i = 0; i < w->plan.n_sequences; i++) {
        uint32_t n = bg_tokens_count(w->in.tokens, score_sequence(&w->plan, i));
        most = n > most ? n : most;
    }
    return most;
}

/* Local. */
static bg_status divide_model(scoring *w, bg_err *err)
{
    score_plan *p = &w->plan;
    p->load = (bg_workload){ .stage = &score_costs,
                             .model = w->in.model,
                             .grid = w->ctx->grid,
                             .sequences = p->n_sequences,
                             .unit_sequences = p->unit_sequences,
                             .erased_sequences = p->by_input ? score_erased_count(w) : 0,
                             .rows = longest(w) - 1,
                             .detail = p->by_output            ? BG_SCORE_OUTPUTS
                                       : w->c->explain != NULL ? BG_SCORE_TOKENS
                                       : w->c->layer_scores    ? BG_SCORE_LAYERS
                                                               : BG_SCORE_SEQUENCES,
                             .gradient_norms = w->c->gradient_norms || w->c->explain != NULL,
                             .extent = &p->extent };
    bg_status st = bg_workload_divide(&p->load, &p->share, err);
    if (st != BG_OK)
        return st;
    p->load.share = p->share;
    p->queries = (bg_queries_source){ w->c->queries, w->in.model, NULL, bg_workload_share(&p->load), NULL };
    return bg_queries_measure(&p->queries, &p->extent, err);
}

bg_status score_divide(scoring *w, bg_err *err)
{
    static const char *const by[] = { "position", "output", "input", "all", NULL };
    enum { POSITION, OUTPUT, INPUT, ALL };
    int which;
    bg_status st = bg_option_word("--attribution", w->c->attribution, by, &which, err);
    if (st != BG_OK)
        return st;
    w->plan.by_output = which == OUTPUT || which == ALL;
    w->plan.by_input = which == INPUT || which == ALL;
    if (which != POSITION && w->c->explain == NULL)
        return BG_FAIL(err, BG_EARG, "--attribution %s is for --explain: give a ranking.h5 to explain", by[which]);
    if (w->c->explain != NULL) {
        st = score_explain_open(w, err);
    } else {
        w->plan.unit_sequences = w->c->unit_sequences;
        st = choose_sequences(w, err);
        if (st == BG_OK)
            st = name_files(&w->plan, w->c->output, err);
    }
    return st == BG_OK ? divide_model(w, err) : st;
}

bg_status score_choose_plan(scoring *w, bg_err *err)
{
    /* a direction moves all sequences of a micro-batch, and is wanted of few */
    uint64_t rows = w->c->batch_tokens == 0 && w->plan.by_output ? w->plan.load.rows : w->c->batch_tokens;
    bg_demand d = bg_workload_demand(&w->plan.load, rows);
    bg_status st = bg_attempt_recall(w->ctx, &w->in.files, w->plan.work, &d.given_rows, err);
    if (st != BG_OK)
        return st;
    bg_log("%s: %" PRIu64 " sequences in units of %" PRIu64, w->in.model->dir, w->plan.n_sequences,
           w->plan.unit_sequences);
    return bg_budget_choose(&d, w->ctx, &w->plan.memory, err);
}
