/* input.h - a fuzzer's bytes as choices, and what every failure must be. */
#ifndef BG_TESTS_FUZZ_INPUT_H
#define BG_TESTS_FUZZ_INPUT_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/status.h"

/* libFuzzer's own two entries. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

typedef struct {
    const uint8_t *at;
    size_t left;
} fuzz_input;

/* The next byte; 0 when there is none. */
static inline unsigned take(fuzz_input *in)
{
    if (in->left == 0)
        return 0;
    in->left--;
    return *in->at++;
}

static inline void finding(const char *what, const bg_err *err)
{
    fprintf(stderr, "FINDING: %s: %s: %s\n", what, bg_status_name(err->code), err->msg);
    abort();
}

/* A failure has a message of one line, and is the file's fault. */
static inline void check_status(bg_status st, const bg_err *err)
{
    if (st == BG_OK)
        return;
    if (st != err->code || err->msg[0] == '\0')
        finding("no message", err);
    for (const char *c = err->msg; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            finding("more than one line", err);
    if (st == BG_ENOMEM)
        finding("memory on a file's word", err);
}

#endif /* BG_TESTS_FUZZ_INPUT_H */
