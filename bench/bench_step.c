/* bench_step - whole training steps on random tokens: speed, memory, where the time goes.
 *
 *     bench_step [--model gpt2-124m] [--batch 4] [--seq 1024] [--micro 1]
 *                [--precision fp32|bf16] [--recompute none|selective|full]
 *                [--optimizer adamw|muon] [--steps 5] [--threads 0] [--backend auto] [--ops]
 *
 * The share of peak is model FLOPs (causal-half attention, no recompute) over the peak of
 * the multiply-add units, measured in the same process before and after. The loader is
 * replaced by random tokens; `headway train` measures with it. */
#include "backend/engine.h"
#include "base/rng.h"
#include "base/sys.h"
#include "machine/machine.h"
#include "ops/ops.h"
#include "train/step.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_STEPS = 1000 };

struct options {
    const char *model, *precision, *recompute, *optimizer, *backend;
    i64 batch, seq, micro, steps, threads;
    bool ops;
};

struct bench {
    struct options o;
    struct arena arena;
    struct train_config config;
    struct model_spec spec;
    struct model *model;
    struct engine engine;
    struct step_io io;
    struct step_program step;
    struct machine machine;
};

static _Noreturn void fail(void)
{
    fprintf(stderr, "bench_step: %s\n", err_message());
    exit(EXIT_FAILURE);
}

static void random_batch(const struct task *t, struct run *x)
{
    const struct bench *b = x->context;
    i64 R = t->out[BATCH_TOKENS]->dim[0];
    struct rng key = { 1, x->step * 1024 + (u64)x->micro_batch };
    for (i64 r = 0; r < R; r++) {
        u64 bits = rng_u64(&key, (u64)r);
        ((i32 *)t->out[BATCH_TOKENS]->data)[r] = (i32)(bits % (u64)b->spec.vocab);
        ((i32 *)t->out[BATCH_TARGETS]->data)[r] = (i32)((bits >> 32) % (u64)b->spec.vocab);
        ((float *)t->out[BATCH_WEIGHTS]->data)[r] = 1;
        ((i32 *)t->out[BATCH_POSITIONS]->data)[r] = (i32)(r % b->o.seq);
        ((i32 *)t->out[BATCH_BEGIN]->data)[r] = 0;
        ((i32 *)t->out[BATCH_SOURCES]->data)[r] = 0;
    }
    *(float *)t->out[BATCH_INV_WEIGHT]->data = 1.0f / (float)(R * b->o.micro);
}

static int choice(const char *value, const char *const *names, int n)
{
    for (int i = 0; i < n; i++)
        if (strcmp(value, names[i]) == 0)
            return i;
    fprintf(stderr, "bench_step: unknown word '%s'\n", value);
    exit(EXIT_FAILURE);
}

static void parse(struct options *o, int argc, char **argv)
{
    *o = (struct options){ "gpt2-124m", "fp32", "none", "adamw", "auto", 4, 1024, 1, 5, 0, false };
    const struct {
        const char *flag;
        const char **text;
        i64 *number;
    } flags[] = { { "--model", &o->model, NULL },         { "--precision", &o->precision, NULL },
                  { "--recompute", &o->recompute, NULL }, { "--backend", &o->backend, NULL },
                  { "--optimizer", &o->optimizer, NULL }, { "--batch", NULL, &o->batch },
                  { "--seq", NULL, &o->seq },             { "--micro", NULL, &o->micro },
                  { "--steps", NULL, &o->steps },         { "--threads", NULL, &o->threads } };
    for (int i = 1; i < argc; i++) {
        bool known = strcmp(argv[i], "--ops") == 0;
        o->ops = o->ops || known;
        for (i64 k = 0; k < COUNT_OF(flags) && !known && i + 1 < argc; k++) {
            if (strcmp(argv[i], flags[k].flag) != 0)
                continue;
            known = true;
            i++;
            if (flags[k].text)
                *flags[k].text = argv[i];
            else
                *flags[k].number = strtoll(argv[i], NULL, 10);
        }
        if (!known) {
            fprintf(stderr, "bench_step: unknown flag %s\n", argv[i]);
            exit(EXIT_FAILURE);
        }
    }
}

