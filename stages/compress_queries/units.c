/* units.c - the sweep over units of queries: what is compressed of them, as one file per unit and section of the model.
 */
#include "bregman/memory.h"
#include "compress_queries.h"

struct compress_unit {
    const bg_model *model;
    const compress_plan *plan;
    bg_unit unit;
    uint64_t kept;   /* its first sequence that no published file has */
    bg_store **file; /* [n_sections] being written, of this rank's: queries from `kept` on */
    bool *finished;  /* [n_sections] all of that was published by an earlier attempt */
    double *loss;    /* [unit_queries] from `kept` on; NULL: another rank has the head */
};

/* What is being computed of the unit in hand for a section, or of losses. */
static bg_segment segment_of(const compress_unit *u, size_t group)
{
    return (bg_segment){ u->unit.unit, u->plan->group[group], u->kept, u->unit.n_sequences };
}

static bg_section_range own_sections(const compress_unit *u)
{
    return bg_share_sections(u->model, bg_workload_share(&u->plan->load));
}

bg_status compress_unit_begin(void *self, const bg_unit *unit, uint64_t part, bg_err *err)
{
    compress_unit *u = self;
    const bg_section_range own = own_sections(u);
    (void)err;
    u->unit = *unit;
    u->kept = part;
    for (size_t b = own.first; b < own.end; b++) {
        const bg_segment g = segment_of(u, b);
        u->finished[b] = bg_units_has(&u->plan->units, &g);
    }
    return BG_OK;
}

/* They are few: their file is written when it is published. */
static bg_status keep_losses(compress_unit *u, uint64_t part, bg_err *err)
{
    const uint64_t n = part - u->kept;
    bg_segment g = segment_of(u, u->model->n_sections);
    bg_store *s = NULL;
    g.end = part;
    if (u->loss == NULL || n == 0 || bg_units_has(&u->plan->units, &g))
        return BG_OK;
    bg_status st = bg_units_create(&s, &u->plan->units, &g, err);
    if (st == BG_OK)
        st = bg_store_write(s, "completion_loss", &n, u->loss, err);
    return bg_units_end(s, &u->plan->units, &g, part, st, err);
}

/* Publish the queries so far; those that follow go to new files. */
bg_status compress_unit_keep(void *self, const bg_unit *unit, uint64_t part, bg_pipeline *l, bg_err *err)
{
    compress_unit *u = self;
    const bg_section_range own = own_sections(u);
    bg_status st = BG_OK;
    (void)unit;
    (void)l;
    for (size_t b = own.first; b < own.end && st == BG_OK; b++) {
        const bg_segment g = segment_of(u, b);
        bg_store *s = u->file[b];
        u->file[b] = NULL;
        st = s == NULL ? BG_OK : bg_units_end(s, &u->plan->units, &g, part, BG_OK, err);
    }
    st = st == BG_OK ? keep_losses(u, part, err) : st;
    u->kept = part;
    return st;
}

static bg_status end_unit(void *self, const bg_unit *unit, bg_pipeline *l, bg_err *err)
{
    return compress_unit_keep(self, unit, unit->n_sequences, l, err);
}

bg_status compress_unit_losses(void *self, const bg_batch *batch, const float *loss, bg_err *err)
{
    compress_unit *u = self;
    (void)err;
    for (size_t z = 0; z < batch->n_sequences; z++) {
        double *sum = &u->loss[batch->sequence[z] - u->unit.first - u->kept];
        *sum = 0;
        for (size_t i = batch->row_start[z]; i < batch->row_start[z + 1]; i++)
            *sum += (double)loss[i]; /* 0 in the prompt */
    }
    return BG_OK;
}

bg_status compress_unit_find(void *self, bool *done, uint64_t *part, bg_err *err)
{
    return bg_units_find(&((compress_unit *)self)->plan->units, done, part, err);
}

/* ---- what a file holds ---- */

typedef struct {
    char path[BG_PATH_BYTES];
    bg_dtype type;
    uint64_t dims[3];
    void *one; /* a query's */
} dataset;

static bg_status dataset_of(dataset *out, int i, const bg_site *site, uint64_t r, compressed_query *q, bg_err *err)
{
    const struct {
        const char *name;
        bg_dtype type;
        uint64_t dims[2];
        void *one;
    } set[COMPRESS_UNIT_DATASETS] = {
        { "left", BG_F32, { site->n_out, r }, q->left },
        { "right", BG_F32, { site->n_in1, r }, q->right },
        { "kept", BG_F32, { 1, 1 }, &q->kept },
        { "error", BG_F64, { 1, 1 }, &q->error },
        { "variance", BG_F64, { 1, 1 }, &q->variance },
        { "sampling", BG_F64, { 1, 1 }, &q->sampling },
        [COMPRESS_COLUMNS] = { "rank", BG_U32, { 1, 1 }, &q->columns },
    };
    *out = (dataset){ .type = set[i].type, .dims = { 1, set[i].dims[0], set[i].dims[1] }, .one = set[i].one };
    return bg_path(out->path, err, "%s/%s", site->name, set[i].name);
}

