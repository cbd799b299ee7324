/* products.c - what the pass and the taps compute for a micro-batch: the same calls, in the same shapes. */
#include "bregman/pass.h"
#include "plan.h"

static double larger(double a, double b) { return a > b ? a : b; }
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

void plan_product(plan_tally *t, const plan_profile *p, double m, double n, double k, double times)
{
    double flops = 2 * m * n * k;
    t->flops += times * flops;
    t->seconds += times * (flops * p->flop_s + (m * k + k * n) * p->operand_s + m * n * p->result_s + p->call_s);
}

static void elements(plan_tally *t, const plan_profile *p, double floats) { t->seconds += floats * p->element_s; }

/* ---- the pass (common/model/pass.c) ---- */

/* What is the same for all blocks. */
typedef struct {
    const bg_model_config *c;
    const plan_profile *p;
    size_t sequences, sequence_rows, loss_rows;
    double rows, w_qk;
    bool widened;
} walk;

static void linear(plan_tally *t, const walk *w, const bg_site *site, bool back)
{
    double n_out = (double)site->n_out, n_in = (double)site->n_in;
    if (w->widened)
        t->seconds += n_out * n_in * w->p->widened_s;
    if (back)
        plan_product(t, w->p, w->rows, n_in, n_out, 1);
    else
        plan_product(t, w->p, w->rows, n_out, n_in, 1);
    if (!back && site->n_in1 > site->n_in)
        elements(t, w->p, 2 * w->rows * n_out);
}

/* Attention of all heads (attention.c), `products` small ones for each block of BG_ATTENTION_ROWS rows. */
static void attention(plan_tally *t, const walk *w, double products, double pair_passes, size_t heads_at_once)
{
    const size_t block = 128;
    double pairs = 0, heads = (double)w->c->n_heads * (double)w->sequences;
    for (size_t i = 0; i < w->sequence_rows; i += block) {
        size_t n = smaller(block, w->sequence_rows - i);
        pairs += (double)n * (double)(i + n);
    }
    double flops = products * 2 * pairs * (double)w->c->d_head * heads;
    /* threads take whole tasks: some have none at the end */
    double tasks = (double)(w->sequences * heads_at_once), threads = w->p->threads;
    double uneven = larger(1, (double)(size_t)((tasks + threads - 1) / threads) * threads / tasks);
    t->flops += flops;
    t->seconds += uneven * (flops * w->p->attention_flop_s + pairs * heads * pair_passes * w->p->attention_pair_s);
}

static void block_forward(plan_tally *t, const walk *w, const bg_block *b)
{
    const bg_model_config *c = w->c;
    double d = (double)c->d_model, ff = (double)c->d_ff;
    for (bg_role r = 0; r < BG_ROLES; r++)
        if (b->site[r] != NULL)
            linear(t, w, b->site[r], false);
    attention(t, w, 2, 1, c->n_heads);
    t->seconds += w->rows * ff * w->p->activation_s;
    elements(t, w->p,
             w->rows * (10 * d + (c->rope == BG_ROPE_NONE ? 0 : 2 * w->w_qk) +
                        (c->qk_norm == BG_QK_NORM_NONE ? 0 : 5 * w->w_qk) + (c->post_norm ? 6 * d : 0)));
}

static void block_backward(plan_tally *t, const walk *w, const bg_model *m, const bg_block *b)
{
    const bg_model_config *c = w->c;
    double d = (double)c->d_model, ff = (double)c->d_ff;
    if (!bg_model_goes_deeper(m, b->site[BG_ROLE_DOWN]))
        return;
    linear(t, w, b->site[BG_ROLE_DOWN], true);
    t->seconds += 2 * w->rows * ff * w->p->activation_s;
    elements(t, w->p, w->rows * 3 * d);
    if (!bg_model_goes_deeper(m, bg_block_first_mlp(b)))
        return;
    linear(t, w, b->site[BG_ROLE_UP], true);
    if (b->site[BG_ROLE_GATE] != NULL)
        linear(t, w, b->site[BG_ROLE_GATE], true);
    if (!bg_model_goes_deeper(m, b->site[BG_ROLE_ATTENTION_OUT]))
        return;
    linear(t, w, b->site[BG_ROLE_ATTENTION_OUT], true);
    attention(t, w, 5, 2, c->n_kv_heads);
    elements(t, w->p, w->rows * (9 * d + (c->rope == BG_ROPE_NONE ? 0 : 2 * w->w_qk)));
    if (!bg_model_goes_deeper(m, bg_block_first_attention(b)))
        return;
    for (bg_role r = BG_ROLE_Q; r <= BG_ROLE_QKV; r++)
        if (b->site[r] != NULL)
            linear(t, w, b->site[r], true);
    elements(t, w->p, w->rows * 6 * d);
}

