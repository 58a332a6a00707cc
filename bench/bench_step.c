/* bench_step - whole training steps on random tokens, loader and optimizer included: speed,
 * memory, where the time goes.
 *
 *     bench_step [--model gpt2-124m] [--batch 4] [--seq 1024] [--micro 1]
 *                [--precision fp32|bf16] [--recompute none|selective|full]
 *                [--optimizer adamw|muon] [--steps 3] [--warmup 1] [--threads 0]
 *                [--backend auto] [--exact] [--exact-context] [--ops] [--json] [--gate]
 *
 * The share of peak is model FLOPs (causal-half attention, no recompute) over the peak of
 * the units that multiply this precision, measured in the same process before and after;
 * where these are not the multiply-add units, the share of those units' peak is said too.
 * Warm-up steps are not counted. --gate: prints "ready" once warm, takes a step for each
 * line that it reads, and answers "step SECONDS", so that a driver can alternate between
 * programs; the result comes when the input ends. */
#include "base/json.h"
#include "base/sys.h"
#include "ops/ops.h"
#include "step_bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_STEPS = 1000 };

struct options {
    struct step_bench_options bench;
    i64 steps, warmup;
    bool ops, json, gate;
};

struct result {
    double seconds[MAX_STEPS], peak, fma_peak;
    i64 n;
};

static void parse(struct options *o, int argc, char **argv)
{
    struct step_bench_options *b = &o->bench;
    *o = (struct options){
        { "gpt2-124m", "fp32", "none", "adamw", "auto", 4, 1024, 1, 0, false, false },
        3, 1, false, false, false,
    };
    const struct {
        const char *flag;
        const char **text;
        i64 *number;
        bool *yes;
    } flags[] = { { "--model", &b->model, NULL, NULL },
                  { "--precision", &b->precision, NULL, NULL },
                  { "--recompute", &b->recompute, NULL, NULL },
                  { "--backend", &b->backend, NULL, NULL },
                  { "--optimizer", &b->optimizer, NULL, NULL },
                  { "--batch", NULL, &b->batch, NULL },
                  { "--seq", NULL, &b->seq, NULL },
                  { "--micro", NULL, &b->micro, NULL },
                  { "--threads", NULL, &b->threads, NULL },
                  { "--steps", NULL, &o->steps, NULL },
                  { "--warmup", NULL, &o->warmup, NULL },
                  { "--exact", NULL, NULL, &b->exact },
                  { "--exact-context", NULL, NULL, &b->exact_context },
                  { "--ops", NULL, NULL, &o->ops },
                  { "--json", NULL, NULL, &o->json },
                  { "--gate", NULL, NULL, &o->gate } };
    for (int i = 1; i < argc; i++) {
        i64 k = 0;
        while (k < COUNT_OF(flags) && strcmp(argv[i], flags[k].flag) != 0)
            k++;
        if (k == COUNT_OF(flags) || (!flags[k].yes && i + 1 == argc)) {
            fprintf(stderr, "bench_step: unknown flag %s, or its value is missing\n", argv[i]);
            exit(2);
        }
        if (flags[k].yes)
            *flags[k].yes = true;
        else if (flags[k].text)
            *flags[k].text = argv[++i];
        else
            *flags[k].number = strtoll(argv[++i], NULL, 10);
    }
    o->steps = i64_max(1, i64_min(MAX_STEPS, o->steps));
}

/* --- where the time goes ------------------------------------------------------------ */

struct op_sum {
    const char *name;
    i64 tasks;
    double seconds, flops, bytes;
};

