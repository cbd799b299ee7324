/* config.h - config.json, read. */
#ifndef BG_CONFIG_H
#define BG_CONFIG_H

#include "bregman/model_config.h"

/* Read DIR/config.json.  Errors: BG_EIO, BG_EFORMAT (malformed, missing or contradictory keys,
 * unsupported feature), naming the file and the key. */
bg_status bg_model_config_read(bg_model_config *out, const char *dir, bg_err *err) BG_MUST_CHECK;

/* What all models of a family have in common, for those that have no file; NULL for an unknown one. */
const bg_model_config *bg_model_config_fixed(const char *model_type);

#endif /* BG_CONFIG_H */
