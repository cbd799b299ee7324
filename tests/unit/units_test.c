/* Work files: their names, what of a sweep they hold, against a slow count of sequences, and reading them back. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "bregman/rng.h"
#include "bregman/units.h"
#include "check.h"

static char folder[] = "/tmp/bregman-units-XXXXXX";
static const bg_provenance run = { .stage = "test", .options = "{}", .fingerprint = "f1", .ranks = 1, .threads = 1 };
static const size_t blocks[] = { 2, 5, 11 };

static bg_units rows_of_model(uint64_t n, uint64_t unit)
{
    return (bg_units){
        .folder = folder, .kind = "scores", .run = &run, .n_groups = 1, .n_sequences = n, .unit_sequences = unit
    };
}

static bg_units of_blocks(bool cumulative, uint64_t n, uint64_t unit)
{
    return (bg_units){ .folder = folder,
                       .kind = cumulative ? "covariance" : "queries",
                       .run = &run,
                       .cumulative = cumulative,
                       .group = blocks,
                       .n_groups = 3,
                       .n_sequences = n,
                       .unit_sequences = unit };
}

static void empty_folder(void)
{
    char path[600];
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (const struct dirent *e; (e = readdir(d)) != NULL;) {
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        unlink(path);
    }
    closedir(d);
}

static int start(void **state)
{
    (void)state;
    return mkdtemp(folder) == NULL;
}

static int end(void **state)
{
    (void)state;
    empty_folder();
    return rmdir(folder);
}

/* The file of a segment, in which the score of a sequence is its number in the work. */
static void write_scores(const bg_units *u, bg_segment g, uint64_t to)
{
    bg_store *s;
    bg_err err;
    float x;
    const uint64_t dims[2] = { g.end - g.first, 1 };
    assert_ok(bg_units_create(&s, u, &g, &err), err);
    assert_ok(bg_store_dataset(s, "score", dims, &err), err);
    for (uint64_t i = g.first; i < to; i++) {
        x = (float)(g.unit * u->unit_sequences + i);
        assert_ok(bg_store_write_rows(s, "score", i - g.first, 1, &x, &err), err);
    }
    assert_ok(bg_units_end(s, u, &g, to, BG_OK, &err), err);
}

/* A file of this name: a second name of one that is there. */
static void link_file(const char *name)
{
    char one[600], path[600];
    bg_store *s;
    bg_err err;
    snprintf(one, sizeof one, "%s/one", folder);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (access(one, F_OK) != 0) {
        assert_ok(bg_store_create(&s, one, "bregman/work", &run, &err), err);
        assert_ok(bg_store_publish(s, NULL, &err), err);
    }
    assert_true(link(one, path) == 0 || access(path, F_OK) == 0);
}

static bool is_there(const char *name)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return access(path, F_OK) == 0;
}

/* ---- names ---- */

static void names_of_work_files(void **state)
{
    (void)state;
    static const struct {
        const char *name, *kind;
        bg_segment g;
    } good[] = {
        { "scores-00003.000000-000064.h5", "scores", { 3, BG_WHOLE_MODEL, 0, 64 } },
        { "token_scores-123456.000003-1234567.h5", "token_scores", { 123456, BG_WHOLE_MODEL, 3, 1234567 } },
        { "covariance-00000-block-063.000000-000008.h5", "covariance", { 0, 63, 0, 8 } },
        { "lambda-00000-block-1000.000000-000008.h5", "lambda", { 0, 1000, 0, 8 } },
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        char kind[BG_UNIT_KIND_BYTES];
        bg_segment g;
        if (!bg_units_parse(good[i].name, kind, &g))
            fail_msg("%s is not taken", good[i].name);
        assert_string_equal(kind, good[i].kind);
        assert_memory_equal(&g, &good[i].g, sizeof g);
    }
}

static void other_names(void **state)
{
    (void)state;
    static const char *const other[] = {
        "",
        ".",
        "-",
        "scores",
        "scores-",
        "scores-00003",
        "scores-00003.h5",
        "scores-00003.000000.h5",
        "scores-3.000000-000064.h5",
        "scores-+0003.000000-000064.h5",
        "scores--0003.000000-000064.h5",
        "scores- 0003.000000-000064.h5",
        "scores-00003.+00000-000064.h5",
        "scores-00003. 00000-000064.h5",
        "scores-00003.000000--00064.h5",
        "scores-00003.000000-000064",
        "scores-00003.000000-000064.h5.tmp-n1-12-0a1b2c3d",
        "scores-00003.000000-000064.h5x",
        "-00003.000000-000064.h5",
        "scores-00003.000000-18446744073709551616.h5",
        "scores-0x003.000000-000064.h5",
        "scores-00003-block-.000000-000064.h5",
        "scores-00003-block-7.000000-000064.h5",
        "scores-00003-block--07.000000-000064.h5",
        "scores-000003.000000-000064.h5",
        "scores-00003-block-18446744073709551615.000000-000064.h5",
        "activation-transformer.h.0.mlp.c_fc.h5",
        "a_kind_of_more_than_thirty_one_letters-00003.000000-000064.h5",
        "queries-00003-block-001.part-000002.h5",
    };
    for (size_t i = 0; i < sizeof other / sizeof other[0]; i++) {
        char kind[BG_UNIT_KIND_BYTES] = "kept";
        bg_segment g = { 7, 7, 7, 7 };
        if (bg_units_parse(other[i], kind, &g))
            fail_msg("%s is taken", other[i]);
        assert_true(strcmp(kind, "kept") == 0 && g.unit == 7 && g.end == 7);
    }
}

