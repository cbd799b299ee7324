/* Good and bad safetensors files and sharded sets; widening against exact values. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "bregman/safetensors.h"

static char folder[] = "/tmp/bg-safetensors-XXXXXX";

static const char *in_folder(const char *name)
{
    static char path[4][256];
    static int next;
    char *p = path[next++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", folder, name);
    return p;
}

static void write_bytes(const char *name, const void *data, size_t n, const char *mode)
{
    FILE *f = fopen(in_folder(name), mode);
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

/* A file with this header, and n bytes of data: 0, 1, 2 ... */
static void write_tensors(const char *name, const char *header, size_t n)
{
    unsigned char length[8] = { 0 }, data[256];
    size_t h = strlen(header);
    for (int i = 0; i < 8; i++)
        length[i] = (unsigned char)(h >> (8 * i));
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (unsigned char)i;
    write_bytes(name, length, sizeof length, "wb");
    write_bytes(name, header, h, "ab");
    write_bytes(name, data, n, "ab");
}

static void expect_error(bg_status got, bg_status wanted, const bg_err *err, const char *text)
{
    if (got != wanted || strstr(err->msg, text) == NULL)
        fail_msg("status %d, message '%s'; wanted %d and '%s'", (int)got, err->msg, (int)wanted, text);
}

static void expect_bad(const char *header, size_t n, const char *text)
{
    bg_err err = { .msg = "" };
    bg_tensors *t;
    write_tensors("bad.safetensors", header, n);
    bg_status st = bg_tensors_open_file(&t, in_folder("bad.safetensors"), &err);
    expect_error(st, BG_EFORMAT, &err, text);
    assert_null(t);
    assert_non_null(strstr(err.msg, "bad.safetensors"));
}

static void opens_a_good_file(void **state)
{
    (void)state;
    bg_err err;
    bg_tensors *t;
    write_tensors("good.safetensors",
                  "{\"__metadata__\":{\"format\":\"pt\"},"
                  "\"z.weight\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[4,28]},"
                  "\"a\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,4]},"
                  "\"empty\":{\"dtype\":\"I64\",\"shape\":[0,7],\"data_offsets\":[28,28]},"
                  "\"scalar\":{\"dtype\":\"F8_E4M3\",\"shape\":[],\"data_offsets\":[28,29]},"
                  "\"half\":{\"dtype\":\"F4\",\"shape\":[4],\"data_offsets\":[29,31]}}   ",
                  31);
    assert_int_equal(bg_tensors_open_file(&t, in_folder("good.safetensors"), &err), BG_OK);
    assert_int_equal(bg_tensors_count(t), 5);
    const char *const order[] = { "a", "empty", "half", "scalar", "z.weight" };
    for (size_t i = 0; i < 5; i++)
        assert_string_equal(bg_tensors_at(t, i)->name, order[i]);
    const bg_tensor *z = bg_tensors_find(t, "z.weight");
    assert_non_null(z);
    assert_int_equal(z->dtype, BG_ST_F32);
    assert_int_equal(z->n_dims, 2);
    assert_int_equal(z->shape[0], 2);
    assert_int_equal(z->shape[1], 3);
    assert_int_equal(z->n_bytes, 24);
    assert_int_equal(*(const unsigned char *)z->data, 4);
    assert_string_equal(z->file, in_folder("good.safetensors"));
    assert_int_equal(bg_tensors_find(t, "scalar")->dtype, BG_ST_OTHER);
    assert_int_equal(bg_tensors_find(t, "empty")->n_bytes, 0);
    assert_null(bg_tensors_find(t, "absent"));
    bg_tensors_close(t);
    bg_tensors_close(NULL);
}

#define X "{\"x\":{\"dtype\":\"F32\",\"shape\":"

