#include "lfs.h"

#include <string.h>

bg_status bg_lfs_refuse(const char *path, const void *content, size_t n, bg_err *err)
{
    static const char first_line[] = "version https://git-lfs.github.com/spec/";
    if (n < sizeof first_line - 1 || memcmp(content, first_line, sizeof first_line - 1) != 0)
        return BG_OK;
    return BG_FAIL(err, BG_EFORMAT, "\"%s\" is a Git LFS pointer, not the file itself: run 'git lfs pull' in its clone",
                   path);
}
