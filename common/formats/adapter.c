#include "bregman/adapter.h"

#include <assert.h>
#include <math.h>
#include <regex.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bregman/memory.h"
#include "bregman/path.h"
#include "bregman/safetensors.h"
#include "json.h"

static const char prefix[] = "base_model.model."; /* PEFT's own wrapping of the base */
enum { NAME_BYTES = 512 };

struct bg_adapter {
    char base[BG_PATH_BYTES], config_path[BG_PATH_BYTES];
    json_t *config;
    bg_tensors *tensors;
    bool *taken; /* of the tensors */
};

bool bg_adapter_is(const char *dir)
{
    char path[BG_PATH_BYTES];
    return bg_path(path, NULL, "%s/adapter_config.json", dir) == BG_OK && access(path, F_OK) == 0;
}

/* ---- adapter_config.json ---- */

/* Keys that are read here, that matter to training only, or whose tensors speak for them. */
static bool is_known(const char *key)
{
    static const char *const known[] = {
        "peft_type",
        "peft_version",
        "task_type",
        "auto_mapping",
        "base_model_name_or_path",
        "revision",
        "inference_mode",
        "r",
        "lora_alpha",
        "lora_dropout",
        "fan_in_fan_out",
        "bias",
        "use_rslora",
        "rank_pattern",
        "alpha_pattern",
        "target_modules",
        "exclude_modules",
        "modules_to_save",
        "layers_pattern",
        "layers_to_transform",
        "megatron_core",
        "loftq_config",
        "eva_config",
        "corda_config",
        "init_lora_weights",
        "qalora_group_size",
        "ensure_weight_tying",
        "runtime_config",
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(key, known[i]) == 0)
            return true;
    return false;
}

static bool is_unset(const json_t *value)
{
    return json_is_null(value) || json_is_false(value) || (json_is_array(value) && json_array_size(value) == 0) ||
           (json_is_object(value) && json_object_size(value) == 0);
}

/* A text that must be one of a few, or absent. */
static bg_status check_word(const bg_adapter *a, const char *key, const char *const *word, size_t n, bg_err *err)
{
    const char *text = word[0];
    bg_status st = bg_json_text(a->config, key, a->config_path, &text, err);
    for (size_t i = 0; i < n && st == BG_OK; i++)
        if (strcmp(text, word[i]) == 0)
            return BG_OK;
    return st != BG_OK ? st
                       : BG_FAIL(err, BG_EFORMAT,
                                 "\"%s\": %s \"%.64s\" is not supported: merge the adapter with peft's "
                                 "merge_and_unload() and give the folder that this makes",
                                 a->config_path, key, text);
}

/* Only LoRA itself, of an unchanged base. */
static bg_status check_kind(const bg_adapter *a, bg_err *err)
{
    static const char *const lora[] = { "LORA" }, *const no_bias[] = { "none" };
    static const char *const leaves_base[] = { "gaussian", "eva", "orthogonal" };
    const char *key;
    json_t *value;
    bg_status st = bg_json_require(a->config, "peft_type", a->config_path, err);
    if (st == BG_OK)
        st = check_word(a, "peft_type", lora, 1, err);
    if (st == BG_OK)
        st = check_word(a, "bias", no_bias, 1, err);
    if (st == BG_OK && !json_is_boolean(json_object_get(a->config, "init_lora_weights")))
        st = check_word(a, "init_lora_weights", leaves_base, 3, err);
    if (st != BG_OK)
        return st;
    json_object_foreach(a->config, key, value)
    {
        if (!is_known(key) && !is_unset(value))
            return BG_FAIL(err, BG_EFORMAT,
                           "\"%s\": %.64s is not supported: merge the adapter with peft's merge_and_unload() and give "
                           "the folder that this makes",
                           a->config_path, key);
    }
    return BG_OK;
}

static bool is_folder(const char *path)
{
    struct stat about;
    return stat(path, &about) == 0 && S_ISDIR(about.st_mode);
}

static bg_status find_base(bg_adapter *a, const char *dir, bg_err *err)
{
    const char *named = "";
    bg_status st = bg_path(a->base, err, "%s/base", dir);
    if (st != BG_OK || is_folder(a->base))
        return st;
    st = bg_json_text(a->config, "base_model_name_or_path", a->config_path, &named, err);
    if (st == BG_OK && (*named == '\0' || !is_folder(named)))
        return BG_FAIL(err, BG_EIO,
                       "\"%s\": the base model \"%.200s\" (base_model_name_or_path) is no folder here: link its folder "
                       "to where it is looked for first: ln -s FOLDER %s/base",
                       a->config_path, named, dir);
    return st == BG_OK ? bg_path(a->base, err, "%s", named) : st;
}