static void refuses_bad_headers(void **state)
{
    (void)state;
    expect_bad("{\"x\":", 0, "not valid JSON");
    expect_bad("", 0, "not valid JSON");
    expect_bad("[]", 0, "not a JSON object");
    expect_bad("{\"x\":1}", 0, "no dtype");
    expect_bad("{\"x\":{}}", 0, "no dtype");
    expect_bad("{\"x\":{\"dtype\":\"F99\"}}", 0, "unknown dtype \"F99\"");
    expect_bad("{\"a\\nb\":{\"dtype\":\"F32\"}}", 0, "control character");
    expect_bad("{\"x\\u0000\":{\"dtype\":\"F32\"}}", 0, "not valid JSON");
    expect_bad(X "3}}", 0, "no shape");
    expect_bad(X "[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4, "no shape");
    expect_bad(X "[-1],\"data_offsets\":[0,4]}}", 4, "whole numbers");
    expect_bad(X "[1.5],\"data_offsets\":[0,4]}}", 4, "whole numbers");
    expect_bad(X "[99999999999999999999],\"data_offsets\":[0,4]}}", 4, "not valid JSON");
    expect_bad(X "[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0, "more bytes than can be");
    expect_bad(X "[9223372036854775807,4],\"data_offsets\":[0,0]}}", 0, "more bytes than can be");
    expect_bad("{\"x\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,1]}}", 1, "whole number of bytes");
    expect_bad(X "[1]}}", 4, "data_offsets");
    expect_bad(X "[1],\"data_offsets\":[0]}}", 4, "data_offsets");
    expect_bad(X "[1],\"data_offsets\":[0,\"4\"]}}", 4, "data_offsets");
    expect_bad(X "[1],\"data_offsets\":[-4,0]}}", 4, "-4 .. 0");
    expect_bad(X "[1],\"data_offsets\":[4,0]}}", 4, "4 .. 0");
    expect_bad(X "[1],\"data_offsets\":[0,4]},\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8,
               "duplicate");
}

#define TWO(a, b)                                                      \
    "{\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":" a "}," \
    "\"y\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":" b "}}"

static void refuses_bad_offsets(void **state)
{
    (void)state;
    expect_bad(X "[1],\"data_offsets\":[0,4]}}", 3, "truncated");
    expect_bad(X "[2],\"data_offsets\":[0,4]}}", 4, "ask for 8");
    expect_bad(X "[1],\"data_offsets\":[0,4]}}", 5, "1 bytes at the end");
    expect_bad(TWO("[0,4]", "[2,6]"), 6, "overlaps");
    expect_bad(TWO("[0,4]", "[0,4]"), 4, "overlaps");
    expect_bad(TWO("[0,4]", "[5,9]"), 9, "gap");
    expect_bad(X "[1],\"data_offsets\":[1,5]}}", 5, "gap");
    expect_bad("{\"x\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[2,2]},"
               "\"y\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
               4, "overlaps");
    expect_bad("{}", 2, "2 bytes at the end");
}

