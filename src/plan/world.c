/* What a row's texts mean: which device, whose calibration, which stack, which links. */
#include "base/csv.h"
#include "base/err.h"
#include "plan/efficiency.h"
#include "plan/plan_files.h"
#include "plan/stack.h"
#include "plan/validate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_FAMILIES = 16, MOST_STACKS = 16, MOST_NETWORKS = 8 };

static const char *const stack_names[] = {
    "megatron-lm", "megatron-lm-2022", "megatron-deepspeed",
    "megatron-deepspeed-2022", "megatron-deepspeed-2022-bf16", "nanotron", "llm-foundry",
    "megatron-bridge", "megatron-bridge-sinks", "megatron-core", "megascale", "torchtitan", "torchtitan-compiled",
};

/* One for each device, network and node size. */
struct known_machine {
    struct plan_machine machine;
    i64 named; /* the row of device_names.csv that it is of */
    struct known_machine *next;
};

struct plan_world {
    struct arena *arena;
    struct csv devices, names; /* facts/ */
    struct plan_family families[MOST_FAMILIES];
    i64 n_families;
    struct plan_stack stacks[MOST_STACKS];
    i64 n_stacks;
    struct known_machine *machines;
    struct plan_machine networks[MOST_NETWORKS]; /* machine files that device_names.csv names */
    i64 n_networks;
};

static int load_facts(struct csv *out, const char *name, struct arena *a)
{
    char path[4096];
    TRY(plan_file_find(path, sizeof path, "facts", name));
    return csv_load(path, a, out);
}

static const char *text_of(const struct csv *t, i64 row, const char *column)
{
    return csv_cell(t, row, csv_column(t, column));
}

static const struct plan_machine *network_named(const struct plan_world *w, const char *name)
{
    for (i64 i = 0; i < w->n_networks; i++)
        if (!strcmp(w->networks[i].name, name))
            return &w->networks[i];
    return NULL;
}

static int load_networks(struct plan_world *w)
{
    for (i64 i = 0; i < w->names.n_rows; i++) {
        const char *name = text_of(&w->names, i, "network");
        if (!*name || network_named(w, name))
            continue;
        if (w->n_networks == MOST_NETWORKS)
            return err_set(ERR_LIMIT, "facts/device_names.csv names more than %d networks", MOST_NETWORKS);
        TRY(plan_machine_load(&w->networks[w->n_networks++], name, w->arena));
    }
    return OK;
}

int plan_world_new(struct plan_world **out, struct arena *a)
{
    struct plan_world *w = *out = ARENA_NEW(a, struct plan_world);
    w->arena = a;
    TRY(load_facts(&w->devices, "hardware.csv", a));
    TRY(load_facts(&w->names, "device_names.csv", a));
    for (i64 i = 0; i < COUNT_OF(stack_names); i++)
        TRY(plan_stack_load(&w->stacks[w->n_stacks++], stack_names[i], a));
    return load_networks(w);
}

static double value_of(const struct csv *t, i64 row, const char *column)
{
    return atof(text_of(t, row, column));
}

/* --- families and stacks -------------------------------------------------------------- */

static const struct plan_family *family_of(struct plan_world *w, const char *name)
{
    for (i64 i = 0; i < w->n_families; i++)
        if (!strcmp(w->families[i].name, name))
            return &w->families[i];
    if (w->n_families == MOST_FAMILIES ||
        plan_family_load(&w->families[w->n_families], name, w->arena) < 0)
        return NULL;
    return &w->families[w->n_families++];
}

static bool serves(const struct plan_stack *s, const struct plan_row *row)
{
    bool listed = s->precisions.count == 0;
    for (i64 i = 0; i < s->precisions.count; i++)
        listed |= !strcmp(row->precision, s->precisions.at[i]);
    bool runs = s->models.count == 0;
    for (i64 i = 0; i < s->models.count; i++)
        runs |= !strncmp(row->model, s->models.at[i], strlen(s->models.at[i]));
    return listed && runs && s->since <= row->year && (s->until == 0 || row->year <= s->until);
}

