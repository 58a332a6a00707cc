/* plan/machine_file.h - machines that one does not have, as data.
 *
 * machines/devices/NAME.yaml is a device: dense peaks, what somebody measured, memory, links in
 * one direction, power. machines/NAME.yaml is a cluster of one kind of device: tiers from the
 * inside out (node, rack, pod ...). Every quantity has its unit, every value its source:
 *
 *     device: h100-sxm
 *     tiers:
 *       - name: node
 *         size: 8 devices
 *         bandwidth: {value: 450 GB/s one-way, lo: 360 GB/s one-way, source: nvlink}
 *         latency: 3 us
 *       - name: fabric          # no size: as many as one asks for
 *         bandwidth: 50 GB/s one-way
 *         latency: 8 us
 *         pieces: 256 MB        # of collectives that rate and latency were measured with, if they were;
 *         sum_latency: 5 us     # a step of a sum took, then
 *
 * The same in one line, as hwloc's synthetic topologies: a device, then tiers as
 * NAME:COUNT[xRATE][~LATENCY][/OVERSUBSCRIPTION][+sums][+rail|+mesh|+torus1..3][+sumLATENCY]
 * [+piecesBYTES], each counting the ones before it (the last may count *, as many as one asks for);
 * rates are of one device in one direction, and what is left out is the device's; latencies are assumed
 * then, 3 us within the first tier and 8 us beyond. Also host:N, price=4.2USD/h, pue=1.2, at=FRA:
 *
 *     "h100-sxm node:8 pod:32x50GB/s~8us/2"
 *
 * Refused, with what to write instead: peaks with sparsity, links of both directions, numbers
 * without a unit, "80G" of neither GB nor GiB, unknown keys, tiers that contradict each other. */
#ifndef HEADWAY_PLAN_MACHINE_FILE_H
#define HEADWAY_PLAN_MACHINE_FILE_H

#include "base/arena.h"
#include "base/yaml.h"

struct json;

enum plan_dtype { PLAN_FP32, PLAN_FP16, PLAN_BF16, PLAN_FP8, PLAN_FP4, PLAN_DTYPES };
extern const char *const plan_dtype_names[PLAN_DTYPES];

struct plan_band { /* of an uncertain quantity: its 10th, 50th and 90th percentile */
    double lo, mid, hi;
};
/* {"p10": ..., "p50": ..., "p90": ...} under key; nothing of a band that is not known. */
void plan_band_json(struct json *j, const char *key, const struct plan_band *b);

struct plan_device {
    const char *name, *family;   /* family: whose calibration it shares ("a100"); NULL: none */
    double peak[PLAN_DTYPES];    /* FLOP/s, dense; 0: has no such units, or unknown */
    double reached[PLAN_DTYPES]; /* FLOP/s of the best product that somebody measured; 0: unknown */
    double memory_bytes;         /* that a program sees, where that is known; else as sold */
    double memory_sold_bytes, memory_bytes_per_s;
    double link_bytes_per_s;     /* to neighbours of its node, one way; 0: none */
    double network_bytes_per_s;  /* its share of the node's way out, one way; 0: unknown */
    double launch_s;             /* least time between kernels; 0: that of the family */
    double idle_w, peak_w;       /* of one device; 0: unknown */
};

enum { PLAN_TIERS = 8 };

/* How collectives go about it (network.h); a machine's `algorithms` are those that its library has,
 * and where it does not say: ring, tree, direct and in-switch, as NCCL's. */
enum net_algorithm { NET_RING, NET_TREE, NET_DOUBLING, NET_HIERARCHICAL, NET_DIRECT,
                     NET_IN_SWITCH, NET_ALGORITHMS };
extern const char *const net_algorithm_names[NET_ALGORITHMS];

enum plan_wiring {
    PLAN_SWITCH, /* any to any, at full rate (but for oversubscription) */
    PLAN_RAIL,   /* of domains below, devices of the same place meet; others by way of these */
    PLAN_TORUS,  /* neighbours along axes: bytes_per_s is all of a device's links together */
    PLAN_MESH,   /* every device has one link to each other: a group uses those among its members */
    PLAN_WIRINGS
};
extern const char *const plan_wiring_names[PLAN_WIRINGS];

