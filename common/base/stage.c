#include "bregman/stage.h"

#include <omp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bregman/gemm.h"
#include "bregman/hash.h"
#include "bregman/log.h"
#include "bregman/timing.h"
#include "options.h"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_STOPPED = 75 /* EX_TEMPFAIL */ };

typedef struct {
    uint64_t threads;
    const char *timings;
    bool quiet, help, version;
} common_options;

static const bg_opt common_opts[] = {
    { "--threads", BG_OPT_U64, offsetof(common_options, threads), "0", 0, 4096,
      "threads per rank; 0: OMP_NUM_THREADS, else SLURM_CPUS_PER_TASK, else this rank's share of the cores",
      .no_effect = true },
    { "--timings", BG_OPT_STR, offsetof(common_options, timings), "", 0, 0,
      "write seconds, FLOPs and peak memory of every phase to this file, as JSON", .no_effect = true },
    { "--quiet", BG_OPT_FLAG, offsetof(common_options, quiet), .help = "print errors only", .no_effect = true },
    { "--help", BG_OPT_FLAG, offsetof(common_options, help), .help = "print this and exit", .no_effect = true },
    { "--version", BG_OPT_FLAG, offsetof(common_options, version), .help = "print the version and exit",
      .no_effect = true },
    { 0 },
};

/* ---- signals ---- */

static volatile sig_atomic_t stop_requested;

static void request_stop(int signal_number)
{
    (void)signal_number;
    stop_requested = 1;
}

bool bg_stop_requested(void) { return stop_requested != 0; }

static void catch_signals(void)
{
    struct sigaction action = { .sa_handler = request_stop, .sa_flags = SA_RESTART };
    sigemptyset(&action.sa_mask);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
    action.sa_flags |= (int)SA_RESETHAND;    /* a second Ctrl-C ends the program at once */
    sigaction(SIGINT, &action, NULL);
}

/* ---- threads ---- */

static int positive_env(const char *name)
{
    const char *text = getenv(name);
    long n = text != NULL ? strtol(text, NULL, 10) : 0;    /* of a list "4,2" the outer level */
    return n > 0 && n <= 4096 ? (int)n : 0;
}

/* Cores that the ranks of this node may use together, over the number of those ranks, but no
 * more than this rank's own.  Collective on world. */
