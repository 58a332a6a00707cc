/* bench_growth - how the cost of a training step grows with each of its dimensions, beside the
 * floor under it.
 *
 *     bench_growth [--precision fp32|bf16] [--only T|width|layers|vocab|threads]
 *
 * One dimension at a time is varied around a small Llama-shaped model; within a table the
 * tokens of a step stay the same (8,192 for T, else 2,048), so that rows compare by tokens/s.
 * About a minute and a half on two cores. The floor is the sum over the program's
 * tasks of the longer of two times: its FLOPs at the measured peak, and its bytes (each
 * operand once) at the measured bandwidth of the smallest level of memory that holds them.
 * Both come from the task's own cost; nothing is counted a second time here. A step that
 * grew in a way that the floor does not, would show as a falling share. */
#include "base/err.h"
#include "base/sys.h"
#include "step_bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MIN_STEPS = 2, MAX_STEPS = 20 };
#define MIN_SECONDS 0.5

struct shape {
    i64 T, width, layers, vocab, threads;
};

static const struct shape base = { 512, 256, 2, 8192, 0 };

/* A dimension: which field of struct shape, tokens of a step, values (0 ends them). */
static const struct dimension {
    const char *name;
    size_t offset;
    i64 tokens;
    i64 values[8];
} dimensions[] = {
    { "T", offsetof(struct shape, T), 8192, { 256, 512, 1024, 2048, 4096, 8192 } },
    { "width", offsetof(struct shape, width), 2048, { 128, 256, 512, 1024 } },
    { "layers", offsetof(struct shape, layers), 2048, { 1, 2, 4, 8, 16 } },
    { "vocab", offsetof(struct shape, vocab), 2048, { 2048, 8192, 32768, 131072 } },
    { "threads", offsetof(struct shape, threads), 2048, { 1, 2, 4, 8, 16, 32, 64 } },
};

static struct model_spec spec_of(const struct shape *s)
{
    struct model_spec spec;
    struct arena arena;
    arena_init(&arena);
    if (spec_load(&spec, "laptop-5m", &arena) < 0)
        step_bench_fail();
    spec.name = "growth"; /* all that pointed into the arena */
    arena_fini(&arena);
    spec.positions = s->T;
    spec.width = s->width;
    spec.layers = s->layers;
    spec.vocab = s->vocab;
    spec.heads = spec.kv_heads = s->width / 64;
    spec.head_size = 64;
    spec.hidden = s->width * 8 / 3 / 32 * 32; /* SwiGLU's usual two thirds of 4 */
    if (spec_check(&spec, "bench_growth") < 0)
        step_bench_fail();
    return spec;
}

/* Bytes/s of the smallest level that holds so many bytes. Reads or copies, whichever the
 * probe found faster. Caches of level 1 and 2 belong to a core each. */
static double bandwidth(const struct machine *m, double bytes, int threads)
{
    for (int i = 0; i < MACHINE_LEVELS; i++) {
        const struct machine_level *l = &m->level[i];
        double room = (double)l->bytes * (i < 2 ? threads : 1);
        if (l->bytes == 0 || (room < bytes && i < MACHINE_LEVELS - 1))
            continue;
        return threads == 1 ? (l->read_one > l->copy_one ? l->read_one : l->copy_one)
                            : (l->read_all > l->copy_all ? l->read_all : l->copy_all);
    }
    return 1e12;
}

struct floor {
    double seconds, by_bytes; /* by_bytes: the part where memory is the longer */
};

static struct floor floor_of(const struct step_bench *b, const struct machine *m, double peak)
{
    struct floor f = { 0, 0 };
    const struct program *p = b->step.program;
    for (i64 a = 0; a < p->n_actions; a++) {
        const struct segment *s = &p->segments[p->actions[a].segment];
        for (i64 i = 0; i < s->n_tasks; i++) {
            const struct cost *c = &s->tasks[i].cost;
            double bytes = c->read_bytes + c->written_bytes, compute = c->flops / peak;
            double traffic = bytes / bandwidth(m, bytes, pool_threads(b->engine.pool));
            f.seconds += traffic > compute ? traffic : compute;
            f.by_bytes += traffic > compute ? traffic : 0;
        }
    }
    return f;
}

