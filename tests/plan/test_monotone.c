/* Whatever is faster makes no step longer: random jobs, each priced on a machine and on one that
 * has one thing better. Orders that put weight gradients off are not among them: their closed forms
 * are fits, in which fast weight gradients leave gaps. */
#include "test.h"

#include "base/rng.h"
#include "parallel/layout.h"
#include "plan/table.h"
#include "plan_job.h"

enum { DRAWS = 60000, PRICED = 600 };

static const char *const models[] = {
    "gpt2-355m",    "llama3.2-1b",  "llama3-8b",     "llama3-70b",
    "megatron-22b", "mixtral-8x7b", "qwen3-30b-a3b",
};
static const char *const stacks[] = {
    "hai-llm", "llm-foundry", "megascale", "megatron-bridge", "megatron-core", "megatron-deepspeed",
    "megatron-deepspeed-2022", "megatron-lm", "megatron-lm-2022", "nanotron", "torchtitan",
};
static const char *const machines[] = {
    "selene", "dgx-a100", "h100-sxm-ib", "p5-efa", "gb200-nvl72",
};

/* What one may buy. A faster device computes faster in every dtype. */
static void faster_links(struct plan_machine *m, double times)
{
    m->tiers[0].bytes_per_s.mid *= times;
    m->device.link_bytes_per_s *= times;
}

static void faster_network(struct plan_machine *m, double times)
{
    for (int t = 1; t < m->n_tiers; t++)
        m->tiers[t].bytes_per_s.mid *= times;
    m->device.network_bytes_per_s *= times;
}

static void quicker_messages(struct plan_machine *m, double times)
{
    for (int t = 0; t < m->n_tiers; t++) {
        m->tiers[t].latency_s.mid /= times;
        m->tiers[t].sum_latency_s /= times;
    }
}

static void faster_products(struct plan_machine *m, double times)
{
    for (int d = 0; d < PLAN_DTYPES; d++) {
        m->device.peak[d] *= times;
        m->device.reached[d] *= times;
    }
}

static void faster_memory(struct plan_machine *m, double times)
{
    m->device.memory_bytes_per_s *= times;
}

static void more_memory(struct plan_machine *m, double times)
{
    m->device.memory_bytes *= times;
}

static const struct {
    const char *name;
    void (*improve)(struct plan_machine *m, double times);
} ways[] = {
    { "links", faster_links },         { "network", faster_network },
    { "messages", quicker_messages },  { "products", faster_products },
    { "memory", faster_memory },       { "room", more_memory },
};

/* Draws of one job, counted. */
struct draws {
    struct rng key;
    u64 n;
};

static i64 below(struct draws *d, i64 n)
{
    return (i64)(rng_uniform(&d->key, d->n++) * (double)n);
}

static i64 power(struct draws *d, i64 most)
{
    return (i64)1 << below(d, most + 1);
}

static void draw_layout(struct draws *d, struct plan_layout *l)
{
    *l = (struct plan_layout){
        .tp = power(d, 4), .cp = below(d, 6) ? 1 : power(d, 2), .pp = power(d, 4),
        .dp = power(d, 5), .ep = below(d, 2) ? 1 : power(d, 4), .micro_batch = power(d, 3),
        .micro_batches = power(d, 5), .virtual_stages = 1, .schedule = SCHEDULE_1F1B,
        .recompute = (int)below(d, 3), .zero = below(d, 4), .sequence_parallel = below(d, 2),
    };
    const int orders[] = { SCHEDULE_1F1B, SCHEDULE_GPIPE, SCHEDULE_INTERLEAVED };
    if (l->pp > 1)
        l->schedule = orders[below(d, COUNT_OF(orders))];
    if (l->schedule == SCHEDULE_INTERLEAVED)
        l->virtual_stages = 2;
}

static void draw_job(struct planned *p, struct draws *d, const struct plan_layout *l)
{
    i64 devices = l->tp * l->cp * l->pp * l->dp, rows = l->micro_batch * l->micro_batches * l->dp;
    const char *model = models[below(d, COUNT_OF(models))];
    const char *machine = machines[below(d, COUNT_OF(machines))];
    open_planned(p, model, machine, devices, rows, 1024 * power(d, 3));
    const char *family = p->machine.device.family;
    CHECK_OK(plan_family_load(&p->family, family, &p->arena));
    CHECK_OK(plan_stack_load(&p->stack, stacks[below(d, COUNT_OF(stacks))], &p->arena));
    p->job.dtype = below(d, 4) ? PLAN_BF16 : PLAN_FP8;
}

static double seconds_on(const struct plan_machine *m, struct plan_job job,
                         const struct plan_layout *l, const struct plan_ops *ops)
{
    struct plan_table table;
    struct plan_step step;
    job.machine = m;
    plan_table_price(&table, &job, l, ops);
    plan_step_of(&job, l, &table, &step);
    return step.seconds;
}

static void check_job(const struct planned *p, const struct plan_layout *l,
                      const struct plan_ops *ops, double times)
{
    const double before = seconds_on(&p->machine, p->job, l, ops);
    for (i64 i = 0; i < COUNT_OF(ways); i++) {
        struct plan_machine better = p->machine;
        ways[i].improve(&better, times);
        const double after = seconds_on(&better, p->job, l, ops);
        if (!(after <= before * (1 + 1e-12)))
            fail_msg("%s on %s with %s, tp %lld pp %lld dp %lld, %s: %s %g times as good, %.6g s "
                     "instead of %.6g s", p->spec.name, p->machine.name, p->stack.name,
                     (long long)l->tp, (long long)l->pp, (long long)l->dp,
                     schedule_kind_name((enum schedule_kind)l->schedule), ways[i].name, times,
                     after, before);
    }
}

TEST(what_is_faster_makes_no_step_longer)
{
    const double all[] = { 1.1, 1.5, 4, 100 };
    i64 priced = 0;
    for (u64 i = 0; i < DRAWS && priced < PRICED; i++) {
        struct draws d = { { 17, i }, 0 };
        struct planned p;
        struct plan_layout l;
        draw_layout(&d, &l);
        draw_job(&p, &d, &l);
        bool computes = p.machine.device.peak[p.job.dtype] > 0;
        if (computes && !plan_layout_refused(&p.job, &l)) {
            struct plan_ops *ops = ARENA_NEW(&p.arena, struct plan_ops);
            if (plan_table_ops(ops, &p.job, &l) == OK) {
                check_job(&p, &l, ops, all[below(&d, COUNT_OF(all))]);
                priced++;
            }
        }
        arena_fini(&p.arena);
    }
    CHECK_EQ(priced, PRICED);
}

TEST_MAIN(ONE(what_is_faster_makes_no_step_longer))
