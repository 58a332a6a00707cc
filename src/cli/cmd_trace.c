/* What a run recorded: what there is of it, where its time went, and the same for others'
 * viewers. */
#include "base/err.h"
#include "base/log.h"
#include "base/text.h"
#include "cli/command.h"
#include "diagnose/critical.h"
#include "diagnose/climb.h"
#include "diagnose/ladder.h"
#include "diagnose/record_check.h"
#include "diagnose/stragglers.h"
#include "report/trace_export.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "5", "3-9", counted from 1 as the log counts; into 0-based steps. */
static int parse_steps(const char *text, i64 *first, i64 *last)
{
    char *end;
    *first = 0;
    *last = INT64_MAX;
    if (!text)
        return OK;
    long long a = strtoll(text, &end, 10), b = a;
    bool good = end != text && a >= 1;
    if (good && *end == '-') {
        const char *second = end + 1;
        b = strtoll(second, &end, 10);
        good = end != second;
    }
    if (!good || *end || b < a)
        return err_set(ERR_USAGE, "--steps %s: give a step or the first and the last, such as "
                       "100-120", text);
    *first = a - 1;
    *last = b - 1;
    return OK;
}

/* --- export ------------------------------------------------------------------------- */

struct export_flags {
    int to; /* enum trace_target */
    const char *steps, *out;
};

static const struct option export_options[] = {
    { "to", OPTION_FIELD(CHOICE, struct export_flags, to), "perfetto",
      .choices = "chrome|perfetto|hta", .help = "The format." },
    { "steps", OPTION_FIELD(STRING, struct export_flags, steps), NULL,
      .help = "Which ones: 100-120. Without it, all that are recorded." },
    { "out", OPTION_FIELD(PATH, struct export_flags, out), NULL,
      .help = "The file to write (hta: the folder); without it, trace.json, trace.pftrace or hta "
              "in this folder." },
    { 0 },
};

static int run_export(struct invocation *v)
{
    static const char *const names[] = { "trace.json", "trace.pftrace", "hta" };
    const struct export_flags *f = v->options;
    struct trace_export e = { .to = (enum trace_target)f->to,
                              .path = f->out ? f->out : names[f->to] };
    struct record r;
    TRY(parse_steps(f->steps, &e.first, &e.last));
    TRY(record_open(&r, v->args[0]));
    int rc = trace_export(&r, &e);
    for (i64 i = 0; i < r.n_damage && rc == OK; i++)
        log_line(LOG_WARN, "%s", r.damage[i]);
    record_close(&r);
    TRY(rc);
    printf("%lld steps in %s, %.1f MB\n", (long long)e.steps, e.path, 1e-6 * (double)e.bytes);
    if (e.damaged > 0)
        log_line(LOG_WARN, "%lld steps could not be read", (long long)e.damaged);
    return OK;
}

static const struct command cmd_export = {
    .name = "export",
    .summary = "Write recorded steps in a format of other people's viewers",
    .arguments = "RUN",
    .description = "All ranks on one clock. perfetto is for ui.perfetto.dev: half the size, and "
                   "arrows join the calls of a group. chrome is the JSON of chrome://tracing. hta "
                   "is a folder of such files, one per rank, with tasks named so that Meta's "
                   "Holistic Trace Analysis, which knows GPUs only, understands them.\n\n"
                   "The run may still be going on. Memory does not grow with what is written.",
    .options = export_options,
    .options_bytes = sizeof(struct export_flags),
    .min_args = 1,
    .max_args = 1,
    .examples =
        (const struct example[]){
            { "headway trace export runs/tiny --steps 100-120",
              "Twenty-one steps of the run tiny, in trace.pftrace." },
            { "headway trace export runs/tiny --to hta --out hta",
              "All of it, for TraceAnalysis(trace_dir=\"hta\")." },
            { 0 } },
    .run = run_export,
};

/* --- info --------------------------------------------------------------------------- */

