#include "experts.h"

static bg_status read_numbers(bg_model_config *c, const json_t *root, const bg_family *f, const char *file, bg_err *err)
{
    size_t other = 0;
    bg_status st = bg_json_size(root, f->n_experts[0], file, &c->n_experts, err);
    if (st == BG_OK)
        st = bg_json_size(root, f->n_experts[1], file, &other, err);
    if (st == BG_OK)
        st = bg_json_size(root, f->d_expert, file, &c->d_expert, err);
    if (st == BG_OK)
        st = bg_json_size(root, "num_experts_per_tok", file, &c->experts_per_token, err);
    if (st == BG_OK)
        st = bg_json_flag(root, "norm_topk_prob", file, &c->experts_renormalised, err);
    if (st != BG_OK)
        return st;
    if (c->n_experts > 0 && other > 0 && other != c->n_experts)
        return BG_FAIL(err, BG_EFORMAT, "%s %zu and %s %zu contradict each other in \"%s\"", f->n_experts[0],
                       c->n_experts, f->n_experts[1], other, file);
    c->n_experts = c->n_experts > 0 ? c->n_experts : other;
    if (c->n_experts == 0 || c->d_expert == 0 || c->experts_per_token == 0)
        return BG_FAIL(err, BG_EFORMAT, "key \"%s\" is missing in \"%s\"",
                       c->n_experts == 0  ? f->n_experts[0]
                       : c->d_expert == 0 ? f->d_expert
                                          : "num_experts_per_tok",
                       file);
    return BG_OK;
}

static bg_status check_numbers(const bg_model_config *c, const bg_family *f, const char *file, bg_err *err)
{
    if (c->experts_per_token > c->n_experts)
        return BG_FAIL(err, BG_EFORMAT, "num_experts_per_tok %zu is more than the %zu of %s in \"%s\"",
                       c->experts_per_token, c->n_experts, f->n_experts[0], file);
    if (c->n_experts > BG_MAX_EXPERTS)
        return BG_FAIL(err, BG_EFORMAT, "%s is %zu, more than %d, in \"%s\"", f->n_experts[0], c->n_experts,
                       BG_MAX_EXPERTS, file);
    if (c->n_blocks > BG_MAX_EXPERT_BLOCKS)
        return BG_FAIL(err, BG_EFORMAT, "%s is %zu, more than %d with experts, in \"%s\"", f->n_blocks, c->n_blocks,
                       BG_MAX_EXPERT_BLOCKS, file);
    return BG_OK;
}

/* Block l has experts if l + 1 is a multiple of "decoder_sparse_step" and l is not in the list. */
static bg_status read_plain_mlps(bg_model_config *c, const json_t *root, const char *file, bg_err *err)
{
    const json_t *list = bg_json_value(root, "mlp_only_layers");
    size_t step = 1;
    bg_status st = bg_json_size(root, "decoder_sparse_step", file, &step, err);
    for (size_t l = 0; l < c->n_blocks && st == BG_OK; l++)
        if ((l + 1) % step != 0)
            c->plain_mlp[l / 64] |= UINT64_C(1) << l % 64;
    if (st == BG_OK && list != NULL && !json_is_array(list))
        return BG_FAIL(err, BG_EFORMAT, "key \"mlp_only_layers\" is no list in \"%s\"", file);
    for (size_t i = 0; i < json_array_size(list) && st == BG_OK; i++) {
        const json_t *entry = json_array_get(list, i);
        json_int_t l = json_integer_value(entry);
        if (!json_is_integer(entry) || l < 0 || l >= (json_int_t)c->n_blocks)
            return BG_FAIL(err, BG_EFORMAT, "entry %zu of mlp_only_layers is none of the %zu blocks in \"%s\"", i,
                           c->n_blocks, file);
        c->plain_mlp[l / 64] |= UINT64_C(1) << l % 64;
    }
    return st;
}

bg_status bg_experts_read(bg_model_config *c, const json_t *root, const bg_family *f, const char *file, bg_err *err)
{
    if (f->d_expert == NULL)
        return BG_OK;
    bg_status st = read_numbers(c, root, f, file, err);
    if (st == BG_OK)
        st = check_numbers(c, f, file, err);
    return st == BG_OK && f->has_plain_mlp_keys ? read_plain_mlps(c, root, file, err) : st;
}
