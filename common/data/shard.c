#include "bregman/shard.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void bg_shard_name(uint64_t i, uint64_t n, char out[BG_SHARD_NAME_BYTES])
{
    snprintf(out, BG_SHARD_NAME_BYTES, "shard-%05" PRIu64 "-of-%05" PRIu64 ".h5", i, n);
}

/* What sscanf takes beside digits (signs, blanks, fewer digits) is no name that would be given. */
bool bg_shard_parse(const char *name, uint64_t *i, uint64_t *n)
{
    char given[BG_SHARD_NAME_BYTES];
    uint64_t shard, shards;
    if (sscanf(name, "shard-%5" SCNu64 "-of-%5" SCNu64, &shard, &shards) != 2 || shards > BG_MOST_SHARDS ||
        shard >= shards)
        return false;
    bg_shard_name(shard, shards, given);
    if (strcmp(name, given) != 0)
        return false;
    *i = shard;
    *n = shards;
    return true;
}