static void print_part(const struct record_part *p)
{
    const struct record_head *h = NULL;
    for (int i = 0; i < p->ranks && !h; i++)
        h = p->heads[i];
    printf("%d rank%s (%s) on %s, %s, %s, %d thread%s%s", p->ranks, p->ranks > 1 ? "s" : "",
           h->layout, h->host, h->backend, h->precision, h->threads, h->threads > 1 ? "s" : "",
           p->ranks > 1 ? " each" : "");
    if (p->last_step < p->first_step)
        printf("; no step\n");
    else
        printf("; steps %lld to %lld in %.1f s\n", (long long)p->first_step + 1,
               (long long)p->last_step + 1, 1e-9 * (double)(p->end_ns - p->begin_ns));
}

static int by_seconds(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_steps(const struct record *r, struct arena *a)
{
    double *seconds = ARENA_ARRAY(a, double, r->n_steps + 1);
    if (r->n_steps == 0)
        return;
    for (i64 i = 0; i < r->n_steps; i++)
        seconds[i] = record_step_seconds(r, i);
    qsort(seconds, (size_t)r->n_steps, sizeof *seconds, by_seconds);
    printf("%lld steps recorded, %.4g ms each (the shortest %.4g, the longest %.4g), with what was "
           "done between them\n", (long long)r->n_steps, 1e3 * seconds[r->n_steps / 2],
           1e3 * seconds[0], 1e3 * seconds[r->n_steps - 1]);
}

struct info_flags {
    bool check;
};

static const struct option info_options[] = {
    { "check", OPTION_FIELD(BOOL, struct info_flags, check), "yes",
      .help = "Read all that is recorded, and say what of it is damaged; with no, only what the "
              "files' heads tell." },
    { 0 },
};

static bool is_like(const struct record_event *a, const struct record_event *b)
{
    return strcmp(a->kind, b->kind) == 0;
}

/* A busy machine has many slow steps: the first of each kind are told, and how many more. */
static void print_events(const struct record *r)
{
    enum { TOLD = 4 };
    for (i64 i = 0; i < r->n_events; i++) {
        const struct record_event *e = &r->events[i];
        i64 before = 0, behind = 0, last = i;
        for (i64 k = 0; k < i && before < TOLD; k++)
            before += is_like(&r->events[k], e);
        if (before < TOLD)
            printf("step %lld: %s\n", (long long)e->step + 1, e->text);
        for (i64 k = i + 1; k < r->n_events && before == TOLD - 1; k++)
            if (is_like(&r->events[k], e)) {
                behind++;
                last = k;
            }
        if (behind > 0)
            printf("and %lld more of \"%s\", the last in step %lld\n", (long long)behind, e->kind,
                   (long long)r->events[last].step + 1);
    }
}

static void print_steps_of(const struct record_check_steps *s, i64 steps, const char *what)
{
    const i64 named = i64_min(s->n, RECORD_CHECK_NAMED);
    if (s->n == 0)
        return;
    printf("missing: spans of %lld of %lld steps are %s (", (long long)s->n, (long long)steps,
           what);
    for (i64 i = 0; i < named; i++)
        printf("%s%lld", i > 0 ? ", " : s->n > 1 ? "steps " : "step ", (long long)s->named[i] + 1);
    printf(s->n > named ? " and more)\n" : ")\n");
}

static void print_check(const struct record_check *c, const struct record *r)
{
    const bool whole = c->damaged.n == 0 && c->absent.n == 0 && c->samples == 0;
    if (whole && r->n_steps > 0)
        printf(r->n_damage > 0 ? "all the rest can be read\n" : "all of it can be read\n");
    print_steps_of(&c->damaged, r->n_steps, "damaged");
    print_steps_of(&c->absent, r->n_steps, "there of some ranks only");
    if (c->samples > 0)
        printf("missing: %lld sample%s of the host %s damaged\n", (long long)c->samples,
               c->samples > 1 ? "s" : "", c->samples > 1 ? "are" : "is");
}

static int run_info(struct invocation *v)
{
    const struct info_flags *f = v->options;
    struct record_check check;
    struct record r;
    TRY(record_open(&r, v->args[0]));
    const int rc = f->check ? record_check(&check, &r) : OK;
    for (int i = 0; i < r.n_parts; i++)
        print_part(&r.parts[i]);
    print_steps(&r, v->arena);
    print_events(&r);
    for (i64 i = 0; i < r.n_damage; i++)
        printf("missing: %s\n", r.damage[i]);
    if (f->check && rc >= 0)
        print_check(&check, &r);
    record_close(&r);
    return rc;
}

static const struct command cmd_info = {
    .name = "info",
    .summary = "Say which steps and ranks a run has recorded, and what is missing",
    .arguments = "RUN",
    .description = "RUN is a run folder or the trace folder in it. The newest steps are kept, as "
                   "many as trace.disk has room for, and those around a slow step or a spike of "
                   "the loss.",
    .options = info_options,
    .options_bytes = sizeof(struct info_flags),
    .min_args = 1,
    .max_args = 1,
    .examples =
        (const struct example[]){
            { "headway trace info runs/tiny", "What there is of the run tiny." }, { 0 } },
    .run = run_info,
};

/* --- ladder ------------------------------------------------------------------------- */

struct ladder_flags {
    const char *steps;
    i64 sample;
};

static const struct option ladder_options[] = {
    { "steps", OPTION_FIELD(STRING, struct ladder_flags, steps), NULL,
      .help = "Which ones: 100-120. Without it, all that are recorded." },
    { "sample", OPTION_FIELD(INT, struct ladder_flags, sample), "1000", .unit = "steps",
      .max = 1e9, .help = "So many steps at most; 0: all of them." },
    { 0 },
};
_Static_assert(CLIMB_STEPS == 1000, "as the option says");

static void print_ladder(const struct ladder *l)
{
    static const char *const meaning[LADDER_FACTORS] = {
        "start, evaluation, checkpoints, steps taken twice", "waiting for the loader",
        "host: gaps between tasks, logging", "a clock below that at the start",
        "threads not on a processor", "slower than usual: ranks, steps, now and then",
        "bytes on their way, latency", "stages, shards and micro-batches that differ",
        "waiting that is left: dependencies", "recompute, work that the model does not need",
        "number formats with a lower peak", "memory-bound tasks", "kernels below the roofline" };
    double f[LADDER_FACTORS], product = 1;
    ladder_factors(l, f);
    printf("%-9s %7s   %7s   %s\n", "factor", "alone", "so far", "what it loses to");
    for (int i = 0; i < LADDER_FACTORS; i++) {
        const char *name = ladder_name((enum ladder_factor)i);
        bool known = ladder_known(l, (enum ladder_factor)i);
        product *= isfinite(f[i]) ? f[i] : 1;
        if (known)
            printf("%-9s %7.4f   %7.4f   %s\n", name, f[i], product, meaning[i]);
        else
            printf("%-9s %7s   %7.4f   %s: not measured\n", name, "-", product, meaning[i]);
    }
    if (l->no_peak)
        printf("MFU is not known: no peak was measured (headway machine)\n");
    else
        printf("MFU %.4f of %.1f GFLOP/s per rank, the peak measured in the run's precision; "
               "HFU %.4f\n", ladder_mfu(l),
               1e-9 * ladder_peak(l), ladder_hfu(l));
    printf("%lld steps; a step replayed is off by at most %.2f %%", (long long)l->steps,
           100 * fabs(l->worst_fidelity - 1));
    printf(l->beyond_gate > 0 ? ", %lld beyond 2 %%\n" : "\n", (long long)l->beyond_gate);
}

static void print_path(const struct critical *c)
{
    static const char *const phases[] = { "forward", "input gradient", "weight gradient",
                                          "update" };
    enum { MOST = 15 };
    printf("\nThe critical path, per step:\n");
    for (i64 i = 0; i < c->n && i < MOST; i++) {
        const struct critical_share *s = &c->shares[i];
        printf("%9.3f ms  %5.1f %%  rank %d  %s%s%s", 1e3 * s->seconds / c->steps,
               100 * s->seconds / c->seconds, s->rank, critical_kind_name(s->kind),
               *s->op ? " " : "", s->op);
        if (s->phase >= 0)
            printf(", %s", phases[s->phase]);
        printf(s->layer >= 0 ? ", layer %d\n" : "\n", s->layer);
    }
    double rest = 0;
    for (i64 i = MOST; i < c->n; i++)
        rest += c->shares[i].seconds;
    if (c->n > MOST)
        printf("%9.3f ms  %5.1f %%  %lld shorter parts\n", 1e3 * rest / c->steps,
               100 * rest / c->seconds, (long long)c->n - MOST);
}

/* What some steps do not tell of all. */
static void print_choice(const struct climb_choice *chosen)
{
    if (chosen->share == 0)
        return;
    printf("These are %lld of %lld steps, the longer the likelier, and each stands for as many as "
           "make up for that\n", (long long)chosen->n, (long long)chosen->of);
}

/* Of what is done behind some steps only, who looks at few steps sees none, or too much. */
static void print_unsure(const struct climb_choice *chosen)
{
    print_choice(chosen);
    if (chosen->share > 0)
        printf("goodput may be off by about %.2g, the share of the time that one step stands for: "
               "of evaluations and checkpoints it has those behind these steps%s\n", chosen->share,
               chosen->share > 0.02 ? "; a larger --sample tells more" : "");
}

/* What a record that is not whole could not be asked for. */
static void print_missing(const struct record *r, i64 looked_at, i64 read)
{
    if (read < looked_at)
        printf("missing: the spans of %lld of %lld steps, which are damaged or not of all ranks\n",
               (long long)(looked_at - read), (long long)looked_at);
    for (i64 i = 0; i < r->n_damage; i++)
        printf("missing: %s\n", r->damage[i]);
}

static int run_ladder(struct invocation *v)
{
    const struct ladder_flags *f = v->options;
    struct ladder l = { 0 };
    struct critical c = { .arena = v->arena };
    struct record r;
    struct climb_range range = { .most = f->sample };
    struct climb_choice chosen;
    TRY(parse_steps(f->steps, &range.first, &range.last));
    TRY(record_open(&r, v->args[0]));
    int rc = climb_record(&r, &range, &l, &c, &chosen);
    if (rc == OK && l.steps > 0) {
        print_ladder(&l);
        print_unsure(&chosen);
        print_path(&c);
    } else if (rc == OK) {
        printf("There is no step whose time could be split.\n");
    }
    if (rc == OK)
        print_missing(&r, chosen.n, l.steps);
    record_close(&r);
    return rc;
}

static const struct command cmd_ladder = {
    .name = "ladder",
    .summary = "Split the peak into thirteen factors, and the step into its critical path",
    .arguments = "RUN",
    .description = "The factors multiply to the MFU, exactly; the second column is the product so "
                   "far. The rungs down to bubble come from the recorded steps with one loss after "
                   "another taken away; those below from the tasks' costs, times and the peaks of "
                   "`headway machine`. The path is what the steps' length consisted of: making "
                   "anything else faster changes nothing.\n\n"
                   "Of a long record some steps are looked at, the longer the likelier, and each "
                   "stands for as many as make up for that: half a gigabyte of them at most, "
                   "unless --sample is 0.",
    .options = ladder_options,
    .options_bytes = sizeof(struct ladder_flags),
    .min_args = 1,
    .max_args = 1,
    .examples =
        (const struct example[]){
            { "headway trace ladder runs/tiny --steps 20-200", "Without the first steps." },
            { 0 } },
    .run = run_ladder,
};

/* --- stragglers --------------------------------------------------------------------- */

typedef void (*straggler_fn)(struct stragglers *x, const struct record_step *s,
                             const struct dag *g);

static void pass(struct record *r, const struct climb_choice *chosen, straggler_fn fn,
                 struct stragglers *x)
{
    struct record_step s = { 0 };
    struct dag *g;
    for (i64 i = 0; i < chosen->n; i++)
        if (record_step(r, chosen->steps[i], &s) == OK && dag_new(&g, &s) == OK) {
            x->weight = chosen->weights[i];
            fn(x, &s, g);
        }
    record_step_free(&s);
}

/* Without all ranks nobody knows who waited for whom; what each computes is known. */
static void print_present(const struct stragglers *x)
{
    printf("There is no step of all ranks, so what their unevenness costs cannot be told.\n");
    for (int i = 0; i < x->n_ranks; i++)
        if (x->computed[i] > 0)
            printf("rank %d computes %.4g ms a step\n", i,
                   1e3 * x->compute_s[i] / x->computed[i]);
}

static void print_stragglers(const struct stragglers *x, const struct record *r)
{
    const struct record_part *p = &r->parts[r->n_parts - 1];
    double slower = x->seconds - x->even_s;
    enum { MOST = 5 };
    printf("S    %8.4f   %.4g ms a step without the host's gaps, %.4g with everybody even\n",
           x->seconds / x->even_s, 1e3 * x->seconds / x->stands_for,
           1e3 * x->even_s / x->stands_for);
    printf("M_W  %8.4f   of the difference is gone with %d of %d ranks even\n",
           slower > 0 ? (x->seconds - x->worst_s) / slower : 0, x->n_worst, x->n_ranks);
    printf("M_S  %8.4f   of it with the last stage even\n",
           slower > 0 ? (x->seconds - x->last_stage_s) / slower : 0);
    for (int i = 0; i < x->n_ranks && i < MOST; i++) {
        const struct record_head *h = x->worst[i] < p->ranks ? p->heads[x->worst[i]] : NULL;
        printf("S_w  %8.4f   rank %d (dp %lld, stage %lld) alone as it was\n",
               x->rank_s[x->worst[i]] / x->even_s, x->worst[i], h ? (long long)h->dp : -1,
               h ? (long long)h->pp : -1);
    }
    printf("%lld steps\n", (long long)x->steps);
}

static int run_stragglers(struct invocation *v)
{
    const struct ladder_flags *f = v->options;
    struct stragglers x = { .arena = v->arena };
    struct climb_range range = { .most = f->sample };
    struct climb_choice chosen;
    struct record r;
    TRY(parse_steps(f->steps, &range.first, &range.last));
    TRY(record_open(&r, v->args[0]));
    const int rc = climb_choose(&chosen, &r, &range, v->arena);
    if (rc == OK) {
        pass(&r, &chosen, stragglers_add, &x);
        if (x.steps > 0) {
            stragglers_rank(&x);
            pass(&r, &chosen, stragglers_add_worst, &x);
            print_stragglers(&x, &r);
        } else {
            print_present(&x);
        }
        print_choice(&chosen);
        print_missing(&r, chosen.n, x.steps);
    }
    record_close(&r);
    return rc;
}

static const struct command cmd_stragglers = {
    .name = "stragglers",
    .summary = "Say how much slower ranks are than they would be if all were even, and which",
    .arguments = "RUN",
    .description = "What if every action took the mean of its kind, and every exchange the median: "
                   "S is by how much the steps are longer than that, S_w the same with one rank "
                   "alone as it was, M_W how much of it the slowest 3 % of the ranks explain, M_S "
                   "how much the last stage does (Lin et al. 2025).\n\n"
                   "Of a long record it looks at some steps, those that `headway trace ladder` "
                   "looks at, and says of how many.",
    .options = ladder_options,
    .options_bytes = sizeof(struct ladder_flags),
    .min_args = 1,
    .max_args = 1,
    .examples =
        (const struct example[]){
            { "headway trace stragglers runs/tiny",
              "Whether a rank or a stage of the run tiny is slow." },
            { 0 } },
    .run = run_stragglers,
};

const struct command cmd_trace = {
    .name = "trace",
    .summary = "Export, list and add up what a run has recorded, task by task",
    .description = "Every run records the spans of its steps in RUN/trace (trace.level, "
                   "trace.disk): what each task, wait and exchange took, on every rank.",
    .examples =
        (const struct example[]){
            { "headway trace export runs/tiny", "For ui.perfetto.dev." }, { 0 } },
    .subcommands = (const struct command *const[]){ &cmd_info, &cmd_export, &cmd_ladder,
                                                     &cmd_stragglers, NULL },
};