static int longest_first(const void *a, const void *b)
{
    double x = ((const struct op_sum *)a)->seconds, y = ((const struct op_sum *)b)->seconds;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* Sums of the spans of the last n steps, per op and step. */
static void print_ops(const struct step_bench *b, i64 n)
{
    const struct trace_ring *r = &b->engine.trace.lanes[TRACE_COMPUTE];
    struct op_sum sum[BACKEND_OPS] = { 0 };
    double total = 0;
    u64 kept = (u64)i64_min((i64)r->written, (i64)r->capacity);
    for (u64 i = r->written - kept; i < r->written; i++) {
        const struct span *s = &r->spans[i & (r->capacity - 1)];
        const struct task *t = b->step.program->by_id[s->task];
        struct op_sum *op = &sum[op_index(t->op)];
        if ((i64)s->step < b->steps - n)
            continue;
        double seconds = 1e-9 * (double)(s->end_ns - s->begin_ns) / (double)n;
        op->name = t->op->name;
        op->tasks++;
        op->seconds += seconds;
        op->flops += t->cost.flops / (double)n;
        op->bytes += (t->cost.read_bytes + t->cost.written_bytes) / (double)n;
        total += seconds;
    }
    qsort(sum, BACKEND_OPS, sizeof *sum, longest_first);
    printf("%-18s %6s %9s %7s %9s %7s\n", "op", "tasks", "ms", "share", "GFLOP/s", "GB/s");
    for (int i = 0; i < BACKEND_OPS && sum[i].tasks > 0; i++)
        printf("%-18s %6lld %9.2f %6.2f%% %9.1f %7.1f\n", sum[i].name,
               (long long)(sum[i].tasks / n), 1e3 * sum[i].seconds,
               100 * sum[i].seconds / total, 1e-9 * sum[i].flops / sum[i].seconds,
               1e-9 * sum[i].bytes / sum[i].seconds);
}

/* --- what is said ------------------------------------------------------------------- */

static double wait_share(const struct step_bench *b, const struct result *r)
{
    double sum = 0;
    for (i64 i = 0; i < r->n; i++)
        sum += r->seconds[i];
    return 1e-9 * (double)b->wait_ns / sum;
}

static void print_json(const struct step_bench *b, const struct result *r)
{
    const struct cost *cost = &b->step.program->cost;
    struct json j;
    json_writer_init(&j);
    json_begin_object(&j);
    json_put_str(&j, "peer", "headway");
    json_put_str(&j, "model", b->spec.name);
    json_put_int(&j, "batch", b->o.batch);
    json_put_int(&j, "seq", b->o.seq);
    json_put_str(&j, "precision", b->o.precision);
    json_put_str(&j, "recompute", b->o.recompute);
    json_put_bool(&j, "exact", b->o.exact);
    json_put_str(&j, "mode", b->engine.backend.name);
    json_put_int(&j, "threads", pool_threads(b->engine.pool));
    json_key(&j, "step_s");
    json_begin_array(&j);
    for (i64 i = 0; i < r->n; i++)
        json_double(&j, r->seconds[i]);
    json_end(&j);
    json_put_double(&j, "loss", step_bench_loss(b));
    json_put_int(&j, "peak_rss_bytes", sys_peak_rss_bytes());
    json_put_int(&j, "predicted_bytes", b->predicted_bytes);
    json_put_double(&j, "model_flops", cost->model_flops);
    json_put_double(&j, "peak_flops", r->peak);
    json_put_double(&j, "fma_peak_flops", r->fma_peak);
    json_put_double(&j, "loader_wait_share", wait_share(b, r));
    json_key(&j, "versions");
    json_begin_object(&j);
    json_put_str(&j, "headway", HEADWAY_VERSION);
    json_end(&j);
    json_end(&j);
    printf("%s\n", j.out.data);
    json_writer_fini(&j);
}

static void print_text(struct step_bench *b, struct result *r)
{
    const struct program *p = b->step.program;
    double tokens = (double)step_bench_tokens(b), wait = wait_share(b, r);
    double rss = (double)sys_peak_rss_bytes(), predicted = (double)b->predicted_bytes;
    double first = r->seconds[0], median = step_bench_median(r->seconds, r->n);
    const char *exact = b->o.exact_context ? "  exact context" : b->o.exact ? "  exact" : "";
    printf("%s  B %lld x T %lld x %lld  %s%s  recompute %s  %s  backend %s  %d threads\n",
           b->spec.name, (long long)b->o.batch, (long long)b->o.seq, (long long)b->o.micro,
           b->o.precision, exact, b->o.recompute, b->o.optimizer, b->engine.backend.name,
           pool_threads(b->engine.pool));
    printf("weights     %.2f s to draw\n", b->init_s);
    printf("step        %.4f s median of %lld (min %.4f, max %.4f; first %.4f)\n", median,
           (long long)r->n, r->seconds[0], r->seconds[r->n - 1], first);
    printf("tokens/s    %.1f\n", tokens / median);
    printf("model FLOPs %.1f MFLOP per token (executed %.1f)\n",
           1e-6 * p->cost.model_flops / tokens, 1e-6 * p->cost.flops / tokens);
    printf("share       %.1f %% of the measured peak of %.1f GFLOP/s\n",
           100 * p->cost.model_flops / median / r->peak, 1e-9 * r->peak);
    if (r->peak > r->fma_peak)
        printf("            %.1f %% of what fp32 multiply-adds reach, %.1f GFLOP/s\n",
               100 * p->cost.model_flops / median / r->fma_peak, 1e-9 * r->fma_peak);
    printf("memory      %.3f GB peak (VmHWM), predicted %.3f GB (%+.1f %%)\n", 1e-9 * rss,
           1e-9 * predicted, 100 * (predicted / rss - 1));
    printf("plan        %.3f GB activations (lower bound %.3f), %lld tasks\n",
           1e-9 * (double)p->memory.bytes, 1e-9 * (double)p->memory.least_bytes,
           (long long)p->n_tasks);
    printf("loader      %.4f %% of the step waited\n", 100 * wait);
    printf("loss        %.4f\n", step_bench_loss(b));
}

/* --- running ------------------------------------------------------------------------ */

/* False when the driver has no more lines. */
static bool gate_opens(bool gate)
{
    char line[64];
    return !gate || fgets(line, sizeof line, stdin);
}

static void run(struct step_bench *b, const struct options *o, struct result *r)
{
    const struct step_bench_peaks before = step_bench_peak(b);
    for (i64 i = 0; i < o->warmup; i++)
        step_bench_run(b, true);
    b->wait_ns = 0;
    if (o->gate)
        printf("ready\n");
    fflush(stdout);
    for (; r->n < o->steps && gate_opens(o->gate); r->n++) {
        r->seconds[r->n] = step_bench_run(b, true);
        if (o->gate)
            printf("step %.6f\n", r->seconds[r->n]);
        fflush(stdout);
    }
    const struct step_bench_peaks after = step_bench_peak(b);
    r->peak = before.used > after.used ? before.used : after.used;
    r->fma_peak = before.fma > after.fma ? before.fma : after.fma;
}

int main(int argc, char **argv)
{
    static struct step_bench b;
    static struct result r;
    struct options o;
    parse(&o, argc, argv);
    step_bench_open(&b, &o.bench, NULL);
    run(&b, &o, &r);
    if (r.n == 0) {
        step_bench_close(&b);
        return EXIT_FAILURE;
    }
    if (o.json)
        print_json(&b, &r);
    else
        print_text(&b, &r);
    if (o.ops)
        print_ops(&b, r.n);
    step_bench_close(&b);
    return EXIT_SUCCESS;
}
