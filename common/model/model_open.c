#include "bregman/model_open.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bregman/checkpoint.h"
#include "bregman/config.h"
#include "bregman/log.h"
#include "bregman/memory.h"
#include "bregman/tracking.h"

/* Where the next one-dimensional tensor is widened to.  In the first walk over the
 * model `at` is NULL: sizes are counted and shapes checked, nothing is written. */
typedef struct {
    bg_model *model;
    float *at;
    size_t n_floats;
    size_t n_numbers;  /* of activations, not in n_floats */
    size_t n_fixed;    /* of n_floats: no file holds them */
    bool sketch;       /* shapes only: there are no tensors */
    bg_st_dtype dtype; /* of a sketch's matrices */
    size_t n_matrices;
    double n_weights; /* of the matrices together */
    bool *used;       /* of the model's tensors, in their order */
} loader;

/* A sketch has no files that bound its sizes: no model is beyond these, and nothing computed of them overflows. */
static const double MAX_SKETCH_WEIGHTS = 1e15;
enum { MAX_SKETCH_FLOATS = 1 << 28 };

/* A tensor "ROOT + NAME", or NAME alone in checkpoints that leave the root out. */
static const bg_tensor *find_own(const bg_model *m, const char *path)
{
    const bg_tensor *t = bg_tensors_find(m->tensors, path);
    size_t root = strlen(m->config.names.root);
    if (t == NULL && strncmp(path, m->config.names.root, root) == 0)
        t = bg_tensors_find(m->tensors, path + root);
    return t;
}

/* What an adapter holds in its place, or NULL. */
static const bg_tensor *find_replacement(const bg_model *m, const char *path)
{
    return m->adapter != NULL ? bg_adapter_replacement(m->adapter, path, m->config.names.root) : NULL;
}

static const bg_tensor *find_tensor(const bg_model *m, const char *path)
{
    const bg_tensor *t = find_replacement(m, path);
    return t != NULL ? t : find_own(m, path);
}

/* The same, which is then no longer one that nobody uses. */
static const bg_tensor *take_tensor(loader *l, const char *path)
{
    const bg_tensor *t = find_own(l->model, path);
    if (t != NULL)
        l->used[t - bg_tensors_at(l->model->tensors, 0)] = true;
    return find_tensor(l->model, path);
}

static void sketch_matrix(loader *l, size_t rows, size_t columns, const bg_tensor **out)
{
    bg_tensor *t = l->model->sketched == NULL ? NULL : &l->model->sketched[l->n_matrices];
    l->n_matrices++;
    if (t == NULL)
        return;
    *t = (bg_tensor){ .name = "",
                      .file = "",
                      .dtype = l->dtype,
                      .n_dims = 2,
                      .shape = { rows, columns },
                      .n_bytes = rows * columns * bg_st_dtype_bytes(l->dtype) };
    *out = t;
}

static bg_status load_matrix(loader *l, const char *path, size_t rows, size_t columns, const bg_tensor **out,
                             bg_err *err)
{
    const bg_model *m = l->model;
    l->n_weights += (double)rows * (double)columns;
    if (l->sketch) {
        sketch_matrix(l, rows, columns, out);
        return BG_OK;
    }
    const bg_tensor *t = take_tensor(l, path);
    if (t == NULL)
        return BG_FAIL(err, BG_EFORMAT, "%s: tensor \"%s\" is missing (config.json says %s)", m->dir, path,
                       m->config.family);
    bg_number type;
    if (!bg_tensor_number(t, &type))
        return BG_FAIL(err, BG_EFORMAT, "%s: tensor \"%s\" is none of F64, F32, BF16 and F16", t->file, path);
    if (t->n_dims != 2 || t->shape[0] != rows || t->shape[1] != columns)
        return BG_FAIL(err, BG_ESHAPE, "%s: tensor \"%s\" is [%zu, %zu], but config.json makes it [%zu, %zu]", t->file,
                       path, t->n_dims > 0 ? t->shape[0] : 0, t->n_dims > 1 ? t->shape[1] : 0, rows, columns);
    *out = t;
    return BG_OK;
}

static void sketch_vector(loader *l, size_t n, const float **out)
{
    l->n_floats += n;
    if (l->at == NULL)
        return;
    for (size_t i = 0; i < n; i++)
        l->at[i] = 1.0f;
    *out = l->at;
    l->at += n;
}

