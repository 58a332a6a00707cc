/* How long a recipe's step would take on this machine, from rates of runs that were recorded. */
#include "backend/backend.h"
#include "base/err.h"
#include "base/json.h"
#include "base/sys.h"
#include "cli/layout_recipe.h"
#include "plan/rates.h"
#include "plan/simulate.h"
#include "train/rank_view.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct predict_options {
    const char *rates, *layout;
    i64 threads;
    bool json;
};

static const struct option predict_table[] = {
    { "rates", OPTION_FIELD(PATH, struct predict_options, rates), NULL,
      .help = "The file that headway plan calibrate wrote." },
    { "layout", OPTION_FIELD(STRING, struct predict_options, layout), NULL,
      .help = "Such as dp=2: short for layout.dp and its like." },
    { "threads", OPTION_FIELD(INT, struct predict_options, threads), "0", .max = 4096,
      .unit = "threads",
      .help = "Of a rank; 0: train.threads, or the machine's cores shared out." },
    { "json", OPTION_FIELD(BOOL, struct predict_options, json), "false", .help = "As JSON." },
    { 0 },
};

struct predict {
    struct invocation *v;
    struct layout_recipe r;
    struct plan_rates rates;
    const struct rank_view **views; /* [pp] */
    struct plan_time time;
};

static int view_ranks(struct predict *x)
{
    const struct layout *l = &x->r.layout;
    x->views = ARENA_ARRAY(x->v->arena, const struct rank_view *, l->pp);
    for (i64 i = 0; i < l->pp; i++) {
        struct rank_view *view = ARENA_NEW(x->v->arena, struct rank_view);
        TRY(rank_view_new(view, l, &x->r.spec, &x->r.config, i * layout_stride(l, AXIS_PP),
                          x->v->arena));
        x->views[i] = view;
    }
    return OK;
}

static bool is_outside(const struct predict *x)
{
    bool outside = false;
    for (i64 i = 0; i < x->r.layout.pp; i++) {
        const struct program *p = x->views[i]->step.program;
        for (i64 id = 0; id < p->n_tasks; id++)
            if (p->by_id[id]->lane == LANE_COMPUTE && !p->by_id[id]->op->waits)
                plan_rates_seconds(&x->rates, p->by_id[id], &outside);
    }
    return outside;
}

/* Seconds of each op in a step of rank 0, and how many there are. */
struct op_seconds {
    const char *name;
    double seconds;
};

static void add_task(struct op_seconds *ops, i64 *n, const char *name, double seconds)
{
    i64 at = 0;
    while (at < *n && strcmp(ops[at].name, name))
        at++;
    if (at == *n)
        ops[(*n)++] = (struct op_seconds){ name, 0 };
    ops[at].seconds += seconds;
}

static int longest_first(const void *a, const void *b)
{
    double x = ((const struct op_seconds *)a)->seconds, y = ((const struct op_seconds *)b)->seconds;
    return x > y ? -1 : x < y;
}

static i64 sum_ops(const struct predict *x, struct op_seconds *ops)
{
    const struct program *p = x->views[0]->step.program;
    i64 n = 0;
    for (i64 at = 0; at < p->n_actions; at++) {
        const struct action *action = &p->actions[at];
        const struct segment *s = &p->segments[action->segment];
        for (i64 i = 0; i < s->n_tasks; i++) {
            const struct task *t = &s->tasks[i];
            if (t->lane == LANE_COMPUTE && !t->op->waits &&
                task_has_turn(t, action->micro_batch, p->micro_batches))
                add_task(ops, &n, t->op->name, plan_rates_seconds(&x->rates, t, NULL));
        }
    }
    qsort(ops, (size_t)n, sizeof *ops, longest_first);
    return n;
}

static void put_ops(const struct predict *x, struct json *j)
{
    struct op_seconds ops[BACKEND_OPS];
    i64 n = sum_ops(x, ops);
    json_key(j, "ops");
    json_begin_object(j);
    for (i64 i = 0; i < n; i++)
        json_put_double(j, ops[i].name, ops[i].seconds);
    json_end(j);
}

