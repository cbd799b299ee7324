/* path.h - paths as texts. */
#ifndef BG_PATH_H
#define BG_PATH_H

#include <stdbool.h>

#include "bregman/status.h"

#define BG_PATH_BYTES 4096

/* printf into a fixed path buffer; BG_EARG if it does not fit. */
bg_status bg_path(char out[BG_PATH_BYTES], bg_err *err, const char *fmt, ...) BG_PRINTF(3, 4) BG_MUST_CHECK;

/* The part of a path behind its last slash; the part before it, with the slash ("./" if there is none). */
const char *bg_base_name(const char *path);
bg_status bg_folder_of(const char *path, char out[BG_PATH_BYTES], bg_err *err) BG_MUST_CHECK;

/* Does a name end in the suffix, ".h5", with something before it? */
bool bg_ends_in(const char *name, const char *suffix);

#endif /* BG_PATH_H */
