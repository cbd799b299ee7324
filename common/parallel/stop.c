#include "bregman/stop.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bregman/log.h"

static volatile sig_atomic_t stop_requested;

static void request_stop(int signal_number)
{
    (void)signal_number;
    stop_requested = 1;
}

/* PATH/stop, or empty before the stage has said where.  World rank 0 alone looks for it. */
static char stop_file[4096];
static bool looks_for_file = true;
static double stop_looked_s;

bool bg_stop_requested(void)
{
    const double every_s = 1;
    double now = bg_now_s();
    if (stop_requested == 0 && looks_for_file && stop_file[0] != '\0' && now - stop_looked_s > every_s) {
        stop_looked_s = now;
        if (access(stop_file, F_OK) == 0) /* a signal may have asked meanwhile */
            stop_requested = 1;
    }
    return stop_requested != 0;
}

bool bg_stop_heard(bg_notice *n)
{
    if (bg_stop_requested())
        bg_notice_say(n, BG_NOTICE_END);
    return bg_notice_heard(n) != BG_NOTICE_NONE;
}

void bg_stop_wait(bg_notice *n)
{
    const struct timespec pause = { .tv_nsec = 1000000 };
    bg_notice_through(n);
    while (!bg_notice_over(n)) {
        (void)bg_stop_heard(n);
        nanosleep(&pause, NULL);
    }
}

bg_status bg_stop_beside(const char *file, bg_err *err)
{
    const char *slash = strrchr(file, '/');
    int n = slash == NULL ? 1 : slash == file ? 0 : (int)(slash - file);
    if ((size_t)snprintf(stop_file, sizeof stop_file, "%.*s/stop", n, slash == NULL ? "." : file) >= sizeof stop_file)
        return BG_FAIL(err, BG_EARG, "path too long: %.60s...", file);
    if (looks_for_file && access(stop_file, F_OK) == 0)
        return BG_FAIL(err, BG_ESTOPPED, "%s is there: remove it to go on", stop_file);
    return BG_OK;
}

static void mask_signals(int how)
{
    sigset_t asking;
    sigemptyset(&asking);
    sigaddset(&asking, SIGTERM);
    sigaddset(&asking, SIGUSR1);
    sigaddset(&asking, SIGINT);
    sigprocmask(how, &asking, NULL);
}

void bg_stop_hold_signals(void) { mask_signals(SIG_BLOCK); }

void bg_stop_catch_signals(void)
{
    struct sigaction action = { .sa_handler = request_stop, .sa_flags = SA_RESTART };
    sigemptyset(&action.sa_mask);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
    action.sa_flags |= (int)SA_RESETHAND; /* a second Ctrl-C ends the program at once */
    if (stop_requested == 0)
        sigaction(SIGINT, &action, NULL);
    mask_signals(SIG_UNBLOCK);
}

void bg_stop_look_for_file(bool yes) { looks_for_file = yes; }

const char *bg_stop_file(void) { return stop_file[0] != '\0' && access(stop_file, F_OK) == 0 ? stop_file : NULL; }
