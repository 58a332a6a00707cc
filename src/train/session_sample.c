/* One sample of this rank's counters behind a step (see session.h and trace/sample.h). */
#include "base/sys.h"
#include "base/sys_usage.h"
#include "machine/speed.h"
#include "trace/sample.h"
#include "train/session.h"

#include <string.h>

/* The clock probe runs so often per sample, and at the start. */
enum { PROBES = 3, FIRST_PROBES = 32, MOST_THREADS = 256 };
/* A sample is left out until so many times its cost have passed since the last: that is 0.1 %. */
static const u64 rarity = 1000;
/* Reading the machine's own text takes long where there are many processors. */
static const u64 steal_every_ns = 250 * 1000 * 1000;
/* So does finding out where memory lies, which seldom changes. */
static const u64 numa_every_ns = 10ull * 1000 * 1000 * 1000;

struct session_sampler {
    struct sys_usage_reader *reader;
    struct sys_usage usage;       /* as of the last sample */
    struct loader_counts loader;
    u64 at_ns, steal_ns;          /* when the last was taken; and the machine's text read */
    u64 cost_ns;                  /* of a sample, once there was one */
    u64 least_ns;                 /* the cheapest so far: others were pushed aside */
    u64 probe_ns;                 /* of the clock, at the start */
    u32 processors;
    u64 limit_bytes;
    struct sys_numa numa;         /* as of numa_ns */
    u64 numa_ns, numa_cost_ns;
    bool several_nodes;
};

/* By itself: what it costs does not make samples rarer. */
static void look_at_nodes(struct session_sampler *p)
{
    p->numa_ns = sys_now_ns();
    p->several_nodes = sys_numa_read(&p->numa);
    p->numa_cost_ns = sys_now_ns() - p->numa_ns;
}

static void put_nodes(struct session_sampler *p, u64 now, struct sample *out)
{
    if (!p->several_nodes)
        return;
    if (now - p->numa_ns >= numa_every_ns && now - p->numa_ns >= rarity * p->numa_cost_ns)
        look_at_nodes(p);
    out->has |= SAMPLE_NUMA;
    out->near_bytes = p->numa.near_bytes;
    out->far_bytes = p->numa.far_bytes;
    out->far_speed = p->numa.far_speed;
}

/* Where others compute too, the first sample would be pushed aside, and the next ones be
 * put off. */
static u64 least_cost(struct session_sampler *p)
{
    enum { TRIES = 4 };
    struct sys_usage usage;
    u64 least = UINT64_MAX;
    for (int i = 0; i < TRIES; i++) {
        u64 begin = sys_now_ns();
        sys_usage_read(p->reader, false, &usage);
        u64 cost = sys_now_ns() - begin;
        least = cost < least ? cost : least;
    }
    return least + PROBES * p->probe_ns;
}

int session_open_sampler(struct session *s)
{
    struct session_sampler *p = ARENA_NEW(&s->arena, struct session_sampler);
    int threads[MOST_THREADS], n = 1;
    threads[0] = sys_thread_id();
    n += pool_thread_ids(s->engine.pool, threads + 1, MOST_THREADS - 1);
    p->reader = sys_usage_open(threads, n);
    if (!p->reader)
        return err_set(ERR_LIMIT, "no memory for reading what the system counts");
    p->processors = (u32)sys_cpu_count();
    p->limit_bytes = (u64)sys_memory_limit_bytes();
    p->probe_ns = speed_probe_ns(FIRST_PROBES);
    p->least_ns = least_cost(p);
    look_at_nodes(p);
    sys_usage_read(p->reader, true, &p->usage);
    p->at_ns = p->steal_ns = sys_now_ns();
    s->sampler = p;
    return OK;
}

void session_close_sampler(struct session *s)
{
    if (s->sampler)
        sys_usage_close(s->sampler->reader);
    s->sampler = NULL;
}

_Static_assert((int)SYS_USAGE_SCHED == (int)SAMPLE_SCHED &&
               (int)SYS_USAGE_PROCESS == (int)SAMPLE_USAGE &&
               (int)SYS_USAGE_IO == (int)SAMPLE_IO &&
               (int)SYS_USAGE_THROTTLE == (int)SAMPLE_THROTTLE &&
               (int)SYS_USAGE_PRESSURE == (int)SAMPLE_PRESSURE &&
               (int)SYS_USAGE_STEAL == (int)SAMPLE_STEAL &&
               (int)SYS_USAGE_MEMORY == (int)SAMPLE_MEMORY, "the same parts");

