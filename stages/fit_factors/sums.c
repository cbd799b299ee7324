/* sums.c - the sums over the corpus, covariances (M6) and squares in the eigenbases (M8): one file per unit and
 * section of the model, so that the next run may have another grid or other passes over the modules.  A part is the sum
 * over a unit's first sequences.  Of a section's parts the last two stay: a job may end while its ranks write the last.
 */
#include <string.h>

#include "bregman/covariance.h"
#include "bregman/eigenvalues.h"
#include "bregman/memory.h"
#include "fit_factors.h"

/* What is the same of both sums. */
typedef struct {
    void *sums;
    void (*clear)(void *sums);
    bg_status (*write)(const void *sums, size_t section, bg_store *s, bg_err *err);
    bg_status (*read)(void *sums, size_t section, const bg_store *s, bg_err *err);
} summed;

typedef struct {
    fit *f;
    summed kind;
    size_t pass;                /* of f->plan.budget.passes */
    bg_units units;             /* of the pass's sections, of all ranks */
    size_t *section;            /* [units.n_groups] */
    uint64_t kept, kept_before; /* sequences of the last part of the unit in hand, and of the one before it; 0: none */
    bool *finished;             /* [n_sections of the model] the unit's file of it is there already */
} phase;

/* ---- which sections ---- */

static bg_section_range own_sections(const phase *p)
{
    const fit_plan *plan = &p->f->plan;
    return fit_pass_sections(p->f->in.model, bg_workload_share(&plan->load), p->pass, plan->budget.passes);
}

static bg_site_range pass_sites(const fit *f, size_t pass)
{
    const bg_share *own = bg_workload_share(&f->plan.load);
    return bg_sections_sites(f->in.model, fit_pass_sections(f->in.model, own, pass, f->plan.budget.passes));
}

static size_t number_of(const phase *p, size_t section) { return p->f->in.model->section[section].number; }

/* The work files of the pass: of the sections that any rank works on in it.  Free p->section and p->finished. */
static bg_status choose_sections(phase *p, const bg_units *all, bg_err *err)
{
    const fit *f = p->f;
    bg_status st = BG_NEW(p->section, f->in.model->n_sections, "list of sections", err);
    if (st == BG_OK)
        st = BG_NEW(p->finished, f->in.model->n_sections, "list of sections", err);
    p->units = *all;
    p->units.group = p->section;
    p->units.n_groups = 0;
    for (int r = 0; r < f->ctx->grid.pipeline_size && st == BG_OK; r++) {
        bg_section_range s = fit_pass_sections(f->in.model, &f->plan.share[r], p->pass, f->plan.budget.passes);
        for (size_t i = s.first; i < s.end; i++)
            p->section[p->units.n_groups++] = number_of(p, i);
    }
    return st;
}

/* ---- a unit on this rank ---- */

static bg_status load_part(const phase *p, const bg_segment *g, bg_err *err)
{
    bg_store *s = NULL;
    bg_status st = bg_units_open(&s, &p->units, g, err);
    if (st == BG_EIO && !bg_units_has(&p->units, g))
        return BG_FAIL(err, BG_EGONE, "a part of %s is gone: another run of the same command has got further",
                       p->units.kind);
    if (st == BG_OK)
        st = p->kind.read(p->kind.sums, g->group, s, err);
    bg_store_close(s);
    return st;
}

/* A section that is finished is summed up along, but not kept again. */
static bg_status unit_begin(void *self, const bg_unit *unit, uint64_t part, bg_err *err)
{
    phase *p = self;
    const bg_section_range own = own_sections(p);
    bg_status st = BG_OK;
    p->kind.clear(p->kind.sums);
    p->kept_before = 0;
    p->kept = part;
    for (size_t i = own.first; i < own.end && st == BG_OK; i++) {
        const bg_segment whole = { unit->unit, number_of(p, i), 0, unit->n_sequences },
                         kept = { unit->unit, number_of(p, i), 0, part };
        p->finished[i] = bg_units_has(&p->units, &whole);
        if (!p->finished[i] && part > 0)
            st = load_part(p, &kept, err);
    }
    return st;
}

static bg_status write_sums(const phase *p, const bg_segment *g, bg_err *err)
{
    bg_store *s = NULL;
    bg_status st = bg_units_create(&s, &p->units, g, err);
    if (st == BG_OK)
        st = p->kind.write(p->kind.sums, g->group, s, err);
    return bg_units_end(s, &p->units, g, g->end, st, err);
}

/* The sums over the first `end` sequences of the unit, of this rank's sections. */
static bg_status keep(phase *p, const bg_unit *unit, uint64_t end, bg_err *err)
{
    const bg_section_range own = own_sections(p);
    bg_status st = BG_OK;
    for (size_t i = own.first; i < own.end && st == BG_OK; i++) {
        size_t b = number_of(p, i);
        const bg_segment g = { unit->unit, b, 0, end }, last = { unit->unit, b, 0, p->kept },
                         before = { unit->unit, b, 0, p->kept_before };
        if (p->finished[i])
            continue;
        st = write_sums(p, &g, err);
        if (st == BG_OK && p->kept_before > 0)
            bg_units_remove(&p->units, &before);
        if (st == BG_OK && p->kept > 0 && end == unit->n_sequences)
            bg_units_remove(&p->units, &last);
    }
    p->kept_before = p->kept;
    p->kept = end;
    return st;
}

static bg_status unit_find(void *self, bool *done, uint64_t *part, bg_err *err)
{
    return bg_units_find(&((phase *)self)->units, done, part, err);
}

static bg_status unit_keep(void *self, const bg_unit *unit, uint64_t part, bg_pipeline *l, bg_err *err)
{
    (void)l;
    return keep(self, unit, part, err);
}

