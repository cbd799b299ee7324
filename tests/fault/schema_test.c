/* What a file can do to a reader: every dataset of every format is changed in every way that its row of the schema
 * forbids, and reading the file then ends in one line that names the file and the dataset. */
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../common/store/hdf5_lib.h"
#include "unit/check.h"
#include "unit/schema_values.h"

enum { CORPUS = 1000000000 }; /* times 100: above what schema_fill numbers sequences with */

static char folder[] = "/tmp/bregman-schema-XXXXXX";
static const bg_provenance run = { .stage = "test", .options = "{}", .fingerprint = "f" };

/* ---- sound files ---- */

static const char *in_folder(const char *name)
{
    static char path[4][64];
    static size_t next;
    char *out = path[next++ % 4];
    snprintf(out, 64, "%s/%s", folder, name);
    return out;
}

static void make(const char *name, const char *format)
{
    bg_err err;
    bg_store *s;
    assert_ok(bg_store_create(&s, in_folder(name), format, &run, &err), err);
    assert_ok(schema_write(s, format, &err), err);
    assert_ok(bg_store_attr_u64(s, "/", "corpus_sequences", CORPUS * UINT64_C(100), &err), err);
    assert_ok(bg_store_publish(s, NULL, &err), err);
}

static void copy(const char *from, const char *to)
{
    char *byte = malloc(1 << 20);
    FILE *in = fopen(in_folder(from), "rb"), *out = fopen(in_folder(to), "wb");
    assert_true(byte != NULL && in != NULL && out != NULL);
    size_t n = fread(byte, 1, 1 << 20, in);
    assert_true(n < 1 << 20 && fwrite(byte, 1, n, out) == n);
    fclose(in);
    assert_int_equal(fclose(out), 0);
    free(byte);
}

static hid_t open_to_change(const char *name)
{
    hid_t access = bg_hdf5_access(), file = H5Fopen(in_folder(name), H5F_ACC_RDWR, access);
    H5Pclose(access);
    assert_true(file >= 0);
    return file;
}

/* ---- changes ---- */

typedef struct {
    hid_t file;
    const char *path;
    const bg_schema_row *row;
} place;

static hid_t type_of(const bg_schema_row *row)
{
    return row->dtype == BG_STRING ? bg_string_type() : H5Tcopy(bg_memory_type(row->dtype));
}

/* Zeros in place of the dataset; of the first n_rows rows.  Frees type and create. */
static void put(const place *p, hid_t type, int n_dims, const uint64_t *dims, hid_t create, uint64_t n_rows)
{
    hsize_t shape[4], start[4] = { 0 }, count[4];
    static unsigned char zeros[1 << 16];
    for (int d = 0; d < n_dims; d++)
        shape[d] = count[d] = dims[d];
    count[0] = n_rows;
    hid_t space = H5Screate_simple(n_dims, shape, NULL);
    assert_true(H5Ldelete(p->file, p->path, H5P_DEFAULT) >= 0);
    hid_t id = H5Dcreate2(p->file, p->path, type, space, H5P_DEFAULT, create, H5P_DEFAULT);
    assert_true(id >= 0 && (size_t)H5Sget_simple_extent_npoints(space) * H5Tget_size(type) <= sizeof zeros);
    if (n_rows > 0) {
        hid_t memory = n_dims > 0 ? H5Screate_simple(n_dims, count, NULL) : H5S_ALL;
        if (n_dims > 0)
            H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL);
        assert_true(H5Dwrite(id, type, memory, n_dims > 0 ? space : H5S_ALL, H5P_DEFAULT, zeros) >= 0);
        if (n_dims > 0)
            H5Sclose(memory);
    }
    H5Dclose(id);
    H5Sclose(space);
    H5Tclose(type);
    if (create != H5P_DEFAULT)
        H5Pclose(create);
}

static void put_shape(const place *p, int more_axes, int axis, int longer)
{
    uint64_t dims[4] = { 1, 1, 1, 1 };
    schema_dims(p->row, dims);
    dims[axis] += (uint64_t)longer;
    put(p, type_of(p->row), p->row->n_dims + more_axes, dims, H5P_DEFAULT, dims[0]);
}

