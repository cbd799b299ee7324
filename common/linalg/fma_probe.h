/* fma_probe.h - what one core's multiply-add units do when nothing else is in the way. */
#ifndef BG_FMA_PROBE_H
#define BG_FMA_PROBE_H

/* float32 FLOP/s of independent multiply-adds in registers, on the calling thread; the best of three runs of a few ms. */
double bg_fma_flops_per_s(void);

#endif /* BG_FMA_PROBE_H */
