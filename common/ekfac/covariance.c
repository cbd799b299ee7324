#include "bregman/covariance.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "bregman/memory.h"
#include "bregman/room.h"
#include "bregman/symmetric.h"
#include "shampoo.h"
#include "summed.h"

struct bg_covariance {
    const bg_model *model;
    bg_site_range sites;
    bg_factor_kind kind;
    int64_t *positions;      /* [n_tracked] rows summed up */
    bg_room sum;             /* all sums back to back */
    float **input, **output; /* [n_tracked] of A and of S; input NULL where another module owns it */
    float *room;             /* for a sequence's gradient */
};

size_t bg_covariance_bytes(const bg_model *model, bg_site_range sites)
{
    size_t n = 0;
    for (size_t i = sites.first; i < sites.end; i++) {
        const bg_site *site = model->tracked[i];
        n += bg_symmetric_floats(site->s);
        if (bg_site_owns_input(site))
            n += bg_symmetric_floats(site->a);
    }
    return n * sizeof(float);
}

size_t bg_covariance_room_bytes(const bg_model *model, bg_site_range sites, bg_factor_kind kind, size_t longest_rows)
{
    size_t most = 0;
    for (size_t i = sites.first; i < sites.end && kind == BG_FACTORS_SHAMPOO; i++) {
        size_t n = bg_shampoo_floats(model->tracked[i], longest_rows);
        most = n > most ? n : most;
    }
    return most * sizeof(float);
}

static bg_status take_memory(bg_covariance *c, const bg_covariance_task *task, bg_err *err)
{
    size_t n = c->model->n_tracked, sums = bg_covariance_bytes(c->model, c->sites),
           room = bg_covariance_room_bytes(c->model, c->sites, c->kind, task->longest_rows);
    bg_status st = BG_NEW(c->positions, n, "covariance", err);
    if (st == BG_OK)
        st = BG_NEW(c->input, n, "covariance", err);
    if (st == BG_OK)
        st = BG_NEW(c->output, n, "covariance", err);
    if (st == BG_OK)
        st = BG_NEW(c->room, room / sizeof(float), "gradient of a sequence", err);
    return st == BG_OK ? bg_room_new(&c->sum, sums, task->scratch, "covariance sums", err) : st;
}

bg_status bg_covariance_new(bg_covariance **out, const bg_model *model, const bg_covariance_task *task, bg_err *err)
{
    bg_covariance *c = NULL;
    *out = NULL;
    bg_status st = BG_NEW(c, 1, "covariance", err);
    if (st != BG_OK)
        return st;
    *c = (bg_covariance){ .model = model, .sites = task->sites, .kind = task->kind };
    st = take_memory(c, task, err);
    if (st != BG_OK) {
        bg_covariance_free(c);
        return st;
    }
    float *at = c->sum.x;
    for (size_t i = c->sites.first; i < c->sites.end; i++) {
        const bg_site *site = model->tracked[i];
        assert(c->kind != BG_FACTORS_SHAMPOO || bg_site_owns_input(site)); /* bg_factor_kind_shape */
        c->output[i] = at;
        at += bg_symmetric_floats(site->s);
        if (bg_site_owns_input(site)) {
            c->input[i] = at;
            at += bg_symmetric_floats(site->a);
        }
    }
    *out = c;
    return BG_OK;
}

void bg_covariance_free(bg_covariance *c)
{
    if (c == NULL)
        return;
    bg_free(c->positions);
    bg_free(c->input);
    bg_free(c->output);
    bg_free(c->room);
    bg_room_free(&c->sum);
    bg_free(c);
}

void bg_covariance_clear(bg_covariance *c)
{
    bg_room_clear(&c->sum);
    memset(c->positions, 0, c->model->n_tracked * sizeof *c->positions);
}

/* Rows [first, first + n) of the pair. */
static void add_run(const bg_pair *pair, size_t first, size_t n, float *a, float *s)
{
    const bg_site *site = pair->site;
    bg_symmetric_add(site->s, s, n, pair->gradient + first * pair->ld_gradient, pair->ld_gradient);
    if (!bg_site_adds_input(site))
        return;
    if (pair->activation != NULL)
        bg_symmetric_add(site->a, a, n, pair->activation + first * pair->ld_activation, pair->ld_activation);
    else
        for (size_t i = first; i < first + n; i++)
            a[pair->token[i]] += 1;
}

