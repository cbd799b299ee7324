/* config.c - config.json read by its family's row of the table in family.c. */
#include "bregman/config.h"

#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "bregman/path.h"
#include "experts.h"
#include "family.h"
#include "json.h"
#include "rope.h"

/* Of transformers' configuration classes, for keys that are absent. */
enum { DEFAULT_WINDOW = 4096, DEFAULT_WINDOW_LAYERS = 28 };

static bg_status read_activation(bg_model_config *c, const json_t *root, const bg_family *f, const char *file,
                                 bg_err *err)
{
    static const struct {
        const char *name;
        bg_activation value;
    } known[] = {
        { "gelu", BG_ACT_GELU_ERF },
        { "gelu_python", BG_ACT_GELU_ERF },
        { "gelu_new", BG_ACT_GELU_TANH },
        { "gelu_fast", BG_ACT_GELU_TANH },
        { "gelu_pytorch_tanh", BG_ACT_GELU_TANH },
        { "gelu_python_tanh", BG_ACT_GELU_TANH },
        { "silu", BG_ACT_SILU },
        { "swish", BG_ACT_SILU },
        { "relu", BG_ACT_RELU },
    };
    const char *name = f->default_activation;
    bg_status st = bg_json_text(root, f->activation, file, &name, err);
    if (st != BG_OK)
        return st;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(name, known[i].name) == 0) {
            c->activation = known[i].value;
            return BG_OK;
        }
    }
    return BG_FAIL(err, BG_EFORMAT, "%s \"%.64s\" is not supported in \"%s\"", f->activation, name, file);
}

static bg_status need_size(const json_t *root, const char *key, const char *file, size_t *out, bg_err *err)
{
    *out = 0;
    bg_status st = bg_json_size(root, key, file, out, err);
    if (st == BG_OK && *out == 0)
        st = BG_FAIL(err, BG_EFORMAT, "key \"%s\" is missing in \"%s\"", key, file);
    return st;
}

/* Sizes that the file must give. */
static bg_status read_sizes(bg_model_config *c, const json_t *root, const bg_family *f, const char *file, bg_err *err)
{
    const struct {
        const char *key;
        size_t *out;
    } sizes[] = {
        { f->d_model, &c->d_model },      { f->n_blocks, &c->n_blocks },
        { f->n_heads, &c->n_heads },      { f->max_positions, &c->max_positions },
        { "vocab_size", &c->vocab_size },
    };
    bg_status st = BG_OK;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0] && st == BG_OK; i++)
        st = need_size(root, sizes[i].key, file, sizes[i].out, err);
    if (st == BG_OK && c->n_blocks > BG_MAX_BLOCKS)
        st = BG_FAIL(err, BG_EFORMAT, "key \"%s\" is %zu, more than %d, in \"%s\"", f->n_blocks, c->n_blocks,
                     BG_MAX_BLOCKS, file);
    c->positions_key = f->max_positions;
    for (size_t i = 0; i < BG_FAMILY_REQUIRED && f->required[i] != NULL && st == BG_OK; i++)
        st = bg_json_require(root, f->required[i], file, err);
    if (st == BG_OK)
        st = bg_json_require(root, f->norm_epsilon, file, err);
    if (st == BG_OK)
        st = bg_json_positive(root, f->norm_epsilon, file, &c->norm_epsilon, err);
    if (st == BG_OK && c->norm_epsilon <= 0)
        st = BG_FAIL(err, BG_EFORMAT, "key \"%s\" is null in \"%s\"", f->norm_epsilon, file);
    return st;
}

/* Sizes that follow from others where the file does not give them. */
static bg_status read_derived_sizes(bg_model_config *c, const json_t *root, const bg_family *f, const char *file,
                                    bg_err *err)
{
    bg_status st = BG_OK;
    c->n_kv_heads = c->n_heads;
    c->d_head = 0;
    if (f->n_kv_heads != NULL)
        st = bg_json_size(root, f->n_kv_heads, file, &c->n_kv_heads, err);
    if (st == BG_OK && f->d_head != NULL)
        st = bg_json_size(root, f->d_head, file, &c->d_head, err);
    if (st == BG_OK && f->d_ff_default_ratio == 0)
        st = need_size(root, f->d_ff, file, &c->d_ff, err);
    if (st == BG_OK && f->d_ff_default_ratio > 0) {
        c->d_ff = f->d_ff_default_ratio * c->d_model;
        st = bg_json_size(root, f->d_ff, file, &c->d_ff, err);
    }
    if (st != BG_OK)
        return st;
    if (c->d_head == 0 && c->d_model % c->n_heads != 0)
        return BG_FAIL(err, BG_EFORMAT, "%s %zu is not a multiple of %s %zu in \"%s\"", f->d_model, c->d_model,
                       f->n_heads, c->n_heads, file);
    if (c->d_head == 0)
        c->d_head = c->d_model / c->n_heads;
    if (c->n_heads % c->n_kv_heads != 0)
        return BG_FAIL(err, BG_EFORMAT, "%s %zu is not a multiple of %s %zu in \"%s\"", f->n_heads, c->n_heads,
                       f->n_kv_heads, c->n_kv_heads, file);
    if (c->d_ff > INT_MAX || c->d_head > INT_MAX / 3 / c->n_heads) /* 3: rows of q, k and v together */
        return BG_FAIL(err, BG_EFORMAT, "the sizes in \"%s\" give a matrix with more than 2^31 - 1 rows", file);
    return BG_OK;
}

