/* The parser by itself, then whole stages as child processes. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bregman/stage.h"
#include "bregman/stop.h"
#include "bregman/options.h"
#include "check.h"

typedef struct {
    const char *model, *note;
    uint64_t top;
    double factor;
    bool layers;
    bg_range range;
    bg_list tokens;
    const char *output;
} config;

static const bg_opt opts[] = {
    { "--model", BG_OPT_STR, offsetof(config, model), NULL, 0, 0, "folder", .no_effect = true },
    { "--note", BG_OPT_STR, offsetof(config, note), "", .help = "a text" },
    { "--top", BG_OPT_U64, offsetof(config, top), "10", 1, 1000, .help = "hits kept" },
    { "--damping-factor", BG_OPT_F64, offsetof(config, factor), "0.1", 0, 1, .help = "of the mean" },
    { "--layer-scores", BG_OPT_FLAG, offsetof(config, layers), NULL, .help = "also by layer" },
    { "--lambda-sequences", BG_OPT_RANGE, offsetof(config, range), "", .help = "to use" },
    { "--tokens", BG_OPT_LIST, offsetof(config, tokens), NULL, 0, 0, "token files", .positional = true },
    { "--output", BG_OPT_STR, offsetof(config, output), "out.h5", .help = "file made" },
    { 0 },
};

/* Parse a command line given as one text with single blanks. */
static bg_status parse(const char *text, config *c, bg_err *err)
{
    static char words[512];
    char *argv[32] = { (char[]){ "test" } };
    int argc = 1;
    snprintf(words, sizeof words, "%s", text);
    for (char *w = strtok(words, " "); w != NULL; w = strtok(NULL, " "))
        argv[argc++] = w;
    *c = (config){ 0 };
    const bg_option_table table = { opts, c };
    return bg_options_parse(&table, 1, argc, argv, err);
}

static void clear(config *c)
{
    const bg_option_table table = { opts, c };
    bg_options_clear(&table, 1);
}

static void assert_refused(const char *text, const char *why)
{
    config c;
    bg_err err = { .msg = "accepted" };
    assert_int_equal(parse(text, &c, &err), BG_EARG);
    assert_says(err, why);
    clear(&c);
}

static void defaults(void **state)
{
    (void)state;
    config c;
    bg_err err;
    assert_ok(parse("--model m --tokens a.h5", &c, &err), err);
    assert_string_equal(c.model, "m");
    assert_null(c.note);
    assert_int_equal(c.top, 10);
    assert_true(c.factor == 0.1);
    assert_false(c.layers);
    assert_true(c.range.begin == 0 && c.range.end == UINT64_MAX);
    assert_int_equal(c.tokens.n, 1);
    assert_string_equal(c.output, "out.h5");
    clear(&c);
}

static void every_type(void **state)
{
    (void)state;
    config c;
    bg_err err;
    assert_ok(parse("x.h5 --tokens a.h5 b.h5 --top=7 --damping-factor 1e-3 --layer-scores "
                    "--lambda-sequences 3: --model m --tokens c.h5 --note -5 -- --d.h5",
                    &c, &err),
              err);
    assert_int_equal(c.tokens.n, 5);
    assert_string_equal(c.tokens.item[0], "x.h5");
    assert_string_equal(c.tokens.item[2], "b.h5");
    assert_string_equal(c.tokens.item[3], "c.h5");
    assert_string_equal(c.tokens.item[4], "--d.h5");
    assert_int_equal(c.top, 7);
    assert_true(c.factor == 1e-3);
    assert_true(c.layers);
    assert_string_equal(c.note, "-5");
    assert_true(c.range.begin == 3 && c.range.end == UINT64_MAX);
    clear(&c);
    assert_ok(parse("--model m --top 5 --top 6 x --lambda-sequences :9", &c, &err), err);
    assert_int_equal(c.top, 6);
    assert_true(c.range.begin == 0 && c.range.end == 9);
    clear(&c);
}