/* Final norm, logits, loss and gradient, a chunk of rows at a time (head.c). */
static void head(plan_tally *t, const walk *w, size_t max_rows, bool sampled)
{
    double d = (double)w->c->d_model, v = (double)w->c->vocab_size;
    size_t rows = w->sequences * w->loss_rows, chunk = BG_LOGITS_BYTES / (w->c->vocab_size * sizeof(float));
    chunk = smaller(chunk > 0 ? chunk : 1, max_rows);
    for (size_t i = 0; i < rows; i += chunk) {
        double n = (double)smaller(chunk, rows - i);
        plan_product(t, w->p, n, v, d, 1);
        plan_product(t, w->p, n, d, v, 1);
        t->seconds += w->widened ? 2 * v * d * w->p->widened_s : 0;
        t->seconds += n * v * (w->p->logit_s + (sampled ? w->p->sampled_s : 0));
    }
    elements(t, w->p, (double)rows * 12 * d);
}

void plan_pass_cost(plan_tally *t, const plan_profile *p, const bg_model *m, const bg_share *share,
                    const plan_batches *b, size_t sequences, bool sampled)
{
    const bg_model_config *c = &m->config;
    const walk w = { .c = c,
                     .p = p,
                     .sequences = sequences,
                     .sequence_rows = b->sequence_rows,
                     .loss_rows = b->loss_rows,
                     .rows = (double)sequences * (double)b->sequence_rows,
                     .w_qk = (double)((c->n_heads + c->n_kv_heads) * c->d_head),
                     .widened = bg_model_head(m)->weight->dtype != BG_ST_F32 };
    if (sequences == 0)
        return;
    if (share->embeds)
        elements(t, p, 2 * w.rows * (double)c->d_model);
    for (size_t l = share->first; l < share->end; l++)
        block_forward(t, &w, &m->block[l]);
    if (share->has_head)
        head(t, &w, b->max_rows, sampled);
    for (size_t l = share->end; l-- > share->first && l >= m->lowest_block;)
        block_backward(t, &w, m, &m->block[l]);
}

/* ---- taps ---- */

static bool owns_input(const bg_site *site) { return site->input == site->index; }

/* Side of diagonal block j of k. */
static double side_of(size_t n, size_t k, size_t j)
{
    return (double)(bg_block_start(n, k, j + 1) - bg_block_start(n, k, j));
}

/* bg_symmetric_add: column panels of each diagonal block from their diagonal down. */
static void symmetric(plan_tally *t, const plan_profile *p, size_t n, size_t k, double rows)
{
    const double panel = 256;
    for (size_t j = 0; j < k; j++)
        for (double side = side_of(n, k, j); side > 0; side -= panel)
            plan_product(t, p, side, side < panel ? side : panel, rows, 1);
}

void plan_covariance_cost(plan_tally *t, const plan_profile *p, const bg_model *m, bg_site_range run, size_t k,
                          size_t rows)
{
    for (size_t i = run.first; i < run.end; i++) {
        const bg_site *site = m->tracked[i];
        symmetric(t, p, site->n_out, k, (double)rows);
        if (owns_input(site))
            symmetric(t, p, site->n_in1, k, (double)rows);
    }
}

/* bg_blockdiag_apply of `rows` rows; `rows` as the other dimension of bg_blockdiag_apply_left. */
static void rotate(plan_tally *t, const plan_profile *p, size_t n, size_t k, double rows)
{
    for (size_t j = 0; j < k; j++)
        plan_product(t, p, rows, side_of(n, k, j), side_of(n, k, j), 1);
}

/* eigenvalues.c's choice between rotating a sequence's gradient and its rows. */
static bool rotates_gradient(const bg_site *site, bool diagonal, double sequences, double rows)
{
    double p = (double)site->n_out, m = (double)site->n_in1;
    double by_rows = rows * (p * p + (owns_input(site) ? m * m : 0.0)) + (diagonal ? rows * p * m : 0.0);
    return sequences * p * m * (p + m) < by_rows;
}

/* A sequence's gradient in panels of 512 rows, squared and added. */
static void squares(plan_tally *t, const plan_profile *p, double n_out, double n_in, double rows, double times)
{
    const double panel = 512;
    for (double left = n_out; left > 0; left -= panel)
        plan_product(t, p, left < panel ? left : panel, n_in, rows, times);
    t->seconds += times * n_out * n_in * p->squared_s;
}

