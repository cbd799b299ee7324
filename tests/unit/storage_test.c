/* Which datasets hold what they declare: every layout of HDF5, written in full, in part, not at all. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bregman/storage.h"
#include "../../common/store/hdf5_lib.h"
#include "check.h"

static char folder[] = "/tmp/bregman-storage-XXXXXX";
static char path[64];
static hid_t file;

static int open_file(void **state)
{
    (void)state;
    snprintf(path, sizeof path, "%s/f.h5", folder);
    hid_t access = bg_hdf5_access();
    file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, access);
    H5Pclose(access);
    return file < 0;
}

static int close_file(void **state)
{
    (void)state;
    return H5Fclose(file) < 0;
}

typedef void fill_fn(hid_t create);
static void vast_chunks(hid_t create)
{
    H5Pset_chunk(create, 2, (hsize_t[]){ 1 << 15, 1 << 10 });
    H5Pset_deflate(create, 1);
}
static void may_grow(hid_t create) { H5Pset_chunk(create, 1, (hsize_t[]){ 4 }); }

/* A dataset of uint32 with these axes; `fill` sets its layout; the first n_rows of its rows are written. */
static hid_t make(int n_dims, const hsize_t *dims, fill_fn *fill, hsize_t n_rows)
{
    hsize_t start[2] = { 0 }, count[2] = { n_rows, n_dims > 1 ? dims[1] : 1 };
    const hsize_t any[2] = { H5S_UNLIMITED,
                             H5S_UNLIMITED }; /* the index of axes that can grow takes no room for what is not there */
    const hsize_t *most = fill == may_grow || fill == vast_chunks ? any : NULL;
    hid_t space = H5Screate_simple(n_dims, dims, most), create = H5Pcreate(H5P_DATASET_CREATE);
    if (fill != NULL)
        fill(create);
    hid_t id = H5Dcreate2(file, "x", H5T_STD_U32LE, space, H5P_DEFAULT, create, H5P_DEFAULT);
    assert_true(id >= 0);
    if (n_rows > 0) {
        uint32_t *data = calloc(n_rows * count[1], sizeof *data);
        hid_t memory = H5Screate_simple(n_dims, count, NULL);
        assert_non_null(data);
        H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL);
        assert_true(H5Dwrite(id, H5T_NATIVE_UINT32, memory, space, H5P_DEFAULT, data) >= 0);
        H5Sclose(memory);
        free(data);
    }
    H5Fflush(file, H5F_SCOPE_GLOBAL);
    H5Pclose(create);
    H5Sclose(space);
    return id;
}

static void good(hid_t id)
{
    bg_err err;
    assert_ok(bg_storage_check(id, "x", path, &err), err);
    H5Dclose(id);
}

static void lacks(hid_t id, const char *what)
{
    bg_err err = { 0 };
    assert_int_equal(bg_storage_check(id, "x", path, &err), BG_EFORMAT);
    assert_says(err, what);
    assert_says(err, "\"x\"");
    assert_says(err, path);
    H5Dclose(id);
}

static void chunks_of_3_by_2(hid_t create) { H5Pset_chunk(create, 2, (hsize_t[]){ 3, 2 }); }
static void filtered_chunks(hid_t create)
{
    chunks_of_3_by_2(create);
    H5Pset_deflate(create, 1);
}
static void chunks_made_early(hid_t create)
{
    chunks_of_3_by_2(create);
    H5Pset_alloc_time(create, H5D_ALLOC_TIME_EARLY);
}
static void compact(hid_t create) { H5Pset_layout(create, H5D_COMPACT); }

static const hsize_t seven_by_five[] = { 7, 5 };

static void whole_datasets_are_fine(void **state)
{
    (void)state;
    fill_fn *const layout[] = { NULL, compact, chunks_of_3_by_2, filtered_chunks, chunks_made_early };
    for (size_t i = 0; i < sizeof layout / sizeof layout[0]; i++) {
        good(make(2, seven_by_five, layout[i], 7));
        H5Ldelete(file, "x", H5P_DEFAULT);
    }
}

