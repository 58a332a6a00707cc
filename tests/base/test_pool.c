/* The pool of threads: every part is done once, and what measuring says of the threads' work. */
#include "test.h"

#include "base/pool.h"
#include "base/sys.h"
#include "base/sys_share.h"
#include "base/sys_usage.h"

enum { PARTS = 1000, THREADS = 3, MS = 1000 * 1000 };

static void count_part(void *context, i64 part, int thread)
{
    int *counts = context;
    CHECK(thread >= 0 && thread < THREADS);
    counts[part]++; /* one thread has it */
}

TEST(every_part_is_done_once)
{
    static int counts[PARTS];
    struct pool *p;
    CHECK_OK(pool_new(&p, THREADS, false));
    for (int round = 1; round <= 5; round++) {
        pool_run(p, PARTS, count_part, counts);
        for (int i = 0; i < PARTS; i++)
            CHECK_EQ(counts[i], round);
    }
    pool_free(p);
}

/* One part's work: the processor is kept for some time, then left for some. */
struct chore {
    u64 spin_ns, sleep_ns;
    double on_cpu; /* ns, as the part itself has read them */
};

static void work_and_rest(void *context, i64 part, int thread)
{
    struct chore *c = context;
    (void)part, (void)thread;
    const double cpu = sys_thread_cpu_seconds();
    const u64 until = sys_now_ns() + c->spin_ns;
    while (sys_now_ns() < until)
        sys_pause();
    if (c->sleep_ns > 0)
        sys_sleep_ns(c->sleep_ns);
    c->on_cpu = 1e9 * (sys_thread_cpu_seconds() - cpu);
}

/* Rounds that follow each other at once share what they read of the processor's time; one behind a
 * pause does not, else the pause would count as work before it. */
TEST(time_on_a_processor_is_that_of_the_part)
{
    struct chore chores[] = { { 2 * MS, 0, 0 }, { MS, 4 * MS, 0 }, { 2 * MS, 0, 0 }, { MS, 0, 0 } };
    static const u64 pause_ns[] = { 0, 0, 3 * MS, 0 };
    struct pool *p;
    CHECK_OK(pool_new(&p, 1, false));
    for (int i = 0; i < COUNT_OF(chores); i++) {
        if (pause_ns[i] > 0)
            sys_sleep_ns(pause_ns[i]);
        pool_measure(p, true);
        pool_run(p, 1, work_and_rest, &chores[i]);
        const struct pool_work w = pool_measured(p);
        CHECK_NEAR(w.on_cpu, chores[i].on_cpu, 0.2 * MS);
        CHECK(w.busy >= (double)(chores[i].spin_ns + chores[i].sleep_ns));
        CHECK(w.rounds >= w.busy && w.longest == w.busy);
        CHECK(chores[i].sleep_ns == 0 || w.on_cpu < 0.6 * w.busy);
    }
    pool_measure(p, false);
    pool_run(p, 1, work_and_rest, &chores[3]);
    CHECK_EQ(pool_measured(p).on_cpu, 0);
    pool_free(p);
}

TEST_MAIN(ONE(every_part_is_done_once), ONE(time_on_a_processor_is_that_of_the_part))
