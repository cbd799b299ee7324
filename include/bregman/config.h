/* config.h - config.json, read. */
#ifndef BG_CONFIG_H
#define BG_CONFIG_H

#include "bregman/model_config.h"
#include "bregman/tensor.h"

/* Read DIR/config.json.  Errors: BG_EIO, BG_EFORMAT (malformed, missing or contradictory keys,
 * unsupported feature), naming the file and the key. */
bg_status bg_model_config_read(bg_model_config *out, const char *dir, bg_err *err) BG_MUST_CHECK;

/* The same of a text that stands for such a file; `name` is what messages call it. */
bg_status bg_model_config_parse(bg_model_config *out, const char *text, const char *name, bg_err *err) BG_MUST_CHECK;

/* A supported family. */
typedef struct {
    const char *model_type;
    const char *cases;     /* models of tests/goldens, by which it is checked against PyTorch: "llama, llama_pad" */
    const char *untrained; /* what is missing for training; NULL: nothing */
} bg_model_family;
/* False: there is no i-th. */
bool bg_model_family_at(size_t i, bg_model_family *out);

/* Publish FOLDER/config.json: DIR's, but for the type of the weights (BG_ST_F32 or BG_ST_BF16) and whether the head is
 * tied.  Other values are kept; how numbers are written is not, and NaN, Infinity and what is beyond 64 bits become
 * empty texts, as they are read.  Errors: BG_EIO, BG_EFORMAT. */
bg_status bg_model_config_save(const char *dir, const char *folder, bg_st_dtype dtype, bool tied,
                               bg_err *err) BG_MUST_CHECK;

#endif /* BG_CONFIG_H */