static void what_has_no_elements_is_fine(void **state)
{
    (void)state;
    hid_t space = H5Screate(H5S_NULL);
    good(H5Dcreate2(file, "null", H5T_STD_U32LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    H5Sclose(space);
    good(make(2, (hsize_t[]){ 3, 0 }, NULL, 0));
}

static void a_scalar_is_one_element(void **state)
{
    (void)state;
    uint32_t one = 1;
    hid_t space = H5Screate(H5S_SCALAR);
    lacks(H5Dcreate2(file, "unwritten", H5T_STD_U32LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
          "nothing is stored");
    hid_t id = H5Dcreate2(file, "written", H5T_STD_U32LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Dwrite(id, H5T_NATIVE_UINT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, &one) >= 0);
    good(id);
    H5Sclose(space);
}

static void what_was_never_written_is_missed(void **state)
{
    (void)state;
    fill_fn *const layout[] = { NULL, chunks_of_3_by_2, filtered_chunks };
    for (size_t i = 0; i < sizeof layout / sizeof layout[0]; i++) {
        lacks(make(2, seven_by_five, layout[i], 0), "declared [7, 5], nothing is stored");
        H5Ldelete(file, "x", H5P_DEFAULT);
    }
}

static void chunks_are_counted(void **state)
{
    (void)state;
    lacks(make(2, seven_by_five, chunks_of_3_by_2, 6), "declared [7, 5], 6 of 9 chunks are stored");
    H5Ldelete(file, "x", H5P_DEFAULT);
    lacks(make(2, seven_by_five, filtered_chunks, 3), "declared [7, 5], 3 of 9 chunks are stored");
}

/* 2^42 elements take 4 TiB of chunks, 2^62 more than can be counted in bytes. */
static void nothing_is_walked_on_a_files_word(void **state)
{
    (void)state;
    lacks(make(1, (hsize_t[]){ (hsize_t)1 << 42 }, may_grow, 4), "declared [4398046511104], but the whole file has");
    H5Ldelete(file, "x", H5P_DEFAULT);
    lacks(make(1, (hsize_t[]){ (hsize_t)1 << 42 }, NULL, 0), "declared [4398046511104], nothing is stored");
    H5Ldelete(file, "x", H5P_DEFAULT);
    lacks(make(2, (hsize_t[]){ (hsize_t)1 << 31, (hsize_t)1 << 31 }, chunks_of_3_by_2, 0), "but the whole file has");
}

/* 128 MiB would be unpacked for 35 numbers. */
static void chunks_are_not_much_larger_than_the_dataset(void **state)
{
    (void)state;
    lacks(make(2, seven_by_five, vast_chunks, 7), "declared [7, 5], but its chunks are much larger");
    H5Ldelete(file, "x", H5P_DEFAULT);
    good(make(2, (hsize_t[]){ 1 << 13, 1 << 10 }, vast_chunks, 1 << 13));
}

static void values_in_other_files_are_missed(void **state)
{
    (void)state;
    char raw[80];
    hsize_t dims[] = { 8 };
    snprintf(raw, sizeof raw, "%s/raw", folder);
    hid_t space = H5Screate_simple(1, dims, NULL), create = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_external(create, raw, 0, 32);
    lacks(H5Dcreate2(file, "x", H5T_STD_U32LE, space, H5P_DEFAULT, create, H5P_DEFAULT), "raw files");
    H5Pclose(create);
    create = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_virtual(create, space, "other.h5", "y", space);
    lacks(H5Dcreate2(file, "v", H5T_STD_U32LE, space, H5P_DEFAULT, create, H5P_DEFAULT), "virtual");
    H5Pclose(create);
    H5Sclose(space);
}

/* A dataset behind a link is measured by its own file, which stays open with it. */
static void linked_datasets_are_in_their_file(void **state)
{
    (void)state;
    char linking[64];
    H5Dclose(make(2, seven_by_five, NULL, 7));
    H5Fclose(file);
    snprintf(linking, sizeof linking, "%s/index.h5", folder);
    hid_t access = bg_hdf5_access();
    hid_t index = H5Fcreate(linking, H5F_ACC_TRUNC, H5P_DEFAULT, access);
    H5Pclose(access);
    H5Lcreate_external("f.h5", "x", index, "x", H5P_DEFAULT, H5P_DEFAULT);
    hid_t id = H5Dopen2(index, "x", H5P_DEFAULT);
    uint32_t data[35];
    bg_err err;
    assert_true(id >= 0);
    assert_ok(bg_storage_check(id, "x", path, &err), err);
    assert_true(H5Dread(id, H5T_NATIVE_UINT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    H5Dclose(id);
    H5Fclose(index);
    open_file(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(whole_datasets_are_fine, open_file, close_file),
        cmocka_unit_test_setup_teardown(what_has_no_elements_is_fine, open_file, close_file),
        cmocka_unit_test_setup_teardown(a_scalar_is_one_element, open_file, close_file),
        cmocka_unit_test_setup_teardown(what_was_never_written_is_missed, open_file, close_file),
        cmocka_unit_test_setup_teardown(chunks_are_counted, open_file, close_file),
        cmocka_unit_test_setup_teardown(nothing_is_walked_on_a_files_word, open_file, close_file),
        cmocka_unit_test_setup_teardown(chunks_are_not_much_larger_than_the_dataset, open_file, close_file),
        cmocka_unit_test_setup_teardown(values_in_other_files_are_missed, open_file, close_file),
        cmocka_unit_test_setup_teardown(linked_datasets_are_in_their_file, open_file, close_file),
    };
    bg_hdf5_prepare();
    if (mkdtemp(folder) == NULL)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    char command[96];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command) != 0 || failed;
}
