#include "json.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bregman/open.h"

bg_status bg_json_read(json_t **out, const char *path, bg_err *err)
{
    json_error_t why;
    *out = NULL;
    FILE *f;
    bg_status st = bg_open_stream(path, &f, err);
    if (st != BG_OK)
        return st;
    json_t *root = json_loadf(f, JSON_REJECT_DUPLICATES, &why);
    fclose(f);
    if (root == NULL)
        return BG_FAIL(err, BG_EFORMAT, "'%s' is not valid JSON: line %d: %s", path, why.line, why.text);
    if (!json_is_object(root)) {
        json_decref(root);
        return BG_FAIL(err, BG_EFORMAT, "'%s' does not hold a JSON object", path);
    }
    *out = root;
    return BG_OK;
}

const json_t *bg_json_value(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);
    return v == NULL || json_is_null(v) ? NULL : v;
}

bg_status bg_json_require(const json_t *object, const char *key, const char *where, bg_err *err)
{
    if (json_object_get(object, key) == NULL)
        return BG_FAIL(err, BG_EFORMAT, "key '%s' is missing in '%s'", key, where);
    return BG_OK;
}

bg_status bg_json_size(const json_t *object, const char *key, const char *where,
                       size_t *out, bg_err *err)
{
    const json_t *v = bg_json_value(object, key);
    if (v == NULL)
        return BG_OK;
    if (!json_is_integer(v))
        return BG_FAIL(err, BG_EFORMAT, "key '%s' is not a whole number in '%s'", key, where);
    json_int_t n = json_integer_value(v);
    if (n < 1 || n > INT_MAX)
        return BG_FAIL(err, BG_EFORMAT, "key '%s' is %lld, not within 1 .. 2^31 - 1, in '%s'",
                       key, (long long)n, where);
    *out = (size_t)n;
    return BG_OK;
}

bg_status bg_json_positive(const json_t *object, const char *key, const char *where,
                           double *out, bg_err *err)
{
    const json_t *v = bg_json_value(object, key);
    if (v == NULL)
        return BG_OK;
    if (!json_is_number(v))
        return BG_FAIL(err, BG_EFORMAT, "key '%s' is not a number in '%s'", key, where);
    double x = json_number_value(v);
    if (!isfinite(x) || x <= 0)
        return BG_FAIL(err, BG_EFORMAT, "key '%s' is %g, not positive, in '%s'", key, x, where);
    *out = x;
    return BG_OK;
}

bg_status bg_json_flag(const json_t *object, const char *key, const char *where,
                       bool *out, bg_err *err)
{
    const json_t *v = bg_json_value(object, key);
    if (v == NULL)
        return BG_OK;
    if (!json_is_boolean(v))
        return BG_FAIL(err, BG_EFORMAT, "key '%s' is neither true nor false in '%s'", key, where);
    *out = json_is_true(v);
    return BG_OK;
}

bg_status bg_json_text(const json_t *object, const char *key, const char *where,
                       const char **out, bg_err *err)
{
    const json_t *v = bg_json_value(object, key);
    if (v == NULL)
        return BG_OK;
    if (!json_is_string(v))
        return BG_FAIL(err, BG_EFORMAT, "key '%s' is not a string in '%s'", key, where);
    *out = json_string_value(v);
    return BG_OK;
}
