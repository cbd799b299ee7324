/* check.h - cmocka with what it includes itself, and comparison of numbers. */
#ifndef BG_TESTS_UNIT_CHECK_H
#define BG_TESTS_UNIT_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bregman/status.h"

/* A status that must be OK; else its message is printed. */
#define assert_ok(status, err)         \
    do {                               \
        if ((status) != BG_OK)         \
            fail_msg("%s", (err).msg); \
    } while (0)

/* A message that must name something. */
#define assert_says(err, text)                                   \
    do {                                                         \
        if (strstr((err).msg, (text)) == NULL)                   \
            fail_msg("\"%s\" is not in: %s", (text), (err).msg); \
    } while (0)

#endif /* BG_TESTS_UNIT_CHECK_H */
