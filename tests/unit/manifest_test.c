#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bregman/manifest.h"
#include "bregman/store.h"
#include "bregman/writer.h"
#include "check.h"

#define HASH_A "0123456789abcdef0123456789abcdef"
#define HASH_B "ffffffffffffffffffffffffffffffff"
static const bg_hash hash_a = { HASH_A }, hash_b = { HASH_B };

static char folder[] = "/tmp/bregman-manifest-XXXXXX/";
static char manifest[64];

static const char *in_folder(const char *name)
{
    static char path[4][128];
    static size_t next;
    char *out = path[next++ % 4];
    snprintf(out, 128, "%s%s", folder, name);
    return out;
}

static void write_bytes(const char *path, const char *text, size_t n)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void write_to(const char *path, const char *text) { write_bytes(path, text, strlen(text)); }
static void write_text(const char *text) { write_to(manifest, text); }

static bg_manifest read_back(void)
{
    bg_manifest m;
    bg_err err;
    assert_ok(bg_manifest_read(&m, folder, &err), err);
    return m;
}

/* SIZE if the name is listed, else -1. */
static int64_t look_up(const char *name)
{
    bg_err err;
    bool listed;
    bg_manifest_entry entry = { 0 };
    assert_ok(bg_manifest_lookup(in_folder(name), &listed, &entry, &err), err);
    return listed ? (int64_t)entry.size_bytes : -1;
}

static void append(const char *name, const bg_hash *hash, uint64_t size)
{
    bg_err err;
    assert_ok(bg_manifest_append(in_folder(name), hash, size, &err), err);
}

static void fold(void) { bg_manifest_close(true); }

/* No manifest at all. */
static void clear(void)
{
    char command[128];
    fold();
    snprintf(command, sizeof command, "rm -rf '%s'MANIFEST*", folder);
    assert_int_equal(system(command), 0);
}

/* ---- reading ---- */

/* As an editor of another system leaves it; and lines of the like of other programs' manifests, very long ones, NULs. */
static void odd_lines(void **state)
{
    (void)state;
    write_text(HASH_A " 7 a.h5\r\n" HASH_B " 8 b.h5\r\n\r\n");
    bg_manifest m = read_back();
    assert_int_equal(m.n, 2);
    assert_int_equal(m.n_malformed, 0);
    bg_manifest_clear(&m);
    assert_int_equal(look_up("a.h5"), 7);
    assert_int_equal(look_up("b.h5"), 8);

    enum { LONG = 1 << 20 };
    static char text[2 * LONG];
    int n = snprintf(text, sizeof text, "# made by another program\n" HASH_A "  a.h5\n" HASH_A " 7 ");
    memset(text + n, 'x', LONG);
    n += LONG + snprintf(text + n + LONG, sizeof text - (size_t)n - LONG, "\n" HASH_A " 7 c.h5\n");
    write_bytes(manifest, text, (size_t)n);
    m = read_back();
    assert_int_equal(m.n, 2);
    assert_int_equal(m.n_malformed, 2);
    assert_int_equal(strlen(m.entry[1].name), LONG);
    bg_manifest_clear(&m);
    assert_int_equal(look_up("a.h5"), -1);
    assert_int_equal(look_up("c.h5"), 7);

    memset(text, 0, 4096);
    text[4096] = '\n';
    write_bytes(manifest, text, 4097);
    m = read_back();
    assert_int_equal(m.n, 0);
    assert_int_equal(m.n_malformed, 1);
    bg_manifest_clear(&m);
}

static void none_is_empty(void **state)
{
    (void)state;
    unlink(manifest);
    bg_manifest m = read_back();
    assert_false(m.exists || m.torn);
    assert_int_equal(m.n + m.n_malformed, 0);
    assert_null(bg_manifest_find(&m, "a.h5"));
    bg_manifest_clear(&m);
    assert_int_equal(look_up("a.h5"), -1);

    write_text("");
    m = read_back();
    assert_true(m.exists);
    assert_false(m.torn);
    assert_int_equal(m.n, 0);
    bg_manifest_clear(&m);
}

