/* The best layouts of a job. */
#include "base/err.h"
#include "base/json.h"
#include "base/sys.h"
#include "cli/plan_replay.h"

#include <stdio.h>

struct search_flags {
    struct plan_run_flags run;
    int objective;
    i64 top;
    bool prune, front;
    const char *html;
};

#define FLAG(kind, field) OPTION_FIELD(kind, struct search_flags, field)

static const struct option options[] = {
    PLAN_RUN_FLAGS,
    { "objective", FLAG(CHOICE, objective), "time", .choices = "time|cost|energy|carbon",
      .help = "What is to be small." },
    { "top", FLAG(INT, top), "10", .unit = "layouts", .min = 1, .max = 1000,
      .help = "How many are shown." },
    { "front", FLAG(BOOL, front), "no",
      .help = "Also with a half, a quarter ... of the devices: which plans no other one beats in "
              "time, money, energy and gas at once." },
    { "html", FLAG(PATH, html), NULL,
      .help = "Also write a page: waterfall, timeline of the replayed step, memory, layouts, and "
              "the front if asked for." },
    { "prune", FLAG(BOOL, prune), "yes",
      .help = "Leave out what is proved to be no better; the answer is the same." },
    { 0 },
};

struct search_run {
    struct planned_run x;
    struct plan_search_result r;
    struct plan_outcome *outcomes; /* [r.n] */
    struct plan_front *front;      /* NULL: not asked for */
    double seconds;                /* that searching took */
};

/* --- for people --------------------------------------------------------------------- */

static void print_step_row(const struct search_run *s, i64 i, struct arena *a)
{
    const struct plan_found *f = &s->r.best[i];
    const struct plan_outcome *o = &s->outcomes[i];
    printf("%3lld", (long long)i + 1);
    plan_band_print(&o->step_s, 1, 22);
    plan_band_print(&o->rate, 1, 22);
    plan_band_print(&o->mfu, 100, 18);
    printf(" %6.1f %-19s %s\n", 1e-9 * f->step.memory_bytes, plan_memory_names[f->step.binding],
           plan_layout_text(&f->layout, a));
    struct plan_job job = s->x.p.job;
    job.any = false;
    const char *why = plan_runs_refused(&job, &f->layout);
    if (why)
        printf("    %s does not run this: %s\n", job.stack->name, why);
}

static void print_run_row(const struct plan_outcome *o)
{
    plan_band_print(&o->days, 1, 21);
    plan_band_print(&o->goodput, 100, 18);
    plan_band_print(&o->mwh, 1, 29);
    plan_band_print(&o->tco2e, 1, 29);
    plan_band_print(&o->money, 1, 30);
    printf("\n");
}

static const char run_columns[] = "days (P10-P90)        goodput, %          MWh                   "
                                  "        tCO2e                         money\n";

static void print_runs(const struct search_run *s)
{
    if (s->x.p.job.tokens <= 0)
        return;
    printf("\n    %s", run_columns);
    for (i64 i = 0; i < s->r.n; i++) {
        printf("%3lld", (long long)i + 1);
        print_run_row(&s->outcomes[i]);
    }
}

static void print_front(const struct search_run *s, struct arena *a)
{
    if (!s->front)
        return;
    printf("\nno other plan beats these in days, money, energy and gas at once\ndevices %s",
           run_columns);
    for (i64 i = 0; i < s->front->n; i++) {
        const struct plan_point *p = &s->front->points[i];
        if (p->beaten)
            continue;
        printf("%7lld", (long long)p->devices);
        print_run_row(&p->outcome);
        printf("         %s\n", plan_layout_text(&p->found.layout, a));
    }
}

static void print_result(const struct search_run *s, struct arena *a)
{
    const struct plan_search_result *r = &s->r;
    plan_job_print(&s->x.p);
    double memory = s->x.p.machine.device.memory_bytes, usable = s->x.p.stack.usable;
    printf("%lld layouts exist, %lld were priced in %.3g s, of which %lld need more than %.1f GB "
           "(%.0f %% of %.1f)\n", (long long)r->layouts, (long long)r->priced, s->seconds,
           (long long)r->unfit, 1e-9 * memory * usable, 100 * usable, 1e-9 * memory);
    if (r->left_out)
        printf("%lld groups of degrees have no program yet and were left out\n",
               (long long)r->left_out);
    if (!s->x.p.job.any)
        printf("of layouts that %s runs (machines/stacks); --any takes in all others\n",
               s->x.p.stack.name);
    printf("\n    step, s (P10-P90)      tokens/s of a device   MFU, %%             GB of it most"
           "            layout\n");
    for (i64 i = 0; i < r->n; i++)
        print_step_row(s, i, a);
    print_runs(s);
    print_front(s, a);
    plan_notes_print(&s->x, &r->best[0], &s->outcomes[0]);
}

