/* Machines of which the planner knows. */
#include "base/err.h"
#include "base/json.h"
#include "cli/command.h"
#include "plan/machine_file.h"
#include "plan/quantity.h"

#include <stdio.h>

struct machine_flags {
    bool json;
};

static const struct option options[] = {
    { "json", OPTION_FIELD(BOOL, struct machine_flags, json), "no", .help = "Print JSON." },
    { 0 },
};

/* --- all of them -------------------------------------------------------------------- */

static void print_device_row(const struct plan_device *d)
{
    const int half = plan_half_dtype(d), dtypes[] = { half, PLAN_FP8 };
    printf("%-16s", d->name);
    for (int i = 0; i < 2; i++)
        if (d->peak[dtypes[i]] > 0)
            printf(" %8.4g", 1e-12 * d->peak[dtypes[i]]);
        else
            printf("        -");
    if (d->reached[half] > 0)
        printf(" %8.4g", 1e-12 * d->reached[half]);
    else
        printf("        -");
    printf(" %8.4g %8.4g %8.4g", 1e-9 * d->memory_sold_bytes, 1e-9 * d->memory_bytes_per_s,
           1e-9 * d->link_bytes_per_s);
    if (d->network_bytes_per_s > 0)
        printf(" %8.4g", 1e-9 * d->network_bytes_per_s);
    else
        printf("        -");
    if (d->peak_w > 0)
        printf(" %6.4g\n", d->peak_w);
    else
        printf("      -\n");
}

static int print_devices(struct arena *a)
{
    const char **names;
    i64 n;
    TRY(plan_machine_names(true, &names, &n, a));
    printf("\ndevice           TFLOP/s        16 bits   memory   memory  GB/s one way      peak\n"
           "dense        16 bits      fp8  reached       GB     GB/s  in node      out      W\n");
    for (i64 i = 0; i < n; i++) {
        struct plan_machine m;
        TRY(plan_machine_load(&m, names[i], a));
        print_device_row(&m.device);
    }
    return OK;
}

static int print_list(struct arena *a)
{
    const char **names;
    i64 n;
    TRY(plan_machine_names(false, &names, &n, a));
    printf("machine          in one line\n");
    for (i64 i = 0; i < n; i++) {
        struct plan_machine m;
        TRY(plan_machine_load(&m, names[i], a));
        printf("%-16s %s\n", names[i], plan_machine_text(&m, a));
    }
    return print_devices(a);
}

/* Each in full. */
static int put_all(struct json *j, bool devices, struct arena *a)
{
    const char **names;
    i64 n;
    TRY(plan_machine_names(devices, &names, &n, a));
    json_key(j, devices ? "devices" : "machines");
    json_begin_array(j);
    for (i64 i = 0; i < n; i++) {
        struct plan_machine m;
        TRY(plan_machine_load(&m, names[i], a));
        plan_machine_json(&m, j);
    }
    json_end(j);
    return OK;
}

static int print_list_json(struct arena *a)
{
    struct json j;
    json_writer_init(&j);
    j.indent = true;
    json_begin_object(&j);
    int rc = put_all(&j, false, a);
    if (rc >= 0)
        rc = put_all(&j, true, a);
    if (rc >= 0) {
        json_end(&j);
        printf("%s\n", j.out.data);
    }
    json_writer_fini(&j);
    return rc;
}

/* --- one of them -------------------------------------------------------------------- */

static void print_band(const struct plan_band *b, double scale, const char *unit)
{
    printf(" %9.4g", scale * b->mid);
    if (b->lo != b->hi)
        printf(" (%.4g to %.4g)", scale * b->lo, scale * b->hi);
    printf(" %s", unit);
}

static void print_tiers(const struct plan_machine *m)
{
    if (m->n_tiers > 0)
        printf("\ntier        devices  each device sends, one way; a message takes\n");
    for (int i = 0; i < m->n_tiers; i++) {
        const struct plan_tier *t = &m->tiers[i];
        printf("%-10s", t->name);
        if (m->unlimited && i == m->n_tiers - 1)
            printf("       any");
        else
            printf(" %9lld", (long long)t->ranks);
        print_band(&t->bytes_per_s, 1e-9, "GB/s;");
        print_band(&t->latency_s, 1e6, t->latency_assumed ? "us (assumed)" : "us");
        if (t->oversubscription != 1)
            printf("; oversubscribed %g to 1", t->oversubscription);
        printf("%s%s\n", t->wiring == PLAN_SWITCH ? "" : "; ",
               t->wiring == PLAN_SWITCH ? "" : plan_wiring_names[t->wiring]);
    }
}

static void print_facts(const struct plan_machine *m)
{
    printf("\nvalue                 is                                   source\n");
    for (i64 i = 0; i < m->n_facts; i++) {
        const struct plan_fact *f = &m->facts[i];
        printf("%-21s %-36s %s%s\n", f->key, f->value, f->source ? f->source : "not given",
               f->source && !f->verified ? " [not verified]" : "");
    }
}

static void print_machine(const struct plan_machine *m, struct arena *a)
{
    printf("%s: %s\n", m->name, plan_machine_text(m, a));
    if (m->summary)
        printf("%s\n", m->summary);
    if (m->price_per_hour > 0)
        printf("price       %g %s per device and hour\n", m->price_per_hour, m->currency);
    if (m->pue > 0)
        printf("PUE         %g\n", m->pue);
    if (m->location)
        printf("place       %s\n", m->location);
    print_tiers(m);
    print_facts(m);
}

static int run(struct invocation *v)
{
    const struct machine_flags *f = v->options;
    struct plan_machine m;
    if (v->n_args == 0)
        return f->json ? print_list_json(v->arena) : print_list(v->arena);
    TRY(plan_machine_load(&m, v->args[0], v->arena));
    if (!f->json) {
        print_machine(&m, v->arena);
        return OK;
    }
    struct json j;
    json_writer_init(&j);
    j.indent = true;
    plan_machine_json(&m, &j);
    printf("%s\n", j.out.data);
    json_writer_fini(&j);
    return OK;
}

static const struct example examples[] = {
    { "headway plan machine", "All that are known: clusters, then devices." },
    { "headway plan machine h100-sxm-roce", "One, with the source of each value." },
    { "headway plan machine \"h100-sxm node:8 pod:32x50GB/s~8us/2\" --json",
      "32 nodes of 8, whose network lets half of it through, as JSON." },
    { 0 },
};

const struct command cmd_plan_machine = {
    .name = "machine",
    .summary = "List the machines that can be planned for, or describe one",
    .arguments = "[MACHINE]",
    .description = "MACHINE is a file, a name in machines/ or machines/devices/, 'here' "
                   "(this machine, as 'headway machine' measured it; a device is a core), or a "
                   "line: a device, then tiers from the node outwards as NAME:COUNT, each with "
                   "xRATE (of one device, in one direction), ~LATENCY, /OVERSUBSCRIPTION, +sums "
                   "(its switches add), +rail, +mesh or +torus3, "
                   "+sum12us and +pieces256MB (of collectives that were timed) "
                   "as needed; what is left out is the device's own. Also host:N (devices that "
                   "share a host, where that is not the first tier), price=4.2USD/h, pue=1.2, "
                   "at=FRA.",
    .options = options,
    .options_bytes = sizeof(struct machine_flags),
    .max_args = 1,
    .examples = examples,
    .run = run,
};
