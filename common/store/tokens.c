/* tokens.c - sequences of token ids.  Counts are kept in memory, ids are read when asked for. */
#include "bregman/tokens.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "bregman/memory.h"
#include "bregman/store.h"

typedef struct {
    char *path;
    uint64_t first, n;        /* its sequences: [first, first + n) */
    uint64_t n_tokens;
} token_file;

/* One file is open at a time: sequences are read in order, and a corpus may have more files than a
 * process may have open. */
typedef struct { size_t index; bg_store *store; } open_file;

struct bg_tokens {
    size_t n_files;
    token_file *file;
    open_file *current;
    uint64_t n;
    uint64_t *begin;          /* [n + 1]: tokens before each sequence, over all files */
    bool are_queries;
    uint32_t *completion_start;   /* [n], queries only */
    char **id;                    /* [n], queries only */
    char *tokenizer_hash;
    size_t hash_from;             /* the file tokenizer_hash was read from */
    bg_hash *hash;                /* NULL until asked for */
};

/* A file that says it holds tokens or queries; one that says nothing holds queries if it has completions. */
static bg_status open_either(bg_store **out, const char *path, bg_err *err)
{
    bg_store *queries = NULL;
    bg_err ignored;
    bg_status st = bg_store_open(out, path, "bregman/tokens", err);
    if (st != BG_OK && st != BG_EFORMAT)
        return st;
    if (bg_store_open(&queries, path, "bregman/queries", &ignored) == BG_OK &&
        (st != BG_OK || bg_store_has(queries, "completion_start"))) {
        bg_store_close(*out);
        *out = queries;
        return BG_OK;
    }
    bg_store_close(queries);
    return st;
}

/* Make file i the open one. */
static bg_status go_to(const bg_tokens *t, size_t i, bg_store **store, bg_err *err)
{
    open_file *now = t->current;
    if (now->store == NULL || now->index != i) {
        bg_store_close(now->store);
        now->store = NULL;
        now->index = i;
        bg_status st = open_either(&now->store, t->file[i].path, err);
        if (st != BG_OK)
            return st;
    }
    *store = now->store;
    return BG_OK;
}

/* The tokenizer is one for all files that know theirs. */
static bg_status check_tokenizer(bg_tokens *t, size_t i, const bg_store *s, bg_err *err)
{
    char *text = NULL;
    bool found = false;
    bg_status st = bg_store_get_text(s, "/", "tokenizer_hash", &text, &found, err);
    if (st != BG_OK || !found || *text == '\0') {
        free(text);
        return st;
    }
    if (t->tokenizer_hash == NULL) {
        t->tokenizer_hash = text;
        t->hash_from = i;
        return BG_OK;
    }
    if (strcmp(text, t->tokenizer_hash) != 0)
        st = BG_FAIL(err, BG_EFORMAT, "\"%.150s\" and \"%.150s\" were made with different tokenizers",
                     t->file[t->hash_from].path, t->file[i].path);
    free(text);
    return st;
}

/* First look at file i: its shape, its kind, its tokenizer. */
static bg_status look_at(bg_tokens *t, size_t i, bg_err *err)
{
    token_file *f = &t->file[i];
    bg_store *s;
    bg_status st = go_to(t, i, &s, err);
    if (st == BG_OK)
        st = bg_store_dims(s, "token", 1, &f->n_tokens, err);
    if (st == BG_OK)
        st = bg_store_dims(s, "count", 1, &f->n, err);
    if (st != BG_OK)
        return st;
    bool are_queries = bg_store_has(s, "completion_start");
    if (i > 0 && are_queries != t->are_queries)
        return BG_FAIL(err, BG_EFORMAT, "\"%.150s\" holds %s, \"%.150s\" does not", f->path,
                       are_queries ? "queries" : "a corpus", t->file[0].path);
    t->are_queries = are_queries;
    f->first = t->n;
    if (f->n > SIZE_MAX / sizeof *t->begin - t->n)
        return BG_FAIL(err, BG_EFORMAT, "\"%s\" says it has %" PRIu64 " sequences", f->path, f->n);
    t->n += f->n;
    return check_tokenizer(t, i, s, err);
}

