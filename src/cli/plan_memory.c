/* What fills a device's memory, and whether it is enough. */
#include "base/err.h"
#include "base/json.h"
#include "cli/plan_job.h"
#include "plan/search.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

static const struct option options[] = { PLAN_FLAGS, { 0 } };

/* The quickest layout of those meant that fit; ERR_LIMIT and the least of them where none does. */
static int find(const struct plan_job *job, const struct plan_pick *pick,
                struct plan_search_result *r, struct arena *a)
{
    struct plan_search q = { .job = job, .pick = *pick, .keep = 1, .prune = true };
    return plan_search(&q, r, a);
}

/* --- memory ------------------------------------------------------------------------- */

static void put_memory(struct json *j, const struct plan_step *s)
{
    json_key(j, "memory");
    json_begin_object(j);
    for (int i = 0; i < PLAN_MEMORIES; i++)
        json_put_double(j, plan_memory_names[i], s->memory[i]);
    json_end(j);
    json_put_double(j, "memory_bytes", s->memory_bytes);
    json_put_str(j, "binding", plan_memory_names[s->binding]);
    json_put_bool(j, "fits", s->fits);
}

static void print_memory(const struct planned_job *p, const struct plan_step *s)
{
    double room = p->machine.device.memory_bytes;
    for (int i = 0; i < PLAN_MEMORIES; i++)
        if (s->memory[i] > 0)
            printf("  %-20s %9.3f GB %9.3f GiB %5.1f %%%s\n", plan_memory_names[i],
                   1e-9 * s->memory[i], s->memory[i] / (1 << 30), 100 * s->memory[i] / room,
                   i == s->binding ? "  the largest" : "");
    printf("  %-20s %9.3f GB %9.3f GiB %5.1f %% of %.1f GB\n", "the fullest device",
           1e-9 * s->memory_bytes, s->memory_bytes / (1 << 30), 100 * s->memory_bytes / room,
           1e-9 * room);
    printf("it %s; %.0f %% of the memory can be used, the rest is lost between tensors\n",
           s->fits ? "fits" : "does not fit", 100 * p->stack.usable);
}

static int memory(struct invocation *v)
{
    const struct plan_flags *f = v->options;
    struct planned_job p;
    struct plan_search_result r;
    TRY(plan_job_open(&p, f, v->arena));
    int rc = find(&p.job, &p.pick, &r, v->arena);
    if (rc != ERR_LIMIT)
        TRY(rc);
    const struct plan_found *best = rc == ERR_LIMIT ? &r.least : &r.best[0];
    if (!f->json) {
        plan_job_print(&p);
        printf("%s\n\n", plan_layout_text(&best->layout, v->arena));
        print_memory(&p, &best->step);
        return OK;
    }
    struct json j;
    json_writer_init(&j);
    j.indent = true;
    json_begin_object(&j);
    plan_job_json(&p, &j);
    json_put_str(&j, "layout", plan_layout_text(&best->layout, v->arena));
    put_memory(&j, &best->step);
    json_put_double(&j, "device_bytes", p.machine.device.memory_bytes);
    json_end(&j);
    printf("%s\n", j.out.data);
    json_writer_fini(&j);
    return OK;
}

static const struct example memory_examples[] = {
    { "headway plan memory --model llama3-8b --gpus 8 --layout dp=8,zero=1,micro_batch=1",
      "What fills an H100, by kind of tensor." },
    { 0 },
};

const struct command cmd_plan_memory = {
    .name = "memory",
    .summary = "Say what fills the memory of a device",
    .description = "Of the fullest device of the quickest layout that --layout leaves open and "
                   "that fits; where none does, of what needs the least.",
    .options = options,
    .options_bytes = sizeof(struct plan_flags),
    .examples = memory_examples,
    .run = memory,
};

/* --- fit ---------------------------------------------------------------------------- */

enum { WAYS = 10, MOST_DEVICES = 1 << 20 };

