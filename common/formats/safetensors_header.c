/* safetensors_header.c - a safetensors file is 8 bytes of little-endian header length, a JSON
 * header {"NAME": {"dtype", "shape", "data_offsets"}, ...}, then the tensors' bytes. */
#include "safetensors_header.h"

#include <assert.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/memory.h"

enum { MAX_DIMS = 8 };
static const uint64_t MAX_HEADER_BYTES = 100000000; /* the reference implementation's limit */

typedef struct {
    const char *name;
    bg_st_dtype dtype;
    unsigned bits;
} dtype_row;
static const dtype_row dtypes[] = {
    { "F64", BG_ST_F64, 64 },      { "F32", BG_ST_F32, 32 },      { "F16", BG_ST_F16, 16 },
    { "BF16", BG_ST_BF16, 16 },    { "I64", BG_ST_I64, 64 },      { "I32", BG_ST_I32, 32 },
    { "I16", BG_ST_I16, 16 },      { "I8", BG_ST_I8, 8 },         { "U8", BG_ST_U8, 8 },
    { "BOOL", BG_ST_BOOL, 8 },     { "U16", BG_ST_OTHER, 16 },    { "U32", BG_ST_OTHER, 32 },
    { "U64", BG_ST_OTHER, 64 },    { "C64", BG_ST_OTHER, 64 },    { "F8_E4M3", BG_ST_OTHER, 8 },
    { "F8_E5M2", BG_ST_OTHER, 8 }, { "F8_E8M0", BG_ST_OTHER, 8 }, { "F6_E2M3", BG_ST_OTHER, 6 },
    { "F6_E3M2", BG_ST_OTHER, 6 }, { "F4", BG_ST_OTHER, 4 },
};

/* In file order; an empty tensor before the one that starts at the same byte. */
static int by_place(const void *a, const void *b)
{
    const bg_tensor *x = a, *y = b;
    uintptr_t p = (uintptr_t)x->data, q = (uintptr_t)y->data;
    if (p != q)
        return p < q ? -1 : 1;
    return (x->n_bytes > y->n_bytes) - (x->n_bytes < y->n_bytes);
}

/* Length of the JSON header, believed only if it lies within the file. */
static bg_status read_length(const unsigned char *map, size_t map_bytes, const char *path, size_t *length, bg_err *err)
{
    uint64_t n = 0;
    for (int i = BG_ST_LENGTH_BYTES - 1; i >= 0; i--)
        n = n << 8 | map[i];
    if (n > MAX_HEADER_BYTES)
        return BG_FAIL(err, BG_EFORMAT,
                       "header length of \"%s\" is %" PRIu64 " bytes, more than %" PRIu64 ": not a safetensors file",
                       path, n, MAX_HEADER_BYTES);
    if (n > map_bytes - BG_ST_LENGTH_BYTES)
        return BG_FAIL(err, BG_EFORMAT, "header of \"%s\" is %" PRIu64 " bytes, the file only %zu: truncated?", path, n,
                       map_bytes);
    *length = (size_t)n;
    return BG_OK;
}

/* Names go into one-line messages and files: no line breaks and the like. */
static bool is_printable(const char *name)
{
    for (; *name != '\0'; name++)
        if ((unsigned char)*name < 0x20 || *name == 0x7f)
            return false;
    return true;
}

static bg_status read_dtype(bg_tensor *t, const json_t *entry, unsigned *bits, bg_err *err)
{
    const json_t *v = json_object_get(entry, "dtype");
    if (!json_is_string(v))
        return BG_FAIL(err, BG_EFORMAT, "tensor \"%.200s\" has no dtype in \"%s\"", t->name, t->file);
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++) {
        if (strcmp(json_string_value(v), dtypes[i].name) == 0) {
            t->dtype = dtypes[i].dtype;
            *bits = dtypes[i].bits;
            return BG_OK;
        }
    }
    return BG_FAIL(err, BG_EFORMAT, "tensor \"%.200s\" has the unknown dtype \"%.32s\" in \"%s\"", t->name,
                   is_printable(json_string_value(v)) ? json_string_value(v) : "?", t->file);
}

/* Shape, and the bytes that shape and dtype ask for. */
static bg_status read_shape(bg_tensor *t, const json_t *entry, unsigned bits, bg_err *err)
{
    const json_t *v = json_object_get(entry, "shape");
    if (!json_is_array(v) || json_array_size(v) > MAX_DIMS)
        return BG_FAIL(err, BG_EFORMAT, "tensor \"%.200s\" has no shape of at most %d sizes in \"%s\"", t->name,
                       MAX_DIMS, t->file);
    t->n_dims = (int)json_array_size(v);
    size_t n_bits = bits;
    bool empty = false, too_large = false;
    for (int d = 0; d < t->n_dims; d++) {
        const json_t *side = json_array_get(v, (size_t)d);
        if (!json_is_integer(side) || json_integer_value(side) < 0)
            return BG_FAIL(err, BG_EFORMAT, "shape of tensor \"%.200s\" is not of whole numbers >= 0 in \"%s\"",
                           t->name, t->file);
        t->shape[d] = (size_t)json_integer_value(side);
        if (t->shape[d] == 0)
            empty = true;
        else if (n_bits > SIZE_MAX / t->shape[d])
            too_large = true;
        else
            n_bits *= t->shape[d];
    }
    if (too_large || n_bits % 8 != 0)
        return BG_FAIL(err, BG_EFORMAT, "shape of tensor \"%.200s\" gives %s in \"%s\"", t->name,
                       too_large ? "more bytes than can be" : "no whole number of bytes", t->file);
    t->n_bytes = empty ? 0 : n_bits / 8;
    return BG_OK;
}

