/* What a whole run takes: FLOPs, days, energy, gas, money. */
#include "base/err.h"
#include "base/json.h"
#include "cli/command.h"
#include "plan/bill.h"
#include "plan/failures.h"
#include "plan/run_size.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct run_flags {
    const char *model, *machine, *law, *location, *price;
    i64 tokens, gpus, sequence, step_tokens, vocab;
    double mfu, step, pue, carbon;
    int dtype, counts;
    bool json;
};

enum { COUNT_PROGRAM, COUNT_6N, COUNT_SQUARE };
static const char *const count_names[] = { "the program", "6ND", "attention as squares" };

#define FLAG(kind, field) OPTION_FIELD(kind, struct run_flags, field)

static const struct option options[] = {
    { "model", FLAG(STRING, model), "llama3-405b", .help = "A name in models/, or a file." },
    { "tokens", FLAG(SIZE, tokens), "15.6T", .unit = "tokens", .min = 1,
      .help = "That the run is trained on." },
    { "machine", FLAG(STRING, machine), "h100-sxm-roce",
      .help = "A name, a file, or a line, as 'headway plan machine' takes them." },
    { "gpus", FLAG(INT, gpus), "16384", .unit = "devices", .min = 1, .max = 1e9,
      .help = "Devices that train." },
    { "seq", FLAG(INT, sequence), "0", .unit = "tokens", .max = 1 << 24,
      .help = "Length of rows; 0: as long as the model's." },
    { "vocab", FLAG(INT, vocab), "0", .unit = "tokens", .max = 1 << 24,
      .help = "Size of the vocabulary, where the model leaves it to a tokenizer." },
    { "mfu", FLAG(FLOAT, mfu), "0", .min = 0, .max = 1,
      .help = "Utilisation of the dense peak; 0: 0.40, from 0.30 to 0.50." },
    { "counts", FLAG(CHOICE, counts), "program", .choices = "program|6n|square",
      .help = "Which FLOPs that utilisation counts: the program's, 6ND, or attention as squares." },
    { "dtype", FLAG(CHOICE, dtype), "bf16", .choices = "fp32|fp16|bf16|fp8|fp4",
      .help = "Whose peak it is a share of." },
    { "step_time", FLAG(DURATION, step), "0", .unit = "seconds", .max = 1e6,
      .help = "Seconds of a step, instead of a utilisation." },
    { "step_tokens", FLAG(SIZE, step_tokens), "0", .unit = "tokens", .max = INFINITY,
      .help = "Tokens of a step, with --step-time.", .needs = "step_time" },
    { "law", FLAG(STRING, law), "llama3",
      .help = "Failures, as 'headway plan goodput' takes them; none: nothing fails." },
    { "price", FLAG(STRING, price), NULL,
      .help = "What a device costs in an hour, such as 4.2USD/h, or a file with such a line for "
              "each device ('h100-sxm: 4.2 USD/h'); no prices are known here." },
    { "location", FLAG(STRING, location), NULL,
      .help = "Where the electricity comes from: FRA, France, gcp:REGION, us:STATE, SE1." },
    { "carbon_g_per_kwh", FLAG(FLOAT, carbon), "0", .unit = "g/kWh", .max = 5000,
      .help = "Grams of CO2e per kWh, above any table; 0: by location." },
    { "pue", FLAG(FLOAT, pue), "0", .max = 10,
      .help = "Power of the building over that of its machines; 0: 1.2, from 1.08 to 1.56." },
    { "json", FLAG(BOOL, json), "no", .help = "Print JSON." },
    { 0 },
};

/* lo is the good end of each band: fewer days. */
struct plan_run {
    const struct run_flags *flags;
    struct model_spec spec;
    struct plan_machine machine;
    struct plan_run_size size;
    struct plan_band mfu, days_clean, goodput, days; /* of the counted FLOPs */
    double flops_per_token, peak;
    i64 spares;
    struct failure_law law;
    bool fails;
    struct plan_bill bill;
};

/* --- the numbers -------------------------------------------------------------------- */