/* Younger, or of as many years but for the row's precision alone. */
static bool is_closer(const struct plan_stack *s, const struct plan_stack *than)
{
    if (s->since != than->since)
        return s->since > than->since;
    return s->precisions.count > 0 && than->precisions.count == 0;
}

/* The stack one of whose names is the longest beginning of the row's framework; of several that
 * serve its year, precision and model the youngest. Nothing else of a row decides, so software has
 * one price whoever ran it. */
static const struct plan_stack *stack_of(const struct plan_world *w, const struct plan_row *row)
{
    const struct plan_stack *best = NULL;
    size_t most = 0;
    for (i64 i = 0; i < w->n_stacks; i++)
        for (i64 k = 0; k < w->stacks[i].frameworks.count; k++) {
            const char *begin = w->stacks[i].frameworks.at[k];
            size_t n = strlen(begin);
            bool younger = n == most && best && is_closer(&w->stacks[i], best);
            if (serves(&w->stacks[i], row) && (n > most || younger) &&
                !strncmp(row->framework, begin, n)) {
                most = n;
                best = &w->stacks[i];
            }
        }
    return best;
}

/* --- machines ------------------------------------------------------------------------- */

static i64 find_text(const struct csv *t, const char *column, const char *text, bool beginning)
{
    i64 c = csv_column(t, column);
    for (i64 i = 0; i < t->n_rows; i++) {
        const char *cell = csv_cell(t, i, c);
        if (beginning ? !strncmp(text, cell, strlen(cell)) : !strcmp(text, cell))
            return i;
    }
    return -1;
}

/* "H100-96GB-HBM2e" says how much memory its boards have; 0 where a name does not. */
static double memory_in(const char *name)
{
    for (const char *at = strstr(name, "GB"); at; at = strstr(at + 1, "GB")) {
        const char *begin = at;
        while (begin > name && begin[-1] >= '0' && begin[-1] <= '9')
            begin--;
        if (begin < at)
            return atof(begin) * 1e9;
    }
    return 0;
}

static void read_device(struct plan_device *d, const struct csv *t, i64 row)
{
    d->name = text_of(t, row, "name");
    d->peak[PLAN_FP16] = value_of(t, row, "fp16_dense_tflops") * 1e12;
    d->peak[PLAN_BF16] = value_of(t, row, "bf16_dense_tflops") * 1e12;
    d->peak[PLAN_FP8] = value_of(t, row, "fp8_dense_tflops") * 1e12;
    d->peak[PLAN_FP32] = value_of(t, row, "fp32_vector_tflops") * 1e12;
    d->reached[PLAN_BF16] = value_of(t, row, "max_achieved_matmul_bf16_tflops") * 1e12;
    d->memory_bytes = value_of(t, row, "mem_gb") * 1e9;
    d->memory_bytes_per_s = value_of(t, row, "mem_bw_gbs") * 1e9;
    d->peak_w = value_of(t, row, "tdp_w");
}

/* A name may say that its boards have slower memory, or less power: what is dissipated goes
 * with the cube of the clock, because voltage goes with it. */
static void slow_down(struct plan_device *d, double bytes_per_s, double power_w)
{
    double clock = power_w > 0 ? cbrt(power_w / d->peak_w) : 1;
    for (int i = 0; i < PLAN_DTYPES; i++) {
        d->peak[i] *= clock;
        d->reached[i] *= clock;
    }
    if (bytes_per_s > 0)
        d->memory_bytes_per_s = bytes_per_s;
    if (power_w > 0)
        d->peak_w = power_w;
}

static bool is_machine(const struct plan_world *w, const struct known_machine *known,
                       const struct plan_row *row, i64 name, double memory, double link, double net)
{
    const struct plan_machine *m = &known->machine;
    return known->named == name && m->device.memory_bytes == memory && m->node_ranks == row->node_ranks &&
           m->tiers[0].bytes_per_s.mid == link &&
           (*text_of(&w->names, name, "network") || m->tiers[1].bytes_per_s.mid == net);
}