static void refusals(void **state)
{
    (void)state;
    assert_refused("--tokens a", "--model is required");
    assert_refused("--model m", "--tokens is required");
    assert_refused("--tokns a", "unknown option \"--tokns\" (did you mean --tokens?)");
    assert_refused("--lambda 1:2", "did you mean --lambda-sequences?");
    assert_refused("--zzzzzzzz", "unknown option \"--zzzzzzzz\" (--help lists them)");
    assert_refused("-x", "unknown option \"-x\"");
    assert_refused("--top", "--top needs a value");
    assert_refused("--top --model", "--top needs a value");
    assert_refused("--tokens --model m", "--tokens needs a value");
    assert_refused("--top 0", "--top takes a whole number from 1 to 1000, not \"0\"");
    assert_refused("--top 1001", "not \"1001\"");
    assert_refused("--top -1", "not \"-1\"");
    assert_refused("--top 1.5", "not \"1.5\"");
    assert_refused("--top 99999999999999999999", "not \"99999999999999999999\"");
    assert_refused("--damping-factor nan", "--damping-factor takes a number from 0 to 1, not \"nan\"");
    assert_refused("--damping-factor 2", "not \"2\"");
    assert_refused("--damping-factor 0.1x", "not \"0.1x\"");
    assert_refused("--layer-scores=yes", "--layer-scores takes no value");
    assert_refused("--lambda-sequences 5", "takes a range A:B");
    assert_refused("--lambda-sequences 5:3", "takes a range A:B");
    assert_refused("--lambda-sequences a:3", "takes a range A:B");
}

static void options_as_json(void **state)
{
    (void)state;
    config c;
    bg_err err;
    char *all, *identity;
    assert_ok(parse("--model m --tokens a \"b --damping-factor 0.5 --lambda-sequences 1:2", &c, &err), err);
    const bg_option_table table = { opts, &c };
    assert_ok(bg_options_json(&table, 1, false, &all, &err), err);
    assert_ok(bg_options_json(&table, 1, true, &identity, &err), err);
    assert_string_equal(all,
                        "{\"damping_factor\":0.5,\"lambda_sequences\":\"1:2\",\"layer_scores\":false,"
                        "\"model\":\"m\",\"note\":null,\"output\":\"out.h5\",\"tokens\":[\"a\",\"\\\"b\"],\"top\":10}");
    assert_string_equal(identity, "{\"damping_factor\":0.5,\"lambda_sequences\":\"1:2\",\"layer_scores\":false,"
                                  "\"note\":null,\"tokens\":[\"a\",\"\\\"b\"],\"top\":10}");
    free(all);
    free(identity);
    clear(&c);
    assert_ok(parse("--model \xff --tokens a", &c, &err), err);
    assert_int_equal(bg_options_json(&table, 1, false, &all, &err), BG_EARG);
    assert_says(err, "--model");
    clear(&c);
}

/* ---- whole stages ---- */

static bg_status toy_run(const void *config_, const bg_context *ctx, bg_err *err)
{
    const config *c = config_;
    bg_status st = BG_OK;
    if (c->top == 2)
        st = BG_FAIL(err, BG_EIO, "two\nlines");
    if (c->top == 3) {
        raise(SIGTERM);
        st = bg_stop_requested() ? BG_FAIL(err, BG_ESTOPPED, "stopped") : BG_OK;
    }
    if (c->top == 5 && bg_stop_requested())
        st = BG_FAIL(err, BG_ESTOPPED, "stopped");
    if (c->top == 4)
        printf("threads=%d options=%s identity=%s started=%d\n", ctx->threads, ctx->options, ctx->identity,
               ctx->started > 1.6e9);
    return bg_agree(ctx->grid.world, st, err);
}

/* MPI's own; a signal comes meanwhile, and it changes handlers, as MPI may. */
int MPI_Init_thread(int *argc, char ***argv, int required, int *provided)
{
    const char *number = getenv("BREGMAN_TOY_SIGNAL");
    if (number != NULL)
        raise(atoi(number));
    int code = PMPI_Init_thread(argc, argv, required, provided);
    signal(SIGTERM, SIG_DFL);
    return code;
}

static const bg_stage toy = { "toy", "A stage for tests.", opts,   sizeof(config), false, false,
                              false, "toy --model m a.h5", toy_run };