static bg_status load_vector(loader *l, const char *path, size_t n, const float **out, bg_err *err)
{
    if (l->sketch) {
        sketch_vector(l, n, out);
        return BG_OK;
    }
    const bg_tensor *t = take_tensor(l, path);
    if (t == NULL)
        return BG_FAIL(err, BG_EFORMAT, "%s: tensor \"%s\" is missing (config.json says %s)", l->model->dir, path,
                       l->model->config.family);
    bg_number type;
    if (!bg_tensor_number(t, &type))
        return BG_FAIL(err, BG_EFORMAT, "%s: tensor \"%s\" is none of F64, F32, BF16 and F16", t->file, path);
    if (t->n_dims != 1 || t->shape[0] != n)
        return BG_FAIL(err, BG_ESHAPE, "%s: tensor \"%s\" has %zu entries, but config.json makes it %zu", t->file, path,
                       t->n_dims > 0 ? t->shape[0] : 0, n);
    l->n_floats += n;
    if (l->at == NULL)
        return BG_OK;
    bg_tensor_widen(t, 0, n, l->at);
    for (size_t i = 0; i < n; i++)
        if (!isfinite(l->at[i]))
            return BG_FAIL(err, BG_ENUMERIC, "%s: tensor \"%s\" holds %g at %zu", t->file, path, (double)l->at[i], i);
    *out = l->at;
    l->at += n;
    return BG_OK;
}

/* Where a norm belongs: PREFIX + NAME in a section; in a model that is trained it is the next site. */
typedef struct {
    const char *prefix, *name;
    size_t section, n;
    bg_norm_kind kind;
} norm_place;

/* The gain, or 1 + the weight, or ones where there are no weights. */
static bg_status load_gain(loader *l, const char *path, size_t n, const float **out, bg_err *err)
{
    float *at = l->at;
    if (l->model->config.fixed_gain) {
        sketch_vector(l, n, out);
        l->n_fixed += n;
        return BG_OK;
    }
    bg_status st = load_vector(l, path, n, out, err);
    for (size_t i = 0; i < n && at != NULL && st == BG_OK && !l->sketch && l->model->config.gain_from_one; i++)
        at[i] += 1.0f;
    return st;
}

/* Nothing where the family has no norm of that name. */
static bg_status load_norm(loader *l, norm_place at, bg_site **next, bg_norm_weights *out, bg_err *err)
{
    char path[400];
    if (at.name == NULL)
        return BG_OK;
    snprintf(path, sizeof path, "%s%s.weight", at.prefix, at.name);
    bg_status st = load_gain(l, path, at.n, &out->gain, err);
    snprintf(path, sizeof path, "%s%s.bias", at.prefix, at.name);
    if (st == BG_OK && at.kind == BG_NORM_LAYER && !l->model->config.fixed_gain)
        st = load_vector(l, path, at.n, &out->bias, err);
    if (st != BG_OK || !l->model->trained || l->model->config.fixed_gain)
        return st;
    bg_site *site = out->site = (*next)++;
    if ((size_t)snprintf(site->name, sizeof site->name, "%s%s", at.prefix, at.name) >= sizeof site->name)
        return BG_FAIL(err, BG_EFORMAT, "%s: module name too long: %s%s", l->model->dir, at.prefix, at.name);
    site->kind = BG_SITE_NORM;
    site->norm = at.kind;
    site->section = at.section;
    site->n_out = at.n;
    site->gain = out->gain;
    site->bias = out->bias;
    return BG_OK;
}

/* Name and shape of a role in block b; name NULL if it has none. */
static const char *role_of(const bg_model_config *c, size_t b, bg_role role, size_t *n_out, size_t *n_in, bool *bias)
{
    const bg_family_names *n = &c->names;
    size_t q = c->n_heads * c->d_head, kv = c->n_kv_heads * c->d_head;
    bool separate = c->qkv == BG_QKV_SEPARATE, attention = role < BG_ROLE_ROUTER;
    bool experts = bg_config_has_experts(c, b);
    *n_in = role == BG_ROLE_ATTENTION_OUT ? q : role == BG_ROLE_DOWN ? c->d_ff : c->d_model;
    *bias = role == BG_ROLE_ATTENTION_OUT ? c->attention_out_bias : attention ? c->qkv_bias : c->mlp_bias && !experts;
    switch (role) {
    case BG_ROLE_Q: *n_out = q; return separate ? n->q : NULL;
    case BG_ROLE_K: *n_out = kv; return separate ? n->k : NULL;
    case BG_ROLE_V: *n_out = kv; return separate ? n->v : NULL;
    case BG_ROLE_QKV: *n_out = q + 2 * kv; return separate ? NULL : n->qkv;
    case BG_ROLE_ATTENTION_OUT: *n_out = c->d_model; return n->attention_out;
    case BG_ROLE_ROUTER: *n_out = c->n_experts; return experts ? n->router : NULL;
    case BG_ROLE_GATE: *n_out = c->d_ff; return c->gated && !experts ? n->gate : NULL;
    case BG_ROLE_UP: *n_out = c->d_ff; return experts ? NULL : n->up;
    case BG_ROLE_DOWN: *n_out = c->d_model; return experts ? NULL : n->down;
    default: return NULL;
    }
}

