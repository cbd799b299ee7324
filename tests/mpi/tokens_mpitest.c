/* Token files that all ranks open: rank 0 alone looks into them, and all know the same. */
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bregman/comm.h"
#include "bregman/tokens.h"

static int fails;
#define CHECK(c)                                                           \
    do {                                                                   \
        if (!(c)) {                                                        \
            fails++;                                                       \
            fprintf(stderr, "%s:%d: CHECK(%s)\n", __FILE__, __LINE__, #c); \
        }                                                                  \
    } while (0)

static char folder[] = "/tmp/bg-tokens-XXXXXX";

static void put(hid_t file, const char *name, hid_t type, hsize_t n, const void *data)
{
    hid_t space = H5Screate_simple(1, &n, NULL);
    hid_t set = H5Dcreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    CHECK(set >= 0 && H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    H5Dclose(set);
    H5Sclose(space);
}

/* Sequences of `count` tokens each, ids counting from `id` on; queries have names too. */
static void write_file(const char *path, uint32_t id, int n, const uint32_t *count, bool queries)
{
    static const char *const name[] = { "first", "second", "third" };
    const uint32_t start[] = { 1, 1, 1 };
    uint32_t token[64], n_tokens = 0;
    for (int i = 0; i < n; i++)
        for (uint32_t k = 0; k < count[i]; k++)
            token[n_tokens++] = id++;
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), text = H5Tcopy(H5T_C_S1);
    H5Tset_size(text, H5T_VARIABLE);
    put(file, "token", H5T_NATIVE_UINT32, n_tokens, token);
    put(file, "count", H5T_NATIVE_UINT32, (hsize_t)n, count);
    if (queries) {
        put(file, "completion_start", H5T_NATIVE_UINT32, (hsize_t)n, start);
        put(file, "id", text, (hsize_t)n, name);
    }
    H5Tclose(text);
    H5Fclose(file);
}

/* Ranks but the first are given names of files that are not there. */
static void rank_0_alone_looks(int rank)
{
    char a[64], b[64];
    bg_err err = { .msg = "" };
    bg_tokens *t;
    snprintf(a, sizeof a, "%s/%s", folder, rank == 0 ? "a.h5" : "absent-a.h5");
    snprintf(b, sizeof b, "%s/%s", folder, rank == 0 ? "b.h5" : "absent-b.h5");
    CHECK(bg_tokens_open_all(&t, (const char *const[]){ a, b }, 2, MPI_COMM_WORLD, &err) == BG_OK);
    if (t == NULL)
        return;
    CHECK(bg_tokens_sequences(t) == 5 && bg_tokens_file_sequences(t, 0) == 3 && bg_tokens_file_sequences(t, 1) == 2);
    CHECK(bg_tokens_count(t, 0) == 2 && bg_tokens_count(t, 2) == 4 && bg_tokens_count(t, 4) == 6);
    CHECK(!bg_tokens_are_queries(t) && strcmp(bg_tokens_tokenizer_hash(t), "") == 0);
    uint32_t ids[6];
    bg_status st = bg_tokens_read(t, 4, 5, 1000, ids, &err);
    CHECK(rank == 0 ? st == BG_OK && ids[0] == 205 : st == BG_EIO && strstr(err.msg, "absent-b.h5") != NULL);
    bg_tokens_close(t);
}

static void queries_are_named_everywhere(void)
{
    char path[64];
    const char *const paths[] = { path };
    bg_err err = { .msg = "" };
    bg_tokens *t;
    uint32_t ids[3];
    snprintf(path, sizeof path, "%s/queries.h5", folder);
    CHECK(bg_tokens_open_all(&t, paths, 1, MPI_COMM_WORLD, &err) == BG_OK);
    if (t == NULL)
        return;
    CHECK(bg_tokens_are_queries(t) && bg_tokens_sequences(t) == 3);
    CHECK(strcmp(bg_tokens_query_id(t, 0), "first") == 0 && strcmp(bg_tokens_query_id(t, 2), "third") == 0);
    CHECK(bg_tokens_completion_start(t, 1) == 1);
    CHECK(bg_tokens_read(t, 1, 2, 1000, ids, &err) == BG_OK && ids[0] == 302 && ids[2] == 304);
    bg_tokens_close(t);
}

static void errors_are_shared(void)
{
    char a[64], b[64];
    bg_err err = { .msg = "" };
    bg_tokens *t;
    snprintf(a, sizeof a, "%s/a.h5", folder);
    snprintf(b, sizeof b, "%s/queries.h5", folder);
    CHECK(bg_tokens_open_all(&t, (const char *const[]){ a, b }, 2, MPI_COMM_WORLD, &err) == BG_EFORMAT);
    CHECK(t == NULL && err.rank == 0 && strstr(err.msg, "holds queries") != NULL);
    CHECK(bg_tokens_open_all(&t, (const char *const[]){ a, a }, 2, MPI_COMM_WORLD, &err) == BG_EARG);
    CHECK(t == NULL && strstr(err.msg, "are the same file") != NULL);
}

int main(int argc, char **argv)
{
    int rank;
    char path[64];
    static const char *const name[] = { "a.h5", "b.h5", "queries.h5" };
    static const uint32_t count[][3] = { { 2, 3, 4 }, { 5, 6, 0 }, { 2, 3, 2 } };
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (rank == 0) {
        CHECK(mkdtemp(folder) != NULL);
        for (int i = 0; i < 3; i++) {
            snprintf(path, sizeof path, "%s/%s", folder, name[i]);
            write_file(path, (uint32_t)(i + 1) * 100, i == 1 ? 2 : 3, count[i], i == 2);
        }
    }
    bg_broadcast(MPI_COMM_WORLD, folder, sizeof folder, 0);
    rank_0_alone_looks(rank);
    queries_are_named_everywhere();
    errors_are_shared();
    MPI_Allreduce(MPI_IN_PLACE, &fails, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    for (int i = 0; rank == 0 && i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, name[i]);
        unlink(path);
    }
    if (rank == 0)
        rmdir(folder);
    MPI_Finalize();
    return fails != 0;
}
