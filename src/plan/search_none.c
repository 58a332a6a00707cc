#include "plan/search_none.h"

#include "base/err.h"
#include "model/model.h"
#include "plan/layout_rules.h"
#include "plan/stack.h"

#include <math.h>

struct nearest_layout { /* to one that is searched and runs */
    struct plan_layout layout;
    i64 faults;            /* rules that it breaks */
    const char *why;       /* the first of them */
    bool exists;           /* that is one of the software alone */
};

struct looking {
    const struct plan_search *s;
    struct nearest_layout best;
    bool any; /* was looked at */
};

/* The degrees that were asked for, as "tp 8 x dp 8"; their product. */
static double asked_degrees(const struct plan_pick *p, const char **text, struct arena *a)
{
    const struct { const char *name; i64 value; } degrees[] = {
        { "tp", p->tp }, { "cp", p->cp }, { "pp", p->pp }, { "dp", p->dp },
    };
    double product = 1;
    *text = "";
    for (i64 i = 0; i < COUNT_OF(degrees); i++) {
        if (degrees[i].value < 1)
            continue;
        product *= (double)degrees[i].value;
        *text = arena_printf(a, "%s%s%s %lld", *text, **text ? " x " : "", degrees[i].name,
                             (long long)degrees[i].value);
    }
    return product;
}

static i64 or_else(i64 pick, i64 other)
{
    return pick == PICK_ANY ? other : pick;
}

/* --- rules of the search ---------------------------------------------------------------- */

/* Data ranks of a node, where these are some of them; 0: else. */
static i64 near_ranks(const struct plan_search *s, const struct plan_layout *l)
{
    i64 sharers = l->dp * l->cp, near = i64_max(1, s->job->machine->node_ranks / l->tp);
    return near > 1 && near < sharers && sharers % near == 0 && l->ep == 1 ? near : 0;
}

static i64 search_faults(const struct plan_search *s, const struct plan_layout *l,
                         const char **first)
{
    const enum schedule_kind kind = (enum schedule_kind)l->schedule;
    i64 most = schedule_most_chunks(kind), chunks = l->virtual_stages;
    const struct { bool broken; const char *why; } rules[] = {
        { l->cp > 1 && s->job->sequence / l->cp < PLAN_LEAST_ROWS,
          "cp leaves a rank fewer than 512 tokens of a row" },
        { l->pp == 1 && s->pick.schedule && l->schedule != SCHEDULE_1F1B,
          "an order of stages needs several of them (pp)" },
        { l->pp == 1 && chunks > 1, "chunks are stages of a pipeline, and pp is 1" },
        { l->pp > 1 && (chunks < schedule_least_chunks(kind) ||
                        chunks > (most ? most : MODEL_CHUNKS)),
          "the schedule does not have so many chunks" },
        { l->zero > 0 && l->dp * l->cp == 1, "nothing is split (zero) over a single data rank" },
        { l->zero_group > 0 && l->zero == 0, "zero_group needs something that is split (zero)" },
        { l->zero_group > 0 && l->zero_group != near_ranks(s, l),
          "zero_group is the data ranks of a node, or 0" },
    };
    i64 n = 0;
    for (i64 i = 0; i < COUNT_OF(rules); i++)
        if (rules[i].broken && n++ == 0)
            *first = rules[i].why;
    return n;
}

/* --- layouts as asked for --------------------------------------------------------------- */

static void look_at(struct looking *k, const struct plan_layout *l)
{
    const struct plan_job *job = k->s->job;
    const char *why = NULL, *also = NULL;
    i64 n = plan_layout_faults(job, l, &why);
    n += search_faults(k->s, l, n ? &also : &why);
    const char *runs[] = { plan_runs_degrees(job, l), plan_runs_order(job, l),
                           plan_runs_split(job, l) };
    bool exists = n == 0;
    for (i64 i = 0; i < COUNT_OF(runs); i++) {
        if (runs[i] && n == 0)
            why = runs[i];
        n += runs[i] != NULL;
    }
    if (!k->any || n < k->best.faults)
        k->best = (struct nearest_layout){ *l, n, why, exists };
    k->any = true;
}

/* What is open is as small as it can be. */
static void complete(struct looking *k, struct plan_layout l)
{
    const struct plan_pick *p = &k->s->pick;
    i64 rows = i64_max(1, k->s->job->global_batch / l.dp);
    l.micro_batch = or_else(p->micro_batch, i64_max(1, rows / or_else(p->micro_batches, rows)));
    l.micro_batches = or_else(p->micro_batches, i64_max(1, rows / l.micro_batch));
    l.sequence_parallel = l.tp > 1 && p->sequence_parallel != 0;
    l.ep = or_else(p->ep, 1);
    l.zero = or_else(p->zero, p->zero_group > 0);
    l.zero_group = or_else(p->zero_group, 0);
    l.virtual_stages = or_else(p->virtual_stages, 1);
    l.schedule = l.virtual_stages > 1 ? SCHEDULE_INTERLEAVED : SCHEDULE_1F1B;
    if (p->schedule) {
        l.schedule = p->schedule - 1;
        i64 least = schedule_least_chunks((enum schedule_kind)l.schedule);
        l.virtual_stages = or_else(p->virtual_stages, l.pp > 1 ? least : 1);
    }
    look_at(k, &l);
}

static bool may_be(i64 pick, i64 value, i64 devices)
{
    return (pick == PICK_ANY || pick == value) && devices % value == 0;
}

