/* Files of every format, changed as the fuzzer's bytes say, then read by one of those who read that format.  The first
 * byte is the kind of file and the reader. */
#include <ftw.h>
#include <math.h>
#include <mpi.h>
#include <sanitizer/lsan_interface.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bregman/covariance.h"
#include "bregman/factors.h"
#include "bregman/memory.h"
#include "bregman/ranking.h"
#include "bregman/score.h"
#include "bregman/tokens.h"
#include "inspect/inspect.h"
#include "merge_scores/merge_scores.h"
#include "mutate.h"
#include "score_shards/scoring.h"
#include "unit/schema_values.h"
#include "verify/verify.h"

enum { SIDE_OUT = 2, SIDE_IN = 4, MOST_PATHS = 96 };

#define CORPUS UINT64_C(150000000000) /* what schema_fill's corpus/sequences add up to */
static char folder[64];
static const bg_provenance run = {
    .stage = "test",
    .options = "{}",
    .fingerprint = "f",
    .n_inputs = 2,
    .input_name = (const char *const[]){ "a.h5", "b.h5" },
    .input_hash = (const bg_hash[]){ { "00000000000000000000000000000001" }, { "00000000000000000000000000000002" } },
};

/* A model whose one tracked module has the sides that schema_write gives modules. */
static bg_site site = { .name = "model.h.0",
                        .n_out = SIDE_OUT,
                        .n_in = SIDE_IN,
                        .n_in1 = SIDE_IN,
                        .a = { SIDE_IN, 1 },
                        .s = { SIDE_OUT, 1 },
                        .tracked = true };
static bg_section section = { 0, 0, 1 };
static bg_site *tracked[] = { &site };
static bg_model model = { .config.n_blocks = 1,
                          .n_sites = 1,
                          .site = &site,
                          .n_tracked = 1,
                          .tracked = tracked,
                          .n_sections = 1,
                          .section = &section,
                          .dir = (char[]){ "model" } };
static const bg_hash model_hash = { "0123456789abcdef0123456789abcdef" };
static const bg_share whole = { .end = 1, .sites = { 0, 1 }, .embeds = true, .has_head = true };

static void must(bg_status st, const bg_err *err)
{
    if (st != BG_OK)
        finding("a sound file is refused", err);
}

/* ---- readers; a file that is in order must get through all of them ---- */

typedef bg_status read_fn(const char *path, bg_err *err);

static bg_status read_tokens(const char *path, bg_err *err)
{
    bg_tokens *t = NULL;
    bg_status st = bg_tokens_open(&t, &path, 1, err);
    for (uint64_t i = 0; st == BG_OK && i < bg_tokens_sequences(t); i++) {
        uint32_t *ids = NULL;
        st = BG_NEW(ids, bg_tokens_count(t, i), "ids", err);
        if (st == BG_OK)
            st = bg_tokens_read(t, i, i + 1, UINT32_MAX, ids, err);
        bg_free(ids);
    }
    bg_tokens_close(t);
    return st;
}

/* The folder's MANIFEST lists the file as it is now, and nothing else; or that and what it listed. */
static bg_status list(const char *file, bool alone, bg_err *err)
{
    char path[128], manifest[128];
    struct stat about;
    bg_hash hash;
    snprintf(path, sizeof path, "%s/%s", folder, file);
    snprintf(manifest, sizeof manifest, "%s/MANIFEST", folder);
    if (alone)
        unlink(manifest);
    bg_status st = bg_hash_file(path, &hash, err);
    return st == BG_OK && stat(path, &about) == 0 ? bg_manifest_append(path, &hash, (uint64_t)about.st_size, err) : st;
}