struct way { /* to make it fit */
    const char *what;
    struct plan_found found;
    i64 devices;
    const char *device; /* another one; NULL: the same */
};

struct fitting {
    struct planned_job p;
    struct plan_search_result r;
    bool fits;
    struct way ways[WAYS];
    i64 n;
};

static void add_way(struct fitting *x, const char *what, const struct plan_search_result *r,
                    i64 devices, const char *device)
{
    if (x->n < WAYS)
        x->ways[x->n++] = (struct way){ what, r->best[0], devices, device };
}

/* One setting of --layout given up at a time, then all of them. */
static int try_freeing(struct fitting *x, struct arena *a)
{
    const struct plan_pick *p = &x->p.pick, open = plan_pick_open();
    const struct { const char *what; size_t at; } settings[] = {
        { "recompute", offsetof(struct plan_pick, recompute) },
        { "zero", offsetof(struct plan_pick, zero) },
        { "micro_batch", offsetof(struct plan_pick, micro_batch) },
    };
    struct plan_search_result r;
    for (i64 i = 0; i < COUNT_OF(settings); i++) {
        struct plan_pick freed = *p;
        size_t size = settings[i].at == offsetof(struct plan_pick, recompute) ? sizeof(int)
                                                                              : sizeof(i64);
        memcpy((char *)&freed + settings[i].at, (const char *)&open + settings[i].at, size);
        if (memcmp(&freed, p, sizeof freed) == 0)
            continue;
        if (settings[i].at == offsetof(struct plan_pick, micro_batch))
            freed.micro_batches = PICK_ANY;
        if (find(&x->p.job, &freed, &r, a) == OK)
            add_way(x, arena_printf(a, "another %s", settings[i].what), &r, x->p.job.devices,
                    NULL);
    }
    if (memcmp(p, &open, sizeof open) != 0 && find(&x->p.job, &open, &r, a) == OK)
        add_way(x, "another layout", &r, x->p.job.devices, NULL);
    return OK;
}

/* Numbers of devices with more factors of two have more layouts: some devices stay idle. */
static void try_fewer_devices(struct fitting *x, struct arena *a)
{
    const i64 all = x->p.job.devices;
    struct plan_job job = x->p.job;
    struct plan_pick open = plan_pick_open();
    struct plan_search_result r;
    for (i64 unit = i64_max(2, x->p.machine.node_ranks); unit <= all; unit *= 2) {
        i64 some = all / unit * unit;
        if (some == job.devices)
            continue;
        job.devices = some;
        if (x->p.batch_assumed)
            job.global_batch = plan_job_batch(&job);
        if (find(&job, &open, &r, a) == OK) {
            add_way(x, "fewer devices", &r, some, NULL);
            return;
        }
    }
}

static void try_devices(struct fitting *x, struct arena *a)
{
    struct plan_job job = x->p.job;
    struct plan_pick open = plan_pick_open();
    struct plan_search_result r;
    for (job.devices *= 2; job.devices <= MOST_DEVICES; job.devices *= 2)
        if (plan_machine_room(&x->p.machine, job.devices) == OK &&
            find(&job, &open, &r, a) == OK) {
            add_way(x, "more devices", &r, job.devices, NULL);
            return;
        }
}

/* The device of the least memory that is enough, in the same cluster. */
static int try_other_device(struct fitting *x, struct arena *a)
{
    const char **names;
    i64 n;
    double least = 0;
    struct plan_search_result r, best = { 0 };
    const char *name = NULL;
    TRY(plan_machine_names(true, &names, &n, a));
    for (i64 i = 0; i < n; i++) {
        struct plan_machine other, same = x->p.machine;
        struct plan_job job = x->p.job;
        TRY(plan_machine_load(&other, names[i], a));
        if (other.device.memory_bytes <= same.device.memory_bytes ||
            other.device.peak[job.dtype] <= 0 ||
            (name && other.device.memory_bytes >= least))
            continue;
        same.device = other.device;
        job.machine = &same;
        if (find(&job, &x->p.pick, &r, a) != OK)
            continue;
        name = names[i];
        least = other.device.memory_bytes;
        best = r;
    }
    if (name)
        add_way(x, "a device with more memory", &best, x->p.job.devices, name);
    return OK;
}

