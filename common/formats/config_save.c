#include <stdlib.h>
#include <string.h>

#include "bregman/config.h"
#include "bregman/path.h"
#include "bregman/plain.h"
#include "json.h"

bg_status bg_model_config_save(const char *dir, const char *folder, bg_st_dtype dtype, bool tied, bg_err *err)
{
    char path[BG_PATH_BYTES];
    json_t *root = NULL;
    bg_plain *f = NULL;
    bg_status st = bg_path(path, err, "%s/config.json", dir);
    if (st == BG_OK)
        st = bg_json_read(&root, path, err);
    if (st != BG_OK)
        return st;
    json_object_del(root, "dtype"); /* transformers 5's name of it; it reads the older one too */
    json_object_set_new(root, "torch_dtype", json_string(dtype == BG_ST_F32 ? "float32" : "bfloat16"));
    json_object_set_new(root, "tie_word_embeddings", json_boolean(tied));
    char *text = json_dumps(root, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    json_decref(root);
    if (text == NULL)
        return BG_FAIL(err, BG_ENOMEM, "config.json: out of memory");
    st = bg_path(path, err, "%s/config.json", folder);
    if (st == BG_OK)
        st = bg_plain_create(&f, path, err);
    if (st == BG_OK)
        st = bg_plain_write(f, text, strlen(text), err);
    if (st == BG_OK)
        st = bg_plain_write(f, "\n", 1, err);
    free(text);
    return bg_plain_end(f, st, err);
}
