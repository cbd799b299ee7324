/* experts.h - what config.json says of MLPs with experts. */
#ifndef BG_FORMATS_EXPERTS_H
#define BG_FORMATS_EXPERTS_H

#include "family.h"
#include "json.h"

/* Of a family that has none nothing is read.  Errors: BG_EFORMAT, naming the key and the file. */
bg_status bg_experts_read(bg_model_config *c, const json_t *root, const bg_family *f, const char *file,
                          bg_err *err) BG_MUST_CHECK;

#endif /* BG_FORMATS_EXPERTS_H */
