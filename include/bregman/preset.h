/* preset.h - configurations of well-known models, to be asked about without their files. */
#ifndef BG_PRESET_H
#define BG_PRESET_H

#include "bregman/model_config.h"

/* Configuration of a preset, or BG_EARG naming the nearest one. */
bg_status bg_preset(const char *name, bg_model_config *out, bg_err *err) BG_MUST_CHECK;

#endif /* BG_PRESET_H */