/* A site PREFIX + NAME whose role, section and n_out and n_in are set. */
static bg_status load_site(loader *l, const char *prefix, const char *name, bool bias, bg_site *site, bg_err *err)
{
    const bg_model_config *c = &l->model->config;
    char path[400];
    if ((size_t)snprintf(site->name, sizeof site->name, "%s%s", prefix, name) >= sizeof site->name)
        return BG_FAIL(err, BG_EFORMAT, "%s: module name too long: %s%s", l->model->dir, prefix, name);
    site->n_in1 = site->n_in + bias;
    snprintf(path, sizeof path, "%s.weight", site->name);
    bg_status st = load_matrix(l, path, c->transposed ? site->n_in : site->n_out,
                               c->transposed ? site->n_out : site->n_in, &site->weight, err);
    snprintf(path, sizeof path, "%s.bias", site->name);
    if (st == BG_OK && bias)
        st = load_vector(l, path, site->n_out, &site->bias, err);
    return st;
}

/* One of the two matrices of a module's adapter, as the next site. */
static bg_status load_lora(const bg_site *of, bg_site_part part, const bg_tensor *t, bg_site **next, bg_err *err)
{
    bg_site *site = (*next)++;
    site->kind = BG_SITE_LINEAR;
    site->part = part;
    site->role = of->role;
    site->section = of->section;
    site->n_out = t->shape[0];
    site->n_in = site->n_in1 = t->shape[1];
    site->weight = t;
    if ((size_t)snprintf(site->name, sizeof site->name, "%s.lora_%c", of->name, part == BG_PART_LORA_A ? 'A' : 'B') >=
        sizeof site->name)
        return BG_FAIL(err, BG_EFORMAT, "%s: module name too long: %s", t->file, of->name);
    return BG_OK;
}

static bg_status load_adapter(const loader *l, bg_site *site, bg_site **next, bg_err *err)
{
    bg_model *m = l->model;
    bg_lora change = { NULL, NULL, 0 };
    const size_t shape[2] = { site->n_out, site->n_in };
    if (m->adapter == NULL)
        return BG_OK;
    bg_status st = bg_adapter_find(m->adapter, site->name, m->config.names.root, shape, &change, err);
    if (st != BG_OK || change.a == NULL)
        return st;
    site->lora_a = *next;
    st = load_lora(site, BG_PART_LORA_A, change.a, next, err);
    site->lora_b = *next;
    site->lora_scale = change.scale;
    return st == BG_OK ? load_lora(site, BG_PART_LORA_B, change.b, next, err) : st;
}

/* A block's sites from one role to another, both included. */
static bg_status load_roles(loader *l, const char *prefix, size_t b, const bg_role range[2], bg_site **next,
                            bg_err *err)
{
    bg_status st = BG_OK;
    for (bg_role r = range[0]; r <= range[1] && st == BG_OK; r++) {
        size_t n_out, n_in;
        bool bias;
        const char *name = role_of(&l->model->config, b, r, &n_out, &n_in, &bias);
        if (name == NULL)
            continue;
        bg_site *site = (*next)++;
        site->role = r;
        site->section = b;
        site->n_out = n_out;
        site->n_in = n_in;
        l->model->block[b].site[r] = site;
        st = load_site(l, prefix, name, bias, site, err);
        if (st == BG_OK && r != BG_ROLE_ROUTER) /* an adapter's matrices that are left over are refused */
            st = load_adapter(l, site, next, err);
    }
    return st;
}

/* A name out of a table of ours with a number in place of its "%zu": no format string comes from data. */
static void put_number(char *out, size_t n_bytes, const char *pattern, size_t number)
{
    const char *mark = strstr(pattern, "%zu");
    assert(mark != NULL);
    snprintf(out, n_bytes, "%.*s%zu%s", (int)(mark - pattern), pattern, number, mark + 3);
}