static int check_flags(const struct plan_run *x)
{
    const struct run_flags *f = x->flags;
    if ((f->step > 0) != (f->step_tokens > 0))
        return err_set(ERR_USAGE, "--step-time and --step-tokens belong together");
    if (f->step > 0 && f->mfu > 0)
        return err_set(ERR_USAGE, "--mfu or --step-time, not both: each gives the other");
    return plan_dtype_check(&x->machine.device, f->dtype);
}

static void find_speed(struct plan_run *x)
{
    const struct run_flags *f = x->flags;
    double devices = (double)f->gpus, tokens = (double)f->tokens;
    const double per_token[] = { x->size.flops_per_token, x->size.six_n_per_token,
                                 x->size.square_per_token };
    x->flops_per_token = per_token[f->counts];
    x->mfu = (struct plan_band){ 0.50, 0.40, 0.30 };
    if (f->step > 0) {
        double rate = (double)f->step_tokens / f->step;
        double mfu = rate * x->flops_per_token / devices / x->peak;
        x->mfu = (struct plan_band){ mfu, mfu, mfu };
    } else if (f->mfu > 0) {
        x->mfu = (struct plan_band){ f->mfu, f->mfu, f->mfu };
    }
    double ideal = tokens * x->flops_per_token / devices / x->peak / 86400;
    x->days_clean = (struct plan_band){ ideal / x->mfu.lo, ideal / x->mfu.mid,
                                        ideal / x->mfu.hi };
}

static double goodput_at(struct plan_run *x, enum failure_end end)
{
    i64 nodes = ceil_div(x->flags->gpus, x->machine.node_ranks);
    struct failure_job j = failure_job_of(&x->law, nodes, end);
    j.write_s = j.stall_s;
    j.every_s = failure_best_interval(&j);
    j.spares = failure_best_spares(&j, 4096);
    if (end == FAILURE_MIDDLE)
        x->spares = j.spares * x->machine.node_ranks;
    return failure_goodput(&j).progress;
}

static int find_goodput(struct plan_run *x, struct arena *a)
{
    const char *law = x->flags->law;
    x->goodput = (struct plan_band){ 1, 1, 1 };
    x->fails = strcmp(law, "none") != 0;
    if (x->fails) {
        TRY(failure_law_load(&x->law, law, a));
        x->goodput = (struct plan_band){ goodput_at(x, FAILURE_QUICK),
                                         goodput_at(x, FAILURE_MIDDLE),
                                         goodput_at(x, FAILURE_SLOW) };
    }
    x->days = (struct plan_band){ x->days_clean.lo / x->goodput.lo,
                                  x->days_clean.mid / x->goodput.mid,
                                  x->days_clean.hi / x->goodput.hi };
    return OK;
}

static int find_bill(struct plan_run *x, struct arena *a)
{
    const struct run_flags *f = x->flags;
    struct plan_band busy = plan_busy_of_mfu(&x->machine.device, f->dtype, x->mfu.mid);
    double up = x->goodput.mid;
    struct plan_use use = {
        .devices = (double)(f->gpus + x->spares), .seconds = x->days.mid * 86400,
        .busy = { busy.lo * up, busy.mid * up, busy.hi * up }, .pue = f->pue,
        .location = f->location, .g_per_kwh = f->carbon,
    };
    if (f->price)
        TRY(plan_price_find(f->price, &x->machine, &use.price, &use.currency, a));
    return plan_bill_of(&x->machine, &use, &x->bill);
}

static int compute(struct plan_run *x, struct arena *a)
{
    const struct run_flags *f = x->flags;
    TRY(plan_machine_load(&x->machine, f->machine, a));
    TRY(plan_machine_room(&x->machine, f->gpus));
    TRY(spec_load(&x->spec, f->model, a));
    if (x->spec.vocab == 0 && f->vocab == 0)
        return err_set(ERR_USAGE, "%s leaves its vocabulary to a tokenizer; say --vocab, such as "
                       "8192", f->model);
    x->spec.vocab = x->spec.vocab ? x->spec.vocab : f->vocab;
    TRY(plan_run_size_of(&x->size, &x->spec, f->sequence));
    x->peak = x->machine.device.peak[f->dtype];
    TRY(check_flags(x));
    find_speed(x);
    TRY(find_goodput(x, a));
    return find_bill(x, a);
}

