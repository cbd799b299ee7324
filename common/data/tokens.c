/* tokens.c - sequences of token ids.  Counts are kept in memory, ids are read when asked for. */
#include "bregman/tokens.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "bregman/comm.h"
#include "bregman/hash_cache.h"
#include "bregman/identity.h"
#include "bregman/memory.h"
#include "bregman/shared.h"
#include "bregman/stop.h"
#include "marks.h"

/* One file is open at a time: sequences are read in order, and a corpus may have more files than a
 * process may have open. */
typedef struct {
    size_t index;
    bg_store *store;
    bg_marks *marks; /* once they were asked for */
} open_file;

struct bg_tokens {
    size_t n_files;
    char **path;
    uint64_t *first; /* [n_files + 1]: file i has sequences [first[i], first[i + 1]) */
    bg_hash *hash;   /* [n_files]: identities; of files that others made "" until asked for */
    bool hashed;     /* all identities are known and differ */
    open_file *current;
    uint64_t n, room; /* sequences; as many fit the arrays below */
    uint64_t *begin;  /* [n + 1]: tokens before each sequence, over all files; */
    bg_shared *held;  /* in this, once per node, unless one rank opened the files for itself */
    bool are_queries;
    bool marked, restarts;      /* a file says more of its tokens (marks.h) */
    uint32_t *completion_start; /* [n], queries only */
    char **id;                  /* [n], queries only */
    char *tokenizer_hash;
    size_t hash_from; /* the file tokenizer_hash was read from */
};

/* Make file i the open one. */
static bg_status go_to(const bg_tokens *t, size_t i, bg_store **store, bg_err *err)
{
    open_file *now = t->current;
    if (now->store == NULL || now->index != i) {
        bg_marks_free(now->marks);
        bg_store_close(now->store);
        *now = (open_file){ .index = i };
        bg_status st = bg_store_open_sequences(&now->store, t->path[i], err);
        if (st != BG_OK)
            return st;
    }
    *store = now->store;
    return BG_OK;
}

/* ---- the first look at each file ---- */

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
                     t->path[t->hash_from], t->path[i]);
    free(text);
    return st;
}

/* An array of `room` elements in place of one whose first `n` stay as they are.  NULL: BG_ENOMEM, and that one stays. */
static void *regrow(void *array, uint64_t n, uint64_t room, size_t size, const char *what, bg_err *err)
{
    void *larger = bg_alloc(room, size, what, err);
    if (larger == NULL)
        return NULL;
    if (array != NULL)
        memcpy(larger, array, n * size);
    bg_free(array);
    return larger;
}

/* Room for n more sequences. */
static bg_status make_room(bg_tokens *t, uint64_t n, const char *path, bg_err *err)
{
    if (n > SIZE_MAX / sizeof *t->begin / 2 - t->n - 1)
        return BG_FAIL(err, BG_EFORMAT, "\"%s\" says it has %" PRIu64 " sequences", path, n);
    if (t->begin != NULL && t->n + n <= t->room)
        return BG_OK;
    t->room = t->room * 2 > t->n + n ? t->room * 2 : t->n + n;
    void *larger = regrow(t->begin, t->begin != NULL ? t->n + 1 : 0, t->room + 1, sizeof *t->begin, "token counts",
                          err);
    if (larger == NULL)
        return BG_ENOMEM;
    t->begin = larger;
    if (!t->are_queries)
        return BG_OK;
    larger = regrow(t->completion_start, t->n, t->room, sizeof *t->completion_start, "completion starts", err);
    if (larger == NULL)
        return BG_ENOMEM;
    t->completion_start = larger;
    larger = regrow(t->id, t->n, t->room, sizeof *t->id, "query ids", err);
    if (larger == NULL)
        return BG_ENOMEM;
    t->id = larger;
    return BG_OK;
}

/* Counts of a file with n sequences, as running sums behind those that are there. */
static bg_status read_counts(bg_tokens *t, uint64_t n, const bg_store *s, bg_err *err)
{
    uint64_t *sum = t->begin + t->n;
    bg_status st = bg_store_read(s, "count", BG_I64, &n, sum + 1, err);
    for (uint64_t k = 0; k < n && st == BG_OK; k++)
        sum[k + 1] += sum[k];
    return st;
}

