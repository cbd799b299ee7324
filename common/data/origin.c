#include "bregman/origin.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/memory.h"

bg_status bg_origin_set_tokens(bg_origin *o, bg_tokens *t, bg_err *err)
{
    const bg_hash *hash;
    const size_t n = bg_tokens_files(t);
    bg_status st = bg_tokens_hashes(t, &hash, err);
    if (st == BG_OK)
        st = BG_NEW(o->sequences, n, "token files", err);
    if (st != BG_OK)
        return st;
    o->n_files = n;
    o->file = calloc(n + 1, sizeof *o->file);
    o->hash = calloc(n + 1, sizeof *o->hash);
    bool whole = o->file != NULL && o->hash != NULL;
    for (size_t i = 0; i < n && whole; i++) {
        o->sequences[i] = (int64_t)bg_tokens_file_sequences(t, i);
        o->file[i] = strdup(bg_tokens_path(t, i));
        o->hash[i] = strdup(hash[i].hex);
        whole = o->file[i] != NULL && o->hash[i] != NULL;
    }
    return whole ? BG_OK : BG_FAIL(err, BG_ENOMEM, "out of memory for the list of token files");
}

void bg_origin_clear(bg_origin *o)
{
    bg_strings_free(o->file, o->n_files);
    bg_strings_free(o->hash, o->n_files);
    bg_free(o->sequences);
    *o = (bg_origin){ 0 };
}

/* ---- files ---- */

static bg_status check_total(const bg_origin *o, const bg_store *s, const char *remedy, bg_err *err)
{
    uint64_t corpus, total = 0;
    bg_status st = bg_store_get_u64(s, "/", "corpus_sequences", &corpus, NULL, err);
    for (size_t i = 0; i < o->n_files; i++)
        total += (uint64_t)o->sequences[i];
    if (st == BG_OK && total != corpus)
        st = BG_FAIL(err, BG_EFORMAT,
                     "\"%s\" speaks of a corpus of %" PRIu64 " sequences, but its token files had %" PRIu64 ": %s",
                     bg_store_path(s), corpus, total, remedy);
    return st;
}

static bg_status read_hash(const bg_store *s, const char *name, bg_hash *out, bg_err *err)
{
    char *text = NULL;
    bg_status st = bg_store_get_text(s, "/", name, &text, NULL, err);
    if (st == BG_OK)
        snprintf(out->hex, sizeof out->hex, "%s", text);
    free(text);
    return st;
}

bg_status bg_origin_read_tokens(bg_origin *o, const bg_store *s, const char *remedy, bg_err *err)
{
    size_t n_hashes = 0;
    uint64_t n;
    if (!bg_store_has(s, "corpus/file"))
        return BG_FAIL(err, BG_ESTALE, "\"%s\" does not say which token files it was made from: %s", bg_store_path(s),
                       remedy);
    bg_status st = bg_store_read_strings(s, "corpus/file", &o->file, &o->n_files, err);
    if (st == BG_OK)
        st = bg_store_read_strings(s, "corpus/hash", &o->hash, &n_hashes, err);
    if (st == BG_OK)
        st = BG_NEW(o->sequences, o->n_files, "token files", err);
    n = o->n_files;
    if (st == BG_OK)
        st = bg_store_read(s, "corpus/sequences", BG_I64, &n, o->sequences, err);
    return st == BG_OK ? check_total(o, s, remedy, err) : st;
}

bg_status bg_origin_read(bg_origin *o, const bg_store *s, const char *remedy, bg_err *err)
{
    bg_status st = bg_origin_read_tokens(o, s, remedy, err);
    if (st == BG_OK)
        st = read_hash(s, "model_hash", &o->model, err);
    if (st == BG_OK)
        st = read_hash(s, "compressed_fingerprint", &o->compressed, err);
    return st == BG_OK ? read_hash(s, "queries_hash", &o->queries, err) : st;
}

bg_status bg_origin_write_tokens(const bg_origin *o, bg_store *s, bg_err *err)
{
    uint64_t n = o->n_files;
    bg_status st = bg_store_write(s, "corpus/file", &n, o->file, err);
    if (st == BG_OK)
        st = bg_store_write(s, "corpus/hash", &n, o->hash, err);
    return st == BG_OK ? bg_store_write(s, "corpus/sequences", &n, o->sequences, err) : st;
}

bg_status bg_origin_write(const bg_origin *o, bg_store *s, bg_err *err)
{
    bg_status st = bg_origin_write_tokens(o, s, err);
    if (st == BG_OK)
        st = bg_store_attr_text(s, "/", "model_hash", o->model.hex, err);
    if (st == BG_OK)
        st = bg_store_attr_text(s, "/", "compressed_fingerprint", o->compressed.hex, err);
    return st == BG_OK ? bg_store_attr_text(s, "/", "queries_hash", o->queries.hex, err) : st;
}

/* ---- comparing ---- */

enum { FILE_BYTES = 136 };

static void describe_file(const bg_origin *o, size_t i, char out[FILE_BYTES])
{
    snprintf(out, FILE_BYTES, "\"%.60s\" (%" PRId64 " sequences, hash %.8s)", bg_base_name(o->file[i]), o->sequences[i],
             o->hash[i]);
}

static bool same_file(const bg_origin *a, size_t i, const bg_origin *b, size_t j)
{
    return strcmp(a->hash[i], b->hash[j]) == 0 && a->sequences[i] == b->sequences[j];
}

/* The first token file that differs, and where the file that belongs there is. */
static bool files_differ(const bg_origin *given, const bg_origin *expected, char what[BG_DIFFERENCE_BYTES])
{
    char mine[FILE_BYTES], its[FILE_BYTES];
    size_t i = 0, j = 0;
    while (i < given->n_files && i < expected->n_files && same_file(given, i, expected, i))
        i++;
    if (i == given->n_files && i == expected->n_files)
        return false;
    if (i < given->n_files)
        describe_file(given, i, mine);
    if (i == expected->n_files) {
        snprintf(what, BG_DIFFERENCE_BYTES, "token file %zu is %s, but there were %zu", i + 1, mine, i);
        return true;
    }
    describe_file(expected, i, its);
    while (j < given->n_files && !same_file(given, j, expected, i))
        j++;
    if (i == given->n_files)
        snprintf(what, BG_DIFFERENCE_BYTES, "token file %zu of %zu is missing, %s", i + 1, expected->n_files, its);
    else if (j == given->n_files)
        snprintf(what, BG_DIFFERENCE_BYTES, "token file %zu is %s, not %s", i + 1, mine, its);
    else
        snprintf(what, BG_DIFFERENCE_BYTES, "token file %zu is %s, not %s, which is token file %zu", i + 1, mine, its,
                 j + 1);
    return true;
}

bool bg_origin_differs(const bg_origin *given, const bg_origin *expected, char what[BG_DIFFERENCE_BYTES])
{
    const struct {
        const char *name;
        const bg_hash *given, *expected;
    } part[] = {
        { "another model", &given->model, &expected->model },
        { "other compressed queries", &given->compressed, &expected->compressed },
        { "other queries", &given->queries, &expected->queries },
    };
    if (files_differ(given, expected, what))
        return true;
    for (size_t i = 0; i < sizeof part / sizeof part[0]; i++) {
        const char *a = part[i].given->hex, *b = part[i].expected->hex;
        if (a[0] == '\0' || b[0] == '\0' || strcmp(a, b) == 0)
            continue;
        snprintf(what, BG_DIFFERENCE_BYTES, "%s (%.8s, not %.8s)", part[i].name, a, b);
        return true;
    }
    return false;
}