static void the_last_line_for_a_name_counts(void **state)
{
    (void)state;
    write_text(HASH_A " 5 b.h5\n" HASH_A " 1 a.h5\n" HASH_B " 2 a name with spaces.h5\n" HASH_B " 6 b.h5\n" HASH_A
                      " 0 c\n");
    bg_manifest m = read_back();
    assert_int_equal(m.n, 5);
    assert_int_equal(m.n_malformed, 0);
    assert_string_equal(m.entry[0].name, "a name with spaces.h5");
    assert_string_equal(m.entry[2].name, "b.h5");
    assert_int_equal(m.entry[2].line, 1);
    assert_int_equal(m.entry[3].line, 4);
    const bg_manifest_entry *b = bg_manifest_find(&m, "b.h5");
    assert_non_null(b);
    assert_int_equal(b->size_bytes, 6);
    assert_string_equal(b->hash.hex, HASH_B);
    assert_non_null(bg_manifest_find(&m, "a.h5"));
    assert_non_null(bg_manifest_find(&m, "c"));
    assert_null(bg_manifest_find(&m, "a"));
    assert_null(bg_manifest_find(&m, "d"));
    assert_null(bg_manifest_find(&m, ""));
    bg_manifest_clear(&m);
}

static void other_lines_are_no_entries(void **state)
{
    (void)state;
    static const char text[] = HASH_A " 5 \n" /* no name */
        HASH_A " x a\n" HASH_A " -1 a\n" HASH_A " +1 a\n" HASH_A "  1 a\n" HASH_A " 1a\n" HASH_A
                                      " 99999999999999999999 a\n" /* beyond 64 bits */
        HASH_A "0 5 a\n"
                                      "0123 5 a\n"
                                      "0123456789ABCDEF0123456789abcdef 5 a\n" HASH_A " 5 ../a\n" HASH_A "\n"
                                      "free text\n" HASH_A " 5 a\0b\n"
                                      "\n/\n" /* left of a torn line: nothing to report */
        HASH_A " 7 good\n" HASH_A " 8 tor";
    write_bytes(manifest, text, sizeof text - 1);
    bg_manifest m = read_back();
    assert_int_equal(m.n, 1);
    assert_int_equal(m.n_malformed, 14);
    assert_true(m.torn);
    assert_string_equal(m.entry[0].name, "good");
    assert_int_equal(m.entry[0].line, 17);
    bg_manifest_clear(&m);
}

static void an_unreadable_one_is_an_error(void **state)
{
    (void)state;
    bg_manifest m;
    bg_err err;
    bool listed;
    bg_manifest_entry entry;
    unlink(manifest);
    assert_int_equal(mkdir(manifest, 0777), 0);
    assert_int_equal(bg_manifest_read(&m, folder, &err), BG_EIO);
    assert_says(err, manifest);
    bg_manifest_clear(&m);
    assert_int_equal(bg_manifest_lookup(in_folder("a"), &listed, &entry, &err), BG_EIO);
    assert_int_equal(rmdir(manifest), 0);
    write_bytes(in_folder("MANIFEST.d"), "", 0);
    assert_int_equal(bg_manifest_append(in_folder("a"), &hash_a, 1, &err), BG_EIO);
    assert_says(err, "MANIFEST.d");
    clear();
    assert_int_equal(bg_manifest_append(in_folder("none/a"), &hash_a, 1, &err), BG_EIO);
    assert_says(err, "none/MANIFEST");
}

/* ---- appending ---- */

static void append_then_read(void **state)
{
    (void)state;
    clear();
    append("a.h5", &hash_a, 10);
    append("b c.h5", &hash_b, UINT64_MAX);
    append("a.h5", &hash_b, 11);
    bg_manifest m = read_back();
    assert_int_equal(m.n, 3);
    assert_int_equal(bg_manifest_find(&m, "a.h5")->size_bytes, 11);
    assert_true(bg_manifest_find(&m, "b c.h5")->size_bytes == UINT64_MAX);
    bg_manifest_clear(&m);
    assert_int_equal(access(manifest, F_OK), -1);

    /* folded: all lines as they were; the next come after them */
    fold();
    assert_int_equal(access(in_folder("MANIFEST.d"), F_OK), -1);
    append("c.h5", &hash_a, 12);
    append("b c.h5", &hash_a, 13);
    m = read_back();
    assert_int_equal(m.n, 5);
    assert_int_equal(bg_manifest_find(&m, "a.h5")->size_bytes, 11);
    assert_int_equal(bg_manifest_find(&m, "b c.h5")->size_bytes, 13);
    bg_manifest_clear(&m);

    /* of two lines that one counts which has the file's size */
    write_bytes(in_folder("a.h5"), "0123456789", 10);
    append("a.h5", &hash_a, 10);
    append("a.h5", &hash_b, 11);
    assert_int_equal(look_up("a.h5"), 10);
    fold();
    assert_int_equal(look_up("a.h5"), 10);
    assert_int_equal(unlink(in_folder("a.h5")), 0);
}

