/* What is nearly in order becomes so, equal elements stay in theirs. */
#include "test.h"

#include "base/rng.h"
#include "base/sort.h"

struct item {
    int key, was; /* where it stood */
};

static int by_key(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    return (x->key > y->key) - (x->key < y->key);
}

/* Ascending runs of these lengths behind each other, with keys that repeat. */
static void check_runs(const int *lengths, int runs, u64 *draw, struct arena *a)
{
    const struct rng random = { 3, 4 };
    struct item *list;
    int n = 0, total = 0;
    for (int r = 0; r < runs; r++)
        total += lengths[r];
    list = ARENA_ARRAY(a, struct item, total);
    for (int r = 0; r < runs; r++)
        for (int i = 0, key = 0; i < lengths[r]; i++, n++) {
            key += (int)(rng_u64(&random, (*draw)++) % 3) * (total / lengths[r]);
            list[n] = (struct item){ key, n };
        }
    sort_runs(list, n, (i64)sizeof *list, by_key, a);
    for (int i = 1; i < n; i++) {
        CHECK(list[i - 1].key <= list[i].key);
        CHECK(list[i - 1].key < list[i].key || list[i - 1].was < list[i].was);
    }
}

TEST(runs_are_merged_and_equal_elements_keep_their_order)
{
    static const struct {
        int runs, lengths[5];
    } cases[] = {
        { 1, { 40 } }, { 2, { 200, 1 } }, { 2, { 200, 7 } }, { 2, { 7, 200 } }, { 2, { 50, 50 } },
        { 3, { 300, 4, 9 } }, { 4, { 1, 400, 2, 30 } }, { 5, { 100, 3, 100, 3, 100 } },
    };
    struct arena a;
    u64 draw = 0;
    arena_init(&a);
    for (int again = 0; again < 50; again++)
        for (i64 i = 0; i < COUNT_OF(cases); i++)
            check_runs(cases[i].lengths, cases[i].runs, &draw, &a);
    sort_runs(NULL, 0, (i64)sizeof(struct item), by_key, &a);
    arena_fini(&a);
}

TEST(many_numbers_and_few_ascend)
{
    static const i64 sizes[] = { 0, 1, 2, 1000, 1024, 5000 };
    const struct rng random = { 5, 6 };
    struct arena a;
    u64 draw = 0;
    arena_init(&a);
    for (i64 s = 0; s < COUNT_OF(sizes); s++) {
        const i64 n = sizes[s];
        double *x = ARENA_ARRAY(&a, double, n), sum = 0, sorted = 0;
        for (i64 i = 0; i < n; i++) { /* whole numbers, so that their sum is exact */
            x[i] = (double)((i64)(rng_u64(&random, draw++) >> 20) % 100000 - 50000);
            x[i] *= i % 7 ? 1 : 1e6;
            sum += x[i];
        }
        sort_numbers(x, n, &a);
        for (i64 i = 0; i < n; i++) {
            CHECK(i == 0 || x[i - 1] <= x[i]);
            sorted += x[i];
        }
        CHECK_NEAR(sorted, sum, 0);
    }
    arena_fini(&a);
}

/* Numbers of any size, both signs, many alike: each place has what sorting puts there. */
TEST(the_kth_number_is_found_without_sorting)
{
    static const i64 sizes[] = { 1, 2, 40, 1023, 3000 };
    const struct rng random = { 7, 8 };
    struct arena a;
    u64 draw = 0;
    arena_init(&a);
    for (i64 s = 0; s < COUNT_OF(sizes); s++) {
        const i64 n = sizes[s];
        double *x = ARENA_ARRAY(&a, double, n), *sorted = ARENA_ARRAY(&a, double, n);
        for (i64 i = 0; i < n; i++) {
            const double few = (double)((i64)(rng_u64(&random, draw++) >> 20) % 200 - 100);
            x[i] = sorted[i] = i % 3 ? few : few * 1e-9 + (i % 2 ? 1e12 : 0);
        }
        sort_numbers(sorted, n, &a);
        for (i64 k = 0; k < n; k += 1 + n / 50)
            CHECK_NEAR(sort_select(x, n, k, &a), sorted[k], 0);
        CHECK_NEAR(sort_select(x, n, n - 1, &a), sorted[n - 1], 0);
    }
    arena_fini(&a);
}

TEST_MAIN(ONE(the_kth_number_is_found_without_sorting), ONE(many_numbers_and_few_ascend),
          ONE(runs_are_merged_and_equal_elements_keep_their_order))
