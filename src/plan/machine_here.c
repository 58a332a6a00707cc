/* This machine, as `headway machine` measured it: a device is one core. */
#include "backend/backend.h"
#include "base/err.h"
#include "base/sys.h"
#include "machine/energy.h"
#include "machine/machine.h"
#include "plan/machine_impl.h"

#include <stdio.h>

static void add_fact(struct plan_machine *m, struct plan_fact *facts, const char *key,
                     const char *value)
{
    facts[m->n_facts++] = (struct plan_fact){ key, value, "measured here by 'headway machine'",
                                              true };
}

/* A core's share of what all of them reach together. */
static void take_device(struct plan_device *d, const struct machine *here, struct arena *a)
{
    const struct machine_level *dram = &here->level[MACHINE_LEVELS - 1];
    double share = 1.0 / here->threads;
    *d = (struct plan_device){
        .name = arena_printf(a, "core of %s", here->processor), .family = "cpu",
        .memory_bytes = (double)dram->bytes * share,
        .memory_sold_bytes = (double)dram->bytes * share,
        .memory_bytes_per_s = dram->read_all * share, .launch_s = 1e-9 * here->launch_ns,
    };
    d->peak[PLAN_FP32] = d->reached[PLAN_FP32] = here->f32_all * share;
    d->peak[PLAN_BF16] = d->reached[PLAN_BF16] = here->bf16_all * share;
    /* What is sent is read by one and written by the other. */
    d->link_bytes_per_s = d->network_bytes_per_s = dram->copy_all * share / 2;
    struct energy_processor watts;
    energy_processor_read(&watts, "/proc/cpuinfo");
    d->peak_w = watts.known ? watts.watts : 0;
}

int machine_here(struct plan_machine *out, struct arena *a)
{
    struct backend b;
    struct machine here;
    struct plan_fact *facts = ARENA_ARRAY(a, struct plan_fact, 8);
    TRY(backend_init(&b, "auto"));
    machine_detect(&here, b.name, sys_cpu_count());
    TRY(machine_load(&here));
    *out = (struct plan_machine){
        .name = "here", .currency = "", .node_ranks = here.threads, .n_tiers = 1, .facts = facts,
        .provenance = "measured here", .algorithms = (1u << NET_ALGORITHMS) - 1,
    };
    take_device(&out->device, &here, a);
    double link = out->device.link_bytes_per_s, start = out->device.launch_s;
    out->tiers[0] = (struct plan_tier){
        .name = "memory", .ranks = here.threads, .bytes_per_s = { link, link, link },
        .latency_s = { start, start, start }, .oversubscription = 1, .axes = 1,
    };
    double rate = out->device.memory_bytes_per_s;
    add_fact(out, facts, "peak.fp32", arena_printf(a, "%.4g GFLOP/s a core, of %d",
                                                   1e-9 * out->device.peak[PLAN_FP32],
                                                   here.threads));
    add_fact(out, facts, "peak.bf16", arena_printf(a, "%.4g GFLOP/s a core",
                                                   1e-9 * out->device.peak[PLAN_BF16]));
    add_fact(out, facts, "memory.rate", arena_printf(a, "%.4g GB/s a core", 1e-9 * rate));
    add_fact(out, facts, "memory.bandwidth", arena_printf(a, "%.4g GB/s between two", 1e-9 * link));
    return OK;
}
