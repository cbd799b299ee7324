/* inputs.c - what a training reads: opened, checked, hashed. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/log.h"
#include "bregman/memory.h"
#include "bregman/model_open.h"
#include "bregman/number_lines.h"
#include "job.h"

static bg_status check_options(const train_models_config *c, bg_err *err)
{
    if ((c->model == NULL) == (c->config == NULL))
        return BG_FAIL(err, BG_EARG, "give --config for a model with random values, or --model to go on with one");
    if ((c->output == NULL) == (c->bank == NULL))
        return BG_FAIL(err, BG_EARG, "give --output for a model, or --bank for the losses of many");
    if (c->bank == NULL && (c->subset.n > 1 || c->mask.n > 1 || c->seeds.begin != 0 || c->seeds.end != 1))
        return BG_FAIL(err, BG_EARG, "several subsets, masks or seeds are trained as a --bank");
    if (c->bank != NULL && (c->seeds.end <= c->seeds.begin || c->seeds.end - c->seeds.begin > 1000000))
        return BG_FAIL(err, BG_EARG, "--seeds A:B takes A below B, of at most a million seeds");
    if (c->bank != NULL && c->queries == NULL && c->heldout.n == 0)
        return BG_FAIL(err, BG_EARG, "a --bank keeps losses: give --queries or --heldout");
    if (c->bank != NULL && (c->seed != 0 || c->eval_steps != 0 || c->save_steps != 0))
        return BG_FAIL(err, BG_EARG, "--seed, --eval-steps and --save-steps are not of a --bank: --seeds is");
    if (c->bank == NULL && c->queries != NULL)
        return BG_FAIL(err, BG_EARG, "--queries are of a --bank");
    if (c->mask.n > 1 && c->subset.n > 0 && c->mask.n != c->subset.n)
        return BG_FAIL(err, BG_EARG, "%zu files of --mask for %zu of --subset: give one for all, or one each",
                       c->mask.n, c->subset.n);
    return BG_OK;
}

static bg_status open_model(train_job *j, bg_err *err)
{
    const train_models_config *c = j->c;
    return c->config != NULL ? bg_model_from_config(&j->in.model, c->config, c->modules, err)
                             : bg_model_open_trained(&j->in.model, c->model, c->modules, err);
}

/* ---- subsets and masks ---- */

static bg_status read_subset(const train_job *j, const char *path, train_subset *s, bg_err *err)
{
    bg_status st = bg_number_lines_read(path, 1, &s->sequence, &s->n_sequences, err);
    uint64_t listed = s->n_sequences;
    if (st == BG_OK)
        st = bg_sequences_settle(path, s->sequence, &s->n_sequences, bg_tokens_sequences(j->in.tokens), err);
    if (st == BG_OK && s->n_sequences < listed)
        st = BG_FAIL(err, BG_EFORMAT, "%s: lists sequences twice, and a subset has each once", path);
    return st;
}

static bg_status take_all(const train_job *j, train_subset *s, bg_err *err)
{
    s->n_sequences = bg_tokens_sequences(j->in.tokens);
    bg_status st = BG_NEW(s->sequence, s->n_sequences, "list of sequences", err);
    for (uint64_t i = 0; i < s->n_sequences && st == BG_OK; i++)
        s->sequence[i] = i;
    return st;
}

static int by_term(const void *a, const void *b)
{
    const bg_loss_term *x = a, *y = b;
    int order = (x->sequence > y->sequence) - (x->sequence < y->sequence);
    return order != 0 ? order : (x->position > y->position) - (x->position < y->position);
}

static bg_status read_mask(const train_job *j, const char *path, train_subset *s, bg_err *err)
{
    const bg_tokens *t = j->in.tokens;
    uint64_t *line = NULL, n = 0;
    size_t kept = 0;
    bg_status st = bg_number_lines_read(path, 2, &line, &n, err);
    if (st == BG_OK)
        st = BG_NEW(s->mask, n, "mask", err);
    for (size_t i = 0; i < n && st == BG_OK; i++) {
        uint64_t z = line[2 * i], at = line[2 * i + 1];
        if (z >= bg_tokens_sequences(t) || at < 1 || at >= bg_tokens_count(t, z))
            st = BG_FAIL(err, BG_EFORMAT,
                         "%s: sequence %" PRIu64 " has no predicted token %" PRIu64 ": is it of other token files?",
                         path, z, at);
        else
            s->mask[i] = (bg_loss_term){ z, (uint32_t)at };
    }
    bg_free(line);
    if (st != BG_OK)
        return st;
    qsort(s->mask, n, sizeof *s->mask, by_term);
    for (size_t i = 0; i < n; i++)
        if (kept == 0 || by_term(&s->mask[i], &s->mask[kept - 1]) != 0)
            s->mask[kept++] = s->mask[i];
    s->n_masked = kept;
    return BG_OK;
}

static bg_status open_subsets(train_job *j, bg_err *err)
{
    const train_models_config *c = j->c;
    train_inputs *in = &j->in;
    size_t n = c->subset.n > c->mask.n ? c->subset.n : c->mask.n;
    bg_status st = BG_NEW(in->subset, n > 0 ? n : 1, "subsets", err);
    in->n_subsets = st == BG_OK ? (n > 0 ? n : 1) : 0;
    for (size_t i = 0; i < in->n_subsets && st == BG_OK; i++) {
        train_subset *s = &in->subset[i];
        const char *subset = c->subset.n > 0 ? c->subset.item[i] : "";
        const char *mask = c->mask.n > 0 ? c->mask.item[c->mask.n > 1 ? i : 0] : "";
        st = subset[0] != '\0' ? read_subset(j, subset, s, err) : take_all(j, s, err);
        if (st == BG_OK && mask[0] != '\0')
            st = read_mask(j, mask, s, err);
        if (st == BG_OK && asprintf(&s->name, "%s%s%s", subset, subset[0] && mask[0] ? " " : "", mask) < 0)
            st = BG_FAIL(err, BG_ENOMEM, "subsets: out of memory");
    }
    return st;
}

