/* layers.h - what config.json says of each block's attention. */
#ifndef BG_FORMATS_LAYERS_H
#define BG_FORMATS_LAYERS_H

#include <jansson.h>

#include "family.h"

/* Fill c->layer and c->window; c->n_blocks is set already.  Errors: BG_EFORMAT, naming the file and the key. */
bg_status bg_layers_read(bg_model_config *c, const json_t *root, const bg_family *f, const char *file,
                         bg_err *err) BG_MUST_CHECK;

#endif /* BG_FORMATS_LAYERS_H */