bg_status compress_make_datasets(bg_store *s, const bg_site *site, uint64_t n, uint64_t r, int datasets, bg_err *err)
{
    bg_status st = BG_OK;
    for (int i = 0; i < datasets && st == BG_OK; i++) {
        dataset d;
        st = dataset_of(&d, i, site, r, &(compressed_query){ .left = NULL }, err);
        d.dims[0] = n;
        if (st == BG_OK)
            st = bg_store_dataset(s, d.path, d.dims, err);
    }
    return st;
}

bg_status compress_read_query(const bg_store *s, const bg_site *site, uint64_t row, uint64_t r, compressed_query *q,
                              bg_err *err)
{
    bg_status st = BG_OK;
    for (int i = 0; i < COMPRESS_COLUMNS && st == BG_OK; i++) {
        dataset d;
        st = dataset_of(&d, i, site, r, q, err);
        if (st == BG_OK)
            st = bg_store_read_rows(s, d.path, d.type, (bg_slab){ row, 1, d.dims[1] * d.dims[2] }, d.one, err);
    }
    return st;
}

bg_status compress_write_query(bg_store *s, const bg_site *site, uint64_t row, compressed_query *q, int datasets,
                               bg_err *err)
{
    bg_status st = BG_OK;
    for (int i = 0; i < datasets && st == BG_OK; i++) {
        dataset d;
        st = dataset_of(&d, i, site, 1, q, err); /* the file knows how long its rows are */
        if (st == BG_OK)
            st = bg_store_write_rows(s, d.path, row, 1, d.one, err);
    }
    return st;
}

/* The file of a section, with datasets for all of its modules; the first has the residuals too. */
static bg_status create_file(compress_unit *u, size_t section, bg_err *err)
{
    const bg_segment g = segment_of(u, section);
    const bg_section *sites = &u->model->section[section];
    uint64_t residual[2] = { g.end - g.first, u->plan->refine.steps + 1 };
    bg_status st = bg_units_create(&u->file[section], &u->plan->units, &g, err);
    if (st == BG_OK && section == 0 && u->plan->refine.kind != BG_REFINE_NONE)
        st = bg_store_dataset(u->file[0], "residual", residual, err);
    for (size_t i = sites->first; i < sites->end && st == BG_OK; i++) {
        const bg_site *site = u->model->tracked[i];
        st = compress_make_datasets(u->file[section], site, g.end - g.first,
                                    bg_queries_columns(site, u->plan->load.columns), COMPRESS_UNIT_DATASETS, err);
    }
    return st;
}

bg_status compress_unit_write_residual(compress_unit *u, uint64_t query, const double *residual, bg_err *err)
{
    bg_status st = u->file[0] == NULL && !u->finished[0] ? create_file(u, 0, err) : BG_OK;
    if (st != BG_OK || u->finished[0])
        return st;
    return bg_store_write_rows(u->file[0], "residual", query - u->unit.first - u->kept, 1, residual, err);
}

bool compress_unit_wants(const compress_unit *u, const bg_site *site)
{
    return !u->finished[bg_model_section(u->model, site->section)];
}

bg_status compress_unit_write(compress_unit *u, const bg_site *site, uint64_t query, compressed_query *q, bg_err *err)
{
    uint64_t row = query - u->unit.first - u->kept;
    size_t section = bg_model_section(u->model, site->section);
    bg_status st = u->file[section] == NULL ? create_file(u, section, err) : BG_OK;
    return st == BG_OK ? compress_write_query(u->file[section], site, row, q, COMPRESS_UNIT_DATASETS, err) : st;
}

/* ---- for the sweep ---- */

bg_status compress_unit_new(compress_unit **out, const bg_model *model, const compress_plan *plan, const bg_grid *g,
                            bg_err *err)
{
    char line[BG_UNITS_LINE_BYTES];
    bg_units_describe(&plan->units, line);
    bg_status st = BG_NEW(*out, 1, "files of a unit", err);
    if (st != BG_OK)
        return st;
    **out = (compress_unit){ .model = model, .plan = plan };
    st = g->world_rank == 0 ? bg_units_promise(plan->units.folder, line, err) : BG_OK;
    if (st == BG_OK)
        st = BG_NEW((*out)->file, model->n_sections, "files of a unit", err);
    if (st == BG_OK && bg_workload_share(&plan->load)->has_head)
        st = BG_NEW((*out)->loss, plan->units.unit_sequences, "losses of a unit", err);
    return st == BG_OK ? BG_NEW((*out)->finished, model->n_sections, "files of a unit", err) : st;
}

void compress_unit_free(compress_unit *u)
{
    if (u == NULL)
        return;
    for (size_t b = 0; u->file != NULL && b < u->model->n_sections; b++)
        bg_store_discard(u->file[b]);
    bg_free(u->file);
    bg_free(u->finished);
    bg_free(u->loss);
    bg_free(u);
}

void compress_unit_serve(compress_unit *u, bg_sweep *s)
{
    s->self = u;
    s->find = compress_unit_find;
    s->begin_unit = compress_unit_begin;
    s->end_unit = end_unit;
    s->keep_part = compress_unit_keep;
    s->losses = compress_unit_losses;
}
