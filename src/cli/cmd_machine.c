/* What this machine can do at best. */
#include "backend/selftest.h"
#include "base/err.h"
#include "base/log.h"
#include "base/sys.h"
#include "cli/command.h"
#include "cli/machine_peak.h"
#include "cli/progress.h"
#include "machine/machine.h"

#include <stdio.h>

struct machine_options {
    i64 threads;
    const char *backend;
    bool json, again, check;
};

static const struct option options[] = {
    { "threads", OPTION_FIELD(INT, struct machine_options, threads), "0", .unit = "threads",
      .max = 4096, .help = "Threads to measure with; 0 is one per core." },
    { "backend", OPTION_FIELD(STRING, struct machine_options, backend), "auto",
      .help = "Kernels to measure: auto, generic, avx2, avx512, avx512bf16 or amx." },
    { "json", OPTION_FIELD(BOOL, struct machine_options, json), "no",
      .help = "Print JSON." },
    { "again", OPTION_FIELD(BOOL, struct machine_options, again), "no",
      .help = "Measure even if the cache knows this machine." },
    { "check", OPTION_FIELD(BOOL, struct machine_options, check), "no",
      .help = "Compare every kernel with its reference on this processor instead." },
    { 0 },
};

double machine_peak_flops(const char *backend, i64 threads, bool in_bf16)
{
    struct backend b;
    struct pool *pool;
    struct machine m;
    if (backend_init(&b, backend) < 0 ||
        pool_new(&pool, (int)(threads ? threads : sys_cpu_count()), true) < 0)
        return 0;
    machine_peaks(&m, b.name, pool);
    pool_free(pool);
    return in_bf16 ? m.bf16_all : m.f32_all;
}

static void tell_progress(void *context, double fraction, const char *what)
{
    progress_update(context, fraction, what);
}

static void print_level(const char *name, const struct machine_level *l)
{
    char size[32];
    if (l->bytes >= (i64)1 << 30)
        snprintf(size, sizeof size, "%.1f GiB", (double)l->bytes / (double)(1 << 30));
    else
        snprintf(size, sizeof size, "%lld KiB", (long long)(l->bytes >> 10));
    printf("%-5s %10s %8.1f %8.1f %8.1f %8.1f %9.1f\n", name, size, 1e-9 * l->read_one,
           1e-9 * l->read_all, 1e-9 * l->copy_one, 1e-9 * l->copy_all, l->latency_ns);
}

static void print_machine(const struct machine *m)
{
    static const char *const names[] = { "L1", "L2", "L3", "DRAM" };
    printf("processor   %s, %d cores, %.2f GHz\n", m->processor, m->cores, 1e-9 * m->clock_hz);
    printf("backend     %s, %d threads\n\n", m->backend, m->threads);
    printf("arithmetic, GFLOP/s   1 thread   %d threads\n", m->threads);
    printf("  fp32                %8.1f   %8.1f%s\n", 1e-9 * m->f32_one, 1e-9 * m->f32_all,
           m->f32_split ? "   (in three pieces of bf16 on tile registers)" : "");
    if (m->f32_split)
        printf("    by multiply-adds  %8.1f   %8.1f\n", 1e-9 * m->fma_one, 1e-9 * m->fma_all);
    printf("  bf16                %8.1f   %8.1f%s\n\n", 1e-9 * m->bf16_one, 1e-9 * m->bf16_all,
           m->bf16_native ? "" : "   (fastest here: widened to fp32)");
    printf("memory, GB/s          read     read     copy     copy   latency\n");
    printf("level       size  1 thread      all 1 thread      all        ns\n");
    for (int i = 0; i < MACHINE_LEVELS; i++)
        if (m->level[i].bytes > 0)
            print_level(names[i], &m->level[i]);
    printf("\nan empty task over all threads takes %.2f us\n", 1e-3 * m->launch_ns);
}

static int measure(struct invocation *v, struct machine *m, struct pool *pool)
{
    struct progress p;
    struct machine before = *m;
    char why[160];
    const bool known = machine_load(&before) >= 0;
    progress_begin(&p, v->terminal, "measuring");
    machine_measure(m, pool, tell_progress, &p);
    progress_end(&p, "measured");
    if (machine_disturbed(m, known ? &before : NULL, why, sizeof why))
        log_line(LOG_WARN, "%s: something else seems to have run; 'headway machine "
                 "--again' when the machine is quiet, since shares of the peak and "
                 "diagnoses are counted from this", why);
    machine_save(m);
    return OK;
}

static int check(const struct backend *b)
{
    struct selftest s;
    TRY(selftest_init(&s, b));
    int rc = selftest_all_kernels(&s);
    if (rc >= 0)
        printf("%s: every kernel agrees with its reference; %lld comparisons, the worst at "
               "%.0f %% of its bound (%s)\n", b->name, (long long)s.checks, 100 * s.worst,
               s.worst_op);
    selftest_fini(&s);
    return rc;
}

static int run(struct invocation *v)
{
    const struct machine_options *o = v->options;
    struct backend b;
    struct machine m;
    struct pool *pool;
    TRY(backend_init(&b, o->backend));
    if (o->check)
        return check(&b);
    TRY(pool_new(&pool, (int)(o->threads ? o->threads : sys_cpu_count()), true));
    machine_detect(&m, b.name, pool_threads(pool));
    int rc = OK;
    const bool anew =
        o->again || machine_load(&m) < 0 || m.level[MACHINE_LEVELS - 1].read_all <= 0;
    if (anew)
        rc = measure(v, &m, pool);
    pool_free(pool);
    TRY(rc);
    if (!o->json) {
        print_machine(&m);
        if (!anew)
            printf("measured earlier; headway machine --again measures anew\n");
        return OK;
    }
    struct json j;
    json_writer_init(&j);
    j.indent = true;
    machine_write_json(&m, &j);
    printf("%s\n", j.out.data);
    json_writer_fini(&j);
    return OK;
}

static const struct example examples[] = {
    { "headway machine", "Measure once, then print from the cache." },
    { "headway machine --check", "Compare every kernel with its reference." },
    { "headway machine --again --json", "Measure anew, for a script." },
    { 0 },
};

const struct command cmd_machine = {
    .name = "machine",
    .summary = "Measure this machine's ceilings",
    .description = "Measures what this machine can reach at best: floating-point rates per "
                   "precision, bandwidth and latency of each level of memory, the cost of "
                   "starting a task. Utilisation (MFU) is measured against these. Results are "
                   "cached per machine.",
    .options = options,
    .options_bytes = sizeof(struct machine_options),
    .examples = examples,
    .run = run,
};
