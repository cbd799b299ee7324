/* rng.h - counter-based random numbers: a value is a function of its key and
 * counter only, so it does not depend on ranks, threads, order or restarts. */
#ifndef BG_RNG_H
#define BG_RNG_H

#include <stddef.h>
#include <stdint.h>

/* Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as
 * 1, 2, 3").  out = philox(key, counter). */
void bg_philox(const uint32_t key[2], const uint32_t counter[4], uint32_t out[4]);

/* Uniform double in [0, 1), 53 bits, of stream (seed, a, b): math.md M5 uses
 * (seed, sequence's global index, position). */
double bg_uniform(uint64_t seed, uint64_t a, uint32_t b);

/* Fill x with n standard normal values (Box-Muller) of stream (seed, a). */
void bg_normal_fill(uint64_t seed, uint64_t a, size_t n, float *x);

#endif /* BG_RNG_H */
