/* Where a step's seconds go, and why another layout is not better. */
#include "base/err.h"
#include "base/json.h"
#include "base/text.h"
#include "cli/plan_terms.h"

#include <math.h>
#include <stdio.h>

/* --- a waterfall -------------------------------------------------------------------- */

enum { BAR = 40 };

static void print_bar(double before, double width, double all)
{
    int begin = (int)(BAR * before / all + 0.5), end = (int)(BAR * (before + width) / all + 0.5);
    for (int i = 0; i < BAR; i++)
        printf("%s", i < begin ? " " : i < end ? "#" : i == begin && width > 0 ? "|" : " ");
}

/* Its share is of the step; bars are of all. */
static void print_term(const char *name, double seconds, double before, double step, double all)
{
    printf("  %-26s %10.4f s %6.2f %%  ", name, seconds, 100 * seconds / step);
    print_bar(before, seconds, all);
    printf("\n");
}

static const char twice[] = "work done twice, padding";

/* Of the ideal term: what the model does not need, or does in wider numbers than the peak's. */
static double twice_seconds(const struct plan_found *f, const struct plan_outcome *o)
{
    double more = f->step.terms[PLAN_IDEAL] - o->ideal_s;
    return fabs(more) < 1e-9 * o->ideal_s ? 0 : more;
}

/* Terms that sum to the step, then what failures add to it. */
static void print_waterfall(const struct plan_found *f, const struct plan_outcome *o)
{
    double step = f->step.seconds, lost = step * (1 / o->goodput.mid - 1);
    double all = step + lost, more = twice_seconds(f, o), before = f->step.terms[PLAN_IDEAL];
    print_term(plan_term_names[PLAN_IDEAL], before - more, 0, step, all);
    if (more != 0)
        print_term(twice, more, before - more, step, all);
    for (int i = PLAN_IDEAL + 1; i < PLAN_TERMS; i++) {
        if (f->step.terms[i] == 0)
            continue;
        print_term(plan_term_names[i], f->step.terms[i], before, step, all);
        before += f->step.terms[i];
    }
    printf("  %-26s %10.4f s, P10 to P90 %.4g to %.4g s\n", "the step", f->step.seconds,
           o->step_s.lo, o->step_s.hi);
    if (lost > 0)
        print_term("failures, spread over steps", lost, before, step, all);
}

/* --- another layout ----------------------------------------------------------------- */

static void print_difference(const char *name, double a, double b)
{
    if (a != 0 || b != 0)
        printf("  %-26s %10.4f %10.4f %+10.4f\n", name, a, b, b - a);
}

static void print_beside(const struct plan_found *a, const struct plan_outcome *o,
                         const struct plan_found *b, const struct plan_outcome *p)
{
    double more = twice_seconds(a, o), other = twice_seconds(b, p);
    print_difference(plan_term_names[PLAN_IDEAL], a->step.terms[PLAN_IDEAL] - more,
                     b->step.terms[PLAN_IDEAL] - other);
    print_difference(twice, more, other);
    for (int i = PLAN_IDEAL + 1; i < PLAN_TERMS; i++)
        print_difference(plan_term_names[i], a->step.terms[i], b->step.terms[i]);
    print_difference("the step, seconds", a->step.seconds, b->step.seconds);
    print_difference("memory, GB", 1e-9 * a->step.memory_bytes, 1e-9 * b->step.memory_bytes);
}

static const char *largest_difference(const struct plan_step *a, const struct plan_step *b,
                                      double *seconds)
{
    int most = 0;
    for (int i = 0; i < PLAN_TERMS; i++)
        if (b->terms[i] - a->terms[i] > b->terms[most] - a->terms[most])
            most = i;
    *seconds = b->terms[most] - a->terms[most];
    return plan_term_names[most];
}

/* The best layout of those meant; ERR_LIMIT with the least one where none fits. any: also of those
 * that the stack does not run. */
static int find(const struct planned_run *x, const struct plan_pick *pick, bool any,
                struct plan_found *out, struct arena *a)
{
    struct plan_job job = x->p.job;
    struct plan_search q = { .job = &job, .pick = *pick, .keep = 1, .prune = true };
    struct plan_search_result r;
    job.any |= any;
    int rc = plan_search(&q, &r, a);
    *out = rc == OK ? r.best[0] : r.least;
    return rc;
}

/* --- explain ------------------------------------------------------------------------ */