static bg_status read_factors(const char *path, bg_err *err)
{
    bg_factors *f = NULL;
    bg_site_factors m;
    (void)path;
    bg_status st = list("index.h5", true, err);
    if (st == BG_OK)
        st = list("block-000.h5", false, err);
    if (st == BG_OK)
        st = bg_factors_open(&f, folder, &model, &model_hash, err);
    if (st == BG_OK)
        st = bg_factors_read(f, &site, BG_READ_BASES | BG_READ_LAMBDA | BG_READ_EIGENVALUES | BG_READ_DIAGONAL, &m,
                             err);
    if (st == BG_OK) {
        for (size_t i = 0; i < SIDE_OUT * SIDE_IN; i++)
            if (!(m.lambda[i] >= 0) || !(m.diagonal[i] >= 0))
                finding("a curvature below 0 was read", err);
        double n = 0;
        if (bg_factors_tokens_per_sequence(f, &site, &n, err) == BG_OK && !isfinite(n))
            finding("a division by 0", err);
        bg_site_factors_clear(&m);
    }
    bg_factors_close(f);
    return st;
}

static bg_status read_compressed(const char *path, bg_err *err)
{
    const bg_queries_source source = { path, &model, &model_hash, &whole, NULL };
    bg_queries *q = NULL;
    bg_queries_about about;
    bg_status st = bg_queries_describe(&about, path, err);
    bg_queries_about_clear(&about);
    if (st == BG_OK)
        st = bg_queries_load(&q, &source, MPI_COMM_SELF, err);
    bg_queries_free(q);
    return st;
}

static bg_status read_shard(const char *path, bg_err *err)
{
    char output[128];
    snprintf(output, sizeof output, "%s/ranking.h5", folder);
    const merge_scores_config c = { .scores = folder, .output = output, .top = 2, .tail = 0.5 };
    const bg_context ctx = { .name = "merge_scores",
                             .options = "{}",
                             .identity = "{}",
                             .grid = { .world = MPI_COMM_WORLD, .world_size = 1, .data_size = 1, .pipeline_size = 1 } };
    bg_ranking r;
    bg_status st = list(bg_base_name(path), true, err);
    if (st == BG_OK)
        st = merge_scores_run(&c, &ctx, err);
    if (st == BG_OK && bg_ranking_read(&r, output, err) != BG_OK)
        finding("what merge_scores wrote cannot be read", err);
    if (st == BG_OK)
        bg_ranking_clear(&r);
    unlink(output);
    return st;
}

static bg_status read_ranking(const char *path, bg_err *err)
{
    bg_ranking r;
    bg_status st = bg_ranking_read(&r, path, err);
    if (st == BG_OK)
        bg_ranking_clear(&r);
    return st;
}

static const bg_covariance_task sums_task = { .sites = { 0, 1 }, .kind = BG_FACTORS_EKFAC };

static bg_status read_sums(const char *path, bg_err *err)
{
    bg_covariance *c = NULL;
    bg_store *s = NULL;
    bg_status st = bg_covariance_new(&c, &model, &sums_task, err);
    if (st == BG_OK)
        st = bg_store_open(&s, path, "bregman/work", err);
    if (st == BG_OK)
        st = bg_covariance_read(c, 0, s, err);
    bg_store_close(s);
    bg_covariance_free(c);
    return st;
}

static bg_status read_nothing(const char *path, bg_err *err)
{
    (void)path;
    (void)err;
    return BG_OK;
}

static bg_status read_candidates(const char *path, bg_err *err)
{
    uint64_t *sequence = NULL, n = 0;
    bg_status st = score_read_candidates(path, CORPUS, &sequence, &n, err);
    for (uint64_t i = 0; st == BG_OK && i < n; i++)
        if (sequence[i] >= CORPUS)
            finding("a candidate beyond the corpus", err);
    if (st == BG_OK)
        bg_free(sequence);
    return st;
}

/* ---- kinds ---- */