static bg_status read_flags(bg_model_config *c, const json_t *root, const bg_family *f, const char *file, bg_err *err)
{
    bg_status st = bg_json_flag(root, "tie_word_embeddings", file, &c->tied_head, err);
    if (st == BG_OK && f->has_attention_bias_key) {
        st = bg_json_flag(root, "attention_bias", file, &c->qkv_bias, err);
        c->attention_out_bias = c->qkv_bias;
    }
    if (st == BG_OK && f->has_mlp_bias_key)
        st = bg_json_flag(root, "mlp_bias", file, &c->mlp_bias, err);
    if (st == BG_OK && f->has_bias_key) {
        st = bg_json_flag(root, "use_bias", file, &c->qkv_bias, err);
        c->attention_out_bias = c->mlp_bias = c->qkv_bias;
    }
    if (st == BG_OK && f->has_parallel_residual_key)
        st = bg_json_flag(root, "use_parallel_residual", file, &c->parallel_residual, err);
    return st;
}

static bg_status refuse_unless(const json_t *root, const char *key, bool wanted, const char *file, bg_err *err)
{
    bool value = wanted;
    bg_status st = bg_json_flag(root, key, file, &value, err);
    if (st == BG_OK && value != wanted)
        st = BG_FAIL(err, BG_EFORMAT, "%s = %s is not supported in \"%s\"", key, value ? "true" : "false", file);
    return st;
}

static bg_status refuse_unsupported(const json_t *root, const bg_family *f, const char *file, bg_err *err)
{
    if (bg_json_value(root, "quantization_config") != NULL)
        return BG_FAIL(err, BG_EFORMAT, "quantization_config is not supported in \"%s\": give the unquantised model",
                       file);
    if (json_object_size(bg_json_value(root, "per_layer_config")) > 0)
        return BG_FAIL(err, BG_EFORMAT, "per_layer_config is not supported in \"%s\"", file);
    if (f->refused_if_given != NULL && bg_json_value(root, f->refused_if_given) != NULL)
        return BG_FAIL(err, BG_EFORMAT, "%s is not supported in \"%s\"", f->refused_if_given, file);
    bg_status st = refuse_unless(root, "is_causal", true, file, err);
    for (size_t i = 0; i < BG_FAMILY_REFUSED && f->refused_unless[i].key != NULL && st == BG_OK; i++)
        st = refuse_unless(root, f->refused_unless[i].key, f->refused_unless[i].value, file, err);
    return st;
}

/* Whether a block's attention slides, in the families where blocks differ: by "layer_types", or from block
 * "max_window_layers" on. */
static bg_status read_slides(const bg_model_config *c, const json_t *root, const char *file, bool *out, bg_err *err)
{
    const json_t *types = bg_json_value(root, "layer_types"), *first = bg_json_value(root, "max_window_layers");
    *out = false;
    bg_status st = bg_json_flag(root, "use_sliding_window", file, out, err);
    if (st != BG_OK || !*out)
        return st;
    if (types != NULL && json_array_size(types) != c->n_blocks)
        return BG_FAIL(err, BG_EFORMAT, "layer_types has not one entry for each of the %zu blocks in \"%s\"",
                       c->n_blocks, file);
    if (types == NULL && first != NULL && !json_is_integer(first))
        return BG_FAIL(err, BG_EFORMAT, "key \"max_window_layers\" is not a whole number in \"%s\"", file);
    json_int_t from = first != NULL ? json_integer_value(first) : DEFAULT_WINDOW_LAYERS;
    *out = types == NULL && from < (json_int_t)c->n_blocks;
    for (size_t i = 0; types != NULL && i < c->n_blocks; i++) {
        const char *type = json_string_value(json_array_get(types, i));
        *out |= type == NULL || strcmp(type, "full_attention") != 0;
    }
    return BG_OK;
}

