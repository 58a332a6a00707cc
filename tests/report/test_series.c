#include "test.h"

#include "report/series.h"

#include <math.h>

TEST(points_are_kept_as_they_are_until_there_are_too_many)
{
    struct series s;
    series_init(&s, "loss", 8);
    for (int i = 0; i < 8; i++)
        series_add(&s, i, 10 * i);
    CHECK_EQ(s.n, 8);
    CHECK_EQ(s.per_point, 1);
    CHECK_NEAR(series_mean(&s.points[7]), 70, 0);
    series_fini(&s);
}

/* Whatever the number of values: none is lost from count, sum, least and most. */
TEST(merged_points_keep_sums_and_extremes)
{
    for (int n = 1; n < 3000; n += 37) {
        struct series s;
        double sum = 0, count = 0, least = INFINITY, most = -INFINITY, x = -1;
        series_init(&s, "loss", 16);
        for (int i = 0; i < n; i++)
            series_add(&s, i, i == n / 3 ? 1e6 : i % 7);
        CHECK(s.n <= 16 && s.n >= i64_min(n, 8));
        for (i64 i = 0; i < s.n; i++) {
            const struct series_point *p = &s.points[i];
            CHECK(p->x_first > x && p->x_last >= p->x_first && p->count >= 1);
            CHECK(p->least <= series_mean(p) && series_mean(p) <= p->most);
            x = p->x_last;
            sum += p->sum;
            count += (double)p->count;
            least = fmin(least, p->least);
            most = fmax(most, p->most);
        }
        CHECK_NEAR(count, n, 0);
        CHECK_NEAR(x, n - 1, 0);
        CHECK_NEAR(most, 1e6, 0);
        CHECK_NEAR(least, n == 1 ? 1e6 : 0, n > 1 && n < 4 ? 1 : 0);
        double expected = 1e6 - (n / 3) % 7;
        for (int i = 0; i < n; i++)
            expected += i % 7;
        CHECK_NEAR(sum, expected, 1e-6);
        series_fini(&s);
    }
}

TEST(a_run_that_went_back_replaces_what_it_does_again)
{
    struct series s;
    series_init(&s, "loss", 8);
    for (int i = 1; i <= 6; i++)
        series_add(&s, i, i);
    series_add(&s, 4, 40);
    CHECK_EQ(s.n, 4);
    CHECK_NEAR(s.points[3].sum, 40, 0);
    CHECK_NEAR(s.points[2].sum, 3, 0);
    series_fini(&s);
}

TEST(what_is_not_finite_is_no_point)
{
    struct series s;
    series_init(&s, "loss", 8);
    series_add(&s, 1, NAN);
    series_add(&s, NAN, 1);
    series_add(&s, INFINITY, 1);
    series_add(&s, 2, -INFINITY);
    CHECK_EQ(s.n, 0);
    series_fini(&s);
}

TEST_MAIN(ONE(points_are_kept_as_they_are_until_there_are_too_many),
          ONE(merged_points_keep_sums_and_extremes),
          ONE(a_run_that_went_back_replaces_what_it_does_again),
          ONE(what_is_not_finite_is_no_point))
