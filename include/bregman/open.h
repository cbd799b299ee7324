/* open.h - opening a file that is to be read. */
#ifndef BG_OPEN_H
#define BG_OPEN_H

#include <stdio.h>

#include "bregman/status.h"

/* Open a regular file for reading.  Folders, named pipes, sockets and devices are refused by what they are: opening a
 * pipe that nobody writes to would wait for ever, and a signal to stop would not end that.  Local. fd [out]  to be
 * closed by the caller; -1 after an error Errors: BG_EIO naming the file with the system's reason; errno keeps that
 * (EINVAL: not a regular file). */
bg_status bg_open_file(const char *path, int *fd, bg_err *err) BG_MUST_CHECK;

/* The same as a stream, to be closed with fclose. */
bg_status bg_open_stream(const char *path, FILE **out, bg_err *err) BG_MUST_CHECK;

#endif /* BG_OPEN_H */
