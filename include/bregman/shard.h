/* shard.h - the names of the files of scores: shard-IIIII-of-NNNNN.h5, shard I of N. */
#ifndef BG_SHARD_H
#define BG_SHARD_H

#include <stdbool.h>
#include <stdint.h>

enum { BG_MOST_SHARDS = 99999, BG_SHARD_NAME_BYTES = 48 };

/* The name of shard i of n, 0 <= i < n <= BG_MOST_SHARDS. */
void bg_shard_name(uint64_t i, uint64_t n, char out[BG_SHARD_NAME_BYTES]);

/* Is it such a name, to the letter?  i, n [out]: untouched if not. */
bool bg_shard_parse(const char *name, uint64_t *i, uint64_t *n);

#endif /* BG_SHARD_H */
