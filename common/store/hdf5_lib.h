/* hdf5_lib.h - the library itself: set-up, its errors in one line, types. */
#ifndef BG_STORE_HDF5_LIB_H
#define BG_STORE_HDF5_LIB_H

#include <hdf5.h>

#include "bregman/schema.h"

/* Prepare the library: no error printing, no clean-up at exit (a file that could not be closed on
 * a full disk makes it crash or spin there; this module closes what it opens). */
void bg_hdf5_prepare(void);

/* Fail with "cannot WHAT: CAUSE", the cause from errno as HDF5's error stack reports it, else in
 * HDF5's own words.  To be called at once: any other HDF5 call, even a close, clears the stack. */
bg_status bg_hdf5_fail(bg_err *err, bg_status code, const char *fmt, ...) BG_PRINTF(3, 4);

/* Access properties of every file here; close with H5Pclose. */
hid_t bg_hdf5_access(void);

hid_t bg_string_type(void);            /* UTF-8, variable length; close with H5Tclose */
hid_t bg_memory_type(bg_dtype dtype);  /* native; not for BG_STRING; not to be closed */
size_t bg_dtype_bytes(bg_dtype dtype); /* of one element in the file */

#endif /* BG_STORE_HDF5_LIB_H */
