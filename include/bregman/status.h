/* status.h - status codes and the error record every fallible call fills.
 *
 * A function that can fail returns bg_status and takes `bg_err *err` last.
 * On failure it fills *err once, at the place that knows most; callers add
 * nothing, clean up, and pass the code on.  Asserts are for our own bugs,
 * statuses for everything a user, a file, the machine or LAPACK can cause.
 */
#ifndef BG_STATUS_H
#define BG_STATUS_H

#define BG_MUST_CHECK   __attribute__((warn_unused_result))
#define BG_PRINTF(f, a) __attribute__((format(printf, f, a)))

typedef enum {
    BG_OK = 0,
    BG_EARG,     /* caller or command line: value out of its documented range */
    BG_EFORMAT,  /* input file does not follow its format                     */
    BG_EIO,      /* open, read, write, fsync, rename or HDF5 call failed      */
    BG_ENOMEM,   /* allocation failed or a memory plan does not fit           */
    BG_ESHAPE,   /* operands or datasets disagree on shape or dtype           */
    BG_ENUMERIC, /* NaN/Inf, non-convergence                                  */
    BG_ESTALE,   /* checkpoint or input was made by other inputs or options   */
    BG_EGONE,    /* another attempt has removed a work file that was there    */
    BG_ESTOPPED, /* asked to stop (signal); what is finished is checkpointed  */
    BG_STATUS_COUNT
} bg_status;

typedef struct {
    bg_status code;
    int rank; /* rank the error arose on; -1 before agreement */
    int line;
    const char *file; /* static storage; "" after crossing ranks */
    char msg[480];
} bg_err;

/* Record an error and return its code, so control flow stays in sight:
 *     if (n == 0) { st = BG_FAIL(err, BG_EARG, "n is 0"); goto out; }
 * Overwrites *err.  err may be NULL: then only the code is returned. */
#define BG_FAIL(err, code, ...) bg_fail_at((err), (code), __FILE__, __LINE__, __VA_ARGS__)
bg_status bg_fail_at(bg_err *err, bg_status code, const char *file, int line, const char *fmt, ...) BG_PRINTF(5, 6);

/* Name of a code ("BG_EIO"); "BG_?" for a value outside the enum. */
const char *bg_status_name(bg_status code);

#endif /* BG_STATUS_H */
