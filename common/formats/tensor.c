/* tensor.c - the numbers of a tensor to float32: 16-bit floats, in loops that the compiler turns into vector code. */
#include <assert.h>
#include <string.h>

#include "bregman/tensor.h"

/* The file need not align its tensors: elements are read by memcpy, which costs nothing. */
static inline uint32_t load_u16(const unsigned char *p, size_t i)
{
    uint16_t x;
    memcpy(&x, p + 2 * i, sizeof x);
    return x;
}

static inline float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* bfloat16 is the upper half of a float32. */
static void widen_bf16(const unsigned char *p, size_t n, float *out)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        out[i] = float_of(load_u16(p, i) << 16);
}

static inline uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* Exponent and mantissa move to float32's places and the exponent is re-biased (127 - 15).  A zero
 * exponent field (0 and subnormals, m 2^-24) has no hidden bit: it is given one, 2^-14, that is
 * subtracted again as a float.  Infinity and NaN take float32's largest exponent.  Selected by masks:
 * a branch would keep the loop scalar. */
static inline float float_of_f16(uint32_t h)
{
    uint32_t bits = (h & 0x7fffu) << 13, exponent = h & 0x7c00u;
    uint32_t if_subnormal = 0u - (uint32_t)(exponent == 0);
    uint32_t if_special = 0u - (uint32_t)(exponent == 0x7c00u);
    uint32_t subnormal = bits_of(float_of(bits + (113u << 23)) - 0x1p-14f);
    uint32_t other = (bits + (112u << 23)) | (if_special & 0x7f800000u);
    return float_of((if_subnormal & subnormal) | (~if_subnormal & other) | (h & 0x8000u) << 16);
}

static void widen_f16(const unsigned char *p, size_t n, float *out)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        out[i] = float_of_f16(load_u16(p, i));
}

static void narrow_f64(const unsigned char *p, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) {
        double x;
        memcpy(&x, p + i * sizeof x, sizeof x);
        out[i] = (float)x;
    }
}

bool bg_tensor_number(const bg_tensor *t, bg_number *out)
{
    switch (t->dtype) {
    case BG_ST_F64: *out = BG_NUMBER_F64; return true;
    case BG_ST_F32: *out = BG_NUMBER_F32; return true;
    case BG_ST_BF16: *out = BG_NUMBER_BF16; return true;
    case BG_ST_F16: *out = BG_NUMBER_F16; return true;
    default: return false;
    }
}

void bg_tensor_widen(const bg_tensor *t, size_t first, size_t n, float *out)
{
    const unsigned char *p = t->data;
    bg_number type = BG_NUMBER_F32;
    bool is_number = bg_tensor_number(t, &type);
    size_t size = bg_number_bytes(type);
    assert(is_number);
    assert(first <= t->n_bytes / size && n <= t->n_bytes / size - first);
    p += first * size;
    switch (type) {
    case BG_NUMBER_F64: narrow_f64(p, n, out); break;
    case BG_NUMBER_F32: memcpy(out, p, n * size); break;
    case BG_NUMBER_BF16: widen_bf16(p, n, out); break;
    case BG_NUMBER_F16: widen_f16(p, n, out); break;
    }
}

bool bg_st_dtype_parse(const char *text, bg_st_dtype *out)
{
    static const char *const name[] = { "bfloat16", "bf16", "float16", "f16", "float32", "f32" };
    static const bg_st_dtype dtype[] = { BG_ST_BF16, BG_ST_F16, BG_ST_F32 };
    for (size_t i = 0; i < sizeof name / sizeof name[0]; i++)
        if (strcmp(text, name[i]) == 0) {
            *out = dtype[i / 2];
            return true;
        }
    return false;
}

static const struct {
    const char *name;
    size_t bytes;
} kinds[] = {
    [BG_ST_F64] = { "F64", 8 },   [BG_ST_F32] = { "F32", 4 },     [BG_ST_F16] = { "F16", 2 },
    [BG_ST_BF16] = { "BF16", 2 }, [BG_ST_I64] = { "I64", 8 },     [BG_ST_I32] = { "I32", 4 },
    [BG_ST_I16] = { "I16", 2 },   [BG_ST_I8] = { "I8", 1 },       [BG_ST_U8] = { "U8", 1 },
    [BG_ST_BOOL] = { "BOOL", 1 }, [BG_ST_OTHER] = { "other", 0 },
};

const char *bg_st_dtype_name(bg_st_dtype dtype) { return kinds[dtype].name; }

size_t bg_st_dtype_bytes(bg_st_dtype dtype) { return kinds[dtype].bytes; }