static void open_bench(struct bench *b)
{
    static const char *const precisions[] = { "fp32", "bf16" };
    static const char *const policies[] = { "none", "selective", "full" };
    static const char *const optimizers[] = { "adamw", "muon" };
    arena_init(&b->arena);
    option_set_defaults(train_options, &b->config, &b->arena);
    b->config.train.recompute = choice(b->o.recompute, policies, 3);
    b->config.optim.name = choice(b->o.optimizer, optimizers, 2);
    bool narrow = choice(b->o.precision, precisions, 2);
    struct step_shape shape = { b->o.batch, b->o.seq, (int)b->o.micro, 1 };
    if (spec_load(&b->spec, b->o.model, &b->arena) < 0)
        fail();
    b->spec.vocab = b->spec.vocab ? b->spec.vocab : 32768;
    if (engine_init(&b->engine, b->o.backend, (int)b->o.threads, 1 << 16) < 0 ||
        model_new(&b->model, &b->spec, narrow ? DTYPE_BF16 : DTYPE_F32, step_needs(&b->config),
                  b->o.seq, &b->arena) < 0)
        fail();
    backend_set(&b->engine.backend, &op_load_batch,
                (struct kernel){ .run = random_batch, .context = b });
    step_io_new(&b->io, 1, &b->arena);
    struct mesh mesh = mesh_single();
    if (step_program_new(&b->step, b->model, &b->config, &shape, &b->io, &mesh,
                         &b->arena) < 0 ||
        engine_add(&b->engine, b->step.program) < 0)
        fail();
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Sums of the spans of all steps but the first (page faults), per op and step. */
static void print_ops(const struct bench *b, i64 steps)
{
    const struct trace_ring *r = &b->engine.trace.lanes[TRACE_COMPUTE];
    double seconds[BACKEND_OPS] = { 0 }, flops[BACKEND_OPS] = { 0 }, bytes[BACKEND_OPS] = { 0 };
    i64 count[BACKEND_OPS] = { 0 };
    double total = 0;
    u64 kept = (u64)i64_min((i64)r->written, (i64)r->capacity);
    for (u64 i = r->written - kept; i < r->written; i++) {
        const struct span *s = &r->spans[i & (r->capacity - 1)];
        const struct task *t = b->step.program->by_id[s->task];
        i64 op = op_index(t->op);
        if (s->step == 0)
            continue;
        seconds[op] += 1e-9 * (double)(s->end_ns - s->begin_ns) / (double)(steps - 1);
        flops[op] += t->cost.flops / (double)(steps - 1);
        bytes[op] += (t->cost.read_bytes + t->cost.written_bytes) / (double)(steps - 1);
        count[op]++;
    }
    for (int i = 0; i < BACKEND_OPS; i++)
        total += seconds[i];
    printf("%-18s %6s %9s %7s %9s %7s\n", "op", "tasks", "ms", "share", "GFLOP/s", "GB/s");
    for (i64 shown = 0; shown < op_table_count; shown++) {
        int best = 0;
        for (int i = 0; i < BACKEND_OPS; i++)
            best = seconds[i] > seconds[best] ? i : best;
        if (seconds[best] <= 0)
            break;
        printf("%-18s %6lld %9.2f %6.2f%% %9.1f %7.1f\n", op_table[best]->name,
               (long long)(count[best] / (steps - 1)), 1e3 * seconds[best],
               100 * seconds[best] / total, 1e-9 * flops[best] / seconds[best],
               1e-9 * bytes[best] / seconds[best]);
        seconds[best] = 0;
    }
}

static double run_step(struct bench *b, i64 step)
{
    float *hyper = b->io.hyper->data;
    hyper[HYPER_LR] = hyper[HYPER_MUON_LR] = 1e-4f;
    hyper[HYPER_CORRECT1] = hyper[HYPER_CORRECT2] = 1;
    u64 begin = sys_now_ns();
    engine_run(&b->engine, b->step.program, NULL, (u64)step);
    return 1e-9 * (double)(sys_now_ns() - begin);
}

static void report(struct bench *b, double *seconds, i64 predicted, double peak)
{
    i64 n = b->o.steps - 1, tokens = b->o.batch * b->o.seq * b->o.micro;
    const struct cost *cost = &b->step.program->cost;
    double first = seconds[0];
    qsort(seconds + 1, (size_t)n, sizeof *seconds, ascending);
    double median = seconds[1 + n / 2];
    const double *sums = b->io.sums->data;
    printf("step        %.4f s median of %lld (min %.4f, max %.4f; first %.4f)\n", median,
           (long long)n, seconds[1], seconds[n], first);
    printf("tokens/s    %.1f\n", (double)tokens / median);
    printf("model FLOPs %.1f MFLOP per token (executed %.1f)\n",
           1e-6 * cost->model_flops / (double)tokens, 1e-6 * cost->flops / (double)tokens);
    printf("share       %.1f %% of the measured peak of %.1f GFLOP/s\n",
           100 * cost->model_flops / median / peak, 1e-9 * peak);
    printf("memory      %.3f GB peak (VmHWM), predicted %.3f GB (%+.1f %%)\n",
           1e-9 * (double)sys_peak_rss_bytes(), 1e-9 * (double)predicted,
           100 * ((double)predicted / (double)sys_peak_rss_bytes() - 1));
    printf("plan        %.3f GB activations (lower bound %.3f), %lld tasks\n",
           1e-9 * (double)b->step.program->memory.bytes,
           1e-9 * (double)b->step.program->memory.least_bytes,
           (long long)b->step.program->n_tasks);
    printf("loss        %.4f\n", sums[0] / sums[1]);
}

static double measured_peak(struct bench *b)
{
    machine_measure_peaks(&b->machine, b->engine.pool);
    return b->model->compute == DTYPE_BF16 ? b->machine.bf16_all : b->machine.f32_all;
}

int main(int argc, char **argv)
{
    static struct bench b;
    static double seconds[MAX_STEPS];
    parse(&b.o, argc, argv);
    b.o.steps = i64_max(2, i64_min(MAX_STEPS, b.o.steps));
    open_bench(&b);
    i64 predicted = sys_rss_bytes() + b.model->region_bytes + engine_bytes(&b.engine);
    if (engine_commit(&b.engine) < 0)
        fail();
    u64 begin = sys_now_ns();
    model_init(b.model, 1, b.engine.pool);
    printf("%s  B %lld x T %lld x %lld  %s  recompute %s  %s  backend %s  %d threads\n",
           b.spec.name, (long long)b.o.batch, (long long)b.o.seq, (long long)b.o.micro,
           b.o.precision, b.o.recompute, b.o.optimizer, b.engine.backend.name,
           pool_threads(b.engine.pool));
    printf("init        %.2f s\n", 1e-9 * (double)(sys_now_ns() - begin));
    machine_detect(&b.machine, b.engine.backend.name, pool_threads(b.engine.pool));
    double before = measured_peak(&b);
    for (i64 i = 0; i < b.o.steps; i++)
        seconds[i] = run_step(&b, i);
    double after = measured_peak(&b);
    report(&b, seconds, predicted, before > after ? before : after);
    if (b.o.ops)
        print_ops(&b, b.o.steps);
    return EXIT_SUCCESS;
}
