/* Command lines of every stage: the first byte is the stage, a letter from a on, the rest its arguments, a line each. */
#include <jansson.h>

#include "bregman/stage.h"
#include "bregman/options.h"
#include "input.h"

/* The stages' own mains, which come here instead of to bg_stage_main (see the Makefile). */
int compare_scales_main(int argc, char **argv);
int compress_queries_main(int argc, char **argv);
int fit_factors_main(int argc, char **argv);
int inspect_main(int argc, char **argv);
int merge_scores_main(int argc, char **argv);
int plan_main(int argc, char **argv);
int prefilter_main(int argc, char **argv);
int score_shards_main(int argc, char **argv);
int train_models_main(int argc, char **argv);
int verify_main(int argc, char **argv);
int fuzz_stage_main(const bg_stage *s, int argc, char **argv);

static int (*const stages[])(int argc, char **argv) = {
    compress_queries_main, fit_factors_main, inspect_main,   merge_scores_main, plan_main,
    score_shards_main,     verify_main,      prefilter_main, train_models_main, compare_scales_main,
};
enum { STAGES = sizeof stages / sizeof stages[0], MOST_ARGUMENTS = 64 };

static void check_json(const bg_option_table *table, bool identity_only)
{
    char *text = NULL;
    bg_err err = { .msg = "" };
    bg_status st = bg_options_json(table, 1, identity_only, &text, &err);
    check_status(st, &err);
    json_t *object = st == BG_OK ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
    if (st == BG_OK && object == NULL)
        finding(text, &err);
    json_decref(object);
    free(text);
}

/* Numbers lie within their limits, lists hold what was given. */
static void check_values(const bg_opt *o, const char *config)
{
    bg_err err = { .msg = "" };
    for (; o->name != NULL; o++) {
        double x = 0;
        if (o->type == BG_OPT_F64)
            x = *(const double *)(const void *)(config + o->offset);
        else if (o->type == BG_OPT_U64)
            x = (double)*(const uint64_t *)(const void *)(config + o->offset);
        if ((o->lo != 0 || o->hi != 0) && !(x >= o->lo && x <= o->hi))
            finding(o->name, &err);
    }
}

int fuzz_stage_main(const bg_stage *s, int argc, char **argv)
{
    void *config = calloc(1, s->config_size);
    const bg_option_table table = { s->opts, config };
    bg_err err = { .msg = "" };
    if (config == NULL)
        abort();
    bg_status st = bg_options_parse(&table, 1, argc, argv, &err);
    check_status(st, &err);
    if (st == BG_OK) {
        check_values(s->opts, config);
        check_json(&table, false);
        check_json(&table, true);
    }
    bg_options_clear(&table, 1);
    free(config);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input in = { data, size };
    unsigned which = (unsigned)(take(&in) - 'a') % STAGES;
    char *text = calloc(in.left + 1, 1), *rest = text, *argv[MOST_ARGUMENTS + 1] = { (char[]){ "stage" } };
    int argc = 1;
    if (text == NULL)
        abort();
    memcpy(text, in.at, in.left);
    while (in.left > 0 && rest != NULL && argc < MOST_ARGUMENTS)
        argv[argc++] = strsep(&rest, "\n");
    stages[which](argc, argv);
    free(text);
    return 0;
}
