/* bench_run - what a real run costs besides its steps: starting, waiting for data, tracing,
 * checkpoints, allocations.
 *
 *     bench_run [--model laptop-5m] [--batch 4] [--seq 256] [--steps 151]
 *
 * First a whole training session, as `headway train` runs it, on a shard of random tokens,
 * with a checkpoint every 50 steps; then tracing, by two ways: spans per step times the
 * measured cost of one, and pairs of steps of a small model with and without spans, which of
 * the two is first alternating. About a minute on two cores. */
#include "base/recipe.h"
#include "base/rng.h"
#include "base/sys.h"
#include "step_bench.h"
#include "train/session.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAIRS = 200, MAX_STEPS = 1024, EVERY = 50, VOCAB = 8192 };

struct options {
    const char *model;
    i64 batch, seq, steps;
};

static void must(int rc)
{
    if (rc < 0)
        step_bench_fail();
}

static void parse(struct options *o, int argc, char **argv)
{
    *o = (struct options){ "laptop-5m", 4, 256, 3 * EVERY + 1 };
    for (int i = 1; i < argc; i += 2) {
        i64 *number = strcmp(argv[i], "--batch") == 0 ? &o->batch
                    : strcmp(argv[i], "--seq") == 0   ? &o->seq
                    : strcmp(argv[i], "--steps") == 0 ? &o->steps : NULL;
        if ((!number && strcmp(argv[i], "--model") != 0) || i + 1 == argc) {
            fprintf(stderr, "usage: bench_run [--model NAME] [--batch B] [--seq T] [--steps N]\n");
            exit(2);
        }
        if (number)
            *number = strtoll(argv[i + 1], NULL, 10);
        else
            o->model = argv[i + 1];
    }
    o->steps = i64_max(EVERY + 2, i64_min(MAX_STEPS, o->steps));
}

/* --- a session ---------------------------------------------------------------------- */

/* What the hook saw after each step. */
struct seen {
    u64 at_ns[MAX_STEPS];
    u64 allocations[MAX_STEPS]; /* through base/sys.h, so far */
    i64 n;
};

static void see(void *context, const struct train_status *s)
{
    struct seen *seen = context;
    (void)s;
    if (seen->n == MAX_STEPS)
        return;
    seen->at_ns[seen->n] = sys_now_ns();
    seen->allocations[seen->n++] = sys_op_count(SYS_ALLOC) + sys_op_count(SYS_MMAP);
}

static void set(struct recipe *r, const char *key, const char *value)
{
    char assignment[400];
    snprintf(assignment, sizeof assignment, "%s=%s", key, value);
    must(recipe_override(r, assignment));
}

static void set_number(struct recipe *r, const char *key, i64 value)
{
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)value);
    set(r, key, text);
}

static void make_recipe(struct recipe *r, const struct options *o, const char *folder)
{
    char path[300];
    snprintf(path, sizeof path, "%s/tokens_train.bin", folder);
    step_bench_write_tokens(path, o->batch * o->seq * 64 + 1, VOCAB);
    set(r, "data.sources", path);
    snprintf(path, sizeof path, "{vocab: %d}", VOCAB);
    set(r, "model.override", path);
    set(r, "model.spec", o->model);
    set(r, "run.dir", folder);
    set_number(r, "train.batch", o->batch);
    set_number(r, "train.seq", o->seq);
    set_number(r, "train.steps", o->steps);
    set_number(r, "checkpoint.every", EVERY);
    set_number(r, "log.every", 1);
}

/* The loader's spans, which the session leaves in its trace. */
static double waited_s(const struct session *s)
{
    double sum = 0;
    for (int lane = 0; lane < TRACE_LANES; lane++) {
        const struct trace_ring *r = &s->engine.trace.lanes[lane];
        u64 kept = (u64)i64_min((i64)r->written, (i64)r->capacity);
        for (u64 i = r->written - kept; i < r->written; i++)
            if (r->spans[i & (r->capacity - 1)].kind == SPAN_LOAD_WAIT)
                sum += 1e-9 * (double)(r->spans[i & (r->capacity - 1)].end_ns -
                                       r->spans[i & (r->capacity - 1)].begin_ns);
    }
    return sum;
}

