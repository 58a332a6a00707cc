#include "plan/efficiency.h"

#include "base/err.h"
#include "base/recipe.h"
#include "base/text.h"
#include "plan/plan_files.h"

#include <math.h>
#include <string.h>

#define FAMILY(type, field) OPTION_FIELD(type, struct plan_family, field)

const struct option plan_family_options[] = {
    { "name", FAMILY(STRING, name), NULL, .help = "Of the family of devices." },
    { "provenance", FAMILY(STRING, provenance), NULL, .help = "Which rows were fitted, and how." },
    { "units", FAMILY(FLOAT, units), "108", .min = 1, .max = 1e6,
      .help = "Multiprocessors: tiles of a product that are computed at once." },
    { "product", FAMILY(FLOAT, product), "0.85", .min = 0.01, .max = 1,
      .help = "Share of the peak that a large product reaches." },
    { "ramp", FAMILY(FLOAT, ramp), "64", .min = 1e-3, .max = 1e6, .unit = "elements",
      .help = "What filling and draining a tile costs, as so many more terms of its sums." },
    { "quantisation", FAMILY(FLOAT, quantisation), "0.5", .min = 1e-3, .max = 1,
      .help = "How much of an incomplete last wave of tiles counts as a whole one." },
    { "small_tile", FAMILY(FLOAT, small_tile), "0.9", .min = 0.1, .max = 1,
      .help = "Speed of tiles of half the size." },
    { "align16", FAMILY(FLOAT, align16), "0.5", .min = 0.01, .max = 1,
      .help = "Speed where rows of operands do not begin at multiples of 16 bytes." },
    { "align128", FAMILY(FLOAT, align128), "0.8", .min = 0.01, .max = 1,
      .help = "The same for 128 bytes." },
    { "attention_forward", FAMILY(FLOAT, attention_forward), "0.6", .min = 0.01, .max = 1,
      .help = "Share of the peak that fused attention reaches on long rows." },
    { "attention_backward", FAMILY(FLOAT, attention_backward), "0.5", .min = 0.01, .max = 1,
      .help = "The same for its gradient." },
    { "attention_rows", FAMILY(FLOAT, attention_rows), "512", .min = 1, .max = 1e6, .unit = "tokens",
      .help = "Tokens per row at which it reaches half of that." },
    { "second_forward", FAMILY(FLOAT, second_forward), "0.35", .min = 0.01, .max = 1,
      .help = "Share of the peak that fused attention of the second generation reaches on long rows." },
    { "second_backward", FAMILY(FLOAT, second_backward), "0.33", .min = 0.01, .max = 1,
      .help = "The same for its gradient." },
    { "third_forward", FAMILY(FLOAT, third_forward), "0.6", .max = 1,
      .help = "The same of kernels made for these devices; 0: there are none." },
    { "third_backward", FAMILY(FLOAT, third_backward), "0.5", .max = 1,
      .help = "The same for their gradient." },
    { "later_rows", FAMILY(FLOAT, later_rows), "512", .min = 1, .max = 1e6, .unit = "tokens",
      .help = "Tokens per row at which the second and the third reach half of that." },
    { "memory", FAMILY(FLOAT, memory), "0.85", .min = 0.01, .max = 1,
      .help = "Share of the memory's bytes per second that kernels reach." },
    { "kernel_s", FAMILY(FLOAT, kernel_s), "3e-6", .min = 1e-9, .max = 1, .unit = "seconds",
      .help = "What a kernel takes besides its work." },
    { "launch_s", FAMILY(FLOAT, launch_s), "3e-5", .min = 1e-9, .max = 1, .unit = "seconds",
      .help = "What the host takes to start a kernel." },
    { "pace", FAMILY(FLOAT, pace), "4", .min = 1, .max = 1000,
      .help = "Degree of the norm by which host's and device's time are joined; large: the slower decides." },
    { "link", FAMILY(FLOAT, link), "0.8", .min = 0.01, .max = 1,
      .help = "Share of the node's links that collectives reach." },
    { "net", FAMILY(FLOAT, net), "0.8", .min = 0.01, .max = 1,
      .help = "Share of the network between nodes that collectives reach." },
    { "link_latency_s", FAMILY(FLOAT, link_latency_s), "3e-6", .min = 1e-9, .max = 1, .unit = "seconds",
      .help = "Of one step of a collective within a node." },
    { "net_latency_s", FAMILY(FLOAT, net_latency_s), "1e-5", .min = 1e-9, .max = 1, .unit = "seconds",
      .help = "The same between nodes." },
    { "collective_s", FAMILY(FLOAT, collective_s), "3.5e-5", .min = 1e-9, .max = 1, .unit = "seconds",
      .help = "What a collective takes before its first message." },
    { "overlap_tax", FAMILY(FLOAT, overlap_tax), "0.1", .min = 1e-3, .max = 0.3,
      .help = "What computing slows down while messages move beside it." },
    { "reduced.fp32", FAMILY(FLOAT, reduced[PLAN_FP32]), "1", .min = 0.01, .max = 2,
      .help = "Share of its peak that this dtype reaches, beside that of bf16." },
    { "reduced.fp16", FAMILY(FLOAT, reduced[PLAN_FP16]), "1", .min = 0.01, .max = 2,
      .help = "1: as bf16." },
    { "reduced.bf16", FAMILY(FLOAT, reduced[PLAN_BF16]), "1", .min = 0.01, .max = 2,
      .help = "1: the others are relative to it." },
    { "reduced.fp8", FAMILY(FLOAT, reduced[PLAN_FP8]), "0.85", .min = 0.01, .max = 2,
      .help = "As for fp32." },
    { "reduced.fp4", FAMILY(FLOAT, reduced[PLAN_FP4]), "0.7", .min = 0.01, .max = 2,
      .help = "As for fp32." },
    { "seen_devices", FAMILY(FLOAT, seen_devices), "0", .max = 1e9, .unit = "devices",
      .help = "Most devices of a step that was fitted; 0: nothing was." },
    { "seen_sequence", FAMILY(FLOAT, seen_sequence), "0", .max = 1e9, .unit = "tokens",
      .help = "Longest row of a step that was fitted; 0: nothing was." },
    { "seen_stacks", FAMILY(STRINGS, seen_stacks), NULL,
      .help = "Software whose steps were fitted." },
    { "residual_lo", FAMILY(FLOAT, residual_lo), "-0.1", .min = -10, .max = 10,
      .help = "Log of measured over predicted time, were there no messages: where 80 % of rows left out begin." },
    { "residual_hi", FAMILY(FLOAT, residual_hi), "0.1", .min = -10, .max = 10,
      .help = "Where they end." },
    { 0 },
};

