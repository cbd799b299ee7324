/* Token and query files: made here or by others, over several files, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <hdf5.h>

#include "bregman/store.h"
#include "bregman/tokens.h"

static char folder[] = "/tmp/bg-tokens-XXXXXX";
static const char *const names[] = { "a.h5",          "b.h5",       "c.h5",    "empty.h5",
                                     "also-empty.h5", "queries.h5", "ours.h5", "MANIFEST" };

static const char *in_folder(const char *name)
{
    static char path[4][256];
    static int next;
    char *p = path[next++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", folder, name);
    return p;
}

static void put(hid_t file, const char *name, hid_t memory_type, hid_t file_type, size_t n, const void *data)
{
    const hsize_t dims[1] = { n };
    hid_t space = H5Screate_simple(1, dims, NULL);
    hid_t set = H5Dcreate2(file, name, file_type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(set >= 0);
    if (n > 0)
        assert_true(H5Dwrite(set, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    H5Dclose(set);
    H5Sclose(space);
}

static void put_text(hid_t file, const char *name, const char *text)
{
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
    H5Tset_size(type, H5T_VARIABLE);
    hid_t attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(attribute >= 0 && H5Awrite(attribute, type, &text) >= 0);
    H5Aclose(attribute);
    H5Sclose(space);
    H5Tclose(type);
}

static hid_t create(const char *name)
{
    hid_t file = H5Fcreate(in_folder(name), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(file >= 0);
    return file;
}

/* A file as others make it: no format, no /run, their own integer types. */
static void foreign(const char *name, hid_t type, size_t n_counts, const int64_t *count, size_t n_tokens,
                    const int64_t *token, const char *tokenizer)
{
    hid_t file = create(name);
    put(file, "token", H5T_NATIVE_INT64, type, n_tokens, token);
    put(file, "count", H5T_NATIVE_INT64, type, n_counts, count);
    if (tokenizer != NULL)
        put_text(file, "tokenizer_hash", tokenizer);
    H5Fclose(file);
}

static void foreign_queries(size_t n, const int64_t *count, const int64_t *start, size_t n_ids)
{
    static const char *const id[] = { "first", "second" };
    static const int64_t token[] = { 1, 2, 3, 4, 5, 6 };
    hid_t file = create("queries.h5"), text = H5Tcopy(H5T_C_S1);
    size_t n_tokens = 0;
    for (size_t i = 0; i < n; i++)
        n_tokens += (size_t)count[i];
    H5Tset_size(text, H5T_VARIABLE);
    put(file, "token", H5T_NATIVE_INT64, H5T_STD_U32LE, n_tokens, token);
    put(file, "count", H5T_NATIVE_INT64, H5T_STD_U32LE, n, count);
    put(file, "completion_start", H5T_NATIVE_INT64, H5T_STD_U32LE, n, start);
    put(file, "id", text, text, n_ids, id);
    H5Tclose(text);
    H5Fclose(file);
}

static bg_status open_files(bg_tokens **t, bg_err *err, size_t n, ...)
{
    const char *path[4];
    va_list ap;
    va_start(ap, n);
    for (size_t i = 0; i < n; i++)
        path[i] = in_folder(va_arg(ap, const char *));
    va_end(ap);
    return bg_tokens_open(t, path, n, err);
}

static void expect_error(bg_status got, bg_status wanted, const bg_err *err, const char *text)
{
    if (got != wanted || strstr(err->msg, text) == NULL)
        fail_msg("status %d, message '%s'; wanted %d and '%s'", (int)got, err->msg, (int)wanted, text);
}

