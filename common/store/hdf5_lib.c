/* The library itself: set-up, its errors in one line, types. */
#include "hdf5_lib.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/store.h"

enum { CACHE_BYTES = 4 << 20, CACHE_SLOTS = 521 };

void bg_hdf5_prepare(void)
{
    static bool done;
    if (done)
        return;
    H5dont_atexit(); /* must come before any other call */
    H5open();
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    done = true;
}

void bg_store_library_version(char out[32])
{
    unsigned major = 0, minor = 0, release = 0;
    bg_hdf5_prepare();
    H5get_libversion(&major, &minor, &release);
    snprintf(out, 32, "%u.%u.%u", major, minor, release);
}

typedef struct {
    int errnum;
    char text[160];
} hdf5_cause;

/* Innermost first.  The file drivers write "errno = N" into their description. */
static herr_t find_cause(unsigned depth, const H5E_error2_t *error, void *data)
{
    hdf5_cause *cause = data;
    const char *desc = error->desc != NULL ? error->desc : "";
    if (depth == 0)
        snprintf(cause->text, sizeof cause->text, "%s", desc);
    const char *number = strstr(desc, "errno = ");
    if (number != NULL && cause->errnum == 0)
        cause->errnum = (int)strtol(number + strlen("errno = "), NULL, 10);
    return 0;
}

bg_status bg_hdf5_fail(bg_err *err, bg_status code, const char *fmt, ...)
{
    char what[320];
    hdf5_cause cause = { 0, "HDF5 gives no reason" };
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, find_cause, &cause);
    H5Eclear2(H5E_DEFAULT);
    if (cause.errnum == 0 && strstr(cause.text, "version number") != NULL) {
        char version[32];
        bg_store_library_version(version);
        return BG_FAIL(err, code,
                       "cannot %s: %s: made by an HDF5 newer than this %s, or damaged; write it with h5py's "
                       "libver=(\"earliest\", \"v110\"), or through that HDF5's h5repack --high=2",
                       what, cause.text, version);
    }
    return BG_FAIL(err, code, "cannot %s: %s", what, cause.errnum != 0 ? strerror(cause.errnum) : cause.text);
}

hid_t bg_hdf5_access(void)
{
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    if (access < 0)
        return access;
#if H5_VERSION_GE(1, 10, 2)
    H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110);
#else
    H5Pset_libver_bounds(access, H5F_LIBVER_LATEST, H5F_LIBVER_LATEST);
#endif
    /* Many cluster file systems have no flock; nothing here is shared while it is written. */
#if H5_VERSION_GE(1, 12, 1) || (H5_VERSION_GE(1, 10, 7) && !H5_VERSION_GE(1, 12, 0))
    H5Pset_file_locking(access, false, true);
#endif
    H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
    /* 1 MiB chunks in a cache of a few; those written in full are the first to go */
    H5Pset_cache(access, 0, CACHE_SLOTS, CACHE_BYTES, 1.0);
    return access;
}

hid_t bg_string_type(void)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, H5T_VARIABLE);
    H5Tset_cset(type, H5T_CSET_UTF8);
    return type;
}

hid_t bg_memory_type(bg_dtype dtype)
{
    switch (dtype) {
    case BG_F32: return H5T_NATIVE_FLOAT;
    case BG_F64: return H5T_NATIVE_DOUBLE;
    case BG_I64: return H5T_NATIVE_INT64;
    case BG_U32: return H5T_NATIVE_UINT32;
    case BG_U8: return H5T_NATIVE_UINT8;
    case BG_STRING: break;
    }
    return H5I_INVALID_HID;
}

size_t bg_dtype_bytes(bg_dtype dtype)
{
    switch (dtype) {
    case BG_F32:
    case BG_U32: return 4;
    case BG_F64:
    case BG_I64: return 8;
    case BG_U8: return 1;
    case BG_STRING: break;
    }
    return 16; /* a reference into the file's heap */
}
