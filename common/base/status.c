#include "bregman/status.h"

#include <stdarg.h>
#include <stdio.h>

bg_status bg_fail_at(bg_err *err, bg_status code, const char *file, int line, const char *fmt, ...)
{
    if (err == NULL)
        return code;

    /* a buffer of its own: an argument may point into err->msg */
    char msg[sizeof err->msg];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    /* one line, whatever a damaged file or an odd file name brought into it */
    for (char *c = msg; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = ' ';
    snprintf(err->msg, sizeof err->msg, "%s", msg);
    err->code = code;
    err->rank = -1;
    err->file = file;
    err->line = line;
    return code;
}

const char *bg_status_name(bg_status code)
{
    static const char *const names[BG_STATUS_COUNT] = {
        "BG_OK",     "BG_EARG",     "BG_EFORMAT", "BG_EIO",   "BG_ENOMEM",
        "BG_ESHAPE", "BG_ENUMERIC", "BG_ESTALE",  "BG_EGONE", "BG_ESTOPPED",
    };
    return (unsigned)code < BG_STATUS_COUNT ? names[code] : "BG_?";
}
