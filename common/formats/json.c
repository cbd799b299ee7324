#include "json.h"

#include <ctype.h>
#include <errno.h>
#include <float.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/open.h"
#include "lfs.h"

/* ---- the text ---- */

enum { READ_BYTES = 1 << 16, EXACT_DIGITS = 18 }; /* any integer of 18 digits fits 64 bits */

/* A whole file, with a 0 behind its n bytes; free with free. */
static bg_status read_text(const char *path, char **out, size_t *n, bg_err *err)
{
    size_t got = 1, capacity = 0;
    FILE *f;
    *out = NULL;
    *n = 0;
    bg_status st = bg_open_stream(path, &f, err);
    if (st != BG_OK)
        return st;
    while (got > 0) {
        if (*n == capacity) {
            char *more = realloc(*out, (capacity = 2 * capacity + READ_BYTES) + 1);
            if (more == NULL) {
                fclose(f);
                return BG_FAIL(err, BG_ENOMEM, "out of memory to read \"%s\"", path);
            }
            *out = more;
        }
        *n += got = fread(*out + *n, 1, capacity - *n, f);
    }
    if (ferror(f))
        st = BG_FAIL(err, BG_EIO, "cannot read \"%s\": %s", path, strerror(errno));
    fclose(f);
    (*out)[*n] = '\0';
    return st;
}

/* Length of a number at `text` that no JSON parser need take: NaN, an infinity, or one beyond 64 bits; else 0. */
static size_t odd_number(const char *text)
{
    static const char *const word[] = { "NaN", "Infinity", "-Infinity" };
    for (size_t i = 0; i < sizeof word / sizeof word[0]; i++)
        if (strncmp(text, word[i], strlen(word[i])) == 0)
            return strlen(word[i]);
    size_t n = strspn(text, "+-.0123456789eE"), sign = *text == '-', digits = strspn(text + sign, "0123456789");
    bool whole = sign + digits == n;
    return (whole && digits > EXACT_DIGITS) || (!whole && digits > 0 && isinf(strtod(text, NULL))) ? n : 0;
}

/* Python writes such numbers, and config.json may have them under keys that nobody needs here.  They become empty
 * texts, in place: where a number, a flag or a name is needed, that is refused. */
static void blank_odd_numbers(char *text)
{
    bool quoted = false;
    for (char *at = text; *at != '\0'; at++) {
        if (*at == '"')
            quoted = !quoted;
        else if (quoted && *at == '\\' && at[1] != '\0')
            at++;
        if (quoted || (*at != 'N' && *at != 'I' && *at != '-' && !isdigit((unsigned char)*at)))
            continue;
        size_t odd = odd_number(at);
        if (odd > 0) {
            memset(at, ' ', odd);
            at[0] = at[1] = '"';
        }
        at += odd > 0 ? odd - 1 : strspn(at + 1, "+-.0123456789eE");
    }
}

bg_status bg_json_read(json_t **out, const char *path, bg_err *err)
{
    json_error_t why;
    char *text = NULL;
    size_t n;
    *out = NULL;
    bg_status st = read_text(path, &text, &n, err);
    if (st == BG_OK)
        st = bg_lfs_refuse(path, text, n, err);
    if (st != BG_OK) {
        free(text);
        return st;
    }
    blank_odd_numbers(text);
    json_t *root = json_loadb(text, n, JSON_REJECT_DUPLICATES, &why);
    free(text);
    if (root == NULL)
        return BG_FAIL(err, BG_EFORMAT, "\"%s\" is not valid JSON: line %d: %s", path, why.line, why.text);
    if (!json_is_object(root)) {
        json_decref(root);
        return BG_FAIL(err, BG_EFORMAT, "\"%s\" does not hold a JSON object", path);
    }
    *out = root;
    return BG_OK;
}

/* ---- values ---- */

const json_t *bg_json_value(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);
    return v == NULL || json_is_null(v) ? NULL : v;
}

bg_status bg_json_require(const json_t *object, const char *key, const char *where, bg_err *err)
{
    if (json_object_get(object, key) == NULL)
        return BG_FAIL(err, BG_EFORMAT, "key \"%s\" is missing in \"%s\"", key, where);
    return BG_OK;
}

bg_status bg_json_size(const json_t *object, const char *key, const char *where, size_t *out, bg_err *err)
{
    const json_t *v = bg_json_value(object, key);
    if (v == NULL)
        return BG_OK;
    if (!json_is_integer(v))
        return BG_FAIL(err, BG_EFORMAT, "key \"%s\" is not a whole number in \"%s\"", key, where);
    int64_t n = json_integer_value(v);
    if (n < 1 || n > INT_MAX)
        return BG_FAIL(err, BG_EFORMAT, "key \"%s\" is %" PRId64 ", not within 1 .. 2^31 - 1, in \"%s\"", key, n,
                       where);
    *out = (size_t)n;
    return BG_OK;
}

bg_status bg_json_positive(const json_t *object, const char *key, const char *where, double *out, bg_err *err)
{
    const json_t *v = bg_json_value(object, key);
    if (v == NULL)
        return BG_OK;
    if (!json_is_number(v))
        return BG_FAIL(err, BG_EFORMAT, "key \"%s\" is not a number in \"%s\"", key, where);
    double x = json_number_value(v);
    if (!(x >= (double)FLT_MIN && x <= (double)FLT_MAX))
        return BG_FAIL(err, BG_EFORMAT, "key \"%s\" is %g, not a positive float32 number, in \"%s\"", key, x, where);
    *out = x;
    return BG_OK;
}

bg_status bg_json_flag(const json_t *object, const char *key, const char *where, bool *out, bg_err *err)
{
    const json_t *v = bg_json_value(object, key);
    if (v == NULL)
        return BG_OK;
    if (!json_is_boolean(v))
        return BG_FAIL(err, BG_EFORMAT, "key \"%s\" is neither true nor false in \"%s\"", key, where);
    *out = json_is_true(v);
    return BG_OK;
}

bg_status bg_json_text(const json_t *object, const char *key, const char *where, const char **out, bg_err *err)
{
    const json_t *v = bg_json_value(object, key);
    if (v == NULL)
        return BG_OK;
    if (!json_is_string(v))
        return BG_FAIL(err, BG_EFORMAT, "key \"%s\" is not a string in \"%s\"", key, where);
    *out = json_string_value(v);
    return BG_OK;
}