/* --- as text ------------------------------------------------------------------------ */

static void print_band(const char *what, const struct plan_band *b, double scale,
                       const char *unit)
{
    if (b->lo == b->hi)
        printf("%-24s %10.4g %s\n", what, scale * b->mid, unit);
    else
        printf("%-24s %10.4g %-8s from %.4g to %.4g\n", what, scale * b->mid, unit, scale * b->lo,
               scale * b->hi);
}

/* "405.9 B", "15.6 T" */
static const char *amount(double value, char out[24])
{
    static const char *const units[] = { "", " k", " M", " B", " T" };
    int unit = 0;
    while (value >= 1000 && unit < COUNT_OF(units) - 1) {
        value /= 1000;
        unit++;
    }
    snprintf(out, 24, "%.4g%s", value, units[unit]);
    return out;
}

static void print_size(const struct plan_run *x)
{
    char text[24];
    const struct plan_run_size *s = &x->size;
    double tokens = (double)x->flags->tokens;
    printf("%s: %s parameters", x->spec.name, amount(s->parameters, text));
    if (s->active < s->parameters)
        printf(", of which a token meets %s", amount(s->active, text));
    printf("; %s tokens in rows of %lld\n\n", amount(tokens, text), (long long)s->sequence);
    printf("FLOPs, 6ND               %10.4g  = 6 x %.4g x %.4g\n", tokens * s->six_n_per_token,
           s->active, tokens);
    printf("FLOPs, the program's     %10.4g  attention, half squares, is %.3g %% of it\n",
           tokens * s->flops_per_token, 100 * s->attention_share);
    printf("FLOPs, whole squares     %10.4g  as some MFUs count attention\n\n",
           tokens * s->square_per_token);
}

static void print_time(const struct plan_run *x)
{
    const struct run_flags *f = x->flags;
    printf("%lld x %s, %.4g TFLOP/s dense each (%s)\n", (long long)f->gpus, x->machine.device.name,
           1e-12 * x->peak, plan_dtype_names[f->dtype]);
    print_band("MFU", &x->mfu, 100, "%");
    printf("%-24s   counting %s%s\n", "", count_names[f->counts],
           f->step > 0 ? "; from the step's time" : f->mfu > 0 ? "; as given" : "; assumed");
    struct plan_band rate = { x->mfu.lo * x->peak / x->flops_per_token,
                              x->mfu.mid * x->peak / x->flops_per_token,
                              x->mfu.hi * x->peak / x->flops_per_token };
    print_band("tokens/s per device", &rate, 1, "");
    print_band("days, if nothing fails", &x->days_clean, 1, "days");
    print_band("goodput", &x->goodput, 100, "%");
    if (x->fails)
        printf("%-24s   by law %s on %lld nodes, %lld spare devices; 'headway plan goodput' has "
               "more\n", "", x->law.name,
               (long long)ceil_div(f->gpus, x->machine.node_ranks), (long long)x->spares);
    print_band("days", &x->days, 1, "days");
}

static void print_energy(const struct plan_bill *b)
{
    if (!b->power_known) {
        printf("energy                   the device's power is not known\n");
        return;
    }
    print_band("power of a device", &b->watts, 1, "W");
    print_band("energy of devices", &b->devices_mwh, 1, "MWh");
    printf("%-24s %10.4g MWh      if they drew their peak all the time, as is often published\n",
           "", b->peak_mwh);
    print_band("PUE", &b->pue, 1, "");
    print_band("energy", &b->mwh, 1, "MWh");
    print_band("greenhouse gas", &b->tco2e, 1, "tCO2e");
    printf("%-24s   %.4g g/kWh, %s", "", b->carbon.g_per_kwh, b->carbon.location);
    if (b->carbon.year > 0)
        printf(" %d", b->carbon.year);
    printf("%s: %s\n", b->carbon.assumed ? " (assumed; say --location)" : "", b->carbon.source);
}

