/* What exchanges take on a machine, and how far that is from what was measured. */
#include "base/err.h"
#include "base/json.h"
#include "cli/command.h"
#include "plan/net_facts.h"

#include <math.h>
#include <stdio.h>

struct network_flags {
    i64 gpus, stride, bytes;
    bool json;
};

#define FLAG(kind, field) OPTION_FIELD(kind, struct network_flags, field)

static const struct option options[] = {
    { "gpus", FLAG(INT, gpus), "64", .unit = "devices", .min = 2, .max = 1e9,
      .help = "Devices of the group that exchanges something." },
    { "stride", FLAG(INT, stride), "1", .unit = "devices", .min = 1, .max = 1e9,
      .help = "How far they are apart: 1 are neighbours, 8 one of each node of 8." },
    { "bytes", FLAG(SIZE, bytes), "256MiB", .unit = "bytes", .min = 1,
      .help = "The whole buffer: what each has in the end of a gather, or at the beginning of a "
              "scatter." },
    { "json", FLAG(BOOL, json), "no", .help = "Print JSON." },
    { 0 },
};

/* --- predictions -------------------------------------------------------------------- */

static void print_op(const struct plan_machine *m, const struct network_flags *f, int op)
{
    enum net_algorithm how;
    struct net_group g = { op == NET_SENDRECV ? 2 : f->gpus, f->stride, 1 };
    double bytes = (double)f->bytes, bus = net_bus_bytes(op, g.ranks, bytes);
    struct plan_band t = net_seconds(m, op, g, bytes, &how);
    printf("%-15s %10.4g (%.4g to %.4g) ms   %8.4g GB/s  %s\n", net_op_names[op], 1e3 * t.mid,
           1e3 * t.lo, 1e3 * t.hi, 1e-9 * bus / t.mid, net_algorithm_names[how]);
}

static bool serves(const struct plan_machine *m, const struct network_flags *f, int how)
{
    struct net_group g = { f->gpus, f->stride, 1 };
    return m->algorithms >> how & 1 && isfinite(net_seconds_by(m, NET_ALLREDUCE, how, g, 1));
}

/* The message-size curve of an allreduce; what the other algorithms that the machine has
 * would take. */
static void print_curve(const struct plan_machine *m, const struct network_flags *f)
{
    printf("\nallreduce by size; last, ms by each algorithm that the machine has\n"
           "      bytes         ms   GB/s of bus  algorithm   ");
    for (int how = 0; how < NET_ALGORITHMS; how++)
        if (serves(m, f, how))
            printf(" %12s", net_algorithm_names[how]);
    printf("\n");
    for (double bytes = 0x1p10; bytes <= 0x1p34; bytes *= 16) {
        enum net_algorithm how;
        struct net_group g = { f->gpus, f->stride, 1 };
        struct plan_band t = net_seconds(m, NET_ALLREDUCE, g, bytes, &how);
        printf("%11.4g %10.4g %13.4g  %-12s", bytes, 1e3 * t.mid,
               1e-9 * net_bus_bytes(NET_ALLREDUCE, g.ranks, bytes) / t.mid,
               net_algorithm_names[how]);
        for (int i = 0; i < NET_ALGORITHMS; i++)
            if (serves(m, f, i))
                printf(" %12.4g", 1e3 * net_seconds_by(m, NET_ALLREDUCE, i, g, bytes));
        printf("\n");
    }
}

/* --- measurements ------------------------------------------------------------------- */

