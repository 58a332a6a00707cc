/* How much of a run's time is progress when machines fail. */
#include "base/err.h"
#include "base/json.h"
#include "cli/command.h"
#include "plan/failures.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Interruptions and checkpoints that are walked through: some seconds. */
static const double most_events = 2e7;

enum { ENDS = 3, MOST_SPARES = 4096 };

struct goodput_flags {
    const char *law;
    i64 gpus, node, spares, elastic, runs, seed;
    double every, stall, write, detect, restart, repair, days;
    bool json;
};

#define FLAG(kind, field) OPTION_FIELD(kind, struct goodput_flags, field)

static const struct option options[] = {
    { "gpus", FLAG(INT, gpus), "16384", .unit = "devices", .min = 1, .max = 1e9,
      .help = "Devices that the job needs." },
    { "node", FLAG(INT, node), "8", .unit = "devices", .min = 1, .max = 1e6,
      .help = "Devices of a node: they fail together." },
    { "law", FLAG(STRING, law), "llama3",
      .help = "How often and how long: a name in machines/failures, or a file." },
    { "checkpoint_every", FLAG(DURATION, every), "0", .unit = "seconds", .max = 1e8,
      .help = "Progress between checkpoints; 0: the best." },
    { "stall", FLAG(DURATION, stall), "0", .unit = "seconds", .max = 1e6,
      .help = "What a checkpoint makes training wait; 0: as the law says." },
    { "write", FLAG(DURATION, write), "0", .unit = "seconds", .max = 1e6,
      .help = "From a checkpoint's begin until it can be used; 0: its stall." },
    { "detect", FLAG(DURATION, detect), "0", .unit = "seconds", .max = 1e7,
      .help = "Until somebody notices; 0: as the law says." },
    { "restart", FLAG(DURATION, restart), "0", .unit = "seconds", .max = 1e7,
      .help = "Until training goes on; 0: as the law says." },
    { "repair", FLAG(DURATION, repair), "0", .unit = "seconds", .max = 1e9,
      .help = "How long a failed node is away; 0: as the law says." },
    { "spares", FLAG(INT, spares), "-1", .unit = "nodes", .min = -1, .max = MOST_SPARES,
      .help = "Nodes that stand by; -1: as many as pay." },
    { "elastic", FLAG(INT, elastic), "0", .unit = "nodes", .max = 1e6,
      .help = "The job goes on without replicas of so many nodes each; 0: it waits." },
    { "days", FLAG(FLOAT, days), "54", .unit = "days", .min = 0.01, .max = 1e5,
      .help = "Length of the simulated runs." },
    { "runs", FLAG(INT, runs), "200", .min = 1, .max = 1e6, .help = "How many are simulated." },
    { "seed", FLAG(INT, seed), "1", .help = "Of the simulated failures." },
    { "json", FLAG(BOOL, json), "no", .help = "Print JSON." },
    { 0 },
};

struct goodput {
    const struct goodput_flags *flags;
    struct failure_law law;
    struct failure_job jobs[ENDS];
    struct failure_time times[ENDS];
    struct failure_walk walk;
    double events; /* of the walk; above most_events there was none */
};

/* --- the numbers -------------------------------------------------------------------- */

static struct failure_job job_at(const struct goodput *g, i64 nodes, enum failure_end end)
{
    const struct goodput_flags *f = g->flags;
    struct failure_job j = failure_job_of(&g->law, nodes, end);
    j.stall_s = f->stall > 0 ? f->stall : j.stall_s;
    j.detect_s = f->detect > 0 ? f->detect : j.detect_s;
    j.restart_s = f->restart > 0 ? f->restart : j.restart_s;
    j.repair_s = f->repair > 0 ? f->repair : j.repair_s;
    j.write_s = f->write > 0 ? f->write : j.stall_s;
    j.replica_nodes = f->elastic;
    j.every_s = f->every > 0 ? f->every : failure_best_interval(&j);
    j.spares = f->spares >= 0 ? f->spares : failure_best_spares(&j, MOST_SPARES);
    return j;
}

static int compute(struct goodput *g, struct arena *a)
{
    const struct goodput_flags *f = g->flags;
    i64 nodes = ceil_div(f->gpus, f->node);
    TRY(failure_law_load(&g->law, f->law, a));
    for (int e = 0; e < ENDS; e++) {
        g->jobs[e] = job_at(g, nodes, e);
        g->times[e] = failure_goodput(&g->jobs[e]);
    }
    g->events = failure_walk_events(&g->jobs[FAILURE_MIDDLE], f->days, f->runs);
    if (g->events > most_events)
        return OK;
    failure_simulate(&g->jobs[FAILURE_MIDDLE], f->days, f->runs, (u64)f->seed, &g->walk, a);
    return OK;
}

