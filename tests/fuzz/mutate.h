/* mutate.h - changes to an HDF5 file, chosen by a fuzzer's bytes: whatever a file can hold that the library lets one
 * write. */
#ifndef BG_TESTS_FUZZ_MUTATE_H
#define BG_TESTS_FUZZ_MUTATE_H

#include <hdf5.h>
#include <math.h>

#include "bregman/path.h"
#include "../../common/store/hdf5_lib.h"
#include "input.h"

enum { MUTATE_BYTES = 1 << 20 }; /* most that is written into one dataset or attribute */

typedef struct {
    fuzz_input *in;
    hid_t file;
    const char *folder;      /* other files: sound.h5, raw */
    const char *const *path; /* datasets there are */
    size_t n_paths;
    hid_t open[64]; /* to be released */
    size_t n_open;
} mutation;

static const char *const odd_texts[] = {
    "",     "x",         "y",       "a\nb\x1b[31m",         "\xff\xfe", "bregman/scores", "bregman/queries",
    "%s%n", "/dev/zero", "../../x", "18446744073709551616",
};
enum { ODD_TEXTS = sizeof odd_texts / sizeof odd_texts[0] };

static hid_t keep(mutation *m, hid_t id)
{
    if (id >= 0 && m->n_open == sizeof m->open / sizeof m->open[0])
        abort();
    if (id >= 0)
        m->open[m->n_open++] = id;
    return id;
}

static void release(mutation *m)
{
    while (m->n_open > 0)
        H5Idec_ref(m->open[--m->n_open]);
}

/* ---- types ---- */

static hid_t odd_float(mutation *m, size_t mantissa, size_t exponent)
{
    size_t bits = 1 + mantissa + exponent;
    hid_t type = keep(m, H5Tcopy(H5T_IEEE_F64LE));
    H5Tset_fields(type, bits - 1, mantissa, exponent, 0, mantissa);
    H5Tset_ebias(type, ((size_t)1 << (exponent - 1)) - 1);
    H5Tset_precision(type, bits);
    H5Tset_size(type, (bits + 7) / 8);
    return type;
}

static hid_t odd_integer(mutation *m, size_t bytes, size_t precision, size_t offset)
{
    hid_t type = keep(m, H5Tcopy(H5T_STD_I64LE));
    H5Tset_size(type, bytes);
    H5Tset_precision(type, precision);
    H5Tset_offset(type, offset);
    return type;
}

static hid_t text_type(mutation *m, size_t bytes)
{
    hid_t type = keep(m, H5Tcopy(H5T_C_S1));
    H5Tset_size(type, bytes);
    H5Tset_strpad(type, (H5T_str_t)(take(m->in) % 3));
    return type;
}

static hid_t container(mutation *m, unsigned which)
{
    int32_t zero = 0;
    hid_t type, text = text_type(m, H5T_VARIABLE);
    switch (which % 5) {
    case 0:
        type = keep(m, H5Tenum_create(H5T_NATIVE_INT32));
        H5Tenum_insert(type, "none", &zero);
        return type;
    case 1:
        type = keep(m, H5Tcreate(H5T_COMPOUND, 16));
        H5Tinsert(type, "x", 0, H5T_NATIVE_FLOAT);
        H5Tinsert(type, "text", 8, text);
        return type;
    case 2: return keep(m, H5Tarray_create2(H5T_NATIVE_FLOAT, 1, (hsize_t[]){ 3 }));
    case 3: return keep(m, H5Tvlen_create(H5T_NATIVE_INT32));
    default: return keep(m, H5Tcreate(H5T_OPAQUE, 1 + take(m->in)));
    }
}