/* What a folder's MANIFEST said stays, another program's too, and so do all lines of a name: of two attempts that
 * published a file in the same moment either may be the last to list it. */
static void a_fold_keeps_what_there_was(void **state)
{
    (void)state;
    static const char strange[] = "# data of another program, version 2\n0123  data.csv";
    static const time_t long_ago = 1000000000;
    const struct timespec at[2] = { { .tv_sec = long_ago }, { .tv_sec = long_ago } };
    char name[BG_WRITER_BYTES], path[256], text[1024], wanted[1024];
    struct stat about;
    clear();
    write_text(strange);
    assert_int_equal(utimensat(AT_FDCWD, manifest, at, 0), 0);
    append("a.h5", &hash_a, 10);
    append("a.h5", &hash_b, 10);
    bg_manifest_close(false);
    snprintf(path, sizeof path, "find '%sMANIFEST.d' -type f -exec touch -d @%ld {} +", folder, (long)long_ago + 7);
    assert_int_equal(system(path), 0);
    bg_writer_name(name);
    snprintf(path, sizeof path, "%sMANIFEST.d/%s", folder, name); /* cut off, and older than the other */
    write_bytes(path, HASH_B " 3 c.h5\n" HASH_B " 4 d", 32 + 8 + 32 + 4);
    assert_int_equal(utimensat(AT_FDCWD, path, at, 0), 0);
    append("b.h5", &hash_a, 11);
    assert_int_equal(stat(in_folder("MANIFEST.d"), &about), 0);
    fold();
    assert_int_equal(access(in_folder("MANIFEST.d"), F_OK), -1);
    FILE *f = fopen(manifest, "r");
    assert_non_null(f);
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    assert_int_equal(fclose(f), 0);
    snprintf(wanted, sizeof wanted, "%s/\n%s 3 c.h5\n%s 4 d/\n%s 10 a.h5\n%s 10 a.h5\n%s 11 b.h5\n", strange, HASH_B,
             HASH_B, HASH_A, HASH_B, HASH_A);
    assert_string_equal(text, wanted);
}