/* --- for programs ------------------------------------------------------------------- */

static void put_front(struct json *j, const struct search_run *s, struct arena *a)
{
    json_key(j, "front");
    json_begin_array(j);
    for (i64 i = 0; i < s->front->n; i++) {
        const struct plan_point *p = &s->front->points[i];
        if (p->beaten)
            continue;
        json_begin_object(j);
        json_put_int(j, "devices", p->devices);
        json_key(j, "plan");
        plan_found_json(j, &s->x, &p->found, &p->outcome, a);
        json_end(j);
    }
    json_end(j);
}

static void print_json(const struct search_run *s, struct arena *a)
{
    struct json j;
    json_writer_init(&j);
    j.indent = true;
    json_begin_object(&j);
    plan_job_json(&s->x.p, &j);
    json_put_int(&j, "layouts", s->r.layouts);
    json_put_int(&j, "priced", s->r.priced);
    json_put_int(&j, "unfit", s->r.unfit);
    json_put_int(&j, "left_out", s->r.left_out);
    json_key(&j, "best");
    json_begin_array(&j);
    for (i64 i = 0; i < s->r.n; i++)
        plan_found_json(&j, &s->x, &s->r.best[i], &s->outcomes[i], a);
    json_end(&j);
    if (s->front)
        put_front(&j, s, a);
    json_end(&j);
    printf("%s\n", j.out.data);
    json_writer_fini(&j);
}

/* --- the command -------------------------------------------------------------------- */

static int find(struct search_run *s, const struct search_flags *f, struct arena *a)
{
    const struct plan_job *job = &s->x.p.job;
    struct plan_search q = { .job = job, .pick = s->x.p.pick, .objective = f->objective,
                             .keep = f->top, .prune = f->prune };
    u64 begin = sys_now_ns();
    if (f->objective == PLAN_MONEY && s->x.terms.price <= 0 && job->machine->price_per_hour <= 0)
        return err_set(ERR_USAGE, "--objective cost needs what a device costs in an hour: say "
                       "--price, such as --price 4.2USD/h");
    TRY(plan_search(&q, &s->r, a));
    s->seconds = 1e-9 * (double)(sys_now_ns() - begin);
    s->outcomes = ARENA_ARRAY(a, struct plan_outcome, s->r.n);
    for (i64 i = 0; i < s->r.n; i++)
        TRY(plan_outcome_of(&s->outcomes[i], job, &s->r.best[i].step, &s->x.terms));
    if (!f->front)
        return OK;
    if (job->tokens <= 0)
        return err_set(ERR_USAGE, "--front compares whole runs: say --tokens too");
    s->front = ARENA_NEW(a, struct plan_front);
    return plan_front_of(s->front, &q, &s->x.terms, a);
}

static int write_page(const struct search_run *s, const char *path, struct arena *a)
{
    const struct plan_chance none = { 0 };
    struct replayed replay;
    struct plan_shown shown = { &s->x, &s->r, s->outcomes, s->front, &replay, 0 };
    TRY(plan_replay_seeds(&s->x.p.job, &s->r.best[0].layout, &none, 0, &replay, a));
    return plan_page_write(path, &shown, a);
}

static int run(struct invocation *v)
{
    const struct search_flags *f = v->options;
    struct search_run s = { 0 };
    TRY(plan_run_open(&s.x, &f->run, v->arena));
    TRY(find(&s, f, v->arena));
    if (f->html)
        TRY(write_page(&s, f->html, v->arena));
    if (f->run.plan.json)
        print_json(&s, v->arena);
    else
        print_result(&s, v->arena);
    return OK;
}

static const struct example examples[] = {
    { "headway plan search --model llama3-405b --gpus 16384 --batch 2048 --tokens 15.6T --price "
      "2USD/h", "Llama 3 405B on 16,384 H100, and the run." },
    { "headway plan search --model llama3-70b --gpus 2048 --batch 1024 --tokens 2T --front",
      "How many devices, against money and energy." },
    { "headway plan search --model llama3-8b --gpus 64 --layout tp=2,recompute=none --json",
      "With some of the layout settled, as JSON." },
    { 0 },
};

const struct command cmd_plan_search = {
    .name = "search",
    .summary = "Find the best layouts of a run",
    .description = "Prices every layout that exists: tensor, pipeline, context, expert and data "
                   "parallel degrees whose product is the devices, micro-batch, stages per device, "
                   "recompute, what data ranks split, and the order of work. The result is exact "
                   "and always the same. Left out, and counted, are those that "
                   "no program of Headway's runs yet.\n\nWith --tokens, what the run "
                   "takes: days, by failures (--law), energy, gas and money, each from "
                   "P10 to P90.",
    .options = options,
    .options_bytes = sizeof(struct search_flags),
    .examples = examples,
    .run = run,
};
