/* config.c - config.json read by its family's row of the table in family.c. */
#include "bregman/config.h"

#include <limits.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "bregman/path.h"
#include "experts.h"
#include "family.h"
#include "json.h"
#include "layers.h"
#include "rope.h"

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
        { "xielu", BG_ACT_XIELU },
    };
    const char *name = f->default_activation;
    bg_status st = bg_json_text(root, f->activation, file, &name, err);
    if (st != BG_OK)
        return st;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        bool ours = known[i].value != BG_ACT_XIELU || c->names.activation != NULL;
        if (strcmp(name, known[i].name) == 0 && ours) {
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
    if (st != BG_OK || f->norm_epsilon == NULL)
        return st;
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

/* A bound: absent, the family's; null, none. */
static bg_status read_cap(const json_t *root, const char *key, const char *file, double *cap, bg_err *err)
{
    *cap = json_is_null(json_object_get(root, key)) ? 0 : *cap;
    return bg_json_positive(root, key, file, cap, err);
}

/* What is done to scores, to q, k and v, to logits and to embeddings, where a family does it. */
static bg_status read_scales(bg_model_config *c, const json_t *root, const bg_family *f, const char *file, bg_err *err)
{
    double scalar = 256, family_cap = c->attention_cap;
    bg_status st = BG_OK;
    c->embedding_scale = f->scales_embedding ? sqrt((double)c->d_model) : 0;
    if (f->has_clip_key)
        st = bg_json_positive(root, "clip_qkv", file, &c->clip_qkv, err);
    if (st != BG_OK || !f->has_cap_keys)
        return st;
    st = bg_json_positive(root, "query_pre_attn_scalar", file, &scalar, err);
    c->attention_scale = 1 / sqrt(scalar);
    if (st == BG_OK)
        st = read_cap(root, "attn_logit_softcapping", file, &c->attention_cap, err);
    if (st == BG_OK && family_cap <= 0 && c->attention_cap > 0) /* its class in transformers does not look at it */
        st = BG_FAIL(err, BG_EFORMAT, "attn_logit_softcapping is not supported for %s in \"%s\"", f->model_type, file);
    return st == BG_OK ? read_cap(root, "final_logit_softcapping", file, &c->logit_cap, err) : st;
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

/* A negative token counts from the vocabulary's end, as in PyTorch. */
static size_t padding_of(const json_t *root, const bg_family *f, json_int_t vocab)
{
    const json_t *key = json_object_get(root, "pad_token_id");
    json_int_t token = vocab;
    if (key == NULL && f->padding == BG_PADDING_GIVEN_OR)
        token = f->default_padding;
    else if (f->padding != BG_PADDING_NONE && json_is_integer(key))
        token = json_integer_value(key);
    return token >= -vocab && token < vocab ? (size_t)(token < 0 ? token + vocab : token) : SIZE_MAX;
}

/* What only a model that is trained asks for. */
static bg_status read_training(bg_model_config *c, const json_t *root, const bg_family *f, const char *file,
                               bg_err *err)
{
    static const char *const dropout[] = { "resid_pdrop",       "embd_pdrop",       "attn_pdrop",
                                           "attention_dropout", "residual_dropout", "hidden_dropout",
                                           "embedding_dropout", "resid_dropout",    "embed_dropout" };
    for (size_t i = 0; i < sizeof dropout / sizeof dropout[0]; i++)
        c->dropout = c->dropout || json_number_value(json_object_get(root, dropout[i])) > 0;
    c->padding_token = padding_of(root, f, (json_int_t)c->vocab_size);
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
        (st = read_scales(c, root, f, file, err)) != BG_OK || (st = bg_experts_read(c, root, f, file, err)) != BG_OK ||
        (st = bg_rope_read(c, root, f, file, err)) != BG_OK || (st = read_training(c, root, f, file, err)) != BG_OK)
        return st;
    return bg_layers_read(c, root, f, file, err);
}

static bg_status read_root(bg_model_config *out, const json_t *root, const char *file, bg_err *err)
{
    char known[512];
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

bool bg_model_family_at(size_t i, bg_model_family *out)
{
    const bg_family *f = bg_family_at(i);
    if (f != NULL)
        *out = (bg_model_family){ f->model_type, f->cases, f->fixed.untrained };
    return f != NULL;
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