static bg_status read_config(bg_adapter *a, const char *dir, bg_err *err)
{
    bg_status st = bg_path(a->config_path, err, "%s/adapter_config.json", dir);
    if (st == BG_OK)
        st = bg_json_read(&a->config, a->config_path, err);
    if (st == BG_OK)
        st = check_kind(a, err);
    if (st == BG_OK)
        st = find_base(a, dir, err);
    if (st == BG_OK && bg_adapter_is(a->base))
        st = BG_FAIL(err, BG_EFORMAT, "\"%s\": its base \"%s\" is an adapter itself: merge that one first", dir,
                     a->base);
    return st;
}

/* Does the key of a pattern, a regular expression, match the end of a module's name, from a dot on?  PEFT means
 * Python's expressions: what they and POSIX's do not have in common is refused. */
static bg_status matches(const bg_adapter *a, const char *key, const char *module, bool *out, bg_err *err)
{
    char whole[NAME_BYTES];
    regex_t expression;
    bool foreign = strstr(key, "(?") != NULL;
    for (const char *at = key; *at != '\0'; at++) {
        if (*at != '\\')
            continue;
        at++; /* what is escaped */
        foreign = foreign || strchr(".+*?()[]{}|^$\\", *at) == NULL || *at == '\0';
        if (*at == '\0')
            break;
    }
    if (foreign || (size_t)snprintf(whole, sizeof whole, "^(.*\\.)?(%s)$", key) >= sizeof whole ||
        regcomp(&expression, whole, REG_EXTENDED | REG_NOSUB) != 0)
        return BG_FAIL(err, BG_EFORMAT,
                       "\"%s\": \"%.200s\" is an expression of Python's that is not read here: name the modules in full",
                       a->config_path, key);
    *out = regexec(&expression, module, 0, NULL, 0) == 0;
    regfree(&expression);
    return BG_OK;
}

/* The value of the first pattern that matches, else that of the key itself. */
static bg_status value_for(const bg_adapter *a, const char *pattern, const char *key, const char *module, double *out,
                           bg_err *err)
{
    const char *name = NULL;
    json_t *value, *patterns = json_object_get(a->config, pattern);
    bool found = false;
    json_object_foreach(patterns, name, value)
    {
        bg_status st = matches(a, name, module, &found, err);
        if (st != BG_OK)
            return st;
        if (found)
            break;
    }
    const json_t *where = found ? patterns : a->config;
    key = found ? name : key;
    if (bg_json_value(where, key) == NULL)
        return BG_FAIL(err, BG_EFORMAT, "key \"%s\" is missing in \"%s\"", key, a->config_path);
    return bg_json_positive(where, key, a->config_path, out, err);
}

/* ---- its tensors ---- */

static bg_status open_tensors(bg_adapter *a, const char *dir, bg_err *err)
{
    char path[BG_PATH_BYTES], pickled[BG_PATH_BYTES];
    bg_status st = bg_path(path, err, "%s/adapter_model.safetensors", dir);
    if (st == BG_OK)
        st = bg_path(pickled, err, "%s/adapter_model.bin", dir);
    if (st == BG_OK && access(path, F_OK) != 0 && access(pickled, F_OK) == 0)
        return BG_FAIL(err, BG_EFORMAT,
                       "\"%s\" holds adapter_model.bin alone: bregman-bin-to-hf makes safetensors of it", dir);
    if (st == BG_OK)
        st = bg_tensors_open_file(&a->tensors, path, err);
    if (st == BG_OK && bg_tensors_count(a->tensors) == 0)
        st = BG_FAIL(err, BG_EFORMAT, "\"%s\" holds no tensor", path);
    return st == BG_OK ? BG_NEW(a->taken, bg_tensors_count(a->tensors), "table of tensors", err) : st;
}

bg_status bg_adapter_open(bg_adapter **out, const char *dir, bg_err *err)
{
    *out = NULL;
    if (!bg_adapter_is(dir))
        return BG_OK;
    bg_status st = BG_NEW(*out, 1, "adapter", err);
    if (st == BG_OK)
        st = read_config(*out, dir, err);
    if (st == BG_OK)
        st = open_tensors(*out, dir, err);
    if (st != BG_OK) {
        bg_adapter_close(*out);
        *out = NULL;
    }
    return st;
}

void bg_adapter_close(bg_adapter *a)
{
    if (a == NULL)
        return;
    json_decref(a->config);
    bg_tensors_close(a->tensors);
    bg_free(a->taken);
    bg_free(a);
}

const char *bg_adapter_base(const bg_adapter *a) { return a->base; }
const bg_tensors *bg_adapter_tensors(const bg_adapter *a) { return a->tensors; }

