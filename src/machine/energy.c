#include "machine/energy.h"

#include "base/sys.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { POLL_SECONDS = 30 }; /* a package of 300 W counts for 14 minutes until it wraps */

/* --- what has happened -------------------------------------------------------------- */

double energy_model_watts(double watts, double cpus, double u)
{
    u = fmin(fmax(u, 0), 1);
    return watts * cpus * (0.16 + 0.56 * pow(u, 0.6));
}

static void add(struct energy_total *t, double j, double lo, double hi, i64 method)
{
    t->j += j;
    t->lo += j * lo;
    t->hi += j * hi;
    t->methods |= method;
}

double energy_node_cpus(const struct energy_sample *now, i64 ranks, i64 node)
{
    u64 all[ENERGY_CPU_WORDS] = { 0 };
    i64 n = 0, quota = 0;
    for (i64 r = 0; r < ranks; r++) {
        if (now[r].node != node)
            continue;
        quota = i64_max(quota, now[r].quota);
        for (int w = 0; w < ENERGY_CPU_WORDS; w++)
            all[w] |= now[r].cpus[w];
    }
    for (int w = 0; w < ENERGY_CPU_WORDS; w++)
        n += __builtin_popcountll(all[w]);
    return (double)i64_max(1, i64_min(n, quota));
}

static void model_node(struct energy_total *t, const struct energy_sample *before,
                       const struct energy_sample *now, i64 ranks, i64 node)
{
    double cpus = energy_node_cpus(now, ranks, node), busy = 0;
    double seconds = now[node].seconds - before[node].seconds;
    for (i64 r = 0; r < ranks; r++)
        busy += now[r].node == node ? now[r].cpu_seconds - before[r].cpu_seconds : 0;
    if (seconds <= 0)
        return;
    double j = seconds * energy_model_watts(now[node].watts, cpus, busy / (cpus * seconds));
    if (now[node].known)
        add(t, j, 0.5, 2.5, ENERGY_MODELLED);
    else
        add(t, j, 0.2, 5, ENERGY_GUESSED);
}

static void add_node(struct energy_total *t, const struct energy_sample *before,
                     const struct energy_sample *now, i64 ranks, i64 node)
{
    double gpu = now[node].gpu_j - before[node].gpu_j;
    if (now[node].counts) { /* then they did before, too */
        add(t, now[node].counted_j - before[node].counted_j, 0.95, 1.05, ENERGY_COUNTED);
        t->hi += now[node].unsure_j - before[node].unsure_j;
    } else {
        model_node(t, before, now, ranks, node);
    }
    if (gpu > 0)
        add(t, gpu, 0.95, 1.05, ENERGY_GPU);
    t->gpu_j += gpu;
}

void energy_add(struct energy_total *t, const struct energy_sample *before,
                const struct energy_sample *now, i64 ranks)
{
    for (i64 r = 0; r < ranks; r++) {
        t->core_seconds += now[r].cpu_seconds - before[r].cpu_seconds;
        t->flops += now[r].flops - before[r].flops;
        t->bytes += now[r].bytes - before[r].bytes;
        if (now[r].node == r)
            add_node(t, before, now, ranks, r);
    }
    t->seconds += now[0].seconds - before[0].seconds;
}

void energy_method_text(i64 methods, char *out, size_t size)
{
    static const struct { i64 method; const char *name; } names[] = {
        { ENERGY_COUNTED, "powercap" }, { ENERGY_MODELLED, "tdp-model" },
        { ENERGY_GUESSED, "order-of-magnitude" }, { ENERGY_GPU, "nvml" },
    };
    int n = snprintf(out, size, "%s", methods ? "" : "none");
    for (int i = 0; i < (int)COUNT_OF(names); i++)
        if (methods & names[i].method)
            n += snprintf(out + n, size - (size_t)n, "%s%s", n ? "+" : "", names[i].name);
}

const char *energy_scope(i64 methods)
{
    bool node = methods & (ENERGY_COUNTED | ENERGY_GPU);
    bool process = methods & (ENERGY_MODELLED | ENERGY_GUESSED);
    return node && process ? "node+process" : node ? "node" : "process";
}

/* --- the meter ---------------------------------------------------------------------- */

void energy_meter_open(struct energy_meter *m, const struct energy_places *at)
{
    *m = (struct energy_meter){ .begin_ns = sys_now_ns(),
                                .begin_cpu_seconds = sys_cpu_seconds() };
    m->read_ns = m->begin_ns;
    energy_processor_read(&m->processor, at->cpuinfo);
    powercap_open(&m->powercap, at->powercap, m->begin_ns);
    if (at->nvml)
        nvml_open(&m->nvml, at->nvml);
    m->first.watts = m->processor.watts;
    m->first.known = m->processor.known;
    m->first.quota = sys_cpu_quota();
    sys_cpu_mask(m->first.cpus, ENERGY_CPU_WORDS);
}

void energy_meter_sit(struct energy_meter *m, i64 node, i64 rank)
{
    m->first.node = node;
    m->meters = node == rank;
}

static void read_counters(struct energy_meter *m, u64 now_ns)
{
    m->read_ns = now_ns;
    if (!m->meters)
        return;
    powercap_read(&m->powercap, now_ns);
    nvml_read(&m->nvml);
}

void energy_meter_poll(struct energy_meter *m, u64 now_ns)
{
    if (now_ns - m->read_ns >= POLL_SECONDS * (u64)1000000000)
        read_counters(m, now_ns);
}

void energy_meter_sample(struct energy_meter *m, struct energy_sample *out)
{
    u64 now_ns = sys_now_ns();
    read_counters(m, now_ns);
    *out = m->first;
    out->seconds = 1e-9 * (double)(now_ns - m->begin_ns);
    out->cpu_seconds = sys_cpu_seconds() - m->begin_cpu_seconds;
    out->counts = m->powercap.n > 0;
    out->counted_j = m->powercap.joules;
    out->unsure_j = m->powercap.unsure_j;
    out->gpu_j = m->nvml.joules;
}