/* What queries have beside their tokens. */
static bg_status read_queries(bg_tokens *t, uint64_t n, const bg_store *s, bg_err *err)
{
    const char *path = bg_store_path(s);
    char **id = NULL;
    size_t n_ids = 0;
    bg_status st = bg_store_read(s, "completion_start", BG_U32, &n, t->completion_start + t->n, err);
    if (st == BG_OK)
        st = bg_store_read_strings(s, "id", &id, &n_ids, err);
    for (uint64_t k = 0; k < n && st == BG_OK; k++) {
        uint32_t start = t->completion_start[t->n + k], count = (uint32_t)(t->begin[t->n + k + 1] - t->begin[t->n + k]);
        if (start == 0)
            st = BG_FAIL(err, BG_EFORMAT, "query \"%.100s\" of \"%s\" has no prompt", id[k], path);
        else if (start >= count)
            st = BG_FAIL(err, BG_EFORMAT,
                         "query \"%.100s\" of \"%s\" has no completion: it starts at token %" PRIu32 " of %" PRIu32,
                         id[k], path, start, count);
    }
    if (st != BG_OK) {
        bg_strings_free(id, n_ids);
        return st;
    }
    memcpy(t->id + t->n, id, n * sizeof *id);
    free(id);
    return BG_OK;
}

static bg_status check_kind(bg_tokens *t, size_t i, const bg_store *s, bg_err *err)
{
    bool are_queries = bg_store_has(s, "completion_start");
    if (i > 0 && are_queries != t->are_queries)
        return BG_FAIL(err, BG_EFORMAT, "\"%.150s\" holds %s, \"%.150s\" does not", t->path[i],
                       are_queries ? "queries" : "a corpus", t->path[0]);
    t->are_queries = are_queries;
    return BG_OK;
}

/* Is it as the files before it?  n [out]: its sequences. */
static bg_status look_at(bg_tokens *t, size_t i, const bg_store *s, uint64_t *n, bg_err *err)
{
    uint64_t n_tokens;
    bg_status st = bg_store_dims(s, "token", 1, &n_tokens, err);
    if (st == BG_OK)
        st = bg_store_dims(s, "count", 1, n, err);
    bool marked = false, restarts = false;
    if (st == BG_OK)
        st = bg_marks_look(s, &marked, &restarts, err);
    t->marked = t->marked || marked;
    t->restarts = t->restarts || restarts;
    if (st == BG_OK)
        st = check_kind(t, i, s, err);
    if (st == BG_OK)
        st = check_tokenizer(t, i, s, err);
    return st == BG_OK ? bg_store_identity(s, &t->hash[i], err) : st;
}

/* All that is kept of file i, in one visit. */
static bg_status visit(bg_tokens *t, size_t i, bg_err *err)
{
    bg_store *s;
    uint64_t n = 0;
    bg_status st = go_to(t, i, &s, err);
    if (st == BG_OK)
        st = look_at(t, i, s, &n, err);
    if (st == BG_OK)
        st = make_room(t, n, t->path[i], err);
    if (st == BG_OK)
        st = read_counts(t, n, s, err);
    if (st == BG_OK && t->are_queries)
        st = read_queries(t, n, s, err);
    if (st == BG_OK)
        t->first[i + 1] = t->n += n;
    return st;
}

typedef struct {
    dev_t device;
    ino_t inode;
    size_t index;
} place;

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
        if (stat(t->path[i], &about) != 0)
            st = BG_FAIL(err, BG_EIO, "cannot read \"%s\": %s", t->path[i], strerror(errno));
        else
            p[i] = (place){ about.st_dev, about.st_ino, i };
    }
    if (st == BG_OK)
        qsort(p, t->n_files, sizeof *p, compare_places);
    for (size_t i = 1; i < t->n_files && st == BG_OK; i++)
        if (p[i].device == p[i - 1].device && p[i].inode == p[i - 1].inode)
            st = BG_FAIL(err, BG_EARG, "\"%.150s\" and \"%.150s\" are the same file: give it once",
                         t->path[p[i - 1].index], t->path[p[i].index]);
    bg_free(p);
    return st;
}

/* An object without sequences, for files of these names. */
static bg_status new_tokens(bg_tokens **out, const char *const *path, size_t n_paths, bg_err *err)
{
    bg_tokens *t;
    *out = NULL;
    if (n_paths == 0)
        return BG_FAIL(err, BG_EARG, "no token file is given");
    bg_status st = BG_NEW(t, 1, "token files", err);
    if (st != BG_OK)
        return st;
    *out = t;
    if ((st = BG_NEW(t->path, n_paths, "token files", err)) == BG_OK)
        t->n_files = n_paths;
    if (st == BG_OK)
        st = BG_NEW(t->first, n_paths + 1, "token files", err);
    if (st == BG_OK)
        st = BG_NEW(t->hash, n_paths, "token files", err);
    if (st == BG_OK)
        st = BG_NEW(t->current, 1, "token files", err);
    for (size_t i = 0; i < n_paths && st == BG_OK; i++)
        if ((t->path[i] = strdup(path[i])) == NULL)
            st = BG_FAIL(err, BG_ENOMEM, "out of memory to open \"%s\"", path[i]);
    return st;
}