static void put_usage(struct sample *out, const struct sys_usage *was, const struct sys_usage *is)
{
    out->has = was->has & is->has;
    out->run_ns = is->run_ns - was->run_ns;
    out->queue_ns = is->queue_ns - was->queue_ns;
    out->pool_run_ns = is->others_run_ns - was->others_run_ns;
    out->pool_queue_ns = is->others_queue_ns - was->others_queue_ns;
    out->user_ns = is->user_ns - was->user_ns;
    out->system_ns = is->system_ns - was->system_ns;
    out->minor_faults = is->minor_faults - was->minor_faults;
    out->major_faults = is->major_faults - was->major_faults;
    out->voluntary = is->voluntary - was->voluntary;
    out->involuntary = is->involuntary - was->involuntary;
    out->read_bytes = is->read_bytes - was->read_bytes;
    out->written_bytes = is->written_bytes - was->written_bytes;
    out->throttled = is->throttled - was->throttled;
    out->throttled_ns = is->throttled_ns - was->throttled_ns;
    out->cpu_pressure_ns = is->cpu_pressure_ns - was->cpu_pressure_ns;
    out->io_pressure_ns = is->io_pressure_ns - was->io_pressure_ns;
    out->memory_pressure_ns = is->memory_pressure_ns - was->memory_pressure_ns;
    out->steal_ns = is->steal_ns - was->steal_ns;
    out->rss_bytes = is->rss_bytes;
    out->peak_rss_bytes = is->peak_rss_bytes;
}

static void put_loader(struct sample *out, const struct loader_counts *was,
                       const struct loader_counts *is)
{
    out->has |= SAMPLE_LOADER | SAMPLE_ROWS;
    out->loader_read_bytes = (u64)(is->read_bytes - was->read_bytes);
    out->loader_used_bytes = (u64)(is->used_bytes - was->used_bytes);
    out->loader_busy_ns = is->busy_ns - was->busy_ns;
    out->loader_cpu_ns = is->cpu_ns - was->cpu_ns;
    out->loader_ready = (u32)is->ready;
    out->loader_ahead = (u32)is->ahead;
    out->loader_threads = (u32)is->threads;
    out->documents = (u32)is->documents;
    out->tokens = (u64)is->tokens;
    out->tokens_idle = (u64)is->idle;
    out->attended = is->attended;
}

/* Tasks that sleep take as long at any clock; what others take from the probe says
 * nothing of them. */
static double clock_now(const struct session *s, i64 step)
{
    const struct inject_fault *f = inject_at(&s->inject, INJECT_PHI, (u64)step);
    double phi = s->request.sleep
                     ? 1 : (double)s->sampler->probe_ns / (double)speed_probe_ns(PROBES);
    return f ? phi * f->value : phi;
}

bool session_sample(struct session *s, i64 step, struct sample *out)
{
    struct session_sampler *p = s->sampler;
    u64 begin = sys_now_ns();
    if (!p || begin - p->at_ns < rarity * p->cost_ns)
        return false;
    struct sys_usage usage;
    struct loader_counts loader;
    bool steal = begin - p->steal_ns >= steal_every_ns;
    sys_usage_read(p->reader, steal, &usage);
    loader_get_counts(s->loader, &loader);
    *out = (struct sample){
        .at_ns = begin, .covers_ns = begin - p->at_ns, .step = (u32)step,
        .threads = (u32)pool_threads(s->engine.pool), .processors = p->processors,
        .limit_bytes = p->limit_bytes,
    };
    put_usage(out, &p->usage, &usage);
    put_loader(out, &p->loader, &loader);
    out->phi = clock_now(s, step);
    out->has |= SAMPLE_CLOCK;
    p->usage = usage;
    p->loader = loader;
    p->steal_ns = steal ? begin : p->steal_ns;
    p->at_ns = begin;
    u64 cost = sys_now_ns() - begin;
    p->least_ns = cost < p->least_ns ? cost : p->least_ns;
    p->cost_ns = p->least_ns;
    put_nodes(p, begin, out);
    return true;
}
