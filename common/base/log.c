#include "bregman/log.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

/* The process's voice: set once by bg_stage_main before anything speaks. */
static const char *log_name = "bregman";
static bool log_speaks = true;

void bg_log_setup(const char *name, int speaks)
{
    log_name = name;
    log_speaks = speaks != 0;
}

void bg_log(const char *fmt, ...)
{
    if (!log_speaks)
        return;
    char line[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    fprintf(stderr, "%s: %s\n", log_name, line);
}

double bg_now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void format_duration(char *out, size_t n_bytes, double seconds)
{
    uint64_t s = seconds < 1e9 ? (uint64_t)(seconds + 0.5) : UINT64_C(1000000000);
    if (s >= 3600)
        snprintf(out, n_bytes, "%" PRIu64 ":%02" PRIu64 ":%02" PRIu64, s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(out, n_bytes, "%" PRIu64 ":%02" PRIu64, s / 60, s % 60);
}

static void show_progress(const bg_progress *p, double now, bool finished)
{
    char duration[32], rate[64] = "";
    double elapsed = now - p->start_s, done = (double)(p->done - p->first);
    double per_s = elapsed > 0 ? done / elapsed : 0;
    if (per_s > 0)
        snprintf(rate, sizeof rate, ", %.3g %s/s", per_s, p->unit);
    double left = per_s > 0 ? (double)(p->total - p->done) / per_s : 0;
    format_duration(duration, sizeof duration, finished ? elapsed : left);
    unsigned percent = p->total > 0 ? (unsigned)(100.0 * (double)p->done / (double)p->total) : 100;

    bool terminal = isatty(STDERR_FILENO) != 0;
    fprintf(stderr, "%s%s: %s: %" PRIu64 " of %" PRIu64 " %s (%u %%)%s, %s %s%s%s", terminal ? "\r" : "", log_name,
            p->what, p->done, p->total, p->unit, percent, rate, duration,
            finished    ? "in all"
            : per_s > 0 ? "left"
                        : "so far",
            terminal ? "\033[K" : "", terminal && !finished ? "" : "\n");
}

void bg_progress_start(bg_progress *p, const char *what, const char *unit, uint64_t done, uint64_t total)
{
    double now = bg_now_s();
    *p = (bg_progress){
        .what = what, .unit = unit, .total = total, .first = done, .done = done, .start_s = now, .last_s = now
    };
}

void bg_progress_update(bg_progress *p, uint64_t done)
{
    p->done = done < p->total ? done : p->total;
    double now = bg_now_s();
    double pause_s = isatty(STDERR_FILENO) ? 0.5 : 10.0;
    if (!log_speaks || now - p->last_s < pause_s)
        return;
    p->last_s = now;
    show_progress(p, now, false);
}

void bg_progress_finish(bg_progress *p)
{
    if (log_speaks)
        show_progress(p, bg_now_s(), true);
}
