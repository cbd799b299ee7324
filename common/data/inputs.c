#include "bregman/inputs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bg_status bg_inputs_add(bg_inputs *in, const char *name, const bg_hash *hash, bg_err *err)
{
    if (in->n == in->capacity) {
        size_t capacity = in->capacity * 2 + 8;
        char **names = realloc(in->name, capacity * sizeof *names);
        if (names != NULL)
            in->name = names;
        bg_hash *hashes = realloc(in->hash, capacity * sizeof *hashes);
        if (hashes != NULL)
            in->hash = hashes;
        if (names == NULL || hashes == NULL)
            return BG_FAIL(err, BG_ENOMEM, "list of inputs: out of memory");
        in->capacity = capacity;
    }
    if ((in->name[in->n] = strdup(name)) == NULL)
        return BG_FAIL(err, BG_ENOMEM, "list of inputs: out of memory");
    in->hash[in->n++] = *hash;
    return BG_OK;
}

bg_status bg_inputs_add_file(bg_inputs *in, const char *path, bg_err *err)
{
    bg_hash hash;
    bg_status st = bg_input_identity(path, &hash, err);
    return st == BG_OK ? bg_inputs_add(in, path, &hash, err) : st;
}

bg_status bg_inputs_add_tokens(bg_inputs *in, bg_tokens *t, bg_err *err)
{
    const bg_hash *hash;
    bg_status st = bg_tokens_hashes(t, &hash, err);
    for (size_t i = 0; i < bg_tokens_files(t) && st == BG_OK; i++)
        st = bg_inputs_add(in, bg_tokens_path(t, i), &hash[i], err);
    return st;
}

void bg_inputs_clear(bg_inputs *in)
{
    for (size_t i = 0; i < in->n; i++)
        free(in->name[i]);
    free(in->name);
    free(in->hash);
    memset(in, 0, sizeof *in);
}

/* Names and hashes as one text "HASH NAME\n..." for the wire; names have no newline (checked on rank 0). */
static bg_status pack(const bg_inputs *in, char **out, uint64_t *n_bytes, bg_err *err)
{
    size_t n = 1;
    for (size_t i = 0; i < in->n; i++) {
        if (strchr(in->name[i], '\n') != NULL)
            return BG_FAIL(err, BG_EARG, "%s: a file name with a line break", in->name[i]);
        n += strlen(in->name[i]) + sizeof in->hash[i].hex + 1;
    }
    char *text = malloc(n), *at = text;
    if (text == NULL)
        return BG_FAIL(err, BG_ENOMEM, "list of inputs: out of memory");
    *at = '\0';
    for (size_t i = 0; i < in->n; i++) {
        at = stpcpy(at, in->hash[i].hex);
        *at++ = ' ';
        at = stpcpy(at, in->name[i]);
        *at++ = '\n';
        *at = '\0';
    }
    *out = text;
    *n_bytes = (uint64_t)(at - text);
    return BG_OK;
}

static bg_status unpack(bg_inputs *in, char *text, bg_err *err)
{
    bg_status st = BG_OK;
    char *next;
    for (char *line = text; *line != '\0' && st == BG_OK; line = next) {
        bg_hash hash;
        next = strchr(line, '\n');
        *next++ = '\0';
        memcpy(hash.hex, line, sizeof hash.hex - 1);
        hash.hex[sizeof hash.hex - 1] = '\0';
        st = bg_inputs_add(in, line + sizeof hash.hex, &hash, err);
    }
    return st;
}

/* Raised when a stage gives other numbers than before for the same options and inputs. */
static const char *const RESULTS = "results 1";

/* Over the stage, its identity options and the inputs' identities; where the inputs lie does not matter. */
bg_status bg_inputs_fingerprint(const bg_inputs *in, const bg_context *ctx, const char *also, bg_hash *out, bg_err *err)
{
    char format[32];
    size_t n = in->n + 4;
    const char **text = malloc((in->n + 6) * sizeof *text);
    if (text == NULL)
        return BG_FAIL(err, BG_ENOMEM, "fingerprint: out of memory");
    snprintf(format, sizeof format, "format %d", BG_FORMAT_VERSION);
    text[0] = ctx->name;
    text[1] = format;
    text[2] = RESULTS;
    text[3] = ctx->identity;
    for (size_t i = 0; i < in->n; i++)
        text[4 + i] = in->hash[i].hex;
    if (also[0] != '\0')
        text[n++] = also;
    if (ctx->precision != NULL && strcmp(ctx->precision, "float32") != 0)
        text[n++] = ctx->precision;
    *out = bg_hash_texts(text, n);
    free(text);
    return BG_OK;
}

bg_status bg_inputs_share(bg_inputs *in, const bg_context *ctx, const char *also, uint64_t seed, bg_status st,
                          bg_err *err)
{
    MPI_Comm comm = ctx->grid.world;
    char *text = NULL;
    uint64_t n_bytes = 0;
    if (st == BG_OK && ctx->grid.world_rank == 0)
        st = pack(in, &text, &n_bytes, err);
    if ((st = bg_agree(comm, st, err)) != BG_OK)
        goto out;
    bg_broadcast(comm, &n_bytes, sizeof n_bytes, 0);
    if (ctx->grid.world_rank != 0 && (text = calloc(1, n_bytes + 1)) == NULL)
        st = BG_FAIL(err, BG_ENOMEM, "list of inputs: out of memory");
    if ((st = bg_agree(comm, st, err)) != BG_OK)
        goto out;
    bg_broadcast(comm, text, n_bytes, 0);
    if (ctx->grid.world_rank != 0)
        st = unpack(in, text, err);
    if (st == BG_OK)
        st = bg_inputs_fingerprint(in, ctx, also, &in->call, err);
    st = bg_agree(comm, st, err);
    in->fingerprint = in->call;
    in->run = (bg_provenance){
        .stage = ctx->name,
        .options = ctx->options,
        .fingerprint = in->fingerprint.hex,
        .precision = ctx->precision,
        .libraries = ctx->libraries,
        .seed = seed,
        .ranks = ctx->grid.world_size,
        .threads = ctx->threads,
        .started = ctx->started,
        .n_inputs = in->n,
        .input_name = (const char *const *)in->name,
        .input_hash = in->hash,
    };
out:
    free(text);
    return st;
}

bg_status bg_inputs_choose(bg_inputs *in, const bg_context *ctx, const char *also, bg_err *err)
{
    return bg_inputs_fingerprint(in, ctx, also, &in->fingerprint, err);
}
