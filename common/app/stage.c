#include "bregman/stage.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bregman/gemm.h"
#include "bregman/hash_cache.h"
#include "bregman/log.h"
#include "bregman/stop.h"
#include "bregman/threads.h"
#include "bregman/timing.h"
#include "bregman/version.h"
#include "crash.h"
#include "launch.h"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_STOPPED = 75 /* EX_TEMPFAIL */ };

typedef struct {
    uint64_t threads;
    const char *timings, *hash_cache;
    bool quiet, help, version;
} common_options;

typedef struct {
    uint64_t pipeline, memory_limit;
    const char *scratch;
    double checkpoint_minutes;
} model_options;

static const bg_opt model_opts[] = {
    { "--pipeline", BG_OPT_U64, offsetof(model_options, pipeline), "1", 1, 100000,
      "ranks that share a copy of the model, each holding a run of its blocks; the others multiply the data",
      .no_effect = true },
    { "--memory-limit", BG_OPT_BYTES, offsetof(model_options, memory_limit), "0", 0, 0,
      "what a rank may take beside mapped weights (2G, 500M), 0: no limit; micro-batches, passes over the modules and --scratch are chosen to fit",
      .no_effect = true },
    { "--scratch", BG_OPT_STR, offsetof(model_options, scratch), "", 0, 0,
      "node-local folder for sums or compressed queries that do not fit --memory-limit", .no_effect = true },
    { "--checkpoint-minutes", BG_OPT_F64, offsetof(model_options, checkpoint_minutes), "10", 0, 1e6,
      "minutes between checkpoints of units in progress; 0: none", .no_effect = true },
    { 0 },
};

static const bg_opt common_opts[] = {
    { "--threads", BG_OPT_U64, offsetof(common_options, threads), "0", 0, 4096,
      "threads per rank; 0: OMP_NUM_THREADS, else SLURM_CPUS_PER_TASK, else this rank's share of the CPUs that the node's ranks may use",
      .no_effect = true },
    { "--timings", BG_OPT_STR, offsetof(common_options, timings), "", 0, 0,
      "write seconds, FLOPs and peak memory of every phase to this file, as JSON", .no_effect = true },
    { "--hash-cache", BG_OPT_STR, offsetof(common_options, hash_cache), "", 0, 0,
      "folder where hashes of large inputs are remembered; without it BREGMAN_HASH_CACHE, else bregman/hashes in XDG_CACHE_HOME or ~/.cache",
      .no_effect = true },
    { "--quiet", BG_OPT_FLAG, offsetof(common_options, quiet), .help = "print errors only", .no_effect = true },
    { "--help", BG_OPT_FLAG, offsetof(common_options, help), .help = "print this and exit", .no_effect = true },
    { "--version", BG_OPT_FLAG, offsetof(common_options, version), .help = "print the version and exit",
      .no_effect = true },
    { 0 },
};

/* ---- threads ---- */

static int positive_env(const char *name)
{
    const char *text = getenv(name);
    long n = text != NULL ? strtol(text, NULL, 10) : 0; /* of a list "4,2" the outer level */
    return n > 0 && n <= 4096 ? (int)n : 0;
}

/* Of this rank: its share of the CPUs that the node's ranks have together, but no more than its own. */
static int share_of_cpus(const bg_cpus *cpus)
{
    int share = cpus->all / cpus->n_ranks;
    if (share > cpus->own)
        share = cpus->own;
    return share > 1 ? share : 1;
}

static int choose_threads(uint64_t asked, const bg_cpus *cpus, bool *chosen)
{
    int n = (int)asked;
    if (n == 0)
        n = positive_env("OMP_NUM_THREADS");
    if (n == 0)
        n = positive_env("SLURM_CPUS_PER_TASK");
    *chosen = n == 0;
    return n > 0 ? n : share_of_cpus(cpus);
}

/* ---- what is said ---- */

static bool asks_for(const char *name, int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return true;
    return false;
}

/* The name that the program was called by, which is not the stage's where it is installed. */
static const char *program_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

static void print_help(const bg_stage *s, const char *program, const bg_option_table *tables, size_t n_tables)
{
    printf("usage: %s [options]\n%s\n\n", program, s->purpose);
    bg_options_help(stdout, tables, n_tables);
    if (s->runs_model || s->keeps_units)
        printf(
            "\nto stop it and go on later with the same command (exit code 75):\n"
            "  Ctrl-C or SIGTERM to bregman-mpi or to a rank; SIGUSR1 to mpirun or srun, which would kill the ranks otherwise;\n"
            "  scancel --signal=USR1 JOB; or a file named stop in the folder of the output\n");
    const char *name = s->example != NULL ? strstr(s->example, s->name) : NULL;
    if (name != NULL)
        printf("\nexample:\n  %.*s%s%s\n", (int)(name - s->example), s->example, program, name + strlen(s->name));
}

