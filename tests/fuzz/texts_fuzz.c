/* Texts: config.json, cluster files, lists of candidates, manifests.  The first byte is the kind, the rest the file. */
#include <math.h>
#include <unistd.h>

#include "bregman/config.h"
#include "bregman/manifest.h"
#include "bregman/memory.h"
#include "bregman/rope.h"
#include "bregman/store.h"
#include "input.h"
#include "bregman/cluster.h"
#include "score_shards/scoring.h"

enum { CORPUS = 1000 };
static char folder[64];

typedef bg_status read_fn(const char *path, bg_err *err);

static bg_status read_config(const char *path, bg_err *err)
{
    bg_model_config c;
    (void)path;
    bg_status st = bg_model_config_read(&c, folder, err);
    if (st != BG_OK)
        return st;
    if (c.n_blocks == 0 || c.d_head == 0 || c.n_kv_heads == 0 || c.n_heads % c.n_kv_heads != 0 || c.d_ff == 0 ||
        c.vocab_size == 0 || c.max_positions == 0 || !(c.norm_epsilon > 0) ||
        (c.rope.kind != BG_ROPE_NONE && (c.rotary_dims > c.d_head || c.rotary_dims % 2 != 0)))
        finding("a config that no model can have", err);
    double *freq = calloc(c.rotary_dims / 2 + 1, sizeof *freq);
    if (c.rotary_dims < 10000 && freq != NULL)
        bg_rope_frequencies(&c.rope, c.rotary_dims, freq);
    free(freq);
    return BG_OK;
}

static bg_status read_cluster(const char *path, bg_err *err)
{
    bg_cluster c;
    bg_status st = bg_cluster_read(&c, path, err);
    if (st == BG_OK && (c.nodes == 0 || c.cores_per_node == 0 || !isfinite(c.profile.s[BG_COST_FLOP])))
        finding("a cluster that cannot be", err);
    return st;
}

static bg_status read_candidates(const char *path, bg_err *err)
{
    uint64_t *sequence = NULL, n = 0;
    bg_status st = score_read_candidates(path, CORPUS, &sequence, &n, err);
    for (uint64_t i = 0; st == BG_OK && i < n; i++)
        if (sequence[i] >= CORPUS || (i > 0 && sequence[i] <= sequence[i - 1]))
            finding("candidates beyond the corpus or unordered", err);
    if (st == BG_OK)
        bg_free(sequence);
    return st;
}

static bg_status read_manifest(const char *path, bg_err *err)
{
    char dir[80];
    bg_manifest m = { 0 };
    (void)path;
    snprintf(dir, sizeof dir, "%s/", folder);
    bg_status st = bg_manifest_read(&m, dir, err);
    for (size_t i = 0; st == BG_OK && i < m.n; i++)
        if (m.entry[i].name[0] == '\0' || strpbrk(m.entry[i].name, "/\n") != NULL ||
            bg_manifest_find(&m, m.entry[i].name) == NULL)
            finding("an entry that cannot be", err);
    bg_manifest_clear(&m);
    return st;
}

static const struct {
    const char *file;
    read_fn *read;
} kinds[] = {
    { "config.json", read_config },
    { "cluster.json", read_cluster },
    { "candidates.txt", read_candidates },
    { "MANIFEST", read_manifest },
};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

static void clean_up(void)
{
    char path[128];
    for (size_t k = 0; k < KINDS; k++) {
        snprintf(path, sizeof path, "%s/%s", folder, kinds[k].file);
        unlink(path);
    }
    rmdir(folder);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    snprintf(folder, sizeof folder, "%s/bregman-fuzz-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (mkdtemp(folder) == NULL)
        return 1;
    return atexit(clean_up);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[128];
    fuzz_input in = { data, size };
    bg_err err = { .msg = "" };
    size_t kind = take(&in) % KINDS;
    snprintf(path, sizeof path, "%s/%s", folder, kinds[kind].file);
    FILE *f = fopen(path, "wb");
    if (f == NULL || fwrite(in.at, 1, in.left, f) != in.left || fclose(f) != 0)
        abort();
    bg_status st = kinds[kind].read(path, &err);
    check_status(st, &err);
    if (st != BG_OK && strstr(err.msg, folder) == NULL)
        finding("a message without the file", &err);
    return 0;
}
