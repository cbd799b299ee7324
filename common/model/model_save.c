#include "bregman/model_save.h"

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bregman/config.h"
#include "bregman/folder.h"
#include "bregman/memory.h"
#include "bregman/path.h"
#include "bregman/plain.h"
#include "bregman/writer.h"

/* A tensor to write: one of ours, or one of the checkpoint that is not trained. */
typedef struct {
    char name[256];
    const bg_parameter *parameter;
    const bg_tensor *tensor;
} item;

typedef struct {
    const bg_parameters *p;
    bg_st_dtype dtype;
    const char *root; /* to be put before the checkpoint's names, which may leave it out; else "" */
    size_t n;
    item *item;
} list;

static size_t numbers(const item *i)
{
    size_t n = 1;
    if (i->parameter != NULL)
        return i->parameter->n;
    for (int k = 0; k < i->tensor->n_dims; k++)
        n *= i->tensor->shape[k];
    return n;
}

/* Buffers of whole numbers stay as they are. */
static bool is_weight(const item *i)
{
    bg_number type;
    return i->parameter != NULL || bg_tensor_number(i->tensor, &type);
}

static size_t item_bytes(const list *l, const item *i)
{
    return is_weight(i) ? numbers(i) * bg_st_dtype_bytes(l->dtype) : i->tensor->n_bytes;
}

static int by_name(const void *a, const void *b) { return strcmp(((const item *)a)->name, ((const item *)b)->name); }

static const char *missing_root(const bg_model *m)
{
    char path[256];
    snprintf(path, sizeof path, "%s%s.weight", m->config.names.root, m->config.names.embedding);
    return bg_tensors_find(m->tensors, path) == NULL ? m->config.names.root : "";
}

/* Names with the root, as all that are ours have it. */
static bg_status name_tensor(const list *l, const bg_tensor *t, item *out, bg_err *err)
{
    const char *root = l->root, *head = l->p->model->config.names.head;
    bool whole = strncmp(t->name, root, strlen(root)) == 0 || strncmp(t->name, head, strlen(head)) == 0;
    out->tensor = t;
    if ((size_t)snprintf(out->name, sizeof out->name, "%s%s", whole ? "" : root, t->name) >= sizeof out->name)
        return BG_FAIL(err, BG_EFORMAT, "%s: the name of tensor \"%.100s...\" is too long", t->file, t->name);
    if (t->dtype == BG_ST_OTHER)
        return BG_FAIL(err, BG_EFORMAT, "%s: tensor \"%s\" is of a type that cannot be written again: remove it",
                       t->file, t->name);
    return BG_OK;
}

/* A tied head's matrix is the embedding's: it is not written twice. */
static bool is_written(const list *l, const char *name)
{
    const bg_model *m = l->p->model;
    size_t head = strlen(m->config.names.head);
    if (m->config.tied_head && strncmp(name, m->config.names.head, head) == 0 && strcmp(name + head, ".weight") == 0)
        return true;
    for (size_t i = 0; i < l->p->n; i++)
        if (strcmp(l->p->at[i].name, name) == 0)
            return true;
    return false;
}

static bg_status collect(list *l, bg_err *err)
{
    const bg_model *m = l->p->model;
    size_t mapped = m->tensors != NULL ? bg_tensors_count(m->tensors) : 0;
    bg_status st = BG_NEW(l->item, l->p->n + mapped, "list of tensors", err);
    l->root = mapped > 0 ? missing_root(m) : "";
    for (size_t i = 0; i < l->p->n && st == BG_OK; i++) {
        item *to = &l->item[l->n++];
        snprintf(to->name, sizeof to->name, "%s", l->p->at[i].name);
        to->parameter = &l->p->at[i];
    }
    for (size_t i = 0; i < mapped && st == BG_OK; i++) {
        st = name_tensor(l, bg_tensors_at(m->tensors, i), &l->item[l->n], err);
        if (st == BG_OK && !is_written(l, l->item[l->n].name))
            l->n++;
    }
    if (st == BG_OK)
        qsort(l->item, l->n, sizeof *l->item, by_name);
    return st;
}

/* ---- the header ---- */

static json_t *shape_of(const item *i)
{
    json_t *shape = json_array();
    int n = i->parameter != NULL ? i->parameter->n_dims : i->tensor->n_dims;
    for (int k = 0; k < n; k++)
        json_array_append_new(shape, json_integer((json_int_t)(i->parameter != NULL ? i->parameter->shape[k]
                                                                                    : i->tensor->shape[k])));
    return shape;
}