static void put_type(const place *p, hid_t type)
{
    uint64_t dims[3];
    schema_dims(p->row, dims);
    put(p, type, p->row->n_dims, dims, H5P_DEFAULT, dims[0]);
}

static void put_layout(const place *p, hid_t create, uint64_t n_rows)
{
    uint64_t dims[3];
    schema_dims(p->row, dims);
    put(p, type_of(p->row), p->row->n_dims, dims, create, n_rows);
}

/* One element becomes x; or, of texts, that text. */
static void set_element(const place *p, hsize_t at, double x, const char *text)
{
    hid_t id = H5Dopen2(p->file, p->path, H5P_DEFAULT), space = H5Dget_space(id), one = H5Screate(H5S_SCALAR);
    hid_t type = text != NULL ? bg_string_type() : H5Tcopy(H5T_NATIVE_DOUBLE);
    hsize_t dims[3], point[3];
    int n = H5Sget_simple_extent_dims(space, dims, NULL);
    for (int d = n - 1; d >= 0; at /= dims[d--])
        point[d] = at % dims[d];
    H5Sselect_elements(space, H5S_SELECT_SET, 1, point);
    assert_true(H5Dwrite(id, type, one, space, H5P_DEFAULT, text != NULL ? (const void *)&text : (const void *)&x) >=
                0);
    H5Tclose(type);
    H5Sclose(one);
    H5Sclose(space);
    H5Dclose(id);
}

static void one_axis_more(const place *p) { put_shape(p, 1, 0, 0); }
static void one_axis_fewer(const place *p) { put_shape(p, -1, 0, 0); }
static void longer(const place *p) { put_shape(p, 0, 0, 1); }
static void shorter(const place *p) { put_shape(p, 0, 0, -1); }
static void second_longer(const place *p) { put_shape(p, 0, 1, 1); }
static void third_longer(const place *p) { put_shape(p, 0, 2, 1); }
static void first_empty(const place *p) { put_shape(p, 0, 0, -(int)schema_length(p->row->format, p->row->dim[0])); }
static void as_whole(const place *p) { put_type(p, H5Tcopy(H5T_STD_I32LE)); }
static void as_fraction(const place *p) { put_type(p, H5Tcopy(H5T_IEEE_F32LE)); }
static void as_text(const place *p)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, 4);
    put_type(p, type);
}
static void as_bits(const place *p) { put_type(p, H5Tcopy(H5T_STD_B32LE)); }
static void as_opaque(const place *p) { put_type(p, H5Tcreate(H5T_OPAQUE, 4)); }
static void as_arrays(const place *p) { put_type(p, H5Tarray_create2(bg_memory_type(BG_F32), 1, (hsize_t[]){ 2 })); }
static void as_lists(const place *p) { put_type(p, H5Tvlen_create(bg_memory_type(BG_I64))); }
static void as_references(const place *p) { put_type(p, H5Tcopy(H5T_STD_REF_OBJ)); }

static void as_compound(const place *p)
{
    hid_t type = H5Tcreate(H5T_COMPOUND, 8);
    H5Tinsert(type, "x", 0, H5T_NATIVE_FLOAT);
    put_type(p, type);
}

static void as_enumeration(const place *p)
{
    int32_t zero = 0;
    hid_t type = H5Tenum_create(H5T_NATIVE_INT32);
    H5Tenum_insert(type, "none", &zero);
    put_type(p, type);
}

static void never_written(const place *p) { put_layout(p, H5P_DEFAULT, 0); }

static void half_written(const place *p)
{
    hsize_t chunk[3] = { 1, 1, 1 };
    hid_t create = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(create, p->row->n_dims, chunk);
    put_layout(p, create, schema_length(p->row->format, p->row->dim[0]) / 2);
}

static void in_raw_file(const place *p)
{
    hid_t create = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_external(create, in_folder("raw"), 0, 1 << 16);
    put_layout(p, create, schema_length(p->row->format, p->row->dim[0]));
}

static void is_virtual(const place *p)
{
    hid_t create = H5Pcreate(H5P_DATASET_CREATE), id = H5Dopen2(p->file, p->path, H5P_DEFAULT),
          space = H5Dget_space(id);
    H5Pset_virtual(create, space, in_folder("sound.h5"), p->path, space);
    H5Sclose(space);
    H5Dclose(id);
    put_layout(p, create, 0);
}

