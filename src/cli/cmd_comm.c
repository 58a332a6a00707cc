/* Is the interconnect sane? */
#include "base/err.h"
#include "base/sys.h"
#include "cli/command.h"
#include "comm/bench.h"
#include "comm/selftest.h"
#include "comm/transport.h"
#include "comm/world.h"

#include <stdio.h>

struct comm_options {
    i64 ranks, max_bytes, check_every;
    int transport;
    double deadline;
    bool exact, check_only, overlap;
};

static const char transports[] = "auto|shm|mpi";

static const struct option options[] = {
    { "ranks", OPTION_FIELD(INT, struct comm_options, ranks), "0", .unit = "ranks", .max = 1024,
      .help = "Start so many processes on this machine; 0: be one of those that mpirun or srun "
              "started." },
    { "transport", OPTION_FIELD(CHOICE, struct comm_options, transport), "auto",
      .choices = transports,
      .help = "What carries data: auto uses shared memory among ranks of one node." },
    { "max_size", OPTION_FIELD(SIZE, struct comm_options, max_bytes), "16MiB", .unit = "bytes",
      .min = 4, .max = 8e9, .help = "Largest buffer to measure." },
    { "deadline", OPTION_FIELD(DURATION, struct comm_options, deadline), "30s", .min = 0.1,
      .max = 86400, .help = "A call that waits longer than this is a hang." },
    { "exact", OPTION_FIELD(BOOL, struct comm_options, exact), "no",
      .help = "Measure sums in the fixed order that gives the same bits everywhere." },
    { "check_every", OPTION_FIELD(INT, struct comm_options, check_every), "1", .min = 1,
      .max = 1000, .help = "Ask only every so many of the checks." },
    { "check_only", OPTION_FIELD(BOOL, struct comm_options, check_only), "no",
      .help = "Only check results, measure nothing." },
    { "overlap", OPTION_FIELD(BOOL, struct comm_options, overlap), "no",
      .help = "Also measure how much of an allreduce hides behind computing." },
    { 0 },
};

static void print_timing(const struct comm_timing *t)
{
    printf("%-15s %12lld %10.1f %10.1f", comm_op_name(t->op), (long long)t->bytes, t->median_us,
           t->worst_us);
    if (t->bytes > 0)
        printf(" %9.2f", t->bus_gb_per_s);
    printf("\n");
    fflush(stdout);
}

static int measure(struct comm_group *g, const struct comm_options *o)
{
    bool tells = g->index == 0;
    struct comm_timing t;
    if (tells)
        printf("\noperation              bytes  median us   worst us  bus GB/s\n");
    for (int op = 0; op < COMM_OPS; op++) {
        if (op == COMM_RECV)
            continue; /* measured with send */
        for (i64 bytes = 4; bytes <= o->max_bytes; bytes *= 16) {
            TRY(comm_bench(g, (enum comm_op)op, bytes, o->exact, &t));
            if (tells)
                print_timing(&t);
            if (op == COMM_BARRIER)
                break;
        }
    }
    return OK;
}

static int measure_overlap(struct comm_group *g, i64 bytes)
{
    struct comm_overlap v;
    TRY(comm_bench_overlap(g, bytes, &v));
    if (g->index == 0)
        printf("\nallreduce of %lld bytes %.0f us, computing %.0f us, both at once %.0f us: "
               "%.0f %% of the shorter one is hidden\n", (long long)bytes, v.call_us, v.compute_us,
               v.together_us, 100 * v.hidden);
    return OK;
}

static int body(struct comm *c, void *context)
{
    const struct comm_options *o = context;
    struct comm_group *g;
    i64 calls;
    TRY(comm_world_group(&g, c, "world"));
    if (g->index == 0)
        printf("%d ranks, %s\n", c->size, g->transport->name);
    TRY(comm_selftest(g, (int)o->check_every, &calls));
    if (g->index == 0)
        printf("%lld calls gave the right results and moved the right number of bytes\n",
               (long long)calls);
    if (!o->check_only && c->size > 1)
        TRY(measure(g, o));
    if (o->overlap && c->size > 1)
        TRY(measure_overlap(g, o->max_bytes));
    fflush(stdout);
    return OK;
}

static int run(struct invocation *v)
{
    struct comm_options *o = v->options;
    struct comm_world w = { .carrier = (enum comm_carrier)o->transport,
                            .local_ranks = (int)o->ranks, .deadline_s = o->deadline };
    return comm_world_run(&w, body, o);
}

static const struct example examples[] = {
    { "headway comm --ranks 2", "Shared memory between two processes of this machine." },
    { "mpirun -n 4 headway comm --transport mpi", "The same through MPI." },
    { "srun --mpi=pmix -n 8 headway comm --exact", "A Slurm job, with sums in fixed order." },
    { 0 },
};

const struct command cmd_comm = {
    .name = "comm",
    .joins_ranks = true,
    .summary = "Check and measure what carries data between ranks",
    .description = "Runs every collective operation with known inputs on every rank and compares "
                   "results and counted bytes with what they must be; then measures time and "
                   "bandwidth per operation and size. The bandwidth is that of a ring's volume: "
                   "2(n-1)/n of an allreduce's bytes, (n-1)/n of a gather's or scatter's, all of "
                   "a message's. A rank that does not answer is named with the call that it did "
                   "not reach.\n\nRun it under mpirun or srun, or alone with --ranks.",
    .options = options,
    .options_bytes = sizeof(struct comm_options),
    .examples = examples,
    .run = run,
};