static const struct {
    const char *format, *file;
    read_fn *read;
    bool linked;
} kinds[] = {
    { "bregman/tokens", "tokens.h5", read_tokens, false },
    { "bregman/queries", "queries.h5", read_tokens, false },
    { "bregman/factors", "index.h5", read_factors, false },
    { "bregman/factors", "block-000.h5", read_factors, true }, /* index.h5 links to it */
    { "bregman/compressed", "compressed.h5", read_compressed, false },
    { "bregman/scores", "shard-00000-of-00001.h5", read_shard, false },
    { "bregman/ranking", "given.h5", read_ranking, false },
    { "bregman/work", "sums.h5", read_sums, false },
    { "bregman/work", "work.h5", read_nothing, false },
    { "bregman/scores", "candidates.h5", read_candidates, false },
};
enum { KINDS = sizeof kinds / sizeof kinds[0], HOWS = 3 };
static struct {
    unsigned char *byte;
    size_t n;
} base[KINDS];
static unsigned char *index_byte; /* the index.h5 that links to block-000.h5 */
static size_t index_n;

static void load(const char *path, unsigned char **byte, size_t *n)
{
    FILE *f = fopen(path, "rb");
    *byte = malloc(1 << 20);
    *n = f != NULL && *byte != NULL ? fread(*byte, 1, 1 << 20, f) : 0;
    if (*n == 0 || fclose(f) != 0)
        abort();
}

static void save(const char *path, const unsigned char *byte, size_t n)
{
    FILE *f = fopen(path, "wb");
    if (f == NULL || fwrite(byte, 1, n, f) != n || fclose(f) != 0)
        abort();
}

static bg_status add_attributes(bg_store *s, bg_err *err)
{
    static const struct {
        const char *object, *name;
        uint64_t value;
        const char *text;
    } all[] = {
        { "/", "blocks", 1, NULL },
        { "/", "covariance_n_tokens", 1, NULL },
        { "/", "covariance_n_sequences", 1, NULL },
        { "/", "shard", 0, NULL },
        { "/", "shards", 1, NULL },
        { "/", "corpus_sequences", CORPUS, NULL },
        { "/", "modules", 0, "mlp" },
        { "/", "tokenizer_hash", 0, "0123" },
        { "/", "model_hash", 0, model_hash.hex },
        { "/", "compressed_fingerprint", 0, "c" },
        { "/", "queries_hash", 0, "q" },
        { "/run", "shards_fingerprint", 0, "s" },
    };
    bg_status st = BG_OK;
    for (size_t i = 0; i < sizeof all / sizeof all[0] && st == BG_OK; i++)
        st = all[i].text != NULL ? bg_store_attr_text(s, all[i].object, all[i].name, all[i].text, err)
                                 : bg_store_attr_u64(s, all[i].object, all[i].name, all[i].value, err);
    return st;
}

/* Lists of extremes, of scores that rise with the sequence: schema_fill knows nothing of what one dataset says of
 * another. */
static void rank_scores(const char *path)
{
    enum { SEQUENCES = 4, QUERIES = 4, TOP = 3 };
    int64_t sequence[2][QUERIES][TOP];
    float score[2][QUERIES][TOP];
    for (size_t q = 0; q < QUERIES; q++)
        for (size_t i = 0; i < TOP; i++)
            for (size_t side = 0; side < 2; side++) {
                size_t z = side == BG_TOP ? SEQUENCES - 1 - i : i;
                sequence[side][q][i] = (int64_t)z * 5000000000;
                score[side][q][i] = 0.01f * (float)(z * QUERIES + q) - 1.0f;
            }
    hid_t access = bg_hdf5_access(), file = H5Fopen(path, H5F_ACC_RDWR, access);
    H5Pclose(access);
    for (size_t side = 0; side < 2; side++) {
        char name[32];
        snprintf(name, sizeof name, "%s/sequence", bg_side_name[side]);
        hid_t s = H5Dopen2(file, name, H5P_DEFAULT);
        snprintf(name, sizeof name, "%s/score", bg_side_name[side]);
        hid_t x = H5Dopen2(file, name, H5P_DEFAULT);
        if (H5Dwrite(s, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, sequence[side]) < 0 ||
            H5Dwrite(x, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, score[side]) < 0)
            abort();
        H5Dclose(s);
        H5Dclose(x);
    }
    H5Fclose(file);
}

