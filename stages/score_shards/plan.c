/* plan.c - which sequences, whose share of the model, and micro-batches that fit. */
#include <inttypes.h>
#include <string.h>

#include "bregman/log.h"
#include "bregman/memory.h"
#include "bregman/shard.h"
#include "score_shards.h"

enum { ACTIVATION_BYTES = 512 << 20 };

/* A shard's own sequences must fit the model. */
static bg_status check_lengths(const scoring *w, bg_err *err)
{
    if (w->plan.sequence == NULL)
        return bg_model_check_lengths(w->in.model, w->in.tokens, w->plan.begin, w->plan.begin + w->plan.n_sequences,
                                      err);
    bg_status st = BG_OK;
    for (uint64_t i = 0; i < w->plan.n_sequences && st == BG_OK; i++)
        st = bg_model_check_lengths(w->in.model, w->in.tokens, w->plan.sequence[i], w->plan.sequence[i] + 1, err);
    return st;
}

/* This shard's run of the candidates, or of the whole corpus; none, where there are more shards than sequences. */
static bg_status choose_sequences(scoring *w, bg_err *err)
{
    uint64_t corpus = bg_tokens_sequences(w->in.tokens), n = w->in.listed != NULL ? w->in.n_listed : corpus;
    if (corpus == 0)
        return BG_FAIL(err, BG_EFORMAT, "%s: no sequence in the token files", w->c->tokens.item[0]);
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
        uint32_t n = bg_tokens_count(w->in.tokens, w->plan.sequence == NULL ? w->plan.begin + i : w->plan.sequence[i]);
        most = n > most ? n : most;
    }
    return most;
}

/* Queries are held once by the ranks of a node that have the same share; on --scratch neither they nor the scores of a
 * unit take memory. */
static size_t plan_bytes(const void *scoring_, const bg_plan *plan)
{
    const scoring *w = scoring_;
    const score_plan *p = &w->plan;
    const bg_grid *g = &w->ctx->grid;
    bg_score_task task = p->task;
    task.batch_rows = plan->rows;
    size_t held = plan->on_scratch ? 0 : p->extent.bytes / (size_t)g->place_size;
    size_t sums = plan->on_scratch ? bg_score_sums_bytes(&task, p->extent.n_queries, w->in.model) : 0;
    return held + bg_scorer_bytes(&task, &p->extent, w->in.model) - sums +
           bg_pipeline_pass_bytes(w->in.model, &p->share[g->pipeline_rank], g, plan->rows);
}

/* Local. */
static bg_status divide_model(scoring *w, bg_err *err)
{
    const bg_grid *g = &w->ctx->grid;
    score_plan *p = &w->plan;
    size_t n = (size_t)g->pipeline_size, most = p->n_sequences < p->unit_sequences ? p->n_sequences : p->unit_sequences;
    p->longest_rows = longest(w) - 1;
    bg_status st = BG_NEW(p->share, n, "shares of the model", err);
    if (st == BG_OK)
        st = bg_model_divide(w->in.model, n, NULL, p->share, err);
    if (st != BG_OK)
        return st;
    p->task = (bg_score_task){ .share = p->share,
                               .n_shares = g->pipeline_size,
                               .rank = g->pipeline_rank,
                               .detail = w->c->explain != NULL ? BG_SCORE_TOKENS
                                         : w->c->layer_scores  ? BG_SCORE_LAYERS
                                                               : BG_SCORE_SEQUENCES,
                               .unit_sequences = most,
                               .unit_rows = most * p->longest_rows };
    p->queries = (bg_queries_source){ w->c->queries, w->in.model, NULL, &p->share[g->pipeline_rank], NULL };
    return bg_queries_measure(&p->queries, &p->extent, err);
}

bg_status score_divide(scoring *w, bg_err *err)
{
    bg_status st;
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
    size_t least = w->plan.longest_rows, rows = w->c->batch_tokens;
    bg_demand d = { .best = { .passes = 1 },
                    .least_rows = least,
                    .most_passes = 1,
                    .spills = "queries and scores",
                    .self = w,
                    .bytes = plan_bytes };
    d.best.rows = rows == 0 ? bg_pass_rows_for(w->in.model, least + 1, ACTIVATION_BYTES) : rows < least ? least : rows;
    bg_status st = bg_attempt_recall(w->ctx, &w->in.files, w->plan.work, &d.given_rows, err);
    if (st != BG_OK)
        return st;
    bg_log("%s: %" PRIu64 " sequences in units of %" PRIu64, w->in.model->dir, w->plan.n_sequences,
           w->plan.unit_sequences);
    return bg_budget_choose(&d, w->ctx, &w->plan.memory, err);
}