/* Of one expert after the other gate, up and down. */
static bg_status load_experts(loader *l, const char *prefix, size_t b, bg_site **next, bg_err *err)
{
    const bg_model_config *c = &l->model->config;
    const char *const names[] = { c->names.gate, c->names.up, c->names.down };
    char inner[64], expert[300];
    bg_status st = BG_OK;
    if (!bg_config_has_experts(c, b))
        return BG_OK;
    assert(c->gated && !bg_norms_outputs(c) && !c->parallel_residual && !c->transposed);
    l->model->block[b].expert = *next;
    for (size_t i = 0; i < 3 * c->n_experts && st == BG_OK; i++) {
        bg_site *site = (*next)++;
        site->role = BG_ROLE_GATE + (bg_role)(i % 3);
        site->section = b;
        site->expert = i / 3 + 1;
        site->n_out = site->role == BG_ROLE_DOWN ? c->d_model : c->d_expert;
        site->n_in = site->role == BG_ROLE_DOWN ? c->d_expert : c->d_model;
        put_number(inner, sizeof inner, c->names.expert, i / 3);
        snprintf(expert, sizeof expert, "%s%s", prefix, inner);
        st = load_site(l, expert, strrchr(names[i % 3], '.') + 1, false, site, err);
    }
    return st;
}

static bg_status load_qk_norms(loader *l, const char *prefix, size_t b, bg_site **next, bg_err *err)
{
    const bg_model_config *c = &l->model->config;
    bg_block *blk = &l->model->block[b];
    bool full = c->qk_norm == BG_QK_NORM_FULL;
    if (c->qk_norm == BG_QK_NORM_NONE)
        return BG_OK;
    norm_place q = { prefix, c->names.q_norm, b, full ? c->n_heads * c->d_head : c->d_head, BG_NORM_RMS };
    norm_place k = { prefix, c->names.k_norm, b, full ? c->n_kv_heads * c->d_head : c->d_head, BG_NORM_RMS };
    bg_status st = load_norm(l, q, next, &blk->q_norm, err);
    return st == BG_OK ? load_norm(l, k, next, &blk->k_norm, err) : st;
}

static bg_status load_attention(loader *l, const char *prefix, size_t b, bg_site **next, bg_err *err)
{
    const bg_model_config *c = &l->model->config;
    bg_block *blk = &l->model->block[b];
    const bg_role qkv[] = { BG_ROLE_Q, BG_ROLE_QKV }, out[] = { BG_ROLE_ATTENTION_OUT, BG_ROLE_ATTENTION_OUT };
    const norm_place before = { prefix, c->names.attention_norm, b, c->d_model, c->norm };
    const norm_place behind = { prefix, c->names.attention_out_norm, b, c->d_model, c->norm };
    bg_status st = load_norm(l, before, next, &blk->attention_norm, err);
    if (st == BG_OK)
        st = load_roles(l, prefix, b, qkv, next, err);
    if (st == BG_OK)
        st = load_qk_norms(l, prefix, b, next, err);
    if (st == BG_OK)
        st = load_roles(l, prefix, b, out, next, err);
    return st == BG_OK ? load_norm(l, behind, next, &blk->attention_out_norm, err) : st;
}

/* One number, or *out as it is where `needed` is false and the tensor is not there. */
static bg_status load_number(loader *l, const char *path, bool needed, float *out, bg_err *err)
{
    const bg_tensor *t = l->sketch ? NULL : take_tensor(l, path);
    bg_number type;
    l->n_numbers++;
    if (t == NULL && needed && !l->sketch)
        return BG_FAIL(err, BG_EFORMAT, "%s: tensor \"%s\" is missing (config.json says %s)", l->model->dir, path,
                       l->model->config.family);
    if (t == NULL)
        return BG_OK;
    if (!bg_tensor_number(t, &type) || t->n_bytes != bg_number_bytes(type))
        return BG_FAIL(err, BG_EFORMAT, "%s: tensor \"%s\" is not one number of F32, BF16 or F16", t->file, path);
    bg_tensor_widen(t, 0, 1, out);
    if (!isfinite(*out))
        return BG_FAIL(err, BG_ENUMERIC, "%s: tensor \"%s\" holds %g", t->file, path, (double)*out);
    return BG_OK;
}

static float softplus(float x) { return (float)(x > 30 ? (double)x : log1p(exp((double)x))); }