/* ---- token files ---- */

/* Of the model's tokenizer, and no longer than it takes; t NULL: there are none. */
static bg_status check_tokens(const train_job *j, const bg_tokens *t, bg_err *err)
{
    if (t == NULL)
        return BG_OK;
    bg_status st = bg_model_check_tokenizer(j->in.model, bg_tokens_tokenizer_hash(t), bg_tokens_path(t, 0), err);
    if (st == BG_OK)
        st = t == j->in.queries ? bg_tokens_check_queries(t, err) : bg_tokens_check_corpus(t, err);
    return st == BG_OK ? bg_model_check_lengths(j->in.model, t, 0, bg_tokens_sequences(t), err) : st;
}

/* All ids, before anything is trained: an hour later is no time to find one that the model does not have. */
static bg_status check_ids(const train_job *j, const bg_tokens *t, bg_err *err)
{
    enum { AT_ONCE = 256 };
    uint64_t n = t == NULL ? 0 : bg_tokens_sequences(t);
    uint32_t *token = NULL;
    bg_status st = n == 0 ? BG_OK : BG_NEW(token, (size_t)bg_tokens_longest(t, 0, n) * AT_ONCE, "tokens", err);
    for (uint64_t z = 0; z < n && st == BG_OK; z += AT_ONCE)
        st = bg_tokens_read(t, z, n - z < AT_ONCE ? n : z + AT_ONCE, j->in.model->config.vocab_size, token, err);
    bg_free(token);
    return st;
}

static bg_status check(train_job *j, bg_err *err)
{
    bg_status st = check_tokens(j, j->in.tokens, err);
    if (st == BG_OK)
        st = check_tokens(j, j->in.heldout, err);
    if (st == BG_OK)
        st = check_tokens(j, j->in.queries, err);
    return st == BG_OK ? open_subsets(j, err) : st;
}

bg_status train_open(train_job *j, bg_err *err)
{
    const train_models_config *c = j->c;
    MPI_Comm world = j->ctx->grid.world;
    bg_status st = check_options(c, err);
    if (st == BG_OK)
        st = open_model(j, err);
    if ((st = bg_agree(world, st, err)) == BG_OK)
        st = bg_tokens_open_all(&j->in.tokens, c->tokens.item, c->tokens.n, world, err);
    if (st == BG_OK && c->heldout.n > 0)
        st = bg_tokens_open_all(&j->in.heldout, c->heldout.item, c->heldout.n, world, err);
    if (st == BG_OK && c->queries != NULL)
        st = bg_tokens_open_all(&j->in.queries, &c->queries, 1, world, err);
    return st == BG_OK ? bg_agree(world, check(j, err), err) : st;
}

void train_close(train_job *j)
{
    for (size_t i = 0; i < j->in.n_subsets; i++) {
        free(j->in.subset[i].name);
        bg_free(j->in.subset[i].sequence);
        bg_free(j->in.subset[i].mask);
    }
    bg_free(j->in.subset);
    bg_tokens_close(j->in.tokens);
    bg_tokens_close(j->in.heldout);
    bg_tokens_close(j->in.queries);
    bg_model_close(j->in.model);
    bg_inputs_clear(&j->in.files);
}

/* ---- identities ---- */

static bg_status add_model(train_job *j, bg_err *err)
{
    char path[BG_PATH_BYTES];
    bg_hash hash;
    if (j->c->config != NULL) {
        bg_status st = bg_path(path, err, "%s/config.json", j->c->config);
        return st == BG_OK ? bg_inputs_add_file(&j->in.files, path, err) : st;
    }
    bg_status st = bg_model_hash(j->in.model, &hash, err);
    return st == BG_OK ? bg_inputs_add(&j->in.files, j->c->model, &hash, err) : st;
}

static bg_status add_files(train_job *j, const bg_list *l, bg_err *err)
{
    bg_status st = BG_OK;
    for (size_t i = 0; i < l->n && st == BG_OK; i++)
        st = bg_inputs_add_file(&j->in.files, l->item[i], err);
    return st;
}

bg_status train_add_inputs(train_job *j, bg_err *err)
{
    const bg_tokens *const all[] = { j->in.heldout, j->in.queries, j->in.tokens };
    bg_status st = add_model(j, err);
    for (int i = 0; i < 3 && st == BG_OK; i++)
        st = check_ids(j, all[i], err);
    if (st == BG_OK)
        st = bg_inputs_add_tokens(&j->in.files, j->in.tokens, err);
    if (st == BG_OK && j->in.heldout != NULL)
        st = bg_inputs_add_tokens(&j->in.files, j->in.heldout, err);
    if (st == BG_OK && j->in.queries != NULL)
        st = bg_inputs_add_tokens(&j->in.files, j->in.queries, err);
    if (st == BG_OK)
        st = add_files(j, &j->c->subset, err);
    return st == BG_OK ? add_files(j, &j->c->mask, err) : st;
}