static void make_base(size_t kind)
{
    char path[128];
    bg_err err;
    bg_store *s = NULL;
    bg_covariance *sums = NULL;
    snprintf(path, sizeof path, "%s/%s", folder, kinds[kind].file);
    must(bg_store_create(&s, path, kinds[kind].format, &run, &err), &err);
    must(add_attributes(s, &err), &err);
    if (kinds[kind].read == read_sums) {
        must(bg_covariance_new(&sums, &model, &sums_task, &err), &err);
        must(bg_covariance_write(sums, 0, s, &err), &err);
        bg_covariance_free(sums);
    } else {
        must(schema_write(s, kinds[kind].format, &err), &err);
    }
    must(bg_store_publish(s, NULL, &err), &err);
    if (strcmp(kinds[kind].format, "bregman/scores") == 0 || strcmp(kinds[kind].format, "bregman/ranking") == 0)
        rank_scores(path);
    load(path, &base[kind].byte, &base[kind].n);
    if (!kinds[kind].linked)
        return;
    snprintf(path, sizeof path, "%s/index.h5", folder);
    must(bg_store_create(&s, path, "bregman/factors", &run, &err), &err);
    must(add_attributes(s, &err), &err);
    must(bg_store_link_external(s, kinds[kind].file, site.name, site.name, &err), &err);
    must(bg_store_publish(s, NULL, &err), &err);
    load(path, &index_byte, &index_n);
}

/* Datasets and axes of the format. */
static size_t list_paths(const char *format, const char *path[MOST_PATHS])
{
    static char text[MOST_PATHS][128];
    static const char *const more[] = {
        "run/input_name", "run/input_hash", "query", "documents", "top", "model.h.0", "run", "sequence"
    };
    size_t n_rows, n = 0;
    const bg_schema_row *row = bg_schema_rows(&n_rows);
    for (size_t i = 0; i < n_rows; i++)
        if (strcmp(row[i].format, format) == 0) {
            schema_path(&row[i], text[n]);
            path[n] = text[n];
            n++;
        }
    for (size_t i = 0; i < sizeof more / sizeof more[0]; i++)
        path[n++] = more[i];
    return n;
}

/* ---- what reads every format ---- */

/* good [in]: verify said so, and nothing is refused then. */
static void read_any(const char *path, const char *format, bool good)
{
    size_t n;
    const bg_schema_row *row = bg_schema_rows(&n);
    bg_store *s;
    bg_err err = { .msg = "" };
    bg_status st = bg_store_open(&s, path, format, &err);
    check_status(st, &err);
    if (st != BG_OK && good)
        finding("verify calls good what cannot be opened", &err);
    for (size_t i = 0; i < n && s != NULL; i++) {
        char name[128], **text;
        uint64_t dims[3] = { 1, 1, 1 };
        size_t n_text;
        void *data = NULL;
        schema_path(&row[i], name);
        if ((strcmp(row[i].format, format) != 0 && strcmp(row[i].format, "bregman/*") != 0) || !bg_store_has(s, name))
            continue;
        st = bg_store_dims(s, name, row[i].n_dims, dims, &err);
        if (st == BG_OK && row[i].dtype == BG_STRING) {
            st = bg_store_read_strings(s, name, &text, &n_text, &err);
            bg_strings_free(text, n_text);
        } else if (st == BG_OK) {
            data = bg_alloc(dims[0] * dims[1] * dims[2], bg_dtype_bytes(row[i].dtype), name, &err);
            st = bg_allocated(data);
            if (st == BG_OK)
                st = bg_store_read(s, name, row[i].dtype, dims, data, &err);
            bg_free(data);
        }
        check_status(st, &err);
        if (st != BG_OK && good)
            finding("verify calls good what a reader refuses", &err);
        if (st == BG_EARG || (st != BG_OK && strstr(err.msg, path) == NULL))
            finding("a message without the file", &err);
    }
    bg_store_close(s);
}