static void look_at_all(struct looking *k)
{
    const struct plan_job *job = k->s->job;
    const struct plan_pick *p = &k->s->pick;
    const i64 N = job->devices, tp = i64_max(p->tp, i64_min(N, job->spec->heads));
    const i64 cp = i64_max(p->cp, i64_max(1, job->sequence / PLAN_LEAST_ROWS));
    const i64 pp = i64_max(p->pp, job->spec->layers);
    struct plan_layout l = { 0 };
    for (l.tp = 1; l.tp <= tp; l.tp++)
        for (l.pp = 1; may_be(p->tp, l.tp, N) && l.pp <= pp; l.pp++)
            for (l.cp = 1; may_be(p->pp, l.pp, N / l.tp) && l.cp <= cp; l.cp++) {
                i64 rest = N / l.tp / l.pp;
                if (!may_be(p->cp, l.cp, rest) || !may_be(p->dp, rest / l.cp, rest))
                    continue;
                l.dp = rest / l.cp;
                complete(k, l);
            }
}

/* --- what is said ----------------------------------------------------------------------- */

static int none_fits(const struct plan_search *s, const struct plan_search_result *r,
                     struct arena *a)
{
    const struct plan_job *job = s->job;
    const double bytes = job->machine->device.memory_bytes, share = job->stack->usable;
    return err_set(ERR_LIMIT, "none of %lld layouts of %s fits into %.1f GB (%.0f %% of %.1f): the least "
                   "needs %.1f GB (%s, mostly %s); try more devices, shorter rows, or devices of more memory; "
                   "'headway plan fit' says what is enough",
                   (long long)r->layouts, job->spec->name,
                   1e-9 * bytes * share, 100 * share, 1e-9 * bytes, 1e-9 * r->least.step.memory_bytes,
                   plan_layout_text(&r->least.layout, a),
                   plan_memory_names[r->least.step.binding]);
}

/* The largest number of devices below for which a layout exists and runs: of whole nodes, where
 * those asked for are. */
static const char *fewer_devices(const struct plan_search *s, struct arena *a)
{
    enum { MOST_TRIES = 20000 };
    struct plan_job job = *s->job;
    struct plan_search fewer = *s;
    i64 node = i64_max(1, job.machine->node_ranks), step = job.devices % node ? 1 : node;
    fewer.job = &job;
    for (i64 i = 0; i < MOST_TRIES && job.devices > step; i++) {
        struct looking k = { .s = &fewer };
        job.devices -= step;
        look_at_all(&k);
        if (k.any && k.best.faults == 0)
            return arena_printf(a, "%lld devices, or another number of rows", (long long)job.devices);
    }
    return "another number of devices or rows";
}

static bool is_open(const struct plan_pick *p)
{
    const struct plan_pick open = plan_pick_open();
    return p->tp == open.tp && p->cp == open.cp && p->pp == open.pp && p->dp == open.dp &&
           p->ep == open.ep && p->micro_batch == open.micro_batch &&
           p->micro_batches == open.micro_batches && p->virtual_stages == open.virtual_stages &&
           p->zero == open.zero && p->zero_group == open.zero_group && !p->schedule;
}

static int not_as_asked(const struct plan_job *job, const char *why)
{
    return err_set(ERR_CONFIG, "no layout of %s on %lld devices is as asked for: %s",
                   job->spec->name, (long long)job->devices, why);
}

int plan_search_none(const struct plan_search *s, const struct plan_search_result *r,
                     struct arena *a)
{
    const struct plan_job *job = s->job;
    const struct plan_pick *p = &s->pick;
    struct looking k = { .s = s };
    const char *text;
    double asked = asked_degrees(p, &text, a), devices = (double)job->devices;
    bool all = p->tp > 0 && p->cp > 0 && p->pp > 0 && p->dp > 0;
    if (r->priced > 0)
        return none_fits(s, r, a);
    if (fmod(devices, asked) != 0 || (all && asked != devices))
        return not_as_asked(job, arena_printf(a, "%s %s %lld devices", text, all ? "is not" : "does not divide",
                                              (long long)job->devices));
    if (p->pp > job->spec->layers)
        return not_as_asked(job, arena_printf(a, "pp %lld is more stages than the %lld layers",
                                              (long long)p->pp, (long long)job->spec->layers));
    i64 rows = or_else(p->dp, 1) * or_else(p->micro_batch, 1);
    if (job->global_batch % rows)
        return not_as_asked(job, arena_printf(a, "dp %lld x micro_batch %lld does not divide a "
                                              "step's %lld rows", (long long)or_else(p->dp, 1),
                                              (long long)or_else(p->micro_batch, 1),
                                              (long long)job->global_batch));
    look_at_all(&k);
    if (k.best.faults > 0 && k.best.exists)
        return err_set(ERR_CONFIG, "%s runs no such layout: %s; --any prices it all the same",
                       job->stack->name, k.best.why);
    if (k.best.faults == 0 && r->why_left_out)
        return err_set(ERR_CONFIG, "no program of %s can be built on %lld devices: %s",
                       job->spec->name, (long long)job->devices, r->why_left_out);
    const char *fewer = fewer_devices(s, a);
    text = k.best.faults == 0 ? "" : arena_printf(a, "%s (%s is nearest)", k.best.why,
                                                  plan_layout_text(&k.best.layout, a));
    if (*text && !is_open(p))
        return not_as_asked(job, text);
    return err_set(ERR_CONFIG, "no layout of %s exists on %lld devices with %lld rows of %lld "
                   "tokens a step%s%s; try %s", job->spec->name,
                   (long long)job->devices, (long long)job->global_batch,
                   (long long)job->sequence, *text ? ": " : "", text, fewer);
}
