/* Random damage to the files that stages read: opening and reading them to the end always returns a status,
 * and never crashes or hangs.  Most telling under the sanitizers (make asan). */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bregman/folder.h"
#include "bregman/model_open.h"
#include "bregman/log.h"
#include "bregman/manifest.h"
#include "bregman/memory.h"
#include "bregman/model.h"
#include "bregman/queries.h"
#include "bregman/store.h"
#include "bregman/tokens.h"
#include "random.h"

enum { ROUNDS = 300, SECONDS = 250, SEQUENCES = 40, LENGTH = 12, VOCABULARY = 64, QUERIES = 3, RANK = 2 };

static char folder[] = "/tmp/bg-fuzz-XXXXXX";
static const bg_provenance run = { .stage = "test", .options = "{}", .fingerprint = "f" };

/* ---- files that are sound ---- */

static bg_status write_sequences(const char *path, bool queries, bg_err *err)
{
    static const char *const id[QUERIES] = { "first", "second", "third" };
    const uint32_t start[QUERIES] = { 3, 4, 5 };
    uint64_t n = queries ? QUERIES : SEQUENCES, n_tokens = n * LENGTH;
    uint32_t token[SEQUENCES * LENGTH], count[SEQUENCES];
    bg_store *s = NULL;
    for (size_t i = 0; i < n_tokens; i++)
        token[i] = (uint32_t)below(VOCABULARY);
    for (size_t i = 0; i < n; i++)
        count[i] = LENGTH;
    bg_status st = bg_store_create(&s, path, queries ? "bregman/queries" : "bregman/tokens", &run, err);
    if (st == BG_OK)
        st = bg_store_write(s, "token", &n_tokens, token, err);
    if (st == BG_OK)
        st = bg_store_write(s, "count", &n, count, err);
    if (st == BG_OK && queries)
        st = bg_store_write(s, "completion_start", &n, start, err);
    if (st == BG_OK && queries)
        st = bg_store_write(s, "id", &n, id, err);
    if (st == BG_OK)
        st = bg_store_attr_text(s, "/", "tokenizer_hash", "0123", err);
    return bg_store_end(s, st, err);
}

static bg_status write_side(bg_store *s, const bg_site *site, const char *name, size_t side, bg_err *err)
{
    uint64_t dims[3] = { QUERIES, side, RANK };
    char path[BG_PATH_BYTES];
    float *x = NULL;
    bg_status st = bg_path(path, err, "%s/%s", site->name, name);
    if (st == BG_OK)
        st = BG_NEW(x, QUERIES * side * RANK, "a side", err);
    for (size_t i = 0; st == BG_OK && i < QUERIES * side * RANK; i++)
        x[i] = (float)below(100) - 50.0f;
    if (st == BG_OK)
        st = bg_store_write(s, path, dims, x, err);
    bg_free(x);
    return st;
}

static bg_status write_kept(bg_store *s, const bg_site *site, bg_err *err)
{
    const uint64_t n = QUERIES;
    const float kept[QUERIES] = { 1, 0.75f, 0.5f };
    char path[BG_PATH_BYTES];
    bg_status st = bg_path(path, err, "%s/kept", site->name);
    return st == BG_OK ? bg_store_write(s, path, &n, kept, err) : st;
}

static bg_status write_compressed(const char *path, const bg_model *m, const bg_hash *hash, bg_err *err)
{
    static const char *const id[QUERIES] = { "first", "second", "third" };
    uint64_t n = QUERIES;
    bg_store *s = NULL;
    bg_status st = bg_store_create(&s, path, "bregman/compressed", &run, err);
    if (st == BG_OK)
        st = bg_store_write(s, "id", &n, id, err);
    if (st == BG_OK)
        st = bg_store_attr_text(s, "/", "model_hash", hash->hex, err);
    if (st == BG_OK)
        st = bg_store_attr_text(s, "/", "modules", "mlp", err);
    for (size_t i = 0; i < m->n_tracked && st == BG_OK; i++) {
        st = write_side(s, m->tracked[i], "left", m->tracked[i]->n_out, err);
        if (st == BG_OK)
            st = write_side(s, m->tracked[i], "right", m->tracked[i]->n_in1, err);
        if (st == BG_OK)
            st = write_kept(s, m->tracked[i], err);
    }
    return bg_store_end(s, st, err);
}

/* ---- reading, as the stages do ---- */

typedef struct {
    const bg_model *model;
    bg_hash hash;
} context;
typedef bg_status read_file(const context *c, const char *path, bg_err *err);

static bg_status read_sequences(const context *c, const char *path, bg_err *err)
{
    bg_tokens *t = NULL;
    const bg_hash *hash;
    (void)c;
    bg_status st = bg_tokens_open(&t, &path, 1, err);
    for (uint64_t i = 0; st == BG_OK && i < bg_tokens_sequences(t); i++) {
        uint32_t *ids = NULL;
        st = BG_NEW(ids, bg_tokens_count(t, i), "ids", err);
        if (st == BG_OK)
            st = bg_tokens_read(t, i, i + 1, VOCABULARY, ids, err);
        if (st == BG_OK && bg_tokens_are_queries(t) && strlen(bg_tokens_query_id(t, i)) > 1000)
            st = BG_FAIL(err, BG_EFORMAT, "an id of more than 1000 bytes");
        bg_free(ids);
    }
    if (st == BG_OK)
        st = bg_tokens_hashes(t, &hash, err);
    bg_tokens_close(t);
    return st;
}