struct explain_flags {
    struct plan_run_flags run;
    const char *why_not;
};

static const struct option explain_options[] = {
    PLAN_RUN_FLAGS,
    { "why_not", OPTION_FIELD(STRING, struct explain_flags, why_not), NULL,
      .help = "Such as tp=4: what the best layout of that kind would take, and where." },
    { 0 },
};

static void put_terms(struct json *j, const struct plan_found *f, const struct plan_outcome *o)
{
    json_key(j, "terms");
    json_begin_object(j);
    double more = twice_seconds(f, o);
    json_put_double(j, plan_term_names[PLAN_IDEAL], f->step.terms[PLAN_IDEAL] - more);
    json_put_double(j, twice, more);
    for (int i = PLAN_IDEAL + 1; i < PLAN_TERMS; i++)
        json_put_double(j, plan_term_names[i], f->step.terms[i]);
    json_end(j);
}

static void put_explained(struct json *j, const char *key, const struct planned_run *x,
                          const struct plan_found *f, const struct plan_outcome *o,
                          struct arena *a)
{
    json_key(j, key);
    json_begin_object(j);
    json_key(j, "plan");
    plan_found_json(j, x, f, o, a);
    put_terms(j, f, o);
    json_put_bool(j, "fits", f->step.fits);
    json_end(j);
}

static void print_why_not(const struct planned_run *x, const char *text,
                          const struct plan_found *best, const struct plan_outcome *o,
                          const struct plan_found *other, const struct plan_outcome *p, int rc,
                          struct arena *a)
{
    double seconds;
    printf("\nwhy not %s? ", text);
    const char *why = plan_runs_refused(&x->p.job, &other->layout);
    if (why)
        printf("%s does not run it: %s; if it did, ", x->p.stack.name, why);
    if (rc == ERR_LIMIT) {
        double memory = x->p.machine.device.memory_bytes, usable = x->p.stack.usable;
        printf("it does not fit: the least of these layouts needs %.1f GB, and %.1f GB can be used "
               "(%.0f %% of %.1f)\n  %s, mostly %s\n", 1e-9 * other->step.memory_bytes,
               1e-9 * memory * usable, 100 * usable, 1e-9 * memory,
               plan_layout_text(&other->layout, a), plan_memory_names[other->step.binding]);
        return;
    }
    const char *term = largest_difference(&best->step, &other->step, &seconds);
    if (other->step.seconds <= best->step.seconds)
        printf("it is at least as quick (%s)\n", plan_layout_text(&other->layout, a));
    else
        printf("the best of these is %.1f %% slower (%s), most of it %s: %+.4f s\n",
               100 * (other->step.seconds / best->step.seconds - 1),
               plan_layout_text(&other->layout, a), term, seconds);
    printf("  %-26s %10s %10s %10s\n", "", "this", "that", "more");
    print_beside(best, o, other, p);
}

/* What the stack runs of it, or else what exists of it. */
static int find_other(const struct planned_run *x, const struct plan_pick *pick,
                      struct plan_found *out, struct arena *a)
{
    int rc = find(x, pick, false, out, a);
    return rc == ERR_CONFIG ? find(x, pick, true, out, a) : rc;
}

static int explain(struct invocation *v)
{
    const struct explain_flags *f = v->options;
    struct planned_run x;
    struct plan_found best, other = { 0 };
    struct plan_outcome o, p = { 0 };
    struct plan_pick pick;
    int rc = OK;
    TRY(plan_run_open(&x, &f->run, v->arena));
    TRY(find(&x, &x.p.pick, false, &best, v->arena));
    TRY(plan_outcome_of(&o, &x.p.job, &best.step, &x.terms));
    if (f->why_not) {
        TRY(plan_pick_parse(&pick, f->why_not, "--why-not", v->arena));
        rc = find_other(&x, &pick, &other, v->arena);
        if (rc < 0 && rc != ERR_LIMIT)
            return rc;
        TRY(plan_outcome_of(&p, &x.p.job, &other.step, &x.terms));
    }
    if (f->run.plan.json) {
        struct json j;
        json_writer_init(&j);
        j.indent = true;
        json_begin_object(&j);
        plan_job_json(&x.p, &j);
        put_explained(&j, "best", &x, &best, &o, v->arena);
        if (f->why_not)
            put_explained(&j, "why_not", &x, &other, &p, v->arena);
        json_end(&j);
        printf("%s\n", j.out.data);
        json_writer_fini(&j);
        return OK;
    }
    plan_job_print(&x.p);
    printf("%s\n\n", plan_layout_text(&best.layout, v->arena));
    print_waterfall(&best, &o);
    if (f->why_not)
        print_why_not(&x, f->why_not, &best, &o, &other, &p, rc, v->arena);
    plan_notes_print(&x, &best, &o);
    return OK;
}