static int look(struct fitting *x, struct arena *a)
{
    int rc = find(&x->p.job, &x->p.pick, &x->r, a);
    x->fits = rc == OK;
    if (rc != ERR_LIMIT)
        return rc;
    TRY(try_freeing(x, a));
    try_fewer_devices(x, a);
    try_devices(x, a);
    return try_other_device(x, a);
}

static void print_fit(const struct fitting *x, struct arena *a)
{
    const struct plan_found *f = x->fits ? &x->r.best[0] : &x->r.least;
    plan_job_print(&x->p);
    printf("%s: %s\n", x->fits ? "it fits" : "it does not fit; what needs the least is",
           plan_layout_text(&f->layout, a));
    print_memory(&x->p, &f->step);
    if (!x->fits)
        printf("\nit would with\n");
    for (i64 i = 0; i < x->n; i++) {
        const struct way *w = &x->ways[i];
        printf("  %s%s%s", w->what, w->device ? ": " : "", w->device ? w->device : "");
        if (w->devices != x->p.job.devices)
            printf(": %lld", (long long)w->devices);
        printf("\n    %s: %.1f GB, a step takes %.4g s\n", plan_layout_text(&w->found.layout, a),
               1e-9 * w->found.step.memory_bytes, w->found.step.seconds);
    }
    if (!x->fits && x->n == 0)
        printf("  none of: other settings, up to %d devices, another known device\n",
               MOST_DEVICES);
}

static void put_ways(struct json *j, const struct fitting *x, struct arena *a)
{
    json_key(j, "would_fit_with");
    json_begin_array(j);
    for (i64 i = 0; i < x->n; i++) {
        const struct way *w = &x->ways[i];
        json_begin_object(j);
        json_put_str(j, "change", w->what);
        json_put_int(j, "devices", w->devices);
        if (w->device)
            json_put_str(j, "device", w->device);
        json_put_str(j, "layout", plan_layout_text(&w->found.layout, a));
        json_put_double(j, "memory_bytes", w->found.step.memory_bytes);
        json_put_double(j, "seconds", w->found.step.seconds);
        json_end(j);
    }
    json_end(j);
}

static int fit(struct invocation *v)
{
    const struct plan_flags *f = v->options;
    struct fitting x = { 0 };
    TRY(plan_job_open(&x.p, f, v->arena));
    TRY(look(&x, v->arena));
    if (!f->json) {
        print_fit(&x, v->arena);
        return OK;
    }
    const struct plan_found *shown = x.fits ? &x.r.best[0] : &x.r.least;
    struct json j;
    json_writer_init(&j);
    j.indent = true;
    json_begin_object(&j);
    plan_job_json(&x.p, &j);
    json_put_str(&j, "layout", plan_layout_text(&shown->layout, v->arena));
    put_memory(&j, &shown->step);
    put_ways(&j, &x, v->arena);
    json_end(&j);
    printf("%s\n", j.out.data);
    json_writer_fini(&j);
    return OK;
}

static const struct example fit_examples[] = {
    { "headway plan fit --model llama3-70b --gpus 8 --layout micro_batch=1",
      "Whether 70B fits into eight H100, and what would help." },
    { 0 },
};

const struct command cmd_plan_fit = {
    .name = "fit",
    .summary = "Say whether a run fits into memory, and what would make it fit",
    .description = "Where no layout of those that --layout leaves open fits: which of its settings "
                   "to give up, how many devices, or which other device.",
    .options = options,
    .options_bytes = sizeof(struct plan_flags),
    .examples = fit_examples,
    .run = fit,
};
