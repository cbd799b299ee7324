/* Hashes where the library cannot allocate: this program's XXH3_createState is the one that is called. */
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include "bregman/hash.h"
#include "unit/check.h"

XXH3_state_t *XXH3_createState(void) { return NULL; }

static void test_texts(void **state)
{
    const char *const text[] = { "a", "", "bc" };
    const unsigned char bytes[] = "\1\0\0\0\0\0\0\0"
                                  "a"
                                  "\0\0\0\0\0\0\0\0"
                                  "\2\0\0\0\0\0\0\0"
                                  "bc";
    (void)state;
    assert_string_equal(bg_hash_texts(text, 3).hex, bg_hash_bytes(bytes, sizeof bytes - 1).hex);
}

static void test_file(void **state)
{
    bg_hash hash;
    bg_err err = { .file = "" };
    (void)state;
    assert_int_equal(bg_hash_file("/dev/null", &hash, &err), BG_ENOMEM);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_texts), cmocka_unit_test(test_file) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