static void walk(const char *path, const char *format)
{
    static const verify_config config = { .inputs = true };
    verifying v = { .c = &config };
    bg_err err = { .msg = "" };
    bool good;
    char *text = NULL;
    size_t bytes = 0;
    FILE *to = open_memstream(&text, &bytes);
    check_status(inspect_file(to, path, &err), &err);
    fclose(to);
    free(text);
    check_status(verify_content(&v, path, true, &good, &err), &err);
    verify_forget(&v.files);
    verify_forget(&v.inputs);
    if (good)
        read_any(path, format, true);
}

/* ---- libFuzzer's entries ---- */

static int remove_one(const char *path, const struct stat *about, int kind, struct FTW *where)
{
    (void)about, (void)kind, (void)where;
    return remove(path);
}

static pid_t maker;
static void clean_up(void)
{
    if (getpid() == maker)
        nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    char path[128];
    __lsan_disable(); /* what MPI never frees */
    MPI_Init(argc, argv);
    __lsan_enable();
    snprintf(folder, sizeof folder, "%s/bregman-fuzz-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (mkdtemp(folder) == NULL || freopen("/dev/null", "w", stdout) == NULL)
        return 1;
    maker = getpid();
    atexit(clean_up);
    bg_log_setup("fuzz", false);
    bg_hdf5_prepare();
    H5set_free_list_limits(1 << 26, 1 << 24, 1 << 26, 1 << 24, 1 << 26,
                           1 << 24); /* quicker: files are opened all the time */
    for (size_t k = 0; k < KINDS; k++)
        make_base(k);
    snprintf(path, sizeof path, "%s/sound.h5", folder);
    save(path, base[0].byte, base[0].n);
    snprintf(path, sizeof path, "%s/raw", folder);
    save(path, base[0].byte, base[0].n);
    for (size_t k = 0; k < KINDS; k++)
        for (size_t how = 0; how < HOWS; how++)
            LLVMFuzzerTestOneInput((const uint8_t[]){ (uint8_t)(how * KINDS + k) }, 1);
    return 0;
}

static void change(fuzz_input *in, const char *file, const char *format)
{
    const char *paths[MOST_PATHS];
    hid_t access = bg_hdf5_access();
    mutation m = { .in = in, .file = H5Fopen(file, H5F_ACC_RDWR, access), .folder = folder, .path = paths };
    H5Pclose(access);
    m.n_paths = list_paths(format, paths);
    if (m.file < 0)
        abort();
    mutate(&m);
    H5Fclose(m.file);
    H5Eclear2(H5E_DEFAULT);
}

static void read_own(size_t kind, const char *path, bool sound)
{
    bg_err err = { .msg = "" };
    bg_status st = kinds[kind].read(path, &err);
    check_status(st, &err);
    if (sound)
        must(st, &err);
    if (st != BG_OK && strstr(err.msg, folder) == NULL)
        finding("a message without the file", &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[128], index[128];
    fuzz_input in = { data, size };
    unsigned first = take(&in);
    size_t kind = first % KINDS;
    snprintf(path, sizeof path, "%s/%s", folder, kinds[kind].file);
    snprintf(index, sizeof index, "%s/index.h5", folder);
    save(path, base[kind].byte, base[kind].n);
    if (kinds[kind].linked)
        save(index, index_byte, index_n);
    const char *changed = kinds[kind].linked && take(&in) % 2 != 0 ? index : path;
    if (size > 1)
        change(&in, changed, kinds[kind].format);
    switch (first / KINDS % HOWS) {
    case 0: read_own(kind, path, size == 1); break;
    case 1: read_any(changed, kinds[kind].format, size == 1); break;
    default: walk(changed, kinds[kind].format); break;
    }
    return 0;
}