static void in_other_file(const place *p)
{
    H5Ldelete(p->file, p->path, H5P_DEFAULT);
    assert_true(H5Lcreate_external("sound.h5", p->path, p->file, p->path, H5P_DEFAULT, H5P_DEFAULT) >= 0);
}

static void in_far_block(const place *p)
{
    H5Ldelete(p->file, p->path, H5P_DEFAULT);
    assert_true(H5Lcreate_external("block-0/../sound.h5", p->path, p->file, p->path, H5P_DEFAULT, H5P_DEFAULT) >= 0);
}

static void runs_in_circles(const place *p)
{
    H5Ldelete(p->file, p->path, H5P_DEFAULT);
    H5Lcreate_soft(p->path, p->file, p->path, H5P_DEFAULT, H5P_DEFAULT);
}

static void is_a_group(const place *p)
{
    H5Ldelete(p->file, p->path, H5P_DEFAULT);
    H5Gclose(H5Gcreate2(p->file, p->path, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
}

static void is_missing(const place *p) { H5Ldelete(p->file, p->path, H5P_DEFAULT); }

static void has_nan(const place *p) { set_element(p, 1, (double)NAN, NULL); }
static void has_inf(const place *p) { set_element(p, 1, (double)INFINITY, NULL); }
static void has_minus_inf(const place *p) { set_element(p, 1, -(double)INFINITY, NULL); }

static void below(const place *p)
{
    static const double value[] = {
        [BG_NOT_NEGATIVE] = -1e-30, [BG_FROM_0] = -1,         [BG_SEQUENCE_LENGTH] = 1, [BG_SEQUENCE] = -1,
        [BG_SEQUENCE_OR_NONE] = -2, [BG_FROM_0_OR_NONE] = -2, [BG_DOCUMENT] = -2
    };
    set_element(p, 1, value[p->row->domain], NULL);
}

static void above(const place *p)
{
    set_element(p, 1,
                p->row->domain == BG_SHARE_KEPT ? 1.5
                : p->row->domain == BG_DOCUMENT ? (double)schema_length(p->row->format, "document")
                                                : CORPUS * 100.0,
                NULL);
}

static void beyond_its_type(const place *p)
{
    put_type(p, H5Tcopy(p->row->dtype == BG_F32 ? H5T_IEEE_F64LE : H5T_STD_I64LE));
    set_element(p, 1, p->row->dtype == BG_F32 ? 1e300 : -1, NULL);
}

static void one_more(const place *p) { set_element(p, 1, 4, NULL); } /* instead of 3 */
static void twice(const place *p) { set_element(p, 0, 0, "x"); }     /* as the last one is */
static void without_name(const place *p) { set_element(p, 0, 0, ""); }

/* ---- which rows a change is one for ---- */

static bool is_number(const bg_schema_row *r) { return r->dtype != BG_STRING; }
static bool is_text(const bg_schema_row *r) { return r->dtype == BG_STRING; }
static bool is_float(const bg_schema_row *r) { return r->dtype == BG_F32 || r->dtype == BG_F64; }
static bool is_integer(const bg_schema_row *r) { return is_number(r) && !is_float(r); }
static bool is_bounded(const bg_schema_row *r) { return is_float(r) && r->domain != BG_ANY; }
static bool is_narrow(const bg_schema_row *r) { return r->dtype == BG_F32 || r->dtype == BG_U32; }
static bool are_names(const bg_schema_row *r) { return r->domain == BG_NAMES; }
static bool are_lengths(const bg_schema_row *r) { return r->sample_dimension != NULL; }
static bool any(const bg_schema_row *r) { return r != NULL; }

static bool has_least(const bg_schema_row *r)
{
    return r->domain != BG_ANY && r->domain != BG_FINITE && r->domain != BG_SHARE_KEPT && r->domain != BG_NAMES &&
           !(r->domain == BG_FROM_0 && r->dtype == BG_U32);
}

static bool has_most(const bg_schema_row *r)
{
    return r->domain == BG_SHARE_KEPT || r->domain == BG_SEQUENCE || r->domain == BG_SEQUENCE_OR_NONE ||
           r->domain == BG_DOCUMENT;
}

/* Does another dataset of the format have this axis of the row? */
static bool tied(const bg_schema_row *r, int axis)
{
    char key[BG_PATH_BYTES], other[BG_PATH_BYTES];
    size_t n;
    const bg_schema_row *row = bg_schema_rows(&n);
    if (axis >= r->n_dims)
        return false;
    bg_schema_axis_key(r->format, r->path, r->dim[axis], key);
    for (size_t i = 0; i < n; i++)
        for (int d = 0; d < row[i].n_dims && strcmp(row[i].format, r->format) == 0; d++) {
            bg_schema_axis_key(row[i].format, row[i].path, row[i].dim[d], other);
            if (&row[i] != r && strcmp(key, other) == 0)
                return true;
        }
    return false;
}
static bool tied_0(const bg_schema_row *r) { return tied(r, 0); }
static bool tied_1(const bg_schema_row *r) { return tied(r, 1); }
static bool tied_2(const bg_schema_row *r) { return tied(r, 2); }

/* Lengths add up to this axis. */
static bool is_cut_up(const bg_schema_row *r)
{
    size_t n;
    const bg_schema_row *row = bg_schema_rows(&n);
    for (size_t i = 0; i < n; i++)
        if (strcmp(row[i].format, r->format) == 0 && row[i].sample_dimension != NULL &&
            strcmp(row[i].sample_dimension, r->dim[0]) == 0)
            return !tied_0(r);
    return false;
}

static bool is_needed(const bg_schema_row *r)
{
    static const char *const never_empty[] = { "query", "layer", "k", "bin", "input", "output" };
    for (size_t i = 0; i < sizeof never_empty / sizeof never_empty[0]; i++)
        if (strcmp(r->dim[0], never_empty[i]) == 0)
            return true;
    return false;
}

/* ---- reading ---- */

static bg_status read_row(const bg_store *s, const bg_schema_row *row, bg_err *err)
{
    char path[128], **text;
    uint64_t dims[3];
    size_t n;
    schema_values v;
    schema_path(row, path);
    bg_status st = bg_store_dims(s, path, row->n_dims, dims, err);
    if (st != BG_OK)
        return st;
    if (row->dtype != BG_STRING)
        return bg_store_read(s, path, row->dtype, dims, &v, err);
    st = bg_store_read_strings(s, path, &text, &n, err);
    bg_strings_free(text, n);
    return st;
}

/* All shapes first, as a reader that makes room does; then all values. */
static bg_status read_all(const char *name, const char *format, bg_err *err)
{
    size_t n;
    const bg_schema_row *row = bg_schema_rows(&n);
    bg_store *s;
    bg_status st = bg_store_open(&s, in_folder(name), format, err);
    for (int values = 0; values < 2 && st == BG_OK; values++)
        for (size_t i = 0; i < n && st == BG_OK; i++) {
            char path[128];
            uint64_t dims[3];
            schema_path(&row[i], path);
            if (strcmp(row[i].format, format) == 0)
                st = values ? read_row(s, &row[i], err) : bg_store_dims(s, path, row[i].n_dims, dims, err);
        }
    bg_store_close(s);
    return st;
}

/* ---- the table ---- */

typedef struct {
    const char *name;
    void (*change)(const place *p);
    bool (*applies)(const bg_schema_row *row);
    bg_status code;
    const char *says;
} change;

#define OTHER_CLASS(how, which) { #how, how, which, BG_ESHAPE, "as its format says" }
static const change changes[] = {
    { "one axis more", one_axis_more, any, BG_ESHAPE, "axes instead of" },
    { "one axis fewer", one_axis_fewer, any, BG_ESHAPE, "axes instead of" },
    { "leading axis longer", longer, tied_0, BG_ESHAPE, "along the axis" },
    { "leading axis shorter", shorter, tied_0, BG_ESHAPE, "along the axis" },
    { "second axis longer", second_longer, tied_1, BG_ESHAPE, "along the axis" },
    { "third axis longer", third_longer, tied_2, BG_ESHAPE, "along the axis" },
    { "more than the lengths", longer, is_cut_up, BG_EFORMAT, "adds up to" },
    { "fewer than the lengths", shorter, is_cut_up, BG_EFORMAT, "adds up to" },
    { "leading axis empty", first_empty, is_needed, BG_ESHAPE, "is empty" },
    OTHER_CLASS(as_whole, is_float),
    OTHER_CLASS(as_whole, is_text),
    OTHER_CLASS(as_fraction, is_integer),
    OTHER_CLASS(as_fraction, is_text),
    OTHER_CLASS(as_text, is_number),
    OTHER_CLASS(as_bits, any),
    OTHER_CLASS(as_opaque, any),
    OTHER_CLASS(as_arrays, any),
    OTHER_CLASS(as_lists, any),
    OTHER_CLASS(as_references, any),
    OTHER_CLASS(as_compound, any),
    OTHER_CLASS(as_enumeration, any),
    { "never written", never_written, any, BG_EFORMAT, "nothing is stored" },
    { "half of the chunks written", half_written, any, BG_EFORMAT, "chunks are stored" },
    { "raw file", in_raw_file, is_number, BG_EFORMAT, "in other, raw files" },
    { "virtual", is_virtual, any, BG_EFORMAT, "it is virtual" },
    { "external link", in_other_file, any, BG_EFORMAT, "is a link into another file, \"sound.h5\"" },
    { "external link by way of a folder", in_far_block, any, BG_EFORMAT,
      "is a link into another file, \"block-0/../sound.h5\"" },
    { "soft link loop", runs_in_circles, any, BG_EFORMAT, "" },
    { "group", is_a_group, any, BG_EFORMAT, "" },
    { "missing", is_missing, any, BG_EFORMAT, "has no dataset" },
    { "NaN", has_nan, is_bounded, BG_ENUMERIC, "nan at 1; expected" },
    { "infinite", has_inf, is_bounded, BG_ENUMERIC, "holds inf at 1; expected" },
    { "minus infinite", has_minus_inf, is_bounded, BG_ENUMERIC, "holds -inf at 1; expected" },
    { "below its domain", below, has_least, BG_EFORMAT, "at 1; expected" },
    { "above its domain", above, has_most, BG_EFORMAT, "at 1; expected" },
    { "beyond its type", beyond_its_type, is_narrow, BG_ESHAPE, "out of range" },
    { "lengths that do not add up", one_more, are_lengths, BG_EFORMAT, "adds up to" },
    { "a name twice", twice, are_names, BG_EFORMAT, "has the name \"x\" twice" },
    { "a name that is empty", without_name, are_names, BG_EFORMAT, "has a name that is empty" },
};

static void refused(const change *c, const bg_schema_row *row)
{
    char path[128], quoted[130];
    bg_err err = { .msg = "read" };
    schema_path(row, path);
    snprintf(quoted, sizeof quoted, "\"%s\"", path);
    copy("sound.h5", "changed.h5");
    place p = { open_to_change("changed.h5"), path, row };
    c->change(&p);
    H5Fclose(p.file);
    bg_status st = read_all("changed.h5", row->format, &err);
    if (st != c->code || strstr(err.msg, c->says) == NULL || strstr(err.msg, "changed.h5") == NULL ||
        (strstr(err.msg, quoted) == NULL && c->applies != is_cut_up))
        fail_msg("%s, %s of %s: %s: %s", c->name, path, row->format, bg_status_name(st), err.msg);
}

static void what_the_schema_forbids_is_refused(void **state)
{
    (void)state;
    size_t n;
    const bg_schema_row *row = bg_schema_rows(&n);
    for (size_t f = 0; f < SCHEMA_FORMATS; f++) {
        bg_err err;
        make("sound.h5", schema_format[f]);
        assert_ok(read_all("sound.h5", schema_format[f], &err), err);
        for (size_t i = 0; i < n; i++)
            for (size_t k = 0; k < sizeof changes / sizeof changes[0]; k++)
                if (strcmp(row[i].format, schema_format[f]) == 0 && changes[k].applies(&row[i]))
                    refused(&changes[k], &row[i]);
    }
}

/* What is divided by is not 0; other whole numbers may be. */
static void counts_of_nothing_are_refused(void **state)
{
    (void)state;
    static const char *const name[] = {
        "blocks", "covariance_n_tokens", "covariance_n_sequences", "corpus_sequences", "shards", "other"
    };
    for (size_t f = 0; f < SCHEMA_FORMATS; f++)
        for (size_t i = 0; i < sizeof name / sizeof name[0]; i++) {
            bg_err err;
            bg_store *s;
            uint64_t value = 7;
            bool some = bg_schema_attribute_least(schema_format[f], name[i]) > 0;
            assert_ok(bg_store_create(&s, in_folder("zero.h5"), schema_format[f], &run, &err), err);
            assert_ok(bg_store_attr_u64(s, "/", name[i], 0, &err), err);
            assert_ok(bg_store_publish(s, NULL, &err), err);
            assert_ok(bg_store_open(&s, in_folder("zero.h5"), schema_format[f], &err), err);
            assert_int_equal(bg_store_get_u64(s, "/", name[i], &value, NULL, &err), some ? BG_EFORMAT : BG_OK);
            if (some) {
                assert_says(err, name[i]);
                assert_says(err, "zero.h5\" is 0; expected 1 or more");
            }
            bg_store_close(s);
        }
    assert_true(bg_schema_attribute_least("bregman/factors", "blocks") > 0);
}

/* A link that was not followed is no reason for what fails later. */
static void each_refusal_has_its_own_reason(void **state)
{
    (void)state;
    bg_err err;
    bg_store *s;
    uint64_t dims[3];
    make("sound.h5", "bregman/scores");
    hid_t file = open_to_change("sound.h5");
    H5Lcreate_external("other.h5", "x", file, "layer_score_2", H5P_DEFAULT, H5P_DEFAULT);
    H5Ldelete(file, "score", H5P_DEFAULT);
    H5Fclose(file);
    assert_ok(bg_store_open(&s, in_folder("sound.h5"), "bregman/scores", &err), err);
    assert_false(bg_store_has(s, "layer_score_2"));
    assert_int_equal(bg_store_dims(s, "score", 2, dims, &err), BG_EFORMAT);
    assert_says(err, "has no dataset \"score\"");
    bg_store_close(s);
}

/* Numbers and texts may be kept in other sizes and orders than ours: they are read as the values they are. */
static void other_representations_are_read(void **state)
{
    (void)state;
    size_t n;
    const bg_schema_row *row = bg_schema_rows(&n);
    make("sound.h5", "bregman/tokens");
    hid_t file = open_to_change("sound.h5");
    for (size_t i = 0; i < n; i++) {
        char path[128];
        uint64_t dims[3];
        schema_values v;
        if (strcmp(row[i].format, "bregman/tokens") != 0)
            continue;
        schema_path(&row[i], path);
        schema_dims(&row[i], dims);
        (void)schema_fill(&row[i], dims, &v);
        place p = { file, path, &row[i] };
        put_type(&p, is_text(&row[i]) ? bg_string_type() : H5Tcopy(H5T_STD_I64BE));
        hid_t id = H5Dopen2(file, path, H5P_DEFAULT), type = type_of(&row[i]);
        assert_true(H5Dwrite(id, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, &v) >= 0);
        H5Tclose(type);
        H5Dclose(id);
    }
    H5Fclose(file);
    bg_err err;
    bg_store *s;
    uint32_t count[4];
    assert_ok(read_all("sound.h5", "bregman/tokens", &err), err);
    assert_ok(bg_store_open(&s, in_folder("sound.h5"), "bregman/tokens", &err), err);
    assert_ok(bg_store_read(s, "count", BG_U32, (const uint64_t[]){ 4 }, count, &err), err);
    assert_true(count[0] == 2 && count[3] == 5);
    bg_store_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_of_nothing_are_refused),
        cmocka_unit_test(each_refusal_has_its_own_reason),
        cmocka_unit_test(other_representations_are_read),
        cmocka_unit_test(what_the_schema_forbids_is_refused),
    };
    bg_hdf5_prepare();
    if (mkdtemp(folder) == NULL)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    char command[96];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command) != 0 || failed;
}