/* ---- finding ---- */

static void finds(const bg_units *u, uint64_t unit, bool want_done, uint64_t want_part)
{
    bool done[8];
    uint64_t part[8];
    bg_err err;
    assert_true(bg_units_count(u) <= 8);
    memset(done, 1, sizeof done);
    memset(part, 1, sizeof part);
    assert_ok(bg_units_find(u, done, part, &err), err);
    if (done[unit] != want_done || part[unit] != want_part)
        fail_msg("unit %d: done %d, part %d", (int)unit, done[unit], (int)part[unit]);
}

static void rows_chain(void **state)
{
    (void)state;
    bg_units u = rows_of_model(20, 8); /* the last unit has 4 */
    empty_folder();
    finds(&u, 0, false, 0);
    link_file("scores-00000.000003-000008.h5"); /* nothing before it */
    finds(&u, 0, false, 0);
    link_file("scores-00000.000000-000002.h5"); /* a gap */
    finds(&u, 0, false, 2);
    link_file("scores-00000.000001-000004.h5"); /* overlaps both */
    finds(&u, 0, true, 0);
    link_file("scores-00002.000000-000008.h5"); /* longer than the unit: of another division */
    finds(&u, 2, false, 0);
    link_file("scores-00002.000000-000004.h5");
    finds(&u, 2, true, 0);
    finds(&u, 1, false, 0);
    link_file(
        "scores-00003.000000-000004.h5"); /* a unit that there is not, a part that is empty, other kinds and groups */
    link_file("scores-00001.000000-000000.h5");
    link_file("scores-00001.000005-000003.h5");
    link_file("scores-00001-block-002.000000-000008.h5");
    link_file("queries-00001.000000-000008.h5");
    link_file("scores-00001.000000-000008.h5.tmp-n1-1-00000000");
    link_file("scores-00001.000000-+00008.h5");
    finds(&u, 1, false, 0);
}

static void sums_stand_for_what_is_before(void **state)
{
    (void)state;
    bg_units u = of_blocks(true, 24, 8);
    empty_folder();
    link_file("covariance-00000-block-002.000000-000003.h5");
    link_file("covariance-00000-block-005.000000-000003.h5");
    link_file("covariance-00000-block-011.000003-000008.h5"); /* sums begin at 0 */
    finds(&u, 0, false, 0);
    link_file("covariance-00000-block-011.000000-000003.h5");
    finds(&u, 0, false, 3);
    link_file("covariance-00000-block-002.000000-000005.h5"); /* not of all blocks */
    link_file("covariance-00000-block-011.000000-000006.h5");
    link_file("covariance-00000-block-005.000000-000008.h5"); /* finished: any part will do */
    finds(&u, 0, false, 3);
    link_file("covariance-00000-block-011.000000-000005.h5");
    assert_true(is_there("covariance-00000-block-002.000000-000003.h5"));
    finds(&u, 0, false, 5);
    assert_false(is_there("covariance-00000-block-002.000000-000003.h5")); /* nothing needs it any more */
    assert_true(is_there("covariance-00000-block-002.000000-000005.h5") &&
                is_there("covariance-00000-block-011.000000-000006.h5"));
    link_file("covariance-00000-block-002.000000-000008.h5");
    link_file("covariance-00000-block-011.000000-000008.h5");
    link_file("covariance-00000-block-007.000000-000005.h5"); /* a block without tracked modules */
    finds(&u, 0, true, 0);
    assert_false(is_there("covariance-00000-block-011.000000-000006.h5"));
    assert_true(is_there("covariance-00000-block-007.000000-000005.h5"));
    finds(&u, 1, false, 0);
}

