/* Headers of safetensors files: the input is the file. */
#include <unistd.h>

#include "../../common/formats/safetensors_header.h"
#include "input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bg_st_header header = { 0 };
    bg_err err = { .msg = "" };
    if (size < BG_ST_LENGTH_BYTES)
        return 0;
    bg_status st = bg_st_header_read(&header, data, size, "f.safetensors", &err);
    check_status(st, &err);
    if (st != BG_OK && strstr(err.msg, "f.safetensors") == NULL)
        finding("a message without the file", &err);
    volatile unsigned sum = 0; /* every byte of every tensor is there */
    for (size_t i = 0; st == BG_OK && i < header.n; i++)
        for (size_t k = 0; k < header.tensor[i].n_bytes; k++)
            sum += ((const unsigned char *)header.tensor[i].data)[k];
    bg_st_header_clear(&header);
    return 0;
}