/* Where the bytes lie; they are exactly as many as the shape asks for. */
static bg_status read_offsets(bg_tensor *t, const json_t *entry, const unsigned char *buffer, size_t buffer_bytes,
                              bg_err *err)
{
    const json_t *v = json_object_get(entry, "data_offsets");
    const json_t *begin = json_array_get(v, 0), *end = json_array_get(v, 1);
    if (json_array_size(v) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        return BG_FAIL(err, BG_EFORMAT, "tensor \"%.200s\" has no pair of data_offsets in \"%s\"", t->name, t->file);
    int64_t first = json_integer_value(begin), last = json_integer_value(end);
    if (first < 0 || last < first)
        return BG_FAIL(err, BG_EFORMAT, "data_offsets of tensor \"%.200s\" are %" PRId64 " .. %" PRId64 " in \"%s\"",
                       t->name, first, last, t->file);
    if ((uint64_t)last > buffer_bytes)
        return BG_FAIL(err, BG_EFORMAT, "tensor \"%.200s\" ends at byte %" PRId64 " of %zu in \"%s\": truncated?",
                       t->name, last, buffer_bytes, t->file);
    if ((size_t)(last - first) != t->n_bytes)
        return BG_FAIL(err, BG_EFORMAT,
                       "tensor \"%.200s\" has %" PRId64 " bytes, its shape and dtype ask for %zu, in \"%s\"", t->name,
                       last - first, t->n_bytes, t->file);
    t->data = buffer + first;
    return BG_OK;
}

/* The tensors of one file must tile its buffer: no gap, no overlap, nothing left over. */
static bg_status check_tiling(bg_tensor *t, size_t n, const unsigned char *buffer, size_t buffer_bytes,
                              const char *path, bg_err *err)
{
    const unsigned char *expected = buffer, *end = buffer + buffer_bytes;
    qsort(t, n, sizeof *t, by_place);
    for (size_t i = 0; i < n; i++) {
        const unsigned char *at = t[i].data;
        if (at != expected)
            return BG_FAIL(err, BG_EFORMAT, "tensor \"%.200s\" %s the tensor before it in \"%s\"", t[i].name,
                           at < expected ? "overlaps" : "leaves a gap after", path);
        expected = at + t[i].n_bytes;
    }
    if (expected != end)
        return BG_FAIL(err, BG_EFORMAT, "%zu bytes at the end of \"%s\" belong to no tensor", (size_t)(end - expected),
                       path);
    return BG_OK;
}

/* One tensor's entry, without its name. */
static bg_status read_entry(bg_tensor *t, const json_t *entry, const unsigned char *buffer, size_t buffer_bytes,
                            bg_err *err)
{
    unsigned bits = 0;
    bg_status st = read_dtype(t, entry, &bits, err);
    if (st == BG_OK)
        st = read_shape(t, entry, bits, err);
    if (st == BG_OK)
        st = read_offsets(t, entry, buffer, buffer_bytes, err);
    return st;
}

static bg_status read_entries(bg_st_header *out, json_t *root, size_t header_bytes, const unsigned char *buffer,
                              size_t buffer_bytes, const char *path, bg_err *err)
{
    const char *name;
    json_t *entry;
    size_t used = 0;
    bg_status st = BG_NEW(out->names, header_bytes, "tensor names", err);
    if (st == BG_OK)
        st = BG_NEW(out->tensor, json_object_size(root), "table of tensors", err);
    if (st != BG_OK)
        return st;
    json_object_foreach(root, name, entry)
    {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        if (!is_printable(name))
            return BG_FAIL(err, BG_EFORMAT, "a tensor name holds a control character in \"%s\"", path);
        size_t length = strlen(name) + 1;
        assert(used + length <= header_bytes); /* each name stands in the header, in quotes */
        bg_tensor *t = &out->tensor[out->n++];
        *t = (bg_tensor){ .name = memcpy(out->names + used, name, length), .file = path };
        used += length;
        if ((st = read_entry(t, entry, buffer, buffer_bytes, err)) != BG_OK)
            return st;
    }
    return check_tiling(out->tensor, out->n, buffer, buffer_bytes, path, err);
}

bg_status bg_st_header_read(bg_st_header *out, const unsigned char *map, size_t map_bytes, const char *path,
                            bg_err *err)
{
    size_t header_bytes = 0;
    json_error_t why;
    bg_status st = read_length(map, map_bytes, path, &header_bytes, err);
    if (st != BG_OK)
        return st;
    const unsigned char *text = map + BG_ST_LENGTH_BYTES, *buffer = text + header_bytes;
    json_t *root = json_loadb((const char *)text, header_bytes, JSON_REJECT_DUPLICATES, &why);
    if (root == NULL)
        return BG_FAIL(err, BG_EFORMAT, "header of \"%s\" is not valid JSON: %s", path, why.text);
    if (json_is_object(root))
        st = read_entries(out, root, header_bytes, buffer, (size_t)(map + map_bytes - buffer), path, err);
    else
        st = BG_FAIL(err, BG_EFORMAT, "header of \"%s\" is not a JSON object", path);
    json_decref(root);
    return st;
}

void bg_st_header_clear(bg_st_header *h)
{
    bg_free(h->names);
    bg_free(h->tensor);
    *h = (bg_st_header){ 0 };
}