/* Devices that lie in one domain of a tier reach each other through it: tier 0 is the node, the
 * last one spans the machine. */
struct plan_tier {
    const char *name;
    i64 ranks;                    /* devices of one domain, all of the tiers below included */
    struct plan_band bytes_per_s; /* that one device sends, one way; lo is the slow end */
    struct plan_band latency_s;   /* of one message; lo is the quick end */
    double sum_latency_s;         /* of a step of a sum over ranks, which trees make shorter; 0: the same */
    double piece_bytes;           /* of the collectives that these were measured with: larger ones go in
                                   * pieces, each with all its steps; 0: however large */
    bool latency_assumed;         /* nobody said */
    bool reached;                 /* bytes_per_s is what collectives reached, not what ports have: pieces
                                   * are known */
    double oversubscription;      /* 1: full bisection; of the links that leave the domains below */
    int wiring;                   /* enum plan_wiring */
    int axes;                     /* of a torus: 1 to 3 */
    bool reduces;                 /* its switches sum what passes (tier 0 only) */
};

/* Of 16 bits: bf16, or fp16 on a device that has no bf16. MFU is counted of this peak. */
int plan_half_dtype(const struct plan_device *d);

/* ERR_CONFIG where its file has no peak of this dtype: says which there are. */
int plan_dtype_check(const struct plan_device *d, int dtype);

/* Where one value comes from. */
struct plan_fact {
    const char *key, *value, *source; /* source NULL: none was given */
    bool verified;                    /* seen in the source, not recalled */
};

struct plan_machine {
    const char *name, *summary;
    struct plan_device device;
    i64 node_ranks;               /* devices that share a host */
    int n_tiers;
    struct plan_tier tiers[PLAN_TIERS];
    bool unlimited;               /* the last tier's size was left open */
    double call_s;                /* of starting a collective, before its first message */
    unsigned algorithms;          /* of collectives that its library has: 1 << enum net_algorithm */
    double price_per_hour;        /* of one device, in `currency`; 0: not given */
    const char *currency;
    double pue;                   /* 0: not given */
    const char *location;         /* as machine/carbon.h knows them; NULL: not given */
    double grid_g_per_kwh;        /* 0: not given */
    const char *provenance;       /* where the values come from */
    const char *measured;         /* its name in facts/network_calibration.csv; NULL: none */
    const struct plan_fact *facts;
    i64 n_facts;
};

/* "4.2 USD/h" (of one device): amount and currency. */
int plan_price_parse(const char *text, const char *where, double *amount, const char **currency,
                     struct arena *a);

/* The same, or a file with a list of prices by name of device or machine; the machine's own name
 * goes first. ERR_CONFIG when the list has neither. */
int plan_price_find(const char *text, const struct plan_machine *m, double *amount,
                    const char **currency, struct arena *a);

/* A file, the NAME of machines/NAME.yaml or machines/devices/NAME.yaml, a line as above (it has a
 * blank or a colon), or "here": this machine, a device being a core. A device alone is a
 * machine of one. Texts live in the arena. */
int plan_machine_load(struct plan_machine *out, const char *name, struct arena *a);
/* An already read tree; where: the file's name in messages. */
int plan_machine_read(struct plan_machine *out, const struct yaml_node *root, struct arena *a);
int plan_machine_line(struct plan_machine *out, const char *line, struct arena *a);

/* The line that describes it: what plan_machine_line would read back, bands aside. */
const char *plan_machine_text(const struct plan_machine *m, struct arena *a);

/* ERR_USAGE when the machine has no room for so many. */
int plan_machine_room(const struct plan_machine *m, i64 devices);

void plan_machine_json(const struct plan_machine *m, struct json *j);

/* Names of machines/, sorted; devices: of machines/devices/. */
int plan_machine_names(bool devices, const char ***names, i64 *n, struct arena *a);

#endif