static void refuses_bad_lengths(void **state)
{
    (void)state;
    static const struct {
        unsigned char bytes[10];
        size_t n;
        const char *text;
    } cases[] = {
        { { 0 }, 0, "too short" },
        { { 2, 0, 0, 0, 0, 0, 0 }, 7, "too short" },
        { { 3, 0, 0, 0, 0, 0, 0, 0, '{', '}' }, 10, "truncated" },
        { { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, '{', '}' }, 10, "not a safetensors file" },
        { { 0, 0xe1, 0xf5, 5, 0, 0, 0, 0, '{', '}' }, 10, "truncated" }, /* 100,000,000 */
        { { 1, 0xe1, 0xf5, 5, 0, 0, 0, 0, '{', '}' }, 10, "not a safetensors file" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bg_err err = { .msg = "" };
        bg_tensors *t;
        write_bytes("short.safetensors", cases[i].bytes, cases[i].n, "wb");
        bg_status st = bg_tensors_open_file(&t, in_folder("short.safetensors"), &err);
        expect_error(st, BG_EFORMAT, &err, cases[i].text);
        assert_null(t);
    }
    bg_err err = { .msg = "" };
    bg_tensors *t;
    expect_error(bg_tensors_open_file(&t, in_folder("absent.safetensors"), &err), BG_EIO, &err, strerror(ENOENT));
    expect_error(bg_tensors_open_file(&t, folder, &err), BG_EIO, &err, "it is a folder");
}

#define ONE(name) "{\"" name "\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}"

static void expect_bad_index(const char *index, bg_status status, const char *text)
{
    bg_err err = { .msg = "" };
    bg_tensors *t;
    write_bytes("model.safetensors.index.json", index, strlen(index), "wb");
    expect_error(bg_tensors_open_model(&t, folder, &err), status, &err, text);
    assert_null(t);
}

static void opens_sharded_sets(void **state)
{
    (void)state;
    bg_err err = { .msg = "" };
    bg_tensors *t;
    expect_error(bg_tensors_open_model(&t, folder, &err), BG_EIO, &err, "no model.safetensors");
    write_tensors("p-1.safetensors", ONE("one"), 4);
    write_tensors("p-2.safetensors", ONE("two"), 4);
    write_tensors("p-3.safetensors", ONE("two"), 4);
    const char *good = "{\"metadata\":{},\"weight_map\":{\"two\":\"p-2.safetensors\",\"one\":\"p-1.safetensors\"}}";
    write_bytes("model.safetensors.index.json", good, strlen(good), "wb");
    assert_int_equal(bg_tensors_open_model(&t, folder, &err), BG_OK);
    assert_int_equal(bg_tensors_count(t), 2);
    assert_string_equal(bg_tensors_find(t, "two")->file, in_folder("p-2.safetensors"));
    bg_hash before;
    assert_int_equal(bg_tensors_hash(t, &before, &err), BG_OK);
    bg_tensors_close(t);

    expect_bad_index("{", BG_EFORMAT, "not valid JSON");
    expect_bad_index("{}", BG_EFORMAT, "no weight_map");
    expect_bad_index("{\"weight_map\":[]}", BG_EFORMAT, "no weight_map");
    expect_bad_index("{\"weight_map\":{\"one\":1}}", BG_EFORMAT, "no file inside the folder");
    const char *const outside[] = { "", "..", "../p-1.safetensors", "/p-1.safetensors", "part/../../p-1.safetensors" };
    for (size_t i = 0; i < sizeof outside / sizeof outside[0]; i++) {
        char index[128];
        snprintf(index, sizeof index, "{\"weight_map\":{\"one\":\"%s\"}}", outside[i]);
        expect_bad_index(index, BG_EFORMAT, "no file inside the folder");
    }
    expect_bad_index("{\"weight_map\":{\"one\":\"gone.safetensors\"}}", BG_EIO, "gone.safetensors");
    expect_bad_index("{\"weight_map\":{\"three\":\"p-1.safetensors\"}}", BG_EFORMAT, "\"three\" is not in \"p-1");
    expect_bad_index("{\"weight_map\":{\"one\":\"p-2.safetensors\",\"two\":\"p-1.safetensors\"}}", BG_EFORMAT,
                     "is not in \"p-");
    expect_bad_index("{\"weight_map\":{\"one\":\"p-2.safetensors\",\"two\":\"p-3.safetensors\"}}", BG_EFORMAT,
                     "tensor \"two\" is in \"");

    /* a single file goes before an index; the content hash follows names and bytes */
    write_tensors("model.safetensors", ONE("single"), 4);
    assert_int_equal(bg_tensors_open_model(&t, folder, &err), BG_OK);
    assert_non_null(bg_tensors_find(t, "single"));
    bg_hash other, again;
    assert_int_equal(bg_tensors_hash(t, &other, &err), BG_OK);
    assert_int_equal(bg_tensors_hash(t, &again, &err), BG_OK);
    assert_string_equal(other.hex, again.hex);
    assert_string_not_equal(other.hex, before.hex);
    bg_tensors_close(t);
}

/* Files of the index in a folder inside the model's: the hash knows them by their paths there. */
static void opens_sets_in_folders(void **state)
{
    (void)state;
    bg_err err = { .msg = "" };
    bg_tensors *t;
    bg_hash flat, within;
    const char *const index[] = { "{\"weight_map\":{\"one\":\"p-1.safetensors\"}}",
                                  "{\"weight_map\":{\"one\":\"..part/p-1.safetensors\"}}" };
    assert_int_equal(unlink(in_folder("model.safetensors")), 0);
    assert_int_equal(mkdir(in_folder("..part"), 0700), 0);
    write_tensors("..part/p-1.safetensors", ONE("one"), 4);
    for (int i = 0; i < 2; i++) {
        write_bytes("model.safetensors.index.json", index[i], strlen(index[i]), "wb");
        expect_error(bg_tensors_open_model(&t, folder, &err), BG_OK, &err, "");
        assert_string_equal(bg_tensors_find(t, "one")->file,
                            in_folder(i == 0 ? "p-1.safetensors" : "..part/p-1.safetensors"));
        assert_int_equal(bg_tensors_hash(t, i == 0 ? &flat : &within, &err), BG_OK);
        bg_tensors_close(t);
    }
    assert_string_not_equal(flat.hex, within.hex);
    assert_int_equal(unlink(in_folder("..part/p-1.safetensors")), 0);
    assert_int_equal(rmdir(in_folder("..part")), 0);
}

/* The value of a 16-bit float, from its definition. */
static double value_of(unsigned h, int exponent_bits, int mantissa_bits)
{
    int bias = (1 << (exponent_bits - 1)) - 1, top = (1 << exponent_bits) - 1;
    int exponent = (int)(h >> mantissa_bits) & top, mantissa = (int)(h & ((1u << mantissa_bits) - 1));
    double sign = h >> 15 ? -1 : 1;
    if (exponent == top)
        return mantissa != 0 ? (double)NAN : sign * (double)INFINITY;
    if (exponent == 0)
        return sign * ldexp(mantissa, 1 - bias - mantissa_bits);
    return sign * ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
}

static void widens_every_16_bit_float(void **state)
{
    (void)state;
    enum { N = 65536 };
    static unsigned char raw[2 * N + 1]; /* one byte in: unaligned */
    static float out[N];
    for (unsigned h = 0; h < N; h++) {
        uint16_t x = (uint16_t)h;
        memcpy(raw + 1 + 2 * (size_t)h, &x, sizeof x);
    }
    for (int half = 0; half < 2; half++) {
        bg_tensor t = { .dtype = half ? BG_ST_F16 : BG_ST_BF16, .n_bytes = 2 * N, .data = raw + 1 };
        bg_tensor_widen(&t, 0, N, out);
        for (unsigned h = 0; h < N; h++) {
            double want = half ? value_of(h, 5, 10) : value_of(h, 8, 7);
            if (isnan(want) ? !isnan(out[h]) : (double)out[h] != want || !signbit(out[h]) != !signbit(want))
                fail_msg("dtype %d, %04x: %g, want %g", half, h, (double)out[h], want);
        }
        bg_tensor_widen(&t, 0x3c01, 3, out);
        assert_true((double)out[1] == (half ? value_of(0x3c02, 5, 10) : value_of(0x3c02, 8, 7)));
    }
}

static void widens_unaligned_float32(void **state)
{
    (void)state;
    const float x[3] = { 1.5f, -2.25f, 1e-40f };
    unsigned char raw[13];
    float out[2];
    memcpy(raw + 1, x, sizeof x);
    bg_tensor t = { .dtype = BG_ST_F32, .n_bytes = 12, .data = raw + 1 };
    bg_tensor_widen(&t, 1, 2, out);
    assert_memory_equal(out, x + 1, sizeof out);
}

static void rounds_unaligned_float64(void **state)
{
    (void)state;
    /* exact; a tie, to even; one bit above it; beyond float32 */
    const double x[5] = { 9.0, -2.25, 1 + 0x1p-24, 1 + 0x1.000002p-24, 1e39 };
    const float want[4] = { -2.25f, 1.0f, 1 + 0x1p-23f, INFINITY };
    unsigned char raw[41];
    float out[4];
    memcpy(raw + 1, x, sizeof x);
    bg_tensor t = { .dtype = BG_ST_F64, .n_bytes = 40, .data = raw + 1 };
    bg_tensor_widen(&t, 1, 4, out);
    assert_memory_equal(out, want, sizeof out);
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state)
{
    (void)state;
    static const char *const names[] = {
        "good.safetensors",
        "bad.safetensors",
        "short.safetensors",
        "p-1.safetensors",
        "p-2.safetensors",
        "p-3.safetensors",
        "model.safetensors.index.json",
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        unlink(in_folder(names[i]));
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opens_a_good_file),         cmocka_unit_test(refuses_bad_headers),
        cmocka_unit_test(refuses_bad_offsets),       cmocka_unit_test(refuses_bad_lengths),
        cmocka_unit_test(opens_sharded_sets),        cmocka_unit_test(opens_sets_in_folders),
        cmocka_unit_test(widens_every_16_bit_float), cmocka_unit_test(widens_unaligned_float32),
        cmocka_unit_test(rounds_unaligned_float64),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