/* Slow: of each group's files, sequence by sequence. */
static uint64_t count_slowly(const bg_units *u, uint64_t unit, const bg_segment *s, size_t n)
{
    uint64_t size = bg_units_size(u, unit), best = 0;
    for (uint64_t p = 1; p <= size; p++) {
        size_t groups = 0;
        for (size_t b = 0; b < u->n_groups; b++) {
            uint64_t covered = 0, exact = 0;
            for (uint64_t z = 0; z < p; z++)
                for (size_t i = 0, found = 0; i < n && found == 0; i++)
                    if (s[i].unit == unit && s[i].group == blocks[b] && s[i].first <= z && z < s[i].end)
                        covered += ++found;
            for (size_t i = 0; i < n; i++)
                exact += s[i].unit == unit && s[i].group == blocks[b] && s[i].first == 0 &&
                         (s[i].end == p || s[i].end == size);
            groups += u->cumulative ? exact > 0 : covered == p;
        }
        best = groups == u->n_groups ? p : best;
    }
    return best;
}

static uint64_t random_below(uint64_t n)
{
    static uint32_t drawn;
    return (uint64_t)(bg_uniform(7, 0, drawn++) * (double)n);
}

static void random_files(void **state)
{
    (void)state;
    for (int round = 0; round < 300; round++) {
        bg_units u = of_blocks(round % 2 == 0, 10, 6);
        bg_segment s[40], again[40];
        size_t n = 8 + random_below(30);
        uint64_t whole = 0;
        empty_folder();
        for (size_t i = 0; i < n; i++) {
            char name[100];
            s[i].unit = random_below(2);
            s[i].group = blocks[random_below(3)];
            s[i].first = u.cumulative ? 0 : random_below(s[i].unit == 0 ? 5 : 3);
            s[i].end = s[i].first + 1 + random_below((s[i].unit == 0 ? 6 : 4) - s[i].first);
            snprintf(name, sizeof name, "%s-%05d-block-%03d.%06d-%06d.h5", u.kind, (int)s[i].unit, (int)s[i].group,
                     (int)s[i].first, (int)s[i].end);
            link_file(name);
        }
        for (uint64_t unit = 0; unit < 2; unit++) {
            uint64_t want = count_slowly(&u, unit, s, n), size = bg_units_size(&u, unit);
            finds(&u, unit, want == size, want == size ? 0 : want);
            for (size_t b = 0; b < 3; b++) {
                bg_units one = u;
                one.cumulative = false;
                one.n_groups = 1;
                memcpy(again, s, sizeof s);
                for (size_t i = 0; i < n; i++) /* the slow count looks at the first block */
                    again[i].group = s[i].group == blocks[b] ? blocks[0] : 999;
                whole += count_slowly(&one, unit, again, n) == size;
            }
        }
        memcpy(again, s, sizeof s);
        assert_int_equal(bg_units_finished(&u, again, n), whole);
    }
}

static void damaged_files(void **state)
{
    (void)state;
    bg_units u = rows_of_model(20, 8);
    const bg_segment g = { 0, BG_WHOLE_MODEL, 0, 8 };
    bool done[3];
    uint64_t part[3];
    bg_store *s;
    bg_err err;
    char path[600];
    empty_folder();
    link_file("scores-00000.000000-000008.h5");
    snprintf(path, sizeof path, "%s/scores-00000.000000-000008.h5", folder);
    assert_int_equal(truncate(path, 100), 0);
    assert_int_equal(bg_units_open(&s, &u, &g, &err), BG_EFORMAT);
    assert_says(err, "scores-00000.000000-000008.h5");
    assert_says(err, "remove it, then run the same command again");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(bg_units_open(&s, &u, &g, &err), BG_EIO);
    assert_says(err, "scores-00000.000000-000008.h5");
    u.folder = "/tmp/bregman-units-absent";
    assert_int_equal(bg_units_find(&u, done, part, &err), BG_EIO);
    assert_says(err, "bregman-units-absent");
}

/* ---- writing and reading ---- */

static size_t open_files(void)
{
    size_t n = 0;
    DIR *d = opendir("/proc/self/fd");
    assert_non_null(d);
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n;
}

