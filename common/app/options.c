#include "bregman/options.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FIELD(type, table, opt) ((type *)(void *)((char *)(table)->config + (opt)->offset))

typedef struct {
    const bg_option_table *tables;
    size_t n_tables;
    char **argv;
    int argc, next; /* next: index of the argument to read */
} command_line;

static bool starts_option(const char *arg) { return arg[0] == '-' && arg[1] == '-' && arg[2] != '\0'; }

/* ---- values ---- */

static bool parse_u64(const char *text, uint64_t *out)
{
    char *end;
    errno = 0;
    *out = strtoull(text, &end, 10);
    return text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0;
}

static bool parse_f64(const char *text, double *out)
{
    char *end;
    *out = strtod(text, &end);
    return end != text && *end == '\0' && isfinite(*out);
}

/* "A:B", either side may be empty. */
static bool parse_range(const char *text, bg_range *out)
{
    char first[32];
    *out = (bg_range){ 0, UINT64_MAX };
    const char *colon = strchr(text, ':');
    if (colon == NULL || (size_t)(colon - text) >= sizeof first)
        return false;
    memcpy(first, text, (size_t)(colon - text));
    first[colon - text] = '\0';
    if (first[0] != '\0' && !parse_u64(first, &out->begin))
        return false;
    if (colon[1] != '\0' && !parse_u64(colon + 1, &out->end))
        return false;
    return out->begin <= out->end;
}

/* A row with lo == hi == 0 has no limits. */
static bool in_limits(const bg_opt *o, double x)
{
    return (o->lo == 0.0 && o->hi == 0.0) || (x >= o->lo && x <= o->hi);
}

/* "2G", "500M", "1.5k", "4096"; powers of 1024. */
static bool parse_bytes(const char *text, uint64_t *out)
{
    static const char unit[] = "kMGT";
    char number[64];
    size_t n = strlen(text);
    double x, scale = 1;
    const char *at = n > 0 ? strchr(unit, text[n - 1] == 'K' ? 'k' : text[n - 1]) : NULL;
    if (at != NULL) {
        n--;
        for (const char *u = unit; u <= at; u++)
            scale *= 1024;
    }
    if (n == 0 || n >= sizeof number)
        return false;
    memcpy(number, text, n);
    number[n] = '\0';
    if (!parse_f64(number, &x) || !(x >= 0) || x * scale >= 9e18)
        return false;
    *out = (uint64_t)(x * scale);
    return true;
}

static bg_status bad_number(const bg_opt *o, const char *text, const char *kind, bg_err *err)
{
    if (o->lo == 0.0 && o->hi == 0.0)
        return BG_FAIL(err, BG_EARG, "%s takes %s, not \"%s\"", o->name, kind, text);
    return BG_FAIL(err, BG_EARG, "%s takes %s from %.15g to %.15g, not \"%s\"", o->name, kind, o->lo, o->hi, text);
}

static bg_status append_item(bg_list *list, const char *text, size_t capacity, bg_err *err)
{
    if (list->item == NULL && (list->item = calloc(capacity, sizeof *list->item)) == NULL)
        return BG_FAIL(err, BG_ENOMEM, "out of memory for a list of options");
    list->item[list->n++] = text;
    return BG_OK;
}

static bg_status set_value(const bg_option_table *table, const bg_opt *o, const char *text, size_t list_capacity,
                           bg_err *err)
{
    uint64_t u;
    double x;
    switch (o->type) {
    case BG_OPT_STR: *FIELD(const char *, table, o) = text; return BG_OK;
    case BG_OPT_U64:
        if (!parse_u64(text, &u) || !in_limits(o, (double)u))
            return bad_number(o, text, "a whole number", err);
        *FIELD(uint64_t, table, o) = u;
        return BG_OK;
    case BG_OPT_F64:
        if (!parse_f64(text, &x) || !in_limits(o, x))
            return bad_number(o, text, "a number", err);
        *FIELD(double, table, o) = x;
        return BG_OK;
    case BG_OPT_BYTES:
        if (!parse_bytes(text, FIELD(uint64_t, table, o)))
            return BG_FAIL(err, BG_EARG, "%s takes a number of bytes such as 500M or 2.5G, not \"%s\"", o->name, text);
        return BG_OK;
    case BG_OPT_FLAG: *FIELD(bool, table, o) = true; return BG_OK;
    case BG_OPT_RANGE:
        if (!parse_range(text, FIELD(bg_range, table, o)))
            return BG_FAIL(err, BG_EARG, "%s takes a range A:B with A <= B, not \"%s\"", o->name, text);
        return BG_OK;
    case BG_OPT_LIST: return append_item(FIELD(bg_list, table, o), text, list_capacity, err);
    }
    return BG_FAIL(err, BG_EARG, "%s has no known type", o->name);
}