static void reads_over_files(void **state)
{
    (void)state;
    bg_tokens *t;
    bg_err err = { .msg = "" };
    const bg_hash *hash;
    const int64_t count_a[] = { 2, 3 }, token_a[] = { 10, 11, 20, 21, 22 };
    const int64_t count_b[] = { 4 }, token_b[] = { 30, 31, 32, 255 };
    foreign("a.h5", H5T_STD_U16BE, 2, count_a, 5, token_a, "");
    foreign("empty.h5", H5T_STD_I32LE, 0, NULL, 0, NULL, NULL);
    foreign("c.h5", H5T_STD_I32LE, 0, NULL, 0, NULL, NULL);
    foreign("b.h5", H5T_STD_I64LE, 1, count_b, 4, token_b, "abc");
    if (open_files(&t, &err, 4, "empty.h5", "a.h5", "c.h5", "b.h5") != BG_OK)
        fail_msg("%s", err.msg);
    assert_int_equal(bg_tokens_sequences(t), 3);
    assert_int_equal(bg_tokens_count(t, 1), 3);
    assert_int_equal(bg_tokens_longest(t, 0, 3), 4);
    assert_int_equal(bg_tokens_longest(t, 0, 2), 3);
    assert_int_equal(bg_tokens_longest(t, 1, 1), 0);
    assert_false(bg_tokens_are_queries(t));
    assert_string_equal(bg_tokens_tokenizer_hash(t), "abc");

    uint32_t got[9];
    const uint32_t all[] = { 10, 11, 20, 21, 22, 30, 31, 32, 255 };
    assert_int_equal(bg_tokens_read(t, 0, 3, 256, got, &err), BG_OK);
    assert_memory_equal(got, all, sizeof all);
    assert_int_equal(bg_tokens_read(t, 1, 2, 256, got, &err), BG_OK);
    assert_memory_equal(got, all + 2, 3 * sizeof *all);
    assert_int_equal(bg_tokens_read(t, 2, 2, 256, got, &err), BG_OK);
    expect_error(bg_tokens_read(t, 0, 3, 255, got, &err), BG_EFORMAT, &err,
                 "token id 255 at position 3 of sequence 0 of ");
    assert_non_null(strstr(err.msg, "b.h5"));

    assert_int_equal(bg_tokens_hashes(t, &hash, &err), BG_OK);
    assert_string_not_equal(hash[1].hex, hash[3].hex);
    bg_tokens_close(t);
    bg_tokens_close(NULL);
}

static void reads_its_own_files(void **state)
{
    (void)state;
    bg_tokens *t;
    bg_store *s;
    bg_err err = { .msg = "" };
    const bg_provenance run = { .stage = "test", .options = "{}", .fingerprint = "0", .ranks = 1, .threads = 1 };
    const uint32_t token[] = { 7, 8, 9 }, count[] = { 3 };
    if (bg_store_create(&s, in_folder("ours.h5"), "bregman/tokens", &run, &err) != BG_OK ||
        bg_store_write(s, "token", (uint64_t[]){ 3 }, token, &err) != BG_OK ||
        bg_store_write(s, "count", (uint64_t[]){ 1 }, count, &err) != BG_OK || bg_store_publish(s, NULL, &err) != BG_OK)
        fail_msg("%s", err.msg);
    uint32_t got[3];
    assert_int_equal(open_files(&t, &err, 1, "ours.h5"), BG_OK);
    assert_string_equal(bg_tokens_tokenizer_hash(t), "");
    assert_int_equal(bg_tokens_read(t, 0, 1, 10, got, &err), BG_OK);
    assert_memory_equal(got, token, sizeof token);
    bg_tokens_close(t);
}

static void expect_bad_file(hid_t type, size_t n_counts, const int64_t *count, size_t n_tokens, const char *text)
{
    const int64_t token[4] = { 1, 2, 3, 4 };
    bg_tokens *t;
    bg_err err = { .msg = "" };
    foreign("c.h5", type, n_counts, count, n_tokens, token, NULL);
    expect_error(open_files(&t, &err, 1, "c.h5"), BG_EFORMAT, &err, text);
    assert_null(t);
    assert_non_null(strstr(err.msg, "c.h5"));
}

