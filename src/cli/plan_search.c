/* The best layouts of a job. */
#include "base/err.h"
#include "base/json.h"
#include "base/sys.h"
#include "cli/plan_job.h"
#include "plan/search.h"

#include <stdio.h>

struct search_flags {
    struct plan_flags plan;
    int objective;
    i64 top;
    bool prune;
};

#define FLAG(kind, field) OPTION_FIELD(kind, struct search_flags, field)

static const struct option options[] = {
    PLAN_FLAGS,
    { "objective", FLAG(CHOICE, objective), "time", .choices = "time|cost|energy|carbon",
      .help = "What is to be small." },
    { "top", FLAG(INT, top), "10", .unit = "layouts", .min = 1, .max = 1000,
      .help = "How many are shown." },
    { "prune", FLAG(BOOL, prune), "yes",
      .help = "Leave out what is proved to be no better; the answer is the same." },
    { 0 },
};

struct search_run {
    struct planned_job p;
    struct plan_search_result r;
    double seconds; /* that searching took */
};

static double mfu(const struct plan_job *job, const struct plan_step *s)
{
    return s->model_flops / s->seconds / (double)job->devices /
           job->machine->device.peak[job->dtype];
}

/* --- for people --------------------------------------------------------------------- */

static void print_row(const struct search_run *x, i64 i, struct arena *a)
{
    const struct plan_found *f = &x->r.best[i];
    const struct plan_job *job = &x->p.job;
    double tokens = (double)(job->global_batch * job->sequence) / (double)job->devices;
    printf("%3lld %8.4g (%.4g-%.4g) %9.1f %6.1f %7.1f %-15s %s\n", (long long)i + 1,
           f->step.seconds, f->step.band.lo, f->step.band.hi, tokens / f->step.seconds,
           100 * mfu(job, &f->step), 1e-9 * f->step.memory_bytes,
           plan_memory_names[f->step.binding], plan_layout_text(&f->layout, a));
}

static void print_result(const struct search_run *x, struct arena *a)
{
    const struct plan_search_result *r = &x->r;
    plan_job_print(&x->p);
    printf("%lld layouts exist, %lld were priced in %.3g s, %lld of these do not fit into %.1f GB\n",
           (long long)r->layouts, (long long)r->priced, x->seconds, (long long)r->unfit,
           1e-9 * x->p.machine.device.memory_bytes);
    if (r->left_out)
        printf("%lld groups of degrees have no program yet and were left out\n",
               (long long)r->left_out);
    printf("\n     step s (P10-P90)   tokens/s    MFU  memory of it most          layout\n"
           "                          device      %%      GB\n");
    for (i64 i = 0; i < r->n; i++)
        print_row(x, i, a);
    printf("\nMFU: model FLOPs (matrix products and causal attention, forward and backward, nothing "
           "twice) / time / dense peak\n");
}

/* --- for programs ------------------------------------------------------------------- */

static void put_step(struct json *j, const struct plan_job *job, const struct plan_found *f,
                     struct arena *a)
{
    json_begin_object(j);
    json_put_str(j, "layout", plan_layout_text(&f->layout, a));
    json_put_double(j, "seconds_p10", f->step.band.lo);
    json_put_double(j, "seconds", f->step.seconds);
    json_put_double(j, "seconds_p90", f->step.band.hi);
    json_put_double(j, "mfu", mfu(job, &f->step));
    json_put_double(j, "memory_bytes", f->step.memory_bytes);
    json_put_str(j, "binding", plan_memory_names[f->step.binding]);
    json_end(j);
}

static void print_json(const struct search_run *x, struct arena *a)
{
    struct json j;
    json_writer_init(&j);
    j.indent = true;
    json_begin_object(&j);
    plan_job_json(&x->p, &j);
    json_put_int(&j, "layouts", x->r.layouts);
    json_put_int(&j, "priced", x->r.priced);
    json_put_int(&j, "unfit", x->r.unfit);
    json_key(&j, "best");
    json_begin_array(&j);
    for (i64 i = 0; i < x->r.n; i++)
        put_step(&j, &x->p.job, &x->r.best[i], a);
    json_end(&j);
    json_end(&j);
    printf("%s\n", j.out.data);
    json_writer_fini(&j);
}

/* --- the command -------------------------------------------------------------------- */

static int run(struct invocation *v)
{
    const struct search_flags *f = v->options;
    struct search_run x;
    TRY(plan_job_open(&x.p, &f->plan, v->arena));
    struct plan_search s = { .job = &x.p.job, .pick = x.p.pick, .objective = f->objective,
                             .keep = f->top, .prune = f->prune };
    i64 begin = sys_now_ns();
    TRY(plan_search(&s, &x.r, v->arena));
    x.seconds = 1e-9 * (double)(sys_now_ns() - begin);
    if (f->plan.json)
        print_json(&x, v->arena);
    else
        print_result(&x, v->arena);
    return OK;
}

static const struct example examples[] = {
    { "headway plan search --model llama3-405b --gpus 16384 --batch 2048 --tokens 15.6T",
      "Llama 3 405B on 16,384 H100." },
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
                   "and always the same.",
    .options = options,
    .options_bytes = sizeof(struct search_flags),
    .examples = examples,
    .run = run,
};
