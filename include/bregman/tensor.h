/* tensor.h - a tensor in a mapped file. */
#ifndef BG_TENSOR_H
#define BG_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bregman/number.h"

typedef enum {
    BG_ST_F64,
    BG_ST_F32,
    BG_ST_F16,
    BG_ST_BF16,
    BG_ST_I64,
    BG_ST_I32,
    BG_ST_I16,
    BG_ST_I8,
    BG_ST_U8,
    BG_ST_BOOL,
    BG_ST_OTHER
} bg_st_dtype;

typedef struct {
    const char *name; /* lent by the set */
    bg_st_dtype dtype;
    int n_dims; /* 0..8 */
    size_t shape[8];
    size_t n_bytes;
    const void *data; /* into the map; aligned as the file has it (safetensors: 8 bytes usual, not sure) */
    const char *file; /* path of the file it lies in, for messages */
} bg_tensor;

/* "BF16", as safetensors spells it, or "other"; and bytes of one number, 0 of others. */
const char *bg_st_dtype_name(bg_st_dtype dtype);
size_t bg_st_dtype_bytes(bg_st_dtype dtype);

/* The dtype that a text names, as in Python ("bfloat16", "bf16"; float16, float32): is it one of these? */
bool bg_st_dtype_parse(const char *text, bg_st_dtype *out);

/* The number that dtype is, if it is one that weights may have; false and untouched if not. */
bool bg_tensor_number(const bg_tensor *t, bg_number *out);
/* Widen n elements (from element `first`) to float, or round F64 to it.  dtype must be such a number. */
void bg_tensor_widen(const bg_tensor *t, size_t first, size_t n, float *out);

#endif /* BG_TENSOR_H */