static void refuses_bad_tokens(void **state)
{
    (void)state;
    bg_tokens *t;
    bg_err err = { .msg = "" };
    expect_bad_file(H5T_STD_U32LE, 2, (const int64_t[]){ 2, 1 }, 3, "holds 1 at 1; expected 2 or more");
    expect_bad_file(H5T_STD_U32LE, 2, (const int64_t[]){ 0, 2 }, 2, "holds 0 at 0");
    expect_bad_file(H5T_STD_I32LE, 2, (const int64_t[]){ -2, 4 }, 2, "holds -2 at 0");
    expect_bad_file(H5T_STD_I64LE, 1, (const int64_t[]){ INT64_C(1) << 32 }, 2, "holds 4294967296 at 0");
    expect_bad_file(H5T_STD_U32LE, 2, (const int64_t[]){ 2, 2 }, 3, "adds up to 4, but there are 3 along");
    expect_bad_file(H5T_STD_U32LE, 1, (const int64_t[]){ 2 }, 3, "adds up to 2, but there are 3 along");
    expect_bad_file(H5T_STD_U32LE, 0, NULL, 2, "adds up to 0, but there are 2 along");

    foreign("a.h5", H5T_STD_I32LE, 1, (const int64_t[]){ 2 }, 2, (const int64_t[]){ 1, -100 }, "one");
    foreign("b.h5", H5T_STD_I32LE, 1, (const int64_t[]){ 2 }, 2, (const int64_t[]){ 1, 2 }, "two");
    expect_error(open_files(&t, &err, 2, "a.h5", "b.h5"), BG_EFORMAT, &err, "different tokenizers");
    assert_int_equal(open_files(&t, &err, 1, "a.h5"), BG_OK);
    uint32_t got[2];
    expect_error(bg_tokens_read(t, 0, 1, 256, got, &err), BG_ESHAPE, &err, "a.h5"); /* a negative id */
    bg_tokens_close(t);

    assert_int_equal(H5Fclose(create("c.h5")), 0);
    expect_error(open_files(&t, &err, 1, "c.h5"), BG_EFORMAT, &err, "token");
    foreign("c.h5", H5T_IEEE_F32LE, 1, (const int64_t[]){ 2 }, 2, (const int64_t[]){ 1, 2 }, NULL);
    expect_error(open_files(&t, &err, 1, "c.h5"), BG_ESHAPE, &err, "c.h5");
    hid_t other = create("c.h5");
    put_text(other, "format", "bregman/scores");
    H5Fclose(other);
    expect_error(open_files(&t, &err, 1, "c.h5"), BG_EFORMAT, &err, "bregman/tokens");
    expect_error(open_files(&t, &err, 1, "absent.h5"), BG_EIO, &err, "absent.h5");
    expect_error(bg_tokens_open(&t, NULL, 0, &err), BG_EARG, &err, "no token file");
}

static void reads_queries(void **state)
{
    (void)state;
    bg_tokens *t;
    bg_err err = { .msg = "" };
    foreign_queries(2, (const int64_t[]){ 2, 4 }, (const int64_t[]){ 1, 3 }, 2);
    if (open_files(&t, &err, 1, "queries.h5") != BG_OK)
        fail_msg("%s", err.msg);
    assert_true(bg_tokens_are_queries(t));
    assert_int_equal(bg_tokens_completion_start(t, 1), 3);
    assert_string_equal(bg_tokens_query_id(t, 0), "first");
    assert_string_equal(bg_tokens_query_id(t, 1), "second");
    bg_tokens_close(t);

    foreign("b.h5", H5T_STD_I32LE, 1, (const int64_t[]){ 2 }, 2, (const int64_t[]){ 1, 2 }, NULL);
    expect_error(open_files(&t, &err, 2, "b.h5", "queries.h5"), BG_EFORMAT, &err, "holds queries");
    foreign_queries(2, (const int64_t[]){ 2, 4 }, (const int64_t[]){ 1, 4 }, 2);
    expect_error(open_files(&t, &err, 1, "queries.h5"), BG_EFORMAT, &err, "query \"second\" of ");
    foreign_queries(2, (const int64_t[]){ 2, 4 }, (const int64_t[]){ 0, 3 }, 2);
    expect_error(open_files(&t, &err, 1, "queries.h5"), BG_EFORMAT, &err, "has no prompt");
    foreign_queries(2, (const int64_t[]){ 2, 4 }, (const int64_t[]){ 1, 3 }, 1);
    expect_error(open_files(&t, &err, 1, "queries.h5"), BG_ESHAPE, &err, "\"id\" of");
    assert_non_null(strstr(err.msg, "has 1 along the axis \"query\""));
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        unlink(in_folder(names[i]));
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_over_files),
        cmocka_unit_test(reads_its_own_files),
        cmocka_unit_test(refuses_bad_tokens),
        cmocka_unit_test(reads_queries),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
