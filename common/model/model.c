#include "bregman/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bregman/memory.h"

void bg_model_close(bg_model *m)
{
    if (m == NULL)
        return;
    bg_tensors_close(m->tensors);
    bg_adapter_close(m->adapter);
    bg_free(m->site);
    bg_free(m->tracked);
    bg_free(m->section);
    bg_free(m->block);
    bg_free(m->small);
    bg_free(m->sketched);
    free(m->dir);
    bg_free(m);
}

bg_status bg_model_hash(const bg_model *m, bg_hash *out, bg_err *err)
{
    char path[4096];
    bg_hash config, weights, adapter;
    snprintf(path, sizeof path, "%s/config.json", m->base);
    bg_status st = bg_hash_file(path, &config, err);
    if (st == BG_OK)
        st = bg_tensors_hash(m->tensors, &weights, err);
    if (st == BG_OK)
        *out = bg_hash_texts((const char *const[]){ config.hex, weights.hex }, 2);
    if (st == BG_OK && m->adapter != NULL && (st = bg_adapter_hash(m->adapter, &adapter, err)) == BG_OK)
        *out = bg_hash_texts((const char *const[]){ out->hex, adapter.hex }, 2);
    return st;
}

bg_status bg_model_tokenizer_hash(const bg_model *m, bg_hash *out, bg_err *err)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/tokenizer.json", m->dir);
    if (access(path, F_OK) != 0)
        snprintf(path, sizeof path, "%s/tokenizer.json", m->base);
    out->hex[0] = '\0';
    return access(path, F_OK) == 0 ? bg_hash_file(path, out, err) : BG_OK;
}

bg_status bg_model_check_tokenizer(const bg_model *m, const char *tokens_hash, const char *file, bg_err *err)
{
    bg_hash mine;
    bg_status st = bg_model_tokenizer_hash(m, &mine, err);
    if (st == BG_OK && mine.hex[0] != '\0' && tokens_hash[0] != '\0' && strcmp(mine.hex, tokens_hash) != 0)
        st = BG_FAIL(err, BG_ESTALE, "%s was made with another tokenizer (%.8s) than %s/tokenizer.json (%.8s)", file,
                     tokens_hash, m->dir, mine.hex);
    return st;
}

bg_status bg_model_check_lengths(const bg_model *m, const bg_tokens *t, uint64_t begin, uint64_t end, bg_err *err)
{
    bg_status st = bg_tokens_check_longest(t, begin, end, m->config.max_positions + 1, err);
    if (st != BG_OK && err != NULL)
        (void)BG_FAIL(err, st, "%s (%s of \"%s/config.json\")", err->msg, m->config.positions_key, m->base);
    return st;
}

const bg_site *bg_block_first_attention(const bg_block *b)
{
    return b->site[BG_ROLE_Q] != NULL ? b->site[BG_ROLE_Q] : b->site[BG_ROLE_QKV];
}

const bg_site *bg_block_first_mlp(const bg_block *b)
{
    if (b->expert != NULL)
        return b->site[BG_ROLE_ROUTER];
    return b->site[BG_ROLE_GATE] != NULL ? b->site[BG_ROLE_GATE] : b->site[BG_ROLE_UP];
}

double bg_model_site_rows(const bg_model *m, const bg_site *site, double rows)
{
    const bg_model_config *c = &m->config;
    return site->expert > 0 ? rows * (double)c->experts_per_token / (double)c->n_experts : rows;
}

size_t bg_model_parameters(const bg_model *m) { return m->n_parameters; }

size_t bg_model_section(const bg_model *m, size_t number)
{
    size_t i = 0;
    while (i < m->n_sections && m->section[i].number != number)
        i++;
    return i;
}

bg_status bg_model_section_numbers(const bg_model *m, size_t **out, bg_err *err)
{
    bg_status st = BG_NEW(*out, m->n_sections, "list of sections", err);
    for (size_t i = 0; i < m->n_sections && st == BG_OK; i++)
        (*out)[i] = m->section[i].number;
    return st;
}

size_t bg_model_layers(const bg_model *m)
{
    return m->config.n_blocks + (bg_model_tracked_embedding(m) != NULL) + (bg_model_tracked_head(m) != NULL);
}

void bg_model_layer_name(const bg_model *m, size_t layer, char out[BG_SECTION_NAME_BYTES])
{
    size_t first = bg_model_tracked_embedding(m) != NULL;
    if (layer < first || layer >= first + m->config.n_blocks)
        bg_section_name(layer < first ? BG_SECTION_EMBEDDING : BG_SECTION_HEAD, out);
    else
        snprintf(out, BG_SECTION_NAME_BYTES, "%zu", layer - first);
}
