#include "bregman/path.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bg_status bg_path(char out[BG_PATH_BYTES], bg_err *err, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(out, BG_PATH_BYTES, fmt, ap);
    va_end(ap);
    if (n < 0 || n >= BG_PATH_BYTES)
        return BG_FAIL(err, BG_EARG, "path longer than %d bytes: \"%.60s...\"", BG_PATH_BYTES - 1, out);
    return BG_OK;
}

const char *bg_base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

bg_status bg_folder_of(const char *path, char out[BG_PATH_BYTES], bg_err *err)
{
    size_t n = (size_t)(bg_base_name(path) - path);
    return n == 0 ? bg_path(out, err, "./") : bg_path(out, err, "%.*s", (int)n, path);
}

bool bg_ends_in(const char *name, const char *suffix)
{
    size_t n = strlen(name), m = strlen(suffix);
    return n > m && strcmp(name + n - m, suffix) == 0;
}
