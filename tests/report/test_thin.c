#include "test.h"

#include "base/rng.h"
#include "report/thin.h"

#include <stdlib.h>

enum { MOST = 5000 };

/* Back to back or with gaps, of lengths from 1 to 100,000 ns. */
static i64 make(struct thin_span *spans, i64 n, u64 seed, i64 *busy)
{
    struct rng r = { seed, 1 };
    i64 at = 1000;
    *busy = 0;
    for (i64 i = 0; i < n; i++) {
        u64 bits = rng_u64(&r, (u64)i);
        i64 length = 1 + (i64)(bits % (bits & 1 << 20 ? 100000 : 500));
        at += bits >> 40 & 1 ? (i64)(bits >> 41 & 4095) : 0;
        spans[i] = (struct thin_span){ at, at + length, (u32)i, 1, (u32)(bits >> 60), length,
                                       length };
        at += length;
        *busy += length;
    }
    return at;
}

TEST(few_spans_stay_as_they_are)
{
    struct thin_span spans[10];
    i64 busy, resolution, end = make(spans, 10, 3, &busy);
    CHECK_EQ(thin_spans(spans, 10, 10, &resolution), 10);
    CHECK_EQ(resolution, 0);
    CHECK_EQ(spans[9].end_ns, end);
    CHECK_EQ(thin_spans(spans, 0, 5, &resolution), 0);
}

/* None is lost, they stay in order, those longer than the resolution are their own, and what was
 * joined is shorter than it. */
TEST(thinned_spans_account_for_all)
{
    static struct thin_span spans[MOST], before[MOST];
    for (u64 seed = 0; seed < 60; seed++) {
        i64 n = 1 + (i64)(seed * 83 % MOST), most = 1 + (i64)(seed * seed % 97), busy, resolution;
        i64 end = make(spans, n, seed, &busy), count = 0, sum = 0, begin = spans[0].begin_ns;
        memcpy(before, spans, sizeof before);
        i64 left = thin_spans(spans, n, most, &resolution);
        CHECK(left >= 1 && left <= i64_max(most, 1));
        CHECK(left == n || resolution > 0);
        CHECK_EQ(spans[0].begin_ns, begin);
        CHECK_EQ(spans[left - 1].end_ns, end);
        for (i64 i = 0; i < left; i++) {
            const struct thin_span *s = &spans[i];
            CHECK(i == 0 || s->begin_ns >= spans[i - 1].end_ns);
            CHECK(s->count == 1 || s->end_ns - s->begin_ns <= resolution);
            CHECK(before[s->name].kind == s->kind && s->longest_ns <= s->end_ns - s->begin_ns);
            CHECK(before[s->name].end_ns - before[s->name].begin_ns == s->longest_ns);
            count += s->count;
            sum += s->busy_ns;
        }
        CHECK_EQ(count, n);
        CHECK_EQ(sum, busy);
    }
}

TEST(spans_in_any_order_are_sorted)
{
    struct thin_span spans[] = { { 50, 60, 0, 1, 0, 10, 10 }, { 0, 10, 1, 1, 0, 10, 10 },
                                 { 20, 90, 2, 1, 0, 70, 70 } };
    i64 resolution;
    CHECK_EQ(thin_spans(spans, 3, 3, &resolution), 3);
    CHECK(spans[0].name == 1 && spans[1].name == 2 && spans[2].name == 0);
    CHECK_EQ(thin_spans(spans, 3, 1, &resolution), 1);
    CHECK(spans[0].end_ns == 90 && spans[0].count == 3 && spans[0].name == 2);
}

TEST_MAIN(ONE(few_spans_stay_as_they_are), ONE(thinned_spans_account_for_all),
          ONE(spans_in_any_order_are_sorted))