/* Counts of file i into begin[], as running sums. */
static bg_status read_counts(bg_tokens *t, size_t i, const bg_store *s, bg_err *err)
{
    const token_file *f = &t->file[i];
    uint64_t *sum = t->begin + f->first;
    bg_status st = bg_store_read(s, "count", BG_I64, &f->n, sum + 1, err);
    for (uint64_t k = 0; k < f->n && st == BG_OK; k++)
        sum[k + 1] += sum[k];
    return st;
}

/* What queries have beside their tokens. */
static bg_status read_queries(bg_tokens *t, size_t i, const bg_store *s, bg_err *err)
{
    const token_file *f = &t->file[i];
    char **id = NULL;
    size_t n = 0;
    bg_status st = bg_store_read(s, "completion_start", BG_U32, &f->n, t->completion_start + f->first, err);
    if (st == BG_OK)
        st = bg_store_read_strings(s, "id", &id, &n, err);
    if (st != BG_OK)
        return st;
    for (size_t k = 0; k < n; k++)
        t->id[f->first + k] = id[k];
    free(id);
    for (uint64_t q = f->first; q < f->first + f->n; q++) {
        uint32_t start = t->completion_start[q], count = bg_tokens_count(t, q);
        if (start == 0)
            return BG_FAIL(err, BG_EFORMAT, "query \"%.100s\" of \"%s\" has no prompt", t->id[q], f->path);
        if (start >= count)
            return BG_FAIL(err, BG_EFORMAT, "query \"%.100s\" of \"%s\" has no completion: it starts at token %" PRIu32
                           " of %" PRIu32, t->id[q], f->path, start, count);
    }
    return BG_OK;
}

typedef struct { dev_t device; ino_t inode; size_t index; } place;

static int compare_places(const void *a_, const void *b_)
{
    const place *a = a_, *b = b_;
    if (a->device != b->device)
        return a->device < b->device ? -1 : 1;
    if (a->inode != b->inode)
        return a->inode < b->inode ? -1 : 1;
    return a->index < b->index ? -1 : a->index > b->index;
}

/* A file given twice, under whatever names, would count twice. */
static bg_status check_twice(const bg_tokens *t, bg_err *err)
{
    place *p;
    bg_status st = BG_NEW(p, t->n_files, "token files", err);
    for (size_t i = 0; i < t->n_files && st == BG_OK; i++) {
        struct stat about;
        if (stat(t->file[i].path, &about) != 0)
            st = BG_FAIL(err, BG_EIO, "cannot read \"%s\": %s", t->file[i].path, strerror(errno));
        else
            p[i] = (place){ about.st_dev, about.st_ino, i };
    }
    if (st == BG_OK)
        qsort(p, t->n_files, sizeof *p, compare_places);
    for (size_t i = 1; i < t->n_files && st == BG_OK; i++)
        if (p[i].device == p[i - 1].device && p[i].inode == p[i - 1].inode)
            st = BG_FAIL(err, BG_EARG, "\"%.150s\" and \"%.150s\" are the same file: give it once",
                         t->file[p[i - 1].index].path, t->file[p[i].index].path);
    bg_free(p);
    return st;
}

static bg_status allocate(bg_tokens *t, bg_err *err)
{
    bg_status st = BG_NEW(t->begin, t->n + 1, "token counts", err);
    if (st == BG_OK && t->are_queries)
        st = BG_NEW(t->completion_start, t->n, "completion starts", err);
    if (st == BG_OK && t->are_queries)
        st = BG_NEW(t->id, t->n, "query ids", err);
    return st;
}

static bg_status open_all(bg_tokens *t, const char *const *path, bg_err *err)
{
    bg_store *s;
    bg_status st = BG_OK;
    for (size_t i = 0; i < t->n_files && st == BG_OK; i++) {
        if ((t->file[i].path = strdup(path[i])) == NULL)
            return BG_FAIL(err, BG_ENOMEM, "out of memory to open \"%s\"", path[i]);
        st = look_at(t, i, err);
    }
    if (st == BG_OK)
        st = check_twice(t, err);
    if (st == BG_OK)
        st = allocate(t, err);
    for (size_t i = 0; i < t->n_files && st == BG_OK; i++) {
        st = go_to(t, i, &s, err);
        if (st == BG_OK)
            st = read_counts(t, i, s, err);
        if (st == BG_OK && t->are_queries)
            st = read_queries(t, i, s, err);
    }
    return st;
}