/* --- as text ------------------------------------------------------------------------ */

static const char *duration(double s, char out[32])
{
    if (isinf(s))
        snprintf(out, 32, "never");
    else if (s < 120)
        snprintf(out, 32, "%.3g s", s);
    else if (s < 7200)
        snprintf(out, 32, "%.3g min", s / 60);
    else
        snprintf(out, 32, "%.3g h", s / 3600);
    return out;
}

static void print_row(const char *what, const struct goodput *g, size_t offset, bool share)
{
    const char *base = share ? (const char *)g->times : (const char *)g->jobs;
    size_t stride = share ? sizeof *g->times : sizeof *g->jobs;
    printf("%-22s", what);
    for (int e = 0; e < ENDS; e++) {
        char text[32];
        double value = *(const double *)(base + (size_t)e * stride + offset);
        if (share)
            printf(" %8.2f %%", 100 * value);
        else
            printf(" %10s", duration(value, text));
    }
    printf("\n");
}

#define JOB(field) offsetof(struct failure_job, field)
#define TIME(field) offsetof(struct failure_time, field)

static void print_head(const struct goodput *g)
{
    const struct failure_job *j = &g->jobs[FAILURE_MIDDLE];
    char text[32];
    printf("%lld devices, %lld nodes of %lld; law %s: %s\n\n", (long long)g->flags->gpus,
           (long long)j->nodes, (long long)g->flags->node, g->law.name,
           g->law.source ? g->law.source : "no source given");
    printf("interruptions          %.3g a day: %.3g of nodes, %.3g of the job; one in %s\n",
           (double)j->nodes * j->node_per_day + j->job_per_day,
           (double)j->nodes * j->node_per_day, j->job_per_day, duration(failure_mtbf(j), text));
    if (j->planned_per_day > 0)
        printf("planned stops          %.3g a day, each as long as it takes until training again; "
               "counted as down\n", j->planned_per_day);
    double far = failure_extrapolation(&g->law, j->nodes);
    if (far > 1.1)
        printf("                       extrapolated: observed on %lld nodes; at the ends rates are "
               "%.2g times as high, or as low\n", (long long)g->law.nodes, far);
    printf("checkpoints            every %s", duration(j->every_s, text));
    printf(" (Young %s", duration(failure_young(j), text));
    printf(", Daly %s", duration(failure_daly(j), text));
    printf(", best %s)\n", duration(failure_best_interval(j), text));
    printf("spares                 %lld nodes; short of nodes %.3g %% of the time\n\n",
           (long long)j->spares, 100 * failure_short_of_nodes(j));
}

static void print_ends(const struct goodput *g)
{
    printf("assumed                     quick      usual       slow\n");
    print_row("until noticed", g, JOB(detect_s), false);
    print_row("until training again", g, JOB(restart_s), false);
    print_row("stall of a checkpoint", g, JOB(stall_s), false);
    print_row("until it can be used", g, JOB(write_s), false);
    print_row("repair of a node", g, JOB(repair_s), false);
    printf("\ngives\n");
    print_row("progress", g, TIME(progress), true);
    print_row("checkpoints", g, TIME(checkpoints), true);
    print_row("computed, then lost", g, TIME(lost), true);
    print_row("down", g, TIME(down), true);
    print_row("waiting for nodes", g, TIME(waiting), true);
}

static void print_walk(const struct goodput *g)
{
    const struct failure_walk *w = &g->walk;
    double formula = g->times[FAILURE_MIDDLE].progress;
    if (isinf(g->events)) {
        printf("\nnot simulated: failures come so often that a run never gets to a checkpoint\n");
        return;
    }
    if (g->events > most_events) {
        printf("\nnot simulated: %lld runs of %g days would cost %.3g events, and at most "
               "%.0e\n  are walked through; this is the formula alone (try fewer --runs or "
               "--days)\n", (long long)g->flags->runs, g->flags->days, g->events, most_events);
        return;
    }
    printf("\nsimulated (seed %lld): %lld runs of %g days, %.4g interruptions each: progress "
           "%.2f %% (P10 %.2f, P90 %.2f);\n  %.2f points from the formula\n",
           (long long)g->flags->seed, (long long)g->flags->runs, g->flags->days,
           w->interruptions, 100 * w->mean.progress, 100 * w->progress.lo,
           100 * w->progress.hi, 100 * fabs(w->mean.progress - formula));
    if (g->law.published_least > 0 && g->law.nodes == g->jobs[0].nodes)
        printf("published: above %g %%; from these assumptions %.1f to %.1f %%\n",
               100 * g->law.published_least, 100 * g->times[FAILURE_SLOW].progress,
               100 * g->times[FAILURE_QUICK].progress);
}

