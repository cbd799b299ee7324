/* heaps.h - global heaps, where HDF5 keeps the bytes of strings. */
#ifndef BG_STORE_HEAPS_H
#define BG_STORE_HEAPS_H

#include <hdf5.h>
#include <stdbool.h>
#include <sys/stat.h>

#include "bregman/status.h"

/* BG_EFORMAT if heaps of strings in the file are damaged so that HDF5 would hang or crash.  Reads up to 32 MiB of it,
 * once in this process as long as `about` stays the same. */
bg_status bg_heaps_check(const char *path, const struct stat *about, bg_err *err) BG_MUST_CHECK;
/* Do n strings of variable length refer to objects of heaps that are there and as long as they say?  To be asked before
 * HDF5 reads them: it writes beyond its memory if not. memory, space [in]  of a dataset: as for H5Dread; an attribute
 * has all its values read */
bool bg_references_are_sound(hid_t object, hid_t memory, hid_t space, size_t n) BG_MUST_CHECK;

#endif /* BG_STORE_HEAPS_H */