static hid_t pick_type(mutation *m, hid_t original)
{
    switch (take(m->in) % 40) {
    case 1: return H5T_STD_I8LE;
    case 2: return H5T_STD_U64BE;
    case 3: return H5T_STD_I32BE;
    case 4: return odd_float(m, 10, 5);
    case 5: return odd_float(m, 7, 8);
    case 6: return H5T_IEEE_F64BE;
    case 7: return H5T_NATIVE_LDOUBLE;
    case 8: return odd_integer(m, 16, 128, 0);
    case 9: return odd_integer(m, 4, 3, 7);
    case 10: return odd_integer(m, 4096, 1 + take(m->in), take(m->in));
    case 11: return H5T_STD_B32LE;
    case 12: return text_type(m, H5T_VARIABLE);
    case 13: return text_type(m, 1 + take(m->in));
    case 14: return text_type(m, 1 << 18);
    case 15: return H5T_STD_REF_OBJ;
    case 16: return H5T_STD_REF_DSETREG;
    case 17: return H5T_UNIX_D32LE;
    case 18: return odd_float(m, 52, 10);
    case 19: return H5T_STD_I64LE;
    case 20: return H5T_IEEE_F32LE;
    case 21:
    case 22:
    case 23:
    case 24: return container(m, take(m->in));
    default: return original;
    }
}

/* ---- shapes ---- */

/* < 0 if HDF5 does not let one have it. */
static hid_t pick_space(mutation *m, hid_t original, hsize_t dims[H5S_MAX_RANK], int *n)
{
    static const hsize_t length[] = {
        0, 1, 2, 3, 255, 65536, (hsize_t)1 << 31, (hsize_t)1 << 42, (hsize_t)1 << 63, UINT64_MAX - 1
    };
    hsize_t most[H5S_MAX_RANK];
    unsigned how = take(m->in);
    *n = H5Sget_simple_extent_dims(original, dims, NULL);
    if (how % 16 == 1)
        *n += 1;
    else if (how % 16 == 2)
        *n -= 1;
    else if (how % 16 == 3)
        *n = (int)(take(m->in) % (H5S_MAX_RANK + 1));
    else if (how % 16 == 4)
        return keep(m, H5Screate(H5S_NULL));
    if (*n <= 0)
        *n = 0;
    for (int d = H5Sget_simple_extent_ndims(original) < 0 ? 0 : H5Sget_simple_extent_ndims(original); d < *n; d++)
        dims[d] = 1;
    for (int d = 0; d < *n && how % 16 != 0 && how % 16 < 12; d++) {
        unsigned change = take(m->in) % 24;
        dims[d] = change < 10                   ? length[change]
                  : change == 10                ? dims[d] + 1
                  : change == 11 && dims[d] > 0 ? dims[d] - 1
                                                : dims[d];
    }
    for (int d = 0; d < *n; d++)
        most[d] = how & 128 ? H5S_UNLIMITED : dims[d];
    return keep(m, *n == 0 ? H5Screate(H5S_SCALAR) : H5Screate_simple(*n, dims, most));
}

/* ---- layouts ---- */

static void pick_chunks(mutation *m, hid_t create, int n, const hsize_t *dims, hid_t type)
{
    hsize_t chunk[H5S_MAX_RANK], bytes = H5Tget_size(type);
    unsigned how = take(m->in);
    for (int d = 0; d < n; d++) {
        chunk[d] = how % 4 == 0 ? 1 : how % 4 == 1 ? dims[d] : how % 4 == 2 ? dims[d] / 2 + 1 : dims[d] * 100 + 7;
        chunk[d] = chunk[d] == 0 || chunk[d] > 1 << 16 ? 1 : chunk[d];
        bytes *= chunk[d];
        if (bytes > 4 * MUTATE_BYTES)
            chunk[d] = 1;
    }
    if (n <= 0 || H5Pset_chunk(create, n, chunk) < 0)
        return;
    if (how & 8)
        H5Pset_shuffle(create);
    if (how & 16)
        H5Pset_deflate(create, 1);
    if (how & 32)
        H5Pset_fletcher32(create);
}