/* The object, if all went well. */
static bg_status hand_over(bg_tokens **out, bg_tokens *t, bg_status st)
{
    *out = st == BG_OK ? t : NULL;
    if (st != BG_OK)
        bg_tokens_close(t);
    return st;
}

static bg_status visit_all(bg_tokens *t, bg_err *err)
{
    bg_status st = BG_OK;
    for (size_t i = 0; i < t->n_files && st == BG_OK; i++)
        if ((st = bg_stop_check(t->path[i], err)) == BG_OK)
            st = visit(t, i, err);
    return st == BG_OK ? check_twice(t, err) : st;
}

bg_status bg_tokens_open(bg_tokens **out, const char *const *path, size_t n_paths, bg_err *err)
{
    bg_tokens *t;
    bg_status st = new_tokens(&t, path, n_paths, err);
    return hand_over(out, t, st == BG_OK ? visit_all(t, err) : st);
}

/* ---- for all ranks ---- */

/* What the other ranks need to know to make room for the rest. */
typedef struct {
    uint64_t n, are_queries, marked, restarts, hash_from, text_bytes;
} outline;

/* The tokenizer's hash and the queries' ids, each with its NUL; the length alone if text is NULL. */
static uint64_t join_texts(const bg_tokens *t, char *text)
{
    uint64_t n_texts = 1 + (t->are_queries ? t->n : 0), n = 0;
    for (uint64_t i = 0; i < n_texts; i++) {
        const char *one = i == 0 ? bg_tokens_tokenizer_hash(t) : t->id[i - 1];
        if (text != NULL)
            strcpy(text + n, one);
        n += strlen(one) + 1;
    }
    return n;
}

static bg_status cut_texts(bg_tokens *t, const char *text, bg_err *err)
{
    uint64_t n_texts = 1 + (t->are_queries ? t->n : 0);
    for (uint64_t i = 0; i < n_texts; i++, text += strlen(text) + 1) {
        char *one = strdup(text);
        if (one == NULL)
            return BG_FAIL(err, BG_ENOMEM, "out of memory for query ids");
        if (i == 0)
            t->tokenizer_hash = one;
        else
            t->id[i - 1] = one;
    }
    return BG_OK;
}

static bg_status make_like(bg_tokens *t, const outline *o, bg_err *err)
{
    bg_status st = BG_OK;
    t->n = o->n;
    t->are_queries = o->are_queries != 0;
    t->marked = o->marked != 0;
    t->restarts = o->restarts != 0;
    t->hash_from = o->hash_from;
    if (t->are_queries)
        st = BG_NEW(t->completion_start, t->n, "completion starts", err);
    if (st == BG_OK && t->are_queries)
        st = BG_NEW(t->id, t->n, "query ids", err);
    return st;
}

/* The running sums, once per node.  Collective; the same status on all ranks. */
static bg_status share_counts(bg_tokens *t, MPI_Comm comm, bg_err *err)
{
    bg_status st = bg_shared_spread(&t->held, comm, t->begin, (t->n + 1) * sizeof *t->begin, "token counts", err);
    if (st != BG_OK)
        return st;
    bg_free(t->begin);
    t->begin = bg_shared_data(t->held);
    return BG_OK;
}

/* Collective; the same status on all ranks. */
static bg_status share(bg_tokens *t, MPI_Comm comm, bool first, bg_err *err)
{
    outline o = { 0 };
    char *text = NULL;
    bg_status st = BG_OK;
    if (first)
        o = (outline){ t->n, t->are_queries, t->marked, t->restarts, t->hash_from, join_texts(t, NULL) };
    bg_broadcast(comm, &o, sizeof o, 0);
    if (!first)
        st = make_like(t, &o, err);
    if (st == BG_OK)
        st = BG_NEW(text, o.text_bytes, "query ids", err);
    if ((st = bg_agree(comm, st, err)) == BG_OK) {
        if (first)
            join_texts(t, text);
        bg_broadcast(comm, t->first, (t->n_files + 1) * sizeof *t->first, 0);
        bg_broadcast(comm, t->hash, t->n_files * sizeof *t->hash, 0);
        if (t->are_queries)
            bg_broadcast(comm, t->completion_start, t->n * sizeof *t->completion_start, 0);
        bg_broadcast(comm, text, o.text_bytes, 0);
        st = bg_agree(comm, first ? BG_OK : cut_texts(t, text, err), err);
    }
    bg_free(text);
    return st == BG_OK ? share_counts(t, comm, err) : st;
}

