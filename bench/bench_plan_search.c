/* bench_plan_search - how fast layouts are searched, and steps of large clusters replayed.
 *
 *     bench_plan_search [--repeat N]
 *
 * Seconds of processor time, the least of N (3): other programs may be running. "All" prices every
 * layout, "pruned" leaves out what is proved to be no better; both have the same answer, which is
 * checked. Tables of operators are made anew each time and counted. The replay is of the best
 * layout, healthy, one seed. Beside it: bench/peers/calculon_speed.py. */
#include "base/err.h"
#include "plan/efficiency.h"
#include "plan/machine_file.h"
#include "plan/ops_scale.h"
#include "plan/replay_layout.h"
#include "plan/search.h"
#include "plan/stack.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

static const struct {
    const char *model, *machine;
    i64 devices, rows, sequence;
} jobs[] = {
    { "gpt3-175b", "a100-sxm-80gb node:8 fabric:*x25GB/s", 512, 512, 2048 },
    { "llama3-405b", "h100-sxm-roce", 16384, 2048, 8192 },
    { "llama3-405b", "h100-sxm-roce", 131072, 16384, 8192 },
    { "megatron-1t", "h100-sxm-roce", 1048576, 131072, 2048 },
};

static _Noreturn void stop(void)
{
    fprintf(stderr, "bench_plan_search: %s\n", err_message());
    exit(1);
}

static double processor_seconds(void)
{
    return (double)clock() / CLOCKS_PER_SEC;
}

struct taken {
    struct plan_search_result r;
    double seconds;
};

static struct taken search(const struct plan_job *job, bool prune, int repeat, struct arena *a)
{
    struct taken t = { .seconds = INFINITY };
    for (int i = 0; i < repeat; i++) {
        struct plan_search s = { .job = job, .pick = plan_pick_open(), .keep = 100,
                                 .prune = prune };
        double begin = processor_seconds();
        if (plan_search(&s, &t.r, a) < 0)
            stop();
        t.seconds = fmin(t.seconds, processor_seconds() - begin);
    }
    return t;
}

static double replay(const struct plan_job *job, const struct plan_layout *l, i64 *events,
                     struct arena *a)
{
    const struct plan_chance none = { 0 };
    const struct plan_table *table;
    struct schedule order;
    struct replay_time time;
    double begin = processor_seconds();
    if (plan_shelf_table(plan_shelf_new(job, a), l, &table) < 0 ||
        plan_replay_layout(job, l, table, &none, &order, &time, a) < 0)
        stop();
    *events = time.events;
    return processor_seconds() - begin;
}

static void run(i64 i, int repeat)
{
    struct arena a;
    struct model_spec spec;
    struct plan_machine machine;
    struct plan_family family;
    struct plan_stack stack;
    i64 events;
    arena_init(&a);
    if (spec_load(&spec, jobs[i].model, &a) < 0 ||
        plan_machine_load(&machine, jobs[i].machine, &a) < 0 ||
        plan_family_load(&family, machine.device.family, &a) < 0 ||
        plan_stack_load(&stack, "megatron-core", &a) < 0)
        stop();
    struct plan_job job = { .spec = &spec, .sequence = jobs[i].sequence, .dtype = PLAN_BF16,
                            .global_batch = jobs[i].rows, .machine = &machine,
                            .family = &family, .stack = &stack, .devices = jobs[i].devices,
                            .any = true };
    struct taken all = search(&job, false, repeat, &a), pruned = search(&job, true, repeat, &a);
    if (memcmp(&all.r.best[0].layout, &pruned.r.best[0].layout, sizeof all.r.best[0].layout)) {
        err_set(ERR_INTERNAL, "the pruned search of %s has another best layout", spec.name);
        stop();
    }
    double replayed = replay(&job, &pruned.r.best[0].layout, &events, &a);
    printf("%-12s %8lld %8lld %8.3f %9.3g %8lld %8.3f %9.3f %9lld\n", spec.name,
           (long long)job.devices, (long long)all.r.priced, all.seconds,
           (double)all.r.priced / all.seconds, (long long)pruned.r.priced, pruned.seconds, replayed,
           (long long)events);
    arena_fini(&a);
}

int main(int argc, char **argv)
{
    int repeat = argc == 3 && !strcmp(argv[1], "--repeat") ? atoi(argv[2]) : 3;
    struct rusage use;
    printf("model         devices  layouts   all, s layouts/s   priced pruned, s replay, s    "
           "events\n");
    for (i64 i = 0; i < COUNT_OF(jobs); i++)
        run(i, repeat > 0 ? repeat : 1);
    getrusage(RUSAGE_SELF, &use);
    printf("most memory: %ld MB\n", use.ru_maxrss / 1024);
    return 0;
}