static hid_t pick_layout(mutation *m, hid_t space, int n, const hsize_t *dims, hid_t type)
{
    char path[BG_PATH_BYTES];
    hid_t create = keep(m, H5Pcreate(H5P_DATASET_CREATE));
    unsigned how = take(m->in);
    snprintf(path, sizeof path, "%s/%s", m->folder, how & 128 ? "raw" : "none");
    switch (how % 8) {
    case 0:
    case 1:
    case 2: pick_chunks(m, create, n, dims, type); break;
    case 3: H5Pset_layout(create, H5D_COMPACT); break;
    case 4: H5Pset_external(create, path, 0, how & 64 ? H5F_UNLIMITED : MUTATE_BYTES); break;
    case 5: H5Pset_virtual(create, space, how & 64 ? "." : "sound.h5", m->path[take(m->in) % m->n_paths], space); break;
    default: break;
    }
    if (how & 32 && how % 8 < 3)
        H5Pset_alloc_time(create, H5D_ALLOC_TIME_EARLY);
    if (how & 16)
        H5Pset_fill_time(create, H5D_FILL_TIME_NEVER);
    return create;
}

/* ---- values ---- */

/* HDF5 itself recurses without end when it reads or writes what is a part of itself. */
static bool is_virtual(mutation *m, hid_t id) { return H5Pget_layout(keep(m, H5Dget_create_plist(id))) == H5D_VIRTUAL; }

/* n elements of a type: the old values as far as they go and fit, then a pattern.  Static storage. */
static void *make_values(mutation *m, hid_t type, size_t n, hid_t old)
{
    static union {
        unsigned char byte[MUTATE_BYTES];
        const char *text[MUTATE_BYTES / sizeof(char *)];
        double f64;
    } x;
    size_t bytes = n * H5Tget_size(type);
    unsigned how = take(m->in);
    memset(&x, how % 8 == 1 ? 0xff : how % 8 == 2 ? 0x7f : 0, bytes);
    if (H5Tis_variable_str(type) > 0) {
        for (size_t i = 0; i < n; i++)
            x.text[i] = how % 8 == 1 ? NULL : odd_texts[take(m->in) % ODD_TEXTS];
    } else if (H5Tdetect_class(type, H5T_VLEN) > 0 || H5Tdetect_class(type, H5T_STRING) > 0) {
        memset(&x, H5Tget_class(type) == H5T_STRING ? 'x' : 0, bytes);
    } else if (how % 8 == 3) {
        for (size_t i = 0; i < bytes; i++)
            x.byte[i] = (unsigned char)take(m->in);
    } else if (old >= 0 && how % 8 > 3 && !is_virtual(m, old)) {
        hid_t old_space = keep(m, H5Dget_space(old));
        hssize_t points = H5Sget_simple_extent_npoints(old_space);
        if (points >= 0 && (size_t)points <= n)
            H5Dread(old, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, &x);
    }
    return &x;
}

static bool is_small(hid_t space, hid_t type, size_t *n)
{
    hssize_t points = H5Sget_simple_extent_npoints(space);
    *n = points > 0 ? (size_t)points : 0;
    return points > 0 && *n <= MUTATE_BYTES / H5Tget_size(type);
}

/* ---- one change of a dataset ---- */