static void print_row(const struct dimension *d, i64 value, const struct step_bench *b,
                      double *seconds, i64 n, const struct floor *f)
{
    double tokens = (double)step_bench_tokens(b), median = step_bench_median(seconds, n);
    printf("%-8s %7lld %10.1f %9.1f  %6.1f%% %8.2f %10.0f %8.1f %7.0f%% %8.1f%%\n", d->name,
           (long long)value, 1e-6 * b->step.program->cost.model_flops / tokens, 1e3 * median,
           100 * (seconds[n - 1] - seconds[0]) / median, 1e-9 * (double)sys_rss_bytes(),
           tokens / median, 1e3 * f->seconds, 100 * f->by_bytes / f->seconds,
           100 * f->seconds / median);
    fflush(stdout);
}

/* The machine's ceilings at this number of threads: bandwidths as cached or measured, peaks
 * as they are now. */
static void know_machine(struct machine *m, struct step_bench *b)
{
    machine_detect(m, b->engine.backend.name, pool_threads(b->engine.pool));
    if (machine_load(m) >= 0 && m->level[MACHINE_LEVELS - 1].read_all > 0)
        return;
    machine_measure(m, b->engine.pool, NULL, NULL);
    machine_save(m);
}

static void measure(const struct dimension *d, i64 value, const char *precision)
{
    static struct step_bench b;
    struct shape s = base;
    struct machine m;
    double seconds[MAX_STEPS], sum = 0;
    i64 n = 0;
    memcpy((char *)&s + d->offset, &value, sizeof value);
    struct model_spec spec = spec_of(&s);
    const struct step_bench_options o = { NULL, precision, "none", "adamw", "auto",
                                          d->tokens / s.T, s.T, 1, s.threads, false, false };
    step_bench_open(&b, &o, &spec);
    know_machine(&m, &b);
    double before = step_bench_peak(&b).used;
    step_bench_run(&b, true); /* touches the memory */
    for (; n < MIN_STEPS || (sum < MIN_SECONDS && n < MAX_STEPS); n++)
        sum += seconds[n] = step_bench_run(&b, true);
    double after = step_bench_peak(&b).used;
    struct floor f = floor_of(&b, &m, before > after ? before : after);
    print_row(d, value, &b, seconds, n, &f);
    step_bench_close(&b);
}

int main(int argc, char **argv)
{
    const char *precision = "fp32", *only = NULL;
    for (int i = 1; i < argc; i += 2) {
        bool is_precision = strcmp(argv[i], "--precision") == 0;
        if ((!is_precision && strcmp(argv[i], "--only") != 0) || i + 1 == argc) {
            fprintf(stderr, "usage: bench_growth [--precision fp32|bf16] [--only NAME]\n");
            return 2;
        }
        *(is_precision ? &precision : &only) = argv[i + 1];
    }
    printf("AdamW, %s; what is not varied: T %lld, width %lld, %lld layers, vocabulary %lld\n",
           precision, (long long)base.T, (long long)base.width, (long long)base.layers,
           (long long)base.vocab);
    printf("%-8s %7s %10s %9s  %7s %8s %10s %8s %8s %9s\n", "varied", "value", "MFLOP/tok",
           "step ms", "spread", "GB", "tokens/s", "floor ms", "(memory)", "reached");
    for (i64 i = 0; i < COUNT_OF(dimensions); i++) {
        const struct dimension *d = &dimensions[i];
        for (i64 k = 0; k < COUNT_OF(d->values) && d->values[k] > 0; k++)
            if ((!only || strcmp(only, d->name) == 0) &&
                (strcmp(d->name, "threads") != 0 || d->values[k] <= sys_cpu_count()))
                measure(d, d->values[k], precision);
    }
    return EXIT_SUCCESS;
}