static int share_of_cores(MPI_Comm world)
{
    MPI_Comm node;
    cpu_set_t own, all;
    int n_ranks;
    CPU_ZERO(&own);
    if (sched_getaffinity(0, sizeof own, &own) != 0)
        for (long i = 0; i < sysconf(_SC_NPROCESSORS_ONLN) && i < CPU_SETSIZE; i++)
            CPU_SET((size_t)i, &own);
    MPI_Comm_split_type(world, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
    MPI_Comm_size(node, &n_ranks);
    MPI_Allreduce(&own, &all, (int)sizeof own, MPI_BYTE, MPI_BOR, node);
    MPI_Comm_free(&node);
    int share = CPU_COUNT(&all) / n_ranks, most = CPU_COUNT(&own);
    if (share > most)
        share = most;
    return share > 1 ? share : 1;
}

static int choose_threads(uint64_t asked, MPI_Comm world)
{
    int share = share_of_cores(world);    /* collective: whatever this rank was asked for */
    if (asked > 0)
        return (int)asked;
    int n = positive_env("OMP_NUM_THREADS");
    if (n == 0)
        n = positive_env("SLURM_CPUS_PER_TASK");
    return n > 0 ? n : share;
}

/* ---- the grid ---- */

static void grid_init(bg_grid *g)
{
    g->world = MPI_COMM_WORLD;
    MPI_Comm_rank(g->world, &g->world_rank);
    MPI_Comm_size(g->world, &g->world_size);
    MPI_Comm_dup(g->world, &g->data);
    MPI_Comm_rank(g->data, &g->data_rank);
    MPI_Comm_size(g->data, &g->data_size);
}

/* ---- what is said ---- */

static bool asks_for(const char *name, int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return true;
    return false;
}

static void print_help(const bg_stage *s, const bg_option_table *tables, size_t n_tables)
{
    printf("usage: %s [options]\n%s\n\n", s->name, s->purpose);
    bg_options_help(stdout, tables, n_tables);
    if (s->example != NULL)
        printf("\nexample:\n  %s\n", s->example);
}

static void say_start(const bg_context *ctx)
{
    const char *git = bg_git_revision();
    bg_log("%s%s%s%s, %d rank%s x %d thread%s, %s", bg_version(), git[0] != '\0' ? " (" : "", git,
           git[0] != '\0' ? ")" : "", ctx->grid.world_size, ctx->grid.world_size == 1 ? "" : "s",
           ctx->threads, ctx->threads == 1 ? "" : "s", bg_gemm_library());
    double efficiency = bg_gemm_efficiency();
    if (efficiency < 0.7)
        bg_log("warning: matrix products reach only %.0f %% of this core's speed: the BLAS may be too old for the CPU",
               100.0 * efficiency);
}

/* The clock and the products executed when the stage proper began. */
typedef struct { double s; uint64_t flops; } work;

/* Collective on world. */
static void say_end(const bg_context *ctx, work before)
{
    uint64_t peak = bg_timing_peak_bytes(), flops = bg_gemm_flops() - before.flops;
    MPI_Allreduce(MPI_IN_PLACE, &peak, 1, MPI_UINT64_T, MPI_MAX, ctx->grid.world);
    MPI_Allreduce(MPI_IN_PLACE, &flops, 1, MPI_UINT64_T, MPI_SUM, ctx->grid.world);
    bg_log("done in %.1f s, %.1f GFLOP of matrix products, peak memory %.0f MiB per rank", bg_now_s() - before.s,
           (double)flops * 1e-9, (double)peak / 1048576.0);
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
static bg_status read_options(const bg_option_table *tables, size_t n_tables, int argc, char **argv,
                              char **options, char **identity, bg_err *err)
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

static bg_status run_stage(const bg_stage *s, const common_options *common, const void *config,
                           bg_context *ctx, bg_err *err)
{
    bool speaks = ctx->grid.world_rank == 0 && !common->quiet;
    bg_log_setup(s->name, speaks);
    ctx->threads = choose_threads(common->threads, ctx->grid.world);
    omp_set_num_threads(ctx->threads);
    bg_gemm_set_threads(ctx->threads);
    if (speaks)
        say_start(ctx);
    const work before = { bg_now_s(), bg_gemm_flops() };    /* the FLOPs of say_start's probe are not the stage's */
    if (common->timings != NULL)
        bg_timing_enable();
    bg_status st = s->run(config, ctx, err);
    if (st == BG_OK && common->timings != NULL)
        st = bg_timing_write(common->timings, ctx, err);
    if (st == BG_OK)
        say_end(ctx, before);
    return st;
}

static int report(const bg_stage *s, const bg_grid *g, bg_status st, bg_err *err)
{
    if (st == BG_OK)
        return EXIT_DONE;
    if (st == BG_ESTOPPED) {
        bg_log("stopped by a signal; finished work is kept: run the same command to go on");
        return EXIT_STOPPED;
    }
    if (g->world_rank == 0)
        say_error(s, g, err);
    return st == BG_EARG ? EXIT_USAGE : EXIT_FAILED;
}

int bg_stage_main(const bg_stage *s, int argc, char **argv)
{
    bg_err err = { .rank = -1, .file = "" };
    bg_context ctx = { .name = s->name };
    common_options common = { 0 };
    char *options = NULL, *identity = NULL;
    struct timespec now;
    int provided, code = EXIT_DONE;
    bg_status st;

    MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
    grid_init(&ctx.grid);
    catch_signals();
    clock_gettime(CLOCK_REALTIME, &now);
    ctx.started = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;

    void *config = calloc(1, s->config_size > 0 ? s->config_size : 1);
    const bg_option_table tables[] = { { s->opts, config }, { common_opts, &common } };
    const size_t n_tables = sizeof tables / sizeof tables[0];
    if (asks_for("--help", argc, argv) || asks_for("--version", argc, argv)) {
        if (ctx.grid.world_rank == 0 && asks_for("--help", argc, argv))
            print_help(s, tables, n_tables);
        else if (ctx.grid.world_rank == 0)
            printf("%s %s%s%s\n", s->name, bg_version(), bg_git_revision()[0] != '\0' ? " " : "", bg_git_revision());
        goto out;
    }

    st = config == NULL ? BG_FAIL(&err, BG_ENOMEM, "out of memory for the options")
                        : read_options(tables, n_tables, argc, argv, &options, &identity, &err);
    st = bg_agree(ctx.grid.world, st, &err);
    if (st == BG_OK)
        st = check_same_options(ctx.grid.world, options, &err);
    if (st == BG_OK) {
        ctx.options = options;
        ctx.identity = identity;
        st = run_stage(s, &common, config, &ctx, &err);
    }
    code = report(s, &ctx.grid, st, &err);
out:
    if (config != NULL)
        bg_options_clear(tables, n_tables);
    free(options);
    free(identity);
    free(config);
    MPI_Comm_free(&ctx.grid.data);
    MPI_Finalize();
    return code;
}