static bg_status unit_end(void *self, const bg_unit *unit, bg_pipeline *l, bg_err *err)
{
    (void)l;
    return keep(self, unit, unit->n_sequences, err);
}

/* ---- the sweep ---- */

/* Labels given in a file, mapped; tensor name pseudo_cov or pseudo_lambda. */
static bg_status given_labels(const fit *f, bg_tensors **file, const char *name, bg_sweep *s, bg_err *err)
{
    if (f->c->labels == NULL)
        return BG_OK;
    bg_status st = bg_tensors_open_file(file, f->c->labels, err);
    if (st != BG_OK)
        return st;
    const bg_tensor *t = bg_tensors_find(*file, name);
    if (t == NULL || t->dtype != BG_ST_I64 || t->n_dims != 2)
        return BG_FAIL(err, BG_EFORMAT, "%s: no tensor \"%s\" of I64 [sequence, position]", f->c->labels, name);
    s->given_file = f->c->labels;
    s->given_label = t->data;
    s->given_rows = t->shape[0];
    s->given_width = t->shape[1];
    return BG_OK;
}

static bg_status run_sweep(phase *p, const bg_units *units, uint64_t begin, const char *labels, bg_sweep *s,
                           bg_status st, bg_err *err)
{
    const fit *f = p->f;
    bg_tensors *file = NULL;
    s->tokens = f->in.tokens;
    s->begin = begin;
    s->n_sequences = units->n_sequences;
    s->unit_sequences = units->unit_sequences;
    s->labels = (bg_labels){ .sampled = !f->c->empirical_fisher && f->c->labels == NULL, .seed = f->c->seed };
    s->self = p;
    s->find = unit_find;
    s->begin_unit = unit_begin;
    s->end_unit = unit_end;
    s->keep_part = unit_keep;
    if (st == BG_OK)
        st = choose_sections(p, units, err);
    if (st == BG_OK)
        st = given_labels(f, &file, labels, s, err);
    if ((st = bg_agree(f->ctx->grid.world, st, err)) == BG_OK && p->units.n_groups > 0)
        st = bg_sweep_run(s, f->pass, f->in.model, f->ctx, err);
    bg_tensors_close(file);
    bg_free(p->section);
    bg_free(p->finished);
    return st;
}

static void clear_covariance(void *sums) { bg_covariance_clear(sums); }
static bg_status write_covariance(const void *sums, size_t section, bg_store *s, bg_err *err)
{
    return bg_covariance_write(sums, section, s, err);
}
static bg_status read_covariance(void *sums, size_t section, const bg_store *s, bg_err *err)
{
    return bg_covariance_read(sums, section, s, err);
}

static bg_status covariance_pass(fit *f, size_t pass, bg_err *err)
{
    bg_covariance *sums = NULL;
    bg_site_range sites = pass_sites(f, pass);
    const bg_covariance_task task = { sites, f->kind, f->plan.load.rows,
                                      f->plan.budget.on_scratch ? f->ctx->scratch : NULL };
    bg_status st = bg_covariance_new(&sums, f->in.model, &task, err);
    phase p = { .f = f, .pass = pass, .kind = { sums, clear_covariance, write_covariance, read_covariance } };
    bg_sweep s = { .what = "covariance", .tap = { bg_covariance_pair, sums, BG_WANTS_MAPS } };
    st = run_sweep(&p, &f->plan.covariance.units, f->plan.covariance.range.begin, "pseudo_cov", &s, st, err);
    bg_covariance_free(sums);
    return st;
}

static void clear_lambda(void *sums) { bg_eigenvalues_clear(sums); }
static bg_status write_lambda(const void *sums, size_t section, bg_store *s, bg_err *err)
{
    return bg_eigenvalues_write(sums, section, s, err);
}
static bg_status read_lambda(void *sums, size_t section, const bg_store *s, bg_err *err)
{
    return bg_eigenvalues_read(sums, section, s, err);
}
static void begin_lambda_batch(void *self, const bg_batch *batch, uint64_t first)
{
    (void)batch;
    (void)first;
    bg_eigenvalues_begin_batch(((phase *)self)->kind.sums);
}

static bg_status lambda_pass(fit *f, size_t pass, bg_err *err)
{
    bg_eigenvalues *sums = NULL;
    fit_bases bases;
    bg_site_range sites = pass_sites(f, pass);
    bg_status st = fit_read_bases(f, sites, &bases, err);
    const bg_eigenvalues_task task = { sites, bases.basis, !f->c->no_diagonal, f->plan.budget.rows,
                                       f->plan.budget.on_scratch ? f->ctx->scratch : NULL };
    if (st == BG_OK)
        st = bg_eigenvalues_new(&sums, f->in.model, &task, err);
    phase p = { .f = f, .pass = pass, .kind = { sums, clear_lambda, write_lambda, read_lambda } };
    bg_sweep s = { .what = "eigenvalues",
                   .tap = { bg_eigenvalues_pair, sums, BG_WANTS_MAPS },
                   .begin_batch = begin_lambda_batch };
    st = run_sweep(&p, &f->plan.lambda.units, f->plan.lambda.range.begin, "pseudo_lambda", &s, st, err);
    bg_eigenvalues_free(sums);
    fit_free_bases(&bases);
    return st;
}

bg_status fit_sum_covariance(fit *f, bg_err *err)
{
    bg_status st = BG_OK;
    for (size_t pass = 0; pass < f->plan.budget.passes && st == BG_OK; pass++)
        st = covariance_pass(f, pass, err);
    return st;
}

bg_status fit_sum_lambda(fit *f, bg_err *err)
{
    bg_status st = BG_OK;
    for (size_t pass = 0; pass < f->plan.budget.passes && st == BG_OK; pass++)
        st = lambda_pass(f, pass, err);
    return st;
}
