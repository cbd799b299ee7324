/* products.c - seconds of what the engine counts. */
#include "bregman/covariance.h"
#include "bregman/eigenvalues.h"
#include "bregman/pass.h"
#include "bregman/precondition.h"
#include "bregman/score.h"
#include "plan.h"

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

plan_batches plan_batches_of(size_t unit, size_t sequence_rows, size_t loss_rows, size_t max_rows)
{
    size_t fit = max_rows / sequence_rows;
    plan_batches b = { .sequences = smaller(fit > 0 ? fit : 1, unit),
                       .sequence_rows = sequence_rows,
                       .loss_rows = loss_rows,
                       .max_rows = max_rows };
    b.rows = b.sequences * sequence_rows;
    b.whole = unit / b.sequences;
    b.rest = unit % b.sequences;
    return b;
}

static void add(plan_tally *t, const plan_profile *p, const bg_cost *c)
{
    t->flops += c->flops;
    for (int i = 0; i < BG_COSTS; i++)
        t->seconds += c->of[i] * p->s[i];
}

void plan_pass_cost(plan_tally *t, const plan_profile *p, const bg_model *m, const bg_share *share,
                    const plan_batches *b, size_t sequences, bool sampled)
{
    const bg_batch_shape shape = { sequences, b->sequence_rows, b->loss_rows, b->max_rows, sampled };
    bg_cost c = { 0 };
    bg_pass_cost(&c, m, share, &shape);
    add(t, p, &c);
}

void plan_covariance_cost(plan_tally *t, const plan_profile *p, const bg_model *m, bg_site_range run, size_t k,
                          size_t rows)
{
    bg_cost c = { 0 };
    bg_covariance_cost(&c, m, run, k, rows);
    add(t, p, &c);
}

void plan_lambda_cost(plan_tally *t, const plan_profile *p, const bg_model *m, bg_site_range run, size_t k,
                      bool diagonal, plan_sequences of)
{
    const bg_batch_shape shape = { .sequences = of.n, .rows = of.rows };
    bg_cost c = { 0 };
    bg_eigenvalues_cost(&c, m, run, k, diagonal, &shape);
    add(t, p, &c);
}

void plan_score_cost(plan_tally *t, const plan_profile *p, const bg_model *m, bg_site_range run, size_t queries,
                     size_t rank, size_t rows)
{
    const bg_share s = { .first_tracked = run.first, .end_tracked = run.end };
    const bg_queries_extent q = bg_queries_expect(m, &s, queries, rank);
    bg_cost c = { 0 };
    bg_scorer_cost(&c, &q, rank, m, &s, rows);
    add(t, p, &c);
}

void plan_query_cost(plan_tally *t, const plan_profile *p, const bg_model *m, bg_site_range run, size_t k, size_t rank,
                     plan_sequences of)
{
    double z = (double)of.n, rows = (double)of.rows;
    bg_cost c = { 0 };
    for (size_t i = run.first; i < run.end && of.n > 0; i++) {
        const bg_site *site = m->tracked[i];
        bg_blockdiag_cost(&c, site->n_in1, k, z * rows, 1);
        bg_blockdiag_cost(&c, site->n_out, k, z * rows, 1);
        bg_cost_product(&c, (double)site->n_out, (double)site->n_in1, rows, z);
        bg_compress_cost(&c, site, k, bg_queries_columns(site, rank), z);
        c.of[BG_COST_SERIAL] += 3 * (double)site->n_out * (double)site->n_in1;
    }
    add(t, p, &c);
}