static bool is_in_loss(const bg_pair *pair, size_t i)
{
    return !pair->batch->masked || pair->batch->target[bg_pair_row(pair, i)] != BG_NO_TARGET;
}

static int64_t count_positions(const bg_pair *pair)
{
    int64_t n = 0;
    for (size_t i = 0; i < pair->n_rows; i++)
        n += is_in_loss(pair, i);
    return n;
}

/* Predicted positions are those in the loss. */
static void add_positions(const bg_pair *pair, float *a, float *s)
{
    for (size_t i = 0, end; i < pair->n_rows; i = end) {
        for (end = i; end < pair->n_rows && is_in_loss(pair, end);)
            end++;
        if (end > i)
            add_run(pair, i, end - i, a, s);
        else
            end++;
    }
}

/* A site may have read none of a sequence. */
static void add_sequences(const bg_pair *pair, float *room, float *right, float *left)
{
    for (size_t i = 0; i < pair->n_sequences; i++)
        if (pair->row_start[i + 1] > pair->row_start[i])
            bg_shampoo_add(pair, i, room, left, right);
}

bg_status bg_covariance_pair(void *covariance, const bg_pair *pair, bg_err *err)
{
    bg_covariance *c = covariance;
    const bg_site *site = pair->site;
    float *a = c->input[site->keeper], *s = c->output[site->index];
    (void)err;
    if (site->index < c->sites.first || site->index >= c->sites.end)
        return BG_OK;
    c->positions[site->index] += count_positions(pair);
    if (c->kind == BG_FACTORS_SHAMPOO)
        add_sequences(pair, c->room, a, s);
    else
        add_positions(pair, a, s);
    bg_room_let_go(&c->sum, s, bg_symmetric_floats(site->s));
    if (bg_site_adds_input(site))
        bg_room_let_go(&c->sum, a, bg_symmetric_floats(site->a));
    return BG_OK;
}

/* Of one-hot inputs only the rows are counted. */
void bg_covariance_cost(bg_cost *cost, const bg_model *model, bg_site_range sites, bg_factor_kind kind,
                        const bg_batch_shape *b)
{
    for (size_t i = sites.first; i < sites.end; i++) {
        const bg_site *site = model->tracked[i];
        double of_sequence = bg_model_site_rows(model, site, (double)b->rows),
               rows = (double)b->sequences * of_sequence;
        if (kind == BG_FACTORS_SHAMPOO) {
            bg_shampoo_cost(cost, site, (size_t)ceil(of_sequence), (double)b->sequences);
            continue;
        }
        bg_symmetric_cost(cost, site->s, rows);
        if (bg_site_adds_input(site) && site->kind != BG_SITE_EMBEDDING)
            bg_symmetric_cost(cost, site->a, rows);
    }
}

static bg_status move_section(const bg_covariance *c, size_t section, bg_store *to, const bg_store *from, bg_err *err)
{
    const bool shampoo = c->kind == BG_FACTORS_SHAMPOO;
    bg_status st = BG_OK;
    for (size_t i = c->sites.first; i < c->sites.end; i++) {
        const bg_site *site = c->model->tracked[i];
        const bg_summed set[] = {
            { shampoo ? "left_sum" : "gradient_sum", BG_F32, { bg_symmetric_floats(site->s) }, c->output[i] },
            { "positions", BG_I64, { 1 }, &c->positions[i] },
            { shampoo ? "right_sum" : "activation_sum", BG_F32, { bg_symmetric_floats(site->a) }, c->input[i] },
        };
        for (int k = 0; k < 2 + bg_site_owns_input(site) && st == BG_OK && site->section == section; k++) {
            st = bg_summed_move(site, &set[k], to, from, err);
            if (set[k].type == BG_F32)
                bg_room_let_go(&c->sum, set[k].data, set[k].dims[0]);
        }
    }
    return st;
}

bg_status bg_covariance_write(const bg_covariance *c, size_t section, bg_store *s, bg_err *err)
{
    return move_section(c, section, s, NULL, err);
}

bg_status bg_covariance_read(bg_covariance *c, size_t section, const bg_store *s, bg_err *err)
{
    return move_section(c, section, NULL, s, err);
}