void plan_lambda_cost(plan_tally *t, const plan_profile *p, const bg_model *m, bg_site_range run, size_t k,
                      bool diagonal, plan_sequences of)
{
    double z = (double)of.n, r = (double)of.rows;
    size_t rotated = SIZE_MAX;
    for (size_t i = run.first; i < run.end && of.n > 0; i++) {
        const bg_site *site = m->tracked[i];
        double n_out = (double)site->n_out, n_in = (double)site->n_in1;
        if (rotates_gradient(site, diagonal, z, z * r)) {
            plan_product(t, p, n_out, n_in, r, z);
            for (size_t s = 0; s < of.n; s++) {
                rotate(t, p, site->n_out, k, n_in);
                rotate(t, p, site->n_in1, k, n_out);
            }
            t->seconds += z * n_out * n_in * p->squared_s * (diagonal ? 2 : 1);
            continue;
        }
        if (rotated != site->input)
            rotate(t, p, site->n_in1, k, z * r);
        rotated = site->input;
        rotate(t, p, site->n_out, k, z * r);
        squares(t, p, n_out, n_in, r, z * (diagonal ? 2 : 1));
    }
}

static double columns(const bg_site *site, size_t rank)
{
    return (double)smaller(rank, smaller(site->n_out, site->n_in1));
}

void plan_score_cost(plan_tally *t, const plan_profile *p, const bg_model *m, bg_site_range run, size_t queries,
                     size_t rank, size_t rows)
{
    for (size_t i = run.first; i < run.end; i++) {
        const bg_site *site = m->tracked[i];
        double q = (double)queries, n = (double)rows, wide = q * columns(site, rank);
        double chunk = (double)(32 << 20) / (8 * wide);
        chunk = chunk < 64 ? 64 : chunk > 8192 ? 8192 : (double)(size_t)chunk;
        for (double left = n; left > 0; left -= chunk) {
            plan_product(t, p, left < chunk ? left : chunk, wide, (double)site->n_out, 1);
            plan_product(t, p, left < chunk ? left : chunk, wide, (double)site->n_in1, 1);
        }
        t->seconds += n * (wide * p->dot_s + q * p->serial_s);
    }
}

/* ---- compressing (precondition.c, low_rank.c) ---- */

/* Of bg_low_rank: LAPACK's Householder QR and small SVD reach about a quarter of a product's rate, in float32 and 64. */
static void low_rank(plan_tally *t, const plan_profile *p, double m, double n, double r)
{
    const double iterations = 6, slower = 4;
    double l = r + larger(r, 10), side = m < n ? m : n;
    if (side <= 128 || r >= (double)((size_t)side / 4) || l >= (double)((size_t)side / 2)) {
        t->seconds += slower * 2 * p->flop_s * 20 * m * n * side;
        return;
    }
    plan_product(t, p, l, m, n, iterations + 1);
    plan_product(t, p, l, n, m, iterations + 1);
    plan_product(t, p, m, r, l, 1);
    double qr = 4 * l * l * ((iterations + 1) * m + iterations * n);
    t->seconds += slower * p->flop_s * (qr + 2 * 20 * l * l * n) + l * n * 8 * p->serial_s;
}

void plan_query_cost(plan_tally *t, const plan_profile *p, const bg_model *m, bg_site_range run, size_t k, size_t rank,
                     plan_sequences of)
{
    double z = (double)of.n, rows = (double)of.rows;
    for (size_t i = run.first; i < run.end && of.n > 0; i++) {
        const bg_site *site = m->tracked[i];
        double n_out = (double)site->n_out, n_in = (double)site->n_in1, r = columns(site, rank);
        rotate(t, p, site->n_in1, k, z * rows);
        rotate(t, p, site->n_out, k, z * rows);
        plan_product(t, p, n_out, n_in, rows, z);
        for (size_t s = 0; s < of.n; s++)
            low_rank(t, p, n_out, n_in, r);
        plan_product(t, p, n_out, n_in, r, z);
        for (size_t j = 0; j < k; j++) {
            plan_product(t, p, side_of(site->n_out, k, j), r, side_of(site->n_out, k, j), z);
            plan_product(t, p, side_of(site->n_in1, k, j), r, side_of(site->n_in1, k, j), z);
        }
        t->seconds += (6 * z + 3) * n_out * n_in * p->serial_s;
    }
}