bg_status bg_tokens_open(bg_tokens **out, const char *const *path, size_t n_paths, bg_err *err)
{
    bg_tokens *t;
    *out = NULL;
    if (n_paths == 0)
        return BG_FAIL(err, BG_EARG, "no token file is given");
    bg_status st = BG_NEW(t, 1, "token files", err);
    if (st != BG_OK)
        return st;
    st = BG_NEW(t->file, n_paths, "token files", err);
    if (st == BG_OK) {
        t->n_files = n_paths;
        st = BG_NEW(t->current, 1, "token files", err);
    }
    if (st == BG_OK)
        st = open_all(t, path, err);
    if (st != BG_OK) {
        bg_tokens_close(t);
        return st;
    }
    *out = t;
    return BG_OK;
}

void bg_tokens_close(bg_tokens *t)
{
    if (t == NULL)
        return;
    if (t->current != NULL)
        bg_store_close(t->current->store);
    for (size_t i = 0; i < t->n_files; i++)
        free(t->file[i].path);
    for (uint64_t q = 0; t->id != NULL && q < t->n; q++)
        free(t->id[q]);
    free(t->tokenizer_hash);
    bg_free(t->id);
    bg_free(t->completion_start);
    bg_free(t->begin);
    bg_free(t->hash);
    bg_free(t->current);
    bg_free(t->file);
    bg_free(t);
}

uint64_t bg_tokens_sequences(const bg_tokens *t) { return t->n; }
uint64_t bg_tokens_file_sequences(const bg_tokens *t, size_t file) { return t->file[file].n; }

uint32_t bg_tokens_count(const bg_tokens *t, uint64_t sequence)
{
    assert(sequence < t->n);
    return (uint32_t)(t->begin[sequence + 1] - t->begin[sequence]);
}

uint32_t bg_tokens_longest(const bg_tokens *t, uint64_t begin, uint64_t end)
{
    uint32_t longest = 0;
    for (uint64_t i = begin; i < end; i++)
        if (bg_tokens_count(t, i) > longest)
            longest = bg_tokens_count(t, i);
    return longest;
}

const char *bg_tokens_tokenizer_hash(const bg_tokens *t)
{
    return t->tokenizer_hash != NULL ? t->tokenizer_hash : "";
}

/* The last file that starts at or before the sequence; an empty file shares its start with the next. */
static size_t file_of(const bg_tokens *t, uint64_t sequence)
{
    size_t low = 0, high = t->n_files;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (t->file[middle].first <= sequence)
            low = middle;
        else
            high = middle;
    }
    return low;
}

bg_status bg_tokens_check_longest(const bg_tokens *t, uint64_t begin, uint64_t end, size_t max_tokens, bg_err *err)
{
    for (uint64_t i = begin; i < end; i++)
        if (bg_tokens_count(t, i) > max_tokens) {
            const token_file *f = &t->file[file_of(t, i)];
            return BG_FAIL(err, BG_EFORMAT, "sequence %" PRIu64 " of \"%s\" has %" PRIu32 " tokens, and the model takes at most %zu",
                           i - f->first, f->path, bg_tokens_count(t, i), max_tokens);
        }
    return BG_OK;
}

/* Sequences [begin, end) of file f are in `ids`: all below vocab_size? */
static bg_status check_ids(const bg_tokens *t, const token_file *f, uint64_t begin, uint64_t end,
                           size_t vocab_size, const uint32_t *ids, bg_err *err)
{
    for (uint64_t s = begin; s < end; s++) {
        uint32_t count = bg_tokens_count(t, s);
        for (uint32_t k = 0; k < count; k++)
            if (ids[k] >= vocab_size)
                return BG_FAIL(err, BG_EFORMAT, "token id %" PRIu32 " at position %" PRIu32 " of sequence %" PRIu64
                               " of \"%s\" is not below the model's vocabulary size %zu",
                               ids[k], k, s - f->first, f->path, vocab_size);
        ids += count;
    }
    return BG_OK;
}

