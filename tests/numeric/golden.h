/* golden.h - what the numeric tests share: goldens, a batch of their sequences, pairs as a tap caught them.
 * Whatever fails here fails the test. */
#ifndef BG_TESTS_NUMERIC_GOLDEN_H
#define BG_TESTS_NUMERIC_GOLDEN_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/memory.h"
#include "bregman/model_open.h"
#include "bregman/pass.h"
#include "bregman/safetensors.h"
#include "unit/check.h"

/* A case of tests/goldens (see tests/goldens/make_goldens.py). */
typedef struct {
    char dir[1024];
    bg_tensors *tensors;
} golden;

static inline void golden_open(golden *g, const char *name)
{
    char path[1100];
    bg_err err;
    const char *root = getenv("SRC");
    snprintf(g->dir, sizeof g->dir, "%s/tests/goldens/%s", root != NULL ? root : ".", name);
    snprintf(path, sizeof path, "%s/golden.safetensors", g->dir);
    assert_ok(bg_tensors_open_file(&g->tensors, path, &err), err);
}

static inline bg_model *golden_model(const golden *g, const char *modules)
{
    bg_model *m;
    bg_err err;
    assert_ok(bg_model_open(&m, g->dir, modules, &err), err);
    return m;
}

/* Tensor PREFIX + NAME, or NULL. */
static inline const bg_tensor *golden_find(const golden *g, const char *prefix, const char *name)
{
    char path[400];
    snprintf(path, sizeof path, "%s%s", prefix, name);
    return bg_tensors_find(g->tensors, path);
}

static inline const float *golden_floats(const golden *g, const char *prefix, const char *name, size_t n)
{
    const bg_tensor *t = golden_find(g, prefix, name);
    if (t == NULL || t->dtype != BG_ST_F32 || t->n_bytes != n * sizeof(float))
        fail_msg("%s: no tensor %s%s of %zu floats", g->dir, prefix, name, n);
    return t->data;
}

static inline const int64_t *golden_integers(const golden *g, const char *name, size_t *n)
{
    const bg_tensor *t = bg_tensors_find(g->tensors, name);
    if (t == NULL || t->dtype != BG_ST_I64)
        fail_msg("%s: no integers %s", g->dir, name);
    *n = t->n_bytes / sizeof(int64_t);
    return t->data;
}

/* Training sequences [first, first + n), or as many as there are, as one batch. */
static inline bg_batch *golden_batch(const golden *g, size_t first, size_t n)
{
    size_t n_tokens, n_sequences, at = 0;
    const int64_t *token = golden_integers(g, "train_token", &n_tokens);
    const int64_t *count = golden_integers(g, "train_count", &n_sequences);
    uint32_t *ids = calloc(n_tokens, sizeof *ids);
    bg_batch *b;
    bg_err err;
    assert_non_null(ids);
    for (size_t i = 0; i < n_tokens; i++)
        ids[i] = (uint32_t)token[i];
    assert_ok(bg_batch_new(&b, n_sequences, n_tokens, &err), err);
    for (size_t z = 0; z < n_sequences; at += (size_t)count[z++])
        if (z >= first && z - first < n)
            assert_true(bg_batch_add(b, z, ids + at, (size_t)count[z], 0));
    free(ids);
    return b;
}

static inline bg_pass *golden_pass(const bg_model *m, const bg_batch *b)
{
    bg_pass *p;
    bg_err err;
    assert_ok(bg_pass_new(&p, m, NULL, 1, b->n_rows, 10 * m->config.vocab_size * sizeof(float), &err), err);
    return p;
}

/* Copies of what a tap was handed, in that order. */
typedef struct {
    const bg_site *site;
    size_t n_rows;
    uint32_t *row;    /* [n_rows] of the batch */
    float *a, *delta; /* [n_rows, M], [n_rows, P] */
} caught_pair;

typedef struct {
    size_t n;
    caught_pair pair[64];
} caught;

static inline bg_status catch_pair(void *self, const bg_pair *pair, bg_err *err)
{
    caught *c = self;
    const bg_site *m = pair->site;
    (void)err;
    assert_true(c->n < sizeof c->pair / sizeof c->pair[0]);
    caught_pair *to = &c->pair[c->n++];
    to->site = m;
    to->n_rows = pair->n_rows;
    to->row = calloc(to->n_rows, sizeof *to->row);
    to->a = calloc(to->n_rows * m->n_in1, sizeof *to->a);
    to->delta = calloc(to->n_rows * m->n_out, sizeof *to->delta);
    assert_true(to->row != NULL && to->a != NULL && to->delta != NULL);
    for (size_t i = 0; i < to->n_rows; i++) {
        to->row[i] = (uint32_t)bg_pair_row(pair, i);
        if (pair->token != NULL)
            to->a[i * m->n_in1 + pair->token[i]] = 1;
        else
            memcpy(to->a + i * m->n_in1, pair->activation + i * pair->ld_activation, m->n_in1 * sizeof *to->a);
        memcpy(to->delta + i * m->n_out, pair->gradient + i * pair->ld_gradient, m->n_out * sizeof *to->delta);
    }
    return BG_OK;
}

static inline void caught_clear(caught *c)
{
    for (size_t i = 0; i < c->n; i++) {
        free(c->pair[i].row);
        free(c->pair[i].a);
        free(c->pair[i].delta);
    }
    c->n = 0;
}

#endif /* BG_TESTS_NUMERIC_GOLDEN_H */
