/* rope.h - the rotary part of config.json. */
#ifndef BG_FORMATS_ROPE_H
#define BG_FORMATS_ROPE_H

#include <jansson.h>

#include "family.h"

/* Fill c's rope fields; its sizes are set already, and c->rope and c->sliding_rope say whether the family has rope,
 * with its defaults. Errors: BG_EFORMAT, naming the file and the key. */
bg_status bg_rope_read(bg_model_config *c, const json_t *root, const bg_family *f, const char *file,
                       bg_err *err) BG_MUST_CHECK;

#endif /* BG_FORMATS_ROPE_H */
