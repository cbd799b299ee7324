/* layers.c - which blocks slide and how far they see, and which rotate.  Keys that are absent mean what they do in
 * transformers' configuration classes. */
#include "layers.h"

#include <string.h>

#include "json.h"

enum { DEFAULT_WINDOW_LAYERS = 28 };

/* 0: there is none. */
static bg_status read_window(const json_t *root, const bg_family *f, const char *file, size_t *out, bg_err *err)
{
    const char *key = f->window_key != NULL ? f->window_key : "sliding_window";
    *out = json_is_null(json_object_get(root, key)) ? 0 : f->default_window;
    return bg_json_size(root, key, file, out, err);
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

/* All, whatever "max_window_layers" says. */
static bg_status read_flagged(bg_model_config *c, const json_t *root, const char *file, bg_err *err)
{
    bool used = false;
    bg_status st = bg_json_flag(root, "use_sliding_window", file, &used, err);
    slide_from(c, used ? 0 : c->n_blocks);
    return st;
}

/* By "layer_types", or all blocks but each period-th. */
static bg_status read_period(bg_model_config *c, const json_t *root, const bg_family *f, const char *file, bg_err *err)
{
    const json_t *types = bg_json_value(root, "layer_types");
    size_t period = f->window_period;
    if (types != NULL)
        return read_types(c, types, file, err);
    bg_status st = f->has_window_period_key ? bg_json_size(root, "sliding_window_pattern", file, &period, err) : BG_OK;
    for (size_t i = 0; i < c->n_blocks; i++)
        c->layer[i] |= (i + 1) % period != 0 ? BG_LAYER_SLIDES : 0;
    return st;
}

/* One item of "attention_types": [words, how often they are repeated]; *at: the block that it begins with. */
static bg_status read_neo_item(bg_model_config *c, const json_t *item, size_t *at, const char *file, bg_err *err)
{
    const json_t *words = json_array_get(item, 0), *times = json_array_get(item, 1);
    size_t n = json_array_size(words);
    if (n == 0 || !json_is_integer(times) || json_integer_value(times) < 0)
        return BG_FAIL(err, BG_EFORMAT, "attention_types is not a list of [[words], times] in \"%s\"", file);
    for (json_int_t k = 0; k < json_integer_value(times) && *at <= c->n_blocks; k++)
        for (size_t w = 0; w < n && *at <= c->n_blocks; w++, (*at)++) {
            const char *word = json_string_value(json_array_get(words, w));
            bool local = word != NULL && strcmp(word, "local") == 0;
            if (!local && (word == NULL || strcmp(word, "global") != 0))
                return BG_FAIL(err, BG_EFORMAT,
                               "attention_types: \"%.64s\" is not supported in \"%s\"; supported: global, local",
                               word != NULL ? word : "", file);
            if (*at < c->n_blocks && local)
                c->layer[*at] |= BG_LAYER_SLIDES;
        }
    return BG_OK;
}

static bg_status read_neo(bg_model_config *c, const json_t *root, const char *file, bg_err *err)
{
    const json_t *types = bg_json_value(root, "attention_types");
    size_t at = 0;
    bg_status st = BG_OK;
    if (types == NULL && c->n_blocks == 24) { /* the class's default: global and local in turn, 12 times */
        for (size_t i = 1; i < c->n_blocks; i += 2)
            c->layer[i] |= BG_LAYER_SLIDES;
        return BG_OK;
    }
    for (size_t i = 0; i < json_array_size(types) && st == BG_OK; i++)
        st = read_neo_item(c, json_array_get(types, i), &at, file, err);
    if (st == BG_OK && at != c->n_blocks)
        st = BG_FAIL(err, BG_EFORMAT, "attention_types has not one entry for each of the %zu blocks in \"%s\"",
                     c->n_blocks, file);
    return st;
}

/* "no_rope_layers": 1 for a block that rotates, 0 for one that does not; or each period-th does not. */
static bg_status read_no_rope(bg_model_config *c, const json_t *root, const char *file, bg_err *err)
{
    const json_t *rotates = bg_json_value(root, "no_rope_layers");
    size_t period = 4;
    bg_status st = bg_json_size(root, "no_rope_layer_interval", file, &period, err);
    if (st == BG_OK && rotates != NULL && json_array_size(rotates) < c->n_blocks)
        st = BG_FAIL(err, BG_EFORMAT, "no_rope_layers has not one entry for each of the %zu blocks in \"%s\"",
                     c->n_blocks, file);
    for (size_t i = 0; i < c->n_blocks && st == BG_OK; i++) {
        const json_t *of = rotates != NULL ? json_array_get(rotates, i) : NULL;
        if (of != NULL && (!json_is_integer(of) || json_integer_value(of) < 0 || json_integer_value(of) > 1))
            return BG_FAIL(err, BG_EFORMAT, "no_rope_layers of block %zu is neither 0 nor 1 in \"%s\"", i, file);
        bool yes = of != NULL ? json_integer_value(of) == 1 : (i + 1) % period != 0;
        c->layer[i] |= yes ? 0 : BG_LAYER_NO_ROPE;
    }
    return st;
}

/* SmolLM3: where transformers' classes do not agree with themselves, none of it. */
static bg_status read_unrotated(bg_model_config *c, const json_t *root, const char *file, bg_err *err)
{
    const json_t *types = bg_json_value(root, "layer_types");
    bool used = false, any = false;
    bg_status st = bg_json_flag(root, "use_sliding_window", file, &used, err);
    if (st == BG_OK && types != NULL)
        st = read_types(c, types, file, err);
    for (size_t i = 0; i < c->n_blocks; i++) {
        if (types == NULL && used && (c->layer[i] & BG_LAYER_NO_ROPE))
            c->layer[i] |= BG_LAYER_SLIDES;
        any = any || (c->layer[i] & BG_LAYER_SLIDES);
    }
    if (st == BG_OK && any && !used)
        st = BG_FAIL(err, BG_EFORMAT, "layer_types has sliding_attention, but use_sliding_window is false, in \"%s\"",
                     file);
    return st;
}

static bg_status read_slides(bg_model_config *c, const json_t *root, const bg_family *f, const char *file, bg_err *err)
{
    switch (f->window) {
    case BG_WINDOW_NONE: return BG_OK;
    case BG_WINDOW_ALL: slide_from(c, 0); return BG_OK;
    case BG_WINDOW_FLAGGED: return read_flagged(c, root, file, err);
    case BG_WINDOW_SOME: return read_some(c, root, file, err);
    case BG_WINDOW_PERIOD: return read_period(c, root, f, file, err);
    case BG_WINDOW_NEO: return read_neo(c, root, file, err);
    case BG_WINDOW_NO_ROPE: return read_unrotated(c, root, file, err);
    }
    return BG_OK;
}

/* Without a window no block slides; where blocks are listed one by one, that is a contradiction. */
bg_status bg_layers_read(bg_model_config *c, const json_t *root, const bg_family *f, const char *file, bg_err *err)
{
    size_t window = 0;
    bool any = false, listed = f->window == BG_WINDOW_PERIOD || bg_json_value(root, "layer_types") != NULL;
    bg_status st = f->window == BG_WINDOW_NONE ? BG_OK : read_window(root, f, file, &window, err);
    if (st == BG_OK && f->has_no_rope_keys)
        st = read_no_rope(c, root, file, err);
    if (st == BG_OK)
        st = read_slides(c, root, f, file, err);
    for (size_t i = 0; i < c->n_blocks; i++) {
        any = any || (c->layer[i] & BG_LAYER_SLIDES);
        c->layer[i] = (unsigned char)(window > 0 ? c->layer[i] : c->layer[i] & ~BG_LAYER_SLIDES);
    }
    if (st == BG_OK && any && listed && window == 0)
        st = BG_FAIL(err, BG_EFORMAT,
                     "blocks slide (layer_types), but key \"sliding_window\" gives no window, in \"%s\"", file);
    c->window = any ? window : 0;
    return st;
}
