/* What bounds a job, and where each way of splitting it stops paying. */
#include "base/err.h"
#include "base/json.h"
#include "cli/command.h"
#include "plan/failures.h"
#include "plan/limits.h"

#include <math.h>
#include <stdio.h>

struct limit_flags {
    const char *model, *machine, *law;
    i64 gpus, batch, critical, sequence;
    int dtype;
    bool json;
};


#define FLAG(kind, field) OPTION_FIELD(kind, struct limit_flags, field)

static const struct option options[] = {
    { "model", FLAG(STRING, model), "llama3-405b", .help = "A name in models/, or a file." },
    { "machine", FLAG(STRING, machine), "h100-sxm-roce",
      .help = "A name, a file, or a line, as 'headway plan machine' takes them." },
    { "gpus", FLAG(INT, gpus), "16384", .unit = "devices", .min = 1, .max = 1e9,
      .help = "Devices whose power and failures are said." },
    { "batch", FLAG(SIZE, batch), "16M", .unit = "tokens", .min = 1, .help = "Tokens of a step." },
    { "critical_batch", FLAG(SIZE, critical), "0", .unit = "tokens", .max = INFINITY,
      .help = "Beyond which larger steps save no steps, as log.health's noise scale estimates it; "
              "0: not known." },
    { "seq", FLAG(INT, sequence), "0", .unit = "tokens", .max = 1 << 24,
      .help = "Length of rows; 0: as long as the model's." },
    { "dtype", FLAG(CHOICE, dtype), "bf16", .choices = "fp32|fp16|bf16|fp8|fp4",
      .help = "Of products." },
    { "law", FLAG(STRING, law), "llama3",
      .help = "Failures, as 'headway plan goodput' takes them." },
    { "json", FLAG(BOOL, json), "no", .help = "Print JSON." },
    { 0 },
};

/* Devices at which failures leave this share of the time; powers of two of nodes. */
static double devices_at(const struct failure_law *law, i64 node, double share)
{
    i64 nodes = 1;
    for (; nodes < (i64)1 << 30; nodes *= 2) {
        struct failure_job j = failure_job_of(law, nodes * 2, FAILURE_MIDDLE);
        j.write_s = j.stall_s;
        j.every_s = failure_best_interval(&j);
        j.spares = failure_best_spares(&j, 4096);
        if (failure_goodput(&j).progress < share)
            break;
    }
    return (double)(nodes * node);
}

/* --- as text ------------------------------------------------------------------------ */

/* One rank more than one is the least that a split can be. */
static void print_ways(double ways, const char *over)
{
    if (ways < 2)
        printf("does not pay over the %s (%.2g ways)\n", over, ways);
    else
        printf("up to %.3g ways over the %s\n", ways, over);
}

static void print_splits(const struct plan_limits *l, const struct plan_machine *m)
{
    if (m->n_tiers == 0) {
        printf("one device; nothing to split over\n");
        return;
    }
    const bool farther = m->n_tiers > 1;
    const char *in = m->tiers[0].name, *out = m->tiers[farther].name;
    printf("each way of splitting pays\n");
    printf("  tensor    up to %.3g ways within a %s%s", fmax(1, l->tensor_node), in,
           farther ? "; " : "\n");
    if (farther)
        print_ways(l->tensor_net, out);
    printf("  context   ");
    print_ways(l->context_net, out);
    printf("  pipeline  with %-9.2g layers a stage or more; below 10 %% idle with 9 micro-batches "
           "for\n            each stage but the first, or fewer with several stages a rank\n",
           l->pipeline_layers);
    if (l->experts_node > 0)
        printf("  experts   an exchange takes %.2g times their computing within a %s",
               1 / l->experts_node, in);
    if (l->experts_net > 0)
        printf(", %.2g times over the %s", 1 / l->experts_net, out);
    printf("%s", l->experts_node > 0 ? "\n" : "");
    printf("  data      with %-9.0f tokens of a step for each data rank or more\n", l->data_tokens);
}

static void print_ridges(const struct plan_limits *l, const struct model_spec *s,
                         const struct plan_machine *m)
{
    printf("%s on %s: %.4g TFLOP/s a device", s->name, m->name, 1e-12 * l->flops_per_s);
    if (m->n_tiers > 0)
        printf("; so many FLOPs for each byte sent, or it waits: %.3g within a %s", l->node_ridge,
               m->tiers[0].name);
    if (m->n_tiers > 1)
        printf(", %.4g out of it", l->net_ridge);
    printf("\n\n");
}