/* A line that does not fit on the disk leaves nothing that the next one would be put behind. */
static void a_line_that_fails_spoils_none(void **state)
{
    (void)state;
    bg_err err;
    clear();
    append("a.h5", &hash_a, 1);
    const struct rlimit small = { .rlim_cur = 60, .rlim_max = RLIM_INFINITY },
                        none = { .rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY };
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    bg_status st = bg_manifest_append(in_folder("b.h5"), &hash_a, 2, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
    assert_int_equal(st, BG_EIO);
    append("c.h5", &hash_a, 3);
    bg_manifest m = read_back();
    assert_int_equal(m.n, 2);
    assert_int_equal(m.n_malformed, 0);
    assert_false(m.torn);
    bg_manifest_clear(&m);
    assert_int_equal(look_up("c.h5"), 3);
}

/* Cut at every byte of a line: the others are whole, and nothing is made of the rest. */
static void any_cut_leaves_the_other_lines(void **state)
{
    (void)state;
    static const char whole[] = HASH_A " 1234 a.h5.b.h5\n";
    for (size_t cut = 0; cut < sizeof whole - 1; cut++) {
        char text[2 * sizeof whole];
        snprintf(text, sizeof text, "%s%.*s", HASH_B " 1 first\n", (int)cut, whole);
        clear();
        write_text(text);
        append("next", &hash_b, 2);
        append("last", &hash_b, 3);
        bg_manifest m = read_back();
        assert_int_equal(m.torn, cut > 0);
        bg_manifest_clear(&m);
        fold();
        m = read_back();
        assert_false(m.torn);
        assert_int_equal(m.n, 3);
        assert_int_equal(m.n_malformed, cut > 0); /* it is closed, not made an entry */
        assert_non_null(bg_manifest_find(&m, "first"));
        assert_non_null(bg_manifest_find(&m, "next"));
        assert_non_null(bg_manifest_find(&m, "last"));
        bg_manifest_clear(&m);
    }
}

static void writers_do_not_mix(void **state)
{
    (void)state;
    enum { WRITERS = 4, LINES = 100 };
    pid_t child[WRITERS];
    clear();
    for (int w = 0; w < WRITERS; w++) {
        assert_true((child[w] = fork()) >= 0);
        if (child[w] == 0) {
            char name[64];
            bg_status st = BG_OK;
            for (int i = 0; i < LINES && st == BG_OK; i++) {
                snprintf(name, sizeof name, "unit-%d-%03d.h5", w, i);
                st = bg_manifest_append(in_folder(name), &hash_a, (uint64_t)i, NULL);
            }
            _exit(st != BG_OK);
        }
    }
    for (int w = 0; w < WRITERS; w++) {
        int status = -1;
        assert_int_equal(waitpid(child[w], &status, 0), child[w]);
        assert_int_equal(status, 0);
    }
    bg_manifest m = read_back();
    assert_int_equal(m.n, WRITERS * LINES);
    assert_int_equal(m.n_malformed, 0);
    bg_manifest_clear(&m);
    append("after", &hash_a, 1);
    fold(); /* the children are gone */
    assert_int_equal(access(in_folder("MANIFEST.d"), F_OK), -1);
    m = read_back();
    assert_int_equal(m.n, WRITERS * LINES + 1);
    bg_manifest_clear(&m);
}

/* The name of a writer in MANIFEST.d: of another host, of none that can be told, of this host's living or dead. */
enum { FOREIGN, STRANGE, ALIVE, DEAD, N_OTHERS };

static const char *file_of_other(int who, const char *suffix)
{
    static char path[512];
    char name[BG_WRITER_BYTES], alike[2 * BG_WRITER_BYTES], *pid;
    bg_writer_name(name);
    assert_non_null(pid = strstr(name, "-"));
    snprintf(alike, sizeof alike, "%.*s-%ld.%d-00000000", (int)(pid - name), name, (long)getppid(), who == DEAD);
    snprintf(path, sizeof path, "%sMANIFEST.d/%s%s", folder,
             who == FOREIGN   ? "node7.0123abcd.1-12-00000000"
             : who == STRANGE ? "strange"
                              : alike,
             suffix);
    return path;
}

/* What may still be written to stays, and what was closed is folded all the same; a torn line costs itself. */
static void others_at_work_are_left_alone(void **state)
{
    (void)state;
    for (int who = 0; who < N_OTHERS; who++) {
        clear();
        append("mine", &hash_a, 1);
        const char *path = file_of_other(who, BG_MANIFEST_OPEN);
        write_to(path, HASH_B " 2 theirs\n" HASH_B " 3 to");
        write_to(in_folder("MANIFEST.d/closed"), HASH_B " 5 closed\n");
        fold();
        assert_int_equal(access(path, F_OK), who == DEAD ? -1 : 0);
        assert_int_equal(access(in_folder("MANIFEST.d/closed"), F_OK), -1);
        assert_int_equal(access(in_folder("MANIFEST.d"), F_OK), who == DEAD ? -1 : 0);
        assert_int_equal(access(manifest, F_OK), 0);
        assert_int_equal(look_up("mine"), 1);
        assert_int_equal(look_up("theirs"), 2);
        assert_int_equal(look_up("closed"), 5);
        if (who != DEAD) { /* its lines come to stay when somebody has closed it */
            assert_int_equal(rename(path, in_folder("MANIFEST.d/was open")), 0);
            append("more", &hash_a, 4);
            fold();
            assert_int_equal(access(in_folder("MANIFEST.d"), F_OK), -1);
            assert_int_equal(look_up("more"), 4);
        }
        assert_int_equal(look_up("mine"), 1);
        assert_int_equal(look_up("theirs"), 2);
    }
}

/* While another's flag is up, and it is not surely dead, all stays where it is. */
static void one_folds_at_a_time(void **state)
{
    (void)state;
    for (int who = 0; who < N_OTHERS; who++) {
        clear();
        append("mine", &hash_a, 1);
        const char *flag = file_of_other(who, BG_MANIFEST_FOLD);
        write_to(flag, "");
        fold();
        assert_int_equal(access(flag, F_OK), who == DEAD ? -1 : 0);
        assert_int_equal(access(manifest, F_OK), who == DEAD ? 0 : -1);
        assert_int_equal(access(in_folder("MANIFEST.d"), F_OK), who == DEAD ? -1 : 0);
        assert_int_equal(look_up("mine"), 1);
        if (who != DEAD) {
            assert_int_equal(unlink(flag), 0);
            append("more", &hash_a, 2);
            fold();
            assert_int_equal(access(in_folder("MANIFEST.d"), F_OK), -1);
            assert_int_equal(look_up("mine"), 1);
            assert_int_equal(look_up("more"), 2);
        }
    }
}

/* Processes that begin, list and fold as it comes: no line is lost, whenever who looks. */
static void folds_at_once_lose_nothing(void **state)
{
    (void)state;
    enum { WRITERS = 4, ROUNDS = 40 };
    pid_t child[WRITERS];
    clear();
    for (int w = 0; w < WRITERS; w++) {
        assert_true((child[w] = fork()) >= 0);
        if (child[w] == 0) {
            bg_status st = BG_OK;
            for (int i = 0; i < ROUNDS && st == BG_OK; i++) {
                char name[64];
                bool listed = false;
                bg_manifest_entry entry;
                snprintf(name, sizeof name, "file-%d-%03d.h5", w, i);
                st = bg_manifest_append(in_folder(name), &hash_a, (uint64_t)i, NULL);
                bg_manifest_close(true);
                for (int k = 0; k <= i && st == BG_OK; k++) {
                    snprintf(name, sizeof name, "file-%d-%03d.h5", w, k);
                    st = bg_manifest_lookup(in_folder(name), &listed, &entry, NULL);
                    st = st == BG_OK && !listed ? BG_EIO : st;
                }
            }
            _exit(st != BG_OK);
        }
    }
    for (int w = 0; w < WRITERS; w++) {
        int status = -1;
        assert_int_equal(waitpid(child[w], &status, 0), child[w]);
        assert_int_equal(status, 0);
    }
    bg_manifest m = read_back();
    for (int i = 0; i < WRITERS * ROUNDS; i++) {
        char name[64];
        snprintf(name, sizeof name, "file-%d-%03d.h5", i / ROUNDS, i % ROUNDS);
        assert_non_null(bg_manifest_find(&m, name));
    }
    bg_manifest_clear(&m);
    append("after", &hash_a, 1);
    fold();
    assert_int_equal(access(in_folder("MANIFEST.d"), F_OK), -1);
    m = read_back();
    assert_int_equal(m.n, WRITERS * ROUNDS + 1); /* and none is there twice */
    bg_manifest_clear(&m);
}

/* What happens while a folder is read: a file that is listed under its open name is closed at once; or it is closed
 * behind the reader's back, which then meets neither name.  While it is folded: somebody takes the flag away, or writes
 * another MANIFEST, or takes a file that is being folded. */
static enum { NOTHING, CLOSE_BEHIND, HIDE, TAKE_FLAG, REWRITE, TAKE_FILE } meanwhile;

struct dirent *readdir(DIR *dir)
{
    struct dirent *(*next)(DIR *);
    const void *found = dlsym(RTLD_NEXT, "readdir");
    memcpy(&next, &found, sizeof next);
    struct dirent *e = next(dir);
    size_t n = e != NULL ? strlen(e->d_name) : 0;
    if (meanwhile == TAKE_FLAG && n > 5 && strcmp(e->d_name + n - 5, ".fold") == 0) {
        assert_int_equal(unlinkat(dirfd(dir), e->d_name, 0), 0);
        meanwhile = NOTHING;
    }
    if ((meanwhile != CLOSE_BEHIND && meanwhile != HIDE) || n < 5 || strcmp(e->d_name + n - 5, ".open") != 0)
        return e;
    char closed[256];
    snprintf(closed, sizeof closed, "%.*s", (int)n - 5, e->d_name);
    assert_int_equal(renameat(dirfd(dir), e->d_name, dirfd(dir), closed), 0);
    bool hides = meanwhile == HIDE;
    meanwhile = NOTHING;
    return hides ? next(dir) : e;
}

static void no_line_is_missed_while_files_are_closed(void **state)
{
    (void)state;
    for (int how = CLOSE_BEHIND; how <= HIDE; how++) {
        clear();
        write_text(HASH_A " 1 early\n");
        append("late", &hash_a, 2);
        meanwhile = how;
        bg_manifest m = read_back();
        assert_int_equal(meanwhile, NOTHING);
        assert_non_null(bg_manifest_find(&m, "early"));
        assert_non_null(bg_manifest_find(&m, "late"));
        bg_manifest_clear(&m);
    }
}

/* As it is called by a fold for the new MANIFEST, which has been written by then. */
int fsync(int fd)
{
    int (*next)(int);
    const void *found = dlsym(RTLD_NEXT, "fsync");
    memcpy(&next, &found, sizeof next);
    char link[64], path[512] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if ((meanwhile == REWRITE || meanwhile == TAKE_FILE) && readlink(link, path, sizeof path - 1) > 0 &&
        strstr(path, "MANIFEST.tmp-") != NULL) {
        if (meanwhile == REWRITE)
            write_text(HASH_B " 9 new.h5\n");
        else
            assert_int_equal(unlink(in_folder("MANIFEST.d/closed")), 0);
        meanwhile = NOTHING;
    }
    return next(fd);
}

/* It is not alone, whoever is to blame: nothing is taken away. */
static void a_fold_that_is_disturbed_gives_up(void **state)
{
    (void)state;
    static const char old[] = HASH_A " 1 old\n";
    for (int how = TAKE_FLAG; how <= TAKE_FILE; how++) {
        struct stat about;
        clear();
        write_text(old);
        append("mine", &hash_a, 2);
        write_to(in_folder("MANIFEST.d/closed"), HASH_B " 5 closed\n");
        meanwhile = how == TAKE_FLAG ? TAKE_FLAG : how == REWRITE ? REWRITE : TAKE_FILE;
        fold();
        assert_int_equal(meanwhile, NOTHING);
        assert_int_equal(stat(manifest, &about), 0);
        assert_int_equal(about.st_size, how == REWRITE ? 42 : (off_t)strlen(old));
        assert_int_equal(look_up("mine"), 2);
        assert_int_equal(look_up("closed"), how == TAKE_FILE ? -1 : 5);
        char command[128];
        snprintf(command, sizeof command, "! ls '%s' '%sMANIFEST.d' | grep -q 'tmp-\\|[.]fold'", folder, folder);
        assert_int_equal(system(command), 0);
        append("more", &hash_a, 3);
        fold();
        assert_int_equal(access(in_folder("MANIFEST.d"), F_OK), -1);
        assert_int_equal(look_up("mine"), 2);
        assert_int_equal(look_up("more"), 3);
    }
}

/* ---- asking ---- */

static void lookup_sees_every_change(void **state)
{
    (void)state;
    clear();
    assert_int_equal(look_up("a"), -1);
    append("a", &hash_a, 1);
    assert_int_equal(look_up("a"), 1);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(bg_manifest_append(in_folder("b"), &hash_a, 2, NULL) != BG_OK);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(look_up("b"), 2);
    assert_int_equal(look_up("a"), 1);

    /* another file of the same size under its name */
    fold();
    assert_int_equal(look_up("a"), 1);
    write_bytes(in_folder("new"), HASH_A " 3 a\n", 37);
    assert_int_equal(rename(in_folder("new"), manifest), 0);
    assert_int_equal(look_up("a"), 3);
    assert_int_equal(look_up("b"), -1);
    assert_int_equal(unlink(manifest), 0);
    assert_int_equal(look_up("a"), -1);

    /* another folder between */
    append("a", &hash_a, 4);
    assert_int_equal(mkdir(in_folder("other"), 0777), 0);
    append("other/a", &hash_a, 5);
    assert_int_equal(look_up("a"), 4);
    assert_int_equal(look_up("other/a"), 5);
    assert_int_equal(look_up("a"), 4);
}

/* Times of the future and of the past mean nothing; only that one changed does. */
static void clocks_do_not_count(void **state)
{
    (void)state;
    static const time_t times[] = { 4000000000, 1, 1000000000, 0 };
    clear();
    append("a", &hash_a, 1);
    fold();
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        char text[64];
        const struct timespec at[2] = { { .tv_sec = times[i] }, { .tv_sec = times[i] } };
        assert_int_equal(look_up("a"), (int64_t)i + 1);
        snprintf(text, sizeof text, HASH_A " %zu a\n", i + 2); /* same file, same size */
        write_text(text);
        assert_int_equal(utimensat(AT_FDCWD, manifest, at, 0), 0);
        assert_int_equal(look_up("a"), (int64_t)i + 2);
        append("b", &hash_a, i);
        assert_int_equal(look_up("b"), (int64_t)i);
        fold();
        write_text(text);
    }
}