/* What an activation's weights make of it, as transformers' XIELUActivation. */
static bg_status load_activation(loader *l, const char *prefix, size_t b, bg_err *err)
{
    static const char *const name[] = { "alpha_p", "alpha_n", "beta", "eps" };
    float number[] = { 0, 0, 0.5f, -1e-6f };
    bg_status st = BG_OK;
    if (l->model->config.activation != BG_ACT_XIELU)
        return BG_OK;
    for (size_t i = 0; i < 4 && st == BG_OK; i++) {
        char path[400];
        snprintf(path, sizeof path, "%s%s.%s", prefix, l->model->config.names.activation, name[i]);
        st = load_number(l, path, i < 2, &number[i], err);
    }
    l->model->block[b].xielu = (bg_xielu){
        .alpha_p = softplus(number[0]), .alpha_n = number[2] + softplus(number[1]), .beta = number[2], .eps = number[3]
    };
    return st;
}

static bg_status load_mlp(loader *l, const char *prefix, size_t b, bg_site **next, bg_err *err)
{
    const bg_model_config *c = &l->model->config;
    bg_block *blk = &l->model->block[b];
    const bg_role roles[] = { BG_ROLE_ROUTER, BG_ROLE_DOWN };
    const norm_place before = { prefix, c->names.mlp_norm, b, c->d_model, c->norm };
    const norm_place behind = { prefix, c->names.mlp_out_norm, b, c->d_model, c->norm };
    bg_status st = load_norm(l, before, next, &blk->mlp_norm, err);
    if (st == BG_OK)
        st = load_roles(l, prefix, b, roles, next, err);
    if (st == BG_OK)
        st = load_experts(l, prefix, b, next, err);
    if (st == BG_OK)
        st = load_activation(l, prefix, b, err);
    return st == BG_OK ? load_norm(l, behind, next, &blk->mlp_out_norm, err) : st;
}

/* In the order of the forward pass, which tells how deep backward goes: a norm before its modules, or behind them. */
static bg_status load_block(loader *l, size_t b, bg_site **next, bg_err *err)
{
    const bg_model_config *c = &l->model->config;
    char inner[64], prefix[200];
    put_number(inner, sizeof inner, c->names.block, b);
    snprintf(prefix, sizeof prefix, "%s%s", c->names.root, inner);

    bg_status st = load_attention(l, prefix, b, next, err);
    return st == BG_OK ? load_mlp(l, prefix, b, next, err) : st;
}

static void embedding_path(const bg_model *m, char *out, size_t n_bytes)
{
    snprintf(out, n_bytes, "%s%s.weight", m->config.names.root, m->config.names.embedding);
}

/* NULL if the weights hold none. */
static const bg_tensor *find_head(const bg_model *m)
{
    char path[400];
    snprintf(path, sizeof path, "%s.weight", m->config.names.head);
    return find_tensor(m, path);
}

/* Names and shapes of the embedding and the head as sites. */
static bg_status name_ends(bg_model *m, bg_err *err)
{
    const bg_model_config *c = &m->config;
    bg_site *e = &m->site[0], *h = &m->site[m->n_sites - 1];
    size_t n = (size_t)snprintf(e->name, sizeof e->name, "%s%s", c->names.root, c->names.embedding);
    if (n >= sizeof e->name || (size_t)snprintf(h->name, sizeof h->name, "%s", c->names.head) >= sizeof h->name)
        return BG_FAIL(err, BG_EFORMAT, "%s: module name too long", m->dir);
    e->kind = BG_SITE_EMBEDDING;
    e->section = BG_SECTION_EMBEDDING;
    e->n_out = c->d_model;
    e->n_in = e->n_in1 = c->vocab_size;
    h->kind = BG_SITE_HEAD;
    h->section = BG_SECTION_HEAD;
    h->n_out = c->vocab_size;
    h->n_in = c->d_model;
    h->n_in1 = c->d_model + c->head_bias;
    return BG_OK;
}

/* The first sites: tokens', and positions' where they are learned. */
static bg_status load_embeddings(loader *l, bg_site **next, bg_err *err)
{
    bg_model *m = l->model;
    const bg_model_config *c = &m->config;
    bg_site *embedding = (*next)++;
    char path[400];
    embedding_path(m, path, sizeof path);
    if (c->tied_head && !l->sketch && find_tensor(m, path) == NULL && find_head(m) != NULL)
        snprintf(path, sizeof path, "%s.weight", c->names.head);
    bg_status st = name_ends(m, err);
    if (st == BG_OK)
        st = load_matrix(l, path, c->vocab_size, c->d_model, &embedding->weight, err);
    if (st != BG_OK || c->rope.kind != BG_ROPE_NONE)
        return st;
    snprintf(path, sizeof path, "%s%s.weight", c->names.root, c->names.position_embedding);
    st = load_matrix(l, path, c->max_positions, c->d_model, &m->position_embedding, err);
    if (st != BG_OK || !m->trained)
        return st;
    bg_site *position = (*next)++;
    snprintf(position->name, sizeof position->name, "%s%s", c->names.root, c->names.position_embedding);
    position->kind = BG_SITE_POSITION;
    position->section = BG_SECTION_EMBEDDING;
    position->n_out = c->d_model;
    position->n_in = position->n_in1 = c->max_positions;
    position->weight = m->position_embedding;
    return BG_OK;
}

