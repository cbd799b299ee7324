/* config.h - config.json, read. */
#ifndef BG_CONFIG_H
#define BG_CONFIG_H

#include "bregman/model_config.h"

/* Read DIR/config.json.  Errors: BG_EIO, BG_EFORMAT (malformed, missing or contradictory keys,
 * unsupported feature), naming the file and the key. */
bg_status bg_model_config_read(bg_model_config *out, const char *dir, bg_err *err) BG_MUST_CHECK;

/* The same of a text that stands for such a file; `name` is what messages call it. */
bg_status bg_model_config_parse(bg_model_config *out, const char *text, const char *name, bg_err *err) BG_MUST_CHECK;

#endif /* BG_CONFIG_H */
