/* Very many devices, in islands with slow links between them. */
#include "base/err.h"
#include "base/json.h"
#include "cli/plan_terms.h"
#include "plan/island_plan.h"
#include "plan/quantity.h"

#include <stdio.h>

struct islands_flags {
    struct plan_run_flags run;
    i64 islands, every;
    const char *link;
    double latency, bytes, hidden;
};

#define FLAG(kind, field) OPTION_FIELD(kind, struct islands_flags, field)

static const struct option options[] = {
    PLAN_RUN_FLAGS_WITH("0", .help = "Of all islands together; 0: a node for each."),
    { "islands", FLAG(INT, islands), "8", .min = 2, .max = 1 << 20,
      .help = "How many; --gpus and --batch are those of all together." },
    { "every", FLAG(INT, every), "500", .unit = "steps", .min = 1, .max = 1e9,
      .help = "Steps between two meetings (OpenDiLoCo: 500)." },
    { "link", FLAG(STRING, link), "10 Gb/s one-way",
      .help = "What one island can send, with its unit." },
    { "link_latency", FLAG(DURATION, latency), "50ms", .unit = "seconds", .max = 100,
      .help = "From island to island." },
    { "outer_bytes", FLAG(FLOAT, bytes), "4", .unit = "bytes", .min = 0.125, .max = 8,
      .help = "Sent per parameter, one way: 4, or 1 for 8-bit differences." },
    { "hidden", FLAG(FLOAT, hidden), "0", .max = 1,
      .help = "Share of the outer step beside computing; Headway hides nothing." },
    { 0 },
};

static void print_plan(const struct planned_run *x, const struct island_plan *p,
                       const struct island_link *l, const char *link, struct arena *a)
{
    plan_job_print(&x->p);
    printf("%lld islands of %lld devices and %lld rows a step, meeting every %lld steps, "
           "over %s\n\n",
           (long long)l->islands, (long long)p->job.devices, (long long)p->job.global_batch,
           (long long)l->every, link);
    printf("layout within an island  %s\n", plan_layout_text(&p->inner.layout, a));
    printf("a step                  ");
    plan_band_print(&p->outcome.step_s, 1, 0);
    printf(" s, MFU");
    plan_band_print(&p->outcome.mfu, 100, 0);
    printf(" %%\nan outer step             %.4g s, %.3g %% of the time; 5 %% with --every %.0f\n",
           p->outer_s, 100 * p->outer_share, p->every_for_5);
    printf("each step across links   %.4g s (%.3g times as long)\n", p->synchronous_s,
           p->synchronous_s / p->inner.step.seconds);
    printf("goodput, %%              ");
    plan_band_print(&p->goodput, 100, 0);
    printf("\nmillion tokens/s        ");
    plan_band_print(&p->rate, 1e-6, 0);
    printf("\n");
    if (p->days.mid > 0) {
        printf("days                    ");
        plan_band_print(&p->days, 1, 0);
        printf("\n");
    }
    printf("\nassumed: a ring of islands, each %.4g GB/s one way and %.3g s from the next, "
           "sends %.3g bytes for each of %.4g parameters and receives as many;\n"
           "islands are alike and wait for the slowest; goodput between that of all as one "
           "job and of one island (%s);\n"
           "the model gets as good as with a step of all rows together, which no formula here "
           "knows\n",
           1e-9 * l->bytes_per_s, l->latency_s, plan_outer_bytes(l), p->parameters,
           x->terms.law ? x->law.name : "nothing fails");
}

static void print_json(const struct planned_run *x, const struct island_plan *p,
                       const struct island_link *l, struct arena *a)
{
    struct json j;
    json_writer_init(&j);
    j.indent = true;
    json_begin_object(&j);
    plan_job_json(&x->p, &j);
    json_put_int(&j, "islands", l->islands);
    json_put_int(&j, "every", l->every);
    json_put_double(&j, "link_bytes_per_second", l->bytes_per_s);
    json_key(&j, "within");
    plan_found_json(&j, x, &p->inner, &p->outcome, a);
    json_put_double(&j, "outer_seconds", p->outer_s);
    json_put_double(&j, "outer_share", p->outer_share);
    json_put_double(&j, "synchronous_seconds", p->synchronous_s);
    json_put_double(&j, "every_for_5_percent", p->every_for_5);
    plan_band_json(&j, "goodput", &p->goodput);
    plan_band_json(&j, "tokens_per_second", &p->rate);
    plan_band_json(&j, "days", &p->days);
    json_end(&j);
    printf("%s\n", j.out.data);
    json_writer_fini(&j);
}

/* Rows that nobody asked for: as many for each island, and if that is less than twice as
 * many, a multiple of its devices' odd part: ways of splitting a model are powers of two,
 * data ranks are the rest. */
static i64 even_rows(i64 rows, i64 devices, i64 islands)
{
    i64 each = ceil_div(rows, islands), odd = i64_max(1, devices / islands);
    while (odd % 2 == 0)
        odd /= 2;
    i64 even = round_up(each, odd);
    return (even < 2 * each ? even : each) * islands;
}

static int devices_of(i64 *out, const struct islands_flags *f, struct arena *a)
{
    struct plan_machine m;
    *out = f->run.plan.gpus;
    if (*out > 0)
        return OK;
    TRY(plan_machine_load(&m, f->run.plan.machine, a));
    *out = f->islands * m.node_ranks;
    return OK;
}

static int run(struct invocation *v)
{
    struct islands_flags *f = v->options;
    struct planned_run x;
    struct island_plan p;
    struct island_link l = { .islands = f->islands, .every = f->every, .latency_s = f->latency,
                             .element_bytes = f->bytes, .hidden = f->hidden };
    TRY(quantity_parse(f->link, QUANTITY_LINK, "--link", &l.bytes_per_s, NULL));
    if (l.bytes_per_s == 0)
        return err_set(ERR_USAGE, "--link: over '%s' islands never meet", f->link);
    TRY(devices_of(&f->run.plan.gpus, f, v->arena));
    TRY(plan_run_open(&x, &f->run, v->arena));
    if (x.p.batch_assumed)
        x.p.job.global_batch = even_rows(x.p.job.global_batch, x.p.job.devices, l.islands);
    const int rc = plan_islands_of(&p, &x.p.job, &x.p.pick, &l, &x.terms, v->arena);
    if (rc == ERR_LIMIT)
        return err_context(rc, "an island has %lld of the %lld devices (--gpus is those "
                           "of all islands together)",
                           (long long)(x.p.job.devices / l.islands),
                           (long long)x.p.job.devices);
    TRY(rc);
    if (f->run.plan.json)
        print_json(&x, &p, &l, v->arena);
    else
        print_plan(&x, &p, &l, f->link, v->arena);
    return OK;
}

static const struct example examples[] = {
    { "headway plan islands --model llama3-405b --gpus 131072 --islands 8 --batch 16384 --tokens "
      "100T --link \"100 Gb/s one-way\"", "131,072 H100 in eight places." },
    { "headway plan islands --model megatron-1t --gpus 1048576 --islands 64 --batch 131072 --seq "
      "2048 --outer-bytes 1", "A million, with 8-bit differences." },
    { 0 },
};

const struct command cmd_plan_islands = {
    .name = "islands",
    .summary = "Price islands of devices that meet over slow links now and then",
    .description = "Islands take steps apart and average their weights every so many (DiLoCo; "
                   "layout.islands in training). Within an island the best layout is searched; "
                   "what is assumed of links and failures is printed.",
    .options = options,
    .options_bytes = sizeof(struct islands_flags),
    .examples = examples,
    .run = run,
};
