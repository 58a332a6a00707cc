/* What a part of a record says as a whole: who took part, with what, and what it took beside
 * steps. */
#include "diagnose/measure_record.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

void measure_heads(struct measure *m, const struct record_part *part)
{
    struct measure_ceilings *c = &m->ceilings;
    double threads = 0, cores = 0;
    for (int r = 0; r < part->ranks; r++) {
        const struct record_head *h = part->heads[r];
        struct measure_rank *k = &m->ranks[r];
        if (!h)
            continue;
        k->stage = (int)h->pp;
        k->row = (int)(h->island * h->of_dp * h->of_cp + h->dp * h->of_cp + h->cp);
        snprintf(k->host, sizeof k->host, "%s", h->host);
        const struct record_head *first = part->heads[0] ? part->heads[0] : h;
        if (strcmp(h->host, first->host) == 0) {
            threads += h->threads;
            cores += (double)h->cores / h->sharers;
        }
        m->config.islands = h->of_islands;
        m->config.pp = h->of_pp;
        m->config.dp = h->of_dp;
        m->config.cp = h->of_cp;
        m->config.tp = h->of_tp;
        m->config.ep = h->of_ep;
        m->config.zero = h->zero;
        m->config.threads = h->threads;
        snprintf(m->config.backend, sizeof m->config.backend, "%s", h->backend);
        bool narrow = strcmp(h->precision, "bf16") == 0;
        c->f32 = h->flops_f32 > 0 ? h->flops_f32 : NAN;
        c->bf16 = h->flops_bf16 > 0 ? h->flops_bf16 : NAN;
        c->used = narrow ? c->bf16 : c->f32;
        double widest = narrow ? h->widest_bf16 : h->widest_f32;
        c->widest = widest > 0 ? widest : NAN;
        snprintf(m->config.widest, sizeof m->config.widest, "%s", h->widest);
        c->memory_bytes_per_s = h->memory_bytes_per_s > 0 ? h->memory_bytes_per_s : NAN;
        c->op_s = h->launch_s > 0 ? h->launch_s : NAN;
        if (h->n_tables > 0) {
            const struct record_table *t = h->tables[h->n_tables > 1 ? 0 : h->n_tables - 1];
            if (t->n_tasks == 0)
                continue; /* it could not be read */
            m->config.batch = t->B;
            m->config.seq = t->T;
            m->config.micro_batches = t->micro_batches;
        }
    }
    m->threads_per_node = threads;
    m->cores_per_node = cores;
    /* First touch of a page: 33 ms for 64 MiB, measured on a Zen 5 server; one from a disk: an
     * order of magnitude. */
    c->minor_fault_s = 2e-6;
    c->major_fault_s = 1e-4;
}

/* What recompute would keep instead, at least: the outputs of what is made again. */
void measure_memory(struct measure *m, const struct record_part *part)
{
    for (int r = 0; r < part->ranks; r++) {
        const struct record_head *h = part->heads[r];
        double bytes = 0;
        for (i64 i = 0; h && h->n_tables > 0 && i < h->tables[0]->n_tasks; i++)
            if (h->tables[0]->tasks[i].flags & RECORD_RECOMPUTE)
                bytes += h->tables[0]->tasks[i].written_bytes;
        if (h && h->of_pp > 1 && h->n_tables > 0) /* so many micro-batches are in flight */
            bytes *= (double)i64_min(h->of_pp, h->tables[0]->micro_batches);
        if (h && !(m->recompute_bytes >= bytes))
            m->recompute_bytes = bytes;
        if (!(m->memory_peak_bytes >= m->ranks[r].rss_bytes))
            m->memory_peak_bytes = m->ranks[r].rss_bytes;
        if (!(m->memory_limit_bytes <= m->ranks[r].limit_bytes))
            m->memory_limit_bytes = m->ranks[r].limit_bytes;
    }
}

void measure_start(struct measure *m, const struct record_part *part,
                       const struct record_step *first)
{
    m->run_s = 1e-9 * (double)(part->end_ns - part->begin_ns);
    if (first->step <= MEASURE_WARM_UP) /* its start is recorded */
        m->start_s = fmax(0, 1e-9 * (double)(first->begin_ns - part->begin_ns) -
                                 (double)first->step * 1e-9 * (double)(first->end_ns - first->begin_ns));
}

/* A part that ended before its work was saved: somebody took those steps again. */
void measure_failures(struct measure *m, const struct record *r)
{
    for (int i = 0; i < r->n_parts; i++) {
        const struct record_part *p = &r->parts[i];
        m->up_s += 1e-9 * (double)(p->end_ns - p->begin_ns);
        m->retaken_s += 1e-9 * (double)(p->lost_ns);
        m->failures += p->lost_ns > 0;
    }
}