static void remake(mutation *m, const char *path)
{
    hsize_t dims[H5S_MAX_RANK], start[H5S_MAX_RANK] = { 0 }, count[H5S_MAX_RANK];
    int n = 0;
    size_t points;
    hid_t old = keep(m, H5Dopen2(m->file, path, H5P_DEFAULT));
    if (old < 0)
        return;
    hid_t old_type = keep(m, H5Dget_type(old)), old_space = keep(m, H5Dget_space(old));
    hid_t type = pick_type(m, old_type), space = pick_space(m, old_space, dims, &n);
    if (space < 0 || type < 0)
        return;
    hid_t create = pick_layout(m, space, n, dims, type);
    bool small = is_small(space, type, &points);
    if (!small)
        H5Pset_alloc_time(create, H5D_ALLOC_TIME_LATE);
    const void *values = small ? make_values(m, type, points, old) : NULL;
    H5Ldelete(m->file, path, H5P_DEFAULT);
    hid_t id = keep(m, H5Dcreate2(m->file, path, type, space, H5P_DEFAULT, create, H5P_DEFAULT));
    unsigned written = take(m->in) % 8;
    if (id < 0 || !small || written == 1 || is_virtual(m, id))
        return;
    hid_t memory = H5S_ALL;
    if (written == 2 && n > 0) {
        memcpy(count, dims, sizeof count);
        count[0] = dims[0] / 2;
        memory = keep(m, H5Screate_simple(n, count, NULL));
        H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL);
    }
    H5Dwrite(id, type, memory, memory == H5S_ALL ? H5S_ALL : space, H5P_DEFAULT, values);
}

/* One value becomes an awkward one. */
static void set_value(mutation *m, const char *path)
{
    static const double awkward[] = { 0,      -1,      1,    2,    -2, 0.5, 1e-310, 1.001, 4294967295.0, 4294967296.0,
                                      9.3e18, -9.3e18, 1e39, 1e308 };
    enum { AWKWARD = sizeof awkward / sizeof awkward[0] };
    hsize_t dims[H5S_MAX_RANK], point[H5S_MAX_RANK];
    unsigned which = take(m->in) % (AWKWARD + 3);
    hid_t id = keep(m, H5Dopen2(m->file, path, H5P_DEFAULT));
    if (id < 0 || is_virtual(m, id))
        return;
    hid_t space = keep(m, H5Dget_space(id)), one = keep(m, H5Screate(H5S_SCALAR)), type = keep(m, H5Dget_type(id));
    int n = H5Sget_simple_extent_dims(space, dims, NULL);
    size_t points;
    if (!is_small(space, type, &points))
        return;
    for (int d = 0; d < n; d++)
        point[d] = take(m->in) % dims[d];
    if (n > 0)
        H5Sselect_elements(space, H5S_SELECT_SET, 1, point);
    double x = which < AWKWARD        ? awkward[which]
               : which == AWKWARD     ? (double)NAN
               : which == AWKWARD + 1 ? (double)INFINITY
                                      : -(double)INFINITY;
    const char *text = odd_texts[which % ODD_TEXTS];
    bool is_text = H5Tget_class(type) == H5T_STRING;
    H5Dwrite(id, is_text ? type : H5T_NATIVE_DOUBLE, one, space, H5P_DEFAULT,
             !is_text                       ? (const void *)&x
             : H5Tis_variable_str(type) > 0 ? (const void *)&text
                                            : make_values(m, type, 1, -1));
}

/* ---- links ---- */

static void relink(mutation *m, const char *path)
{
    static const char *const elsewhere[] = { "sound.h5",           "none.h5",   "block-000.h5",
                                             "block-/../sound.h5", "/dev/zero", "." };
    const char *to = m->path[take(m->in) % m->n_paths];
    unsigned how = take(m->in);
    H5Ldelete(m->file, path, H5P_DEFAULT);
    switch (how % 9) {
    case 0: H5Lcreate_soft(path, m->file, path, H5P_DEFAULT, H5P_DEFAULT); break;
    case 1: H5Lcreate_soft(to, m->file, path, H5P_DEFAULT, H5P_DEFAULT); break;
    case 2: H5Lcreate_hard(m->file, to, m->file, path, H5P_DEFAULT, H5P_DEFAULT); break;
    case 3: H5Lcreate_hard(m->file, "/", m->file, path, H5P_DEFAULT, H5P_DEFAULT); break;
    case 4: H5Lcreate_external(elsewhere[how / 9 % 6], to, m->file, path, H5P_DEFAULT, H5P_DEFAULT); break;
    case 5: keep(m, H5Gcreate2(m->file, path, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT)); break;
    case 6: H5Tcommit2(m->file, path, keep(m, H5Tcopy(H5T_NATIVE_INT)), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT); break;
    case 7: {
        static const H5L_class_t class = { .version = H5L_LINK_CLASS_T_VERS, .id = (H5L_type_t)100 };
        H5Lregister(&class);
        H5Lcreate_ud(m->file, path, class.id, to, strlen(to), H5P_DEFAULT, H5P_DEFAULT);
        H5Lunregister(class.id);
        break;
    }
    default: break; /* gone */
    }
}