static bg_status write_header(const list *l, bg_plain *f, bg_err *err)
{
    json_t *root = json_object(), *metadata = json_object();
    size_t at = 0;
    json_object_set_new(metadata, "format", json_string("pt"));
    json_object_set_new(root, "__metadata__", metadata);
    for (size_t i = 0; i < l->n; i++) {
        json_t *of = json_object(), *offsets = json_array();
        json_array_append_new(offsets, json_integer((json_int_t)at));
        at += item_bytes(l, &l->item[i]);
        json_array_append_new(offsets, json_integer((json_int_t)at));
        json_object_set_new(of, "dtype",
                            json_string(
                                bg_st_dtype_name(is_weight(&l->item[i]) ? l->dtype : l->item[i].tensor->dtype)));
        json_object_set_new(of, "shape", shape_of(&l->item[i]));
        json_object_set_new(of, "data_offsets", offsets);
        json_object_set_new(root, l->item[i].name, of);
    }
    char *text = json_dumps(root, JSON_COMPACT | JSON_PRESERVE_ORDER);
    json_decref(root);
    if (text == NULL)
        return BG_FAIL(err, BG_ENOMEM, "model.safetensors: out of memory");
    uint64_t n = strlen(text), padded = (n + 7) / 8 * 8;
    bg_status st = bg_plain_write(f, &padded, sizeof padded, err); /* little-endian, as the machines we run on */
    if (st == BG_OK)
        st = bg_plain_write(f, text, n, err);
    if (st == BG_OK)
        st = bg_plain_write(f, "       ", padded - n, err);
    free(text);
    return st;
}

/* ---- the numbers ---- */

enum { PIECE = 1 << 14 };

static void to_bf16(size_t n, const float *x, uint16_t *y)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits += 0x7FFFu + ((bits >> 16) & 1u); /* values are finite: training has seen to that */
        y[i] = (uint16_t)(bits >> 16);
    }
}

static bg_status write_item(const list *l, const item *i, bg_plain *f, bg_err *err)
{
    float x[PIECE];
    uint16_t narrow[PIECE];
    bg_status st = BG_OK;
    if (!is_weight(i))
        return bg_plain_write(f, i->tensor->data, i->tensor->n_bytes, err);
    for (size_t at = 0, n = numbers(i); at < n && st == BG_OK; at += PIECE) {
        size_t k = n - at < PIECE ? n - at : PIECE;
        if (i->parameter != NULL)
            memcpy(x, l->p->value + i->parameter->first + at, k * sizeof *x);
        else
            bg_tensor_widen(i->tensor, at, k, x);
        if (l->dtype == BG_ST_F32) {
            st = bg_plain_write(f, x, k * sizeof *x, err);
        } else {
            to_bf16(k, x, narrow);
            st = bg_plain_write(f, narrow, k * sizeof *narrow, err);
        }
    }
    return st;
}

static bg_status write_weights(const list *l, const char *folder, bg_err *err)
{
    char path[BG_PATH_BYTES];
    bg_plain *f = NULL;
    bg_status st = bg_path(path, err, "%s/model.safetensors", folder);
    if (st == BG_OK)
        st = bg_plain_create(&f, path, err);
    if (st == BG_OK)
        st = write_header(l, f, err);
    for (size_t i = 0; i < l->n && st == BG_OK; i++)
        st = write_item(l, &l->item[i], f, err);
    return bg_plain_end(f, st, err);
}

/* ---- what goes with them ---- */

static bg_status copy_tokenizer(const char *from, const char *to, bg_err *err)
{
    static const char *const file[] = {
        "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",  "vocab.json",
        "merges.txt",     "tokenizer.model",       "generation_config.json",  "chat_template.jinja"
    };
    bg_status st = BG_OK;
    for (size_t i = 0; i < sizeof file / sizeof file[0] && st == BG_OK; i++) {
        char source[BG_PATH_BYTES], copy[BG_PATH_BYTES];
        st = bg_path(source, err, "%s/%s", from, file[i]);
        if (st == BG_OK)
            st = bg_path(copy, err, "%s/%s", to, file[i]);
        if (st == BG_OK && access(source, F_OK) == 0)
            st = bg_plain_copy(source, copy, err);
    }
    return st;
}

static bg_status write_all(list *l, const char *folder, bg_err *err)
{
    const bg_model *m = l->p->model;
    bg_status st = bg_model_config_save(m->dir, folder, l->dtype, m->config.tied_head, err);
    if (st == BG_OK)
        st = copy_tokenizer(m->dir, folder, err);
    return st == BG_OK ? write_weights(l, folder, err) : st;
}

bg_status bg_model_save(const bg_parameters *p, const char *folder, bg_st_dtype dtype, bg_err *err)
{
    list l = { .p = p, .dtype = dtype };
    char inside[BG_PATH_BYTES];
    bg_status st = bg_make_folder(folder, err);
    if (st == BG_OK)
        st = bg_path(inside, err, "%s/", folder);
    if (st == BG_OK)
        st = bg_remove_leftovers(inside, err);
    if (st == BG_OK)
        st = collect(&l, err);
    if (st == BG_OK)
        st = write_all(&l, folder, err);
    bg_free(l.item);
    return st;
}