static void print_facts(const struct plan_machine *m, const struct net_fact *facts, i64 n,
                        struct arena *a)
{
    printf("\nbus bandwidth, GB/s, of '%s' (facts/network_calibration.csv)\n"
           "operation        devices      bytes  measured (band)             predicted (band)"
           "            error\n", m->measured);
    for (i64 i = 0; i < n; i++) {
        const struct net_fact *f = &facts[i];
        char band[32] = "";
        if (f->least > 0)
            snprintf(band, sizeof band, "(%.3g to %.3g)", 1e-9 * f->least, 1e-9 * f->most);
        printf("%-15s %8lld %10.3g %9.4g %-17s %9.4g (%.3g to %.3g) %*s%+6.1f %%\n",
               net_op_names[f->op], (long long)f->ranks, f->bytes, 1e-9 * f->measured, band,
               1e-9 * f->predicted.mid, 1e-9 * f->predicted.lo, 1e-9 * f->predicted.hi, 1, "",
               100 * (f->predicted.mid / f->measured - 1));
    }
    struct net_errors e = net_facts_errors(facts, n, a);
    printf("%lld rows: error %.1f %% on average, %.1f %% the median, %.0f %% at worst; bias %+.1f "
           "%%; %lld within the predicted band\n", (long long)e.rows, 100 * e.mean,
           100 * e.median, 100 * e.worst, 100 * expm1(e.bias), (long long)e.inside);
}

static void print_json(const struct plan_machine *m, const struct network_flags *f,
                       const struct net_fact *facts, i64 n, struct arena *a)
{
    struct json j;
    json_writer_init(&j);
    j.indent = true;
    json_begin_object(&j);
    json_put_str(&j, "machine", m->name);
    json_key(&j, "seconds");
    json_begin_object(&j);
    for (int op = 0; op < NET_OPS; op++) {
        struct net_group g = { op == NET_SENDRECV ? 2 : f->gpus, f->stride, 1 };
        struct plan_band t = net_seconds(m, op, g, (double)f->bytes, NULL);
        plan_band_json(&j, net_op_names[op], &t);
    }
    json_end(&j);
    if (n > 0) {
        struct net_errors e = net_facts_errors(facts, n, a);
        json_put_int(&j, "measured_rows", e.rows);
        json_put_double(&j, "mean_error", e.mean);
        json_put_double(&j, "median_error", e.median);
        json_put_int(&j, "inside_band", e.inside);
    }
    json_end(&j);
    printf("%s\n", j.out.data);
    json_writer_fini(&j);
}

static int run(struct invocation *v)
{
    const struct network_flags *f = v->options;
    struct plan_machine m;
    struct net_fact *facts = NULL;
    i64 n = 0;
    TRY(plan_machine_load(&m, v->args[0], v->arena));
    TRY(plan_machine_room(&m, f->gpus > 0 ? (f->gpus - 1) * f->stride + 1 : 1));
    if (m.measured)
        TRY(net_facts_of(&m, &facts, &n, v->arena));
    if (f->json) {
        print_json(&m, f, facts, n, v->arena);
        return OK;
    }
    printf("%lld devices of %s, %lld apart, %.4g bytes\n", (long long)f->gpus, m.name,
           (long long)f->stride, (double)f->bytes);
    for (int op = 0; op < NET_OPS; op++)
        print_op(&m, f, op);
    print_curve(&m, f);
    if (n > 0)
        print_facts(&m, facts, n, v->arena);
    return OK;
}

static const struct example examples[] = {
    { "headway plan network p5-efa", "Predictions, and their errors on what was measured there." },
    { "headway plan network selene --gpus 16 --stride 8 --bytes 4MiB",
      "A group with one device in each of 16 nodes." },
    { "headway plan network \"h100-sxm node:8 fabric:*x50GB/s~8us\" --gpus 1024 --json",
      "A machine in one line." },
    { 0 },
};

const struct command cmd_plan_network = {
    .name = "network",
    .summary = "Price exchanges on a machine, beside measured ones",
    .arguments = "MACHINE",
    .description = "A message over a tier takes latency + bytes / rate; a collective is priced by "
                   "the algorithms that the machine's library has, and takes the quickest. Where "
                   "the machine's file names a system that was measured, each of its rows is "
                   "printed beside the prediction.",
    .options = options,
    .options_bytes = sizeof(struct network_flags),
    .min_args = 1,
    .max_args = 1,
    .examples = examples,
    .run = run,
};
