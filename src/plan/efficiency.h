/* plan/efficiency.h - how fast a family of devices computes what it is given.
 *
 * A roofline whose roof depends on the shape. A product (M,K) (K,N) is cut into tiles of the
 * result, one per multiprocessor at a time; the last wave is as long as a full one, a tile takes a
 * while to fill and drain, smaller tiles feed the units less well, and operands whose rows
 * do not begin at multiples of 16 or 128 bytes are read more slowly:
 *
 *     waves = ceil(tiles / units),  seconds = waves x tile FLOPs x (1 + ramp / K)
 *                                             / (peak / units x product x tile loss x alignment)
 *
 * The tile is the one that is fastest. Nothing is faster than moving its bytes, `product` is no
 * more than the best product measured on the device, and every kernel takes kernel_s besides. Constants are those of a family of devices (A100 with 40 and
 * 80 GB; H100 ...), found by calibrate.h on a few published step times and kept in
 * machines/calibration/FAMILY.yaml with where they come from. */
#ifndef HEADWAY_EFFICIENCY_H
#define HEADWAY_EFFICIENCY_H

#include "base/option.h"
#include "plan/cost.h"

struct plan_family {
    const char *name, *provenance;
    double units;             /* multiprocessors */
    double product;           /* of peak, by a product whose tiles fill the device */
    double ramp;              /* K that filling and draining a tile costs */
    double quantisation;      /* how much of an incomplete last wave counts as a whole one */
    double small_tile;        /* speed of a 128 x 128 tile beside one of 256 x 128; halved sizes
                               * lose as much again */
    double align16, align128; /* speed where rows begin at no multiple of 16, of 128 bytes */
    double attention_forward, attention_backward; /* of peak, fused attention of long rows */
    double attention_rows;    /* tokens per row at which it reaches half of that; all this of kernels of
                               * the first generation */
    double second_forward, second_backward; /* of peak, kernels of the second: FlashAttention-2 */
    double third_forward, third_backward;   /* and those made for these devices; 0: there are none */
    double later_rows;        /* as attention_rows, of both */
    double memory;            /* of the memory's bytes per second */
    double kernel_s;          /* begin and end of a kernel on the device */
    double launch_s;          /* between kernels, by the host */
    double pace;              /* degree of the norm that joins host and device: large, the slower
                               * decides */
    double link, net;         /* of the bytes per second that links of a node, of others have */
    double link_latency_s, net_latency_s; /* of one step of a collective; 0: the tier's */
    double collective_s;      /* from the start of a collective to its first message */
    double overlap_tax;       /* what computing slows down while messages move beside it */
    double reduced[PLAN_DTYPES]; /* product speed in a dtype, beside bf16's share of its peak */
    double seen_devices;      /* most devices of a step that was fitted; 0: nothing was */
    double seen_sequence;     /* most tokens of a row of such a step */
    struct option_strings seen_stacks; /* whose software ran them: names of stacks */
    double residual_lo, residual_hi; /* log(measured / predicted) of a step that only computes: 80 % of
                                      * rows that were left out (interval.h) */
};

extern const struct option plan_family_options[];

/* A name in machines/calibration, or a path. */
int plan_family_load(struct plan_family *out, const char *name, struct arena *a);
void plan_family_write(const struct plan_family *f, struct text *out);

/* Was a step of the stack of this name fitted? */
bool plan_family_saw(const struct plan_family *f, const char *stack);

/* Seconds of one product at peak `peak`, with `bytes` of operands (moved once). */
struct plan_product {
    i64 M, N, K, batch;
    i64 row; /* bitwise or of the lengths of rows of operands and result, which decides alignment */
    double bytes;
    double element_bytes; /* of operands */
};
double plan_product_seconds(const struct plan_family *f, const struct plan_device *d, int dtype,
                            const struct plan_product *p);

/* Fused attention by kernels of a generation (1, 2, 3), over rows of so many tokens, with heads
 * of this size. */
struct plan_fused {
    double flops;
    i64 generation, tokens, head_size;
    bool backward;
};
double plan_attention_seconds(const struct plan_family *f, const struct plan_device *d,
                              const struct plan_fused *fused);

/* A kernel, or several, that move bytes. */
double plan_traffic_seconds(const struct plan_family *f, const struct plan_device *d,
                            double bytes, double kernels);

#endif