static void print_scales(const struct goodput *g)
{
    printf("\n   devices  between two  checkpoint every   progress, quick to slow   spares\n");
    for (i64 nodes = 1; nodes <= 131072; nodes *= 8) {
        char gap[32], every[32];
        struct failure_job j = job_at(g, nodes, FAILURE_MIDDLE);
        struct failure_job quick = job_at(g, nodes, FAILURE_QUICK);
        struct failure_job slow = job_at(g, nodes, FAILURE_SLOW);
        printf("%10lld %12s %17s    %6.2f %% to %6.2f %%   %6lld\n",
               (long long)(nodes * g->flags->node), duration(failure_mtbf(&j), gap),
               duration(j.every_s, every), 100 * failure_goodput(&quick).progress,
               100 * failure_goodput(&slow).progress, (long long)j.spares);
    }
}

/* --- as JSON ------------------------------------------------------------------------ */

static void put_time(struct json *j, const char *key, const struct failure_time *t)
{
    json_key(j, key);
    json_begin_object(j);
    json_put_double(j, "progress", t->progress);
    json_put_double(j, "checkpoints", t->checkpoints);
    json_put_double(j, "lost", t->lost);
    json_put_double(j, "down", t->down);
    json_put_double(j, "waiting", t->waiting);
    json_end(j);
}

static void put_job(struct json *j, const struct failure_job *job, const struct failure_time *t)
{
    json_begin_object(j);
    json_put_double(j, "detect_s", job->detect_s);
    json_put_double(j, "restart_s", job->restart_s);
    json_put_double(j, "stall_s", job->stall_s);
    json_put_double(j, "write_s", job->write_s);
    json_put_double(j, "repair_s", job->repair_s);
    json_put_double(j, "checkpoint_every_s", job->every_s);
    json_put_int(j, "spares", job->spares);
    put_time(j, "shares", t);
    json_end(j);
}

static void print_json(const struct goodput *g)
{
    static const char *const ends[ENDS] = { "quick", "usual", "slow" };
    const struct failure_job *mid = &g->jobs[FAILURE_MIDDLE];
    struct json j;
    json_writer_init(&j);
    j.indent = true;
    json_begin_object(&j);
    json_put_int(&j, "devices", g->flags->gpus);
    json_put_int(&j, "nodes", mid->nodes);
    json_put_str(&j, "law", g->law.name);
    json_put_str(&j, "source", g->law.source);
    json_put_double(&j, "mtbf_s", failure_mtbf(mid));
    json_put_double(&j, "young_s", failure_young(mid));
    json_put_double(&j, "daly_s", failure_daly(mid));
    json_put_double(&j, "best_s", failure_best_interval(mid));
    for (int e = 0; e < ENDS; e++) {
        json_key(&j, ends[e]);
        put_job(&j, &g->jobs[e], &g->times[e]);
    }
    json_put_bool(&j, "was_simulated", g->events <= most_events);
    if (g->events <= most_events) {
        put_time(&j, "simulated", &g->walk.mean);
        json_put_double(&j, "simulated_p10", g->walk.progress.lo);
        json_put_double(&j, "simulated_p90", g->walk.progress.hi);
        json_put_double(&j, "interruptions_per_run", g->walk.interruptions);
    }
    json_end(&j);
    printf("%s\n", j.out.data);
    json_writer_fini(&j);
}

static int run(struct invocation *v)
{
    struct goodput g = { .flags = v->options };
    TRY(compute(&g, v->arena));
    if (g.flags->json) {
        print_json(&g);
        return OK;
    }
    print_head(&g);
    print_ends(&g);
    print_walk(&g);
    print_scales(&g);
    return OK;
}

static const struct example examples[] = {
    { "headway plan goodput --gpus 16384",
      "What of Llama 3's time is progress, by its own table of failures." },
    { "headway plan goodput --gpus 100000 --law rsc-1 --detect 30s --restart 2m",
      "What quick detection is worth on a hundred thousand." },
    { "headway plan goodput --gpus 1024 --node 4 --stall 30s --write 5m --spares 2 --json",
      "A checkpoint that stalls for 30 s and can be used after 5 minutes, as JSON." },
    { 0 },
};

const struct command cmd_plan_goodput = {
    .name = "goodput",
    .summary = "Say what failures leave of a run's time, and how often to save",
    .description = "Interruptions strike nodes and, however small it is, the job; laws of both, "
                   "as published, are in machines/failures/. What is lost is checkpoints' stalls, "
                   "work that was not saved, the time until somebody notices and until training "
                   "goes on, and waiting for nodes. A formula gives it for three sets of "
                   "assumptions, which are printed; runs that are simulated event by event check "
                   "it.",
    .options = options,
    .options_bytes = sizeof(struct goodput_flags),
    .examples = examples,
    .run = run,
};
