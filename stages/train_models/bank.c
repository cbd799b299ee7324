/* bank.c - many trainings, a rank each; of each its losses are kept, a work file, and all of them put together.
 *
 * Several jobs may run the same command at once, as a Slurm array: each begins elsewhere in the list of trainings, and
 * passes over those that another has finished meanwhile. */
#include <inttypes.h>
#include <stdlib.h>

#include "bregman/deal.h"
#include "bregman/log.h"
#include "bregman/memory.h"
#include "bregman/stop.h"
#include "job.h"

typedef struct {
    double heldout, training;
    double *query; /* [queries] */
} losses;

typedef struct {
    train_job *j;
    train_model model;
    losses of;
    uint64_t trainings, queries;
} bank;

/* ---- one training ---- */

static bg_status measure(bank *b, bg_err *err)
{
    const train_job *j = b->j;
    uint64_t terms;
    bg_status st = j->in.heldout != NULL ? train_heldout_loss(&b->model, j, &b->of.heldout, err) : BG_OK;
    if (st == BG_OK && j->in.queries != NULL)
        st = bg_training_losses(b->model.training, j->in.queries, b->of.query, &terms, err);
    return st;
}

static bg_status train(bank *b, uint64_t number, bg_notice *notice, bg_err *err)
{
    const train_job *j = b->j;
    const train_subset *s = &j->in.subset[number / j->plan.n_seeds];
    uint64_t seed = j->c->seeds.begin + number % j->plan.n_seeds;
    bg_training_step_report of = { 0 };
    bg_status st = train_model_begin(&b->model, j, s, seed, MPI_COMM_SELF, err);
    for (uint64_t k = 0; st == BG_OK && k < b->model.steps; k++) {
        st = bg_stop_heard(notice) ? BG_FAIL(err, BG_ESTOPPED, "stopped on request: finished trainings are kept")
                                   : bg_training_step(b->model.training, &of, err);
    }
    b->of.training = of.loss;
    if (st == BG_OK)
        st = measure(b, err);
    if (st != BG_OK && st != BG_ESTOPPED)
        st = BG_FAIL(err, st, "subset \"%.150s\", seed %" PRIu64 ": %s", s->name, seed, err->msg);
    train_model_end(&b->model);
    return st;
}

static bg_status write(bank *b, uint64_t number, bg_err *err)
{
    const bg_units *u = &b->j->plan.units;
    const bg_segment g = { number, BG_WHOLE_MODEL, 0, 1 };
    const uint64_t one = 1, row[2] = { 1, b->queries };
    bg_store *s = NULL;
    bg_status st = bg_units_create(&s, u, &g, err);
    if (st == BG_OK)
        st = bg_store_write(s, "training_loss", &one, &b->of.training, err);
    if (st == BG_OK && b->j->in.heldout != NULL)
        st = bg_store_write(s, "heldout_loss", &one, &b->of.heldout, err);
    if (st == BG_OK && b->j->in.queries != NULL)
        st = bg_store_write(s, "query_loss", row, b->of.query, err);
    return bg_units_end(s, u, &g, 1, st, err);
}

/* ---- all of this rank's ---- */

/* Where in the list this job begins: jobs of an array side by side. */
static uint64_t offset(const bank *b)
{
    const char *task = getenv("SLURM_ARRAY_TASK_ID"), *first = getenv("SLURM_ARRAY_TASK_MIN");
    const char *count = getenv("SLURM_ARRAY_TASK_COUNT");
    uint64_t n = count != NULL ? strtoull(count, NULL, 10) : 0;
    if (task == NULL || first == NULL || n == 0)
        return 0;
    return (strtoull(task, NULL, 10) - strtoull(first, NULL, 10)) % n * b->trainings / n;
}

static bg_status train_and_write(void *self, uint64_t number, bg_notice *notice, bg_err *err)
{
    bank *b = self;
    bg_status st = train(b, number, notice, err);
    return st == BG_OK ? write(b, number, err) : st;
}

static bg_status run(bank *b, bg_err *err)
{
    const train_job *j = b->j;
    const bg_deal d = { "trainings", "models", &j->plan.units, offset(b), b, train_and_write };
    char line[BG_UNITS_LINE_BYTES];
    bg_units_describe(&j->plan.units, line);
    bg_status st = j->ctx->grid.world_rank == 0 ? bg_units_promise(j->plan.units.folder, line, err) : BG_OK;
    if (st == BG_OK)
        st = BG_NEW(b->of.query, b->queries + 1, "losses", err);
    if (st == BG_OK)
        st = train_model_own(&b->model, b->j, true, err);
    if ((st = bg_agree(j->ctx->grid.world, st, err)) != BG_OK)
        return st;
    bg_log("%" PRIu64 " trainings of %zu numbers", b->trainings, j->plan.numbers.n_trained);
    return bg_deal_run(&d, j->ctx, err);
}

/* ---- the bank ---- */

static bg_status read_training(const bank *b, bg_units_reader *r, size_t i, losses *to, bg_err *err)
{
    const uint64_t one = 1, row[2] = { 1, b->queries };
    bg_rows rows;
    bg_status st = bg_units_read(r, i, &rows, err);
    if (st == BG_OK)
        st = bg_store_read(rows.file, "training_loss", BG_F64, &one, &to->training, err);
    if (st == BG_OK && b->j->in.heldout != NULL)
        st = bg_store_read(rows.file, "heldout_loss", BG_F64, &one, &to->heldout, err);
    if (st == BG_OK && b->j->in.queries != NULL)
        st = bg_store_read(rows.file, "query_loss", BG_F64, row, to->query, err);
    return st;
}