static void add_tier(struct plan_machine *m, const char *name, i64 ranks, double bytes_per_s)
{
    if (m->n_tiers == PLAN_TIERS)
        m->n_tiers--;
    m->tiers[m->n_tiers++] = (struct plan_tier){
        .name = name, .ranks = ranks, .bytes_per_s = { bytes_per_s, bytes_per_s, bytes_per_s },
        .oversubscription = 1,
    };
}

/* What is beyond a node, as that machine has it. */
static void add_network(struct plan_machine *m, const struct plan_machine *from)
{
    for (int i = 1; i < from->n_tiers; i++)
        m->tiers[m->n_tiers++] = from->tiers[i];
}

static const struct plan_machine *machine_of(struct plan_world *w, const struct plan_row *row,
                                             i64 name)
{
    const char *network = text_of(&w->names, name, "network");
    double memory = memory_in(row->gpu);
    double link = row->link_bytes_per_s, net = row->net_bytes_per_s;
    i64 device = find_text(&w->devices, "name", text_of(&w->names, name, "device"), false);
    link = link > 0 ? link : value_of(&w->names, name, "link_gbs") * 1e9;
    net = net > 0 ? net : value_of(&w->names, name, "net_gbs") * 1e9;
    if (device >= 0 && memory == 0)
        memory = value_of(&w->devices, device, "mem_gb") * 1e9;
    for (const struct known_machine *k = w->machines; k; k = k->next)
        if (is_machine(w, k, row, name, memory, link, net))
            return &k->machine;
    if (device < 0)
        return NULL;
    struct known_machine *known = ARENA_NEW(w->arena, struct known_machine);
    *known = (struct known_machine){ .named = name, .next = w->machines };
    w->machines = known;
    struct plan_machine *m = &known->machine;
    *m = (struct plan_machine){ .node_ranks = row->node_ranks };
    read_device(&m->device, &w->devices, device);
    if (*text_of(&w->names, name, "fp4"))
        m->device.peak[PLAN_FP4] = 2 * m->device.peak[PLAN_FP8];
    m->device.memory_bytes = memory;
    slow_down(&m->device, value_of(&w->names, name, "mem_bw_gbs") * 1e9, value_of(&w->names, name, "power_w"));
    m->name = m->device.name;
    m->device.family = text_of(&w->names, name, "family");
    i64 domain = (i64)value_of(&w->names, name, "domain"); /* of its links, beyond a host */
    add_tier(m, "node", i64_max(row->node_ranks, domain), link);
    if (*network)
        add_network(m, network_named(w, network));
    else
        add_tier(m, "network", (i64)1 << 40, net);
    return m;
}

/* What a row gives a device's links is more than they send one way. */
static bool sends_both_ways(const struct plan_world *w, const struct plan_row *row, i64 name)
{
    i64 device = find_text(&w->devices, "name", text_of(&w->names, name, "device"), false);
    double sheet = value_of(&w->devices, device, "intra_node_uni_gbs_per_gpu") * 1e9;
    return sheet > 0 && row->link_bytes_per_s > 1.05 * sheet;
}

const char *plan_world_job(struct plan_world *w, const struct plan_row *row, struct plan_job *job)
{
    i64 name = find_text(&w->names, "begins", row->gpu, true);
    *job = (struct plan_job){
        .spec = &row->spec, .sequence = row->sequence, .global_batch = row->batch,
        .dtype = row->dtype, .devices = row->devices, .frozen = row->frozen,
    };
    if (name < 0)
        return "no calibration for this device";
    job->machine = machine_of(w, row, name);
    if (!job->machine)
        return "no facts about this device";
    if (sends_both_ways(w, row, name))
        return "intra_gbs_per_gpu is more than the device sends one way; does it add up both directions?";
    if (!*row->precision) /* nobody said: 16 bits, as the device has them */
        job->dtype = plan_half_dtype(&job->machine->device);
    if (job->machine->device.peak[job->dtype] == 0)
        return "the device has no peak for this dtype";
    job->family = family_of(w, job->machine->device.family);
    job->stack = stack_of(w, row);
    if (!job->family)
        return "no calibration for this family of devices";
    return job->stack ? NULL : "no stack for this framework";
}