bg_status bg_tokens_read(const bg_tokens *t, uint64_t begin, uint64_t end, size_t vocab_size,
                         uint32_t *out, bg_err *err)
{
    assert(begin <= end && end <= t->n);
    bg_store *s;
    while (begin < end) {
        size_t i = file_of(t, begin);
        const token_file *f = &t->file[i];
        uint64_t stop = end - f->first < f->n ? end : f->first + f->n;
        uint64_t n = t->begin[stop] - t->begin[begin];
        bg_status st = go_to(t, i, &s, err);
        if (st == BG_OK)
            st = bg_store_read_rows(s, "token", BG_U32, t->begin[begin] - t->begin[f->first], n, 1, out, err);
        if (st == BG_OK)
            st = check_ids(t, f, begin, stop, vocab_size, out, err);
        if (st != BG_OK)
            return st;
        out += n;
        begin = stop;
    }
    return BG_OK;
}

/* Element of a dataset of whole numbers that a file may lack; -1 if it does. */
static bg_status read_optional(const bg_store *s, const char *path, uint64_t row, int64_t *out, bg_err *err)
{
    *out = -1;
    return bg_store_has(s, path) ? bg_store_read_rows(s, path, BG_I64, row, 1, 1, out, err) : BG_OK;
}

bg_status bg_tokens_document(const bg_tokens *t, uint64_t sequence, char **id, int64_t *start, bg_err *err)
{
    assert(sequence < t->n && !t->are_queries);
    size_t i = file_of(t, sequence);
    uint64_t row = sequence - t->file[i].first;
    int64_t document = -1;
    bg_store *s;
    *id = NULL;
    bg_status st = go_to(t, i, &s, err);
    if (st == BG_OK)
        st = read_optional(s, "document", row, &document, err);
    if (st == BG_OK)
        st = read_optional(s, "start", row, start, err);
    if (st != BG_OK)
        return st;
    if (document >= 0 && bg_store_has(s, "documents/id"))
        return bg_store_read_string(s, "documents/id", (uint64_t)document, 0, id, err);
    if ((*id = strdup("")) == NULL)
        st = BG_FAIL(err, BG_ENOMEM, "out of memory for a document's id");
    return st;
}

bool bg_tokens_are_queries(const bg_tokens *t) { return t->are_queries; }

uint32_t bg_tokens_completion_start(const bg_tokens *t, uint64_t query)
{
    assert(t->are_queries && query < t->n);
    return t->completion_start[query];
}

const char *bg_tokens_query_id(const bg_tokens *t, uint64_t query)
{
    assert(t->are_queries && query < t->n);
    return t->id[query];
}

/* Copies under other names would count each of their sequences twice. */
static bg_status check_copies(const bg_tokens *t, bg_err *err)
{
    for (size_t i = 0; i < t->n_files; i++)
        for (size_t k = 0; k < i && t->file[i].n > 0; k++)
            if (strcmp(t->hash[i].hex, t->hash[k].hex) == 0)
                return BG_FAIL(err, BG_EARG, "\"%.150s\" and \"%.150s\" are copies of one file: give it once", t->file[k].path,
                               t->file[i].path);
    return BG_OK;
}

bg_status bg_tokens_hashes(bg_tokens *t, const bg_hash **hash, bg_err *err)
{
    if (t->hash == NULL) {
        bg_status st = BG_NEW(t->hash, t->n_files, "hashes of token files", err);
        for (size_t i = 0; i < t->n_files && st == BG_OK; i++)
            st = bg_hash_file(t->file[i].path, &t->hash[i], err);
        if (st == BG_OK)
            st = check_copies(t, err);
        if (st != BG_OK) {
            bg_free(t->hash);
            t->hash = NULL;
            return st;
        }
    }
    *hash = t->hash;
    return BG_OK;
}
