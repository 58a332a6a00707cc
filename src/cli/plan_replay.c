/* The best layouts of a job, event by event. */
#include "cli/plan_replay.h"

#include "base/err.h"
#include "base/json.h"
#include "base/sys.h"
#include "plan/ops_scale.h"
#include "report/plan_page.h"
#include "train/run_folder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- replaying ---------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* The value below which a share lies, between neighbours in proportion. */
static double quantile(const double *sorted, i64 n, double share)
{
    double at = share * (double)(n - 1);
    i64 i = i64_min((i64)at, n - 2);
    if (n == 1)
        return sorted[0];
    return sorted[i] + (at - (double)i) * (sorted[i + 1] - sorted[i]);
}

int plan_replay_seeds(const struct plan_job *job, const struct plan_layout *l,
                      const struct plan_chance *chance, i64 seeds, struct replayed *out,
                      struct arena *a)
{
    const struct plan_table *table;
    const struct plan_chance none = { .seed = chance->seed };
    double *lengths = ARENA_ARRAY(a, double, seeds);
    int rc = OK;
    *out = (struct replayed){ 0 };
    TRY(plan_shelf_table(plan_shelf_new(job, a), l, &table));
    TRY(plan_replay_layout(job, l, table, &none, &out->order, &out->healthy, a));
    for (i64 i = 0; i < seeds && rc == OK; i++) {
        struct arena once;
        struct schedule order;
        struct replay_time t;
        struct plan_chance c = *chance;
        c.seed += (u64)i;
        arena_init(&once);
        rc = plan_replay_layout(job, l, table, &c, &order, &t, &once);
        lengths[i] = t.length;
        arena_fini(&once);
    }
    TRY(rc);
    if (seeds == 0)
        return OK;
    qsort(lengths, (size_t)seeds, sizeof *lengths, by_value);
    out->chance = (struct plan_band){ quantile(lengths, seeds, 0.1), quantile(lengths, seeds, 0.5),
                                      quantile(lengths, seeds, 0.9) };
    return OK;
}

/* --- the page ----------------------------------------------------------------------- */

static void put_replay(struct json *j, const struct replayed *r, u64 seed)
{
    static const char ops[][2] = { "F", "I", "W", "B" };
    json_key(j, "replay");
    json_begin_object(j);
    json_put_double(j, "length", r->healthy.length);
    json_put_int(j, "events", r->healthy.events);
    json_put_int(j, "cells", r->healthy.cells);
    json_put_int(j, "ranks", r->order.ranks);
    json_put_int(j, "seed", (i64)seed);
    json_key(j, "waits");
    json_begin_array(j);
    for (int k = 0; k < r->order.ranks; k++) {
        const struct replay_rank *t = &r->healthy.ranks[k];
        json_begin_object(j);
        json_put_double(j, "busy", t->busy);
        json_put_double(j, "moves", t->moves);
        json_put_double(j, "gather", t->gather);
        json_put_double(j, "reduce", t->reduce);
        json_put_double(j, "others", t->others);
        json_put_double(j, "update", t->update);
        json_end(j);
    }
    json_end(j);
    json_key(j, "spans");
    json_begin_array(j);
    for (i64 i = 0; i < r->healthy.n_spans; i++) {
        const struct replay_span *s = &r->healthy.spans[i];
        json_begin_array(j);
        json_int(j, s->rank);
        json_str(j, ops[s->action.op]);
        json_int(j, s->action.stage);
        json_int(j, s->action.micro_batch);
        json_double(j, s->begin);
        json_double(j, s->end);
        json_end(j);
    }
    json_end(j);
    json_end(j);
}

static void put_front(struct json *j, const struct plan_shown *s, struct arena *a)
{
    json_key(j, "front");
    json_begin_array(j);
    for (i64 i = 0; i < s->front->n; i++) {
        const struct plan_point *p = &s->front->points[i];
        json_begin_object(j);
        json_put_int(j, "devices", p->devices);
        json_put_bool(j, "beaten", p->beaten);
        json_key(j, "plan");
        plan_found_json(j, s->x, &p->found, &p->outcome, a);
        json_end(j);
    }
    json_end(j);
}

