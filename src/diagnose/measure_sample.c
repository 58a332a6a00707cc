/* What the system counted for each rank beside a record's steps. */
#include "diagnose/measure_gather.h"

#include <math.h>

/* NaN is where nothing was added yet. */
static void add_number(double *sum, double value)
{
    *sum = isfinite(*sum) ? *sum + value : value;
}

static void add_processor(struct measure_rank *k, const struct sample *x)
{
    double others = x->threads > 1 ? (double)(x->threads - 1) : 1;
    double run = (double)(x->run_ns + x->pool_run_ns);
    double queue = (double)(x->queue_ns + x->pool_queue_ns);
    if (x->has & SAMPLE_SCHED) {
        add_number(&k->run_queue_s, 1e-9 * (double)x->queue_ns);
        add_number(&k->pool_queue_s, 1e-9 * (double)x->pool_queue_ns / others);
        add_number(&k->on_cpu, run + queue > 0 ? run / (run + queue) : 1);
    }
    if (x->has & SAMPLE_THROTTLE) {
        add_number(&k->throttles, (double)x->throttled);
        add_number(&k->throttled_s, 1e-9 * (double)x->throttled_ns);
    }
    if (x->has & SAMPLE_STEAL)
        add_number(&k->steal_s, 1e-9 * (double)x->steal_ns / fmax(1, (double)x->processors));
}

static void add_memory(struct measure_rank *k, const struct sample *x)
{
    if (x->has & SAMPLE_USAGE) {
        add_number(&k->minor_faults, (double)x->minor_faults);
        add_number(&k->major_faults, (double)x->major_faults);
        add_number(&k->system_s, 1e-9 * (double)x->system_ns);
        add_number(&k->switches, (double)x->involuntary);
    }
    if ((x->has & SAMPLE_PRESSURE) && x->covers_ns > 0) {
        add_number(&k->memory_stall, (double)x->memory_pressure_ns / (double)x->covers_ns);
        add_number(&k->io_stall, (double)x->io_pressure_ns / (double)x->covers_ns);
    }
    if ((x->has & SAMPLE_NUMA) && x->near_bytes + x->far_bytes > 0) {
        add_number(&k->far_share, (double)x->far_bytes / (double)(x->near_bytes + x->far_bytes));
        add_number(&k->far_speed, x->far_speed);
    }
    if (x->has & SAMPLE_MEMORY) {
        add_number(&k->rss_bytes, (double)x->rss_bytes);
        add_number(&k->limit_bytes, (double)x->limit_bytes);
    }
}

static void add_clock(struct gather *g, struct measure_rank *k, i64 step, struct kept *all,
                      double phi)
{
    keep(all, phi, g->a);
    if (!k->phi) {
        k->phi = ARENA_ARRAY(g->a, double, g->m->n_steps);
        for (i64 i = 0; i < g->m->n_steps; i++)
            k->phi[i] = NAN;
    }
    k->phi[step] = phi;
}

void gather_add_sample(struct gather *g, i64 step, int rank, const struct record_rank *from)
{
    const struct sample *x = from->sample;
    struct measure_rank *k = &g->m->ranks[rank];
    double waited = k->data[step];
    g->empty[rank] += waited > 0.01 * k->step[step];
    g->m->samples_lost += from->sample_lost;
    if (!x)
        return;
    g->sampled[rank]++;
    g->covered_s[rank] += 1e-9 * (double)x->covers_ns;
    if (x->has & SAMPLE_CLOCK)
        add_clock(g, k, step, &g->clock[rank], x->phi);
    if (!record_sleeps(from->head))
        add_processor(k, x);
    add_memory(k, x);
    if (x->has & SAMPLE_LOADER) {
        add_number(&k->read_bytes, (double)x->loader_read_bytes);
        add_number(&k->used_bytes, (double)x->loader_used_bytes);
        add_number(&k->load_cpu_s, 1e-9 * (double)x->loader_cpu_ns);
        add_number(&k->load_cpu, x->loader_busy_ns > 0
                              ? (double)x->loader_cpu_ns / (double)x->loader_busy_ns : 1);
        g->m->config.loader_threads = i64_max(g->m->config.loader_threads, x->loader_threads);
    }
    if (x->has & SAMPLE_ROWS) {
        if (!k->work)
            k->work = ARENA_ARRAY(g->a, double, g->m->n_steps);
        k->work[step] = x->attended;
        if (x->tokens > 0)
            add_number(&g->m->padding, (double)x->tokens_idle / (double)x->tokens);
    }
}

/* Not every step has a sample: each has the newest one then, the first steps the first. */
static void fill_between(double *phi, i64 n)
{
    double newest = NAN;
    for (i64 i = 0; i < n && !isfinite(newest); i++)
        newest = phi[i];
    for (i64 i = 0; i < n; i++) {
        newest = isfinite(phi[i]) ? phi[i] : newest;
        phi[i] = newest;
    }
}

static void divide_all(double **sums, i64 n, double by)
{
    for (i64 i = 0; i < n && by > 0; i++)
        *sums[i] /= by;
}

void gather_settle_samples(struct gather *g)
{
    double all = 0, step_s = measure_stat(g->m->seconds, g->m->n_steps).mean;
    for (i64 r = 0; r < g->m->n_ranks; r++) {
        struct measure_rank *k = &g->m->ranks[r];
        double *counts[] = { &k->run_queue_s, &k->pool_queue_s, &k->throttles, &k->throttled_s, &k->steal_s,
            &k->minor_faults, &k->major_faults, &k->system_s, &k->switches, &k->read_bytes,
            &k->used_bytes, &k->load_cpu_s };
        double *shares[] = { &k->on_cpu, &k->memory_stall, &k->io_stall, &k->rss_bytes,
                             &k->limit_bytes, &k->load_cpu, &k->far_share, &k->far_speed };
        double samples = (double)g->sampled[r], steps = g->covered_s[r] / step_s;
        divide_all(counts, COUNT_OF(counts), steps > samples ? steps : samples);
        divide_all(shares, COUNT_OF(shares), samples);
        if (k->phi)
            fill_between(k->phi, g->m->n_steps);
        k->clock = g->clock[r].x ? measure_trimmed(g->clock[r].x, i64_min(g->clock[r].n, KEPT)) : NAN;
        double away = g->looked_s[r] > 0 ? g->away_s[r] / g->looked_s[r] : NAN;
        k->run_queue_s = fmax(k->run_queue_s, /* fmin: NaN does not limit */
                              fmin(k->pool_queue_s, away * measure_mean(g->m, k->compute)));
        all += (double)g->sampled[r];
        k->queue_empty = g->m->n_steps > 0 ? g->empty[r] / (double)g->m->n_steps : NAN;
        k->last_share = g->met[r] > 0 ? g->came_last[r] / g->met[r] : NAN;
        k->blamed_share = g->waited_s > 0 ? g->blamed_s[r] / g->waited_s : NAN;
    }
    g->m->padding /= all;
}
