/* allotment.h - memory of this machine that the processes of a job may take together. */
#ifndef BG_ALLOTMENT_H
#define BG_ALLOTMENT_H

#include <stdint.h>

/* Bytes: the least of what the machine has free or can free, the limits of the control groups that this process is in
 * (versions 1 and 2), and what Slurm has allotted (SLURM_MEM_PER_NODE, or SLURM_MEM_PER_CPU a CPU).  It changes from
 * call to call: no number may depend on it.
 *   root [in]  folder that proc and sys lie in: "", or a test's own
 * UINT64_MAX if nothing is known. */
uint64_t bg_allotment_bytes(const char *root);

#endif /* BG_ALLOTMENT_H */