static bg_status load_head(loader *l, bg_site **next, bg_err *err)
{
    bg_model *m = l->model;
    const bg_model_config *c = &m->config;
    const norm_place final = { c->names.root, c->names.final_norm, BG_SECTION_HEAD, c->d_model, c->norm };
    char path[400];
    bg_status st = load_norm(l, final, next, &m->final_norm, err);
    bg_site *head = (*next)++;
    head->weight = bg_model_embedding(m)->weight;
    if (st == BG_OK && !c->tied_head) {
        snprintf(path, sizeof path, "%s.weight", c->names.head);
        st = load_matrix(l, path, c->vocab_size, c->d_model, &head->weight, err);
    }
    if (st == BG_OK && c->head_bias) {
        snprintf(path, sizeof path, "%s.bias", c->names.head);
        st = load_vector(l, path, c->vocab_size, &head->bias, err);
    }
    return st;
}

static bg_status load_all(loader *l, bg_err *err)
{
    bg_site *next = l->model->site;
    l->n_floats = l->n_numbers = l->n_fixed = l->n_matrices = 0;
    l->n_weights = 0;
    bg_status st = load_embeddings(l, &next, err);
    for (size_t b = 0; b < l->model->config.n_blocks && st == BG_OK; b++)
        st = load_block(l, b, &next, err);
    return st == BG_OK ? load_head(l, &next, err) : st;
}

static size_t sites_of_block(const bg_model_config *c, size_t b)
{
    size_t n = bg_config_has_experts(c, b) ? 3 * c->n_experts : 0, n_out, n_in;
    bool bias;
    for (bg_role r = 0; r < BG_ROLES; r++)
        n += role_of(c, b, r, &n_out, &n_in, &bias) != NULL;
    return n;
}

static bg_status check_sketch(const loader *l, bg_err *err)
{
    if (!l->sketch || (l->n_weights <= MAX_SKETCH_WEIGHTS && l->n_floats <= MAX_SKETCH_FLOATS))
        return BG_OK;
    return BG_FAIL(err, BG_EFORMAT, "the sizes in config.json (%s) give a model of %.3g weights: no such model can be",
                   l->model->config.family, l->n_weights + (double)l->n_floats);
}

static size_t norms_per_block(const bg_model_config *c)
{
    const bg_family_names *n = &c->names;
    const char *const name[] = { n->attention_norm, n->attention_out_norm, n->mlp_norm, n->mlp_out_norm };
    size_t norms = c->qk_norm == BG_QK_NORM_NONE ? 0 : 2;
    for (size_t i = 0; i < sizeof name / sizeof name[0]; i++)
        norms += name[i] != NULL;
    return norms;
}

static bg_status make_tables(bg_model *m, bg_err *err)
{
    const bg_model_config *c = &m->config;
    if (m->trained && c->untrained != NULL)
        return BG_FAIL(err, BG_EFORMAT, "%s: models of %s cannot be trained here: %s", m->dir, c->family, c->untrained);
    m->n_sites = 2;
    for (size_t b = 0; b < c->n_blocks; b++)
        m->n_sites += sites_of_block(c, b);
    if (m->trained && !c->fixed_gain)
        m->n_sites += c->n_blocks * norms_per_block(c) + 1;
    if (m->adapter != NULL)
        m->n_sites += 2 * bg_adapter_modules(m->adapter);
    if (m->trained)
        m->n_sites += c->rope.kind == BG_ROPE_NONE;
    bg_status st = BG_NEW(m->site, m->n_sites, "module table", err);
    if (st == BG_OK)
        st = BG_NEW(m->tracked, m->n_sites, "module table", err);
    if (st == BG_OK)
        st = BG_NEW(m->section, m->config.n_blocks + 2, "module table", err);
    return st == BG_OK ? BG_NEW(m->block, m->config.n_blocks, "block table", err) : st;
}