int plan_family_load(struct plan_family *out, const char *name, struct arena *a)
{
    return plan_file_load(out, plan_family_options, "machines/calibration", name, a);
}

void plan_family_write(const struct plan_family *f, struct text *out)
{
    for (const struct option *o = plan_family_options; o->key; o++) {
        const char *quote = o->type == OPTION_STRING ? "'" : "";
        text_printf(out, "%s: %s", o->key, quote);
        option_format(o, f, out);
        text_printf(out, "%s\n", quote);
    }
}

bool plan_family_saw(const struct plan_family *f, const char *stack)
{
    for (i64 i = 0; i < f->seen_stacks.count; i++)
        if (!strcmp(f->seen_stacks.at[i], stack))
            return true;
    return false;
}

/* --- products ------------------------------------------------------------------------- */

/* Rows and columns of a result's tile; level: how often it was halved from 256 x 128. */
static const struct { double rows, columns; int level; } tiles[] = {
    { 256, 128, 0 }, { 128, 256, 0 }, { 128, 128, 1 }, { 128, 64, 2 }, { 64, 128, 2 },
    { 64, 64, 3 },
};

/* The least aligned row decides. */
static double alignment(const struct plan_family *f, const struct plan_product *p)
{
    i64 bytes = p->row * (i64)p->element_bytes;
    return bytes % 16 ? f->align16 : bytes % 128 ? f->align128 : 1;
}

/* Of the peak, by a large product: no more than anybody measured on the device, and where nothing
 * was fitted no more of that than the better of the fits reaches (A100 0.95, H100 0.90). */
static double product_share(const struct plan_family *f, const struct plan_device *d)
{
    int half = plan_half_dtype(d);
    double best = d->peak[half] > 0 ? d->reached[half] / d->peak[half] : 0;
    if (f->seen_devices == 0)
        best *= 0.95;
    return best > 0 ? fmin(f->product, best) : f->product;
}

double plan_product_seconds(const struct plan_family *f, const struct plan_device *d, int dtype,
                            const struct plan_product *p)
{
    double speed = d->peak[dtype] * product_share(f, d) * f->reduced[dtype] * alignment(f, p);
    double best = INFINITY, moving = p->bytes / (d->memory_bytes_per_s * f->memory);
    for (i64 i = 0; i < COUNT_OF(tiles); i++) {
        double n = (double)p->batch * ceil((double)p->M / tiles[i].rows) *
                   ceil((double)p->N / tiles[i].columns);
        double loss = pow(f->small_tile, tiles[i].level);
        double flops = 2 * tiles[i].rows * tiles[i].columns * ((double)p->K + f->ramp);
        double waves = n / f->units;
        waves = fmax(1, waves + f->quantisation * (ceil(waves) - waves));
        best = fmin(best, waves * f->units * flops / (speed * loss));
    }
    return fmax(best, moving) + f->kernel_s;
}

static double attention_share(const struct plan_family *f, i64 generation, bool backward)
{
    if (generation == 1)
        return backward ? f->attention_backward : f->attention_forward;
    if (generation == 3 && f->third_forward > 0 && f->third_backward > 0)
        return backward ? f->third_backward : f->third_forward;
    return backward ? f->second_backward : f->second_forward;
}

double plan_attention_seconds(const struct plan_family *f, const struct plan_device *d,
                              const struct plan_fused *fused)
{
    double share = attention_share(f, fused->generation, fused->backward);
    double half = fused->generation == 1 ? f->attention_rows : f->later_rows;
    double length = (double)fused->tokens / ((double)fused->tokens + half);
    double heads = fused->head_size >= 128 ? 1 : fused->head_size >= 64 ? 0.85 : 0.6;
    return fused->flops / (d->peak[plan_half_dtype(d)] * share * length * heads) + f->kernel_s;
}

double plan_traffic_seconds(const struct plan_family *f, const struct plan_device *d,
                            double bytes, double kernels)
{
    return bytes / (d->memory_bytes_per_s * f->memory) + kernels * f->kernel_s;
}