static void print_bill(const struct plan_run *x)
{
    const struct plan_bill *b = &x->bill;
    printf("\nof the middle, spares included\n");
    printf("%-24s %10.4g\n", "device-hours", b->device_hours);
    print_energy(b);
    if (b->money > 0)
        printf("%-24s %10.4g %s\n", "money", b->money, b->currency);
    else
        printf("%-24s   no price was given: --price 4.2USD/h\n", "money");
    printf("\nassumed: devices draw 15 %% of their peak when they wait and 85 %% when they compute "
           "(OLMo 2's range),\nhosts and network 0.59 W per W of it (BLOOM's machine, idling); "
           "bands as in 'headway plan run --help'\n");
}

/* --- as JSON ------------------------------------------------------------------------ */

static void print_json(const struct plan_run *x)
{
    struct json j;
    double tokens = (double)x->flags->tokens;
    json_writer_init(&j);
    j.indent = true;
    json_begin_object(&j);
    json_put_str(&j, "model", x->spec.name);
    json_put_double(&j, "parameters", x->size.parameters);
    json_put_double(&j, "active_parameters", x->size.active);
    json_put_double(&j, "tokens", tokens);
    json_put_int(&j, "sequence", x->size.sequence);
    json_put_double(&j, "flops_6nd", tokens * x->size.six_n_per_token);
    json_put_double(&j, "flops_program", tokens * x->size.flops_per_token);
    json_put_double(&j, "flops_square_attention", tokens * x->size.square_per_token);
    json_put_str(&j, "machine", x->machine.name);
    json_put_int(&j, "devices", x->flags->gpus);
    json_put_str(&j, "mfu_counts", count_names[x->flags->counts]);
    plan_band_json(&j, "mfu", &x->mfu);
    plan_band_json(&j, "days_without_failures", &x->days_clean);
    plan_band_json(&j, "goodput", &x->goodput);
    plan_band_json(&j, "days", &x->days);
    json_key(&j, "bill");
    plan_bill_json(&x->bill, &j);
    json_end(&j);
    printf("%s\n", j.out.data);
    json_writer_fini(&j);
}

static int run(struct invocation *v)
{
    struct plan_run x = { .flags = v->options };
    TRY(compute(&x, v->arena));
    if (x.flags->json) {
        print_json(&x);
        return OK;
    }
    print_size(&x);
    print_time(&x);
    print_bill(&x);
    return OK;
}

static const struct example examples[] = {
    { "headway plan run --model llama3-405b --tokens 15.6T --machine h100-sxm-roce --gpus 16384 "
      "--mfu 0.41", "Llama 3 405B: days, device-hours, energy." },
    { "headway plan run --model gpt3-175b --tokens 300G --machine selene --gpus 1024 --step-time "
      "8.9s --step-tokens 1572864 --price 2USD/h --location FRA",
      "At the time of a step that was measured or planned, with money and gas." },
    { "headway plan run --model llama3-8b --tokens 1T --machine \"h100-sxm node:8 fabric:*\" "
      "--gpus 64 --json", "A machine in one line; the result as JSON." },
    { 0 },
};

const struct command cmd_plan_run = {
    .name = "run",
    .summary = "Say what a whole run takes: FLOPs, days, energy, gas and money",
    .description = "FLOPs are counted twice: as 6ND, and on the tasks of the program that training "
                   "would run. Days follow from a utilisation, or from the time of a step, and "
                   "from what failures leave of the time. A device draws 0.15 + 0.70 x busy of its "
                   "peak (from 0.15 + 0.45 to 0.40 + 0.60), busy being the utilisation over 0.8 of "
                   "the best that products reach; hosts and network 0.59 (0.20 to 0.70) of it, "
                   "always; the building takes PUE times that.",
    .options = options,
    .options_bytes = sizeof(struct run_flags),
    .examples = examples,
    .run = run,
};