static void put_shown(struct json *j, const struct plan_shown *s, struct arena *a)
{
    const struct plan_step *step = &s->r->best[0].step;
    json_begin_object(j);
    plan_job_json(&s->x->p, j);
    json_put_int(j, "layouts", s->r->layouts);
    json_key(j, "terms");
    json_begin_object(j);
    for (int i = 0; i < PLAN_TERMS; i++)
        json_put_double(j, plan_term_names[i], step->terms[i]);
    json_end(j);
    json_key(j, "memory");
    json_begin_object(j);
    for (int i = 0; i < PLAN_MEMORIES; i++)
        json_put_double(j, plan_memory_names[i], step->memory[i]);
    json_end(j);
    json_key(j, "best");
    json_begin_array(j);
    for (i64 i = 0; i < s->r->n; i++)
        plan_found_json(j, s->x, &s->r->best[i], &s->outcomes[i], a);
    json_end(j);
    if (s->front)
        put_front(j, s, a);
    if (s->replay)
        put_replay(j, s->replay, s->seed);
    json_end(j);
}

int plan_page_write(const char *path, const struct plan_shown *s, struct arena *a)
{
    struct json j;
    struct text page = { 0 };
    json_writer_init(&j);
    put_shown(&j, s, a);
    plan_page_html(&j.out, arena_printf(a, "%s on %lld x %s", s->x->p.spec.name,
                                        (long long)s->x->p.job.devices,
                                        s->x->p.machine.device.name), &page);
    int rc = file_replace(path, page.data, page.length);
    text_fini(&page);
    json_writer_fini(&j);
    return rc;
}

/* --- the command -------------------------------------------------------------------- */

struct replay_flags {
    struct plan_run_flags run;
    i64 top, seeds, seed;
    double jitter, slow_share, slow_by;
    const char *html;
};

#define FLAG(kind, field) OPTION_FIELD(kind, struct replay_flags, field)

static const struct option options[] = {
    PLAN_RUN_FLAGS,
    { "top", FLAG(INT, top), "1", .unit = "layouts", .min = 1, .max = 1000,
      .help = "How many of the best layouts; they are shown in the order of their replays." },
    { "seeds", FLAG(INT, seeds), "5", .max = 10000,
      .help = "How many steps with chance: P10, P50 and P90 are theirs." },
    { "seed", FLAG(INT, seed), "1", .help = "The first of them." },
    { "jitter", FLAG(FLOAT, jitter), "0", .max = 1,
      .help = "Deviation of one device's time for one action, such as 0.02." },
    { "slow_share", FLAG(FLOAT, slow_share), "0.005", .max = 1,
      .help = "Share of nodes that are slower for the whole step (MegaScale saw 0.5 %)." },
    { "slow_by", FLAG(FLOAT, slow_by), "0.1", .max = 100, .help = "How much slower." },
    { "html", FLAG(PATH, html), NULL,
      .help = "Also write a page: waterfall, timeline, memory, layouts." },
    { 0 },
};

struct replay_run {
    struct planned_run x;
    struct plan_search_result r;
    struct replayed *replays; /* [r.n] */
    double seconds;           /* that replaying took */
};

struct ranked {
    double seconds;
    i64 at;
};

static int by_seconds(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    return x->seconds < y->seconds ? -1 : x->seconds > y->seconds ? 1 : x->at < y->at ? -1 : 1;
}

/* Quickest replay first. */
static void order_by_replay(struct replay_run *s, struct arena *a)
{
    i64 n = s->r.n;
    struct ranked *ranked = ARENA_ARRAY(a, struct ranked, n);
    struct plan_found *best = ARENA_ARRAY(a, struct plan_found, n);
    struct replayed *replays = ARENA_ARRAY(a, struct replayed, n);
    for (i64 i = 0; i < n; i++) {
        const struct replayed *p = &s->replays[i];
        ranked[i] = (struct ranked){ p->chance.mid > 0 ? p->chance.mid : p->healthy.length, i };
    }
    qsort(ranked, (size_t)n, sizeof *ranked, by_seconds);
    for (i64 i = 0; i < n; i++) {
        best[i] = s->r.best[ranked[i].at];
        replays[i] = s->replays[ranked[i].at];
    }
    s->r.best = best;
    s->replays = replays;
}

static int replay_all(struct replay_run *s, const struct replay_flags *f, struct arena *a)
{
    const struct plan_job *job = &s->x.p.job;
    struct plan_search q = { .job = job, .pick = s->x.p.pick, .keep = f->top, .prune = true };
    struct plan_chance chance = { (u64)f->seed, f->jitter, f->slow_share, f->slow_by };
    TRY(plan_search(&q, &s->r, a));
    u64 begin = sys_now_ns();
    s->replays = ARENA_ARRAY(a, struct replayed, s->r.n);
    for (i64 i = 0; i < s->r.n; i++)
        TRY(plan_replay_seeds(job, &s->r.best[i].layout, &chance, f->seeds, &s->replays[i], a));
    s->seconds = 1e-9 * (double)(sys_now_ns() - begin);
    order_by_replay(s, a);
    return OK;
}

