#include "bregman/rng.h"

#include <math.h>

void bg_philox(const uint32_t key[2], const uint32_t counter[4], uint32_t out[4])
{
    uint32_t k0 = key[0], k1 = key[1];
    uint32_t x0 = counter[0], x1 = counter[1], x2 = counter[2], x3 = counter[3];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * x0;
        uint64_t p1 = (uint64_t)0xCD9E8D57u * x2;
        x0 = (uint32_t)(p1 >> 32) ^ x1 ^ k0;
        x1 = (uint32_t)p1;
        x2 = (uint32_t)(p0 >> 32) ^ x3 ^ k1;
        x3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = x0;
    out[1] = x1;
    out[2] = x2;
    out[3] = x3;
}

static double unit_interval(uint32_t high, uint32_t low)
{
    return ((double)(high >> 5) * 67108864.0 + (double)(low >> 6)) / 9007199254740992.0;
}

/* The last counter word is 0 for uniform numbers and >= 1 for normal ones: the streams
 * of one seed do not overlap. */
static void stream(uint64_t seed, uint64_t a, uint32_t b, uint32_t c, uint32_t out[4])
{
    const uint32_t key[2] = { (uint32_t)seed, (uint32_t)(seed >> 32) };
    const uint32_t counter[4] = { (uint32_t)a, (uint32_t)(a >> 32), b, c };
    bg_philox(key, counter, out);
}

double bg_uniform(uint64_t seed, uint64_t a, uint32_t b)
{
    uint32_t r[4];
    stream(seed, a, b, 0, r);
    return unit_interval(r[0], r[1]);
}

void bg_normal_fill(uint64_t seed, uint64_t a, size_t n, float *x)
{
    const double two_pi = 6.283185307179586476925;
    for (size_t i = 0; i < n; i += 2) {
        uint64_t pair = i / 2;
        uint32_t r[4];
        stream(seed, a, (uint32_t)pair, 1 + (uint32_t)(pair >> 32), r);
        /* 1 - u is in (0, 1]: the logarithm is finite */
        double radius = sqrt(-2.0 * log(1.0 - unit_interval(r[0], r[1])));
        double angle = two_pi * unit_interval(r[2], r[3]);
        x[i] = (float)(radius * cos(angle));
        if (i + 1 < n)
            x[i + 1] = (float)(radius * sin(angle));
    }
}
