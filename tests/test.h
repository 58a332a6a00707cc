/* tests/test.h - tests as sentences, on cmocka.
 *
 *     TEST(shards_cover_every_row_once) { CHECK_EQ(a, b); }
 *     TEST_MAIN(ONE(shards_cover_every_row_once), ONE(...))
 */
#ifndef HEADWAY_TEST_H
#define HEADWAY_TEST_H

#include "base/base.h"
#include "base/err.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define TEST(name) static void name(void **state __attribute__((unused)))
#define ONE(name) cmocka_unit_test(name)
#define TEST_MAIN(...)                                                                   \
    int main(void)                                                                       \
    {                                                                                    \
        const struct CMUnitTest all_tests[] = { __VA_ARGS__ };                           \
        return cmocka_run_group_tests(all_tests, NULL, NULL);                            \
    }

#define CHECK(condition)                                                                 \
    do {                                                                                 \
        if (!(condition))                                                                \
            fail_msg("%s:%d: %s", __FILE__, __LINE__, #condition);                       \
    } while (0)
#define CHECK_EQ(a, b)                                                                   \
    do {                                                                                 \
        i64 check_a_ = (i64)(a), check_b_ = (i64)(b);                                    \
        if (check_a_ != check_b_)                                                        \
            fail_msg("%s:%d: %s is %lld, expected %lld", __FILE__, __LINE__, #a,         \
                     (long long)check_a_, (long long)check_b_);                          \
    } while (0)
#define CHECK_STR(a, b) assert_string_equal((a), (b))
#define CHECK_NEAR(a, b, tolerance)                                                      \
    do {                                                                                 \
        double check_a_ = (double)(a), check_b_ = (double)(b);                           \
        double check_d_ = check_a_ - check_b_;                                           \
        if (!((check_d_ < 0 ? -check_d_ : check_d_) <= (tolerance)))                     \
            fail_msg("%s:%d: %s is %.9g, expected %.9g within %g", __FILE__, __LINE__,   \
                     #a, check_a_, check_b_, (double)(tolerance));                       \
    } while (0)
#define CHECK_OK(call)                                                                   \
    do {                                                                                 \
        int check_rc_ = (call);                                                          \
        if (check_rc_ < 0)                                                               \
            fail_msg("%s:%d: %s: %s", __FILE__, __LINE__, #call, err_message());         \
    } while (0)
/* The call must fail with this code and a message that contains the text. */
#define CHECK_FAILS(call, code, text)                                                    \
    do {                                                                                 \
        int check_rc_ = (call);                                                          \
        if (check_rc_ != (code) || !strstr(err_message(), (text)))                       \
            fail_msg("%s:%d: %s gave %d \"%s\", expected %d \"%s\"", __FILE__, __LINE__, \
                     #call, check_rc_, err_message(), (int)(code), (text));              \
    } while (0)

#endif