/* All trainings' losses: datasets [subset, seed] and [subset, seed, query]. */
static bg_status copy_losses(bank *b, bg_store *s, bg_err *err)
{
    const uint64_t dims[3] = { b->j->in.n_subsets, b->j->plan.n_seeds, b->queries };
    uint64_t n = b->trainings;
    double *all = NULL, *heldout, *training;
    bg_units_reader *r = NULL;
    bg_status st = BG_NEW(all, n * (b->queries + 2), "bank", err);
    if (st == BG_OK)
        st = bg_units_reader_new(&r, &b->j->plan.units, err);
    if (st == BG_OK)
        st = bg_units_choose(r, BG_WHOLE_MODEL, err);
    heldout = all + n * b->queries;
    training = heldout + n;
    for (uint64_t i = 0; i < n && st == BG_OK; i++) {
        losses of = { .query = all + i * b->queries };
        st = read_training(b, r, (size_t)i, &of, err);
        heldout[i] = of.heldout;
        training[i] = of.training;
    }
    if (st == BG_OK)
        st = bg_store_write(s, "training_loss", dims, training, err);
    if (st == BG_OK && b->j->in.heldout != NULL)
        st = bg_store_write(s, "heldout_loss", dims, heldout, err);
    if (st == BG_OK && b->j->in.queries != NULL)
        st = bg_store_write(s, "query_loss", dims, all, err);
    bg_units_reader_free(r);
    bg_free(all);
    return st;
}

static bg_status write_members(const train_job *j, bg_store *s, bg_err *err)
{
    const uint64_t n = j->in.n_subsets;
    uint64_t members = 0, at = 0;
    uint32_t *count = NULL;
    int64_t *sequence = NULL;
    for (uint64_t i = 0; i < n; i++)
        members += j->in.subset[i].n_sequences;
    bg_status st = BG_NEW(count, n, "subsets", err);
    if (st == BG_OK)
        st = BG_NEW(sequence, members, "subsets", err);
    for (uint64_t i = 0; i < n && st == BG_OK; i++) {
        count[i] = (uint32_t)j->in.subset[i].n_sequences;
        for (uint64_t k = 0; k < j->in.subset[i].n_sequences; k++)
            sequence[at++] = (int64_t)j->in.subset[i].sequence[k];
    }
    if (st == BG_OK)
        st = bg_store_write(s, "member/count", &n, count, err);
    if (st == BG_OK)
        st = bg_store_write(s, "member/sequence", &members, sequence, err);
    bg_free(count);
    bg_free(sequence);
    return st;
}

/* Names of the axes. */
static bg_status write_axes(const bank *b, bg_store *s, bg_err *err)
{
    const train_job *j = b->j;
    const uint64_t subsets = j->in.n_subsets, seeds = j->plan.n_seeds;
    const char **name = NULL;
    int64_t *seed = NULL;
    bg_status st = BG_NEW(name, subsets + b->queries, "names", err);
    if (st == BG_OK)
        st = BG_NEW(seed, seeds, "seeds", err);
    for (uint64_t i = 0; i < subsets && st == BG_OK; i++)
        name[i] = j->in.subset[i].name;
    for (uint64_t i = 0; i < b->queries && st == BG_OK; i++)
        name[subsets + i] = bg_tokens_query_id(j->in.queries, i);
    for (uint64_t i = 0; i < seeds && st == BG_OK; i++)
        seed[i] = (int64_t)(j->c->seeds.begin + i);
    if (st == BG_OK)
        st = bg_store_write(s, "subset", &subsets, name, err);
    if (st == BG_OK)
        st = bg_store_write(s, "seed", &seeds, seed, err);
    if (st == BG_OK && b->queries > 0)
        st = bg_store_write(s, "query", &b->queries, name + subsets, err);
    bg_free(name);
    bg_free(seed);
    return st;
}

static bg_status assemble(bank *b, bg_err *err)
{
    bg_store *s = NULL;
    bg_status st = bg_store_create(&s, b->j->plan.output, "bregman/bank", &b->j->in.files.run, err);
    if (st != BG_OK)
        return st;
    st = write_axes(b, s, err);
    if (st == BG_OK)
        st = copy_losses(b, s, err);
    if (st == BG_OK)
        st = write_members(b->j, s, err);
    return bg_store_end_once(s, st, err);
}

bg_status train_bank(void *job, bg_err *err)
{
    bank b = { .j = job };
    const train_inputs *in = &b.j->in;
    b.trainings = in->n_subsets * b.j->plan.n_seeds;
    b.queries = in->queries != NULL ? bg_tokens_sequences(in->queries) : 0;
    bg_status st = run(&b, err);
    if (st == BG_OK && b.j->ctx->grid.world_rank == 0)
        st = assemble(&b, err);
    st = bg_agree(b.j->ctx->grid.world, st, err);
    train_model_free(&b.model);
    bg_free(b.of.query);
    return st;
}
