#include "bregman/factor_kind.h"

#include <stdlib.h>
#include <string.h>

#include "bregman/tracking.h"

const char *const bg_factor_kind_word[] = { [BG_FACTORS_EKFAC] = "ekfac", [BG_FACTORS_SHAMPOO] = "shampoo", NULL };

const char *bg_factor_side_name(bg_factor_kind kind, bg_factor_side side)
{
    static const char *const name[][2] = {
        [BG_FACTORS_EKFAC] = { [BG_SIDE_INPUT] = "activation", [BG_SIDE_OUTPUT] = "gradient" },
        [BG_FACTORS_SHAMPOO] = { [BG_SIDE_INPUT] = "right", [BG_SIDE_OUTPUT] = "left" },
    };
    return name[kind][side];
}

bg_status bg_factor_kind_shape(bg_model *model, bg_factor_kind kind, size_t k, bool head_blocks, bg_err *err)
{
    for (size_t i = 0; i < model->n_tracked && kind == BG_FACTORS_SHAMPOO; i++)
        model->tracked[i]->input = model->tracked[i]->keeper = i;
    return bg_model_set_shapes(model, k, head_blocks, err);
}

bg_status bg_factor_kind_read(const bg_store *s, bg_factor_kind *out, bg_err *err)
{
    char *text = NULL;
    bool found = false;
    *out = BG_FACTORS_EKFAC;
    bg_status st = bg_store_get_text(s, "/", "preconditioner", &text, &found, err);
    if (st != BG_OK || !found)
        return st;
    size_t i = 0;
    while (bg_factor_kind_word[i] != NULL && strcmp(text, bg_factor_kind_word[i]) != 0)
        i++;
    if (bg_factor_kind_word[i] != NULL)
        *out = (bg_factor_kind)i;
    else
        st = BG_FAIL(err, BG_EFORMAT, "attribute \"preconditioner\" of \"%s\" is \"%s\", not ekfac or shampoo",
                     bg_store_path(s), text);
    free(text);
    return st;
}

bg_status bg_factor_kind_write(bg_store *s, bg_factor_kind kind, bg_err *err)
{
    return bg_store_attr_text(s, "/", "preconditioner", bg_factor_kind_word[kind], err);
}
