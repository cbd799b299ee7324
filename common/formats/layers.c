/* layers.c - which blocks slide, and how far they see.  Keys that are absent mean what they do in transformers'
 * configuration classes. */
#include "layers.h"

#include <string.h>

#include "json.h"

enum { DEFAULT_WINDOW_LAYERS = 28 };

/* 0: there is none. */
static bg_status read_window(const json_t *root, const bg_family *f, const char *file, size_t *out, bg_err *err)
{
    *out = json_is_null(json_object_get(root, "sliding_window")) ? 0 : f->default_window;
    return bg_json_size(root, "sliding_window", file, out, err);
}

static void slide_from(bg_model_config *c, size_t first)
{
    for (size_t i = first; i < c->n_blocks; i++)
        c->layer[i] |= BG_LAYER_SLIDES;
}

/* "layer_types": a word for each block. */
static bg_status read_types(bg_model_config *c, const json_t *types, const char *file, bg_err *err)
{
    if (json_array_size(types) != c->n_blocks)
        return BG_FAIL(err, BG_EFORMAT, "layer_types has not one entry for each of the %zu blocks in \"%s\"",
                       c->n_blocks, file);
    for (size_t i = 0; i < c->n_blocks; i++) {
        const char *type = json_string_value(json_array_get(types, i));
        if (type != NULL && strcmp(type, "sliding_attention") == 0)
            c->layer[i] |= BG_LAYER_SLIDES;
        else if (type == NULL || strcmp(type, "full_attention") != 0)
            return BG_FAIL(err, BG_EFORMAT,
                           "layer_types: \"%.64s\" of block %zu is not supported in \"%s\"; supported: full_attention, "
                           "sliding_attention",
                           type != NULL ? type : "", i, file);
    }
    return BG_OK;
}

/* By "layer_types", or from block "max_window_layers" on, if "use_sliding_window" says so at all. */
static bg_status read_some(bg_model_config *c, const json_t *root, const char *file, bg_err *err)
{
    const json_t *types = bg_json_value(root, "layer_types"), *first = bg_json_value(root, "max_window_layers");
    bool used = false;
    bg_status st = bg_json_flag(root, "use_sliding_window", file, &used, err);
    if (st != BG_OK || !used)
        return st;
    if (types != NULL)
        return read_types(c, types, file, err);
    if (first != NULL && !json_is_integer(first))
        return BG_FAIL(err, BG_EFORMAT, "key \"max_window_layers\" is not a whole number in \"%s\"", file);
    json_int_t from = first != NULL ? json_integer_value(first) : DEFAULT_WINDOW_LAYERS;
    slide_from(c, from > 0 ? (size_t)from : 0);
    return BG_OK;
}

/* Without a window no block slides, whatever their types. */
bg_status bg_layers_read(bg_model_config *c, const json_t *root, const bg_family *f, const char *file, bg_err *err)
{
    size_t window = 0;
    bool any = false;
    bg_status st = f->window == BG_WINDOW_NONE ? BG_OK : read_window(root, f, file, &window, err);
    if (st == BG_OK && f->window == BG_WINDOW_ALL)
        slide_from(c, 0);
    if (st == BG_OK && f->window == BG_WINDOW_SOME)
        st = read_some(c, root, file, err);
    for (size_t i = 0; i < c->n_blocks; i++) {
        c->layer[i] = (unsigned char)(window > 0 ? c->layer[i] : c->layer[i] & ~BG_LAYER_SLIDES);
        any = any || (c->layer[i] & BG_LAYER_SLIDES);
    }
    c->window = any ? window : 0;
    return st;
}