/* ---- waiting ---- */

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void listed_files_are_waited_for(void **state)
{
    (void)state;
    bg_err err;
    int fd;
    clear();
    append("late.h5", &hash_a, 1);
    write_bytes(in_folder("early"), "x", 1);
    double start = now_s();
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        nanosleep(&(struct timespec){ .tv_nsec = 400000000 }, NULL);
        _exit(rename(in_folder("early"), in_folder("late.h5")) != 0);
    }
    assert_ok(bg_manifest_open_file(in_folder("late.h5"), &fd, &err), err);
    assert_true(now_s() - start > 0.3 && now_s() - start < 4);
    close(fd);
    assert_int_equal(waitpid(child, NULL, 0), child);

    /* never there */
    assert_int_equal(unlink(in_folder("late.h5")), 0);
    assert_int_equal(bg_manifest_open_file(in_folder("late.h5"), &fd, &err), BG_EIO);
    assert_says(err, "late.h5\": No such file or directory, though its folder's MANIFEST lists it");

    /* not listed: no wait */
    start = now_s();
    assert_int_equal(bg_manifest_open_file(in_folder("absent.h5"), &fd, &err), BG_EIO);
    assert_says(err, "absent.h5\": No such file");
    assert_null(strstr(err.msg, "MANIFEST"));
    assert_int_equal(bg_manifest_open_file(in_folder("late.h5/x"), &fd, &err), BG_EIO);
    assert_true(now_s() - start < 0.3);
}