static void report(const struct options *o, const struct session *s, const struct seen *seen,
                   u64 begin_ns, u64 open_ns)
{
    struct checkpoint_result saved;
    i64 last = seen->n - 1;
    checkpoint_poll(s->writer, &saved);
    double run = 1e-9 * (double)(seen->at_ns[last] - seen->at_ns[0]);
    double first = 1e-9 * (double)(seen->at_ns[0] - open_ns);
    /* The last save is at the end, when nothing is left to be delayed. */
    double saves = (double)(o->steps / EVERY + (o->steps % EVERY != 0));
    double stall = 1e-9 * (double)saved.stall_ns / saves;
    printf("%s, B %lld x T %lld, %lld steps of %.1f ms, checkpoint of %.0f MB every %d\n",
           o->model, (long long)o->batch, (long long)o->seq, (long long)o->steps,
           1e3 * run / (double)last, 1e-6 * (double)saved.bytes, EVERY);
    printf("%-44s %10.2f s\n", "from start to the first step",
           1e-9 * (double)(open_ns - begin_ns));
    printf("%-44s %10.2f s\n", "the first step, which touches the memory", first);
    printf("%-44s %10.4f %% of the steps\n", "the loader was waited for",
           100 * waited_s(s) / (run + first));
    printf("%-44s %10.4f %% of %d steps (%.1f ms each; %.2f s to be durable)\n",
           "checkpoints stalled training for", 100 * stall / (run / (double)last * EVERY), EVERY,
           1e3 * stall, saved.write_seconds);
    i64 mid = EVERY - 1; /* steps before the first checkpoint, warm */
    printf("%-44s %10.2f per step, logging included\n", "allocations",
           (double)(seen->allocations[mid - 1] - seen->allocations[3]) / (double)(mid - 4));
}

static void measure_session(const struct options *o)
{
    static struct session s;
    static struct seen seen;
    struct train_config config;
    struct recipe recipe;
    struct arena arena;
    struct option_group group = { train_options, &config };
    char folder[] = "/var/tmp/headway-bench-XXXXXX"; /* a disk, which /tmp may not be */
    if (!mkdtemp(folder))
        must(err_set(ERR_SYS, "cannot make the folder %s", folder));
    arena_init(&arena);
    recipe_init(&recipe, &arena, &group, 1);
    make_recipe(&recipe, o, folder);
    struct train_request request = { .config = &config, .recipe = &recipe, .recipe_path = "bench",
                                     .backend = "auto",
                                     .hooks = { .context = &seen, .progress = see } };
    u64 begin = sys_now_ns();
    must(session_open(&s, &request));
    u64 open = sys_now_ns();
    must(session_train(&s));
    report(o, &s, &seen, begin, open);
    session_close(&s);
    arena_fini(&arena);
    sys_remove_tree(folder);
}

/* --- tracing ------------------------------------------------------------------------ */

static double span_ns(void)
{
    enum { SPANS = 1 << 20 };
    struct trace t;
    struct span span = { .lane = TRACE_COMPUTE, .end_ns = sys_now_ns() };
    must(trace_init(&t, 1 << 16));
    u64 begin = sys_now_ns();
    for (i64 i = 0; i < SPANS; i++) { /* as the executor does it */
        span.begin_ns = span.end_ns;
        span.end_ns = sys_now_ns();
        span.task = (u32)i;
        trace_add(&t, &span);
    }
    double ns = (double)(sys_now_ns() - begin) / SPANS;
    trace_fini(&t);
    return ns;
}

static i64 spans_per_step(const struct step_bench *b)
{
    const struct program *p = b->step.program;
    i64 n = 0;
    for (i64 a = 0; a < p->n_actions; a++)
        n += p->segments[p->actions[a].segment].n_tasks;
    return n;
}

static void measure_tracing(void)
{
    static struct step_bench b;
    static double with[PAIRS], without[PAIRS], difference[PAIRS];
    const struct step_bench_options o = { "laptop-2m", "fp32", "none", "adamw", "auto",
                                          4, 64, 1, 0, false, false };
    step_bench_open(&b, &o, NULL);
    for (int i = 0; i < 20; i++)
        step_bench_run(&b, true);
    for (int i = 0; i < PAIRS; i++) {
        double first = step_bench_run(&b, i % 2 == 0), second = step_bench_run(&b, i % 2 != 0);
        with[i] = i % 2 == 0 ? first : second;
        without[i] = i % 2 == 0 ? second : first;
        difference[i] = with[i] / without[i] - 1;
    }
    double step = step_bench_median(without, PAIRS), ns = span_ns();
    double share = step_bench_median(difference, PAIRS);
    printf("\ntracing: laptop-2m, B 4 x T 64, a step of %.2f ms has %lld spans of %.0f ns: "
           "%.3f %%\n", 1e3 * step, (long long)spans_per_step(&b), ns,
           100e-9 * ns * (double)spans_per_step(&b) / step);
    printf("tracing: %d pairs of steps, median difference %+.3f %% (quartiles %+.3f to %+.3f)\n",
           PAIRS, 100 * share, 100 * difference[PAIRS / 4], 100 * difference[3 * PAIRS / 4]);
    step_bench_close(&b);
}

int main(int argc, char **argv)
{
    struct options o;
    parse(&o, argc, argv);
    measure_session(&o);
    measure_tracing();
    return EXIT_SUCCESS;
}
