/* safetensors_header.h - what the header of one mapped file says, checked. */
#ifndef BG_FORMATS_SAFETENSORS_HEADER_H
#define BG_FORMATS_SAFETENSORS_HEADER_H

#include "bregman/status.h"
#include "bregman/tensor.h"

enum { BG_ST_LENGTH_BYTES = 8 }; /* of the length in front of the header */

typedef struct {
    size_t n;
    bg_tensor *tensor; /* in file order */
    char *names;       /* each ended by NUL; the tensors point here */
} bg_st_header;

/* Read and check the header of a file of map_bytes >= 8 bytes; out is zero on entry.
 * The tensors lend map and path.  Free with bg_st_header_clear, after an error too.
 * Errors: BG_EFORMAT, naming the file and the tensor. */
bg_status bg_st_header_read(bg_st_header *out, const unsigned char *map, size_t map_bytes, const char *path,
                            bg_err *err) BG_MUST_CHECK;
void bg_st_header_clear(bg_st_header *h);

#endif /* BG_FORMATS_SAFETENSORS_HEADER_H */