/* Run the toy stage in a child; its exit code, stdout and stderr. */
static int run_toy(const char *arguments, char *out, char *errors, size_t n_bytes)
{
    char command[640], self[256] = { 0 }, error_path[] = "/tmp/bregman-toy-XXXXXX";
    int fd = mkstemp(error_path);
    assert_true(fd >= 0);
    assert_true(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    snprintf(command, sizeof command, "OMP_NUM_THREADS=3 BREGMAN_TOY=1 '%s' %s 2> %s", self, arguments, error_path);
    FILE *child = popen(command, "r");
    assert_non_null(child);
    out[fread(out, 1, n_bytes - 1, child)] = '\0';
    int status = pclose(child);
    ssize_t n = read(fd, errors, n_bytes - 1);
    assert_true(n >= 0);
    errors[n] = '\0';
    close(fd);
    unlink(error_path);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void stage_ends_and_codes(void **state)
{
    (void)state;
    char out[4096], errors[4096];
    assert_int_equal(run_toy("--model m a.h5", out, errors, sizeof out), 0);
    assert_string_equal(out, "");
    assert_non_null(strstr(errors, "1 rank x 3 threads"));
    assert_non_null(strstr(errors, "toy: done in "));
    assert_int_equal(run_toy("--model m a.h5 --quiet", out, errors, sizeof out), 0);
    assert_string_equal(errors, "");
    assert_int_equal(run_toy("--model m a.h5 --quiet --top 2", out, errors, sizeof out), 1);
    assert_string_equal(errors, "toy: error: two lines\n");
    assert_int_equal(run_toy("--model m a.h5 --top 3", out, errors, sizeof out), 75);
    assert_non_null(strstr(errors, "run the same command"));
    assert_int_equal(run_toy("--top 0", out, errors, sizeof out), 2);
    assert_string_equal(errors, "toy: error: --top takes a whole number from 1 to 1000, not \"0\"\n");
    assert_int_equal(run_toy("--thread 2", out, errors, sizeof out), 2);
    assert_string_equal(errors, "toy: error: unknown option \"--thread\" (did you mean --threads?)\n");
}

static void signals_while_mpi_starts(void **state)
{
    (void)state;
    static const int numbers[] = { SIGTERM, SIGUSR1, SIGINT };
    char number[16], out[4096], errors[4096];
    for (size_t i = 0; i < 3; i++) {
        snprintf(number, sizeof number, "%d", numbers[i]);
        setenv("BREGMAN_TOY_SIGNAL", number, 1);
        assert_int_equal(run_toy("--model m a.h5 --top 5", out, errors, sizeof out), 75);
    }
    unsetenv("BREGMAN_TOY_SIGNAL");
    assert_int_equal(run_toy("--model m a.h5 --top 5", out, errors, sizeof out), 0);
}

static void stage_context(void **state)
{
    (void)state;
    char out[4096], errors[4096];
    assert_int_equal(run_toy("--model m a.h5 --top 4 --threads 2", out, errors, sizeof out), 0);
    assert_non_null(strstr(out, "threads=2 "));
    assert_non_null(strstr(out, "\"threads\":2"));
    assert_non_null(strstr(out, "identity={\"damping_factor\""));
    assert_null(strstr(strstr(out, "identity="), "\"threads\""));
    assert_non_null(strstr(out, "started=1"));
}

static void help_and_version(void **state)
{
    (void)state;
    char out[8192], errors[8192];
    assert_int_equal(run_toy("--top 0 --help", out, errors, sizeof out), 0);
    assert_string_equal(errors, "");
    assert_non_null(strstr(out, "A stage for tests."));
    assert_non_null(strstr(out, "--model TEXT"));
    assert_non_null(strstr(out, "(required)"));
    assert_non_null(strstr(out, "(default 10)"));
    assert_non_null(strstr(out, "--threads N"));
    /* the name of the program, which need not be the stage's */
    assert_non_null(strstr(out, "usage: options_test [options]\n"));
    assert_non_null(strstr(out, "\n  options_test --model m a.h5\n"));
    assert_int_equal(run_toy("--version", out, errors, sizeof out), 0);
    assert_int_equal(strncmp(out, "options_test ", 13), 0);
}

int main(int argc, char **argv)
{
    if (getenv("BREGMAN_TOY") != NULL)
        return bg_stage_main(&toy, argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),
        cmocka_unit_test(every_type),
        cmocka_unit_test(refusals),
        cmocka_unit_test(options_as_json),
        cmocka_unit_test(stage_ends_and_codes),
        cmocka_unit_test(signals_while_mpi_starts),
        cmocka_unit_test(stage_context),
        cmocka_unit_test(help_and_version),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