static void print_ranks(const struct replayed *r)
{
    printf("\n  pp  computing   for stages  for weights   gradients      others      update\n");
    for (int k = 0; k < r->order.ranks; k++) {
        const struct replay_rank *t = &r->healthy.ranks[k];
        printf("%4d %10.4f   %10.4f   %10.4f  %10.4f  %10.4f  %10.4f\n", k, t->busy, t->moves,
               t->gather, t->reduce, t->others, t->update);
    }
}

static void print_replays(const struct replay_run *s, const struct replay_flags *f,
                          struct arena *a)
{
    double events = 0;
    plan_job_print(&s->x.p);
    printf("\n    closed form s   replayed  with chance (P10-P90)    layout\n");
    for (i64 i = 0; i < s->r.n; i++) {
        const struct replayed *r = &s->replays[i];
        printf("%3lld %13.4f %10.4f ", (long long)i + 1, s->r.best[i].step.seconds,
               r->healthy.length);
        plan_band_print(&r->chance, 1, 24);
        printf(" %s\n", plan_layout_text(&s->r.best[i].layout, a));
        events += (double)r->healthy.events * (double)(f->seeds + 1);
    }
    print_ranks(&s->replays[0]);
    printf("\nseconds of a mean rank of each stage, without chance; about %.3g events in %.3g s\n"
           "chance: %lld steps from seed %lld; jitter %g, %g of the nodes slower by %g\n", events,
           s->seconds, (long long)f->seeds, (long long)f->seed, f->jitter, f->slow_share,
           f->slow_by);
}

static void print_json(const struct replay_run *s, const struct plan_outcome *o, struct arena *a)
{
    struct json j;
    json_writer_init(&j);
    j.indent = true;
    json_begin_object(&j);
    plan_job_json(&s->x.p, &j);
    json_key(&j, "replays");
    json_begin_array(&j);
    for (i64 i = 0; i < s->r.n; i++) {
        json_begin_object(&j);
        json_key(&j, "plan");
        plan_found_json(&j, &s->x, &s->r.best[i], &o[i], a);
        json_put_double(&j, "replayed_seconds", s->replays[i].healthy.length);
        plan_band_json(&j, "with_chance_seconds", &s->replays[i].chance);
        json_put_int(&j, "events", s->replays[i].healthy.events);
        json_end(&j);
    }
    json_end(&j);
    json_end(&j);
    printf("%s\n", j.out.data);
    json_writer_fini(&j);
}

static int run(struct invocation *v)
{
    const struct replay_flags *f = v->options;
    struct replay_run s = { 0 };
    TRY(plan_run_open(&s.x, &f->run, v->arena));
    TRY(replay_all(&s, f, v->arena));
    struct plan_outcome *o = ARENA_ARRAY(v->arena, struct plan_outcome, s.r.n);
    for (i64 i = 0; i < s.r.n; i++)
        TRY(plan_outcome_of(&o[i], &s.x.p.job, &s.r.best[i].step, &s.x.terms));
    if (f->html) {
        struct plan_shown shown = { &s.x, &s.r, o, NULL, &s.replays[0], (u64)f->seed };
        TRY(plan_page_write(f->html, &shown, v->arena));
    }
    if (f->run.plan.json)
        print_json(&s, o, v->arena);
    else
        print_replays(&s, f, v->arena);
    return OK;
}

static const struct example examples[] = {
    { "headway plan replay --model llama3-70b --gpus 512 --batch 512 --jitter 0.02",
      "The best layout's step, with slow nodes and noise." },
    { "headway plan replay --model llama3-405b --gpus 16384 --batch 2048 --top 5 --html plan.html",
      "Five layouts, and a page with the timeline of the best." },
    { 0 },
};

const struct command cmd_plan_replay = {
    .name = "replay",
    .summary = "Walk the steps of the best layouts event by event",
    .description = "Every stage, micro-batch and replica in the pipeline's own order of work, with "
                   "links shared by what uses them at once, slow nodes and jitter. The same seed "
                   "gives the same step.",
    .options = options,
    .options_bytes = sizeof(struct replay_flags),
    .examples = examples,
    .run = run,
};
