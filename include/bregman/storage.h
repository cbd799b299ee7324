/* storage.h - is what a dataset declares stored in its file? */
#ifndef BG_STORAGE_H
#define BG_STORAGE_H

#include <hdf5.h>

#include "bregman/status.h"

/* Is every element of a dataset stored in the file that it was opened from?  BG_EFORMAT, with what is there and what
 * was declared, if some were never written, or are kept in other files (virtual datasets, raw files).  A dataset
 * without elements is fine.  path, file [in]: for the message.  Cost: a look at every chunk's entry in the index. */
bg_status bg_storage_check(hid_t dataset, const char *path, const char *file, bg_err *err) BG_MUST_CHECK;

#endif /* BG_STORAGE_H */
