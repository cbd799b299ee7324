/* A stage that crashes ends at once, by the signal, with one line. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bregman/stage.h"
#include "check.h"

static int signal_number; /* of the child's end; 0: reads what a file has lost */

static void read_lost_page(void)
{
    FILE *f = tmpfile();
    const volatile char *map = f != NULL && ftruncate(fileno(f), 4096) == 0
                                   ? mmap(NULL, 4096, PROT_READ, MAP_SHARED, fileno(f), 0)
                                   : MAP_FAILED;
    if (map != MAP_FAILED && ftruncate(fileno(f), 0) == 0)
        _exit(map[0]);
}

static bg_status crash(const void *config, const bg_context *ctx, bg_err *err)
{
    (void)config, (void)ctx, (void)err;
    if (signal_number != 0)
        raise(signal_number);
    else
        read_lost_page();
    return BG_OK;
}

static const bg_opt no_options[] = { { 0 } };
static const bg_stage stage = { .name = "crashing", .purpose = "None.", .opts = no_options, .run = crash };

/* The child's end, and what it says on stderr. */
static int end_of_child(int number, char *said, size_t n_bytes)
{
    int pipes[2], status;
    size_t n = 0;
    ssize_t got;
    signal_number = number;
    assert_int_equal(pipe(pipes), 0);
    pid_t child = fork();
    if (child == 0) {
        char name[] = "crashing", quiet[] = "--quiet", *argv[] = { name, quiet, NULL };
        const int caught[] = { SIGSEGV, SIGBUS, SIGFPE, SIGABRT }; /* by cmocka */
        for (size_t i = 0; i < sizeof caught / sizeof caught[0]; i++)
            signal(caught[i], SIG_DFL);
        dup2(pipes[1], STDERR_FILENO);
        setenv("GOMP_SPINCOUNT", "1000", 0); /* else this program would be started again */
        alarm(60);
        _exit(bg_stage_main(&stage, 2, argv));
    }
    close(pipes[1]);
    while (n < n_bytes - 1 && (got = read(pipes[0], said + n, n_bytes - 1 - n)) > 0)
        n += (size_t)got;
    said[n] = '\0';
    close(pipes[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? WTERMSIG(status) : -WEXITSTATUS(status);
}

static void ends_by_its_signal_with_one_line(void **state)
{
    (void)state;
    static const struct {
        int number, end;
        const char *line;
    } cases[] = {
        { SIGSEGV, SIGSEGV,
          "crashing: error: rank 0 was ended by SIGSEGV (a wrong address): a fault of this program or of the machine\n" },
        { SIGFPE, SIGFPE,
          "crashing: error: rank 0 was ended by SIGFPE (a division by zero): a fault of this program\n" },
        { SIGABRT, SIGABRT, "crashing: error: rank 0 was ended by SIGABRT: a library or this program gave up\n" },
        { 0, SIGBUS,
          "crashing: error: rank 0 was ended by SIGBUS: a file that is mapped, as the model's weights are, was cut short "
          "or cannot be read any more\n" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char said[4096];
        int end = end_of_child(cases[i].number, said, sizeof said);
        assert_string_equal(said, cases[i].line);
        assert_int_equal(end, cases[i].end);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(ends_by_its_signal_with_one_line) };
#ifdef __SANITIZE_ADDRESS__
    return 77; /* the sanitizer has its own words */
#endif
    return cmocka_run_group_tests(tests, NULL, NULL);
}