/* Within its window, sliding attention is plain causal attention: longer sequences are refused. */
static bg_status read_window(bg_model_config *c, const json_t *root, const bg_family *f, const char *file, bg_err *err)
{
    const json_t *key = json_object_get(root, "sliding_window");
    bool used = f->window == BG_WINDOW_ALWAYS || (f->window == BG_WINDOW_GIVEN && key != NULL);
    bool none = json_is_null(key);
    size_t window = DEFAULT_WINDOW;
    bg_status st = BG_OK;
    if (f->window == BG_WINDOW_FLAGGED)
        st = bg_json_flag(root, "use_sliding_window", file, &used, err);
    if (f->window == BG_WINDOW_BY_BLOCK)
        st = read_slides(c, root, file, &used, err);
    if (st == BG_OK && used)
        st = bg_json_size(root, "sliding_window", file, &window, err);
    if (used && !none && window < c->max_positions) {
        c->max_positions = window;
        c->positions_key = "sliding_window";
    }
    return st;
}

/* A negative token counts from the vocabulary's end, as in PyTorch. */
static size_t padding_of(const json_t *root, bg_padding_rule rule, json_int_t vocab)
{
    const json_t *key = json_object_get(root, "pad_token_id");
    json_int_t token = vocab;
    if (key == NULL && rule == BG_PADDING_GIVEN_OR_1)
        token = 1;
    else if (rule != BG_PADDING_NONE && json_is_integer(key))
        token = json_integer_value(key);
    return token >= -vocab && token < vocab ? (size_t)(token < 0 ? token + vocab : token) : SIZE_MAX;
}

/* What only a model that is trained asks for. */
static bg_status read_training(bg_model_config *c, const json_t *root, const bg_family *f, const char *file,
                               bg_err *err)
{
    static const char *const dropout[] = { "resid_pdrop",       "embd_pdrop",       "attn_pdrop",
                                           "attention_dropout", "residual_dropout", "hidden_dropout",
                                           "embedding_dropout" };
    for (size_t i = 0; i < sizeof dropout / sizeof dropout[0]; i++)
        c->dropout = c->dropout || json_number_value(json_object_get(root, dropout[i])) > 0;
    c->padding_token = padding_of(root, f->padding, (json_int_t)c->vocab_size);
    if (c->initializer_range <= 0)
        c->initializer_range = 0.02;
    return bg_json_positive(root, "initializer_range", file, &c->initializer_range, err);
}

static bg_status read_by_family(bg_model_config *c, const json_t *root, const bg_family *f, const char *file,
                                bg_err *err)
{
    bg_status st;
    *c = f->fixed;
    snprintf(c->family, sizeof c->family, "%s", f->model_type);
    if ((st = refuse_unsupported(root, f, file, err)) != BG_OK || (st = read_sizes(c, root, f, file, err)) != BG_OK ||
        (st = read_derived_sizes(c, root, f, file, err)) != BG_OK ||
        (st = read_activation(c, root, f, file, err)) != BG_OK || (st = read_flags(c, root, f, file, err)) != BG_OK ||
        (st = bg_experts_read(c, root, f, file, err)) != BG_OK || (st = bg_rope_read(c, root, f, file, err)) != BG_OK ||
        (st = read_training(c, root, f, file, err)) != BG_OK)
        return st;
    return read_window(c, root, f, file, err);
}

static bg_status read_root(bg_model_config *out, const json_t *root, const char *file, bg_err *err)
{
    char known[256];
    const char *model_type = NULL;
    bg_status st = bg_json_text(root, "model_type", file, &model_type, err);
    if (st != BG_OK)
        return st;
    if (model_type == NULL)
        return BG_FAIL(err, BG_EFORMAT, "key \"model_type\" is missing in \"%s\"", file);
    const bg_family *f = bg_family_find(model_type);
    if (f != NULL)
        return read_by_family(out, root, f, file, err);
    bg_family_list(known, sizeof known);
    return BG_FAIL(err, BG_EFORMAT, "model_type \"%.64s\" is not supported in \"%s\"; supported: %s", model_type, file,
                   known);
}

bg_status bg_model_config_read(bg_model_config *out, const char *dir, bg_err *err)
{
    char file[BG_PATH_BYTES];
    json_t *root = NULL;
    bg_status st = bg_path(file, err, "%s/config.json", dir);
    if (st == BG_OK)
        st = bg_json_read(&root, file, err);
    if (st == BG_OK)
        st = read_root(out, root, file, err);
    json_decref(root);
    return st;
}

bg_status bg_model_config_parse(bg_model_config *out, const char *text, const char *name, bg_err *err)
{
    json_t *root = json_loads(text, 0, NULL);
    bg_status st = root != NULL ? read_root(out, root, name, err)
                                : BG_FAIL(err, BG_EFORMAT, "%s: no JSON: %.100s", name, text);
    json_decref(root);
    return st;
}