static void say_start(const bg_context *ctx)
{
    const char *git = bg_git_revision();
    bg_log("%s%s%s%s, %d rank%s x %d thread%s, %s", bg_version(), git[0] != '\0' ? " (" : "", git,
           git[0] != '\0' ? ")" : "", ctx->grid.world_size, ctx->grid.world_size == 1 ? "" : "s", ctx->threads,
           ctx->threads == 1 ? "" : "s", bg_gemm_library());
    if (ctx->grid.pipeline_size > 1)
        bg_log("grid: %d columns of data x pipelines of %d ranks", ctx->grid.data_size, ctx->grid.pipeline_size);
    double efficiency = bg_gemm_efficiency();
    if (efficiency < 0.7)
        bg_log("warning: matrix products reach only %.0f %% of this core's speed: the BLAS may be too old for the CPU",
               100.0 * efficiency);
}

/* The clock and the products executed when the stage proper began. */
typedef struct {
    double s;
    uint64_t flops;
} work;

/* Collective on world. */
static void say_end(const bg_context *ctx, work before)
{
    uint64_t peak = bg_timing_peak_bytes(), flops = bg_gemm_flops() - before.flops;
    MPI_Allreduce(MPI_IN_PLACE, &peak, 1, MPI_UINT64_T, MPI_MAX, ctx->grid.world);
    MPI_Allreduce(MPI_IN_PLACE, &flops, 1, MPI_UINT64_T, MPI_SUM, ctx->grid.world);
    char products[64] = "";
    if (flops > 0)
        snprintf(products, sizeof products, " %.1f GFLOP of matrix products,", (double)flops * 1e-9);
    bg_log("done in %.1f s,%s peak memory %.0f MiB per rank", bg_now_s() - before.s, products,
           (double)peak / 1048576.0);
}

static void say_error(const bg_stage *s, const bg_grid *g, bg_err *err)
{
    for (char *c = err->msg; *c != '\0'; c++)
        if (*c == '\n' || *c == '\r')
            *c = ' ';
    if (g->world_size > 1 && err->rank >= 0)
        fprintf(stderr, "%s: error: %s [rank %d]\n", s->name, err->msg, err->rank);
    else
        fprintf(stderr, "%s: error: %s\n", s->name, err->msg);
}

/* ---- main ---- */

/* Local: options into config and their texts into ctx. */
static bg_status read_options(const bg_option_table *tables, size_t n_tables, int argc, char **argv, char **options,
                              char **identity, bg_err *err)
{
    bg_status st = bg_options_parse(tables, n_tables, argc, argv, err);
    if (st == BG_OK)
        st = bg_options_json(tables, n_tables, false, options, err);
    if (st == BG_OK)
        st = bg_options_json(tables, n_tables, true, identity, err);
    return st;
}

/* Collective: mpirun can give each rank its own command line. */
static bg_status check_same_options(MPI_Comm world, const char *options, bg_err *err)
{
    bg_hash hash = bg_hash_bytes(options, strlen(options));
    hash.hex[16] = '\0';
    return bg_same_u64(world, strtoull(hash.hex, NULL, 16), "the hash of the command line", err);
}

static bg_status run_stage(const bg_stage *s, const common_options *common, const void *config, const bg_launch *launch,
                           bg_context *ctx, bg_err *err)
{
    const bg_cpus cpus = bg_cpus_count(ctx->grid.world);
    bool chosen;
    bool speaks = ctx->grid.world_rank == 0 && !common->quiet;
    bg_log_setup(s->name, speaks);
    if (common->hash_cache != NULL)
        bg_hash_cache_folder(common->hash_cache);
    ctx->threads = choose_threads(common->threads, &cpus, &chosen);
    omp_set_num_threads(ctx->threads);
    bg_gemm_set_threads(ctx->threads);
    if (speaks) {
        say_start(ctx);
        bg_cpus_warn(&cpus, ctx->threads, chosen, launch);
    }
    const work before = { bg_now_s(), bg_gemm_flops() }; /* the FLOPs of say_start's probe are not the stage's */
    if (common->timings != NULL)
        bg_timing_enable();
    bg_status st = s->run(config, ctx, err);
    if (st == BG_OK && common->timings != NULL)
        st = bg_timing_write(common->timings, ctx, err);
    if (st == BG_OK)
        say_end(ctx, before);
    return st;
}

