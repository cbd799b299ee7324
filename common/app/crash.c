#include "crash.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    int number;
    const char *what;
    struct sigaction before;
    char line[320]; /* made beforehand: nothing is formatted in a handler */
} fatal;

static fatal signals[] = {
    { .number = SIGSEGV, .what = "SIGSEGV (a wrong address): a fault of this program or of the machine" },
    { .number = SIGBUS,
      .what = "SIGBUS: a file that is mapped, as the model's weights are, was cut short or cannot be read any more" },
    { .number = SIGFPE, .what = "SIGFPE (a division by zero): a fault of this program" },
    { .number = SIGILL, .what = "SIGILL: the program or its BLAS was built for another CPU" },
    { .number = SIGABRT, .what = "SIGABRT: a library or this program gave up" },
};
enum { N_SIGNALS = sizeof signals / sizeof signals[0] };

/* An overflow of the stack leaves no room on it. */
static char stack[32 << 10];

static void end_at_once(int number)
{
    for (int i = 0; i < N_SIGNALS; i++)
        if (signals[i].number == number && write(STDERR_FILENO, signals[i].line, strlen(signals[i].line)) < 0)
            break;
    raise(number); /* by default, when this returns: SA_RESETHAND */
}

void bg_crash_begin(void)
{
    for (int i = 0; i < N_SIGNALS; i++)
        sigaction(signals[i].number, NULL, &signals[i].before);
}

void bg_crash_catch(const char *stage, int rank)
{
    struct sigaction own = { .sa_handler = end_at_once, .sa_flags = SA_ONSTACK | (int)SA_RESETHAND };
    sigemptyset(&own.sa_mask);
    sigaltstack(&(stack_t){ .ss_sp = stack, .ss_size = sizeof stack }, NULL);
    for (int i = 0; i < N_SIGNALS; i++) {
        fatal *f = &signals[i];
        snprintf(f->line, sizeof f->line, "%s: error: rank %d was ended by %s\n", stage, rank, f->what);
        sigaction(f->number, f->before.sa_handler == SIG_DFL ? &own : &f->before, NULL);
    }
}