bg_status bg_tokens_open_all(bg_tokens **out, const char *const *path, size_t n_paths, MPI_Comm comm, bg_err *err)
{
    bg_tokens *t;
    int rank;
    MPI_Comm_rank(comm, &rank);
    bg_status st = new_tokens(&t, path, n_paths, err);
    if (st == BG_OK && rank == 0)
        st = visit_all(t, err);
    st = bg_agree(comm, st, err);
    return hand_over(out, t, st == BG_OK ? share(t, comm, rank == 0, err) : st);
}

void bg_tokens_close(bg_tokens *t)
{
    if (t == NULL)
        return;
    if (t->current != NULL) {
        bg_marks_free(t->current->marks);
        bg_store_close(t->current->store);
    }
    for (size_t i = 0; i < t->n_files; i++)
        free(t->path[i]);
    for (uint64_t q = 0; t->id != NULL && q < t->n; q++)
        free(t->id[q]);
    free(t->tokenizer_hash);
    bg_free(t->id);
    bg_free(t->completion_start);
    if (t->held == NULL)
        bg_free(t->begin);
    bg_shared_free(t->held);
    bg_free(t->hash);
    bg_free(t->current);
    bg_free(t->first);
    bg_free(t->path);
    bg_free(t);
}

size_t bg_tokens_files(const bg_tokens *t) { return t->n_files; }
const char *bg_tokens_path(const bg_tokens *t, size_t file) { return t->path[file]; }

uint64_t bg_tokens_sequences(const bg_tokens *t) { return t->n; }
uint64_t bg_tokens_file_sequences(const bg_tokens *t, size_t file) { return t->first[file + 1] - t->first[file]; }

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

const char *bg_tokens_tokenizer_hash(const bg_tokens *t) { return t->tokenizer_hash != NULL ? t->tokenizer_hash : ""; }

/* The last file that starts at or before the sequence; an empty file shares its start with the next. */
static size_t file_of(const bg_tokens *t, uint64_t sequence)
{
    size_t low = 0, high = t->n_files;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (t->first[middle] <= sequence)
            low = middle;
        else
            high = middle;
    }
    return low;
}

bg_status bg_tokens_check_longest(const bg_tokens *t, uint64_t begin, uint64_t end, size_t max_tokens, bg_err *err)
{
    for (uint64_t i = begin; i < end && !t->restarts; i++)
        if (bg_tokens_count(t, i) > max_tokens) {
            size_t file = file_of(t, i);
            return BG_FAIL(err, BG_EFORMAT,
                           "sequence %" PRIu64 " of \"%s\" has %" PRIu32 " tokens, and the model takes at most %zu",
                           i - t->first[file], t->path[file], bg_tokens_count(t, i), max_tokens);
        }
    return BG_OK;
}

/* Sequences [begin, end) of one file are in `ids`: all below vocab_size? */
static bg_status check_ids(const bg_tokens *t, size_t file, uint64_t begin, uint64_t end, size_t vocab_size,
                           const uint32_t *ids, bg_err *err)
{
    for (uint64_t s = begin; s < end; s++) {
        uint32_t count = bg_tokens_count(t, s);
        for (uint32_t k = 0; k < count; k++)
            if (ids[k] >= vocab_size)
                return BG_FAIL(err, BG_EFORMAT,
                               "token id %" PRIu32 " at position %" PRIu32 " of sequence %" PRIu64
                               " of \"%s\" is not below the model's vocabulary size %zu",
                               ids[k], k, s - t->first[file], t->path[file], vocab_size);
        ids += count;
    }
    return BG_OK;
}

/* Sequences [begin, end) of one file, and the rows of its datasets by token that are theirs. */
typedef struct {
    size_t file;
    uint64_t begin, end;
    bg_slab rows;
} run;

/* The first of them. */
static run next_run(const bg_tokens *t, uint64_t begin, uint64_t end)
{
    run r = { .file = file_of(t, begin), .begin = begin };
    r.end = end < t->first[r.file + 1] ? end : t->first[r.file + 1];
    r.rows = (bg_slab){ t->begin[begin] - t->begin[t->first[r.file]], t->begin[r.end] - t->begin[begin], 1 };
    return r;
}