static void print_bounds(const struct plan_limits *l, const struct limit_flags *f,
                         const struct failure_law *law, i64 node)
{
    printf("\nso at %.3g tokens a step\n", (double)f->batch);
    printf("  data ranks               %10.0f  (rows: %.0f)\n", l->data_ranks, l->row_ranks);
    printf("  devices                  %10.0f  with tensor splits within nodes and pipelines "
           "of %.0f ranks, a tenth idle\n", l->devices, l->stages);
    if (l->critical_ranks > 0)
        printf("  at the critical batch    %10.0f  data ranks; more of them save no steps\n",
               l->critical_ranks);
    else
        printf("  critical batch              unknown  train a little with log.health and read the "
               "noise scale\n");
    printf("\nmemory, before activations\n");
    printf("  all split (ZeRO 3)       %10.0f  devices at least\n", ceil(l->memory_split));
    printf("  weights whole (ZeRO 1)   %10.0f  tensor x pipeline ways at least\n",
           ceil(l->memory_whole));
    printf("\n%lld devices\n", (long long)f->gpus);
    bool mega = l->watts.mid >= 1e6;
    double unit = mega ? 1e-6 : 1e-3;
    if (l->watts.mid > 0)
        printf("  power                    %10.4g  %s with hosts and building (%.4g to %.4g)\n",
               unit * l->watts.mid, mega ? "MW" : "kW", unit * l->watts.lo, unit * l->watts.hi);
    printf("  failures (law %s) leave 90 %% of the time up to %.0f devices, 50 %% up to %.0f\n",
           law->name, devices_at(law, node, 0.9), devices_at(law, node, 0.5));
}

static void print_json(const struct plan_limits *l, const struct failure_law *law, i64 node)
{
    const bool farther = l->net_ridge > 0; /* else there is no network to say a number of */
    struct json j;
    json_writer_init(&j);
    j.indent = true;
    json_begin_object(&j);
    json_put_double(&j, "device_flops_per_s", l->flops_per_s);
    json_put_double(&j, "node_ridge_flops_per_byte", l->node_ridge);
    json_put_double(&j, "network_ridge_flops_per_byte", farther ? l->net_ridge : NAN);
    json_put_double(&j, "tensor_ways_in_node", l->tensor_node);
    json_put_double(&j, "tensor_ways_over_network", farther ? l->tensor_net : NAN);
    json_put_double(&j, "context_ways_over_network", l->context_net);
    json_put_double(&j, "least_layers_of_a_stage", l->pipeline_layers);
    json_put_double(&j, "least_tokens_of_a_data_rank", l->data_tokens);
    json_put_double(&j, "data_ranks", l->data_ranks);
    json_put_double(&j, "pipeline_ranks", l->stages);
    json_put_double(&j, "devices", l->devices);
    json_put_double(&j, "data_ranks_at_critical_batch", l->critical_ranks);
    json_put_double(&j, "least_devices_all_split", ceil(l->memory_split));
    json_put_double(&j, "least_model_ways_zero_1", ceil(l->memory_whole));
    json_put_double(&j, "watts", l->watts.mid);
    json_put_double(&j, "devices_at_90_percent_goodput", devices_at(law, node, 0.9));
    json_end(&j);
    printf("%s\n", j.out.data);
    json_writer_fini(&j);
}

static int run(struct invocation *v)
{
    const struct limit_flags *f = v->options;
    struct plan_machine m;
    struct model_spec s;
    struct plan_limits l;
    struct failure_law law;
    TRY(plan_machine_load(&m, f->machine, v->arena));
    TRY(plan_machine_room(&m, f->gpus));
    TRY(spec_load(&s, f->model, v->arena));
    TRY(failure_law_load(&law, f->law, v->arena));
    TRY(plan_limits_of(&l, &s, &m, f->gpus, f->sequence, (double)f->batch, (double)f->critical,
                       f->dtype));
    if (f->json) {
        print_json(&l, &law, m.node_ranks);
        return OK;
    }
    print_ridges(&l, &s, &m);
    print_splits(&l, &m);
    print_bounds(&l, f, &law, m.node_ranks);
    return OK;
}

static const struct example examples[] = {
    { "headway plan limits --model llama3-405b --machine h100-sxm-roce --batch 16M",
      "How far Llama 3 405B could be spread." },
    { "headway plan limits --model deepseek-v3 --machine h800-ib --batch 60M --gpus 2048 "
      "--json", "What experts' exchanges cost, as JSON." },
    { 0 },
};

const struct command cmd_plan_limits = {
    .name = "limits",
    .summary = "Say what bounds a job: batch, memory, links, power, failures",
    .description = "A split pays while computing takes longer than sending: FLOPs for each byte "
                   "sent against the device's FLOP/s over its link's bytes/s. Nothing is searched "
                   "here; these are bounds that hold for every layout.",
    .options = options,
    .options_bytes = sizeof(struct limit_flags),
    .examples = examples,
    .run = run,
};