/* Room for what is not mapped. */
static bg_status make_room(loader *l, bg_err *err)
{
    bg_model *m = l->model;
    bg_status st = check_sketch(l, err);
    if (st == BG_OK)
        st = BG_NEW(m->small, l->n_floats, "norms and biases", err);
    if (st == BG_OK && l->sketch)
        st = BG_NEW(m->sketched, l->n_matrices, "module table", err);
    l->at = m->small;
    m->n_small = l->n_floats - l->n_fixed + l->n_numbers;
    m->n_parameters = (size_t)l->n_weights + m->n_small;
    m->n_sketched = l->sketch ? l->n_matrices : 0;
    return st;
}

/* The tables of blocks and modules, from tensors or, of a sketch, without: two walks. */
static bg_status build(loader *l, const char *modules, bg_err *err)
{
    bg_status st = make_tables(l->model, err);
    if (st == BG_OK)
        st = load_all(l, err); /* counts */
    if (st == BG_OK && l->model->adapter != NULL)
        st = bg_adapter_check_taken(l->model->adapter, err); /* or there are fewer sites than were counted */
    if (st == BG_OK)
        st = make_room(l, err);
    if (st == BG_OK)
        st = load_all(l, err); /* reads */
    return st == BG_OK ? bg_model_track(l->model, modules, err) : st;
}

/* ---- what config.json and the weights do not agree on ---- */

static bool same_values(const bg_tensor *a, const bg_tensor *b)
{
    return a->dtype == b->dtype && a->n_dims == 2 && b->n_dims == 2 && a->shape[0] == b->shape[0] &&
           a->n_bytes == b->n_bytes && memcmp(a->data, b->data, a->n_bytes) == 0;
}

/* A head of its own, whatever config.json says, unless it equals the embedding. */
static bg_status settle_head(loader *l, bg_err *err)
{
    bg_model *m = l->model;
    char path[400], head_path[400];
    embedding_path(m, path, sizeof path);
    snprintf(head_path, sizeof head_path, "%s.weight", m->config.names.head);
    if (!m->config.tied_head)
        return BG_OK;
    /* PEFT leaves the other as it was in the base, or ties it again: the files do not say which */
    if ((find_replacement(m, path) != NULL) != (find_replacement(m, head_path) != NULL))
        return BG_FAIL(err, BG_EFORMAT,
                       "%s: the adapter holds one of embedding and head, which the base ties: merge it with peft's "
                       "merge_and_unload() and give the folder that this makes",
                       m->dir);
    const bg_tensor *embedding = find_tensor(m, path), *head = take_tensor(l, head_path);
    if (head == NULL || embedding == NULL || same_values(embedding, head))
        return BG_OK;
    m->config.tied_head = false;
    bg_log("warning: %s: config.json ties the head to the embedding, but \"%s\" differs from \"%s\": not tied", m->dir,
           head->name, embedding->name);
    return BG_OK;
}

/* Buffers that older versions of transformers saved with the weights; all are computed anew. */
static bool is_buffer(const char *name)
{
    static const char *const ending[] = {
        ".attn.bias",           ".attn.masked_bias",      ".attention.bias",        ".attention.masked_bias",
        ".rotary_emb.inv_freq", ".rotary_emb.cos_cached", ".rotary_emb.sin_cached",
    };
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof ending / sizeof ending[0]; i++)
        if (n >= strlen(ending[i]) && strcmp(name + n - strlen(ending[i]), ending[i]) == 0)
            return true;
    return false;
}

static void report_unused(const loader *l)
{
    const bg_model *m = l->model;
    const char *first = NULL;
    size_t unused = 0;
    for (size_t i = 0; i < bg_tensors_count(m->tensors); i++) {
        const char *name = bg_tensors_at(m->tensors, i)->name;
        if (l->used[i] || is_buffer(name))
            continue;
        first = first == NULL ? name : first;
        unused++;
    }
    if (unused > 0)
        bg_log("warning: %s: %zu of %zu tensors are not used, for example \"%s\": config.json asks for %zu blocks of %s",
               m->dir, unused, bg_tensors_count(m->tensors), first, m->config.n_blocks, m->config.family);
}

static void report_double(const loader *l)
{
    const bg_model *m = l->model;
    const bg_tensor *first = NULL;
    size_t n = bg_tensors_count(m->tensors), n_double = 0;
    for (size_t i = 0; i < n; i++) {
        const bg_tensor *t = bg_tensors_at(m->tensors, i);
        if (!l->used[i] || t->dtype != BG_ST_F64)
            continue;
        first = first == NULL ? t : first;
        n_double++;
    }
    if (n_double > 0)
        bg_log("warning: %s: %zu of %zu tensors are F64, for example \"%s\": narrowed to float32", m->dir, n_double, n,
               first->name);
}