static void print_ops(const struct predict *x)
{
    enum { SHOWN = 6 };
    struct op_seconds ops[BACKEND_OPS];
    i64 n = sum_ops(x, ops);
    printf("ops of rank 0:");
    for (i64 i = 0; i < i64_min(n, SHOWN); i++)
        printf("%s %s %.4g s", i ? "," : "", ops[i].name, ops[i].seconds);
    printf("\n");
}

static void print_result(const struct predict *x)
{
    const struct predict_options *o = x->v->options;
    double seconds = (x->time.length + x->rates.step_s) * (1 + x->rates.waits);
    double spread = x->rates.spread;
    double wide = is_outside(x) ? 2 * spread + 0.05 : spread + 0.02;
    if (x->rates.date)
        wide += 0.1; /* a rule: no run was recorded, so nobody knows what training adds */
    if (o->json) {
        struct json j;
        json_writer_init(&j);
        json_begin_object(&j);
        json_put_double(&j, "step_seconds", seconds);
        json_put_double(&j, "computing", plan_mean(&x->time).compute);
        json_put_double(&j, "besides_tasks", x->rates.step_s);
        json_put_double(&j, "relative_interval", wide);
        json_put_bool(&j, "extrapolates", is_outside(x));
        json_put_bool(&j, "of_a_run", !x->rates.date);
        put_ops(x, &j);
        json_end(&j);
        printf("%s\n", j.out.data);
        json_writer_fini(&j);
        return;
    }
    printf("step: %.4g s (%.4g to %.4g), of which %.4g s computing and %.4g s besides tasks\n",
           seconds, seconds * fmax(1 - wide, 0), seconds * (1 + wide), plan_mean(&x->time).compute,
           x->rates.step_s);
    print_ops(x);
    printf("rates: %s, %s, %lld ranks with %lld threads each\n", x->rates.processor,
           x->rates.backend, (long long)x->rates.ranks, (long long)x->rates.threads);
    if (x->rates.date)
        printf("from the microbenchmark of %s alone: no run with as many ranks and threads was "
               "recorded; the interval is wider for it\n", x->rates.date);
    if (is_outside(x))
        printf("this goes beyond what was recorded: some tasks are more than four times larger or "
               "smaller, or of an op that no run had; the interval is wider for it\n");
}

static int run(struct invocation *v)
{
    const struct predict_options *o = v->options;
    struct predict x = { .v = v };
    if (!o->rates)
        return err_set(ERR_USAGE, "say what tasks take here: --rates FILE, which headway "
                       "plan calibrate RUN --out FILE writes");
    TRY(layout_recipe_read(&x.r, v, o->layout, 0));
    i64 ranks = layout_ranks(&x.r.layout);
    i64 threads = o->threads ? o->threads : x.r.config.train.threads;
    if (!threads)
        threads = i64_max(1, sys_cpu_count() / ranks);
    const char *precision = x.r.config.train.precision == PRECISION_BF16 ? "bf16" : "fp32";
    TRY(plan_rates_load(&x.rates, o->rates, precision, threads, ranks, v->arena));
    TRY(view_ranks(&x));
    struct plan_price price = { INFINITY, INFINITY, INFINITY, 0, &x.rates };
    TRY(plan_simulate(x.views, &price, &x.time, v->arena));
    print_result(&x);
    return OK;
}

static const struct example examples[] = {
    { "headway plan predict recipes/demo.yaml --rates here.yaml --layout dp=2",
      "Two ranks, from runs on this machine that had as many." },
    { 0 },
};

const struct command cmd_plan_predict = {
    .name = "predict",
    .summary = "How long a recipe's step would take here, from recorded runs",
    .arguments = "RECIPE.yaml",
    .description = "The step of every rank is built as in training and walked on a "
                   "computed clock, on which tasks take what headway plan calibrate RUN "
                   "found out about their ops on this machine. Other models, batches, "
                   "lengths and layouts can be asked about.",
    .options = predict_table,
    .options_bytes = sizeof(struct predict_options),
    .min_args = 1,
    .max_args = 1,
    .takes_set = true,
    .examples = examples,
    .run = run,
};