static void say_stopped(const bg_stage *s)
{
    const char *file = bg_stop_file(),
               *kept = s->runs_model || s->keeps_units ? "finished work is kept" : "nothing is lost";
    if (file != NULL)
        fprintf(stderr, "%s: stopped by the file %s; %s: remove it and run the same command to go on\n", s->name, file,
                kept);
    else
        bg_log("stopped by a signal; %s: run the same command to go on", kept);
}

/* The grid with its pipelines, and the limits.  Collective; the same status on all ranks. */
static bg_status set_model_options(bg_context *ctx, const model_options *run, bg_err *err)
{
    ctx->memory_limit = run->memory_limit > 0 ? run->memory_limit : UINT64_MAX;
    ctx->scratch = run->scratch;
    ctx->checkpoint_s = 60 * run->checkpoint_minutes;
    bg_grid_free(&ctx->grid);
    return bg_grid_init(&ctx->grid, MPI_COMM_WORLD, (int)run->pipeline, err);
}

static int report(const bg_stage *s, const bg_grid *g, bg_status st, bg_err *err)
{
    if (st == BG_OK)
        return EXIT_DONE;
    if (st == BG_ESTOPPED) {
        if (g->world_rank == 0)
            say_stopped(s);
        return EXIT_STOPPED;
    }
    if (g->world_rank == 0)
        say_error(s, g, err);
    return st == BG_EARG ? EXIT_USAGE : EXIT_FAILED;
}

/* MPI, the world of ctx, and who hears of signals and crashes. */
static void start(const char *name, int *argc, char ***argv, bg_context *ctx, bg_err *err)
{
    struct timespec now;
    int provided;
    bg_stop_hold_signals();
    bg_threads_sleep_when_idle(*argv);
    bg_stop_catch_signals();
    bg_crash_begin();
    MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided);
    if (bg_grid_init(&ctx->grid, MPI_COMM_WORLD, 1, err) != BG_OK)
        MPI_Abort(MPI_COMM_WORLD, EXIT_FAILED);
    bg_crash_catch(name, ctx->grid.world_rank);
    bg_stop_look_for_file(ctx->grid.world_rank == 0);
    bg_stop_catch_signals();
    clock_gettime(CLOCK_REALTIME, &now);
    ctx->started = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* If the command line asks for --help or --version, that is all that is done: world rank 0 says it. */
static bool answers_help(const bg_stage *s, const bg_grid *g, int argc, char **argv, const bg_option_table *tables,
                         size_t n_tables)
{
    const char *program = program_name(argv[0]), *git = bg_git_revision();
    bool help = asks_for("--help", argc, argv);
    if (!help && !asks_for("--version", argc, argv))
        return false;
    if (g->world_rank == 0 && help)
        print_help(s, program, tables, n_tables);
    else if (g->world_rank == 0)
        printf("%s %s%s%s\n", program, bg_version(), git[0] != '\0' ? " " : "", git);
    return true;
}

int bg_stage_main(const bg_stage *s, int argc, char **argv)
{
    const bg_launch launch = bg_launch_read();
    bg_err err = { .rank = -1, .file = "" };
    bg_context ctx = { .name = s->name };
    common_options common = { 0 };
    model_options run = { .pipeline = 1 };
    char *options = NULL, *identity = NULL;
    int code = EXIT_DONE;
    start(s->name, &argc, &argv, &ctx, &err);
    if (s->only_reads)
        bg_stop_let_signals_end();

    void *config = calloc(1, s->config_size > 0 ? s->config_size : 1);
    const bg_option_table tables[] = { { s->opts, config }, { common_opts, &common }, { model_opts, &run } };
    const size_t n_tables = s->runs_model ? 3 : 2;
    if (answers_help(s, &ctx.grid, argc, argv, tables, n_tables))
        goto out;

    bg_status st = config == NULL ? BG_FAIL(&err, BG_ENOMEM, "out of memory for the options")
                                  : read_options(tables, n_tables, argc, argv, &options, &identity, &err);
    st = bg_agree(ctx.grid.world, st, &err);
    if (st == BG_OK)
        st = bg_launch_check(&launch, ctx.grid.world_size, &err);
    if (st == BG_OK)
        st = check_same_options(ctx.grid.world, options, &err);
    if (st == BG_OK && s->runs_model)
        st = set_model_options(&ctx, &run, &err);
    if (st == BG_OK) {
        ctx.options = options;
        ctx.libraries = bg_library_versions();
        ctx.precision = bg_gemm_precision();
        ctx.identity = identity;
        st = run_stage(s, &common, config, &launch, &ctx, &err);
    }
    code = report(s, &ctx.grid, st, &err);
out:
    if (config != NULL)
        bg_options_clear(tables, n_tables);
    free(options);
    free(identity);
    free(config);
    bg_grid_free(&ctx.grid);
    MPI_Finalize();
    return code;
}