static void report_adapter(const bg_model *m)
{
    if (m->adapter != NULL)
        bg_log("%s: LoRA on %zu modules of %s", m->dir, bg_adapter_modules(m->adapter), m->base);
}

/* DIR, and what it stands on. */
static bg_status open_folder(bg_model *m, const char *dir, bg_err *err)
{
    char folder[BG_PATH_BYTES];
    bg_status st = bg_checkpoint_folder(dir, folder, err);
    if (st == BG_OK && (m->dir = strdup(folder)) == NULL)
        st = BG_FAIL(err, BG_ENOMEM, "%s: out of memory", dir);
    if (st == BG_OK)
        st = bg_adapter_open(&m->adapter, m->dir, err);
    if (st == BG_OK && m->adapter != NULL && m->trained)
        st = BG_FAIL(err, BG_EFORMAT,
                     "%s is an adapter, which cannot be trained here: merge it with peft's merge_and_unload()", dir);
    m->base = st == BG_OK && m->adapter != NULL ? bg_adapter_base(m->adapter) : m->dir;
    if (st == BG_OK)
        st = bg_model_config_read(&m->config, m->base, err);
    return st == BG_OK ? bg_tensors_open_model(&m->tensors, m->base, err) : st;
}

static bg_status open_model(bg_model **out, const char *dir, const char *modules, bool trained, bg_err *err)
{
    bg_model *m = NULL;
    loader l = { 0 };
    *out = NULL;
    bg_status st = BG_NEW(m, 1, "model", err);
    if (st != BG_OK)
        return st;
    l.model = m;
    m->trained = trained;
    st = open_folder(m, dir, err);
    if (st == BG_OK)
        st = BG_NEW(l.used, bg_tensors_count(m->tensors), "table of tensors", err);
    if (st == BG_OK)
        st = settle_head(&l, err);
    if (st == BG_OK)
        st = build(&l, modules, err);
    if (st == BG_OK) {
        report_unused(&l);
        report_double(&l);
        report_adapter(m);
    }
    bg_free(l.used);
    if (st != BG_OK) {
        bg_model_close(m);
        m = NULL;
    }
    *out = m;
    return st;
}

bg_status bg_model_open(bg_model **out, const char *dir, const char *modules, bg_err *err)
{
    return open_model(out, dir, modules, false, err);
}

bg_status bg_model_open_trained(bg_model **out, const char *dir, const char *modules, bg_err *err)
{
    return open_model(out, dir, modules, true, err);
}

/* Tables without tensors, of the config that m has. */
static bg_status build_sketch(bg_model *m, const char *dir, const char *modules, bg_st_dtype dtype, bg_err *err)
{
    loader l = { .model = m, .sketch = true, .dtype = dtype };
    if ((m->dir = strdup(dir)) == NULL)
        return BG_FAIL(err, BG_ENOMEM, "%s: out of memory", dir);
    m->base = m->dir;
    return build(&l, modules, err);
}

/* What a sketch is of. */
typedef struct {
    const bg_model_config *config;
    const char *dir;
    bg_st_dtype dtype;
    bool trained;
} sketched;

static bg_status sketch(bg_model **out, const sketched *of, const char *modules, bg_err *err)
{
    bg_status st = BG_NEW(*out, 1, "model", err);
    if (st != BG_OK)
        return st;
    (*out)->config = *of->config;
    (*out)->trained = of->trained;
    st = build_sketch(*out, of->dir, modules, of->dtype, err);
    if (st != BG_OK) {
        bg_model_close(*out);
        *out = NULL;
    }
    return st;
}

bg_status bg_model_sketch(bg_model **out, const bg_model_config *c, const char *modules, bg_st_dtype dtype, bg_err *err)
{
    return sketch(out, &(sketched){ c, c->family, dtype, false }, modules, err);
}

bg_status bg_model_sketch_trained(bg_model **out, const bg_model_config *c, const char *modules, bg_err *err)
{
    return sketch(out, &(sketched){ c, c->family, BG_ST_F32, true }, modules, err);
}

bg_status bg_model_from_config(bg_model **out, const char *dir, const char *modules, bg_err *err)
{
    bg_model_config c;
    *out = NULL;
    bg_status st = bg_model_config_read(&c, dir, err);
    return st == BG_OK ? sketch(out, &(sketched){ &c, dir, BG_ST_F32, true }, modules, err) : st;
}