static void reads_all_in_order(void **state)
{
    (void)state;
    bg_units u = rows_of_model(8 * 60 + 3, 8);
    struct rlimit was, few;
    bg_units_reader *r;
    bg_rows rows;
    bg_err err;
    float x[8];
    empty_folder();
    for (uint64_t unit = 0; unit < bg_units_count(&u); unit++) {
        bg_segment g = { unit, BG_WHOLE_MODEL, 0, bg_units_size(&u, unit) };
        uint64_t cut = unit % 3 == 0 ? g.end : 2;
        write_scores(&u, g, cut);
        if (unit % 3 == 1) /* overlaps what is there; and one that is needed for nothing */
            write_scores(&u, (bg_segment){ unit, BG_WHOLE_MODEL, 1, g.end }, 3);
        if (unit % 3 != 0)
            write_scores(&u, (bg_segment){ unit, BG_WHOLE_MODEL, unit % 3 == 1 ? 1 : 2, g.end }, g.end);
    }
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
    few = was;
    few.rlim_cur = open_files() + BG_UNITS_OPEN + 4;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    assert_ok(bg_units_reader_new(&r, &u, &err), err);
    for (int pass = 0; pass < 2; pass++) {
        uint64_t at = 0;
        assert_ok(bg_units_choose(r, BG_WHOLE_MODEL, &err), err);
        for (size_t i = 0; i < bg_units_runs(r); i++) {
            assert_ok(bg_units_read(r, i, &rows, &err), err);
            assert_int_equal(rows.first, at);
            assert_true(rows.n > 0 && rows.n <= 8);
            assert_ok(bg_store_read_rows(rows.file, "score", BG_F32, (bg_slab){ rows.row, rows.n, 1 }, x, &err), err);
            for (uint64_t k = 0; k < rows.n; k++, at++) {
                assert_true(x[k] == (float)at);
                assert_int_equal(bg_units_run_of(r, at), i);
            }
        }
        assert_int_equal(at, u.n_sequences);
    }
    bg_units_reader_free(r);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
}

static void tells_what_is_missing(void **state)
{
    (void)state;
    bg_units u = of_blocks(true, 16, 8);
    bg_units_reader *r;
    bg_err err;
    empty_folder();
    link_file("covariance-00000-block-005.000000-000008.h5");
    link_file("covariance-00001-block-005.000000-000007.h5");
    assert_ok(bg_units_reader_new(&r, &u, &err), err);
    assert_int_equal(bg_units_choose(r, 5, &err), BG_EIO);
    assert_says(err, "covariance-00001-block-005.000000-000008.h5");
    assert_int_equal(bg_units_choose(r, 2, &err), BG_EIO);
    assert_says(err, "covariance-00000-block-002.000000-000008.h5");
    bg_units_reader_free(r);
}

/* A file that is cut short has the rows written so far, in all datasets, whether chunks end there or not. */
static void cuts_a_file(void **state)
{
    (void)state;
    enum { QUERIES = 6, SIDE = 3000, R = 40, KEPT = 4 }; /* a query's row has more than a chunk */
    bg_units u = of_blocks(false, QUERIES, QUERIES);
    const bg_segment g = { 0, 5, 0, QUERIES }, kept = { 0, 5, 0, KEPT };
    const uint64_t dims[3] = { QUERIES, SIDE, R };
    bg_store *s;
    bg_err err;
    uint64_t found[3];
    float *x = calloc(SIDE * R, sizeof *x), *y = calloc(SIDE * R, sizeof *y);
    assert_true(x != NULL && y != NULL);
    empty_folder();
    assert_ok(bg_units_create(&s, &u, &g, &err), err);
    assert_ok(bg_store_dataset(s, "m/left", dims, &err), err);
    assert_ok(bg_store_dataset(s, "m/rank", dims, &err), err);
    for (uint32_t q = 0; q < KEPT; q++) {
        for (size_t i = 0; i < SIDE * R; i++)
            x[i] = (float)(q * 7 + i % 1000);
        assert_ok(bg_store_write_rows(s, "m/left", q, 1, x, &err), err);
        assert_ok(bg_store_write_rows(s, "m/rank", q, 1, &q, &err), err);
    }
    assert_ok(bg_units_end(s, &u, &g, KEPT, BG_OK, &err), err);
    assert_true(bg_units_has(&u, &kept) && !bg_units_has(&u, &g));
    assert_ok(bg_units_open(&s, &u, &kept, &err), err);
    assert_ok(bg_store_dims(s, "m/left", 3, found, &err), err);
    assert_true(found[0] == KEPT && found[1] == SIDE && found[2] == R);
    for (uint32_t q = 0; q < KEPT; q++) {
        uint32_t rank;
        assert_ok(bg_store_read_rows(s, "m/left", BG_F32, (bg_slab){ q, 1, SIDE * R }, y, &err), err);
        assert_ok(bg_store_read_rows(s, "m/rank", BG_U32, (bg_slab){ q, 1, 1 }, &rank, &err), err);
        for (size_t i = 0; i < SIDE * R; i++)
            x[i] = (float)(q * 7 + i % 1000);
        assert_memory_equal(x, y, SIDE * R * sizeof *x);
        assert_int_equal(rank, q);
    }
    bg_store_close(s);
    free(x);
    free(y);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_of_work_files), cmocka_unit_test(other_names),
        cmocka_unit_test(rows_chain),          cmocka_unit_test(sums_stand_for_what_is_before),
        cmocka_unit_test(random_files),        cmocka_unit_test(damaged_files),
        cmocka_unit_test(reads_all_in_order),  cmocka_unit_test(tells_what_is_missing),
        cmocka_unit_test(cuts_a_file),
    };
    return cmocka_run_group_tests(tests, start, end);
}
