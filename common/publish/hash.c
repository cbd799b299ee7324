#include "bregman/hash.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#define XXH_STATIC_LINKING_ONLY /* the state's size, for one that needs no allocation */
#include <xxhash.h>

#include "bregman/open.h"
#include "bregman/stop.h"

enum { READ_BYTES = 1 << 20 };

static bg_hash to_hex(XXH128_hash_t value)
{
    static const char digits[] = "0123456789abcdef";
    XXH128_canonical_t bytes;
    bg_hash hash;
    XXH128_canonicalFromHash(&bytes, value);
    for (size_t i = 0; i < sizeof bytes.digest; i++) {
        hash.hex[2 * i] = digits[bytes.digest[i] >> 4];
        hash.hex[2 * i + 1] = digits[bytes.digest[i] & 15];
    }
    hash.hex[32] = '\0';
    return hash;
}

bg_hash bg_hash_bytes(const void *data, size_t n_bytes) { return to_hex(XXH3_128bits(data, n_bytes)); }

static bg_status hash_file(const char *path, bool stops, bg_hash *out, bg_err *err)
{
    bg_status st = BG_OK;
    ssize_t got = 0;
    int fd = -1;
    XXH3_state_t *state = XXH3_createState();
    char *buffer = malloc(READ_BYTES);
    if (state == NULL || buffer == NULL) {
        st = BG_FAIL(err, BG_ENOMEM, "out of memory to read \"%s\"", path);
        goto out;
    }
    if ((st = bg_open_file(path, &fd, err)) != BG_OK)
        goto out;
    XXH3_128bits_reset(state);
    while ((st = stops ? bg_stop_check(path, err) : BG_OK) == BG_OK && (got = read(fd, buffer, READ_BYTES)) > 0)
        XXH3_128bits_update(state, buffer, (size_t)got);
    if (st != BG_OK)
        goto out;
    if (got < 0)
        st = BG_FAIL(err, BG_EIO, "cannot read \"%s\": %s", path, strerror(errno));
    else
        *out = to_hex(XXH3_128bits_digest(state));
out:
    if (fd >= 0)
        close(fd);
    free(buffer);
    XXH3_freeState(state);
    return st;
}

bg_status bg_hash_file(const char *path, bg_hash *out, bg_err *err) { return hash_file(path, false, out, err); }

bg_status bg_hash_input(const char *path, bg_hash *out, bg_err *err) { return hash_file(path, true, out, err); }

bg_hash bg_hash_texts(const char *const *text, size_t n)
{
    XXH3_state_t state;
    XXH3_128bits_reset(&state);
    for (size_t i = 0; i < n; i++) {
        uint64_t length = strlen(text[i]);
        unsigned char le[8];
        for (size_t b = 0; b < 8; b++)
            le[b] = (unsigned char)(length >> (8 * b));
        XXH3_128bits_update(&state, le, sizeof le);
        XXH3_128bits_update(&state, text[i], length);
    }
    return to_hex(XXH3_128bits_digest(&state));
}
