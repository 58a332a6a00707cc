/* machine/energy.h - how much energy a run takes: counted where the machine counts, else modelled.
 *
 * One rank of each node, its first, has the meter. Every rank samples what it has used so far;
 * the leading one adds up what samples say has happened since the ones before:
 *
 *   counted    processor packages, by powercap (RAPL); all that the node does, idling too.
 *              Interval +-5 %: what the counter may be off by. Power supplies, fans and
 *              disks are in no counter.
 *   modelled   P = cpus x W per cpu x (0.16 + 0.56 u^0.6), u = the run's processor time / (cpus x
 *              time). The curve was fitted to RAPL at 79 loads of four processors; a processor
 *              left out of the fit was estimated at 0.54 to 2.47 times the truth in 90 % of
 *              cases, hence the interval x0.5 to x2.5.
 *   guessed    the same with the median W per cpu of those that are known: x0.2 to x5, an order
 *              of magnitude.
 *
 * A "cpu" is a hardware thread: a virtual machine is charged its share of a socket's TDP, never
 * the socket. */
#ifndef HEADWAY_ENERGY_H
#define HEADWAY_ENERGY_H

#include "machine/energy_nvml.h"
#include "machine/energy_powercap.h"

struct energy_processor {
    char name[128];
    double watts; /* TDP per hardware thread */
    bool known;   /* else a guess */
};

/* energy_processor.c: of /proc/cpuinfo, or a file like it; one that cannot be read is unknown. */
void energy_processor_read(struct energy_processor *p, const char *cpuinfo);
double energy_usual_watts(void);
/* W of so many hardware threads, of which a share u is busy. */
double energy_model_watts(double watts, double cpus, double u);

enum { ENERGY_CPU_WORDS = 16 };

/* What one rank has used since its meter was opened; plain numbers, to be sent. */
struct energy_sample {
    i64 node;            /* rank of the first of its node, who has the meter */
    double seconds, cpu_seconds;
    double flops, bytes; /* executed by training steps; least traffic of memory */
    i64 counts;          /* the node's counters can be read */
    double counted_j, unsure_j, gpu_j; /* unsure: perhaps wrapped unseen */
    double watts;        /* per cpu */
    i64 known, quota;
    u64 cpus[ENERGY_CPU_WORDS]; /* that this rank might run on when it started */
};

enum energy_method { ENERGY_COUNTED = 1, ENERGY_MODELLED = 2, ENERGY_GUESSED = 4, ENERGY_GPU = 8 };

/* Of all nodes, of all parts of the run. */
struct energy_total {
    double j, lo, hi;    /* processors and GPUs; 90 % */
    double gpu_j;        /* the counted GPUs alone */
    double seconds, core_seconds, flops, bytes;
    i64 methods;         /* enum energy_method, or-ed */
};

/* Adds what has happened between two samples of each rank. */
void energy_add(struct energy_total *t, const struct energy_sample *before,
                const struct energy_sample *now, i64 ranks);

/* Hardware threads that the ranks of a node may use, all together. */
double energy_node_cpus(const struct energy_sample *now, i64 ranks, i64 node);

/* "powercap", "tdp-model", "order-of-magnitude" and "nvml", joined by "+". */
void energy_method_text(i64 methods, char *out, size_t size);
/* What the number is about: "node" (all that ran there), "process" (the run), or both. */
const char *energy_scope(i64 methods);

struct energy_meter {
    bool meters; /* first of its node */
    struct energy_processor processor;
    struct powercap powercap;
    struct nvml nvml;
    u64 begin_ns, read_ns;
    double begin_cpu_seconds;
    struct energy_sample first; /* what does not change */
};

struct energy_places {
    const char *powercap; /* "/sys/class/powercap" */
    const char *cpuinfo;  /* "/proc/cpuinfo" */
    const char *nvml;     /* "libnvidia-ml.so.1"; NULL: no GPUs */
};

/* Before the rank is given cores of its own. */
void energy_meter_open(struct energy_meter *m, const struct energy_places *at);
/* `node`: the first rank on this one's node, `rank` this one's number. */
void energy_meter_sit(struct energy_meter *m, i64 node, i64 rank);
/* Often: costs a comparison, except twice a minute, so that no wrap of a counter goes unseen. */
void energy_meter_poll(struct energy_meter *m, u64 now_ns);
void energy_meter_sample(struct energy_meter *m, struct energy_sample *out);

#endif