static bg_status read_compressed(const context *c, const char *path, bg_err *err)
{
    const bg_share whole = bg_model_whole(c->model);
    const bg_queries_source source = { path, c->model, &c->hash, &whole, NULL };
    bg_queries *q = NULL;
    bg_queries_about about;
    bg_status st = bg_queries_describe(&about, path, err);
    bg_queries_about_clear(&about);
    if (st == BG_OK)
        st = bg_queries_load(&q, &source, MPI_COMM_SELF, err);
    bg_queries_free(q);
    return st;
}

/* ---- damage ---- */

typedef struct {
    unsigned char *byte;
    size_t n;
} image;

static image load(const char *path)
{
    struct stat about;
    image f = { NULL, 0 };
    FILE *file = fopen(path, "rb");
    if (file != NULL && fstat(fileno(file), &about) == 0 && (f.byte = malloc((size_t)about.st_size)) != NULL)
        f.n = fread(f.byte, 1, (size_t)about.st_size, file);
    if (file != NULL)
        fclose(file);
    return f;
}

static bool save(const char *path, const unsigned char *byte, size_t n)
{
    FILE *file = fopen(path, "wb");
    bool good = file != NULL && fwrite(byte, 1, n, file) == n;
    return file != NULL && fclose(file) == 0 && good;
}

/* One to four bytes changed, half of them where HDF5 keeps its structure (the front of the file); or a cut.  The
 * manifest may list the file as it is then. */
static bool write_damaged(const char *path, const image *sound, bool listed)
{
    const bg_hash hash = { "00000000000000000000000000000000" };
    unsigned char *copy = malloc(sound->n);
    size_t n = sound->n;
    if (copy == NULL)
        return false;
    memcpy(copy, sound->byte, n);
    if (below(5) == 0)
        n = below(n);
    for (size_t k = 1 + below(4); n > 0 && k > 0; k--) {
        size_t front = n < 4096 ? n : 4096, at = below(2) == 0 ? below(front) : below(n);
        copy[at] = (unsigned char)(below(2) == 0 ? next_random() : copy[at] ^ 1u << below(8));
    }
    bool good = save(path, copy, n) && (!listed || bg_manifest_append(path, &hash, n, NULL) == BG_OK);
    free(copy);
    return good;
}

/* Rounds of damage to one file.  Returns how many answers were wrong: a failure without a message of one line,
 * or sound files refused. */
static int fuzz(const context *c, const char *sound_path, read_file *read)
{
    char path[BG_PATH_BYTES];
    bg_err err = { .msg = "" };
    int wrong = 0, refused = 0;
    image sound = load(sound_path);
    if (sound.n == 0 || read(c, sound_path, &err) != BG_OK) {
        fprintf(stderr, "%s: %s\n", sound_path, err.msg);
        wrong++;
    }
    for (int round = 0; round < ROUNDS && wrong == 0; round++) {
        bool listed = round % 2 == 0;
        err = (bg_err){ .msg = "" };
        if (bg_path(path, &err, "%s/%s.h5", folder, listed ? "listed" : "others") != BG_OK ||
            !write_damaged(path, &sound, listed)) {
            fprintf(stderr, "cannot write %s\n", path);
            wrong++;
            break;
        }
        bg_status st = read(c, path, &err);
        refused += st != BG_OK;
        if (st != BG_OK && (err.code != st || err.msg[0] == '\0' || strchr(err.msg, '\n') != NULL)) {
            fprintf(stderr, "round %d of %s: status %d: %s\n", round, sound_path, (int)st, err.msg);
            wrong++;
        }
    }
    printf("%s: %d of %d damaged files refused\n", sound_path, refused, ROUNDS);
    free(sound.byte);
    return wrong + (refused == 0);
}

int main(void)
{
    char dir[BG_PATH_BYTES], tokens[BG_PATH_BYTES], queries[BG_PATH_BYTES], compressed[BG_PATH_BYTES];
    bg_err err = { .msg = "" };
    bg_model *model = NULL;
    context c;
    int wrong = 0;
    MPI_Init(NULL, NULL);
    bg_log_setup("fuzz", false);
    alarm(SECONDS); /* a hang is a failure too */
    if (mkdtemp(folder) == NULL)
        return 1;
    bg_status st = bg_path(dir, &err, "%s/tests/goldens/gpt2", getenv("SRC") != NULL ? getenv("SRC") : ".");
    if (st == BG_OK)
        st = bg_path(tokens, &err, "%s/tokens.h5", folder);
    if (st == BG_OK)
        st = bg_path(queries, &err, "%s/queries.h5", folder);
    if (st == BG_OK)
        st = bg_path(compressed, &err, "%s/compressed.h5", folder);
    if (st == BG_OK)
        st = bg_model_open(&model, dir, "mlp", &err);
    if (st == BG_OK)
        st = bg_model_hash(model, &c.hash, &err);
    if (st == BG_OK)
        st = write_sequences(tokens, false, &err);
    if (st == BG_OK)
        st = write_sequences(queries, true, &err);
    if (st == BG_OK)
        st = write_compressed(compressed, model, &c.hash, &err);
    if (st == BG_OK) {
        c.model = model;
        wrong = fuzz(&c, tokens, read_sequences) + fuzz(&c, queries, read_sequences) +
                fuzz(&c, compressed, read_compressed);
    } else {
        fprintf(stderr, "%s\n", err.msg);
    }
    bg_model_close(model);
    bg_manifest_close(true);
    if (bg_remove_folder(folder, &err) != BG_OK)
        wrong++;
    MPI_Finalize();
    return st != BG_OK || wrong != 0;
}