static const struct example explain_examples[] = {
    { "headway plan explain --model llama3-405b --gpus 16384 --batch 2048 --why-not tp=4,cp=1",
      "The best layout's step, and what speaks against four ranks per matrix." },
    { "headway plan explain --model llama3-8b --gpus 64 --layout tp=8,pp=1,recompute=full",
      "One layout, whether or not it is the best." },
    { 0 },
};

const struct command cmd_plan_explain = {
    .name = "explain",
    .summary = "Say where a step's seconds go, and why not otherwise",
    .description = "From model FLOPs at the device's peak to the step, by terms that sum to it: "
                   "means over all ranks, then what they wait for. Explains the best layout of "
                   "those that --layout leaves open.",
    .options = explain_options,
    .options_bytes = sizeof(struct explain_flags),
    .examples = explain_examples,
    .run = explain,
};

/* --- compare ------------------------------------------------------------------------ */

static const struct option compare_options[] = { PLAN_RUN_FLAGS, { 0 } };

static int compare(struct invocation *v)
{
    struct planned_run x;
    struct plan_found found[2];
    struct plan_outcome o[2];
    const struct plan_run_flags *f = v->options;
    TRY(plan_run_open(&x, f, v->arena));
    for (int i = 0; i < 2; i++) {
        struct plan_pick pick;
        TRY(plan_pick_parse(&pick, v->args[i], v->args[i], v->arena));
        TRY(find(&x, &pick, false, &found[i], v->arena));
        TRY(plan_outcome_of(&o[i], &x.p.job, &found[i].step, &x.terms));
    }
    if (f->plan.json) {
        struct json j;
        json_writer_init(&j);
        j.indent = true;
        json_begin_object(&j);
        plan_job_json(&x.p, &j);
        put_explained(&j, "a", &x, &found[0], &o[0], v->arena);
        put_explained(&j, "b", &x, &found[1], &o[1], v->arena);
        json_end(&j);
        printf("%s\n", j.out.data);
        json_writer_fini(&j);
        return OK;
    }
    plan_job_print(&x.p);
    printf("A: %s\nB: %s\n\n  %-26s %10s %10s %10s\n", plan_layout_text(&found[0].layout, v->arena),
           plan_layout_text(&found[1].layout, v->arena), "seconds", "A", "B", "B - A");
    print_beside(&found[0], &o[0], &found[1], &o[1]);
    print_difference("MFU, %", 100 * o[0].mfu.mid, 100 * o[1].mfu.mid);
    print_difference("days", o[0].days.mid, o[1].days.mid);
    print_difference("MWh", o[0].mwh.mid, o[1].mwh.mid);
    print_difference("tCO2e", o[0].tco2e.mid, o[1].tco2e.mid);
    print_difference("money", o[0].money.mid, o[1].money.mid);
    bool certain = found[0].step.band.hi < found[1].step.band.lo ||
                   found[1].step.band.hi < found[0].step.band.lo;
    if (o[0].step_s.mid == o[1].step_s.mid)
        printf("\nneither is quicker\n");
    else
        printf("\n%s is quicker%s\n", o[0].step_s.mid < o[1].step_s.mid ? "A" : "B",
               certain ? ", beyond what is uncertain of either"
                       : "; each step is less certain than they differ, but errors are mostly "
                         "shared");
    plan_notes_print(&x, &found[0], &o[0]);
    return OK;
}

static const struct example compare_examples[] = {
    { "headway plan compare tp=8,pp=16 tp=4,pp=32 --model llama3-405b --gpus 16384 --batch 2048",
      "The best layouts of two kinds, term by term." },
    { 0 },
};

const struct command cmd_plan_compare = {
    .name = "compare",
    .summary = "Put two layouts of a run side by side",
    .arguments = "A B",
    .description = "A and B are layouts, such as tp=8,pp=4,recompute=none; the best is taken of "
                   "what each leaves open.",
    .options = compare_options,
    .options_bytes = sizeof(struct plan_run_flags),
    .min_args = 2,
    .max_args = 2,
    .examples = compare_examples,
    .run = compare,
};