static int make_folder(void **state)
{
    (void)state;
    folder[strlen(folder) - 1] = '\0';
    if (mkdtemp(folder) == NULL)
        return 1;
    strcat(folder, "/");
    snprintf(manifest, sizeof manifest, "%sMANIFEST", folder);
    return 0;
}

static int remove_all(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(none_is_empty),
        cmocka_unit_test(odd_lines),
        cmocka_unit_test(the_last_line_for_a_name_counts),
        cmocka_unit_test(other_lines_are_no_entries),
        cmocka_unit_test(an_unreadable_one_is_an_error),
        cmocka_unit_test(append_then_read),
        cmocka_unit_test(a_fold_keeps_what_there_was),
        cmocka_unit_test(a_line_that_fails_spoils_none),
        cmocka_unit_test(any_cut_leaves_the_other_lines),
        cmocka_unit_test(writers_do_not_mix),
        cmocka_unit_test(others_at_work_are_left_alone),
        cmocka_unit_test(one_folds_at_a_time),
        cmocka_unit_test(folds_at_once_lose_nothing),
        cmocka_unit_test(no_line_is_missed_while_files_are_closed),
        cmocka_unit_test(a_fold_that_is_disturbed_gives_up),
        cmocka_unit_test(lookup_sees_every_change),
        cmocka_unit_test(clocks_do_not_count),
        cmocka_unit_test(listed_files_are_waited_for),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_all);
}
