/* options.h - a stage's command line, driven by tables of bg_opt. */
#ifndef BG_BASE_OPTIONS_H
#define BG_BASE_OPTIONS_H

#include <stdio.h>

#include "bregman/stage.h"

/* Options that fill one config struct. */
typedef struct {
    const bg_opt *opts;   /* ends with .name == NULL */
    void *config;         /* zeroed before parsing */
} bg_option_table;

/* Set every field from argv[1..] or its default.  Texts stay argv's or the table's; lists are
 * freed by bg_options_clear.  Errors: BG_EARG, naming the option and the value. */
bg_status bg_options_parse(const bg_option_table *tables, size_t n_tables, int argc, char **argv,
                           bg_err *err) BG_MUST_CHECK;
void bg_options_clear(const bg_option_table *tables, size_t n_tables);

/* One compact JSON object, keys sorted and written with underscores; caller frees with free().
 * identity_only leaves out what cannot change a result: no_effect options and --output. */
bg_status bg_options_json(const bg_option_table *tables, size_t n_tables, bool identity_only,
                          char **out, bg_err *err) BG_MUST_CHECK;

void bg_options_help(FILE *to, const bg_option_table *tables, size_t n_tables);

#endif /* BG_BASE_OPTIONS_H */
