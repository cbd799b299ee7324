/* number.h - the number formats of a model's matrices: what checkpoints hold and products may read. */
#ifndef BG_NUMBER_H
#define BG_NUMBER_H

#include <stddef.h>

typedef enum { BG_NUMBER_F64, BG_NUMBER_F32, BG_NUMBER_BF16, BG_NUMBER_F16 } bg_number;

static inline size_t bg_number_bytes(bg_number type)
{
    return type == BG_NUMBER_F64 ? 8 : type == BG_NUMBER_F32 ? 4 : 2;
}

#endif /* BG_NUMBER_H */