/* A group or a name as odd as HDF5 lets it be. */
static void add_name(mutation *m)
{
    char name[1 << 16];
    unsigned how = take(m->in);
    size_t n = how & 1 ? sizeof name - 1 : 3;
    memset(name, how & 2 ? '\n' : how & 4 ? '\x1b' : 'n', n);
    name[n] = '\0';
    if (how & 8)
        keep(m, H5Gcreate2(m->file, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    else
        H5Lcreate_hard(m->file, m->path[take(m->in) % m->n_paths], m->file, name, H5P_DEFAULT, H5P_DEFAULT);
}

/* ---- attributes ---- */

static void set_attribute(mutation *m, const char *path)
{
    static const char *const name[] = {
        "format",
        "format_version",
        "blocks",
        "covariance_n_tokens",
        "covariance_n_sequences",
        "corpus_sequences",
        "shard",
        "shards",
        "model_hash",
        "modules",
        "tokenizer_hash",
        "fingerprint",
        "stage",
        "options",
        "explained",
        "units",
        "description",
        "DIMENSION_LIST",
        "CLASS",
        "NAME",
        "REFERENCE_LIST",
        "DIMENSION_LABELS0",
        "x\ny",
        "seed",
        "compressed_fingerprint",
        "queries_hash",
        "shards_fingerprint",
    };
    const char *object = take(m->in) % 2 == 0 ? "/" : take(m->in) % 2 == 0 ? "/run" : path;
    const char *attribute = name[take(m->in) % (sizeof name / sizeof name[0])];
    hsize_t dims[H5S_MAX_RANK];
    int n;
    size_t points;
    hid_t old = keep(m, H5Aopen_by_name(m->file, object, attribute, H5P_DEFAULT, H5P_DEFAULT));
    hid_t old_type = old >= 0 ? keep(m, H5Aget_type(old)) : H5T_NATIVE_UINT64, type = pick_type(m, old_type);
    hid_t old_space = keep(m, old >= 0 ? H5Aget_space(old) : H5Screate(H5S_SCALAR));
    hid_t space = pick_space(m, old_space, dims, &n);
    if (old >= 0) {
        H5Adelete_by_name(m->file, object, attribute, H5P_DEFAULT);
        if (take(m->in) % 4 == 1)
            return;
    }
    if (space < 0 || type < 0 || (H5Sget_simple_extent_npoints(space) != 0 && !is_small(space, type, &points)))
        return;
    hid_t id = keep(m,
                    H5Acreate_by_name(m->file, object, attribute, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    if (id >= 0 && is_small(space, type, &points))
        H5Awrite(id, type, make_values(m, type, points, -1));
}

/* ---- all ---- */

/* One to four changes of the open file. */
static void mutate(mutation *m)
{
    for (unsigned n = 1 + take(m->in) % 4; n > 0; n--) {
        const char *path = m->path[take(m->in) % m->n_paths];
        switch (take(m->in) % 12) {
        case 0:
        case 1:
        case 2:
        case 3: remake(m, path); break;
        case 4:
        case 5:
        case 6: set_value(m, path); break;
        case 7:
        case 8: set_attribute(m, path); break;
        case 9:
        case 10: relink(m, path); break;
        default: add_name(m); break;
        }
        release(m);
    }
}

#endif /* BG_TESTS_FUZZ_MUTATE_H */
