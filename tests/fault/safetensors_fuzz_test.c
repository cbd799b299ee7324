/* Random damage to a valid safetensors file: opening always returns a status, and where it returns
 * BG_OK every byte of every tensor is readable.  Most telling under the sanitizers (make asan). */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bregman/safetensors.h"
#include "random.h"

enum { ROUNDS = 20000, MAX_BYTES = 2048 };

typedef struct {
    unsigned char byte[MAX_BYTES];
    size_t n;
} image;

static void set_length(image *f, uint64_t length)
{
    for (int i = 0; i < 8; i++)
        f->byte[i] = (unsigned char)(length >> (8 * i));
}

static image valid_image(void)
{
    static const char header[] = "{\"__metadata__\":{\"format\":\"pt\"},"
                                 "\"a.weight\":{\"dtype\":\"F32\",\"shape\":[4,3],\"data_offsets\":[0,48]},"
                                 "\"b.weight\":{\"dtype\":\"BF16\",\"shape\":[2,2,2],\"data_offsets\":[48,64]},"
                                 "\"c\":{\"dtype\":\"F16\",\"shape\":[0],\"data_offsets\":[64,64]},"
                                 "\"d\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[64,72]}}  ";
    image f = { .n = 8 + sizeof header - 1 + 72 };
    set_length(&f, sizeof header - 1);
    memcpy(f.byte + 8, header, sizeof header - 1);
    for (size_t i = f.n - 72; i < f.n; i++)
        f.byte[i] = (unsigned char)i;
    return f;
}

/* Put text in place of n bytes at `at`, moving the rest. */
static void splice(image *f, size_t at, size_t n, const char *text)
{
    size_t length = strlen(text);
    if (at + n > f->n || f->n - n + length > MAX_BYTES)
        return;
    memmove(f->byte + at + length, f->byte + at + n, f->n - at - n);
    memcpy(f->byte + at, text, length);
    f->n = f->n - n + length;
}

/* Replace one number of the header by an awkward one, keeping the header's length true. */
static void change_number(image *f, size_t header_bytes)
{
    static const char *const awkward[] = {
        "-1",
        "0",
        "1",
        "2",
        "3",
        "47",
        "49",
        "72",
        "73",
        "4294967296",
        "9223372036854775807",
        "9223372036854775808",
        "1e3",
        "0.5",
        "null",
        "[]",
        "{}",
        "\"4\"",
        "[[[[0]]]]",
        "-9223372036854775808",
    };
    if (header_bytes == 0 || header_bytes > f->n - 8) /* damaged before */
        return;
    size_t at = 8 + below(header_bytes), tries = 0;
    while (tries++ < header_bytes && (f->byte[at] < '0' || f->byte[at] > '9'))
        at = 8 + (at - 7) % header_bytes;
    size_t n = 0;
    while (at + n < f->n && f->byte[at + n] >= '0' && f->byte[at + n] <= '9')
        n++;
    size_t before = f->n;
    splice(f, at, n, awkward[below(sizeof awkward / sizeof awkward[0])]);
    set_length(f, header_bytes + f->n - before);
}

static void mutate(image *f)
{
    static const char *const fragment[] = {
        "{", "}", "[", "]", "\"", ",", ":", "\\u0000", "\\n", "\"a.weight\"", "\"dtype\"", "F4", "\xff", " ",
    };
    size_t header_bytes = (size_t)f->byte[0] | (size_t)f->byte[1] << 8, at = below(f->n);
    switch (below(7)) {
    case 0: f->byte[at] = (unsigned char)next_random(); break;
    case 1: f->byte[at] ^= (unsigned char)(1u << below(8)); break;
    case 2: f->n = at; break;
    case 3: splice(f, at, below(4), fragment[below(sizeof fragment / sizeof fragment[0])]); break;
    case 4: set_length(f, next_random() >> below(64)); break;
    default: change_number(f, header_bytes); break;
    }
}

static bool write_image(const image *f, int fd)
{
    return ftruncate(fd, 0) == 0 && pwrite(fd, f->byte, f->n, 0) == (ssize_t)f->n;
}

/* Sum of all bytes of all tensors, through volatile so that they are really read. */
static void touch_all(const bg_tensors *t)
{
    volatile unsigned sum = 0;
    for (size_t i = 0; i < bg_tensors_count(t); i++) {
        const bg_tensor *x = bg_tensors_at(t, i);
        const unsigned char *p = x->data;
        for (size_t k = 0; k < x->n_bytes; k++)
            sum += p[k];
        sum += (unsigned)strlen(x->name);
    }
}

int main(void)
{
    char path[32];
    int fd = memfd_create("damaged.safetensors", MFD_CLOEXEC), opened = 0, wrong = 0;
    if (fd < 0)
        return 1;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd); /* in memory: many files a second */
    const image valid = valid_image();
    for (int round = 0; round < ROUNDS && wrong == 0; round++) {
        image f = valid;
        bg_err err = { .msg = "" };
        bg_tensors *t;
        for (size_t n = round == 0 ? 0 : 1 + below(3); n > 0 && f.n > 8; n--)
            mutate(&f);
        if (!write_image(&f, fd)) {
            wrong++;
            break;
        }
        bg_status st = bg_tensors_open_file(&t, path, &err);
        if (st == BG_OK) {
            opened++;
            touch_all(t);
            bg_tensors_close(t);
        } else if (st != BG_EFORMAT || t != NULL || err.msg[0] == '\0' || strchr(err.msg, '\n') != NULL) {
            wrong++;
        }
        if (wrong > 0 || (round == 0 && st != BG_OK)) {
            fprintf(stderr, "round %d: status %d: %s\n", round, (int)st, err.msg);
            wrong = 1;
        }
    }
    close(fd);
    printf("%d of %d damaged files still open, %d wrong answers\n", opened, ROUNDS, wrong);
    return wrong != 0 || opened == 0 || opened > ROUNDS / 2;
}
