#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bregman/store.h"
#include "bregman/writer.h"
#include "check.h"

static char folder[] = "/tmp/bregman-writer-XXXXXX";

/* The name of a process that has ended, also while nobody has asked how. */
static void dead_name(char out[BG_WRITER_BYTES])
{
    siginfo_t ended;
    int names[2];
    assert_int_equal(pipe(names), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        char name[BG_WRITER_BYTES] = "";
        bg_writer_name(name);
        _exit(write(names[1], name, sizeof name) != sizeof name);
    }
    int status = -1;
    assert_int_equal(read(names[0], out, BG_WRITER_BYTES), BG_WRITER_BYTES);
    assert_int_equal(waitid(P_PID, (id_t)child, &ended, WEXITED | WNOWAIT), 0);
    assert_true(bg_writer_is_dead(out));
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    close(names[0]);
    close(names[1]);
}

static void names_differ(void **state)
{
    (void)state;
    char a[BG_WRITER_BYTES], b[BG_WRITER_BYTES];
    bg_writer_name(a);
    bg_writer_name(b);
    assert_string_not_equal(a, b);
    assert_null(strchr(a, '/'));
}

/* `name` with what stands between two marks replaced. */
static const char *with(const char *name, const char *from, const char *to, const char *instead)
{
    static char out[2 * BG_WRITER_BYTES];
    const char *begin = strstr(name, from), *end;
    assert_non_null(begin);
    assert_non_null(end = strstr(begin + strlen(from), to));
    snprintf(out, sizeof out, "%.*s%s%s", (int)(begin - name + (ptrdiff_t)strlen(from)), name, instead, end);
    return out;
}

static void only_the_surely_dead_are_dead(void **state)
{
    (void)state;
    char own[BG_WRITER_BYTES], dead[BG_WRITER_BYTES], pid[32], mark[64];
    bg_writer_name(own);
    dead_name(dead);
    assert_false(bg_writer_is_dead(own));
    assert_true(bg_writer_is_dead(dead));
    snprintf(pid, sizeof pid, "%ld.", (long)getpid());
    snprintf(mark, sizeof mark, "-%s", pid);
    assert_true(bg_writer_is_dead(with(own, mark, "-", "7")));  /* its number is another process's now */
    assert_false(bg_writer_is_dead(with(own, mark, "-", "0"))); /* nobody could tell when it began */

    /* of other hosts, boots and containers, and what is no name at all */
    char there[2 * BG_WRITER_BYTES];
    snprintf(there, sizeof there, "x%s", dead);
    assert_false(bg_writer_is_dead(there));
    assert_false(bg_writer_is_dead(with(dead, ".", ".", "00000000")));
    const char *second = strchr(strchr(dead, '.') + 1, '.');
    snprintf(there, sizeof there, "%.*s.1%s", (int)(second - dead), dead, strchr(second, '-'));
    assert_false(bg_writer_is_dead(there));
    for (size_t n = 0; n < strlen(dead); n++) {
        snprintf(there, sizeof there, "%.*s", (int)n, dead);
        assert_false(bg_writer_is_dead(there));
    }
    snprintf(there, sizeof there, "%s0", dead);
    assert_false(bg_writer_is_dead(there));
    assert_false(bg_writer_is_dead(with(dead, "-", "-", "99999999999.1")));
    assert_false(bg_writer_is_dead(with(dead, "-", "-", "-1.1")));
}

static const char *make(const char *name, const char *writer)
{
    static char path[4 * BG_WRITER_BYTES];
    snprintf(path, sizeof path, "%s/%s%s", folder, name, writer);
    int fd = open(path, O_WRONLY | O_CREAT, 0666);
    assert_true(fd >= 0);
    close(fd);
    return path;
}

static bool is_there(const char *name, const char *writer)
{
    char path[4 * BG_WRITER_BYTES];
    snprintf(path, sizeof path, "%s/%s%s", folder, name, writer);
    return access(path, F_OK) == 0;
}

static void leftovers_of_the_dead_go(void **state)
{
    (void)state;
    static const char foreign[] = "node7.0123abcd.4026531836-12.345-0a1b2c3d";
    char own[BG_WRITER_BYTES], dead[BG_WRITER_BYTES], prefix[128];
    bg_err err;
    bg_writer_name(own);
    dead_name(dead);
    make("c.h5.tmp-", dead);
    make("c.h5.tmp-", own);
    make("c.h5.tmp-", foreign);
    make("d.h5.tmp-", dead);
    make("c.h5", "");
    make("notes.tmp-", "mine");

    snprintf(prefix, sizeof prefix, "%s/c.h5", folder);
    assert_ok(bg_remove_leftovers(prefix, &err), err);
    assert_false(is_there("c.h5.tmp-", dead));
    assert_true(is_there("c.h5.tmp-", own) && is_there("c.h5.tmp-", foreign) && is_there("c.h5", "") &&
                is_there("d.h5.tmp-", dead));

    snprintf(prefix, sizeof prefix, "%s/", folder);
    assert_ok(bg_remove_leftovers(prefix, &err), err);
    assert_false(is_there("d.h5.tmp-", dead));
    assert_true(is_there("c.h5.tmp-", own) && is_there("c.h5.tmp-", foreign) && is_there("c.h5", "") &&
                is_there("notes.tmp-", "mine"));

    snprintf(prefix, sizeof prefix, "%s/none/c.h5", folder);
    assert_ok(bg_remove_leftovers(prefix, &err), err);
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) == NULL;
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
        cmocka_unit_test(names_differ),
        cmocka_unit_test(only_the_surely_dead_are_dead),
        cmocka_unit_test(leftovers_of_the_dead_go),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_all);
}
