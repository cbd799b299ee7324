/* What a job may take of a machine's memory, from files as Linux has them. */
#include "bregman/allotment.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>

#include "bregman/folder.h"
#include "bregman/path.h"
#include "check.h"

static char root[] = "/tmp/bregman-allotment-XXXXXX";

/* Under the root, with the folders above it. */
static void put(const char *path, const char *text)
{
    char name[BG_PATH_BYTES], folder[BG_PATH_BYTES];
    bg_err err;
    assert_ok(bg_path(name, &err, "%s%s", root, path), err);
    assert_ok(bg_folder_of(name, folder, &err), err);
    assert_ok(bg_make_folder(folder, &err), err);
    FILE *f = fopen(name, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void of_the_machine(void **state)
{
    (void)state;
    assert_true(bg_allotment_bytes(root) == UINT64_MAX);
    put("/proc/meminfo", "MemTotal:       24684084 kB\nMemFree: 1 kB\nMemAvailable:   23946756 kB\n");
    assert_int_equal(bg_allotment_bytes(root), (uint64_t)23946756 << 10);
    assert_true(bg_allotment_bytes("") > 0);
}

/* The group's own, one above it, and of a container, which has its own group as the uppermost. */
static void of_groups(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "0::/system.slice/job_7/step_0\n");
    put("/sys/fs/cgroup/system.slice/job_7/step_0/memory.max", "max\n");
    assert_int_equal(bg_allotment_bytes(root), (uint64_t)23946756 << 10);
    put("/sys/fs/cgroup/system.slice/job_7/memory.max", "8000000000\n");
    assert_int_equal(bg_allotment_bytes(root), 8000000000);
    put("/sys/fs/cgroup/memory.max", "7000000000\n");
    assert_int_equal(bg_allotment_bytes(root), 7000000000);

    put("/proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/docker/a\n3:cpuset:/b\n0::/\n");
    put("/sys/fs/cgroup/memory.max", "max\n");
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    assert_int_equal(bg_allotment_bytes(root), (uint64_t)23946756 << 10);
    put("/sys/fs/cgroup/memory/docker/a/memory.limit_in_bytes", "6000000000\n");
    assert_int_equal(bg_allotment_bytes(root), 6000000000);
}

static void of_slurm(void **state)
{
    (void)state;
    setenv("SLURM_CPUS_ON_NODE", "4", 1);
    setenv("SLURM_MEM_PER_CPU", "500", 1);
    assert_int_equal(bg_allotment_bytes(root), (uint64_t)2000 << 20);
    setenv("SLURM_MEM_PER_NODE", "0", 1);
    assert_int_equal(bg_allotment_bytes(root), (uint64_t)2000 << 20);
    setenv("SLURM_MEM_PER_NODE", "1000", 1);
    assert_int_equal(bg_allotment_bytes(root), (uint64_t)1000 << 20);
    setenv("SLURM_MEM_PER_NODE", "99999999999999999999", 1);
    assert_int_equal(bg_allotment_bytes(root), 6000000000);
}

static int remove_one(const char *path, const struct stat *about, int type, struct FTW *place)
{
    (void)about;
    (void)type;
    (void)place;
    return remove(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(of_the_machine),
        cmocka_unit_test(of_groups),
        cmocka_unit_test(of_slurm),
    };
    static const char *const name[] = { "SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE" };
    for (int i = 0; i < 3; i++)
        unsetenv(name[i]);
    if (mkdtemp(root) == NULL)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0 || failed;
}