/* ---- names ---- */

size_t bg_edit_distance(const char *a, const char *b)
{
    size_t row[64], na = strnlen(a, 63), nb = strnlen(b, 63);
    for (size_t j = 0; j <= nb; j++)
        row[j] = j;
    for (size_t i = 1; i <= na; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[nb];
}

static bg_status unknown_option(const command_line *line, const char *name, bg_err *err)
{
    const char *nearest = NULL;
    size_t least = 2 + strlen(name) / 4; /* farther away is no help */
    for (size_t i = 0; i < line->n_tables; i++)
        for (const bg_opt *o = line->tables[i].opts; o->name != NULL; o++) {
            bool begins = strlen(name) > 3 && strncmp(name, o->name, strlen(name)) == 0;
            size_t distance = begins ? 0 : bg_edit_distance(name, o->name);
            if (distance < least) {
                least = distance;
                nearest = o->name;
            }
        }
    if (nearest != NULL)
        return BG_FAIL(err, BG_EARG, "unknown option \"%s\" (did you mean %s?)", name, nearest);
    return BG_FAIL(err, BG_EARG, "unknown option \"%s\" (--help lists them)", name);
}

static const bg_opt *find_option(const command_line *line, const char *name, size_t n, const bg_option_table **table)
{
    for (size_t i = 0; i < line->n_tables; i++)
        for (const bg_opt *o = line->tables[i].opts; o->name != NULL; o++)
            if (strlen(o->name) == n && memcmp(o->name, name, n) == 0) {
                *table = &line->tables[i];
                return o;
            }
    return NULL;
}

/* ---- the walk over argv ---- */

static bg_status take_list(command_line *line, const bg_option_table *table, const bg_opt *o, bg_err *err)
{
    int first = line->next;
    bg_status st = BG_OK;
    while (st == BG_OK && line->next < line->argc && strncmp(line->argv[line->next], "--", 2) != 0)
        st = set_value(table, o, line->argv[line->next++], (size_t)line->argc, err);
    if (st == BG_OK && line->next == first)
        st = BG_FAIL(err, BG_EARG, "%s needs a value", o->name);
    return st;
}

static bg_status take_option(command_line *line, bg_err *err)
{
    const char *arg = line->argv[line->next++];
    size_t n = strcspn(arg, "=");
    const bg_option_table *table;
    const bg_opt *o = find_option(line, arg, n, &table);
    if (o == NULL) {
        char name[64];
        snprintf(name, sizeof name, "%.*s", (int)(n < 63 ? n : 63), arg);
        return unknown_option(line, name, err);
    }
    size_t capacity = (size_t)line->argc;
    if (arg[n] == '=' && o->type == BG_OPT_FLAG)
        return BG_FAIL(err, BG_EARG, "%s takes no value, not \"%s\"", o->name, arg + n + 1);
    if (arg[n] == '=')
        return set_value(table, o, arg + n + 1, capacity, err);
    if (o->type == BG_OPT_FLAG)
        return set_value(table, o, "", capacity, err);
    if (o->type == BG_OPT_LIST)
        return take_list(line, table, o, err);
    if (line->next == line->argc || starts_option(line->argv[line->next]))
        return BG_FAIL(err, BG_EARG, "%s needs a value", o->name);
    return set_value(table, o, line->argv[line->next++], capacity, err);
}

static bg_status take_positional(command_line *line, bg_err *err)
{
    const char *arg = line->argv[line->next++];
    for (size_t i = 0; i < line->n_tables; i++)
        for (const bg_opt *o = line->tables[i].opts; o->name != NULL; o++)
            if (o->positional)
                return set_value(&line->tables[i], o, arg, (size_t)line->argc, err);
    return BG_FAIL(err, BG_EARG, "unexpected argument \"%s\"", arg);
}

/* Was an option given?  Only asked of those without a default. */
static bool was_given(const bg_option_table *table, const bg_opt *o, int argc, char **argv)
{
    if (o->type == BG_OPT_STR)
        return *FIELD(const char *, table, o) != NULL;
    if (o->type == BG_OPT_LIST)
        return FIELD(bg_list, table, o)->n > 0;
    for (int i = 1; i < argc; i++)
        if (strncmp(argv[i], o->name, strlen(o->name)) == 0 && strchr("=", argv[i][strlen(o->name)]) != NULL)
            return true;
    return false;
}

static bg_status set_defaults(const bg_option_table *table, bg_err *err)
{
    bg_status st = BG_OK;
    for (const bg_opt *o = table->opts; o->name != NULL && st == BG_OK; o++) {
        if (o->type == BG_OPT_RANGE)
            *FIELD(bg_range, table, o) = (bg_range){ 0, UINT64_MAX };
        if (o->deflt != NULL && o->deflt[0] != '\0' && o->type != BG_OPT_LIST && o->type != BG_OPT_FLAG)
            st = set_value(table, o, o->deflt, 1, err);
    }
    return st;
}

static bg_status check_complete(const bg_option_table *table, int argc, char **argv, bg_err *err)
{
    bg_status st = BG_OK;
    for (const bg_opt *o = table->opts; o->name != NULL && st == BG_OK; o++) {
        if (o->deflt == NULL && o->type != BG_OPT_FLAG && !was_given(table, o, argc, argv))
            st = BG_FAIL(err, BG_EARG, "%s is required", o->name);
        else if (o->type == BG_OPT_LIST && FIELD(bg_list, table, o)->n == 0 && o->deflt != NULL && o->deflt[0] != '\0')
            st = set_value(table, o, o->deflt, 1, err);
    }
    return st;
}

bg_status bg_options_parse(const bg_option_table *tables, size_t n_tables, int argc, char **argv, bg_err *err)
{
    command_line line = { tables, n_tables, argv, argc, 1 };
    bool options_end = false;
    bg_status st = BG_OK;
    for (size_t i = 0; i < n_tables && st == BG_OK; i++)
        st = set_defaults(&tables[i], err);
    while (st == BG_OK && line.next < argc) {
        const char *arg = argv[line.next];
        if (!options_end && strcmp(arg, "--") == 0) {
            options_end = true;
            line.next++;
        } else if (!options_end && arg[0] == '-' && arg[1] != '\0') {
            st = take_option(&line, err);
        } else {
            st = take_positional(&line, err);
        }
    }
    for (size_t i = 0; i < n_tables && st == BG_OK; i++)
        st = check_complete(&tables[i], argc, argv, err);
    return st;
}

void bg_options_clear(const bg_option_table *tables, size_t n_tables)
{
    for (size_t i = 0; i < n_tables; i++)
        for (const bg_opt *o = tables[i].opts; o->name != NULL; o++)
            if (o->type == BG_OPT_LIST) {
                bg_list *list = FIELD(bg_list, &tables[i], o);
                free(list->item);
                *list = (bg_list){ 0 };
            }
}

/* ---- JSON ---- */

static json_t *range_json(bg_range r)
{
    if (r.end == UINT64_MAX)
        return json_sprintf("%" PRIu64 ":", r.begin);
    return json_sprintf("%" PRIu64 ":%" PRIu64, r.begin, r.end);
}

static json_t *list_json(const bg_list *list)
{
    json_t *array = json_array();
    for (size_t i = 0; i < list->n && array != NULL; i++)
        if (json_array_append_new(array, json_string(list->item[i])) != 0) {
            json_decref(array);
            array = NULL;
        }
    return array;
}

/* NULL if out of memory or if a text is not UTF-8. */
static json_t *value_json(const bg_option_table *table, const bg_opt *o)
{
    const char *text;
    switch (o->type) {
    case BG_OPT_STR: text = *FIELD(const char *, table, o); return text != NULL ? json_string(text) : json_null();
    case BG_OPT_U64:
    case BG_OPT_BYTES: return json_integer((json_int_t)*FIELD(uint64_t, table, o));
    case BG_OPT_F64: return json_real(*FIELD(double, table, o));
    case BG_OPT_FLAG: return json_boolean(*FIELD(bool, table, o));
    case BG_OPT_RANGE: return range_json(*FIELD(bg_range, table, o));
    case BG_OPT_LIST: return list_json(FIELD(bg_list, table, o));
    }
    return NULL;
}

static bg_status add_option(json_t *object, const bg_option_table *table, const bg_opt *o, bg_err *err)
{
    char key[64];
    snprintf(key, sizeof key, "%s", o->name + 2);
    for (char *c = key; *c != '\0'; c++)
        if (*c == '-')
            *c = '_';
    if (json_object_set_new(object, key, value_json(table, o)) != 0)
        return BG_FAIL(err, BG_EARG, "%s: the value is not UTF-8 text", o->name);
    return BG_OK;
}

bg_status bg_options_json(const bg_option_table *tables, size_t n_tables, bool identity_only, char **out, bg_err *err)
{
    bg_status st = BG_OK;
    json_t *object = json_object();
    *out = NULL;
    for (size_t i = 0; i < n_tables && st == BG_OK; i++)
        for (const bg_opt *o = tables[i].opts; o->name != NULL && st == BG_OK; o++)
            if (!identity_only || (!o->no_effect && strcmp(o->name, "--output") != 0))
                st = add_option(object, &tables[i], o, err);
    if (st == BG_OK && (*out = json_dumps(object, JSON_SORT_KEYS | JSON_COMPACT | JSON_REAL_PRECISION(17))) == NULL)
        st = BG_FAIL(err, BG_ENOMEM, "out of memory for the options' text");
    json_decref(object);
    return st;
}

/* ---- help ---- */

static void print_option(FILE *to, const bg_opt *o)
{
    static const char *const value[] = {
        [BG_OPT_STR] = " TEXT", [BG_OPT_U64] = " N",     [BG_OPT_F64] = " X",        [BG_OPT_BYTES] = " BYTES",
        [BG_OPT_FLAG] = "",     [BG_OPT_RANGE] = " A:B", [BG_OPT_LIST] = " TEXT...",
    };
    char left[96];
    snprintf(left, sizeof left, "%s%s", o->name, value[o->type]);
    fprintf(to, "  %-30s %s", left, o->help);
    if (o->deflt == NULL && o->type != BG_OPT_FLAG)
        fputs(" (required)", to);
    else if (o->deflt != NULL && o->deflt[0] != '\0' && o->type != BG_OPT_FLAG)
        fprintf(to, " (default %s)", o->type == BG_OPT_RANGE && strcmp(o->deflt, ":") == 0 ? "all" : o->deflt);
    fputc('\n', to);
}

void bg_options_help(FILE *to, const bg_option_table *tables, size_t n_tables)
{
    for (size_t i = 0; i < n_tables; i++)
        for (const bg_opt *o = tables[i].opts; o->name != NULL; o++)
            print_option(to, o);
}

bg_status bg_option_range(const char *option, uint64_t n, bg_range *range, bg_err *err)
{
    if (range->end == UINT64_MAX)
        range->end = n;
    if (range->begin >= range->end || range->end > n)
        return BG_FAIL(err, BG_EARG, "%s %" PRIu64 ":%" PRIu64 ": the token files hold %" PRIu64 " sequences%s", option,
                       range->begin, range->end, n,
                       range->begin >= range->end ? ", and BEGIN:END is to have END above BEGIN"
                                                  : ": give an END of at most that");
    return BG_OK;
}

bg_status bg_option_word(const char *option, const char *text, const char *const *word, int *out, bg_err *err)
{
    char all[128] = "";
    size_t n = 0;
    for (*out = 0; word[*out] != NULL; ++*out) {
        const char *between = *out == 0 ? "" : word[*out + 1] == NULL ? " or " : ", ";
        if (strcmp(word[*out], text) == 0)
            return BG_OK;
        n += (size_t)snprintf(all + n, sizeof all - n, "%s%s", between, word[*out]);
        assert(n < sizeof all);
    }
    return BG_FAIL(err, BG_EARG, "%s takes %s, not \"%.40s\"", option, all, text);
}