size_t bg_adapter_modules(const bg_adapter *a)
{
    static const char ending[] = ".lora_A.weight";
    size_t n = 0;
    for (size_t i = 0; i < bg_tensors_count(a->tensors); i++)
        n += bg_ends_in(bg_tensors_at(a->tensors, i)->name, ending);
    return n;
}

/* PREFIX + NAME + ENDING, or without the root; it is taken from then on. */
static const bg_tensor *take(bg_adapter *a, const char *name, const char *root, const char *ending)
{
    char path[NAME_BYTES];
    size_t skip = strncmp(name, root, strlen(root)) == 0 ? strlen(root) : 0;
    const bg_tensor *t = NULL;
    if ((size_t)snprintf(path, sizeof path, "%s%s%s", prefix, name, ending) < sizeof path)
        t = bg_tensors_find(a->tensors, path);
    if (t == NULL && skip > 0 &&
        (size_t)snprintf(path, sizeof path, "%s%s%s", prefix, name + skip, ending) < sizeof path)
        t = bg_tensors_find(a->tensors, path);
    if (t != NULL)
        a->taken[t - bg_tensors_at(a->tensors, 0)] = true;
    return t;
}

const bg_tensor *bg_adapter_replacement(bg_adapter *a, const char *path, const char *root)
{
    return take(a, path, root, "");
}

static bg_status check_matrix(const bg_adapter *a, const bg_tensor *t, size_t rows, size_t columns, bg_err *err)
{
    bg_number type;
    if (!bg_tensor_number(t, &type))
        return BG_FAIL(err, BG_EFORMAT, "%s: tensor \"%s\" is none of F64, F32, BF16 and F16", t->file, t->name);
    if (t->n_dims != 2 || t->shape[0] != rows || t->shape[1] != columns)
        return BG_FAIL(err, BG_ESHAPE,
                       "%s: tensor \"%s\" is [%zu, %zu], but the base \"%s\" makes it [%zu, %zu]: an adapter of another "
                       "base?",
                       t->file, t->name, t->n_dims > 0 ? t->shape[0] : 0, t->n_dims > 1 ? t->shape[1] : 0, a->base,
                       rows, columns);
    return BG_OK;
}

bg_status bg_adapter_find(bg_adapter *a, const char *module, const char *root, const size_t shape[2], bg_lora *out,
                          bg_err *err)
{
    double r = 0, alpha = 0;
    bool stabilised = false;
    *out = (bg_lora){ take(a, module, root, ".lora_A.weight"), take(a, module, root, ".lora_B.weight"), 0 };
    if (out->a == NULL && out->b == NULL)
        return BG_OK;
    if (out->a == NULL || out->b == NULL)
        return BG_FAIL(err, BG_EFORMAT, "\"%s\": %s has no lora_%c", a->config_path, module,
                       out->a == NULL ? 'A' : 'B');
    bg_status st = value_for(a, "rank_pattern", "r", module, &r, err);
    if (st == BG_OK)
        st = value_for(a, "alpha_pattern", "lora_alpha", module, &alpha, err);
    if (st == BG_OK)
        st = bg_json_flag(a->config, "use_rslora", a->config_path, &stabilised, err);
    if (st == BG_OK && out->a->n_dims == 2 && (double)out->a->shape[0] != r)
        return BG_FAIL(err, BG_EFORMAT, "%s: tensor \"%s\" has rank %zu, but \"%s\" says %g", out->a->file,
                       out->a->name, out->a->shape[0], a->config_path, r);
    if (st == BG_OK)
        st = check_matrix(a, out->a, (size_t)r, shape[1], err);
    if (st == BG_OK)
        st = check_matrix(a, out->b, shape[0], (size_t)r, err);
    out->scale = (float)(alpha / (stabilised ? sqrt(r) : r));
    return st;
}

bg_status bg_adapter_check_taken(const bg_adapter *a, bg_err *err)
{
    for (size_t i = 0; i < bg_tensors_count(a->tensors); i++) {
        const bg_tensor *t = bg_tensors_at(a->tensors, i);
        if (!a->taken[i])
            return BG_FAIL(err, BG_EFORMAT,
                           "%s: tensor \"%s\" belongs to no linear module in a block of the base \"%s\": an adapter of "
                           "another base, or of the embedding, the head, a router or an expert, which is not supported",
                           t->file, t->name, a->base);
    }
    return BG_OK;
}

bg_status bg_adapter_hash(const bg_adapter *a, bg_hash *out, bg_err *err)
{
    bg_hash config, weights;
    bg_status st = bg_hash_file(a->config_path, &config, err);
    if (st == BG_OK)
        st = bg_tensors_hash(a->tensors, &weights, err);
    if (st == BG_OK)
        *out = bg_hash_texts((const char *const[]){ config.hex, weights.hex }, 2);
    return st;
}
