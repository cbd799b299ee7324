/* lfs.h - pointer files: what a clone without Git LFS leaves in a large file's place. */
#ifndef BG_FORMATS_LFS_H
#define BG_FORMATS_LFS_H

#include <stddef.h>

#include "bregman/status.h"

/* BG_EFORMAT naming the file and the remedy if its content, n bytes of it, is that of a pointer. */
bg_status bg_lfs_refuse(const char *path, const void *content, size_t n, bg_err *err) BG_MUST_CHECK;

#endif /* BG_FORMATS_LFS_H */
