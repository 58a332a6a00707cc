#include "test.h"

#include "data/mixture.h"

#include <stdlib.h>

static struct arena arena;

static struct mixture make(const struct mixture_source *s, i64 n)
{
    struct mixture m;
    mixture_init(&m, s, n, &arena);
    return m;
}

TEST(each_source_stays_within_two_samples_of_its_share)
{
    const struct mixture_source s[] = { { 100, 0.5, INT64_MAX },
                                        { 7, 0.3, INT64_MAX },
                                        { 1000, 0.2, INT64_MAX } };
    struct mixture m = make(s, 3);
    i64 seen[3] = { 0 };
    CHECK_EQ(m.samples, INT64_MAX);
    for (i64 g = 0; g < 3 * MIXTURE_BLOCK; g++) {
        int source;
        i64 nth;
        mixture_at(&m, g, &source, &nth);
        CHECK_EQ(nth, seen[source]);
        seen[source]++;
        for (int i = 0; i < 3; i++) {
            /* Weights become multiples of 1/4096: half a place per block, twice. */
            CHECK_NEAR(seen[i], s[i].weight * (double)(g + 1), 2.0 + 3 * 0.5);
            CHECK_EQ(mixture_used(&m, g + 1, i), seen[i]);
        }
    }
    arena_fini(&arena);
}

TEST(a_tiny_weight_still_gets_its_turn)
{
    const struct mixture_source s[] = { { 10, 1e9, INT64_MAX }, { 10, 1e-9, INT64_MAX } };
    struct mixture m = make(s, 2);
    CHECK_EQ(mixture_used(&m, MIXTURE_BLOCK, 1), 1);
    CHECK_EQ(mixture_used(&m, 1000 * (i64)MIXTURE_BLOCK, 1), 1000);
    arena_fini(&arena);
}

TEST(capped_sources_give_all_they_have_and_no_more)
{
    const struct mixture_source s[] = { { 10, 1, 5 },
                                        { 10, 2, 12345 },
                                        { 10, 0.001, 3 },
                                        { 10, 1, 20000 } };
    struct mixture m = make(s, 4);
    i64 seen[4] = { 0 };
    CHECK_EQ(m.samples, 5 + 12345 + 3 + 20000);
    for (i64 g = 0; g < m.samples; g++) {
        int source;
        i64 nth;
        mixture_at(&m, g, &source, &nth);
        CHECK_EQ(nth, seen[source]);
        seen[source]++;
    }
    for (int i = 0; i < 4; i++)
        CHECK_EQ(seen[i], s[i].limit);
    arena_fini(&arena);
}

TEST(dropping_a_source_changes_nothing_before_it)
{
    enum { AT = 7000 };
    const struct mixture_source s[] = { { 10, 1, INT64_MAX }, { 10, 3, INT64_MAX } };
    struct mixture m = make(s, 2), before = make(s, 2);
    mixture_set_limit(&m, 1, mixture_used(&m, AT, 1));
    for (i64 g = 0; g < AT; g++) {
        int a, b;
        i64 x, y;
        mixture_at(&m, g, &a, &x);
        mixture_at(&before, g, &b, &y);
        CHECK(a == b && x == y);
    }
    for (i64 g = AT; g < 3 * AT; g++) {
        int source;
        i64 nth;
        mixture_at(&m, g, &source, &nth);
        CHECK_EQ(source, 0);
        CHECK_EQ(nth, mixture_used(&before, AT, 0) + g - AT);
    }
    arena_fini(&arena);
}

TEST(many_sources_share_a_block_exactly)
{
    struct mixture_source s[MIXTURE_SOURCES];
    for (int i = 0; i < MIXTURE_SOURCES; i++)
        s[i] = (struct mixture_source){ 1 + i, 1.0 / (1 + i), INT64_MAX };
    struct mixture m = make(s, MIXTURE_SOURCES);
    i64 sum = 0;
    for (int i = 0; i < MIXTURE_SOURCES; i++)
        sum += mixture_used(&m, MIXTURE_BLOCK, i);
    CHECK_EQ(sum, MIXTURE_BLOCK);
    arena_fini(&arena);
}

TEST_MAIN(ONE(each_source_stays_within_two_samples_of_its_share),
          ONE(a_tiny_weight_still_gets_its_turn),
          ONE(capped_sources_give_all_they_have_and_no_more),
          ONE(dropping_a_source_changes_nothing_before_it),
          ONE(many_sources_share_a_block_exactly))
