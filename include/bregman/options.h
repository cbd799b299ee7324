/* options.h - a stage's command line, driven by tables of bg_opt. */
#ifndef BG_OPTIONS_H
#define BG_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "bregman/status.h"

/* Field types in a stage's config struct:
 *   STR const char * · U64 uint64_t · F64 double · FLAG bool
 *   RANGE bg_range ("A:B") · LIST bg_list (one or more values until the next
 *   option; repeating the option appends) · BYTES uint64_t ("500M", "2G", "2.5G"; powers of 1024) */
typedef enum { BG_OPT_STR, BG_OPT_U64, BG_OPT_F64, BG_OPT_FLAG, BG_OPT_RANGE, BG_OPT_LIST, BG_OPT_BYTES } bg_opt_type;

/* Sequences A..B-1.  The whole input is {0, UINT64_MAX}; either side of the
 * text "A:B" may be left out. */
typedef struct {
    uint64_t begin, end;
} bg_range;
typedef struct {
    size_t n;
    const char **item;
} bg_list;

/* A number as the text of a default. */
#define BG_TEXT(number)  BG_TEXT_(number)
#define BG_TEXT_(number) #number

typedef struct {
    const char *name; /* "--top" */
    bg_opt_type type;
    size_t offset;     /* offsetof the field in the stage's config struct */
    const char *deflt; /* text of the default; "" leaves STR NULL; NULL: required */
    double lo, hi;     /* inclusive range for numbers */
    const char *help;  /* one line, with the unit */
    bool positional;   /* also takes arguments without an option name */
    bool no_effect;    /* changes speed or talk, never a result: not in the fingerprint */
} bg_opt;

/* Options that fill one config struct. */
typedef struct {
    const bg_opt *opts; /* ends with .name == NULL */
    void *config;       /* zeroed before parsing */
} bg_option_table;

/* Set every field from argv[1..] or its default.  Texts stay argv's or the table's; lists are
 * freed by bg_options_clear.  Errors: BG_EARG, naming the option and the value. */
bg_status bg_options_parse(const bg_option_table *tables, size_t n_tables, int argc, char **argv,
                           bg_err *err) BG_MUST_CHECK;
void bg_options_clear(const bg_option_table *tables, size_t n_tables);

/* One compact JSON object, keys sorted and written with underscores; caller frees with free().
 * identity_only leaves out what cannot change a result: no_effect options and --output. */
bg_status bg_options_json(const bg_option_table *tables, size_t n_tables, bool identity_only, char **out,
                          bg_err *err) BG_MUST_CHECK;

void bg_options_help(FILE *to, const bg_option_table *tables, size_t n_tables);

/* Which of some words a text option has.
 *   word [in]   ends with NULL
 *   out  [out]  its index
 * Errors: BG_EARG, "OPTION takes ONE, OTHER or THIRD, not ...". */
bg_status bg_option_word(const char *option, const char *text, const char *const *word, int *out,
                         bg_err *err) BG_MUST_CHECK;

/* Sequences asked for, of `n` that the token files hold: an open end becomes n.
 * Errors: BG_EARG if there are none of them, or not so many. */
bg_status bg_option_range(const char *option, uint64_t n, bg_range *range, bg_err *err) BG_MUST_CHECK;

/* Levenshtein distance, of names cut to 63 characters: for "did you mean". */
size_t bg_edit_distance(const char *a, const char *b);

#endif /* BG_OPTIONS_H */