bg_status bg_tokens_read(const bg_tokens *t, uint64_t begin, uint64_t end, size_t vocab_size, uint32_t *out,
                         bg_err *err)
{
    assert(begin <= end && end <= t->n);
    bg_store *s;
    bg_status st = BG_OK;
    for (run r; begin < end && st == BG_OK; begin = r.end, out += r.rows.n) {
        r = next_run(t, begin, end);
        st = go_to(t, r.file, &s, err);
        if (st == BG_OK)
            st = bg_store_read_rows(s, "token", BG_U32, r.rows, out, err);
        if (st == BG_OK)
            st = check_ids(t, r.file, begin, r.end, vocab_size, out, err);
    }
    return st;
}

bool bg_tokens_are_marked(const bg_tokens *t) { return t->marked; }

static bg_status open_marks(const bg_tokens *t, size_t file, bg_err *err)
{
    open_file *now = t->current;
    bg_store *s;
    bg_status st = go_to(t, file, &s, err);
    return st == BG_OK && now->marks == NULL ? bg_marks_open(&now->marks, s, bg_tokens_file_sequences(t, file), err)
                                             : st;
}

bg_status bg_tokens_read_marks(const bg_tokens *t, uint64_t begin, uint64_t end, uint8_t *out, bg_err *err)
{
    assert(begin <= end && end <= t->n);
    bg_status st = BG_OK;
    for (run r; begin < end && st == BG_OK; begin = r.end, out += r.rows.n) {
        r = next_run(t, begin, end);
        uint64_t first = begin - t->first[r.file];
        st = open_marks(t, r.file, err);
        if (st == BG_OK)
            st = bg_marks_read(t->current->marks, first, first + (r.end - begin), r.rows, t->begin + begin, out, err);
    }
    return st;
}

/* Element of a dataset of whole numbers that a file may lack; -1 if it does. */
static bg_status read_optional(const bg_store *s, const char *path, uint64_t row, int64_t *out, bg_err *err)
{
    *out = -1;
    return bg_store_has(s, path) ? bg_store_read_rows(s, path, BG_I64, (bg_slab){ row, 1, 1 }, out, err) : BG_OK;
}

bg_status bg_tokens_document(const bg_tokens *t, uint64_t sequence, char **id, int64_t *start, bg_err *err)
{
    assert(sequence < t->n && !t->are_queries);
    size_t i = file_of(t, sequence);
    uint64_t row = sequence - t->first[i];
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

bg_status bg_tokens_check_corpus(const bg_tokens *t, bg_err *err)
{
    if (t->are_queries)
        return BG_FAIL(err, BG_EFORMAT, "%s holds queries, not a corpus: make it with tokenize_corpus", t->path[0]);
    return t->n > 0 ? BG_OK : BG_FAIL(err, BG_EFORMAT, "%s: no sequence in the token files", t->path[0]);
}

bg_status bg_tokens_check_queries(const bg_tokens *t, bg_err *err)
{
    if (!t->are_queries)
        return BG_FAIL(err, BG_EFORMAT, "%s holds no queries (no completion_start): make it with tokenize_queries",
                       t->path[0]);
    return t->n > 0 ? BG_OK : BG_FAIL(err, BG_EFORMAT, "%s: no query in it", t->path[0]);
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
        for (size_t k = 0; k < i && bg_tokens_file_sequences(t, i) > 0; k++)
            if (strcmp(t->hash[i].hex, t->hash[k].hex) == 0)
                return BG_FAIL(err, BG_EARG, "\"%.150s\" and \"%.150s\" are copies of one file: give it once",
                               t->path[k], t->path[i]);
    return BG_OK;
}

bg_status bg_tokens_hashes(bg_tokens *t, const bg_hash **hash, bg_err *err)
{
    bg_status st = BG_OK;
    for (size_t i = 0; i < t->n_files && st == BG_OK && !t->hashed; i++) {
        bool made_here = t->hash[i].hex[0] != '\0';
        if (!made_here)
            st = bg_hash_file_once(t->path[i], &t->hash[i], err);
        if (st == BG_OK)
            st = bg_input_check_listed(t->path[i], made_here ? NULL : &t->hash[i], err);
    }
    if (st == BG_OK && !t->hashed)
        st = check_copies(t, err);
    t->hashed = st == BG_OK;
    *hash = t->hash;
    return st;
}
